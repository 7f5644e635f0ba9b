//! What becomes of one call over a network: slow, refused, effective, answer lost, or the caller dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::world::{Shared, World, lock};

/// One operator process dies when it has made so many more writes: before or after the last one has its effect.
#[derive(Debug, Default)]
pub struct Fate {
    left: Mutex<Option<(u64, bool)>>,
    pub died: Notify,
}

impl Fate {
    pub fn die_after(&self, writes: u64, with_effect: bool) {
        *self.left.lock().unwrap() = Some((writes, with_effect));
    }

    /// Counts a write: `Some(with_effect)` when it is the last one.
    fn count(&self) -> Option<bool> {
        let mut left = self.left.lock().unwrap();
        match left.as_mut() {
            Some((0, with_effect)) => Some(*with_effect),
            Some((more, _)) => {
                *more -= 1;
                None
            }
            None => None,
        }
    }
}

/// Whom a call goes to.
#[derive(Clone, Debug)]
pub enum Peer {
    ApiServer,
    /// `<cell>/<cluster>`
    Elastic(String),
}

/// One caller's way into the world.
#[derive(Clone)]
pub struct Line {
    pub world: Shared,
    /// Number of the operator process.
    pub id: usize,
    pub fate: Arc<Fate>,
    pub pass: Arc<Mutex<Pass>>,
}

/// What the present pass has looked at so far: material for the invariants.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// The cell was suspended when the pass began, as far as the process knew.
    pub suspended: bool,
    pub cell_read_live: bool,
    pub claims_read_live: BTreeSet<String>,
    /// Nodes by cluster (`<cell>/<cluster>`), as they were read last, in this pass or before it.
    pub members: BTreeMap<String, BTreeSet<String>>,
    /// Name and UID of the claims of the masters among them, as the caches have them; filled in for every write.
    pub claims_of_masters: BTreeSet<(String, String)>,
}

/// Why a call did not do what it was made for.
pub enum NoAnswer {
    /// No connection, or no answer in time: nobody knows whether it had its effect.
    Unreachable(&'static str),
    /// The server says no: a quota, a webhook, a full queue. It had no effect.
    Refused(&'static str),
}

impl Line {
    /// Runs `effect` in the world, as far as the network lets it. `is_write`: it counts as a step between which the
    /// process may die.
    pub async fn call<R>(
        &self,
        peer: Peer,
        is_write: bool,
        effect: impl FnOnce(&mut World) -> R + Send,
    ) -> Result<R, NoAnswer> {
        let (before, after, refuse, denied, lose) = {
            let mut world = lock(&self.world);
            let slow = world.network.slow;
            let delay = |world: &mut World| {
                if world.rng.chance(slow) { world.rng.range(500, 4_000) } else { world.rng.range(1, 60) }
            };
            let (before, after) = (delay(&mut world), delay(&mut world));
            let (refuse, lose) = (world.network.refuse, world.network.lose_answer);
            let refuse = world.rng.chance(refuse);
            let denied = refuse && is_write && world.rng.chance(30);
            (before, after, refuse, denied, world.rng.chance(lose))
        };
        // The effect of a write comes early: a request that is older than its own deadline is not served.
        tokio::time::sleep(Duration::from_millis(if is_write { before.min(1_500) } else { before })).await;
        let dies = is_write.then(|| self.fate.count()).flatten();
        if dies == Some(false) {
            self.die().await;
        }
        let answer = {
            let mut world = lock(&self.world);
            world.advance();
            if is_write {
                world.operator_writes += 1;
            }
            let cut = match &peer {
                Peer::ApiServer => world.network.without_api.contains(&self.id),
                Peer::Elastic(identity) => world.network.without_elastic.contains(identity),
            };
            if cut || refuse {
                None
            } else {
                let answer = effect(&mut world);
                Some(answer)
            }
        };
        if dies == Some(true) {
            self.die().await;
        }
        tokio::time::sleep(Duration::from_millis(after)).await;
        match answer {
            None if denied => Err(NoAnswer::Refused("denied for the time being")),
            None => Err(NoAnswer::Unreachable("connection refused")),
            Some(_) if lose => Err(NoAnswer::Unreachable("timed out waiting for the answer")),
            Some(answer) => Ok(answer),
        }
    }

    async fn die(&self) {
        lock(&self.world).note(format!("operator {} dies", self.id));
        self.fate.died.notify_one();
        std::future::pending::<()>().await;
    }
}
