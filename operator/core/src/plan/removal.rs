//! Plans what is to go with a cell that is being deleted. Never asks Elasticsearch for anything. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::DeletionPolicy;

use super::cluster::recorded_in_status;
use super::{Draft, WAKE_WHILE_BUSY, has_finalizer};
use crate::drift;
use crate::names::{ANNOTATION_CLUSTER_UUID, ClusterKey, LABEL_CLUSTER};
use crate::snapshot::{CellObjects, CellSnapshot, annotation, is_owned_by, label};
use crate::step::{Action, Kind, Plan, Step, Target};

/// How long a deletion waits for nodes to stop before their volumes are deleted anyway. Kubernetes keeps a volume
/// that is still mounted until its pod is gone.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// True while nodes of a cluster are there that this cell owns. Volumes that were retained are no cluster.
pub fn has_workloads(snapshot: &CellSnapshot, cluster: &str) -> bool {
    let uid = text(&snapshot.cell.metadata.uid);
    let objects = &snapshot.objects;
    let mut metas = (objects.stateful_sets.iter().map(|o| &o.metadata))
        .chain(objects.deployments.iter().map(|o| &o.metadata));
    metas.any(|meta| label(meta, LABEL_CLUSTER) == Some(cluster) && is_owned_by(meta, uid))
}

/// Plans one pass over a cell that is being deleted, valid or not.
pub fn plan_deletion(snapshot: &CellSnapshot, now: Timestamp) -> Plan {
    let meta = &snapshot.cell.metadata;
    if !has_finalizer(meta) {
        return Plan { wake_after: WAKE_WHILE_BUSY, ..Plan::default() };
    }
    let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
    let objects = &snapshot.objects;
    let mut draft = Draft::default();
    for cluster in objects.cluster_names() {
        let key = ClusterKey::new(namespace, name, &cluster);
        let recorded = recorded_in_status(snapshot, &cluster);
        retain_identity(&key, &objects.of_cluster(&cluster), recorded, |why, action| {
            draft.step(&cluster, why, action)
        });
    }
    let mut done = true;
    if snapshot.cell.spec.deletion_policy == DeletionPolicy::Delete {
        let workloads = workload_targets(objects, uid);
        let waiting = !workloads.is_empty() || !objects.pods.is_empty();
        for target in workloads {
            draft.steps.push(Step {
                cluster: None,
                action: Action::Delete { target },
                why: "the cell is being deleted".into(),
            });
        }
        if waiting && is_within_patience(meta, now) {
            done = false;
        } else {
            for target in claims_of_this_cell(snapshot) {
                let why = "spec.deletionPolicy is Delete".to_owned();
                draft.steps.push(Step { cluster: None, action: Action::Delete { target }, why });
            }
        }
    }
    if done {
        let why = "everything is cleaned up".to_owned();
        draft.steps.push(Step { cluster: None, action: Action::RemoveFinalizer, why });
    }
    Plan { steps: draft.steps, holds: draft.holds, wake_after: WAKE_WHILE_BUSY, ..Plan::default() }
}

/// A volume that stays must say whose it is, also when the cluster goes right after it formed.
pub(super) fn retain_identity(
    key: &ClusterKey,
    objects: &CellObjects,
    recorded: Option<&str>,
    mut step: impl FnMut(&'static str, Action),
) {
    let Some(uuid) = recorded else { return };
    let formed = format!("data-{}-", key.name());
    for claim in &objects.claims {
        let is_node_volume = claim.metadata.name.as_deref().is_some_and(|name| name.starts_with(&formed));
        if is_node_volume
            && claim.metadata.deletion_timestamp.is_none()
            && annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).is_none()
        {
            let target = drift::target(Kind::PersistentVolumeClaim, &claim.metadata);
            let annotations = [(ANNOTATION_CLUSTER_UUID.to_owned(), uuid.to_owned())].into();
            step(
                "record the cluster's identity on its volume",
                Action::AnnotateClaim { target, annotations },
            );
        }
    }
}

/// Volumes of the clusters that the cell has or had when its deletion began; what an earlier removal retained stays.
fn claims_of_this_cell(snapshot: &CellSnapshot) -> Vec<Target> {
    let in_spec = snapshot.cell.spec.clusters.iter().map(|cluster| cluster.name.clone());
    let in_status =
        snapshot.cell.status.iter().flat_map(|status| &status.clusters).map(|cluster| cluster.name.clone());
    let mut names: Vec<String> = in_spec.chain(in_status).collect();
    names.sort();
    names.dedup();
    names.iter().flat_map(|name| claim_targets(&snapshot.objects.of_cluster(name))).collect()
}

fn is_within_patience(meta: &ObjectMeta, now: Timestamp) -> bool {
    meta.deletion_timestamp
        .as_ref()
        .is_some_and(|since| now.duration_since(since.0).unsigned_abs() < PATIENCE)
}

/// Everything of a cluster but its volumes, the pods that Kubernetes takes away itself, and its NetworkPolicy: that goes
/// with the cell, so that nodes are not open to everybody while they stop.
pub(super) fn workload_targets(objects: &CellObjects, owner_uid: &str) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |kind: Kind, meta: &ObjectMeta| {
        if is_owned_by(meta, owner_uid) && meta.deletion_timestamp.is_none() {
            targets.push(drift::target(kind, meta));
        }
    };
    objects.autoscalers.iter().for_each(|o| add(Kind::HorizontalPodAutoscaler, &o.metadata));
    objects.deployments.iter().for_each(|o| add(Kind::Deployment, &o.metadata));
    objects.stateful_sets.iter().for_each(|o| add(Kind::StatefulSet, &o.metadata));
    objects.services.iter().for_each(|o| add(Kind::Service, &o.metadata));
    objects.budgets.iter().for_each(|o| add(Kind::PodDisruptionBudget, &o.metadata));
    objects.config_maps.iter().for_each(|o| add(Kind::ConfigMap, &o.metadata));
    targets
}

fn claim_targets(objects: &CellObjects) -> Vec<Target> {
    (objects.claims.iter())
        .filter(|claim| claim.metadata.deletion_timestamp.is_none())
        .map(|claim| drift::target(Kind::PersistentVolumeClaim, &claim.metadata))
        .collect()
}

pub(super) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}
