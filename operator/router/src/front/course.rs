//! The way of one request's operations: what can go goes at once, and what cannot waits by itself, copied out of the
//! request's body, until its table, its turn or the fence lets it go, or the request's time is over. Effects: hands
//! operations to the flow, counts.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use memchr::memchr_iter;
use tokio::time::Instant;

use super::App;
use super::body;
use super::bulk::{Action, BulkError, Meta, Operations, Verb, Word};
use super::error::Failure;
use super::ingress::{Ingress, Wait};
use super::pending::Pending;
use super::plan::{Asked, Plan, Request, Waiting};
use crate::flow::answer::{Answer, Ticket};
use crate::flow::budget::{Budget, Lease};
use crate::flow::segment::OVERHEAD;
use crate::meters::PerWait;

/// Turns that come within this time are waited for together: otherwise each would be a bulk of its own.
const TOGETHER: Duration = Duration::from_millis(100);

/// Bytes that a line of a body needs while it is found out what is to be done.
const PLANNED: usize = 192;
/// Bytes that an operation needs until its client has the answer: what was asked, and what is told.
const ANSWER: usize = 448;

fn overloaded() -> Failure {
    Failure::overloaded("not applied: the router holds as much as it may: send it again later")
}

/// How long a request waits, and whether its writes are to be found afterwards.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// When its client wants an answer.
    pub until: Instant,
    /// The last turn that an operation waits for.
    pub latest: Instant,
    /// Whether its writes are to be found afterwards.
    pub refresh: bool,
}

/// What the request says for all of its operations.
#[derive(Clone, Copy)]
pub(super) struct What<'a> {
    /// `_index` of operations that name none.
    pub index: Option<&'a str>,
    /// `routing` of operations that name none.
    pub routing: Option<&'a str>,
    /// Whether the user may write to a collection.
    pub may_write: &'a (dyn Fn(&str) -> bool + Sync),
}

/// What became of the operations of a request.
pub(super) struct Outcome {
    /// The operations, in the order asked.
    pub asked: Vec<Asked>,
    /// Of each copy.
    pub answers: Vec<Option<Answer>>,
    /// Where copies went, if that has to be known: cluster and index.
    pub places: Vec<(Arc<str>, Arc<str>)>,
    /// For as long as the answer is in memory.
    pub lease: Lease,
}

/// An operation that waits.
struct Held {
    /// Its position in the request.
    position: usize,
    verb: Verb,
    meta: Meta<'static>,
    document: Option<Box<[u8]>>,
    wait: Wait,
    /// The turn that it took.
    turn: Option<Instant>,
    cost: usize,
    /// Which room it has: that of who waits for another table, or for a turn.
    kind: Kind,
}

/// What operations wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    Turn,
}

impl Held {
    fn new(position: usize, action: Action<'_>, id: &str, wait: Wait) -> Self {
        let own = |word: Word<'_>| Word(Cow::Owned(word.0.into_owned()));
        let Meta { index, routing, version, version_type, if_seq_no, if_primary_term, .. } = action.meta;
        // Its id also where the router made it, so that it keeps it. What it may not have was refused.
        let meta = Meta {
            index: index.map(own),
            id: Some(Word(Cow::Owned(id.to_owned()))),
            routing: routing.map(own),
            version,
            version_type: version_type.map(own),
            if_seq_no,
            if_primary_term,
            ..Meta::default()
        };
        let words = [&meta.index, &meta.id, &meta.routing, &meta.version_type];
        let names: usize = words.into_iter().flatten().map(|Word(word)| word.len()).sum();
        let document: Option<Box<[u8]>> = action.document.map(Box::from);
        let cost = document.as_ref().map_or(0, |document| document.len()) + names + 2 * OVERHEAD;
        let (turn, kind) = match wait {
            Wait::Turn(at) => (Some(at), Kind::Turn),
            _ => (None, Kind::Table),
        };
        Self { position, verb: action.verb, meta, document, wait, turn, cost, kind }
    }

    fn action(&self) -> Action<'_> {
        fn word<'a>(word: &'a Option<Word<'static>>) -> Option<Word<'a>> {
            word.as_ref().map(|Word(word)| Word(Cow::Borrowed(word.as_ref())))
        }
        let meta = &self.meta;
        let meta = Meta {
            index: word(&meta.index),
            id: word(&meta.id),
            routing: word(&meta.routing),
            version_type: word(&meta.version_type),
            version: meta.version,
            if_seq_no: meta.if_seq_no,
            if_primary_term: meta.if_primary_term,
            ..Meta::default()
        };
        Action { verb: self.verb, meta, document: self.document.as_deref() }
    }
}

/// The room that operations have while they wait, of all of the budget and of the part for those that wait.
struct Room {
    bytes: Lease,
    share: Lease,
}

impl Room {
    fn new(budget: &Arc<Budget>, share: &Arc<Budget>) -> Option<Self> {
        Some(Self { bytes: budget.take(0)?, share: share.take(0)? })
    }

    /// Takes so much more; false: there is not so much.
    fn grow(&mut self, cost: usize) -> bool {
        if !self.share.grow(cost) {
            return false;
        }
        let fits = self.bytes.grow(cost);
        if !fits {
            self.share.give_back(cost);
        }
        fits
    }
}

/// One request on its way.
pub(super) struct Course<'a> {
    app: &'a App,
    what: What<'a>,
    patience: Patience,
    asked: Vec<Asked>,
    /// The copies that were sent, in the order of [`Asked::copies`].
    sent: Vec<Arc<Pending>>,
    copies: usize,
    places: Vec<(Arc<str>, Arc<str>)>,
    held: Vec<Held>,
    /// When operations were last sent.
    looked: Instant,
    /// What is told has its part of the budget until the client has it.
    answer: Lease,
    /// Of those that wait for another table.
    for_table: Option<Room>,
    /// Of those that wait for their turn.
    for_turn: Option<Room>,
}

impl<'a> Course<'a> {
    /// Sends what can go. Nothing of the body is kept but what waits.
    pub fn begin(
        app: &'a App,
        what: What<'a>,
        patience: Patience,
        body: body::Held,
        read: impl for<'b> Fn(&'b [u8]) -> Result<Operations<'b>, BulkError>,
    ) -> Result<Self, Failure> {
        let now = Instant::now();
        // A body of many small operations needs more to be understood than it has bytes.
        let lines = memchr_iter(b'\n', &body.bytes).count();
        let planning = app.core.budget().take(lines.saturating_mul(PLANNED));
        let mut planning = planning.ok_or_else(overloaded)?;
        let mut course = Self {
            app,
            what,
            patience,
            asked: Vec::new(),
            sent: Vec::new(),
            copies: 0,
            places: Vec::new(),
            held: Vec::new(),
            looked: now,
            answer: app.core.budget().take(0).ok_or_else(overloaded)?,
            for_table: Room::new(app.core.budget(), &app.pauses),
            for_turn: Room::new(app.core.budget(), &app.queues),
        };
        let routes = app.directory.current();
        let mut ingress = Ingress::new(&app.hot, app.fence.is_up(now), now, Some(patience.latest));
        let read = read(&body.bytes);
        let planned = read.and_then(|read| Plan::of(read, &course.request(&routes), &mut ingress));
        let mut plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                ingress.give_back();
                return Err(Failure::illegal(error.to_string()));
            }
        };
        let answer = plan.asked.len().saturating_mul(ANSWER);
        let missing = answer.saturating_sub(planning.bytes());
        let lease = app.core.budget().take(plan.cost()).filter(|_| planning.grow(missing));
        let Some(lease) = lease else {
            drop(plan);
            ingress.give_back();
            return Err(overloaded());
        };
        course.asked = std::mem::take(&mut plan.asked);
        let waiting = std::mem::take(&mut plan.waiting);
        course.send(&plan, lease);
        drop(plan);
        course.answer = planning.split(answer);
        drop(planning);
        course.hold(waiting, &ingress);
        Ok(course)
    }

    /// When to go on although nothing has changed; absent: nothing waits any more.
    pub fn wake(&self) -> Option<Instant> {
        let turn = |held: &Held| match held.wait {
            Wait::Turn(at) => Some(at.max(self.looked + TOGETHER)),
            _ => None,
        };
        let until = self.patience.until;
        (!self.held.is_empty()).then(|| self.held.iter().filter_map(turn).min().unwrap_or(until).min(until))
    }

    /// Sends what can go by now.
    pub fn go_on(&mut self) {
        let now = Instant::now();
        self.looked = now;
        let mut held = std::mem::take(&mut self.held);
        let actions = held.iter().map(Held::action).collect();
        let turns = held.iter().map(|held| held.turn).collect();
        let routes = self.app.directory.current();
        let fenced = self.app.fence.is_up(now);
        let mut ingress = Ingress::again(&self.app.hot, fenced, now, Some(self.patience.latest), turns);
        let mut plan = Plan::new(actions, &self.request(&routes), &mut ingress);
        let asked = std::mem::take(&mut plan.asked);
        let mut waits = vec![None; held.len()];
        for waiting in std::mem::take(&mut plan.waiting) {
            if let Some(wait) = waits.get_mut(waiting.position) {
                *wait = Some(waiting.wait);
            }
        }
        let lease = self.app.core.budget().take(plan.cost());
        for (held, asked) in held.iter().zip(asked) {
            let copies = match (asked.copies, &lease) {
                (Ok(copies), Some(_)) => Ok(copies.start + self.copies..copies.end + self.copies),
                (Ok(_), None) => Err(overloaded()),
                (Err(failure), _) => Err(failure),
            };
            if let Some(asked) = self.asked.get_mut(held.position) {
                asked.copies = copies;
            }
        }
        if let Some(lease) = lease {
            self.send(&plan, lease);
        }
        drop(plan);
        let mut waits = waits.into_iter();
        held.retain_mut(|held| {
            let Some(wait) = waits.next().flatten() else {
                self.free(held);
                return false;
            };
            if let Wait::Turn(at) = wait {
                held.turn = Some(at);
            }
            held.wait = wait;
            true
        });
        self.held = held;
    }

    /// Waits for the answers.
    pub async fn end(self) -> Outcome {
        drop((self.held, self.for_table, self.for_turn));
        let mut answers = Vec::with_capacity(self.copies);
        for pending in self.sent {
            answers.append(&mut pending.all().await);
        }
        Outcome { asked: self.asked, answers, places: self.places, lease: self.answer }
    }

    fn request<'r>(&'r self, routes: &'r crate::routes::Routes) -> Request<'r> {
        let What { index, routing, may_write } = self.what;
        Request { routes, index, routing, may_write, minter: &self.app.minter, now: SystemTime::now() }
    }

    fn send(&mut self, plan: &Plan<'_>, lease: Lease) {
        if plan.copies() == 0 {
            return;
        }
        let pending = Arc::new(Pending::new(plan.copies()));
        let bulk = (self.app.sizes.bulk_bytes, self.app.sizes.bulk_operations);
        let ticket = |slot| Some(Ticket::new(Arc::clone(&pending) as _, slot));
        let parcels = plan.parcels(ticket, Some(self.patience.until), Instant::now(), bulk);
        if self.patience.refresh {
            self.places.append(&mut plan.places(0..plan.copies()));
        }
        self.app.core.submit(parcels, lease);
        self.copies += plan.copies();
        self.sent.push(pending);
    }

    /// Keeps what cannot go yet, as far as there is room.
    fn hold(&mut self, waiting: Vec<Waiting<'_>>, ingress: &Ingress<'_>) {
        let mut full = Vec::new();
        for Waiting { position, action, wait } in waiting {
            let Some(asked) = self.asked.get_mut(position) else { continue };
            let held = Held::new(position, action, &asked.id, wait);
            let room = match held.kind {
                Kind::Table => &mut self.for_table,
                Kind::Turn => &mut self.for_turn,
            };
            // Where one has found no room, no later one goes before it.
            if full.contains(&held.kind) || !room.as_mut().is_some_and(|room| room.grow(held.cost)) {
                if !full.contains(&held.kind) {
                    full.push(held.kind);
                }
                let reason = format!("not applied: {wait}, and too much waits for that: send it again later");
                asked.copies = Err(Failure::overloaded(reason));
                self.app.hot.give_back(&ingress.taken(position));
                continue;
            }
            self.app.meters.delayed.get_or_create(&PerWait { reason: wait.name() }).inc();
            self.held.push(held);
        }
    }

    fn free(&mut self, held: &Held) {
        let room = match held.kind {
            Kind::Table => &mut self.for_table,
            Kind::Turn => &mut self.for_turn,
        };
        if let Some(room) = room {
            room.bytes.give_back(held.cost);
            room.share.give_back(held.cost);
        }
    }
}
