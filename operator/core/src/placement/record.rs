//! What status remembers of where indices belong: decided before they are created, confirmed when they are seen, kept
//! for good. Pure.

use std::collections::{BTreeMap, BTreeSet};

use searchcell_crds::{IndexPlacementStatus, PlacementAssignment};

use super::pooled::{Pool, Pooled};
use super::{Found, PlacementSnapshot};
use crate::domain::ValidPlacement;
use crate::names::ClusterKey;
use crate::step::Plan;

/// Where an index belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded<'a> {
    /// `<cell>-<cluster>`.
    pub cluster: &'a str,
    /// Whether it has been seen there.
    pub seen: bool,
    /// Whether it has gone since.
    pub missing: bool,
}

impl Recorded<'_> {
    /// True when it was there when its cluster was last read.
    pub fn is_there(&self) -> bool {
        self.seen && !self.missing
    }
}

/// What a status records, by index name.
pub(crate) fn recorded_in(status: &IndexPlacementStatus) -> BTreeMap<&str, Recorded<'_>> {
    let mut record = BTreeMap::new();
    for PlacementAssignment { cluster, indices, pending, missing } in &status.assignments {
        for (names, seen, gone) in [(pending, false, false), (missing, true, true), (indices, true, false)] {
            let at = Recorded { cluster, seen, missing: gone };
            record.extend(names.iter().map(|name| (name.as_str(), at)));
        }
    }
    record
}

/// What the placement's own status records. Nothing while the cell takes its volumes along: all starts anew.
pub(super) fn recorded(snapshot: &PlacementSnapshot) -> BTreeMap<&str, Recorded<'_>> {
    let status = snapshot.placement.status.as_ref().filter(|_| !snapshot.goes_with_volumes());
    status.map(recorded_in).unwrap_or_default()
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
    // Known to be without it: its cluster was read, and was itself, or has left the cell with all that belonged to it.
    let knows = |cluster: &str| {
        let reading = snapshot.elastic.iter().find(|(name, _)| full_name(name) == cluster);
        match reading {
            Some((_, reading)) => {
                reading.known().is_some_and(|facts| facts.uuid.is_some() && facts.master.is_some())
            }
            None => snapshot.cell.as_ref().is_some_and(|cell| {
                !cell.spec.clusters.iter().any(|of_cell| full_name(&of_cell.name) == cluster)
            }),
        }
    };
    let is_pool = snapshot.placement.spec.pool.is_some();
    // A tenant whose documents are in the pool goes back there.
    let pool = Pool::of(snapshot);
    let in_pool: BTreeSet<&str> = (valid.iter().flat_map(|valid| &valid.indices))
        .filter(|index| matches!(pool.has(index), Pooled::Some))
        .map(|index| index.name.as_str())
        .collect();
    let before = recorded(snapshot);
    let mut record: BTreeMap<&str, (String, List)> = BTreeMap::new();
    for (name, at) in &before {
        let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
        let unread = !knows(at.cluster);
        // How many indices a pool has decides where its tenants are: none is forgotten that was ever there.
        if is_wanted && !in_pool.contains(name) || at.seen && (unread || is_pool) {
            let list = match (at.seen, unread) {
                (false, _) => List::Pending,
                (true, true) if at.is_there() => List::There,
                (true, _) => List::Missing,
            };
            record.insert(name, (at.cluster.to_owned(), list));
        }
    }
    for (name, cluster) in &plan.assign {
        record.insert(name, (full_name(cluster), List::Pending));
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
            record.insert(found.name, (cluster, List::There));
        }
    }

    let mut by_cluster: BTreeMap<String, PlacementAssignment> = BTreeMap::new();
    for (name, (cluster, list)) in record {
        let entry = by_cluster.entry(cluster.clone()).or_default();
        entry.cluster = cluster;
        let list = match list {
            List::Pending => &mut entry.pending,
            List::There => &mut entry.indices,
            List::Missing => &mut entry.missing,
        };
        list.push(name.to_owned());
    }
    by_cluster.into_values().collect()
}

/// One of the lists of an assignment.
#[derive(Clone, Copy)]
enum List {
    Pending,
    There,
    Missing,
}
