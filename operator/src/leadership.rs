//! Whether this process may write. The lease loop says until when; whoever writes asks first. No effects.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// The right to write, asked for before every write. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: Option<Arc<Mutex<Option<Instant>>>>,
}

impl Leadership {
    /// Always leads: one process without a lease, and tests.
    pub fn always() -> Self {
        Self { until: None }
    }

    /// Does not lead before [`Leadership::extend`].
    pub fn none() -> Self {
        Self { until: Some(Arc::default()) }
    }

    /// True while this process may write. False by itself when nobody extends it in time, however late the loop
    /// that should have done so runs.
    pub fn holds(&self) -> bool {
        match &self.until {
            None => true,
            Some(until) => until
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some_and(|until| Instant::now() < until),
        }
    }

    /// Leads until then.
    pub fn extend(&self, until: Instant) {
        self.set(Some(until));
    }

    /// Leads no longer.
    pub fn give_up(&self) {
        self.set(None);
    }

    fn set(&self, value: Option<Instant>) {
        if let Some(until) = &self.until {
            *until.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_by_itself() {
        let leadership = Leadership::none();
        assert!(!leadership.holds());
        leadership.extend(Instant::now() + Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(19)).await;
        assert!(leadership.holds());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!leadership.holds());
        leadership.extend(Instant::now() + Duration::from_secs(20));
        leadership.give_up();
        assert!(!leadership.holds());
        assert!(Leadership::always().holds());
    }
}
