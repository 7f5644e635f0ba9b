//! What is asked of every operation before it may go: who writes how much, whose turn it is, and whether one of the same
//! id waits already. Effects: counts, and takes turns.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use searchcell_core::routing::Override;
use tokio::time::Instant;
use xxhash_rust::xxh3::{Xxh3DefaultBuilder, xxh3_64, xxh3_64_with_seed};

use crate::hot::Hot;
use crate::hot::marks::Marks;
use crate::hot::sketch::Sketch;
use crate::hot::turns::Turn;
use crate::routes::Route;

/// Why an operation cannot go now, and may go later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its table pauses writes to a destination.
    Paused,
    /// Its tenant has no index now.
    Nowhere,
    /// A migration moves its tenant, and nobody asks the router any more what it does.
    Fenced,
    /// Its tenant has a limit, and its turn is then.
    Turn(Instant),
    /// One before it with the same id waits.
    Behind,
}

impl Wait {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Wait::Paused => "paused",
            Wait::Nowhere => "nowhere",
            Wait::Fenced => "fenced",
            Wait::Turn(_) => "limit",
            Wait::Behind => "behind",
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wait::Paused => "writes to a destination of it are paused",
            Wait::Nowhere => "its tenant has no index now",
            Wait::Fenced => "its tenant is being moved, and the operator has not asked this router for long",
            Wait::Turn(_) => "its tenant writes more than it may",
            Wait::Behind => "one before it with the same id waits",
        })
    }
}

/// Of tenants, how many documents a second they may write.
pub type Limits = Vec<(u64, NonZeroU32)>;

/// What is asked of the operations of one request.
pub struct Ingress<'a> {
    hot: &'a Hot,
    counting: Option<MutexGuard<'a, Sketch>>,
    marks: Arc<Marks>,
    /// Whether tenants whom a migration moves have to wait.
    pub fenced: bool,
    now: Instant,
    latest: Option<Instant>,
    turns: Vec<Option<Instant>>,
    waiting: HashSet<u64, Xxh3DefaultBuilder>,
    limits: Limits,
    /// By position of the operation, in ascending order.
    taken: Vec<(usize, (u64, NonZeroU32))>,
}

impl<'a> Ingress<'a> {
    /// For operations that arrive. `latest`: the last turn that they can wait for; absent: they can wait for any.
    pub fn new(hot: &'a Hot, fenced: bool, now: Instant, latest: Option<Instant>) -> Self {
        Self { counting: hot.counting(), ..Self::again(hot, fenced, now, latest, Vec::new()) }
    }

    /// For operations that have waited, with the turns that they took.
    pub fn again(
        hot: &'a Hot,
        fenced: bool,
        now: Instant,
        latest: Option<Instant>,
        turns: Vec<Option<Instant>>,
    ) -> Self {
        let marks = hot.marks();
        Self {
            hot,
            counting: None,
            marks,
            fenced,
            now,
            latest,
            turns,
            waiting: HashSet::default(),
            limits: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// The next operation.
    pub fn next(&mut self) {
        self.limits.clear();
    }

    /// A document of a tenant: the lane that it is to have, if any. What limits it is noted for [`Ingress::admit`].
    pub fn arrives(
        &mut self,
        route: &Route,
        tenant: &str,
        bytes: usize,
        says: Option<&Override>,
    ) -> Option<u64> {
        let key = xxh3_64_with_seed(tenant.as_bytes(), route.seed);
        if let Some(sketch) = &mut self.counting {
            sketch.count(key, &route.collection, tenant, bytes);
        }
        let mark = self.marks.get(key);
        let limit = says.and_then(|says| says.documents_per_second).and_then(NonZeroU32::new);
        if let Some(limit) = limit.or_else(|| mark?.limit) {
            self.limits.push((key, limit));
        }
        let named = says.and_then(|says| says.lane.as_ref()).map(|name| xxh3_64(name.as_bytes()));
        named.or(mark.map(|_| key))
    }

    /// Whether an operation, all documents of which have arrived, may go: it has to wait, or it is too late for it by so
    /// much. `ids`: hashes of what it is stored as; `blocked`: why it cannot go whoever's turn it is.
    pub fn admit(
        &mut self,
        position: usize,
        ids: &[u64],
        blocked: Option<Wait>,
    ) -> Result<Option<Wait>, Duration> {
        let limits = std::mem::take(&mut self.limits);
        let behind = || !self.waiting.is_empty() && ids.iter().any(|id| self.waiting.contains(id));
        let wait = match blocked.or_else(|| behind().then_some(Wait::Behind)) {
            Some(wait) => Some(wait),
            None => self.turn(position, &limits)?.filter(|turn| *turn > self.now).map(Wait::Turn),
        };
        if wait.is_some() {
            self.waiting.extend(ids);
        }
        self.limits = limits;
        Ok(wait)
    }

    fn turn(&mut self, position: usize, limits: &Limits) -> Result<Option<Instant>, Duration> {
        let before = self.turns.get(position).copied().flatten();
        if before.is_some() || limits.is_empty() {
            return Ok(before);
        }
        match self.hot.take(limits, self.now, self.latest) {
            Turn::At(at) => {
                self.taken.extend(limits.iter().map(|limit| (position, *limit)));
                Ok(Some(at))
            }
            Turn::In(after) => Err(after),
        }
    }

    /// The turns that were taken for an operation.
    pub fn taken(&self, position: usize) -> Limits {
        let first = self.taken.partition_point(|(at, _)| *at < position);
        let of_it = self.taken.iter().skip(first).take_while(|(at, _)| *at == position);
        of_it.map(|(_, limit)| *limit).collect()
    }

    /// Nothing of this is carried out: gives all turns back.
    pub fn give_back(self) {
        let taken: Limits = self.taken.into_iter().map(|(_, limit)| limit).collect();
        self.hot.give_back(&taken);
    }
}
