//! From a queue to the flow: pulls with credit, resolves, hands on. Effects: pulls, decides, hands operations to the
//! flow.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use searchcell_crds::Versioning;
use tokio::sync::watch;
use tokio::time::Instant;

use super::fate::Dead;
use super::letter::{self, ATTEMPTS, Meant, Order, Original, SEQUENCE, STREAM};
use super::message::{Message, Rules};
use super::settings::PARKING;
use super::{Acknowledges, Credit, Delivery, Hold, OVERHEAD, Source, SourceError, Token};
use crate::fence::Fence;
use crate::flow::Core;
use crate::flow::answer::Ticket;
use crate::front::bulk::{Action, Meta, Verb, Word};
use crate::front::error::Failure;
use crate::front::ingress::{Ingress, Wait};
use crate::front::plan::{Plan, Request, Target};
use crate::hot::Hot;
use crate::ids::{self, Minter};
use crate::routes::{Directory, Routes};

/// Messages that are resolved together.
const TOGETHER: usize = 512;
/// Most bytes of a pull, unless a single message may have more.
const PULL: usize = 4 << 20;
/// Most messages of a pull.
const PULL_MESSAGES: usize = 1_024;
/// How long to wait for room in the budget, and after a pull that brought little: what came meanwhile comes together.
const BREATH: Duration = Duration::from_millis(10);
/// Longest pause between pulls of what is parked, while what comes back has to wait on.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// First pause after a queue could not be read; it doubles.
const AWAY: Duration = Duration::from_millis(100);
/// Part of the budget that the copies of one message may need: a destination that works may hold a quarter of it for
/// queues.
const LARGEST: usize = 8;
/// Part of the budget that queues fill at most: the rest is for clients.
const PART: (usize, usize) = (3, 4);

/// What a pump works with.
pub struct Works {
    /// `queue` or `parking`.
    pub name: &'static str,
    /// Where operations go.
    pub core: Arc<Core>,
    /// Tables.
    pub directory: Arc<Directory>,
    /// Sizes of bulks: bytes and operations.
    pub bulk: (usize, usize),
    /// Collections that are configured.
    pub collections: Vec<String>,
    /// Collection of messages that do not name one.
    pub collection: Option<String>,
    /// Most messages that are held at once.
    pub most: usize,
    /// What messages have in common.
    pub rules: Arc<Rules>,
    /// Tenants that write far more than others.
    pub hot: Arc<Hot>,
    /// Whether tenants whom a migration moves have to wait.
    pub fence: Arc<Fence>,
}

/// Reads one queue.
pub struct Pump<S> {
    source: S,
    desk: Desk,
}

/// Everything of a pump but its queue.
struct Desk {
    works: Works,
    /// For the plan, which asks for it; messages have ids of their own.
    minter: Minter,
    held: Arc<AtomicUsize>,
}

/// Messages between the queue and the flow: what each asks for, and what it is.
#[derive(Default)]
struct Batch {
    orders: Vec<Order>,
    messages: Vec<(Original, Token)>,
    /// Whether it is known already how much their tenants write.
    counted: bool,
}

impl Batch {
    fn split_off(&mut self, at: usize) -> Self {
        let at = at.min(self.orders.len());
        let counted = self.counted;
        Self { orders: self.orders.split_off(at), messages: self.messages.split_off(at), counted }
    }
}

impl Drop for Batch {
    /// The pump stops while they wait for room: others will have them.
    fn drop(&mut self) {
        self.messages.drain(..).for_each(|(_, token)| token.retry(Duration::ZERO));
    }
}

impl<S: Source> Pump<S> {
    /// A pump of a queue.
    pub fn new(source: S, works: Works) -> Self {
        let desk = Desk { works, minter: Minter::new([0; 5]), held: Arc::default() };
        Self { source, desk }
    }

    /// Reads until it is told to stop; then the source is closed by `until`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, grace: Duration) {
        let mut failures = 0_u32;
        let mut pause = Duration::ZERO;
        loop {
            let waited = self.desk.works.rules.waited.load(Ordering::Relaxed);
            let pulled = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                pulled = self.pull() => pulled,
            };
            let rest = match pulled {
                Ok(count) => {
                    failures = 0;
                    self.desk.told(None);
                    if count < PULL_MESSAGES / 4 { BREATH } else { Duration::ZERO }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.desk.told(Some(error));
                    AWAY.saturating_mul(1 << failures.min(6))
                }
            };
            // What is parked is pulled faster when it can be written.
            let waits = waited != self.desk.works.rules.waited.load(Ordering::Relaxed);
            let slow = waits && self.desk.works.name == PARKING;
            pause = if slow { (pause * 2).clamp(BREATH * 10, PAUSE_MAX) } else { Duration::ZERO };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(rest.max(pause)) => {}
            }
        }
        self.source.close(Instant::now() + grace).await;
        self.desk.works.rules.meters.held(self.desk.works.name, self.desk.held.load(Ordering::Acquire));
    }

    /// Pulls once, as much as there is credit for, and hands it on. Dropped while it waits for the queue, it loses
    /// nothing; while it waits for room, messages return to the queue.
    async fn pull(&mut self) -> Result<usize, SourceError> {
        let (lease, credit) = loop {
            let capabilities = self.source.capabilities();
            if capabilities.acknowledges == Acknowledges::Cumulatively && !self.desk.works.rules.parks {
                let why = "source.parking: this queue needs it, since it cannot return one message";
                return Err(SourceError::Misconfigured(why.to_owned()));
            }
            let budget = self.desk.works.core.budget();
            let least = capabilities.largest.saturating_add(OVERHEAD);
            let part = budget.limit() / PART.1 * PART.0;
            if least > part / 4 {
                return Err(SourceError::Misconfigured(format!(
                    "limits.budget has no room for messages of {least} bytes: {} are needed",
                    least.saturating_mul(6)
                )));
            }
            let places = self.desk.works.most.saturating_sub(self.desk.held.load(Ordering::Acquire));
            let bytes = PULL.min(part / 8).max(least);
            self.desk.works.rules.meters.held(self.desk.works.name, self.desk.held.load(Ordering::Acquire));
            let tables = self
                .desk
                .works
                .collections
                .iter()
                .any(|name| self.desk.works.directory.current().contains_key(name));
            if tables
                && places > 0
                && budget.used().saturating_add(bytes) <= part
                && let Some(lease) = budget.take(bytes)
            {
                break (lease, Credit { bytes, messages: places.min(PULL_MESSAGES) });
            }
            tokio::time::sleep(BREATH).await;
        };
        let deliveries = self.source.poll(credit).await?;
        let oldest = deliveries.iter().map(|delivery| delivery.published).min();
        let behind = deliveries.last().and_then(|delivery| delivery.behind);
        self.desk.works.rules.meters.received(self.desk.works.name, deliveries.len(), oldest, behind);
        let count = deliveries.len();
        let mut lease = lease;
        let mut batch = Batch::default();
        for delivery in deliveries {
            let hold = Hold::new(lease.split(delivery.cost()), Arc::clone(&self.desk.held));
            if let Some((order, original, token)) = self.desk.read(delivery, hold) {
                batch.orders.push(order);
                batch.messages.push((original, token));
            }
        }
        drop(lease);
        while !batch.orders.is_empty() {
            let rest = batch.split_off(TOGETHER);
            self.desk.hand_on(batch).await;
            batch = rest;
        }
        Ok(count)
    }
}

impl Desk {
    fn told(&self, error: Option<SourceError>) {
        let what = error.map(|error| format!("{}: {error}", self.works.name));
        if self.works.rules.meters.trouble(self.works.name, what.clone()) {
            match what {
                Some(what) => tracing::error!(what, "a queue cannot be read"),
                None => tracing::info!(queue = self.works.name, "the queue can be read"),
            }
        }
    }

    /// What a message asks for; absent: that cannot be said, and it is dead.
    fn read(&self, delivery: Delivery, hold: Hold) -> Option<(Order, Original, Token)> {
        let Delivery { payload, headers, stream, sequence, attempt, published, token, .. } = delivery;
        let token = token.holds(hold);
        let here = (stream, sequence);
        // Only where the router itself puts messages are these headers the router's own.
        let parked = (self.works.name == PARKING)
            .then(|| Some((headers.get(STREAM)?.into(), headers.get(SEQUENCE)?.parse().ok()?)))
            .flatten();
        let before = parked.as_ref().and_then(|_| headers.get(ATTEMPTS)?.parse::<u64>().ok());
        let original = Original {
            origin: parked.unwrap_or_else(|| here.clone()),
            here,
            rounds: attempt.saturating_add(before.unwrap_or_default()),
            attempt,
            published,
            payload,
            headers,
        };
        let rules = &self.works.rules;
        let order = letter::read(
            &original.payload,
            &original.headers,
            &rules.names,
            self.works.collection.as_deref(),
        );
        match order {
            Ok(order) => Some((order, original, token)),
            Err(dead) => {
                rules.dead(token, &original, &Meant::default(), &dead, None);
                None
            }
        }
    }

    /// Hands messages to the flow, as soon as there is room for them.
    async fn hand_on(&self, batch: Batch) {
        let mut batches = vec![batch];
        while let Some(batch) = batches.pop() {
            match self.offer(batch) {
                Offered::Taken => {}
                Offered::TooMany(mut batch) => {
                    let half = batch.split_off(batch.orders.len() / 2);
                    batches.extend([half, batch]);
                }
                Offered::NoRoom(batch) => {
                    batches.push(batch);
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    fn offer(&self, mut batch: Batch) -> Offered {
        let works = &self.works;
        let routes = works.directory.current();
        let each = batch.orders.iter().zip(&batch.messages);
        let meant: Vec<Meant> = each.map(|(order, (original, _))| meant(order, original, &routes)).collect();
        let orders = std::mem::take(&mut batch.orders);
        let actions = orders.iter().zip(&meant).map(|(order, meant)| action(order, meant)).collect();
        let request = Request {
            routes: &routes,
            index: None,
            routing: None,
            may_write: &|_| true,
            minter: &self.minter,
            now: SystemTime::UNIX_EPOCH,
        };
        let now = Instant::now();
        let fenced = works.fence.is_up(now);
        // Who writes more than allowed has the next turn when the message comes back.
        let mut ingress = if batch.counted {
            Ingress::again(&works.hot, fenced, now, Some(now), Vec::new())
        } else {
            Ingress::new(&works.hot, fenced, now, Some(now))
        };
        batch.counted = true;
        let mut plan = Plan::new(actions, &request, &mut ingress);
        let budget = works.core.budget();
        let (cost, most) = (plan.cost(), budget.limit() / LARGEST);
        let too_large = cost > most;
        let lease = match budget.take(if too_large { 0 } else { cost }) {
            Some(lease) if !too_large || orders.len() == 1 => lease,
            lease => {
                ingress.give_back();
                batch.orders = orders;
                return if lease.is_some() { Offered::TooMany(batch) } else { Offered::NoRoom(batch) };
            }
        };
        drop(ingress);
        let asked = std::mem::take(&mut plan.asked);
        let mut waits: BTreeMap<usize, Wait> =
            plan.waiting.drain(..).map(|waiting| (waiting.position, waiting.wait)).collect();
        let mut tickets: Vec<Option<Ticket>> = std::iter::repeat_with(|| None).take(plan.copies()).collect();
        let messages = std::mem::take(&mut batch.messages);
        let each = asked.into_iter().zip(messages).zip(meant.iter().cloned());
        for (position, ((asked, (original, token)), meant)) in each.enumerate() {
            let rules = &works.rules;
            match waits.remove(&position) {
                // A migration: the next table says where to.
                Some(Wait::Paused | Wait::Fenced) => {
                    rules.back(token, original.attempt);
                    continue;
                }
                Some(wait) => {
                    rules.later(token, &original, &meant, &wait.to_string());
                    continue;
                }
                None => {}
            }
            let range = match asked.copies {
                Ok(range) => range,
                Err(failure) => {
                    self.refused(&asked.index, &failure, (original, token), &meant);
                    continue;
                }
            };
            let targets: Option<Vec<Target>> = range.clone().map(|copy| plan.target(copy)).collect();
            let targets = targets.unwrap_or_default();
            if too_large {
                let copies = targets.len();
                let reason =
                    format!("its {copies} copies need {cost} bytes, and limits.budget allows {most}");
                let dead = Dead { status: 413, kind: "too_large".to_owned(), reason };
                rules.dead(token, &original, &meant, &dead, None);
            } else if targets.is_empty() {
                rules.back(token, original.attempt);
            } else {
                let message = Arc::new(Message::new(Arc::clone(rules), original, meant, targets, token));
                let places = tickets.iter_mut().skip(range.start).take(range.len());
                for (slot, place) in (0_u32..).zip(places) {
                    *place = Some(Ticket::new(Arc::clone(&message) as _, slot));
                }
            }
        }
        let ticket = |slot| {
            tickets.get_mut(usize::try_from(slot).ok()?).and_then(|ticket: &mut Option<_>| ticket.take())
        };
        let parcels = plan.parcels(ticket, None, Instant::now(), works.bulk);
        works.core.submit(parcels, lease);
        Offered::Taken
    }

    /// A message that the table has no place for.
    fn refused(&self, collection: &str, failure: &Failure, message: (Original, Token), meant: &Meant) {
        let (original, token) = message;
        let works = &self.works;
        let configured = works.collections.iter().any(|known| known == collection);
        if configured && !works.directory.current().contains_key(collection) {
            // Its table is still to come.
            works.rules.back(token, original.attempt);
        } else if failure.status == StatusCode::TOO_MANY_REQUESTS.as_u16() {
            works.rules.later(token, &original, meant, &failure.reason);
        } else {
            let dead = Dead {
                status: failure.status,
                kind: failure.kind.to_string(),
                reason: failure.reason.clone(),
            };
            works.rules.dead(token, &original, meant, &dead, None);
        }
    }
}

/// What became of a batch that was offered.
enum Offered {
    /// Each of them is in the flow, or decided.
    Taken,
    /// Together they would need too much of the budget.
    TooMany(Batch),
    /// There is no room in the budget now.
    NoRoom(Batch),
}

/// What a message without an id means: one of its own, from what names it for good. Where the router does not number
/// versions, it creates: so it is written once, however often it is delivered.
fn meant(order: &Order, original: &Original, routes: &Routes) -> Meant {
    if order.id.is_some() || order.verb == Some(Verb::Delete) {
        return Meant::default();
    }
    let counts =
        routes.get(&order.collection).is_some_and(|route| route.table.versioning == Versioning::None);
    let (stream, sequence) = &original.origin;
    // A stream that is made anew counts from one again; and what is there already would not be written.
    let stream = format!("{stream} {}", original.born());
    Meant {
        id: Some(ids::of_message(&stream, *sequence)),
        verb: counts.then_some(Verb::Create),
        tenants: None,
    }
}

fn action<'a>(order: &'a Order, meant: &'a Meant) -> Action<'a> {
    fn word(text: &str) -> Word<'_> {
        Word(Cow::Borrowed(text))
    }
    let meta = Meta {
        index: Some(word(&order.collection)),
        id: order.id.as_deref().or(meant.id.as_deref()).map(word),
        routing: order.tenant.as_deref().map(word),
        version: order.version,
        ..Meta::default()
    };
    let verb = meant.verb.or(order.verb).unwrap_or(Verb::Index);
    Action { verb, meta, document: order.document.as_deref() }
}
