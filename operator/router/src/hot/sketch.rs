//! Which keys have most, in memory of a fixed size: Space-Saving with weights that fade. Pure.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Over this time what was counted fades to about a third: a burst shorter than it makes nobody hot.
const FADE: Duration = Duration::from_secs(5);
/// Bytes that weigh as much as one document.
const BYTES_PER_WEIGHT: f64 = 512.0;
/// How much more than the lightest an entry may weigh that makes room for another: saves looking for the very lightest.
const SLACK: f64 = 4.0;

/// Keys without a place that are remembered until they come again.
const DOORS: usize = 2_048;

/// For keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A map whose keys are hashes already.
pub type ByKey<T> = HashMap<u64, T, BuildHasherDefault<AsIs>>;

/// What one tenant writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Hash of collection and tenant.
    pub key: u64,
    /// Collection.
    pub collection: Arc<str>,
    /// Tenant.
    pub tenant: String,
    /// Documents a second.
    pub documents: f64,
    /// Bytes a second.
    pub bytes: f64,
}

/// What came since the key has its place.
#[derive(Debug)]
struct Entry {
    key: u64,
    collection: Arc<str>,
    tenant: String,
    documents: f64,
    bytes: f64,
}

/// Counts of the keys that have most. Of a key it never counts more than came, and it misses little of one that has more
/// than one part in `capacity` of all.
#[derive(Debug)]
pub struct Sketch {
    capacity: usize,
    by_key: ByKey<usize>,
    entries: Vec<Entry>,
    /// Of the entries: what came, and at most what the one before it in its place weighed.
    weights: Vec<f64>,
    /// No entry weighs less.
    floor: f64,
    hand: usize,
    /// The last keys that came without having a place.
    doors: Vec<u64>,
    documents: f64,
    bytes: f64,
}

impl Sketch {
    /// One that knows at most so many keys.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            by_key: ByKey::default(),
            entries: Vec::new(),
            weights: Vec::new(),
            floor: 0.0,
            hand: 0,
            doors: vec![0; DOORS],
            documents: 0.0,
            bytes: 0.0,
        }
    }

    /// A document of a key.
    pub fn count(&mut self, key: u64, collection: &Arc<str>, tenant: &str, bytes: usize) {
        let bytes = bytes as f64;
        let weight = 1.0 + bytes / BYTES_PER_WEIGHT;
        self.documents += 1.0;
        self.bytes += bytes;
        let position = match self.by_key.get(&key).copied() {
            Some(position) => position,
            None if !self.knocked(key) => return,
            None => self.admit(key, collection, tenant),
        };
        if let (Some(entry), Some(heavy)) = (self.entries.get_mut(position), self.weights.get_mut(position)) {
            entry.documents += 1.0;
            entry.bytes += bytes;
            *heavy += weight;
        }
    }

    /// Whether a key came before, not long ago. Most have so little that they would be in nobody's way, and finding a
    /// place for each of their documents costs more than all the rest.
    fn knocked(&mut self, key: u64) -> bool {
        let at = usize::try_from(key >> 32).unwrap_or_default() % DOORS;
        self.doors.get_mut(at).is_some_and(|door| std::mem::replace(door, key) == key)
    }

    /// A place for a key that has none: the last one, or that of one of the lightest.
    fn admit(&mut self, key: u64, collection: &Arc<str>, tenant: &str) -> usize {
        if self.entries.len() < self.capacity {
            let (collection, tenant) = (Arc::clone(collection), tenant.to_owned());
            self.entries.push(Entry { key, collection, tenant, documents: 0.0, bytes: 0.0 });
            self.weights.push(0.0);
            self.floor = 0.0;
            self.by_key.insert(key, self.entries.len() - 1);
            return self.entries.len() - 1;
        }
        let position = self.lightest();
        if let Some(entry) = self.entries.get_mut(position) {
            self.by_key.remove(&entry.key);
            self.by_key.insert(key, position);
            entry.key = key;
            if !Arc::ptr_eq(&entry.collection, collection) {
                entry.collection = Arc::clone(collection);
            }
            // Into the memory that the one before it had.
            entry.tenant.clear();
            entry.tenant.push_str(tenant);
            (entry.documents, entry.bytes) = (0.0, 0.0);
        }
        position
    }

    /// An entry that weighs at most a little more than the lightest. Goes round, so that looking is cheap on average.
    fn lightest(&mut self) -> usize {
        loop {
            let bound = self.floor + SLACK;
            let (before, after) = self.weights.split_at(self.hand.min(self.weights.len()));
            let light = |weight: &f64| *weight <= bound;
            let found = after.iter().position(light).map(|at| before.len() + at);
            if let Some(found) = found.or_else(|| before.iter().position(light)) {
                self.hand = found + 1;
                return found;
            }
            self.floor = self.weights.iter().copied().fold(f64::INFINITY, f64::min);
            if self.weights.is_empty() {
                return 0;
            }
        }
    }

    /// All documents and bytes a second, and up to `count` keys that have most; then what was counted fades.
    /// `elapsed`: since this was last asked.
    pub fn rates(&mut self, count: usize, elapsed: Duration) -> (f64, f64, Vec<Rate>) {
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let kept = (-seconds / FADE.as_secs_f64()).exp();
        let per_second = (1.0 - kept) / seconds;
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        let weight = |at: &usize| self.weights.get(*at).copied().unwrap_or_default();
        let by_weight = |a: &usize, b: &usize| weight(b).total_cmp(&weight(a));
        if count < order.len() {
            order.select_nth_unstable_by(count, by_weight);
            order.truncate(count);
        }
        let rate = |at: usize| {
            let entry = self.entries.get(at)?;
            Some(Rate {
                key: entry.key,
                collection: Arc::clone(&entry.collection),
                tenant: entry.tenant.clone(),
                documents: entry.documents * per_second,
                bytes: entry.bytes * per_second,
            })
        };
        let rates = order.into_iter().filter_map(rate).collect();
        let all = (self.documents * per_second, self.bytes * per_second);
        for entry in &mut self.entries {
            entry.documents *= kept;
            entry.bytes *= kept;
        }
        self.weights.iter_mut().for_each(|weight| *weight *= kept);
        self.floor *= kept;
        self.documents *= kept;
        self.bytes *= kept;
        (all.0, all.1, rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(sketch: &mut Sketch, tenant: u64, times: usize) {
        let name = tenant.to_string();
        for _ in 0..times {
            let key = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
            sketch.count(key, &Arc::from("messages"), &name, 512);
        }
    }

    #[test]
    fn who_has_much_is_found_among_twenty_thousand_and_nothing_is_made_up() {
        let mut sketch = Sketch::new(256);
        let mut truth = HashMap::new();
        for round in 0..200_000_u64 {
            // Three tenants have 5 % each, two of them from the beginning; the others have next to nothing.
            let tenant = match round % 20 {
                0 => 1,
                1 => 2,
                2 if round > 100_000 => 3,
                _ => {
                    10 + (round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).wrapping_mul(0x94d0_49bb) % 20_011
                }
            };
            *truth.entry(tenant.to_string()).or_insert(0.0) += 1.0;
            count(&mut sketch, tenant, 1);
        }
        let second = Duration::from_secs(1);
        let per_second = 1.0 - (-0.2_f64).exp();
        let (documents, bytes, mut rates) = sketch.rates(8, second);
        assert!((documents - 200_000.0 * per_second).abs() < 1.0 && (bytes - documents * 512.0).abs() < 1.0);
        rates.sort_by(|a, b| b.documents.total_cmp(&a.documents));
        let names: Vec<&str> = rates.iter().take(3).map(|rate| rate.tenant.as_str()).collect();
        assert!(names[..2].contains(&"1") && names[..2].contains(&"2") && names[2] == "3", "{rates:?}");
        for rate in &rates {
            assert!(rate.documents <= truth[&rate.tenant] * per_second + 1e-6, "{rate:?}");
        }
        // Of 10,000 documents, as many are missed at most as one place in 256 weighs.
        assert!(rates[0].documents > 9_000.0 * per_second, "{rates:?}");
        assert_eq!(sketch.entries.len(), 256);
    }

    #[test]
    fn a_steady_rate_is_told_as_it_is_and_fades_when_it_ends() {
        let mut sketch = Sketch::new(4);
        let mut last = 0.0;
        for _ in 0..60 {
            count(&mut sketch, 1, 50);
            last = sketch.rates(4, Duration::from_millis(500)).2[0].documents;
        }
        assert!((98.0..=100.1).contains(&last), "{last}");
        for _ in 0..60 {
            last = sketch.rates(4, Duration::from_millis(500)).2[0].documents;
        }
        assert!(last < 1.0, "{last}");
    }

    #[test]
    fn large_documents_count_as_much_as_many_small_ones() {
        let mut sketch = Sketch::new(8);
        for round in 0..2_000_u64 {
            count(&mut sketch, 100 + round, 1);
            if round % 20 == 0 {
                sketch.count(7, &Arc::from("messages"), "large", 1 << 20);
            }
        }
        let (_, _, rates) = sketch.rates(1, Duration::from_secs(1));
        assert!(rates[0].tenant == "large" && rates[0].documents > 10.0, "{rates:?}");
    }
}
