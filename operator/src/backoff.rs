//! Ever longer waits after failures: doubling, bounded, forgotten after a success. No effects.

use std::time::Duration;

/// First wait and longest wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row (the first failure is 1).
    pub fn after(self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(30));
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };
        let waits: Vec<u64> = [0, 1, 2, 3, 9, 10, 4_000_000_000].map(|n| backoff.after(n).as_secs()).to_vec();
        assert_eq!(waits, [1, 1, 2, 4, 256, 300, 300]);
    }
}
