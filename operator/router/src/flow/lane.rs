//! Operations of one destination that wait in the order in which they came. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::limits::Limits;
use super::segment::{Item, Segment};

/// One line of a destination: the common one, or that of tenants who are kept apart.
#[derive(Debug, Default)]
pub struct Lane {
    /// Whose it is; absent: the common one.
    pub name: Option<u64>,
    waiting: VecDeque<Segment>,
    bytes: usize,
    items: usize,
    flushing: usize,
}

impl Lane {
    /// An empty one.
    pub fn new(name: Option<u64>) -> Self {
        Self { name, ..Self::default() }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Operations that wait.
    pub fn items(&self) -> usize {
        self.items
    }

    /// What waits, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Segment> {
        self.waiting.iter()
    }

    /// The next one to leave.
    pub fn first(&self) -> Option<&Segment> {
        self.waiting.front()
    }

    /// Takes operations; `front`: before all that wait.
    pub fn enter(&mut self, segment: Segment, front: bool) {
        self.bytes += segment.bytes();
        self.items += segment.len();
        self.flushing += usize::from(segment.flush);
        if front { self.waiting.push_front(segment) } else { self.waiting.push_back(segment) }
    }

    /// Gives the next one away.
    pub fn leave(&mut self) -> Option<Segment> {
        let segment = self.waiting.pop_front()?;
        self.bytes -= segment.bytes().min(self.bytes);
        self.items -= segment.len().min(self.items);
        self.flushing -= usize::from(segment.flush).min(self.flushing);
        Some(segment)
    }

    /// Whether what waits is a bulk: it fills one, does not want to wait, or has waited for `linger`.
    pub fn full(&self, limits: &Limits, linger: Duration, now: Instant) -> bool {
        let Some(first) = self.first() else { return false };
        self.flushing > 0 || self.fills(limits) || first.since + linger <= now
    }

    fn fills(&self, limits: &Limits) -> bool {
        self.bytes >= limits.bulk_bytes || self.items >= limits.bulk_items
    }

    /// How long operations wait for others from now on: one whose bulks fill up before their time needs no linger; one
    /// whose bulks stay small waits longer.
    pub fn linger(&self, now: Duration, limits: &Limits) -> Duration {
        if self.flushing > 0 {
            return now;
        }
        if self.fills(limits) {
            return limits.linger;
        }
        if self.bytes < limits.bulk_bytes / 16 && self.items < limits.bulk_items / 16 {
            return (now * 2).clamp(limits.linger, limits.linger_max.max(limits.linger));
        }
        now
    }

    /// The next bulk, of at most so many bytes and operations unless a single operation has more.
    pub fn take(&mut self, max_bytes: usize, max_items: usize) -> Option<Segment> {
        let mut first = self.leave()?;
        while first.len() > max_items || (first.bytes() > max_bytes && first.len() > 1) {
            let count = max_items.min(first.len() / 2).max(1);
            let (chosen, rest) = first.split(count);
            if let Some(rest) = rest {
                self.enter(rest, true);
            }
            first = chosen?;
        }
        if first.alone {
            return Some(first);
        }
        let (mut bytes, mut items) = (first.bytes(), first.len());
        let mut parts = vec![first];
        while let Some(next) = self.first() {
            if next.alone || bytes + next.bytes() > max_bytes || items + next.len() > max_items {
                break;
            }
            bytes += next.bytes();
            items += next.len();
            parts.extend(self.leave());
        }
        Segment::merge(parts)
    }

    /// Takes out what fits `which`.
    pub fn remove(&mut self, mut which: impl FnMut(&Item) -> bool) -> Vec<Segment> {
        let mut removed = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some(segment) = self.leave() else { break };
            let (gone, stays) = segment.select(&mut which);
            removed.extend(gone);
            if let Some(stays) = stays {
                self.enter(stays, false);
            }
        }
        removed
    }

    /// Lets what waits go at once: nothing more comes.
    pub fn hurry(&mut self) {
        for segment in &mut self.waiting {
            segment.flush = true;
        }
        self.flushing = self.waiting.len();
    }
}
