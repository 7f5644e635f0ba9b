//! What status remembers of where indices belong: decided before they are created, confirmed when they are seen, kept
//! for good. Pure.

use std::collections::{BTreeMap, BTreeSet};

use searchcell_crds::{IndexPlacementStatus, PlacementAssignment};

use super::{Found, PlacementSnapshot};
use crate::domain::ValidPlacement;
use crate::names::ClusterKey;
use crate::step::Plan;

/// Where an index belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded<'a> {
    /// `<cell>-<cluster>`.
    pub cluster: &'a str,
    /// Whether it has been seen there.
    pub seen: bool,
}

/// What a status records, by index name.
pub(super) fn recorded_in(status: &IndexPlacementStatus) -> BTreeMap<&str, Recorded<'_>> {
    let mut record = BTreeMap::new();
    for PlacementAssignment { cluster, indices, pending } in &status.assignments {
        let at = |seen| Recorded { cluster, seen };
        record.extend(pending.iter().map(|name| (name.as_str(), at(false))));
        record.extend(indices.iter().map(|name| (name.as_str(), at(true))));
    }
    record
}

/// What the placement's own status records. Nothing while the cell takes its volumes along: all starts anew.
pub(super) fn recorded(snapshot: &PlacementSnapshot) -> BTreeMap<&str, Recorded<'_>> {
    let status = snapshot.placement.status.as_ref().filter(|_| !snapshot.goes_with_volumes());
    status.map(recorded_in).unwrap_or_default()
}

/// True when status remembers that the index was there.
pub(super) fn was_created(snapshot: &PlacementSnapshot, index: &str) -> bool {
    recorded(snapshot).get(index).is_some_and(|at| at.seen)
}

/// What the next status records: what was recorded and is still asked for, what this pass decided, and, before both,
/// what is there.
pub(super) fn next_record(
    snapshot: &PlacementSnapshot,
    valid: Option<&ValidPlacement>,
    owned: &[Found<'_>],
    plan: &Plan,
) -> Vec<PlacementAssignment> {
    let (namespace, _) = snapshot.id();
    let full_name = |cluster: &str| ClusterKey::new(namespace, &snapshot.placement.spec.cell, cluster).name();
    let wanted: Option<BTreeSet<&str>> =
        valid.map(|valid| valid.indices.iter().map(|index| index.name.as_str()).collect());
    let is_unread = |cluster: &str| {
        snapshot.elastic.iter().any(|(name, reading)| reading.known().is_none() && full_name(name) == cluster)
    };

    let before = recorded(snapshot);
    let mut record: BTreeMap<&str, (String, bool)> = (before.iter())
        .filter(|(name, at)| {
            wanted.as_ref().is_none_or(|wanted| wanted.contains(*name)) || at.seen && is_unread(at.cluster)
        })
        .map(|(name, at)| (*name, (at.cluster.to_owned(), at.seen)))
        .collect();
    for (name, cluster) in &plan.assign {
        record.insert(name, (full_name(cluster), false));
    }
    for found in owned {
        let cluster = full_name(found.cluster);
        // One that is on two clusters is where it was recorded to be.
        let elsewhere = before.get(found.name).is_some_and(|at| {
            at.cluster != cluster
                && owned
                    .iter()
                    .any(|other| other.name == found.name && full_name(other.cluster) == at.cluster)
        });
        if !elsewhere {
            record.insert(found.name, (cluster, true));
        }
    }

    let mut by_cluster: BTreeMap<String, PlacementAssignment> = BTreeMap::new();
    for (name, (cluster, seen)) in record {
        let entry = by_cluster.entry(cluster.clone()).or_default();
        entry.cluster = cluster;
        let list = if seen { &mut entry.indices } else { &mut entry.pending };
        list.push(name.to_owned());
    }
    by_cluster.into_values().collect()
}
