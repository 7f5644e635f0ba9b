//! What became of an operation, and whom to tell: each is told exactly once. No effects of its own.

use std::fmt;
use std::sync::Arc;

use super::classify::Class;

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Elasticsearch did it, or found nothing to delete.
    Done(Done),
    /// Elasticsearch refused it; it has not been applied.
    Refused(Box<Refused>),
    /// It has not been applied: it was never sent, or each time it was sent it came back unapplied.
    Unsent(Why),
    /// It was sent, and nobody knows whether it was applied.
    Unknown(Why),
}

/// Why the router itself answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The time that the client gave is over.
    Timeout,
    /// What waits for the destination or its cluster already has its share of memory.
    Full,
    /// The destination takes no writes now.
    Blocked(Block),
    /// The destination has not worked for longer than operations of a queue wait for it.
    Held,
    /// It was tried as often as such a failure is tried. Text for people: what happened last.
    GaveUp(Class, Box<str>),
    /// A migration moves its tenant, and nobody has asked this router for long what it does.
    Fenced,
    /// The router stops.
    Stopping,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Timeout => f.write_str("the timeout of the request is over"),
            Why::Full => f.write_str("too much is waiting for this destination"),
            Why::Blocked(block) => write!(f, "the destination takes no writes now: {block}"),
            Why::Held => f.write_str("the destination has not worked for a while"),
            Why::GaveUp(_, last) => f.write_str(last),
            Why::Fenced => {
                f.write_str("the tenant is being moved, and the operator has not asked this router for long")
            }
            Why::Stopping => f.write_str("the router is stopping"),
        }
    }
}

/// Why a destination takes no writes until somebody or something changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Block {
    /// A block on the index, for example because a disk is full.
    ReadOnly,
    /// There is no such index, or it is closed.
    Missing,
    /// The router's credential is not accepted.
    Unauthorized,
}

impl Block {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Block::ReadOnly => "read_only",
            Block::Missing => "missing",
            Block::Unauthorized => "unauthorized",
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Block::ReadOnly => "it is read-only",
            Block::Missing => "its index is missing or closed",
            Block::Unauthorized => "the router's credential is not accepted",
        })
    }
}

/// What Elasticsearch said of an operation that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// HTTP status of the item.
    pub status: u16,
    /// What happened to the document.
    pub result: Outcome,
    /// `_version` afterwards.
    pub version: i64,
    /// `_seq_no` of the operation.
    pub seq_no: i64,
    /// `_primary_term` of the operation.
    pub primary_term: i64,
    /// `_shards`: copies that should have it, that have it, that failed.
    pub shards: [u32; 3],
}

/// `result` of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was no such document before.
    Created,
    /// There was one.
    Updated,
    /// It is gone.
    Deleted,
    /// There was none to delete.
    NotFound,
    /// Nothing had to be changed.
    Noop,
}

/// What Elasticsearch said of an operation that it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status of the item.
    pub status: u16,
    /// `error.type`.
    pub kind: Box<str>,
    /// `error.reason`, cut to a length that a budget can rely on.
    pub reason: Box<str>,
    /// `error.caused_by`: type and reason of the innermost cause that is told.
    pub cause: Option<(Box<str>, Box<str>)>,
}

/// Whoever wants to know what becomes of operations: an HTTP request, a message of a queue.
pub trait Answers: Send + Sync {
    /// Called exactly once for each slot that a ticket was made for.
    fn answer(&self, slot: u32, answer: Answer);
}

/// The right, and the duty, to answer one operation.
pub struct Ticket {
    to: Option<Arc<dyn Answers>>,
    slot: u32,
}

impl Ticket {
    /// A ticket for a slot.
    pub fn new(to: Arc<dyn Answers>, slot: u32) -> Self {
        Self { to: Some(to), slot }
    }

    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        if let Some(to) = self.to.take() {
            to.answer(self.slot, answer);
        }
    }
}

impl Drop for Ticket {
    /// Nobody may be left without an answer, and whoever lost the ticket cannot know more than this.
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            to.answer(self.slot, Answer::Unknown(Why::Stopping));
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.slot)
    }
}
