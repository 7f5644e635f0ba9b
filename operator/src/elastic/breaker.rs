//! A breaker: after failures in a row, nothing is asked for ever longer. No effects.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// State of the breaker of one cluster.
#[derive(Clone, Debug)]
pub struct Breaker {
    backoff: Backoff,
    failures: u32,
    closed_at: Option<Instant>,
}

impl Breaker {
    /// A breaker that lets everything through.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, closed_at: None }
    }

    /// How long nothing may be asked for; `None`: ask.
    pub fn open_for(&self, now: Instant) -> Option<Duration> {
        let left = self.closed_at?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// An answer came.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.closed_at = None;
    }

    /// No answer came.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.closed_at = Some(now + self.backoff.after(self.failures));
    }

    /// Something happened that makes an answer likelier (a node became ready): the next question is let through,
    /// but one more failure waits as long as before.
    pub fn give_a_chance(&mut self) {
        self.closed_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_ever_longer_and_closes_on_success() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(4) };
        let mut breaker = Breaker::new(backoff);
        let now = Instant::now();
        assert_eq!(breaker.open_for(now), None);
        let waits: Vec<Duration> = (0..4)
            .map(|_| {
                breaker.failed(now);
                breaker.open_for(now).unwrap()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 4].map(Duration::from_secs));
        assert_eq!(breaker.open_for(now + Duration::from_secs(4)), None);
        breaker.give_a_chance();
        assert_eq!(breaker.open_for(now), None);
        breaker.failed(now);
        assert_eq!(breaker.open_for(now), Some(Duration::from_secs(4)));
        breaker.succeeded();
        breaker.failed(now);
        assert_eq!(breaker.open_for(now), Some(Duration::from_secs(1)));
    }
}
