//! One cluster: whose turn it is, how much at once, and what answers mean for who waits. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::aimd::Aimd;
use super::answer::{Answer, Block, Why};
use super::classify::Verdict;
use super::destination::{Destination, Gate};
use super::judge::{Digest, Trouble, digest, halve, settle, turn_away};
use super::limits::{Limits, Step};
use super::reply::ItemReply;
use super::segment::{Item, Segment};
use crate::transport::Reply;

/// A bulk to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Names it in [`Cluster::complete`].
    pub id: u64,
    /// Name of the index.
    pub index: Arc<str>,
    /// Lines.
    pub body: Bytes,
    /// Operations.
    pub items: usize,
}

#[derive(Debug)]
struct Flying {
    destination: usize,
    segment: Segment,
    /// Whether there were as many bulks on their way as allowed.
    limited: bool,
    probe: bool,
}

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    destinations: Vec<Destination>,
    by_index: HashMap<Arc<str>, usize>,
    line: VecDeque<usize>,
    flying: BTreeMap<u64, Flying>,
    timers: BTreeSet<(Instant, usize)>,
    next_id: u64,
    probes: usize,
    aimd: Aimd,
    gate: Gate,
    /// Whether something would be sent if the gate were open: then its opening is a time to look again.
    gate_awaited: bool,
    max_bytes: usize,
    cost: usize,
}

/// What a destination looks like, for people.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Name of the index.
    pub index: String,
    /// Operations that wait.
    pub waiting: usize,
    /// Lanes beside the common one in which some of them wait.
    pub lanes: usize,
    /// Bulks on their way.
    pub in_flight: usize,
    /// Bytes that it holds of the budget.
    pub bytes: usize,
    /// Failures in a row.
    pub failures: u32,
    /// Milliseconds until it is tried again; 0: now.
    pub retry_in_ms: u128,
    /// Why it takes no writes.
    pub blocked: Option<&'static str>,
}

impl Cluster {
    /// A cluster of which nothing is known.
    pub fn new(limits: &Limits) -> Self {
        Self {
            destinations: Vec::new(),
            by_index: HashMap::new(),
            line: VecDeque::new(),
            flying: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_id: 0,
            probes: 0,
            aimd: Aimd::new(limits.concurrency_start, limits.concurrency_max),
            gate: Gate::default(),
            gate_awaited: false,
            max_bytes: limits.bulk_bytes,
            cost: 0,
        }
    }

    /// Whether nothing waits and nothing is on its way.
    pub fn idle(&self) -> bool {
        self.cost == 0
    }

    /// Bulks on their way, and how many may be.
    pub fn concurrency(&self) -> (usize, usize) {
        (self.flying.len(), self.aimd.limit())
    }

    /// Bytes that it holds of the budget.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Its destinations, those included that nothing waits for.
    pub fn views(&self, now: Instant) -> Vec<View> {
        let view = |destination: &Destination| {
            let (failures, until, block) = destination.gate.view();
            View {
                index: destination.index.to_string(),
                waiting: destination.waiting(),
                lanes: destination.lanes(),
                in_flight: destination.in_flight,
                bytes: destination.cost,
                failures,
                retry_in_ms: until.map_or(0, |until| until.saturating_duration_since(now).as_millis()),
                blocked: block.map(Block::name),
            }
        };
        self.destinations.iter().map(view).collect()
    }

    /// Takes operations for an index.
    pub fn offer(&mut self, index: &Arc<str>, segment: Segment, step: &mut Step<'_>) {
        let position = self.position(index, step.limits);
        let Some(destination) = self.destinations.get_mut(position) else { return };
        let block = self.gate.blocked(step.now).or(destination.gate.blocked(step.now));
        if let Some(block) = block {
            return turn_away(Some(segment), &Why::Blocked(block), step);
        }
        let sick = destination.gate.sick() || self.gate.sick();
        let share = if sick { step.limits.sick_share } else { step.limits.cluster_share };
        // A queue keeps each message as it came beside what is sent of it, so half of a share is all of it.
        let from_queue = segment.items().iter().any(|item| item.deadline.is_none());
        let kept = if from_queue { 2 } else { 1 };
        let cost = segment.cost();
        // What has a lane of its own leaves half to its neighbours.
        let share = step.limits.share(share) / kept;
        let laned = segment.lane.is_some() && destination.laned + cost > share / 2;
        if laned
            || destination.cost + cost > share
            || self.cost + cost > step.limits.share(step.limits.cluster_share) / kept
        {
            return turn_away(Some(segment), &Why::Full, step);
        }
        destination.offer(segment);
        self.cost += cost;
        self.look(position, step);
    }

    /// The bulks to be sent now.
    pub fn pump(&mut self, step: &mut Step<'_>) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        self.fire(step);
        self.gate_awaited = !self.gate.open(step.now) && !self.line.is_empty();
        let mut turns = self.line.len();
        while turns > 0 && self.flying.len() < self.allowed(step.now) {
            turns -= 1;
            let Some(position) = self.line.pop_front() else { break };
            let limit = self.aimd.limit();
            let others = !self.line.is_empty();
            let Some(destination) = self.destinations.get_mut(position) else { continue };
            if !destination.ready(step.now, step.limits) {
                destination.queued = false;
                self.schedule(position, step);
                continue;
            }
            let probe = destination.gate.sick();
            // A quarter of what is allowed finds out about what does not work; half of it is for one destination.
            let cap = if probe {
                1
            } else if others {
                limit.div_ceil(2)
            } else {
                limit
            };
            if destination.in_flight >= cap || (probe && self.probes >= limit.div_ceil(4)) {
                self.line.push_back(position);
                continue;
            }
            let Some(mut segment) = destination.take(self.max_bytes, step) else {
                destination.queued = false;
                continue;
            };
            destination.in_flight += 1;
            segment.items_mut().iter_mut().for_each(|item| item.tries = item.tries.saturating_add(1));
            self.next_id += 1;
            self.probes += usize::from(probe);
            step.tally.bulks.push((segment.len(), segment.bytes()));
            outgoing.push(Outgoing {
                id: self.next_id,
                index: Arc::clone(&destination.index),
                body: segment.body(),
                items: segment.len(),
            });
            let limited = self.flying.len() + 1 >= limit;
            self.flying.insert(self.next_id, Flying { destination: position, segment, limited, probe });
            self.line.push_back(position);
            turns = self.line.len();
        }
        outgoing
    }

    /// When to pump although nothing happened.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        // Also when it has opened since: it is awaited until somebody has looked.
        let gate = self.gate_awaited.then(|| self.gate.opens(now).unwrap_or(now));
        self.timers.first().map(|(at, _)| *at).into_iter().chain(gate).min()
    }

    /// Takes what came of a bulk.
    pub fn complete(&mut self, id: u64, reply: Reply, step: &mut Step<'_>) {
        let Some(flying) = self.flying.remove(&id) else { return };
        self.probes -= usize::from(flying.probe).min(self.probes);
        let Some(destination) = self.destinations.get_mut(flying.destination) else { return };
        destination.in_flight = destination.in_flight.saturating_sub(1);
        let was_sick = destination.gate.sick();
        let before = destination.cost;
        let trouble = match digest(reply, flying.segment.len()) {
            Digest::Items(items) => settle(destination, flying.segment, items, step),
            Digest::Whole(verdict @ (Verdict::Halve | Verdict::TooLarge), refused) => {
                if verdict == Verdict::TooLarge && flying.segment.len() > 1 {
                    self.max_bytes = (flying.segment.bytes() / 2).clamp(1, self.max_bytes);
                }
                halve(destination, flying.segment, refused, step);
                Trouble::default()
            }
            Digest::Whole(verdict, refused) => {
                let item = ItemReply { verdict, said: Err(Box::new(refused)) };
                let items = vec![item; flying.segment.len()];
                settle(destination, flying.segment, items, step)
            }
        };
        self.cost -= (before - destination.cost.min(before)).min(self.cost);
        let everywhere = trouble.unreachable || trouble.blocked == Some(Block::Unauthorized);
        if everywhere {
            self.gate.fail(trouble.blocked, step);
        } else if !trouble.lost {
            self.gate.heal();
        }
        if trouble.partial() {
            destination.gate.rest(step);
        } else if !everywhere && trouble.any() {
            destination.gate.fail(trouble.blocked, step);
        } else if !everywhere {
            destination.gate.heal();
        }
        // Time lost on a destination that is known not to work says nothing about the cluster.
        if trouble.congested || (trouble.lost && !was_sick) {
            self.aimd.congested(step.now);
        } else if !trouble.any() {
            self.aimd.answered(flying.limited);
        }
        let which =
            if everywhere { 0..self.destinations.len() } else { flying.destination..flying.destination + 1 };
        let gate = (self.destinations.get(flying.destination)).filter(|_| !everywhere);
        let gate = gate.map_or(&self.gate, |destination| &destination.gate);
        if let Some(block) = trouble.blocked {
            self.end(which, &Why::Blocked(block), |_| true, step);
        } else if trouble.any() && gate.sick_for(step.now) >= step.limits.hold {
            // A queue can wait elsewhere, and longer; and what waits here keeps its table in use.
            self.end(which, &Why::Held, |item| item.deadline.is_none(), step);
        }
        self.look(flying.destination, step);
    }

    /// Nothing more comes: what waits goes at once.
    pub fn hurry(&mut self, step: &mut Step<'_>) {
        for position in 0..self.destinations.len() {
            if let Some(destination) = self.destinations.get_mut(position) {
                destination.hurry();
            }
            self.look(position, step);
        }
    }

    /// Time is up: what waits is answered; what is on its way stays so.
    pub fn stop(&mut self, step: &mut Step<'_>) {
        self.end(0..self.destinations.len(), &Why::Stopping, |_| true, step);
    }

    /// Nobody says any more where what a migration moves is to go: what waits of it is answered.
    pub fn fence(&mut self, step: &mut Step<'_>) {
        self.end(0..self.destinations.len(), &Why::Fenced, |item| item.moves, step);
        for position in 0..self.destinations.len() {
            self.look(position, step);
        }
    }

    fn end(
        &mut self,
        which: std::ops::Range<usize>,
        why: &Why,
        mut whose: impl FnMut(&Item) -> bool,
        step: &mut Step<'_>,
    ) {
        for position in which {
            let flying = self.soonest_flying(position);
            let Some(destination) = self.destinations.get_mut(position) else { continue };
            let before = destination.cost;
            destination.end(why, &mut whose, step);
            self.cost -= (before - destination.cost.min(before)).min(self.cost);
            // It knows of what waits; who waits for what is on its way has a deadline, too.
            destination.soonest = destination.soonest.into_iter().chain(flying).min();
        }
    }

    fn soonest_flying(&self, position: usize) -> Option<Instant> {
        let flying = self.flying.values().filter(|flying| flying.destination == position);
        flying.filter_map(|flying| flying.segment.deadline()).min()
    }

    fn allowed(&self, now: Instant) -> usize {
        match (self.gate.open(now), self.gate.sick()) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => self.aimd.limit(),
        }
    }

    fn position(&mut self, index: &Arc<str>, limits: &Limits) -> usize {
        if let Some(position) = self.by_index.get(index) {
            return *position;
        }
        let position = self.destinations.len();
        self.destinations.push(Destination::new(Arc::clone(index), limits));
        self.by_index.insert(Arc::clone(index), position);
        position
    }

    /// After anything happened to a destination: puts it in line, and sets its timer.
    fn look(&mut self, position: usize, step: &mut Step<'_>) {
        if let Some(destination) = self.destinations.get_mut(position)
            && !destination.queued
            && destination.ready(step.now, step.limits)
        {
            destination.queued = true;
            self.line.push_back(position);
        }
        self.schedule(position, step);
    }

    fn schedule(&mut self, position: usize, step: &mut Step<'_>) {
        let Some(destination) = self.destinations.get_mut(position) else { return };
        let next = destination.next(step.now, step.limits);
        if destination.wake != next {
            if let Some(wake) = destination.wake {
                self.timers.remove(&(wake, position));
            }
            self.timers.extend(next.map(|next| (next, position)));
            destination.wake = next;
        }
    }

    /// Looks after the destinations whose time has come.
    fn fire(&mut self, step: &mut Step<'_>) {
        while let Some((at, position)) = self.timers.first().copied().filter(|(at, _)| *at <= step.now) {
            self.timers.remove(&(at, position));
            let Some(destination) = self.destinations.get_mut(position) else { continue };
            destination.wake = None;
            if destination.soonest.is_some_and(|soonest| soonest <= step.now) {
                self.expire_flying(position, step);
                let now = step.now;
                let late = |item: &Item| item.deadline.is_some_and(|deadline| deadline <= now);
                self.end(position..position + 1, &Why::Timeout, late, step);
            }
            self.look(position, step);
        }
    }

    /// What is on its way and late is answered; it keeps its bytes and its place until it is known what became of it.
    fn expire_flying(&mut self, position: usize, step: &mut Step<'_>) {
        for flying in self.flying.values_mut().filter(|flying| flying.destination == position) {
            for item in flying.segment.items_mut() {
                if item.deadline.is_some_and(|deadline| deadline <= step.now) {
                    step.answer(item, Answer::Unknown(Why::Timeout));
                }
            }
        }
    }
}
