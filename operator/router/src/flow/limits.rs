//! The numbers that the flow of operations obeys, and what is counted of it. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::answer::Answer;
use super::classify::Class;
use super::segment::Item;

/// The numbers that the flow of operations obeys.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that may be in flight, everything counted.
    pub budget: usize,
    /// Bytes of a bulk from which on it does not wait for more; larger only when one operation is.
    pub bulk_bytes: usize,
    /// Operations of a bulk, likewise.
    pub bulk_items: usize,
    /// How long operations of a queue wait for others.
    pub linger: Duration,
    /// The same for destinations that get little.
    pub linger_max: Duration,
    /// Bulks at once for a cluster in the beginning.
    pub concurrency_start: u32,
    /// Most bulks at once for a cluster.
    pub concurrency_max: u32,
    /// Share of the budget that one cluster may hold, 0 to 1.
    pub cluster_share: f64,
    /// Share of the budget that one destination may hold that does not work, 0 to 1.
    pub sick_share: f64,
    /// First pause after a failure; it doubles.
    pub backoff: Duration,
    /// Longest pause after a failure.
    pub backoff_max: Duration,
    /// How long operations of a queue wait for a destination that does not work.
    pub hold: Duration,
    /// Operations of the bulk that finds out whether a destination works again.
    pub probe_items: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget: 256 << 20,
            bulk_bytes: 1 << 20,
            bulk_items: 2_000,
            linger: Duration::from_secs(1),
            linger_max: Duration::from_secs(5),
            concurrency_start: 4,
            concurrency_max: 32,
            cluster_share: 0.5,
            sick_share: 0.15,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            hold: Duration::from_secs(60),
            probe_items: 50,
        }
    }
}

impl Limits {
    /// Bytes of a share of the budget.
    pub fn share(&self, share: f64) -> usize {
        (self.budget as f64 * share.clamp(0.0, 1.0)) as usize
    }

    /// The pause after so many failures in a row, 1 or more, off by up to a quarter so that not all come back at once.
    pub fn pause(&self, failures: u32, dice: &mut Dice) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.backoff_max).mul_f64(0.75 + dice.roll() / 2.0)
    }
}

/// Small, quick randomness for what only has to differ.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// A series of its own for each `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 0 to 1.
    pub fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What happened in one cluster since it was last asked, per operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes that the budget gets back.
    pub freed: usize,
    /// Answered as done.
    pub done: u64,
    /// Refused with a version conflict.
    pub superseded: u64,
    /// Refused for other reasons.
    pub refused: u64,
    /// Answered as not applied.
    pub unsent: u64,
    /// Answered as of unknown outcome.
    pub unknown: u64,
    /// Sent again, by class of failure.
    pub again: Vec<(Class, u64)>,
    /// Bulks sent: operations and bytes of each.
    pub bulks: Vec<(usize, usize)>,
}

impl Tally {
    /// Counts an operation that will be sent again.
    pub fn again(&mut self, class: Class) {
        match self.again.iter_mut().find(|(known, _)| *known == class) {
            Some((_, count)) => *count += 1,
            None => self.again.push((class, 1)),
        }
    }
}

/// What every step of the flow is given.
pub struct Step<'a> {
    /// Now.
    pub now: Instant,
    /// The numbers.
    pub limits: &'a Limits,
    /// Randomness.
    pub dice: &'a mut Dice,
    /// What happened.
    pub tally: &'a mut Tally,
}

impl Step<'_> {
    /// Answers, unless it has been answered.
    pub fn answer(&mut self, item: &mut Item, answer: Answer) {
        let Some(ticket) = item.ticket.take() else { return };
        let count = match &answer {
            Answer::Done(_) => &mut self.tally.done,
            Answer::Refused(refused) if refused.status == 409 => &mut self.tally.superseded,
            Answer::Refused(_) => &mut self.tally.refused,
            Answer::Unsent(_) => &mut self.tally.unsent,
            Answer::Unknown(_) => &mut self.tally.unknown,
        };
        *count += 1;
        ticket.answer(answer);
    }

    /// Answers an operation that Elasticsearch gave no last word on: unsent, unless a try of it was lost.
    pub fn give_up(&mut self, item: &mut Item, why: super::answer::Why) {
        let answer = if item.doubt { Answer::Unknown(why) } else { Answer::Unsent(why) };
        self.answer(item, answer);
    }
}
