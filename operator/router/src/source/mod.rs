//! Queues: what a driver for one has to do, whichever queue it is. No effects of its own.
//!
//! [`Source::poll`] pulls with credit → [`pump`] hands messages to the flow → [`message`] gathers the answers of all
//! copies of one → [`fate`] says what they mean → its [`Token`] tells the driver, which tells the queue.

pub mod fate;
pub mod held;
pub mod letter;
pub mod message;
pub mod meters;
pub mod nats;
pub mod pump;
pub mod settings;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use crate::flow::budget::Lease;

/// What a message costs beside its bytes: its record in the pump and in the driver.
pub const OVERHEAD: usize = 768;

/// What may be pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Bytes, as [`Delivery::cost`] counts them.
    pub bytes: usize,
    /// Messages.
    pub messages: usize,
}

/// How a queue is told that messages are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledges {
    /// Each by itself.
    Individually,
    /// Up to one of them, as with partitions of Kafka: a message that is returned holds up those behind it, so it has
    /// to be parked instead.
    Cumulatively,
}

/// What a queue can do.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// How it is told that messages are done.
    pub acknowledges: Acknowledges,
    /// Whether it keeps a returned message back for the time that it is told; otherwise the pump does.
    pub delays: bool,
    /// Bytes of the largest message that it has, headers included. No credit is smaller than what that costs.
    pub largest: usize,
}

/// A queue, as one reader of it sees it.
pub trait Source: Send + 'static {
    /// What it can do. As of the last [`Source::poll`], before the first one a guess.
    fn capabilities(&self) -> Capabilities;

    /// Messages, as many as there are now and the credit allows; waits a little when there are none, so that nobody
    /// asks in a loop. Each is kept from being delivered again for as long as its token is held. A call that is
    /// dropped loses nothing: the next one goes on with it, with the credit of the first.
    fn poll(&mut self, credit: Credit) -> impl Future<Output = Result<Vec<Delivery>, SourceError>> + Send;

    /// Pulls no more, and returns when the queue knows of every decision, or at `until`; then what is still held is
    /// returned to it.
    fn close(&mut self, until: Instant) -> impl Future<Output = ()> + Send;
}

/// Why nothing can be pulled now. It is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The queue cannot be reached, or does not answer. Text for people.
    #[error("the queue cannot be reached: {0}")]
    Unavailable(String),
    /// The queue, or the configuration, is not as it has to be. Text for people, with what to change.
    #[error("{0}")]
    Misconfigured(String),
}

/// Headers of a message, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(Arc<str>, String)>);

impl Headers {
    /// The first value of a header, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Puts a value in the place of all that have this name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.0.push((name.into(), value.into()));
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// A message that was pulled.
#[derive(Debug)]
pub struct Delivery {
    /// Its bytes, in memory of its own: a slice of what was read would keep all of that.
    pub payload: Bytes,
    /// Its headers.
    pub headers: Headers,
    /// Name of the stream (partition, subscription) that it is in.
    pub stream: Arc<str>,
    /// Its number there: with the stream it names the message, also when it is delivered again.
    pub sequence: u64,
    /// How often it has been delivered, this time included.
    pub attempt: u64,
    /// When it was published.
    pub published: SystemTime,
    /// Messages behind it; absent: the queue does not say.
    pub behind: Option<u64>,
    /// To decide what becomes of it.
    pub token: Token,
}

impl Delivery {
    /// What it holds of the budget.
    pub fn cost(&self) -> usize {
        self.payload.len() + self.headers.bytes() + OVERHEAD
    }
}

/// A copy of a message, for somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The original bytes.
    pub payload: Bytes,
    /// The original headers, and what has to be known of it.
    pub headers: Headers,
    /// The same whenever the same copy is made: a queue that knows duplicates takes only one.
    pub id: String,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is done.
    Ack,
    /// It is to be delivered again, after this time.
    Retry(Duration),
    /// It is to be parked: acknowledged after the queue has acknowledged this copy of it.
    Park(Letter),
    /// It is dead: acknowledged after the queue has acknowledged this copy of it.
    Dead(Letter),
    /// Nobody decided, which is a mistake: it is to be delivered again at once, and counted.
    Abandon,
}

/// Carries out a decision, in its own time. What it holds is dropped when the queue knows.
pub trait Settle: Send + Sync {
    /// Called exactly once.
    fn settle(self: Box<Self>, decision: Decision, hold: Option<Hold>);
}

/// The right, and the duty, to decide what becomes of a message, once.
#[must_use = "a message has to be acknowledged or returned"]
pub struct Token {
    settle: Option<Box<dyn Settle>>,
    hold: Option<Hold>,
}

impl Token {
    /// A token of a driver.
    pub fn new(settle: Box<dyn Settle>) -> Self {
        Self { settle: Some(settle), hold: None }
    }

    /// Ties what the message takes up to it.
    pub fn holds(mut self, hold: Hold) -> Self {
        self.hold = Some(hold);
        self
    }

    /// It is done.
    pub fn ack(self) {
        self.decide(Decision::Ack);
    }

    /// It is to be delivered again, after this time.
    pub fn retry(self, after: Duration) {
        self.decide(Decision::Retry(after));
    }

    /// It is to be parked.
    pub fn park(self, letter: Letter) {
        self.decide(Decision::Park(letter));
    }

    /// It is dead.
    pub fn dead(self, letter: Letter) {
        self.decide(Decision::Dead(letter));
    }

    fn decide(mut self, decision: Decision) {
        if let Some(settle) = self.settle.take() {
            settle.settle(decision, self.hold.take());
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.settle(Decision::Abandon, self.hold.take());
        }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What a message takes up until the queue knows what became of it: bytes of the budget, and a place among the
/// messages that are held at once.
#[derive(Debug)]
pub struct Hold {
    _lease: Lease,
    places: Arc<AtomicUsize>,
}

impl Hold {
    /// Of a message; `places` counts those that are held.
    pub fn new(lease: Lease, places: Arc<AtomicUsize>) -> Self {
        places.fetch_add(1, Ordering::AcqRel);
        Self { _lease: lease, places }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.places.fetch_sub(1, Ordering::AcqRel);
    }
}
