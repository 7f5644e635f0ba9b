//! What waits for one destination, and whether it may be sent. Pure.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::answer::{Block, Why};
use super::limits::{Limits, Step};
use super::segment::{Item, Segment};

/// Whether a destination or a cluster works, and when to look again.
#[derive(Debug, Default)]
pub struct Gate {
    failures: u32,
    since: Option<Instant>,
    until: Option<Instant>,
    block: Option<Block>,
}

impl Gate {
    /// Whether something may be sent now.
    pub fn open(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Whether the last that was sent failed: until something succeeds, only little is sent, to find out.
    pub fn sick(&self) -> bool {
        self.failures > 0
    }

    /// For how long it has not worked.
    pub fn sick_for(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Why nothing may be sent, when that is for a reason that does not pass by itself.
    pub fn blocked(&self, now: Instant) -> Option<Block> {
        if self.open(now) { None } else { self.block }
    }

    /// Failures in a row, when it opens, and why it is closed: for people.
    pub fn view(&self) -> (u32, Option<Instant>, Option<Block>) {
        (self.failures, self.until, self.block)
    }

    /// When it opens; absent: it is open.
    pub fn opens(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Something failed.
    pub fn fail(&mut self, block: Option<Block>, step: &mut Step<'_>) {
        self.since = self.since.or(Some(step.now));
        self.block = block.or(self.block.filter(|_| !self.open(step.now)));
        // What was under way together fails together, and is one failure.
        if self.open(step.now) {
            self.failures = self.failures.saturating_add(1);
            self.until = Some(step.now + step.limits.pause(self.failures, step.dice));
        }
    }

    /// Something succeeded.
    pub fn heal(&mut self) {
        *self = Gate::default();
    }
}

/// What waits for one destination.
#[derive(Debug)]
pub struct Destination {
    /// Name of the index.
    pub index: Arc<str>,
    /// Whether it works.
    pub gate: Gate,
    /// What it holds of the budget.
    pub cost: usize,
    /// Bulks on their way.
    pub in_flight: usize,
    /// Whether it is in its cluster's line.
    pub queued: bool,
    /// When its cluster's timer looks at it.
    pub wake: Option<Instant>,
    /// No later than the first deadline of its clients.
    pub soonest: Option<Instant>,
    waiting: VecDeque<Segment>,
    waiting_bytes: usize,
    waiting_items: usize,
    flushing: usize,
    busy: HashSet<u64, Xxh3DefaultBuilder>,
    held: BTreeMap<u64, VecDeque<Segment>>,
    linger: Duration,
}

impl Destination {
    /// Nothing waits yet.
    pub fn new(index: Arc<str>, limits: &Limits) -> Self {
        Self {
            index,
            gate: Gate::default(),
            cost: 0,
            in_flight: 0,
            queued: false,
            wake: None,
            soonest: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_items: 0,
            flushing: 0,
            busy: HashSet::default(),
            held: BTreeMap::new(),
            linger: limits.linger,
        }
    }

    /// Operations that wait, those behind another of the same id included.
    pub fn waiting(&self) -> usize {
        self.waiting_items + self.held.values().map(VecDeque::len).sum::<usize>()
    }

    /// Takes operations. Of those that must be in order, each waits for the one before it with the same id.
    pub fn offer(&mut self, segment: Segment) {
        self.cost += segment.cost();
        self.soonest = self.soonest.into_iter().chain(segment.deadline()).min();
        let busy = &mut self.busy;
        let (free, behind) = segment.select(|item| item.order.is_none_or(|id| busy.insert(id)));
        for single in behind.into_iter().flat_map(Segment::singles) {
            if let Some(id) = single.items().first().and_then(|item| item.order) {
                self.held.entry(id).or_default().push_back(single);
            }
        }
        if let Some(free) = free {
            self.enter(free, false);
        }
    }

    /// Takes back what has to be sent again, before all that waits.
    pub fn retry(&mut self, mut segment: Segment) {
        segment.flush = true;
        self.soonest = self.soonest.into_iter().chain(segment.deadline()).min();
        self.enter(segment, true);
    }

    fn enter(&mut self, segment: Segment, front: bool) {
        self.waiting_bytes += segment.bytes();
        self.waiting_items += segment.len();
        self.flushing += usize::from(segment.flush);
        if front { self.waiting.push_front(segment) } else { self.waiting.push_back(segment) }
    }

    fn leave(&mut self) -> Option<Segment> {
        let segment = self.waiting.pop_front()?;
        self.waiting_bytes -= segment.bytes().min(self.waiting_bytes);
        self.waiting_items -= segment.len().min(self.waiting_items);
        self.flushing -= usize::from(segment.flush).min(self.flushing);
        Some(segment)
    }

    /// An operation is over: what it cost is free, and the next of its id may go.
    pub fn over(&mut self, item: &Item, step: &mut Step<'_>) {
        self.cost -= item.cost().min(self.cost);
        step.tally.freed += item.cost();
        let Some(id) = item.order else { return };
        let Some(line) = self.held.get_mut(&id) else {
            self.busy.remove(&id);
            return;
        };
        let next = line.pop_front();
        if line.is_empty() {
            self.held.remove(&id);
        }
        if let Some(next) = next {
            self.enter(next, false);
        }
    }

    /// Whether something is to be sent now, as far as this destination is concerned.
    pub fn ready(&self, now: Instant, limits: &Limits) -> bool {
        self.gate.open(now) && self.full(limits, now)
    }

    fn full(&self, limits: &Limits, now: Instant) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        self.flushing > 0
            || self.waiting_bytes >= limits.bulk_bytes
            || self.waiting_items >= limits.bulk_items
            || first.since + self.linger <= now
    }

    /// When to look again although nothing happens: the gate opens, the linger ends, a deadline passes.
    pub fn next(&self, now: Instant, limits: &Limits) -> Option<Instant> {
        let sending = match self.gate.opens(now) {
            _ if self.waiting.is_empty() => None,
            Some(opens) => Some(opens),
            None if self.full(limits, now) => None,
            None => self.waiting.front().map(|first| first.since + self.linger),
        };
        // Deadlines are looked at in steps, so that many that differ a little cost one look.
        let deadline = self.soonest.map(|soonest| soonest + Duration::from_millis(5));
        sending.into_iter().chain(deadline).min()
    }

    /// The next bulk, of at most so many bytes unless a single operation has more.
    pub fn take(&mut self, max_bytes: usize, limits: &Limits) -> Option<Segment> {
        self.adapt_linger(limits);
        let max_items = if self.gate.sick() { limits.probe_items.max(1) } else { limits.bulk_items.max(1) };
        let mut first = self.leave()?;
        while first.len() > max_items || (first.bytes() > max_bytes && first.len() > 1) {
            let count = max_items.min(first.len() / 2).max(1);
            let (chosen, rest) = first.split(count);
            if let Some(rest) = rest {
                self.enter(rest, true);
            }
            first = chosen?;
        }
        if first.alone {
            return Some(first);
        }
        let (mut bytes, mut items) = (first.bytes(), first.len());
        let mut parts = vec![first];
        while let Some(next) = self.waiting.front() {
            if next.alone || bytes + next.bytes() > max_bytes || items + next.len() > max_items {
                break;
            }
            bytes += next.bytes();
            items += next.len();
            parts.extend(self.leave());
        }
        Segment::merge(parts)
    }

    /// A destination whose bulks fill up before their time needs no linger; one whose bulks stay small waits longer.
    fn adapt_linger(&mut self, limits: &Limits) {
        if self.flushing > 0 {
            return;
        }
        let full = self.waiting_bytes >= limits.bulk_bytes || self.waiting_items >= limits.bulk_items;
        let small =
            self.waiting_bytes < limits.bulk_bytes / 16 && self.waiting_items < limits.bulk_items / 16;
        if full {
            self.linger = limits.linger;
        } else if small {
            self.linger = (self.linger * 2).clamp(limits.linger, limits.linger_max.max(limits.linger));
        }
    }

    /// Ends what waits and fits `which`, with `why`.
    pub fn end(&mut self, why: &Why, mut which: impl FnMut(&Item) -> bool, step: &mut Step<'_>) {
        let mut ended = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some(segment) = self.leave() else { break };
            let (gone, stays) = segment.select(&mut which);
            ended.extend(gone);
            if let Some(stays) = stays {
                self.enter(stays, false);
            }
        }
        let mut emptied = Vec::new();
        for (id, line) in &mut self.held {
            for _ in 0..line.len() {
                let Some(single) = line.pop_front() else { break };
                let (gone, stays) = single.select(&mut which);
                line.extend(stays);
                for mut item in gone.into_iter().flat_map(Segment::into_items) {
                    self.cost -= item.cost().min(self.cost);
                    step.tally.freed += item.cost();
                    step.give_up(&mut item, why.clone());
                }
            }
            if line.is_empty() {
                emptied.push(*id);
            }
        }
        for id in emptied {
            self.held.remove(&id);
        }
        for mut item in ended.into_iter().flat_map(Segment::into_items) {
            step.give_up(&mut item, why.clone());
            self.over(&item, step);
        }
        self.soonest =
            (self.waiting.iter().chain(self.held.values().flatten())).filter_map(Segment::deadline).min();
    }

    /// Lets what waits go at once: nothing more comes.
    pub fn hurry(&mut self) {
        for segment in &mut self.waiting {
            segment.flush = true;
        }
        self.flushing = self.waiting.len();
    }
}
