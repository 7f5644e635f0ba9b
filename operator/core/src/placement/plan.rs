//! Plans one pass over an IndexPlacement: which indices to create, and what is held and why. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use searchcell_crds::{ClusterPhase, ClusterPlacement, DeletionPolicy, Reason, SearchCell};

use super::{Candidate, Found, PlacementSnapshot, assign, was_created};
use crate::build;
use crate::domain::{ValidIndex, ValidPlacement};
use crate::names::{ClusterKey, OWNED_SETTINGS, ZONE_ATTRIBUTE};
use crate::plan::{WAKE_AT_REST, WAKE_WHILE_BUSY, has_finalizer, setting_text};
use crate::snapshot::{ElasticFacts, ElasticNode, Reading};
use crate::step::{Action, Hold, Plan, Step};

/// How long the deletion of a placement waits for a cluster that cannot be reached, before its indices are left
/// behind.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Indices created in one pass over one placement.
const MOST_CREATIONS: usize = 64;

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

    let (missing, mut holds) = compare(placement, snapshot);
    let all_read = cell
        .spec
        .clusters
        .iter()
        .all(|cluster| snapshot.elastic.get(&cluster.name).is_some_and(|r| r.known().is_some()));
    let gone = missing.iter().filter(|index| all_read && was_created(snapshot, placement, index));
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
    if missing.is_empty() || !holds.is_empty() {
        plan.holds = holds;
        return plan;
    }
    if cell.spec.suspend {
        plan.holds.push(hold(
            None,
            Reason::Suspended,
            format!("SearchCell {} is suspended: nothing is created", placement.cell),
        ));
        return plan;
    }
    let replicas = wanted_replicas(placement, snapshot, cell);
    match candidates(placement, snapshot, cell, replicas) {
        Err(waiting) => {
            plan.wake_after = WAKE_WHILE_BUSY;
            plan.holds.push(waiting);
        }
        Ok(candidates) => {
            plan.wake_after = WAKE_WHILE_BUSY;
            let assignment = assign(&missing, replicas.saturating_add(1), &candidates);
            for index in missing.iter().take(MOST_CREATIONS) {
                let Some(cluster) = assignment.get(&index.name) else { continue };
                let body = build::index_body(placement, index, replicas);
                let action = Action::CreateIndex { name: index.name.clone(), body };
                plan.steps.push(step(Some(cluster), "the placement asks for it", action));
            }
        }
    }
    plan
}

/// Indices that are missing, and why others are not as the spec asks.
fn compare(placement: &ValidPlacement, snapshot: &PlacementSnapshot) -> (Vec<ValidIndex>, Vec<Hold>) {
    let owned: Vec<Found<'_>> = snapshot.owned_indices();
    let mut missing = Vec::new();
    let mut holds = Vec::new();
    for index in &placement.indices {
        let found: Vec<Found<'_>> = snapshot.indices().filter(|found| found.name == index.name).collect();
        match found.as_slice() {
            [] => missing.push(index.clone()),
            [only] if owned.iter().any(|ours| ours.name == only.name) => {
                holds.extend(changed_in_place(placement, index, only));
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
    for found in &owned {
        if !placement.indices.iter().any(|index| index.name == found.name) {
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
    (missing, holds)
}

/// What the spec asks of an existing index that is not so.
fn changed_in_place(placement: &ValidPlacement, index: &ValidIndex, found: &Found<'_>) -> Option<Hold> {
    let cluster = Some(found.cluster);
    if found.facts.primaries != index.shards {
        return Some(hold(
            cluster,
            Reason::NeedsMigration,
            format!(
                "index {} has {} primary shards and the spec asks for {}: that needs a new index and a migration; set \
                 expectedDocuments or shards back",
                index.name, found.facts.primaries, index.shards
            ),
        ));
    }
    if let Some(replicas) = placement.replicas.filter(|replicas| *replicas != found.facts.replicas) {
        return Some(hold(
            cluster,
            Reason::NotSupportedYet,
            format!(
                "existing indices have {} replicas and spec.replicas is {replicas}: changing it comes with a later version of the \
                 operator; set it back to {}",
                found.facts.replicas, found.facts.replicas
            ),
        ));
    }
    let inputs = found.mark().map(|mark| mark.inputs.as_str()).unwrap_or_default();
    if inputs != build::index_inputs(placement) {
        return Some(hold(
            None,
            Reason::NotSupportedYet,
            "spec.index differs from what existing indices were created with: changing mappings or settings of existing indices \
             comes with a later version of the operator; set it back",
        ));
    }
    None
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
fn wanted_replicas(placement: &ValidPlacement, snapshot: &PlacementSnapshot, cell: &SearchCell) -> i32 {
    let existing = || snapshot.owned_indices().first().map(|found| found.facts.replicas);
    let zones = i32::try_from(cell.spec.zones.len()).unwrap_or(1);
    placement.replicas.or_else(existing).unwrap_or((zones - 1).clamp(0, 2))
}

/// Clusters that may take new indices now, or what that waits for.
fn candidates(
    placement: &ValidPlacement,
    snapshot: &PlacementSnapshot,
    cell: &SearchCell,
    replicas: i32,
) -> Result<Vec<Candidate>, Hold> {
    let zones: Vec<&str> = cell.spec.zones.iter().map(|zone| zone.name.as_str()).collect();
    let mut candidates = Vec::new();
    let mut unprepared = None;
    for cluster in &cell.spec.clusters {
        let waiting = |message: String| hold(Some(&cluster.name), Reason::CellNotReady, message);
        // An index that is missing here may exist on a cluster that was not read: without it, nothing is created.
        let facts = match snapshot.elastic.get(&cluster.name) {
            Some(Reading::Known(facts)) => facts,
            Some(Reading::Unavailable(why)) => {
                return Err(waiting(format!("cluster {} cannot be read: {why}", cluster.name)));
            }
            None => return Err(waiting(format!("cluster {} has not been read yet", cluster.name))),
        };
        let recorded =
            cell.status.iter().flat_map(|status| &status.clusters).find(|status| status.name == cluster.name);
        let is_formed = recorded.is_some_and(|status| {
            status.uuid.is_some()
                && status.uuid == facts.uuid
                && !matches!(status.phase, ClusterPhase::Pending | ClusterPhase::Forming)
        });
        if !is_formed {
            return Err(waiting(format!("cluster {} is still forming", cluster.name)));
        }
        if cluster.placement() != ClusterPlacement::Open {
            continue;
        }
        match why_not_prepared(facts, &zones, replicas.saturating_add(1)) {
            None => candidates.push(Candidate { cluster: cluster.name.clone(), load: load(facts) }),
            Some(why) => {
                unprepared = Some(waiting(format!("cluster {} cannot take new indices: {why}", cluster.name)))
            }
        }
    }
    match (candidates.is_empty(), unprepared) {
        (false, _) => Ok(candidates),
        (true, Some(waiting)) => Err(waiting),
        (true, None) => Err(hold(
            None,
            Reason::NoOpenCluster,
            format!(
                "every cluster of SearchCell {} is Closed: set the placement of one to Open, or add a cluster",
                placement.cell
            ),
        )),
    }
}

/// Copies that are made before awareness is set, or before a zone has nodes, land in the wrong place.
fn why_not_prepared(facts: &ElasticFacts, zones: &[&str], copies: i32) -> Option<String> {
    if facts.master.is_none() {
        return Some("it has no elected master".to_owned());
    }
    let attributes = facts.settings.get("cluster.routing.allocation.awareness.attributes").map(setting_text);
    if attributes.as_deref() != Some(ZONE_ATTRIBUTE) || !facts.settings.contains_key(OWNED_SETTINGS) {
        return Some("its awareness settings are not in place yet".to_owned());
    }
    let count = i32::try_from(zones.len().max(1)).unwrap_or(i32::MAX);
    let needed = usize::try_from(copies.saturating_add(count - 1) / count).unwrap_or(usize::MAX);
    let data_nodes = |zone: &str| {
        let is_there = |node: &&ElasticNode| node.zone.as_deref() == Some(zone) && node.is_data();
        facts.nodes.values().filter(is_there).count()
    };
    // Fewer copies than zones do not need a node in every zone, but they need enough zones.
    let ready = zones.iter().filter(|zone| data_nodes(zone) >= needed).count();
    let wanted = zones.len().min(usize::try_from(copies).unwrap_or(usize::MAX));
    (ready < wanted)
        .then(|| "it has too few data nodes in its zones for the copies that are asked for".to_owned())
}

/// Shard copies of managed indices.
fn load(facts: &ElasticFacts) -> i64 {
    let managed = facts.indices.values().filter(|index| index.mark.is_some());
    managed.map(|index| i64::from(index.primaries) * i64::from(index.replicas.saturating_add(1))).sum()
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
    for found in snapshot.owned_indices() {
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
    let waited = meta.deletion_timestamp.as_ref().map(|since| now.duration_since(since.0).unsigned_abs());
    let patience_is_over = waited.is_some_and(|waited| waited >= PATIENCE);
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

fn step(cluster: Option<&str>, why: &str, action: Action) -> Step {
    Step { cluster: cluster.map(str::to_owned), action, why: why.to_owned() }
}

fn hold(cluster: Option<&str>, reason: Reason, message: impl Into<String>) -> Hold {
    Hold { cluster: cluster.map(str::to_owned), reason, message: message.into() }
}
