//! Which object is passed over when: every key at most once at a time, events debounced, delayed wake-ups, bounded
//! concurrency. No effects of its own; durations by tokio's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::engine::Next;

/// After a pass that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// Keys, and when each is due.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    debounce: Duration,
    jitter: fn(Duration) -> Duration,
}

struct State<K> {
    due: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
    /// Running keys, and when each is due again because of events since it started.
    running: BTreeMap<K, Option<Instant>>,
}

impl<K: Ord + Clone> State<K> {
    /// The earlier time wins.
    fn schedule(&mut self, key: K, at: Instant) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = Some(again.map_or(at, |before| before.min(at)));
            return;
        }
        if let Some(before) = self.due.get(&key).copied() {
            if before <= at {
                return;
            }
            self.order.remove(&(before, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    fn start_due(&mut self, now: Instant) -> Option<K> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.due.remove(&key);
        self.running.insert(key.clone(), None);
        Some(key)
    }

    fn finish(&mut self, key: K, next: Option<Instant>) {
        let again = self.running.remove(&key).flatten();
        let at = match (again, next) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(at) = at {
            self.schedule(key, at);
        }
    }
}

impl<K> Queue<K>
where
    K: Ord + Clone + Debug + Send + Sync + 'static,
{
    /// An empty queue: events are gathered for `debounce` before they lead to a pass.
    pub fn new(debounce: Duration) -> Self {
        Self::with_jitter(debounce, jitter)
    }

    /// The same, with another way to spread wake-ups.
    pub fn with_jitter(debounce: Duration, jitter: fn(Duration) -> Duration) -> Self {
        let state = State { due: BTreeMap::new(), order: BTreeSet::new(), running: BTreeMap::new() };
        Self { state: Mutex::new(state), changed: Notify::new(), debounce, jitter }
    }

    /// Something happened that concerns the key.
    pub fn wake(&self, key: K) {
        self.lock().schedule(key, Instant::now() + self.debounce);
        self.changed.notify_one();
    }

    /// Passes waiting to be started now or later.
    pub fn waiting(&self) -> usize {
        self.lock().due.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs passes until `stop` is done; then starts none any more and waits for those that run.
    pub async fn run<P, F>(self: Arc<Self>, concurrency: usize, stop: impl Future<Output = ()>, pass: P)
    where
        P: Fn(K) -> F,
        F: Future<Output = Next> + Send + 'static,
    {
        let mut passes: JoinSet<Next> = JoinSet::new();
        let mut ids: BTreeMap<Id, K> = BTreeMap::new();
        tokio::pin!(stop);
        loop {
            while passes.len() < concurrency.max(1) {
                let Some(key) = self.lock().start_due(Instant::now()) else { break };
                let handle = passes.spawn(pass(key.clone()));
                ids.insert(handle.id(), key);
            }
            let first = if passes.len() < concurrency.max(1) {
                self.lock().order.first().map(|(at, _)| *at)
            } else {
                None
            };
            tokio::select! {
                () = &mut stop => break,
                () = self.changed.notified() => {}
                () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {}
                Some(ended) = passes.join_next_with_id(), if !passes.is_empty() => {
                    let (id, next) = match ended {
                        Ok((id, next)) => (id, next),
                        Err(error) => {
                            let id = error.id();
                            tracing::error!(key = ?ids.get(&id), "a pass panicked and is repeated in a minute");
                            (id, Next::After(AFTER_PANIC))
                        }
                    };
                    if let Some(key) = ids.remove(&id) {
                        let at = match next {
                            Next::After(wait) => Some(Instant::now() + (self.jitter)(wait)),
                            Next::OnChange => None,
                        };
                        self.lock().finish(key, at);
                    }
                }
            }
        }
        while passes.join_next().await.is_some() {}
    }
}

/// Up to a tenth longer, so that what failed together is not tried again together.
fn jitter(wait: Duration) -> Duration {
    let random = RandomState::new().hash_one(0u8);
    wait + wait.mul_f64(0.1 * (random % 1000) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    fn queue() -> Arc<Queue<&'static str>> {
        Arc::new(Queue::with_jitter(Duration::from_millis(200), |wait| wait))
    }

    type Log = Arc<Mutex<Vec<(u64, &'static str)>>>;

    /// Runs for so many seconds; every pass takes `took` and asks for `next`.
    async fn run(
        queue: &Arc<Queue<&'static str>>,
        seconds: u64,
        concurrency: usize,
        took: Duration,
        next: Next,
    ) -> Vec<(u64, &'static str)> {
        let log: Log = Arc::default();
        let start = Instant::now();
        let inner = Arc::clone(&log);
        let pass = move |key| {
            let log = Arc::clone(&inner);
            async move {
                log.lock().unwrap().push((start.elapsed().as_millis() as u64, key));
                tokio::time::sleep(took).await;
                next
            }
        };
        Arc::clone(queue).run(concurrency, tokio::time::sleep(Duration::from_secs(seconds)), pass).await;
        Arc::try_unwrap(log).unwrap().into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_a_key_are_gathered() {
        let queue = queue();
        for _ in 0..100 {
            queue.wake("a");
        }
        queue.wake("b");
        let log = run(&queue, 5, 4, Duration::ZERO, Next::OnChange).await;
        assert_eq!(log.len(), 2, "{log:?}");
        assert!(log.iter().all(|(at, _)| (200..=201).contains(at)), "{log:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_never_runs_twice_at_a_time_and_events_meanwhile_are_not_lost() {
        let queue = queue();
        queue.wake("a");
        let waker = Arc::clone(&queue);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            waker.wake("a");
        });
        let log = run(&queue, 9, 4, Duration::from_secs(2), Next::OnChange).await;
        let times: Vec<u64> = log.iter().map(|(at, _)| at / 100).collect();
        assert_eq!(times, [2, 22]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_wake_up_comes_and_an_event_comes_earlier() {
        let queue = queue();
        queue.wake("a");
        let waker = Arc::clone(&queue);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(15)).await;
            waker.wake("a");
        });
        let log = run(&queue, 24, 4, Duration::ZERO, Next::After(Duration::from_secs(10))).await;
        let times: Vec<u64> = log.iter().map(|(at, _)| at / 100).collect();
        assert_eq!(times, [2, 102, 152]);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrency_is_bounded() {
        let queue = queue();
        for key in ["a", "b", "c", "d", "e"] {
            queue.wake(key);
        }
        let log = run(&queue, 9, 2, Duration::from_secs(1), Next::OnChange).await;
        let times: Vec<u64> = log.iter().map(|(at, _)| at / 1000).collect();
        assert_eq!(times, [0, 0, 1, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_one_pass_and_nothing_else() {
        let queue = queue();
        queue.wake("bad");
        queue.wake("good");
        let passes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&passes);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(Arc::clone(&queue).run(
            4,
            async move {
                let _ = stopped.await;
            },
            move |key| {
                let counted = Arc::clone(&counted);
                async move {
                    assert_ne!(key, "bad");
                    counted.fetch_add(1, Ordering::SeqCst);
                    Next::OnChange
                }
            },
        ));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((passes.load(Ordering::SeqCst), queue.waiting()), (1, 1));
        stop.send(()).unwrap();
        running.await.unwrap();
    }
}
