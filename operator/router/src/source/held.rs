//! The messages that a driver has delivered and whose decision the queue does not know yet: whose lease is to be
//! extended, and what is waited for before a driver closes. No effects but its own memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Messages by their number; `H` names each to the queue.
#[derive(Debug)]
pub struct Held<H> {
    messages: Mutex<Messages<H>>,
    fewer: Notify,
}

#[derive(Debug)]
struct Messages<H> {
    last: u64,
    each: HashMap<u64, (H, Instant)>,
}

impl<H> Default for Held<H> {
    fn default() -> Self {
        Self { messages: Mutex::new(Messages { last: 0, each: HashMap::new() }), fewer: Notify::new() }
    }
}

impl<H: Clone> Held<H> {
    /// One more; its number.
    pub fn insert(&self, handle: H) -> u64 {
        let Ok(mut messages) = self.messages.lock() else { return 0 };
        messages.last += 1;
        let number = messages.last;
        messages.each.insert(number, (handle, Instant::now()));
        number
    }

    /// The queue knows of this one, or nobody will tell it. How many there were: 1, or 0.
    pub fn remove(&self, number: u64) -> usize {
        self.remove_all([number])
    }

    /// The same of several.
    pub fn remove_all(&self, numbers: impl IntoIterator<Item = u64>) -> usize {
        let Ok(mut messages) = self.messages.lock() else { return 0 };
        let count = numbers.into_iter().filter(|number| messages.each.remove(number).is_some()).count();
        drop(messages);
        self.fewer.notify_waiters();
        count
    }

    /// Whether it is still there.
    pub fn has(&self, number: u64) -> bool {
        self.messages.lock().is_ok_and(|messages| messages.each.contains_key(&number))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.messages.lock().map(|messages| messages.each.len()).unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those whose lease was not extended for this long; from now on it is as good as extended.
    pub fn due(&self, after: Duration) -> Vec<H> {
        let Ok(mut messages) = self.messages.lock() else { return Vec::new() };
        let now = Instant::now();
        let mut due = Vec::new();
        for (handle, extended) in messages.each.values_mut() {
            if now.duration_since(*extended) >= after {
                *extended = now;
                due.push(handle.clone());
            }
        }
        due
    }

    /// All of them, by number.
    pub fn all(&self) -> Vec<(u64, H)> {
        let messages = self.messages.lock();
        let copy = |(number, (handle, _)): (&u64, &(H, Instant))| (*number, handle.clone());
        messages.map(|messages| messages.each.iter().map(copy).collect()).unwrap_or_default()
    }

    /// Waits until there are none, or for as long as until `until`.
    pub async fn empty(&self, until: Instant) {
        loop {
            let fewer = self.fewer.notified();
            if self.is_empty() || tokio::time::timeout_at(until, fewer).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leases_are_due_once_in_their_time_and_only_while_held() {
        let held = Held::default();
        let (first, second) = (held.insert("a"), held.insert("b"));
        assert!(held.due(Duration::from_secs(10)).is_empty());
        tokio::time::advance(Duration::from_secs(10)).await;
        held.insert("c");
        held.remove(first);
        assert_eq!(held.due(Duration::from_secs(10)), ["b"]);
        assert!(held.due(Duration::from_secs(10)).is_empty());
        assert!(held.has(second) && !held.has(first));
        assert_eq!(held.len(), 2);
        let waits = held.empty(Instant::now() + Duration::from_secs(60));
        let goes = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.all().into_iter().for_each(|(number, _)| assert_eq!(held.remove(number), 1));
        };
        let started = Instant::now();
        tokio::join!(waits, goes);
        assert!(held.is_empty() && started.elapsed() < Duration::from_secs(2));
    }
}
