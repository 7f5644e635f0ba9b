//! What waits for one destination, and whether it may be sent. Pure.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::answer::{Block, Why};
use super::lane::Lane;
use super::limits::{Limits, Step};
use super::segment::{Item, Segment};

/// Whether a destination or a cluster works, and when to look again.
#[derive(Debug, Default)]
pub struct Gate {
    failures: u32,
    since: Option<Instant>,
    until: Option<Instant>,
    block: Option<Block>,
    rests: u32,
}

/// The pause of who takes only a part of each bulk doubles no more often.
const MOST_RESTS: u32 = 2;

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

    /// Something succeeded, and there was no room for the rest: it works, after a pause that stays short.
    pub fn rest(&mut self, step: &mut Step<'_>) {
        let rests = if self.open(step.now) { (self.rests + 1).min(MOST_RESTS) } else { self.rests };
        let until = self.until.filter(|until| *until > step.now);
        let until = until.unwrap_or_else(|| step.now + step.limits.pause(rests, step.dice));
        *self = Gate { rests, until: Some(until), ..Gate::default() };
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
    /// What those in lanes of their own hold of it.
    pub laned: usize,
    /// Bulks on their way.
    pub in_flight: usize,
    /// Whether it is in its cluster's line.
    pub queued: bool,
    /// When its cluster's timer looks at it.
    pub wake: Option<Instant>,
    /// No later than the first deadline of its clients.
    pub soonest: Option<Instant>,
    /// The common one, which is always there, and those of tenants who are kept apart, while something waits there.
    lanes: Vec<Lane>,
    /// Whose turn is next.
    turn: usize,
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
            laned: 0,
            in_flight: 0,
            queued: false,
            wake: None,
            soonest: None,
            lanes: vec![Lane::new(None)],
            turn: 0,
            busy: HashSet::default(),
            held: BTreeMap::new(),
            linger: limits.linger,
        }
    }

    /// Operations that wait, those behind another of the same id included.
    pub fn waiting(&self) -> usize {
        let lanes: usize = self.lanes.iter().map(Lane::items).sum();
        lanes + self.held.values().map(VecDeque::len).sum::<usize>()
    }

    /// Lanes beside the common one in which something waits.
    pub fn lanes(&self) -> usize {
        self.lanes.len().saturating_sub(1)
    }

    /// Takes operations. Of those that must be in order, each waits for the one before it with the same id.
    pub fn offer(&mut self, segment: Segment) {
        self.cost += segment.cost();
        if segment.lane.is_some() {
            self.laned += segment.cost();
        }
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
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == segment.lane) {
            return lane.enter(segment, front);
        }
        let mut lane = Lane::new(segment.lane);
        lane.enter(segment, front);
        self.lanes.push(lane);
    }

    fn free(&mut self, lane: Option<u64>, item: &Item, step: &mut Step<'_>) {
        self.cost -= item.cost().min(self.cost);
        if lane.is_some() {
            self.laned -= item.cost().min(self.laned);
        }
        step.tally.freed += item.cost();
    }

    /// Operations of a segment are over.
    pub fn end_of(&mut self, segment: Segment, step: &mut Step<'_>) {
        let lane = segment.lane;
        for item in segment.into_items() {
            self.over(lane, &item, step);
        }
    }

    /// An operation is over: what it cost is free, and the next of its id may go.
    fn over(&mut self, lane: Option<u64>, item: &Item, step: &mut Step<'_>) {
        self.free(lane, item, step);
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
        self.lanes.iter().any(|lane| lane.full(limits, self.linger, now))
    }

    /// When to look again although nothing happens: the gate opens, the linger ends, a deadline passes.
    pub fn next(&self, now: Instant, limits: &Limits) -> Option<Instant> {
        let firsts = || self.lanes.iter().filter_map(Lane::first);
        let sending = match self.gate.opens(now) {
            _ if firsts().next().is_none() => None,
            Some(opens) => Some(opens),
            None if self.full(limits, now) => None,
            None => firsts().map(|first| first.since + self.linger).min(),
        };
        // Deadlines are looked at in steps, so that many that differ a little cost one look.
        let deadline = self.soonest.map(|soonest| soonest + Duration::from_millis(5));
        sending.into_iter().chain(deadline).min()
    }

    /// The next bulk, of at most so many bytes unless a single operation has more. Lanes take turns bulk by bulk.
    pub fn take(&mut self, max_bytes: usize, step: &Step<'_>) -> Option<Segment> {
        let limits = step.limits;
        let max_items = if self.gate.sick() { limits.probe_items.max(1) } else { limits.bulk_items.max(1) };
        let count = self.lanes.len();
        let mut turns = (self.turn..self.turn + count).map(|turn| turn % count);
        let full =
            |at: &usize| self.lanes.get(*at).is_some_and(|lane| lane.full(limits, self.linger, step.now));
        let position = turns.find(full)?;
        let lane = self.lanes.get_mut(position)?;
        self.linger = lane.linger(self.linger, limits);
        let taken = lane.take(max_bytes, max_items);
        if position > 0 && lane.is_empty() {
            self.lanes.remove(position);
            self.turn = position;
        } else {
            self.turn = position + 1;
        }
        taken
    }

    /// Ends what waits and fits `which`, with `why`.
    pub fn end(&mut self, why: &Why, mut which: impl FnMut(&Item) -> bool, step: &mut Step<'_>) {
        let mut ended: Vec<Segment> =
            self.lanes.iter_mut().flat_map(|lane| lane.remove(&mut which)).collect();
        let mut behind = Vec::new();
        self.held.retain(|_, line| {
            for _ in 0..line.len() {
                let Some(single) = line.pop_front() else { break };
                let (gone, stays) = single.select(&mut which);
                line.extend(stays);
                behind.extend(gone);
            }
            !line.is_empty()
        });
        // Nobody waits for those that waited for others themselves.
        for segment in behind {
            let lane = segment.lane;
            for mut item in segment.into_items() {
                self.free(lane, &item, step);
                step.give_up(&mut item, why.clone());
            }
        }
        for mut segment in ended.drain(..) {
            for item in segment.items_mut() {
                step.give_up(item, why.clone());
            }
            self.end_of(segment, step);
        }
        self.turn = 0;
        self.lanes.retain(|lane| lane.name.is_none() || !lane.is_empty());
        let waiting = self.lanes.iter().flat_map(Lane::waiting).chain(self.held.values().flatten());
        self.soonest = waiting.filter_map(Segment::deadline).min();
    }

    /// Lets what waits go at once: nothing more comes.
    pub fn hurry(&mut self) {
        self.lanes.iter_mut().for_each(Lane::hurry);
    }
}
