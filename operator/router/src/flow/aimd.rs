//! How many bulks a cluster gets at once: more while it answers, fewer when it says that it has too much. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// One cut answers for everything that was under way when it was made: a storm of refusals is one signal.
const CUT_AT_MOST_EVERY: Duration = Duration::from_millis(200);
const CUT_TO: f64 = 0.7;

/// Additive increase, multiplicative decrease, from a slow start.
#[derive(Debug)]
pub struct Aimd {
    limit: f64,
    max: f64,
    slow_start: bool,
    last_cut: Option<Instant>,
}

impl Aimd {
    /// Begins with `start` bulks at once, and never allows more than `max`.
    pub fn new(start: u32, max: u32) -> Self {
        Self {
            limit: f64::from(start.clamp(1, max.max(1))),
            max: f64::from(max.max(1)),
            slow_start: true,
            last_cut: None,
        }
    }

    /// Bulks at once, 1 or more.
    pub fn limit(&self) -> usize {
        // 1.0 ..= u32::MAX by construction
        self.limit as usize
    }

    /// A bulk was answered, and `limited` says whether there were as many as allowed when it was sent: only then does
    /// its success say that more would be well.
    pub fn answered(&mut self, limited: bool) {
        if limited {
            let more = if self.slow_start { 1.0 } else { 1.0 / self.limit };
            self.limit = (self.limit + more).min(self.max);
        }
    }

    /// The cluster had too much to do.
    pub fn congested(&mut self, now: Instant) {
        self.slow_start = false;
        if self.last_cut.is_none_or(|last| now.duration_since(last) >= CUT_AT_MOST_EVERY) {
            self.limit = (self.limit * CUT_TO).max(1.0);
            self.last_cut = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_only_where_it_was_the_limit_and_falls_once_per_storm() {
        let mut aimd = Aimd::new(4, 32);
        aimd.answered(false);
        assert_eq!(aimd.limit(), 4);
        for _ in 0..4 {
            aimd.answered(true);
        }
        assert_eq!(aimd.limit(), 8, "slow start doubles per round");
        let now = Instant::now();
        for _ in 0..50 {
            aimd.congested(now);
        }
        assert_eq!(aimd.limit(), 5);
        for _ in 0..6 {
            aimd.answered(true);
        }
        assert_eq!(aimd.limit(), 6, "then one per round");
        for step in 1..40 {
            aimd.congested(now + CUT_AT_MOST_EVERY * step);
        }
        assert_eq!(aimd.limit(), 1);
        for _ in 0..10_000 {
            aimd.answered(true);
        }
        assert_eq!(aimd.limit(), 32);
        assert_eq!(Aimd::new(0, 0).limit(), 1);
    }
}
