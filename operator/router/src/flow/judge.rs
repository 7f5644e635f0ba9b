//! What an answer means for the operations of a bulk: which are over, which are sent again, and what that says about
//! their destination. Pure.

use super::answer::{Answer, Block, Refused, Why};
use super::classify::{Class, Verdict};
use super::destination::Destination;
use super::limits::Step;
use super::reply::{self, ItemReply};
use super::segment::{Item, Segment};
use crate::transport::Reply;

/// Signs of trouble in one answer.
#[derive(Default)]
pub struct Trouble {
    /// The cluster has too much to do.
    pub congested: bool,
    /// The destination cannot take it.
    pub destination: bool,
    /// The answer was lost.
    pub lost: bool,
    /// No node could be reached.
    pub unreachable: bool,
    /// It takes no writes.
    pub blocked: Option<Block>,
    /// Some of it was done all the same.
    pub progress: bool,
}

impl Trouble {
    fn note(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Again(Class::Rejected) => self.congested = true,
            Verdict::Again(Class::Unreachable) => self.unreachable = true,
            Verdict::Doubtful(Class::Lost) => self.lost = true,
            Verdict::Again(_) | Verdict::Doubtful(_) => self.destination = true,
            Verdict::Blocked(block) => self.blocked = Some(block),
            Verdict::Final | Verdict::Halve | Verdict::TooLarge => {}
        }
    }

    /// Whether Elasticsearch took what it could, and had no room for the rest.
    pub fn partial(&self) -> bool {
        let other = self.destination || self.lost || self.unreachable || self.blocked.is_some();
        self.congested && self.progress && !other
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.congested || self.destination || self.lost || self.unreachable || self.blocked.is_some()
    }
}

/// Answers operations that are not taken.
pub fn turn_away(segment: Option<Segment>, why: &Why, step: &mut Step<'_>) {
    for mut item in segment.into_iter().flat_map(Segment::into_items) {
        step.tally.freed += item.cost();
        step.give_up(&mut item, why.clone());
    }
}

/// What a reply says.
pub enum Digest {
    /// Of each operation.
    Items(Vec<ItemReply>),
    /// Of the whole request.
    Whole(Verdict, Refused),
}

/// What a reply to so many operations says.
pub fn digest(reply: Reply, sent: usize) -> Digest {
    let whole = |verdict, kind: &str, reason: String| {
        let refused = Refused { status: 503, kind: kind.into(), reason: reason.into(), cause: None };
        Digest::Whole(verdict, refused)
    };
    match reply {
        Reply::NotSent(why) => whole(Verdict::Again(Class::Unreachable), "unreachable", why),
        Reply::Lost(why) => whole(Verdict::Doubtful(Class::Lost), "lost", why),
        Reply::Answered { status: 200, body } => match reply::items(&body, sent) {
            Ok(items) => Digest::Items(items),
            Err(error) => whole(Verdict::Doubtful(Class::Lost), "lost", error.to_string()),
        },
        Reply::Answered { status, body } => {
            let (verdict, refused) = reply::refusal(status, &body);
            Digest::Whole(verdict, refused)
        }
    }
}

/// Answers each operation that is over, and takes back the others.
pub fn settle(
    destination: &mut Destination,
    mut segment: Segment,
    replies: Vec<ItemReply>,
    step: &mut Step<'_>,
) -> Trouble {
    let mut trouble = Trouble::default();
    let mut again = Vec::with_capacity(segment.len());
    for (item, reply) in segment.items_mut().iter_mut().zip(replies) {
        trouble.note(reply.verdict);
        trouble.progress |= reply.said.is_ok();
        again.push(judge(item, reply, step));
    }
    let mut marks = again.into_iter();
    let (again, over) = segment.select(|_| marks.next().unwrap_or(false));
    if let Some(again) = again {
        destination.retry(again);
    }
    if let Some(over) = over {
        destination.end_of(over, step);
    }
    trouble
}

/// Answers an operation, or says that it is to be sent again.
fn judge(item: &mut Item, reply: ItemReply, step: &mut Step<'_>) -> bool {
    let from_queue = item.deadline.is_none();
    let class = match reply.verdict {
        Verdict::Again(class) | Verdict::Doubtful(class) => class,
        Verdict::Blocked(Block::ReadOnly) if !item.doubt && !from_queue => {
            step.answer(item, said(reply));
            return false;
        }
        Verdict::Blocked(block) => {
            step.give_up(item, Why::Blocked(block));
            return false;
        }
        Verdict::Final | Verdict::Halve | Verdict::TooLarge => {
            step.answer(item, said(reply));
            return false;
        }
    };
    let doubtful = matches!(reply.verdict, Verdict::Doubtful(_));
    item.doubt |= doubtful;
    // Its client was answered already that nobody knows: so nobody needs to find out.
    if item.ticket.is_none() {
        return false;
    }
    let last = || match &reply.said {
        Err(refused) => format!("{}: {}", refused.kind, refused.reason).into(),
        Ok(_) => "no answer".into(),
    };
    let spent = item.tries >= class.attempts(from_queue) && item.tries > 0;
    if (doubtful && !item.repeatable) || (spent && class.attempts(from_queue) < u8::MAX) {
        let why = Why::GaveUp(class, last());
        step.give_up(item, why);
        return false;
    }
    step.tally.again(class);
    true
}

fn said(reply: ItemReply) -> Answer {
    match reply.said {
        Ok(done) => Answer::Done(done),
        Err(refused) => Answer::Refused(refused),
    }
}

/// Finds out which operation the request was refused for.
pub fn halve(destination: &mut Destination, mut segment: Segment, refused: Refused, step: &mut Step<'_>) {
    if segment.len() == 1 {
        for item in segment.items_mut() {
            step.answer(item, Answer::Refused(Box::new(refused.clone())));
        }
        return destination.end_of(segment, step);
    }
    segment.alone = true;
    let half = segment.len() / 2;
    let (first, second) = segment.split(half);
    for half in second.into_iter().chain(first) {
        destination.retry(half);
    }
}
