//! The byte budget: everything that is in flight is counted against it, and what does not fit is refused, never
//! queued. No effects but its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be in flight, and those that are.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// A lease of `bytes`; absent: they do not fit now.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let mut lease = Lease { budget: Arc::clone(self), bytes: 0 };
        lease.grow(bytes).then_some(lease)
    }

    /// Most bytes that may be in flight.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes in flight.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes that ever were in flight.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits) {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                true
            }
            Err(_) => false,
        }
    }
}

/// Bytes of a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Lease {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more; false: they do not fit, and the lease is as it was.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.budget.reserve(bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// Gives bytes back, at most those that it holds.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// A lease of some of its bytes, at most those that it holds.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Lease {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Lease { budget: Arc::clone(&self.budget), bytes }
    }

    /// Takes over the bytes of another lease of the same budget; of another budget: gives them back there.
    pub fn merge(&mut self, mut other: Lease) {
        if Arc::ptr_eq(&self.budget, &other.budget) {
            self.bytes += std::mem::take(&mut other.bytes);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_leaks() {
        let budget = Budget::new(100);
        let mut first = budget.take(60).unwrap();
        assert!(budget.take(41).is_none() && !first.grow(41));
        let mut second = first.split(20);
        assert_eq!((first.bytes(), second.bytes(), budget.used()), (40, 20, 60));
        second.give_back(50);
        assert_eq!((second.bytes(), budget.used()), (0, 40));
        second.merge(budget.take(60).unwrap());
        drop(first);
        assert_eq!(budget.used(), 60);
        second.merge(Budget::new(9).take(9).unwrap());
        assert_eq!(second.bytes(), 60);
        drop(second);
        assert_eq!((budget.used(), budget.peak()), (0, 100));
        assert!(budget.take(usize::MAX).is_none());
    }
}
