//! Tenants that write far more than others: found where operations arrive, kept apart from their neighbours, and, where
//! somebody said so, slowed down. Effects: counters in memory, locked for a request; a line in the log for who becomes
//! hot or no longer is.

pub mod marks;
pub mod sketch;
pub mod turns;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::marks::{Change, Marks};
use self::sketch::{ByKey, Rate, Sketch};
use self::turns::{Turn, Turns};
use crate::meters::{Meters, signed};
use crate::settings::HotTenants;

/// Tenants that each part counts.
const TENANTS: usize = 512;
/// Parts: each request counts in one, so that requests do not wait for each other.
const PARTS: usize = 4;
/// Tenants of each part that are looked at every second.
const LOOKED_AT: usize = 2 * marks::MOST;
/// How often it is decided who is hot.
const EVERY: Duration = Duration::from_secs(1);
/// Tenants that are shown although they are not hot.
const SHOWN: usize = 10;

/// What all tenants write, as of the last second.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Documents a second, of all.
    pub documents: f64,
    /// Bytes a second, of all.
    pub bytes: f64,
    /// Those that are hot, and the few others that write most; the first before the others.
    pub tenants: Vec<Rate>,
}

/// Hot tenants.
pub struct Hot {
    parts: Vec<Mutex<Sketch>>,
    next: AtomicUsize,
    rules: ArcSwap<HotTenants>,
    marks: ArcSwap<Marks>,
    turns: Mutex<Turns>,
    report: ArcSwap<Report>,
}

impl Hot {
    /// Nobody is hot yet.
    pub fn new(rules: HotTenants) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::new(Sketch::new(TENANTS))).collect(),
            next: AtomicUsize::new(0),
            rules: ArcSwap::from_pointee(rules),
            marks: ArcSwap::default(),
            turns: Mutex::default(),
            report: ArcSwap::default(),
        }
    }

    /// To count the operations of a request: the first part that nobody counts in.
    pub fn counting(&self) -> Option<MutexGuard<'_, Sketch>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let part = |offset: usize| self.parts.get(first.wrapping_add(offset) % PARTS);
        (0..PARTS).filter_map(part).find_map(|part| part.try_lock().ok()).or_else(|| part(0)?.lock().ok())
    }

    /// Those that are hot now.
    pub fn marks(&self) -> Arc<Marks> {
        self.marks.load_full()
    }

    /// What all tenants write, as of the last second.
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// The thresholds in force.
    pub fn rules(&self) -> Arc<HotTenants> {
        self.rules.load_full()
    }

    /// Puts other thresholds in force.
    pub fn set(&self, rules: HotTenants) {
        self.rules.store(Arc::new(rules));
    }

    /// The next turns of tenants with these limits, all of them or none: when the last of them is.
    pub fn take(&self, limits: &[(u64, NonZeroU32)], now: Instant, latest: Option<Instant>) -> Turn {
        let Ok(mut turns) = self.turns.lock() else { return Turn::At(now) };
        let mut last = now;
        for (position, (key, limit)) in limits.iter().enumerate() {
            match turns.take(*key, *limit, now, latest) {
                Turn::At(at) => last = last.max(at),
                late @ Turn::In(_) => {
                    for (key, limit) in limits.iter().take(position) {
                        turns.give_back(*key, *limit);
                    }
                    return late;
                }
            }
        }
        Turn::At(last)
    }

    /// Gives back turns that were not used.
    pub fn give_back(&self, limits: &[(u64, NonZeroU32)]) {
        if let Ok(mut turns) = self.turns.lock() {
            for (key, limit) in limits {
                turns.give_back(*key, *limit);
            }
        }
    }

    /// Decides who is hot, after `elapsed` since it was last decided; returns what changed.
    pub fn look(&self, elapsed: Duration, now: Instant) -> Vec<Change> {
        let (mut documents, mut bytes) = (0.0, 0.0);
        let mut by_key: ByKey<Rate> = ByKey::default();
        for part in &self.parts {
            let Ok(mut part) = part.lock() else { continue };
            let (d, b, rates) = part.rates(LOOKED_AT, elapsed);
            documents += d;
            bytes += b;
            for rate in rates {
                match by_key.get_mut(&rate.key) {
                    Some(known) => {
                        known.documents += rate.documents;
                        known.bytes += rate.bytes;
                    }
                    None => {
                        by_key.insert(rate.key, rate);
                    }
                }
            }
        }
        let mut rates: Vec<Rate> = by_key.into_values().collect();
        rates.sort_unstable_by(|a, b| b.documents.total_cmp(&a.documents).then(a.key.cmp(&b.key)));
        let (marks, changes) = self.marks.load().next(&rates, &self.rules.load(), now);
        let mut shown = 0;
        rates.retain(|rate| {
            shown += 1;
            marks.get(rate.key).is_some() || (shown <= SHOWN && rate.documents + rate.bytes >= 0.1)
        });
        self.report.store(Arc::new(Report { documents, bytes, tenants: rates }));
        self.marks.store(Arc::new(marks));
        if let Ok(mut turns) = self.turns.lock() {
            turns.tidy(now);
        }
        changes
    }
}

/// Decides every second who is hot, for as long as it runs.
pub async fn watch(hot: Arc<Hot>, meters: Arc<Meters>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for change in hot.look(now.duration_since(last), now) {
            let Change { collection, tenant, documents, bytes, lasted, .. } = &change;
            let (documents_per_second, bytes_per_second) = (documents.round(), bytes.round());
            if change.hot {
                tracing::info!(%collection, %tenant, documents_per_second, bytes_per_second,
                    "a tenant is hot: it has a lane of its own");
            } else {
                tracing::info!(%collection, %tenant, documents_per_second, bytes_per_second,
                    lasted_seconds = lasted.as_secs(), "a tenant is hot no longer");
            }
        }
        meters.hot_tenants.set(signed(hot.marks().len()));
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_in_all_parts_is_one() {
        let hot = Hot::new(HotTenants { documents_per_second: 100, ..HotTenants::default() });
        let collection: Arc<str> = Arc::from("messages");
        let guards: Vec<_> = (0..PARTS).map(|_| hot.counting().unwrap()).collect();
        for mut part in guards {
            (0..1_000).for_each(|_| part.count(1, &collection, "big", 100));
            (0..3).for_each(|_| part.count(2, &collection, "small", 100));
        }
        let now = Instant::now();
        let changes = hot.look(EVERY, now);
        assert_eq!((changes.len(), &*changes[0].tenant), (1, "big"));
        let report = hot.report();
        assert_eq!(
            report.tenants.iter().map(|rate| rate.tenant.as_str()).collect::<Vec<_>>(),
            ["big", "small"]
        );
        let share = report.tenants[0].documents / report.documents;
        assert!((share - 3_996.0 / 4_012.0).abs() < 1e-9, "{share}");
        assert!(hot.look(EVERY, now + EVERY).is_empty());
        assert!(hot.marks().get(1).is_some() && hot.marks().get(2).is_none());
    }
}
