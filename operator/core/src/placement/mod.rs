//! Which indices live on which cluster of a cell: decides, verifies against Elasticsearch's routing table, and
//! reports. Pure. `README.md` beside this file explains the algorithm.

mod candidates;
mod change;
mod fleet;
mod guard;
mod place;
mod plan;
mod pooled;
mod record;
pub mod solver;
mod status;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use searchcell_crds::{DeletionPolicy, IndexPlacement, Reason, SearchCell};

pub use candidates::{TenantsToCount, tenants_to_count};
pub use guard::ShardLimits;
pub use plan::{plan_placement, plan_placement_deletion};
pub use pooled::{PoolCount, to_count};
pub(crate) use record::{Recorded, recorded_in};
pub use status::placement_status;
pub use verify::{Copies, verify};

use crate::names::ClusterKey;
use crate::routing::Published;
use crate::snapshot::{ElasticFacts, IndexFacts, OwnershipMark, Reading};

/// Everything that one pass over an IndexPlacement looks at.
#[derive(Clone, Debug)]
pub struct PlacementSnapshot {
    /// The object as the watch cache has it.
    pub placement: IndexPlacement,
    /// The SearchCell that it names, if there is one.
    pub cell: Option<SearchCell>,
    /// All other placements of the namespace.
    pub siblings: Vec<IndexPlacement>,
    /// The routing table of its collection, as the watch cache has it.
    pub table: Option<Arc<Published>>,
    /// What each cluster of the cell said, by cluster name. A missing one counts as unavailable.
    pub elastic: BTreeMap<String, Reading<ElasticFacts>>,
    /// Documents in the collection's pool of tenants that [`to_count`] asks for.
    pub pooled: BTreeMap<String, Reading<u64>>,
    /// The largest tenants of indices that [`tenants_to_count`] names, with their documents, by index, as far as they are
    /// known.
    pub largest: BTreeMap<String, Vec<(String, u64)>>,
    /// From where on a shard is large.
    pub limits: ShardLimits,
}

impl PlacementSnapshot {
    /// Namespace and name of the placement.
    fn id(&self) -> (&str, &str) {
        let meta = &self.placement.metadata;
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    /// True while the cell goes and takes its volumes along, as it was told to: its indices are not lost, but deleted.
    fn goes_with_volumes(&self) -> bool {
        self.cell.as_ref().is_some_and(|cell| {
            cell.metadata.deletion_timestamp.is_some() && cell.spec.deletion_policy == DeletionPolicy::Delete
        })
    }

    /// All indices that carry this placement's mark, on every cluster that could be read.
    fn owned_indices(&self) -> Vec<Found<'_>> {
        let (namespace, name) = self.id();
        self.indices()
            .filter(|found| {
                found.facts.mark.as_ref().is_some_and(|mark| {
                    mark.namespace == namespace
                        && mark.placement == name
                        && mark.collection == self.placement.spec.collection
                })
            })
            .collect()
    }

    /// True when the published table names the index where it was found.
    fn is_published(&self, found: &Found<'_>) -> bool {
        let (namespace, _) = self.id();
        let cluster = ClusterKey::new(namespace, &self.placement.spec.cell, found.cluster).name();
        self.table.as_ref().is_some_and(|table| table.names(found.name, &cluster))
    }

    /// What is said of the largest shard of each index of this placement that is past a limit. `None`: not all of them
    /// can be measured now, and what was said goes on to be so.
    pub fn large_shards(&self) -> Option<Vec<Reason>> {
        let owned = self.owned_indices();
        let clusters = || self.cell.iter().flat_map(|cell| &cell.spec.clusters);
        let is_read = |name: &String| self.elastic.get(name).is_some_and(|reading| reading.known().is_some());
        let is_measured = clusters().all(|cluster| is_read(&cluster.name))
            && owned.iter().all(|found| found.elastic.counts.is_some());
        is_measured.then(|| self.large(&owned).into_iter().map(|(_, reason)| reason).collect())
    }

    /// Indices of `owned` with a shard that is past a limit, with the limit, the worst first.
    fn large<'a>(&self, owned: &[Found<'a>]) -> Vec<(&'a str, Reason)> {
        guard::large(owned, self.placement.status.as_ref(), self.limits)
    }

    /// All indices on every cluster that could be read.
    fn indices(&self) -> impl Iterator<Item = Found<'_>> {
        self.elastic.iter().filter_map(|(cluster, reading)| Some((cluster, reading.known()?))).flat_map(
            |(cluster, elastic)| {
                elastic.indices.iter().map(move |(name, facts)| Found { cluster, name, facts, elastic })
            },
        )
    }
}

/// An index as it was found.
#[derive(Clone, Copy, Debug)]
struct Found<'a> {
    /// Cluster name within the cell.
    cluster: &'a str,
    /// Index name.
    name: &'a str,
    /// What is known of it.
    facts: &'a IndexFacts,
    /// The cluster that it is on.
    elastic: &'a ElasticFacts,
}

impl Found<'_> {
    /// The mark, when it has one.
    fn mark(&self) -> Option<&OwnershipMark> {
        self.facts.mark.as_ref()
    }
}
