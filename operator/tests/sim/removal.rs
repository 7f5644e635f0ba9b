//! Clusters that leave the spec: they go when they are empty, with all of their volumes or none, and leave nothing behind; those
//! that are not empty stay, and say so.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::names::{ClusterKey, LABEL_CLUSTER};
use searchcell_core::plan::{kept_indices, placed_on};
use searchcell_core::snapshot::{CellSnapshot, Reading, label};
use searchcell_core::step::{Action, Plan};
use searchcell_crds::{DeletionPolicy, IndexPlacement, OperationKind, SearchCell};

use crate::acts::CELL;
use crate::settled::{CONVERGES, HOLDS_ARE_TOLD};
use crate::store::NAMESPACE;
use crate::world::World;

/// A cluster that left the spec loses nodes only while it has no index of anybody.
pub const GOES_EMPTY: &str = "clusters_go_empty";
/// It loses nodes only while status records that it goes, and volumes only while status records that.
pub const RECORDED: &str = "removals_are_recorded_first";
/// Nothing is left of a cluster that went, but for the volumes that are to stay.
pub const NOTHING_LEFT: &str = "nothing_is_left_of_removed_clusters";

/// How long after somebody has taken the status away it may lack what was read from it.
const WIPED_MS: u64 = 60_000;

fn is_asked_for(cell: &SearchCell, cluster: &str) -> bool {
    cell.spec.clusters.iter().any(|of| of.name == cluster)
}

/// Whether status, as the API server has it, records an operation; or somebody has just taken it away.
pub fn records(world: &World, cell: &SearchCell, cluster: &str, kind: OperationKind) -> bool {
    let status = cell.status.iter().flat_map(|status| &status.clusters);
    let mut of = status.filter(|of| of.name == cluster).filter_map(|of| of.operation.as_ref());
    of.any(|of| of.kind == kind) || world.history.wiped.is_some_and(|ms| ms + WIPED_MS > world.ms)
}

/// Indices of a cluster that somebody may miss.
fn kept(world: &World, cluster: &str) -> Vec<String> {
    let identity = format!("{CELL}/{cluster}");
    let living = world.elastic.of_identity(&identity).filter(|cluster| cluster.master.is_some());
    living.flat_map(|cluster| kept_indices(cluster.indices.keys())).collect()
}

/// The operator deletes a workload.
pub fn on_workload_deleted(world: &mut World, cell: &str, cluster: &str) {
    let Some(live) = world.store.get::<SearchCell>(cell) else { return };
    if is_asked_for(live, cluster) {
        return;
    }
    let kept = kept(world, cluster);
    if !records(world, live, cluster, OperationKind::RemoveCluster) {
        world.violated(RECORDED, format!("nodes of {cluster} go, which status does not record"));
    } else if !kept.is_empty() {
        world.violated(GOES_EMPTY, format!("nodes of {cluster} go, which has {kept:?}"));
    }
}

/// The operator deletes a volume of a cluster that is not, or was not, in the spec; true: status records that.
pub fn on_volume_deleted(world: &mut World, cell: &str, cluster: &str) -> bool {
    let Some(live) = world.store.get::<SearchCell>(cell) else { return false };
    if live.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let is_recorded = records(world, live, cluster, OperationKind::DeleteVolumes);
    if !is_recorded && !is_asked_for(live, cluster) {
        world.violated(RECORDED, format!("volumes of {cluster} go, which status does not record"));
    }
    is_recorded
}

/// Names of the clusters that objects of a kind belong to and the spec does not ask for.
fn left<'a>(cell: &'a SearchCell, metas: impl Iterator<Item = &'a ObjectMeta>) -> Option<(String, String)> {
    let mut of = metas.filter_map(|meta| Some((meta, label(meta, LABEL_CLUSTER)?)));
    let found = of.find(|(_, cluster)| !is_asked_for(cell, cluster));
    found.map(|(meta, cluster)| (cluster.to_owned(), meta.name.clone().unwrap_or_default()))
}

/// A cluster that is not in the spec, and still has workloads.
fn staying(world: &World, cell: &SearchCell) -> Option<String> {
    let sets = left(cell, world.store.all::<StatefulSet>().map(|o| &o.metadata));
    let found = sets.or_else(|| left(cell, world.store.all::<Deployment>().map(|o| &o.metadata)));
    found.map(|(cluster, _)| cluster)
}

/// What keeps clusters that left the spec from being as they ought to be; and whether one stays, since it is not empty.
pub fn unsettled(world: &World, cell: &SearchCell) -> Result<bool, (&'static str, String)> {
    let store = &world.store;
    if let Some(cluster) = staying(world, cell) {
        let key = ClusterKey::new(NAMESPACE, CELL, cluster.as_str());
        let placed = placed_on(store.all::<IndexPlacement>(), &key);
        if kept(world, &cluster).is_empty() && placed.is_empty() {
            return Err((CONVERGES, format!("{cluster} is empty, not in the spec, and still there")));
        }
        let conditions = || cell.status.iter().flat_map(|status| &status.conditions);
        let is_true = |type_: &str| conditions().find(|of| of.type_ == type_ && of.status == "True");
        let is_observed =
            cell.status.as_ref().is_some_and(|of| of.observed_generation == cell.metadata.generation);
        if !is_observed || is_true("Stalled").is_none_or(|of| of.reason != "NotEmpty") {
            return Err((HOLDS_ARE_TOLD, format!("{cluster} stays, and nobody says why")));
        }
        return match is_true("Reconciling") {
            None => Ok(true),
            Some(of) => Err((CONVERGES, format!("{}: {}", of.reason, of.message))),
        };
    }
    let rest = left(cell, store.all::<Pod>().map(|o| &o.metadata))
        .or_else(|| left(cell, store.all::<Service>().map(|o| &o.metadata)))
        .or_else(|| left(cell, store.all::<ConfigMap>().map(|o| &o.metadata)))
        .or_else(|| left(cell, store.all::<PodDisruptionBudget>().map(|o| &o.metadata)))
        .or_else(|| left(cell, store.all::<NetworkPolicy>().map(|o| &o.metadata)))
        .or_else(|| left(cell, store.all::<HorizontalPodAutoscaler>().map(|o| &o.metadata)));
    // Where the record was taken away in the middle, volumes stay for safety.
    let goes = cell.spec.deletion_policy == DeletionPolicy::Delete && world.history.wiped.is_none();
    let claims = || left(cell, store.all::<PersistentVolumeClaim>().map(|o| &o.metadata));
    match rest.or_else(|| goes.then(claims).flatten()) {
        Some((cluster, object)) => Err((NOTHING_LEFT, format!("of {cluster} there still is {object}"))),
        None => Ok(false),
    }
}

/// Whether a placement has indices in a cluster that is not in the spec: they cannot be moved, and it says so.
pub fn is_on_removed(cell: &SearchCell, placement: &IndexPlacement) -> bool {
    let status = placement.status.as_ref();
    let assigned = status.into_iter().flat_map(|status| &status.assignments).map(|of| &of.cluster);
    let mut names = assigned.filter_map(|name| name.strip_prefix(&format!("{CELL}-")));
    names.any(|name| {
        let key = ClusterKey::new(NAMESPACE, CELL, name);
        !is_asked_for(cell, name) && !placed_on([placement], &key).is_empty()
    })
}

/// Deliberate bug: whoever cannot be seen in the spec has no indices, and is asked nothing.
pub fn overlook(snapshot: &mut CellSnapshot) {
    let asked: Vec<String> = snapshot.cell.spec.clusters.iter().map(|of| of.name.clone()).collect();
    snapshot.placements.clear();
    for (cluster, reading) in &mut snapshot.elastic {
        if let Reading::Known(facts) = reading
            && !asked.contains(cluster)
        {
            facts.indices = Default::default();
        }
    }
}

pub fn unasked(plan: &mut Plan) {
    for step in &mut plan.steps {
        if let Action::RemoveWorkload { asks, .. } = &mut step.action {
            *asks = false;
        }
    }
}

/// Clusters of a snapshot that have volumes, no nodes, and no place in the spec.
pub fn claims_of_removed(snapshot: &CellSnapshot) -> Vec<&PersistentVolumeClaim> {
    let has_nodes = |cluster: &str| {
        let objects = snapshot.objects.of_cluster(cluster);
        !(objects.stateful_sets.is_empty() && objects.pods.is_empty())
    };
    let of = |claim: &&PersistentVolumeClaim| {
        let cluster = label(&claim.metadata, LABEL_CLUSTER).unwrap_or_default();
        !is_asked_for(&snapshot.cell, cluster) && !has_nodes(cluster)
    };
    snapshot.objects.claims.iter().filter(of).collect()
}
