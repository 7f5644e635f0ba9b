//! Which indices live on which cluster of a cell: decides, verifies against Elasticsearch's routing table, and
//! reports. Pure. `README.md` beside this file explains the algorithm.

mod assign;
mod plan;
pub mod solver;
mod status;
mod verify;

use std::collections::BTreeMap;

use searchcell_crds::{DeletionPolicy, IndexPlacement, Reason, SearchCell};

pub use assign::{Assignment, Candidate, assign};
pub use plan::{plan_placement, plan_placement_deletion};
pub use status::placement_status;
pub use verify::{Copies, verify};

use crate::domain::{ValidIndex, ValidPlacement};
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
    /// What each cluster of the cell said, by cluster name. A missing one counts as unavailable.
    pub elastic: BTreeMap<String, Reading<ElasticFacts>>,
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

    /// All indices on every cluster that could be read.
    fn indices(&self) -> impl Iterator<Item = Found<'_>> {
        self.elastic.iter().filter_map(|(cluster, reading)| Some((cluster, reading.known()?))).flat_map(
            |(cluster, elastic)| {
                elastic.indices.iter().map(move |(name, facts)| Found { cluster, name, facts, elastic })
            },
        )
    }
}

/// True when status remembers that the index was there: all indices were, or its tenant had one.
fn was_created(snapshot: &PlacementSnapshot, placement: &ValidPlacement, index: &ValidIndex) -> bool {
    let Some(status) = snapshot.placement.status.as_ref().filter(|_| !snapshot.goes_with_volumes()) else {
        return false;
    };
    let is_reported = (status.problems.iter())
        .any(|problem| problem.index == index.name && problem.reason == Reason::IndexMissing.as_str());
    match &index.tenant {
        Some(tenant) => status.tenants.iter().any(|known| known.id == *tenant),
        None => {
            is_reported
                || status
                    .indices
                    .and_then(|n| usize::try_from(n).ok())
                    .is_some_and(|n| n >= placement.indices.len())
        }
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
