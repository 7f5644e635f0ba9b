//! Who is hot: with a threshold to become it, and a lower one, for a while, to be it no longer. Pure.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::sketch::{ByKey, Rate};
use crate::settings::HotTenants;

/// Most tenants that are hot at once: each has a lane, and there is nobody to protect where everybody is hot.
pub const MOST: usize = 64;

/// A tenant that is hot.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Collection.
    pub collection: Arc<str>,
    /// Tenant.
    pub tenant: Arc<str>,
    /// Since when.
    pub since: Instant,
    /// Most documents a second, unless its table says.
    pub limit: Option<NonZeroU32>,
    below: Option<Instant>,
}

/// The tenants that are hot.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    marks: ByKey<Mark>,
}

/// That a tenant is hot now, or no longer.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Collection.
    pub collection: Arc<str>,
    /// Tenant.
    pub tenant: Arc<str>,
    /// Whether it is hot.
    pub hot: bool,
    /// Documents a second.
    pub documents: f64,
    /// Bytes a second.
    pub bytes: f64,
    /// How long it was; of one who becomes it: zero.
    pub lasted: Duration,
}

impl Marks {
    /// The mark of a tenant.
    pub fn get(&self, key: u64) -> Option<&Mark> {
        if self.marks.is_empty() { None } else { self.marks.get(&key) }
    }

    /// Tenants that are hot.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Who is hot now, and who changed. `rates`: of those who have most, the first before the others.
    pub fn next(&self, rates: &[Rate], rules: &HotTenants, now: Instant) -> (Marks, Vec<Change>) {
        let above = |rate: &Rate, share: f64| {
            let over = |value: f64, threshold: u64| threshold > 0 && value >= threshold as f64 * share;
            over(rate.documents, rules.documents_per_second) || over(rate.bytes, rules.bytes_per_second)
        };
        let mut next = Marks::default();
        let mut changes = Vec::new();
        for (key, mark) in &self.marks {
            let rate = rates.iter().find(|rate| rate.key == *key);
            let stays = rate.is_some_and(|rate| above(rate, 0.5));
            let below = if stays { None } else { Some(mark.below.unwrap_or(now)) };
            if below.is_some_and(|below| now.duration_since(below) >= rules.cool_down) {
                changes.push(Change {
                    collection: Arc::clone(&mark.collection),
                    tenant: Arc::clone(&mark.tenant),
                    hot: false,
                    documents: rate.map_or(0.0, |rate| rate.documents),
                    bytes: rate.map_or(0.0, |rate| rate.bytes),
                    lasted: now.duration_since(mark.since),
                });
            } else {
                next.marks.insert(*key, Mark { below, limit: rules.limit, ..mark.clone() });
            }
        }
        for rate in rates.iter().filter(|rate| above(rate, 1.0)) {
            if next.marks.len() >= MOST || next.marks.contains_key(&rate.key) {
                continue;
            }
            let tenant: Arc<str> = Arc::from(rate.tenant.as_str());
            let (collection, limit) = (Arc::clone(&rate.collection), rules.limit);
            let mark = Mark { collection, tenant: Arc::clone(&tenant), since: now, limit, below: None };
            changes.push(Change {
                collection: Arc::clone(&rate.collection),
                tenant,
                hot: true,
                documents: rate.documents,
                bytes: rate.bytes,
                lasted: Duration::ZERO,
            });
            next.marks.insert(rate.key, mark);
        }
        (next, changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(tenant: u64, documents: f64, bytes: f64) -> Rate {
        Rate { key: tenant, collection: "messages".into(), tenant: tenant.to_string(), documents, bytes }
    }

    #[test]
    fn hot_from_the_threshold_on_until_it_was_long_below_half() {
        let rules =
            HotTenants { documents_per_second: 100, bytes_per_second: 1_000, ..HotTenants::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (marks, changes) = Marks::default().next(
            &[rate(1, 99.0, 999.0), rate(2, 0.0, 1_000.0), rate(3, 100.0, 0.0)],
            &rules,
            start,
        );
        let hot: Vec<&str> = changes.iter().filter(|c| c.hot).map(|c| &*c.tenant).collect();
        assert_eq!((hot, marks.len()), (vec!["2", "3"], 2));
        // A pause that is shorter than the cool-down changes nothing, nor do two of them with a word between.
        let (marks, _) = marks.next(&[rate(3, 60.0, 0.0)], &rules, at(10));
        let (marks, changes) = marks.next(&[rate(2, 0.0, 500.0), rate(3, 49.0, 0.0)], &rules, at(39));
        assert!(changes.is_empty() && marks.len() == 2);
        let (marks, changes) = marks.next(&[rate(2, 0.0, 499.0)], &rules, at(68));
        assert!(changes.is_empty() && marks.len() == 2, "{changes:?}");
        let (marks, changes) = marks.next(&[rate(2, 0.0, 499.0)], &rules, at(69));
        assert_eq!(
            (changes[0].tenant.as_ref(), changes[0].hot, changes[0].lasted.as_secs()),
            ("3", false, 69)
        );
        assert!(marks.get(2).is_some() && marks.get(3).is_none());
    }

    #[test]
    fn without_thresholds_nobody_is_and_never_more_than_a_few() {
        let many: Vec<Rate> = (0..200).map(|tenant| rate(tenant, 1e9, 1e9)).collect();
        let off = HotTenants { documents_per_second: 0, bytes_per_second: 0, ..HotTenants::default() };
        assert!(Marks::default().next(&many, &off, Instant::now()).0.is_empty());
        let (marks, changes) = Marks::default().next(&many, &HotTenants::default(), Instant::now());
        assert_eq!((marks.len(), changes.len()), (MOST, MOST));
        // Turned off at run time: they stay for as long as any other that cools down.
        let (marks, _) = marks.next(&many, &off, Instant::now());
        let (marks, changes) = marks.next(&many, &off, Instant::now() + off.cool_down);
        assert!(marks.is_empty() && changes.len() == MOST);
    }
}
