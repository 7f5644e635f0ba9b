//! Which Elasticsearch cluster a cluster of a cell *is*: its UUID, recorded once, found again in status, on
//! volume claims or in the running cluster. Decides about bootstrapping. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::domain::EsVersion;
use crate::names::{ANNOTATION_CLUSTER_UUID, ANNOTATION_HIGHEST_VERSION};
use crate::snapshot::{CellObjects, ElasticFacts, annotation};

/// What is known of a cluster's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing carries a UUID and no volume is older than the cell: it may be bootstrapped.
    Unborn,
    /// The UUID that status or a claim carries, or, before either does, that the cluster formed with.
    Known(String),
    /// Volumes are there that are older than the cell and carry no UUID: they may hold a cluster.
    OlderVolumes(Vec<String>),
    /// Two different UUIDs are recorded.
    Conflict(BTreeSet<String>),
    /// The running cluster is not the recorded one.
    Foreign {
        /// The UUID that was recorded.
        recorded: String,
        /// The one that the cluster reports.
        running: String,
    },
}

/// Finds out who a cluster is. `objects` are those of the cluster alone.
pub fn identity(
    status_uuid: Option<&str>,
    objects: &CellObjects,
    elastic: Option<&ElasticFacts>,
    cell_created_at: Option<Timestamp>,
) -> Identity {
    // A claim that is being deleted proves nothing: it goes with what is on it.
    let lasting = || objects.claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none());
    let mut recorded: BTreeSet<String> = lasting()
        .filter_map(|claim| annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID))
        .map(str::to_owned)
        .collect();
    recorded.extend(status_uuid.map(str::to_owned));
    let running = elastic.and_then(|facts| facts.uuid.as_deref());

    if recorded.len() > 1 {
        return Identity::Conflict(recorded);
    }
    match (recorded.into_iter().next(), running) {
        (Some(recorded), Some(running)) if recorded != running => {
            Identity::Foreign { recorded, running: running.to_owned() }
        }
        (Some(recorded), _) => Identity::Known(recorded),
        (None, Some(running)) => Identity::Known(running.to_owned()),
        (None, None) => {
            let older: Vec<String> = lasting()
                .filter(|claim| match (&claim.metadata.creation_timestamp, cell_created_at) {
                    (Some(claimed), Some(cell)) => claimed.0 < cell,
                    _ => false,
                })
                .filter_map(|claim| claim.metadata.name.clone())
                .collect();
            if older.is_empty() { Identity::Unborn } else { Identity::OlderVolumes(older) }
        }
    }
}

/// The highest version that ever joined, as far as claims or the running cluster tell.
pub fn highest_version(objects: &CellObjects, elastic: Option<&ElasticFacts>) -> Option<EsVersion> {
    let recorded = (objects.claims.iter())
        .filter_map(|claim| annotation(&claim.metadata, ANNOTATION_HIGHEST_VERSION)?.parse().ok());
    let running = elastic
        .into_iter()
        .flat_map(|facts| facts.nodes.values())
        .filter_map(|node| node.version.parse().ok());
    recorded.chain(running).max()
}
