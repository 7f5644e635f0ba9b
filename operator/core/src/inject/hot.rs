//! Tenants that routers find hot: what all routers of a namespace say of one, and when a person is told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use searchcell_crds::{IndexPlacement, SearchCell};
use serde::Deserialize;

use super::routers::RouterPod;

/// Tenants of one reading that are looked at; a router names fewer.
const MOST_TENANTS: usize = 128;
/// Longest tenant, in bytes, as the router and the placements have it.
const MOST_TENANT_BYTES: usize = 128;
/// Longest collection, in bytes.
const MOST_COLLECTION_BYTES: usize = 40;
/// No tenant writes more, in documents or bytes a second.
const MOST_RATE: f64 = 1e12;
/// Tenants of a namespace that are told of at once, those that write most; the others the next time.
const MOST_OF_NAMESPACE: usize = 4;
/// Tenants that are told of at once.
const MOST_AT_ONCE: usize = 32;
/// A tenant that stays hot is told of again after this time.
const AGAIN: Duration = Duration::from_secs(3_600);
/// A tenant is hot no longer when no router says so for this long: one that did not answer once changes nothing.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// What a router says at `/debug/hot`, as far as anything is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct HotReading {
    /// Those that are hot, and some that write most.
    pub tenants: Vec<TenantRate>,
}

/// What one tenant writes through one router.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantRate {
    /// Collection.
    pub collection: String,
    /// Tenant.
    pub tenant: String,
    /// Documents a second.
    pub documents_per_second: f64,
    /// Bytes of documents a second.
    pub bytes_per_second: f64,
    /// Whether it is hot there.
    pub hot: bool,
    /// Where its documents go.
    #[serde(default)]
    pub destinations: Vec<Destination>,
}

/// An index that a tenant's documents go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Destination {
    /// Its cluster, `<cell>-<cluster>`.
    pub cluster: String,
}

/// Which tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantKey {
    /// Namespace of the collection and its routers.
    pub namespace: String,
    /// Collection.
    pub collection: String,
    /// Tenant.
    pub tenant: String,
}

/// What a hot tenant writes through all routers of its namespace that name it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HotTenant {
    /// Documents a second.
    pub documents: f64,
    /// Bytes of documents a second.
    pub bytes: f64,
    /// Routers that name it.
    pub routers: usize,
    /// Routers in which it is hot, at least one.
    pub hot_in: usize,
    /// Clusters that have its documents.
    pub clusters: BTreeSet<String>,
}

/// The tenants that are hot in at least one router. What a router says of collections that are not its own, or of what
/// cannot be a tenant, is passed over.
pub fn hot_tenants(readings: &[(&RouterPod, HotReading)]) -> BTreeMap<TenantKey, HotTenant> {
    let mut all: BTreeMap<TenantKey, HotTenant> = BTreeMap::new();
    for (pod, reading) in readings {
        let mut named = BTreeSet::new();
        for rate in reading.tenants.iter().take(MOST_TENANTS).filter(|rate| pod.routes(&rate.collection)) {
            let is_tenant = (1..=MOST_TENANT_BYTES).contains(&rate.tenant.len());
            let is_collection = rate.collection.len() <= MOST_COLLECTION_BYTES;
            if !is_tenant || !is_collection || !named.insert((&rate.collection, &rate.tenant)) {
                continue;
            }
            let key = TenantKey {
                namespace: pod.namespace.clone(),
                collection: rate.collection.clone(),
                tenant: rate.tenant.clone(),
            };
            let tenant = all.entry(key).or_default();
            tenant.documents += rate.documents_per_second.clamp(0.0, MOST_RATE);
            tenant.bytes += rate.bytes_per_second.clamp(0.0, MOST_RATE);
            tenant.routers += 1;
            tenant.hot_in += usize::from(rate.hot);
            tenant.clusters.extend(rate.destinations.iter().map(|to| to.cluster.clone()));
        }
    }
    all.retain(|_, tenant| tenant.hot_in > 0);
    all
}

/// The object that a person looks at when a tenant is hot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum About<'a> {
    /// The placement that names the tenant.
    Dedicated(&'a IndexPlacement),
    /// The pool of the collection.
    Pool(&'a IndexPlacement),
    /// A placement of the collection, which has no pool.
    Collection(&'a IndexPlacement),
    /// The cell that has its documents: no placement of the collection is known.
    Cell(&'a SearchCell),
}

/// The object to tell of a tenant, of those of its namespace; `None`: none is known.
pub fn about<'a>(
    key: &TenantKey,
    tenant: &HotTenant,
    placements: &'a [IndexPlacement],
    cells: &'a [SearchCell],
) -> Option<About<'a>> {
    let own = || placements.iter().filter(|placement| placement.spec.collection == key.collection);
    let names = |placement: &&IndexPlacement| {
        let dedicated = placement.spec.dedicated.as_ref();
        dedicated.is_some_and(|dedicated| dedicated.tenants.iter().any(|one| one.id == key.tenant))
    };
    let has = |cell: &&SearchCell| {
        let name = cell.metadata.name.as_deref().unwrap_or_default();
        let mut clusters = cell.spec.clusters.iter();
        clusters.any(|cluster| tenant.clusters.contains(&format!("{name}-{}", cluster.name)))
    };
    let dedicated = own().find(names).map(About::Dedicated);
    let pool = || own().find(|placement| placement.spec.pool.is_some()).map(About::Pool);
    let any = || own().next().map(About::Collection);
    dedicated.or_else(pool).or_else(any).or_else(|| cells.iter().find(has).map(About::Cell))
}

impl About<'_> {
    /// Whether a person should do something: a tenant with an index of its own slows down no other's.
    pub fn is_warning(&self) -> bool {
        !matches!(self, About::Dedicated(_))
    }

    /// What a person is told.
    pub fn text(&self, key: &TenantKey, tenant: &HotTenant) -> String {
        let HotTenant { documents, bytes, routers, hot_in, .. } = tenant;
        // A tenant is what clients wrote: its characters are shown, not obeyed.
        let (id, collection) = (&key.tenant, &key.collection);
        let rates = format!("{documents:.0} documents/s and {}/s", size(*bytes));
        let plural = if *routers == 1 { "" } else { "s" };
        let what = format!(
            "tenant {id:?} of collection {collection:?} writes {rates} through {routers} router{plural}, and is hot in \
             {hot_in} of them. "
        );
        let then = match self {
            About::Dedicated(_) => {
                "spec.dedicated.tenants names it, so that it has an index of its own: look whether the nodes that have \
                 it keep up"
            }
            About::Pool(_) => {
                "It shares an index of the pool with other tenants. To give it one of its own, name it in \
                 spec.dedicated.tenants[].id of an IndexPlacement with the same collection; documents that it has in \
                 the pool have to be migrated"
            }
            About::Collection(_) => {
                "It has no index: the collection has no pool, and no IndexPlacement names it. Name it in \
                 spec.dedicated.tenants[].id of one"
            }
            About::Cell(_) => {
                "No IndexPlacement of its collection is known here. To give it an index of its own, name it in \
                 spec.dedicated.tenants[].id of an IndexPlacement with this collection"
            }
        };
        what + then
    }
}

/// Bytes, for people.
fn size(bytes: f64) -> String {
    let units = [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1_024.0, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes / unit),
        None => format!("{bytes:.0} bytes"),
    }
}

/// Who was told of, so that nobody is twice for the same.
#[derive(Clone, Debug, Default)]
pub struct HotMemory {
    told: BTreeMap<TenantKey, Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Duration,
    hot: Duration,
}

impl HotMemory {
    /// Of whom to tell now, those that write most first, and remembers that they were told. `now`: since any time that
    /// stays the same. `about`: what there is to be told; who has nothing takes no place.
    pub fn news<T>(
        &mut self,
        hot: &BTreeMap<TenantKey, HotTenant>,
        now: Duration,
        about: impl Fn(&TenantKey, &HotTenant) -> Option<T>,
    ) -> Vec<T> {
        for (key, told) in &mut self.told {
            if hot.contains_key(key) {
                told.hot = now;
            }
        }
        self.told.retain(|_, told| now.saturating_sub(told.hot) < FORGOTTEN);
        let due =
            |key: &TenantKey| self.told.get(key).is_none_or(|told| now.saturating_sub(told.at) >= AGAIN);
        let mut new: Vec<(&TenantKey, &HotTenant)> = hot.iter().filter(|(key, _)| due(key)).collect();
        new.sort_by(|(_, a), (_, b)| b.documents.total_cmp(&a.documents).then(b.bytes.total_cmp(&a.bytes)));
        // The first of every namespace before the second of any: no namespace takes the place of another.
        let mut of_namespace: BTreeMap<&str, usize> = BTreeMap::new();
        let mut ranked = Vec::new();
        for (key, tenant) in new {
            let rank = of_namespace.entry(&key.namespace).or_default();
            if *rank < MOST_OF_NAMESPACE
                && let Some(news) = about(key, tenant)
            {
                ranked.push((*rank, key, news));
                *rank += 1;
            }
        }
        ranked.sort_by_key(|(rank, ..)| *rank);
        ranked.truncate(MOST_AT_ONCE);
        let remembered = |(_, key, news): (usize, &TenantKey, T)| {
            self.told.insert(key.clone(), Told { at: now, hot: now });
            news
        };
        ranked.into_iter().map(remembered).collect()
    }
}

#[cfg(test)]
#[path = "hot_tests.rs"]
mod tests;
