//! When an operation of a tenant with a limit has its turn: the generic cell rate algorithm. Pure.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use super::sketch::ByKey;

/// How long a tenant may have been silent and then have what it missed at once.
const BURST: Duration = Duration::from_secs(1);

/// When an operation may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// At this time; it is taken.
    At(Instant),
    /// So long from now at the earliest, which is too late; nothing is taken.
    In(Duration),
}

/// Turns that are taken, per tenant.
#[derive(Debug, Default)]
pub struct Turns {
    /// When the turn after the last one that is taken would be, if turns were given evenly from now on.
    next: ByKey<Instant>,
}

impl Turns {
    /// Takes the next turn of a tenant with `limit` documents a second, unless it is after `latest`.
    pub fn take(&mut self, key: u64, limit: NonZeroU32, now: Instant, latest: Option<Instant>) -> Turn {
        let next = self.next.entry(key).or_insert(now);
        let even = (*next).max(now);
        let turn = even.checked_sub(BURST - BURST / limit.get()).unwrap_or(now).max(now);
        if latest.is_some_and(|latest| turn > latest) {
            return Turn::In(turn - now);
        }
        *next = even + BURST / limit.get();
        Turn::At(turn)
    }

    /// Gives back a turn that was not used.
    pub fn give_back(&mut self, key: u64, limit: NonZeroU32) {
        if let Some(next) = self.next.get_mut(&key)
            && let Some(before) = next.checked_sub(BURST / limit.get())
        {
            *next = before;
        }
    }

    /// Forgets tenants who have all turns of a burst.
    pub fn tidy(&mut self, now: Instant) {
        self.next.retain(|_, next| *next > now);
    }

    /// Tenants of whom turns are taken.
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_evenly_and_nothing_beyond_the_latest() {
        let mut turns = Turns::default();
        let limit = NonZeroU32::new(100).unwrap();
        let now = Instant::now();
        let latest = Some(now + Duration::from_secs(3));
        let taken: Vec<Turn> = (0..1_000).map(|_| turns.take(1, limit, now, latest)).collect();
        let at = |seconds: f64| {
            taken
                .iter()
                .filter(|turn| matches!(turn, Turn::At(at) if *at <= now + Duration::from_secs_f64(seconds)))
                .count()
        };
        assert_eq!((at(0.0), at(1.0), at(3.0)), (100, 200, 400));
        assert!(matches!(taken[400], Turn::In(after) if after > Duration::from_secs(3)));
        assert_eq!(taken[400], taken[999], "who is refused takes nothing");
        assert_eq!(turns.take(2, limit, now, latest), Turn::At(now), "others have their own");
        turns.give_back(1, limit);
        assert!(matches!(turns.take(1, limit, now, latest), Turn::At(_)));
        assert!(matches!(turns.take(1, limit, now, None), Turn::At(_)), "queues wait as long as it takes");
        turns.tidy(now + Duration::from_secs(60));
        assert!(turns.is_empty());
    }

    #[test]
    fn over_a_long_time_it_is_the_limit() {
        for limit in [1, 7, 1_000, 1_000_000] {
            let limit = NonZeroU32::new(limit).unwrap();
            let (mut turns, start) = (Turns::default(), Instant::now());
            let latest = Some(start + Duration::from_secs(20));
            let wanted = (u64::from(limit.get()) * 21).min(2_000_000);
            let mut count = 0;
            while count < wanted && matches!(turns.take(1, limit, start, latest), Turn::At(_)) {
                count += 1;
            }
            assert!(count >= wanted && count <= u64::from(limit.get()) * 21 + 1, "{limit}: {count}");
        }
    }
}
