//! Plans one pass over an IndexPlacement: which indices to create, and what is held and why. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use searchcell_crds::{DeletionPolicy, Reason, SearchCell};

use super::change::Changes;
use super::place::place;
use super::pooled::{self, Pool, Pooled};
use super::record::recorded;
use super::{Found, PlacementSnapshot};
use crate::domain::{ValidIndex, ValidPlacement};
use crate::names::ClusterKey;
use crate::plan::{WAKE_AT_REST, WAKE_WHILE_BUSY, has_finalizer};
use crate::snapshot::Reading;
use crate::step::{Action, Hold, Plan, Step};

/// How long the deletion of a placement waits for a cluster that cannot be reached, before its indices are left
/// behind.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Plans one pass over a placement that is not being deleted.
pub fn plan_placement(placement: &ValidPlacement, snapshot: &PlacementSnapshot, _now: Timestamp) -> Plan {
    let mut plan = Plan { wake_after: WAKE_AT_REST, ..Plan::default() };
    if !has_finalizer(&snapshot.placement.metadata) {
        plan.wake_after = WAKE_WHILE_BUSY;
        plan.steps.push(step(None, "indices are cleaned up as deletionPolicy says", Action::AddFinalizer));
        return plan;
    }
    let Some(cell) = &snapshot.cell else {
        plan.holds.push(hold(
            None,
            Reason::CellNotFound,
            format!("there is no SearchCell {} in this namespace", placement.cell),
        ));
        return plan;
    };

    let Compared { missing, changes, mut holds } = compare(placement, snapshot);
    let all_read = cell
        .spec
        .clusters
        .iter()
        .all(|cluster| snapshot.elastic.get(&cluster.name).is_some_and(|r| r.known().is_some()));
    let record = recorded(snapshot);
    let was_there = |index: &ValidIndex| record.get(index.name.as_str()).is_some_and(|at| at.seen);
    let gone = missing.iter().filter(|index| all_read && was_there(index));
    holds.extend(gone.map(|index| {
        hold(
            None,
            Reason::IndexMissing,
            format!(
                "index {} was there and is gone; an empty one in its place would hide the loss: restore it from a snapshot, or \
                 delete the placement and apply it again to start empty",
                index.name
            ),
        )
    }));
    holds.extend(moved_from_another_cell(placement, snapshot, cell));
    if !holds.is_empty() || missing.is_empty() && changes.is_empty() {
        plan.holds = holds;
        return plan;
    }
    // What the pool holds of one tenant is no reason to keep the others waiting.
    let pool = Pool::of(snapshot);
    let compared: Vec<(&ValidIndex, Pooled)> =
        missing.into_iter().map(|index| (index, pool.has(index))).collect();
    plan.holds = pooled::holds(&compared);
    let missing: Vec<&ValidIndex> = (compared.iter())
        .filter(|(_, pooled)| matches!(pooled, Pooled::None))
        .map(|(index, _)| *index)
        .collect();
    if compared.iter().any(|(_, pooled)| matches!(pooled, Pooled::StillSent)) {
        plan.wake_after = WAKE_WHILE_BUSY;
    }
    if missing.is_empty() && changes.is_empty() {
        return plan;
    }
    if cell.spec.suspend {
        let message = format!("SearchCell {} is suspended: nothing is created or changed", placement.cell);
        plan.holds.push(hold(None, Reason::Suspended, message));
        return plan;
    }
    if !missing.is_empty() {
        place(placement, snapshot, cell, &missing, &mut plan);
    }
    plan.steps.splice(..0, changes.steps(placement));
    if !plan.steps.is_empty() {
        plan.wake_after = WAKE_WHILE_BUSY;
    }
    plan
}

/// What the spec asks for and is not so.
#[derive(Default)]
struct Compared<'a> {
    /// Indices that are not there.
    missing: Vec<&'a ValidIndex>,
    /// What of existing ones is to be changed.
    changes: Changes,
    /// What is not done, and why.
    holds: Vec<Hold>,
}

/// What there is, against what the spec asks for.
fn compare<'a>(placement: &'a ValidPlacement, snapshot: &PlacementSnapshot) -> Compared<'a> {
    let owned: Vec<Found<'_>> = snapshot.owned_indices();
    let Compared { mut missing, mut changes, mut holds } = Compared::default();
    let ours: BTreeSet<&str> = owned.iter().map(|found| found.name).collect();
    let mut by_name: BTreeMap<&str, Vec<Found<'_>>> = BTreeMap::new();
    for found in snapshot.indices() {
        by_name.entry(found.name).or_default().push(found);
    }
    for index in &placement.indices {
        let found = by_name.get(index.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        match found {
            [] => missing.push(index),
            [only] if ours.contains(only.name) => {
                let compared = shards(index, only).and_then(|()| changes.compare(placement, index, only));
                holds.extend(compared.err());
            }
            [only] => holds.push(hold(
                Some(only.cluster),
                Reason::ForeignIndex,
                format!(
                    "index {} on cluster {} is not marked as belonging to this placement and is not adopted: delete or rename it",
                    only.name, only.cluster
                ),
            )),
            several => {
                let clusters: Vec<&str> = several.iter().map(|found| found.cluster).collect();
                holds.push(hold(
                    None,
                    Reason::ForeignIndex,
                    format!("index {} exists on clusters {}: find out which one holds the documents, delete the other", index.name, clusters.join(" and ")),
                ));
            }
        }
    }
    let wanted: BTreeSet<&str> = placement.indices.iter().map(|index| index.name.as_str()).collect();
    for found in &owned {
        if !wanted.contains(found.name) {
            holds.push(hold(
                Some(found.cluster),
                Reason::NeedsMigration,
                format!(
                    "index {} is there, but the spec does not ask for it any more: it is kept; put the tenant or the number of \
                     pool indices back, or migrate",
                    found.name
                ),
            ));
        }
    }
    if let Some(pool) =
        owned.iter().filter_map(|found| found.mark()?.pool).find(|pool| Some(*pool) != placement.pool_size())
    {
        holds.push(hold(
            None,
            Reason::NeedsMigration,
            format!("the pool was made of {pool} indices: another number moves tenants between indices, which needs a migration; set spec.pool.indices back to {pool}"),
        ));
    }
    holds.sort();
    holds.dedup();
    Compared { missing, changes, holds }
}

/// The number of shards is fixed when an index is made.
fn shards(index: &ValidIndex, found: &Found<'_>) -> Result<(), Hold> {
    if found.facts.primaries == index.shards {
        return Ok(());
    }
    Err(hold(
        Some(found.cluster),
        Reason::NeedsMigration,
        format!(
            "index {} has {} primary shards and the spec asks for {}: that needs a new index and a migration; set \
             expectedDocuments or shards back",
            index.name, found.facts.primaries, index.shards
        ),
    ))
}

/// Indices of this placement that status remembers on clusters of another cell.
fn moved_from_another_cell(
    placement: &ValidPlacement,
    snapshot: &PlacementSnapshot,
    cell: &SearchCell,
) -> Option<Hold> {
    let known: Vec<String> = (cell.spec.clusters.iter())
        .map(|cluster| ClusterKey::new(&placement.namespace, &placement.cell, &cluster.name).name())
        .collect();
    let status = snapshot.placement.status.as_ref()?;
    let elsewhere =
        status.clusters.iter().find(|cluster| cluster.indices > 0 && !known.contains(&cluster.name))?;
    Some(hold(
        None,
        Reason::NeedsMigration,
        format!(
            "indices of this placement are on cluster {}, which is not of SearchCell {}: set spec.cell back, or migrate",
            elsewhere.name, placement.cell
        ),
    ))
}

/// What the spec says, else what existing indices have, else `min(zones − 1, 2)`.
pub(super) fn wanted_replicas(
    placement: &ValidPlacement,
    snapshot: &PlacementSnapshot,
    cell: &SearchCell,
) -> i32 {
    let made_with = |found: &Found<'_>| found.mark().and_then(|mark| mark.replicas);
    let existing =
        || snapshot.owned_indices().first().map(|found| made_with(found).unwrap_or(found.facts.replicas));
    let zones = i32::try_from(cell.spec.active_zones().count()).unwrap_or(1);
    placement.replicas.or_else(existing).unwrap_or((zones - 1).clamp(0, 2))
}

/// Plans one pass over a placement that is being deleted, valid or not.
pub fn plan_placement_deletion(snapshot: &PlacementSnapshot, now: Timestamp) -> Plan {
    let meta = &snapshot.placement.metadata;
    let mut plan = Plan { wake_after: WAKE_WHILE_BUSY, ..Plan::default() };
    if !has_finalizer(meta) {
        return plan;
    }
    let done = || step(None, "everything is cleaned up", Action::RemoveFinalizer);
    // Without a cell there is nobody to ask, and with the volumes of one that goes the indices go, too.
    let deletes = snapshot.placement.spec.deletion_policy == DeletionPolicy::Delete;
    let Some(cell) = snapshot.cell.as_ref().filter(|_| deletes && !snapshot.goes_with_volumes()) else {
        plan.steps.push(done());
        return plan;
    };
    let waited = meta.deletion_timestamp.as_ref().map(|since| now.duration_since(since.0).unsigned_abs());
    let patience_is_over = waited.is_some_and(|waited| waited >= PATIENCE);
    let owned = snapshot.owned_indices();
    if !patience_is_over && owned.iter().any(|found| snapshot.is_published(found)) {
        let message = "the routing table of the collection still names indices that are to be deleted";
        plan.holds.push(hold(None, Reason::Deleting, message));
        return plan;
    }
    for found in owned {
        let action = Action::DeleteIndex { name: found.name.to_owned(), uuid: found.facts.uuid.clone() };
        plan.steps.push(step(Some(found.cluster), "spec.deletionPolicy is Delete", action));
    }
    let unread: BTreeMap<&str, &str> = (cell.spec.clusters.iter())
        .filter_map(|cluster| match snapshot.elastic.get(&cluster.name) {
            Some(Reading::Known(_)) => None,
            Some(Reading::Unavailable(why)) => Some((cluster.name.as_str(), why.as_str())),
            None => Some((cluster.name.as_str(), "it has not been read yet")),
        })
        .collect();
    if patience_is_over || (plan.steps.is_empty() && unread.is_empty()) {
        plan.steps.push(done());
    }
    plan.holds.extend(unread.iter().map(|(cluster, why)| {
        hold(
            Some(cluster),
            Reason::Deleting,
            format!("indices on cluster {cluster} cannot be deleted: {why}"),
        )
    }));
    plan
}

pub(super) fn step(cluster: Option<&str>, why: &str, action: Action) -> Step {
    Step { cluster: cluster.map(str::to_owned), action, why: why.to_owned() }
}

pub(super) fn hold(cluster: Option<&str>, reason: Reason, message: impl Into<String>) -> Hold {
    Hold { cluster: cluster.map(str::to_owned), reason, message: message.into() }
}
