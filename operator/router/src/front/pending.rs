//! Gathers the answers to the operations of one request. Effects: wakes who waits.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::flow::answer::{Answer, Answers};

/// The answers to one request.
#[derive(Debug)]
pub struct Pending {
    answers: Mutex<Vec<Option<Answer>>>,
    open: AtomicUsize,
    all: Notify,
}

impl Pending {
    /// Waits for so many.
    pub fn new(count: usize) -> Self {
        Self { answers: Mutex::new(vec![None; count]), open: AtomicUsize::new(count), all: Notify::new() }
    }

    /// All answers, in the order of their slots.
    pub async fn all(&self) -> Vec<Option<Answer>> {
        while self.open.load(Ordering::Acquire) > 0 {
            self.all.notified().await;
        }
        self.answers.lock().map(|mut answers| std::mem::take(&mut *answers)).unwrap_or_default()
    }
}

impl Answers for Pending {
    fn answer(&self, slot: u32, answer: Answer) {
        let position = usize::try_from(slot).unwrap_or(usize::MAX);
        if let Ok(mut answers) = self.answers.lock()
            && let Some(place) = answers.get_mut(position)
        {
            *place = Some(answer);
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.notify_one();
        }
    }
}
