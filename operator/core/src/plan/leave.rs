//! Plans a cluster that left `spec.clusters`: it goes when it is empty, and stays as it is when it is not. Pure.
//!
//! What is decided is recorded in status first. The API server writes status and spec as one object, so whoever reads the record
//! reads the spec that it was made for: a cluster that is put back before [`OperationKind::DeleteVolumes`] is recorded has all
//! of its volumes, and afterwards none.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use searchcell_crds::{
    ClusterPhase, DeletionPolicy, IndexPlacement, Operation, OperationKind, Reason, SearchCell,
};

use super::removal::{has_workloads, retain_identity, text, workload_targets};
use super::{Draft, roll};
use crate::domain::ValidCell;
use crate::drift;
use crate::identity::{Identity, identity};
use crate::names::{ClusterKey, LABEL_CLUSTER, LABEL_ROLE, Role};
use crate::snapshot::{CellObjects, CellSnapshot, ElasticFacts, is_owned_by, is_ready, label};
use crate::status::some_of;
use crate::step::{Action, Kind, Target};

/// Between the first look and the second one: so long a client may still write to a cluster that has just left the spec, and
/// the operator may create indices there from a cell that it has read before.
const LOOKS_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// True for an operation of this file.
pub fn is_removal(operation: &Operation) -> bool {
    matches!(operation.kind, OperationKind::RemoveCluster | OperationKind::DeleteVolumes)
}

/// What is recorded to be under way in a cluster.
pub(super) fn recorded<'a>(cell: &'a SearchCell, cluster: &str) -> Option<&'a Operation> {
    let status = cell.status.as_ref()?;
    status.clusters.iter().find(|of| of.name == cluster)?.operation.as_ref()
}

/// Whether a cell, as the API server has it, lets a workload of a cluster go.
///
/// # Errors
///
/// Why not.
pub fn may_remove(cell: &SearchCell, cluster: &str) -> Result<(), &'static str> {
    if cell.metadata.deletion_timestamp.is_some() {
        return Err("the cell is being deleted");
    }
    if cell.spec.clusters.iter().any(|of| of.name == cluster) {
        return Err("the cluster is in the spec again");
    }
    if cell.spec.suspend {
        return Err("the cell is suspended");
    }
    let is_it = |of: &Operation| of.kind == OperationKind::RemoveCluster;
    if recorded(cell, cluster).is_some_and(is_it) { Ok(()) } else { Err("status does not record it") }
}

/// Whether a cell, as the API server has it, lets the volumes of a cluster go.
pub fn may_delete_volumes(cell: &SearchCell, cluster: &str) -> bool {
    recorded(cell, cluster).is_some_and(|of| of.kind == OperationKind::DeleteVolumes)
}

/// Names of the placements that have, or are about to have, indices in a cluster.
pub fn placed_on<'a>(
    placements: impl IntoIterator<Item = &'a IndexPlacement>,
    key: &ClusterKey,
) -> Vec<String> {
    let name = key.name();
    let is_on = |placement: &&IndexPlacement| {
        let status = placement.status.as_ref().filter(|_| placement.spec.cell == key.cell);
        status.is_some_and(|status| {
            let mut assigned = status.assignments.iter().filter(|of| of.cluster == name);
            assigned.any(|of| !(of.indices.is_empty() && of.pending.is_empty() && of.missing.is_empty()))
                || status.clusters.iter().any(|of| of.name == name && of.indices > 0)
        })
    };
    let on = placements.into_iter().filter(is_on);
    on.filter_map(|placement| placement.metadata.name.clone()).collect()
}

/// Indices that somebody may miss. Those that begin with a dot are Elasticsearch's own, data streams of others excepted: theirs
/// begin with `.ds-`, and with `.ds-.` or `.ds-ilm-history-` when they, too, are its own.
pub fn kept_indices<'a>(indices: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let is_own = |name: &str| match name.strip_prefix(".ds-") {
        Some(stream) => stream.starts_with('.') || stream.starts_with("ilm-history-"),
        None => name.starts_with('.'),
    };
    indices.into_iter().filter(|name| !is_own(name)).cloned().collect()
}

/// Whether a cluster that is not in the spec is still there, as far as status reports it.
pub(crate) fn is_there(snapshot: &CellSnapshot, cluster: &str) -> bool {
    has_workloads(snapshot, cluster) || has_pods(&snapshot.objects, cluster)
}

fn has_pods(objects: &CellObjects, cluster: &str) -> bool {
    objects.pods.iter().any(|pod| label(&pod.metadata, LABEL_CLUSTER) == Some(cluster))
}

/// Names of the clusters that are not in the spec and of which something is left.
pub(super) fn leaving(cell: &ValidCell, snapshot: &CellSnapshot) -> BTreeSet<String> {
    let status = snapshot.cell.status.iter().flat_map(|status| &status.clusters);
    let recorded = status.filter(|of| of.operation.as_ref().is_some_and(is_removal));
    let mut names: BTreeSet<String> = recorded.map(|of| of.name.clone()).collect();
    names.extend(snapshot.objects.cluster_names());
    names.retain(|name| cell.clusters.iter().all(|cluster| cluster.name != *name));
    names
}

/// Plans one pass over a cluster that is not in the spec.
pub(super) fn plan_leaving(
    cell: &ValidCell,
    key: &ClusterKey,
    snapshot: &CellSnapshot,
    now: Timestamp,
    draft: &mut Draft,
) {
    let cluster = key.cluster.as_str();
    let objects = &snapshot.objects.of_cluster(cluster);
    let recorded = recorded(&snapshot.cell, cluster);
    if recorded.is_some() {
        draft.operation = Some(None);
    }
    match recorded.filter(|of| is_removal(of)) {
        Some(of) if of.kind == OperationKind::DeleteVolumes => delete_volumes(key, objects, of, draft),
        Some(of) if !has_workloads(snapshot, cluster) => {
            without_workloads(cell, key, objects, of, now, draft)
        }
        None if !has_workloads(snapshot, cluster) => {
            if objects.pods.is_empty() {
                prune(key, objects, &cell.uid, draft);
            }
        }
        of => remove(cell, key, objects, snapshot, of, now, draft),
    }
}

/// Nothing of a cluster is changed: its spec is invalid, or it has none. But Elasticsearch is told of nodes that somebody else takes
/// down; and one that is back serves only when its record has gone.
pub(super) fn keep_told(key: &ClusterKey, snapshot: &CellSnapshot, draft: &mut Draft) {
    let objects = &snapshot.objects.of_cluster(&key.cluster);
    let elastic = snapshot.elastic(&key.cluster);
    let created_at = snapshot.cell.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let uuid = super::cluster::recorded_in_status(snapshot, &key.cluster);
    let is_itself = matches!(identity(uuid, objects, elastic, created_at), Identity::Known(_));
    if snapshot.restarts_nodes && is_itself {
        let recorded = recorded(&snapshot.cell, &key.cluster);
        roll::Observed { key, objects, elastic, recorded }.keep_told(draft);
    }
}

/// Workloads are there.
fn remove(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    snapshot: &CellSnapshot,
    recorded: Option<&Operation>,
    now: Timestamp,
    draft: &mut Draft,
) {
    let cluster = key.cluster.as_str();
    let nodes = nodes(objects, &cell.uid);
    let has_begun = recorded.is_some_and(|of| of.nodes.iter().any(|node| !nodes.contains(node)));
    let asks = match is_empty(cell, key, objects, snapshot) {
        Ok(asks) => asks,
        // Those who could say so have gone: they said so before.
        Err((Reason::Unreachable, _)) if has_begun => false,
        Err((reason, message)) => {
            draft.hold(cluster, reason, message);
            return keep_told(key, snapshot, draft);
        }
    };
    let Some(recorded) = recorded else {
        draft.operation = Some(Some(Operation {
            kind: OperationKind::RemoveCluster,
            zone: None,
            uids: Vec::new(),
            nodes: nodes.into_iter().collect(),
            message: None,
            started_at: Time(now),
        }));
        return;
    };
    draft.operation = Some(Some(recorded.clone()));
    let waits = "is not in spec.clusters any more and is empty: it goes if it still is after a minute";
    if now.duration_since(recorded.started_at.0) < LOOKS_AGAIN {
        return draft.hold(cluster, Reason::Removing, format!("cluster {cluster} {waits}"));
    }
    let uuid = super::cluster::recorded_in_status(snapshot, cluster);
    let uuid = uuid.or_else(|| snapshot.elastic(cluster)?.uuid.as_deref());
    let mut marked = true;
    retain_identity(key, objects, uuid, |why, action| {
        marked = false;
        draft.step(cluster, why, action);
    });
    // Volumes that stay say whose they are before the nodes go that could tell.
    if marked {
        let mut targets = workload_targets(objects, &cell.uid);
        targets.retain(|target| is_workload(target.kind));
        // Data nodes, masters, ingest nodes: who answers is there to the end, and a StatefulSet that is missing tells the next
        // pass that this one has begun.
        targets.sort_by_key(|target| (target.kind != Kind::StatefulSet, target.name.clone()));
        for (nth, target) in targets.into_iter().enumerate() {
            let why = format!("cluster {cluster} is not in spec.clusters any more, and is empty");
            // It is asked once: without a yes the others stay, too.
            draft.step(cluster, why, Action::RemoveWorkload { target, asks: asks && nth == 0 });
        }
    }
    let waits = "is not in spec.clusters any more and is empty: waiting until its nodes are gone";
    draft.hold(cluster, Reason::Removing, format!("cluster {cluster} {waits}"));
}

fn is_workload(kind: Kind) -> bool {
    matches!(kind, Kind::HorizontalPodAutoscaler | Kind::Deployment | Kind::StatefulSet)
}

/// Names of all nodes that StatefulSets ask for.
fn nodes(objects: &CellObjects, uid: &str) -> BTreeSet<String> {
    let sets = objects.stateful_sets.iter().filter(|set| is_owned_by(&set.metadata, uid));
    sets.flat_map(|set| {
        let count = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        (0..count).map(|ordinal| format!("{}-{ordinal}", text(&set.metadata.name)))
    })
    .collect()
}

/// That nobody loses anything when the cluster goes, and whether it can say so itself: one that never formed cannot.
fn is_empty(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    snapshot: &CellSnapshot,
) -> Result<bool, (Reason, String)> {
    let cluster = key.cluster.as_str();
    let stays = |what: String| {
        format!("cluster {cluster} is not in spec.clusters any more and goes on as it is, since {what}")
    };
    let placements = placed_on(&snapshot.placements, key);
    if !placements.is_empty() {
        let what = format!(
            "placements have indices there ({}): delete them, or put the cluster back",
            some_of(&placements)
        );
        return Err((Reason::NotEmpty, stays(what)));
    }
    let facts = snapshot.elastic(cluster).filter(|facts| facts.master.is_some());
    let Some(facts) = facts else {
        if has_never_formed(cell, cluster, objects, snapshot) {
            return Ok(false);
        }
        let what = "it cannot be asked whether it is empty: bring it back to work, or put it back";
        return Err((Reason::Unreachable, stays(what.to_owned())));
    };
    is_itself(cell, key, objects, snapshot, facts).map_err(|what| (Reason::ForeignVolume, stays(what)))?;
    let kept = kept_indices(facts.indices.keys());
    if kept.is_empty() {
        return Ok(true);
    }
    let what = format!("it has indices ({}): delete them, or put the cluster back", some_of(&kept));
    Err((Reason::NotEmpty, stays(what)))
}

/// Nobody has ever seen it formed, and none of its nodes has found a master.
fn has_never_formed(cell: &ValidCell, cluster: &str, objects: &CellObjects, snapshot: &CellSnapshot) -> bool {
    let recorded = super::cluster::recorded_in_status(snapshot, cluster);
    let status =
        snapshot.cell.status.iter().flat_map(|status| &status.clusters).find(|of| of.name == cluster);
    let was_whole = status.is_some_and(|of| {
        !matches!(of.phase, ClusterPhase::Pending | ClusterPhase::Forming | ClusterPhase::Deleting)
    });
    identity(recorded, objects, None, cell.created_at) == Identity::Unborn
        && !was_whole
        && !objects.pods.iter().any(is_ready)
}

/// Who answers is the cluster that was recorded.
fn is_itself(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    snapshot: &CellSnapshot,
    facts: &ElasticFacts,
) -> Result<(), String> {
    let recorded = super::cluster::recorded_in_status(snapshot, &key.cluster);
    match identity(recorded, objects, Some(facts), cell.created_at) {
        Identity::Known(_) => Ok(()),
        _ => Err("it is unclear which cluster it is: put it back, and see its holds".to_owned()),
    }
}

/// The nodes go, or are gone.
fn without_workloads(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    recorded: &Operation,
    now: Timestamp,
    draft: &mut Draft,
) {
    let cluster = key.cluster.as_str();
    if !objects.pods.is_empty() {
        draft.operation = Some(Some(recorded.clone()));
        let waits = format!("cluster {cluster} is removed: waiting until its nodes are gone");
        return draft.hold(cluster, Reason::Removing, waits);
    }
    if cell.deletion_policy == DeletionPolicy::Delete && !objects.claims.is_empty() {
        // Only when this is recorded do volumes go.
        draft.operation = Some(Some(Operation {
            kind: OperationKind::DeleteVolumes,
            started_at: Time(now),
            ..recorded.clone()
        }));
        return;
    }
    prune(key, objects, &cell.uid, draft);
}

/// Deletes all volumes of a cluster whose nodes are gone, those of masters last: as long as they are there, the cluster could
/// come back. Also when it is in the spec again: then it forms anew afterwards.
pub(super) fn delete_volumes(
    key: &ClusterKey,
    objects: &CellObjects,
    recorded: &Operation,
    draft: &mut Draft,
) {
    let cluster = key.cluster.as_str();
    if objects.claims.is_empty() {
        draft.operation = Some(None);
        return;
    }
    draft.operation = Some(Some(recorded.clone()));
    let is_master = |meta: &ObjectMeta| label(meta, LABEL_ROLE) == Some(Role::Master.as_str());
    let only_masters = objects.claims.iter().all(|claim| is_master(&claim.metadata));
    let lasting = objects.claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none());
    for claim in lasting.filter(|claim| only_masters || !is_master(&claim.metadata)) {
        let target = drift::target(Kind::PersistentVolumeClaim, &claim.metadata);
        let why = "its cluster was removed, and spec.deletionPolicy is Delete";
        draft.step(cluster, why, Action::RemoveVolume { target });
    }
    let waits = format!("cluster {cluster} is gone, and its volumes are being deleted");
    draft.hold(cluster, Reason::Removing, waits);
}

/// What the cluster had besides nodes and volumes. Its Secrets stay with the cell.
fn prune(key: &ClusterKey, objects: &CellObjects, uid: &str, draft: &mut Draft) {
    let mut targets = workload_targets(objects, uid);
    let policies = objects.network_policies.iter().map(|o| &o.metadata);
    let policies = policies.filter(|meta| is_owned_by(meta, uid) && meta.deletion_timestamp.is_none());
    targets.extend(policies.map(|meta| drift::target(Kind::NetworkPolicy, meta)));
    // ConfigMaps of the whole cell are among the objects of every cluster.
    let of_cell = |target: &Target| {
        let maps = objects.config_maps.iter().filter(|map| map.metadata.uid.as_deref() == Some(&target.uid));
        maps.into_iter().any(|map| label(&map.metadata, LABEL_CLUSTER).is_none())
    };
    for target in targets.into_iter().filter(|target| !of_cell(target)) {
        draft.step(&key.cluster, "its cluster was removed", Action::Delete { target });
    }
}
