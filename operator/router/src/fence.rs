//! Whether the operator still knows what this router does. A migration goes on without a router that is not heard of
//! for long; so such a router must not write any more where its table says that tenants are being moved. No effects but
//! its own state.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::meters::Meters;
use crate::routes::Directory;

/// How often it is looked whether the fence is up.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The fence around tenants whom a migration moves.
#[derive(Debug)]
pub struct Fence {
    after: Option<Duration>,
    read: Mutex<Instant>,
}

/// What a reader is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whether the fence was up until now.
    pub fenced: bool,
    /// How long ago the generations were read before this, or since the start.
    pub since: Duration,
}

impl Fence {
    /// One that is up when the generations have not been read for `after`, counted from now; absent: it never is.
    /// A router that was restarted with an old table is as dangerous as one that was cut off.
    pub fn new(after: Option<Duration>, now: Instant) -> Self {
        Self { after, read: Mutex::new(now) }
    }

    /// Whether it is up.
    pub fn is_up(&self, now: Instant) -> bool {
        self.after.is_some_and(|after| self.since(now) >= after)
    }

    /// Somebody reads the generations.
    pub fn read(&self, now: Instant) -> Heard {
        let heard = Heard { fenced: self.is_up(now), since: self.since(now) };
        if let Ok(mut read) = self.read.lock() {
            *read = now;
        }
        heard
    }

    fn since(&self, now: Instant) -> Duration {
        // A lock that is lost is a reader that was lost: as if nobody had read for ever.
        self.read.lock().map_or(Duration::MAX, |read| now.saturating_duration_since(*read))
    }
}

/// While the fence is up, ends what waits in the flow of tenants whom a migration moves; runs as long as the router.
/// `end` ends it.
pub async fn watch(fence: Arc<Fence>, directory: Arc<Directory>, meters: Arc<Meters>, end: impl Fn() + Send) {
    let mut was_up = false;
    loop {
        let is_up = fence.is_up(Instant::now());
        if is_up {
            // Every time: what was on its way may have come back to be sent again.
            end();
        }
        if is_up != was_up {
            meters.fenced.set(i64::from(is_up));
            if is_up {
                tracing::warn!("nobody has read /generation for long: tenants whom a migration moves wait");
            } else {
                tracing::info!("/generation is read again: nobody waits for that any more");
                directory.look_again();
            }
        }
        was_up = is_up;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_when_not_read_for_long_from_the_start_on_and_down_when_read() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let fence = Fence::new(Some(Duration::from_secs(60)), start);
        assert!(!fence.is_up(at(59)) && fence.is_up(at(60)));
        assert_eq!(fence.read(at(61)), Heard { fenced: true, since: Duration::from_secs(61) });
        assert!(!fence.is_up(at(120)) && fence.is_up(at(121)));
        let off = Fence::new(None, start);
        assert!(!off.is_up(at(1_000_000)));
        assert_eq!(off.read(at(5)).since, Duration::from_secs(5));
    }
}
