//! Plans the nodes of one cluster: StatefulSets of masters and data nodes per zone, the Deployment of ingest nodes
//! and its autoscaler. A live template is never touched here. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::Reason;

use super::certificates::is_equipped;
use super::cluster::{bootstrap_names, name_conflict, plan_simple, selected_role, terminating};
use super::volumes::{self, Volumes};
use super::{Draft, roll, upgrade};
use crate::build;
use crate::domain::{IngestScale, ValidCell, ValidKeystore, ValidZone};
use crate::drift::{self, Live};
use crate::identity::{Identity, highest_version};
use crate::names::{ANNOTATION_INPUT_HASH, ClusterKey, Role};
use crate::security::keystore::used_by;
use crate::security::leaf::SHARED;
use crate::snapshot::{CellObjects, annotation, role_and_zone};
use crate::status::some_of;
use crate::step::{Action, Kind, Object};

pub(super) fn plan_workloads(
    scope: &roll::Scope<'_>,
    identity: &Identity,
    restarts: bool,
    draft: &mut Draft,
) -> bool {
    let roll::Scope { cell, key, objects, elastic, .. } = *scope;
    if draft.holds.iter().any(|hold| hold.reason == Reason::NameConflict) {
        return true;
    }
    // Nodes that come back on old volumes must not come back as another version: that is an upgrade.
    if let (Identity::Known(_), true) = (identity, objects.stateful_sets.is_empty())
        && let Some(highest) = highest_version(objects, elastic)
        && highest != cell.version
    {
        draft.hold(
            &key.cluster,
            Reason::NotSupportedYet,
            format!(
                "the volumes were written by {highest}: set spec.version to {highest}; changing the version of existing \
                 nodes comes with a later version of the operator"
            ),
        );
        return true;
    }
    let masters = wanted_masters(cell, key, objects);
    let mut sets = Vec::new();
    for zone in &cell.zones {
        if let Some(count) = masters.get(&zone.name).copied().filter(|count| *count > 0) {
            sets.push((Role::Master, zone, count));
        }
    }
    sets.extend(cell.zones.iter().map(|zone| (Role::Data, zone, cell.data_per_zone)));

    // One workload that cannot follow the spec keeps new ones from starting with what the others do not have yet.
    let hindrance = if restarts { upgrade::hindrance(scope) } else { None };
    let is_hindered = hindrance.map(|hold| draft.holds.push(hold)).is_some();
    // Without all of its nodes a cluster that has not formed could not be read, and would be held for ever.
    let forms = *identity == Identity::Unborn;
    let is_held = is_hindered
        | sets
            .iter()
            .any(|(role, zone, _)| hold_template_change(cell, key, objects, *role, zone, restarts, draft))
        | hold_ingest_change(cell, key, objects, restarts, draft);
    let held = is_held || (restarts && roll::rolls(cell, key, objects));
    for (role, zone, replicas) in sets {
        plan_stateful_set(cell, key, objects, (role, zone), replicas, held && !forms, draft);
        if !held {
            volumes::plan_growth(cell, key, objects, (role, zone), draft);
        }
    }
    // Before data nodes hand their work over, those who take it have to be there.
    match &cell.ingest {
        Some((scale, _)) => plan_ingest(cell, key, objects, *scale, is_held && !forms, draft),
        None if !held => remove_ingest(cell, key, objects, draft),
        None => {}
    }
    is_held
}

/// Master-eligible nodes by zone: those that are there stay where they are, missing ones go to the zone with the
/// fewest. Counts StatefulSets and, for a cluster that comes back, the claims of its masters.
pub fn master_layout(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects) -> BTreeMap<String, i32> {
    let mut layout: BTreeMap<String, i32> = BTreeMap::new();
    let is_master = |meta| role_and_zone(meta).0 == Some(Role::Master.as_str());
    let has_masters = objects.stateful_sets.iter().any(|set| is_master(&set.metadata));
    for zone in &cell.zones {
        let of_zone = |meta| role_and_zone(meta) == (Some(Role::Master.as_str()), Some(zone.name.as_str()));
        let live = (objects.stateful_sets.iter())
            .filter(|set| of_zone(&set.metadata))
            .filter_map(|set| set.spec.as_ref()?.replicas)
            .max();
        let prefix = format!("data-{}-", key.stateful_set(Role::Master, &zone.name));
        let claimed = (objects.claims.iter())
            .filter_map(|claim| claim.metadata.name.as_deref()?.strip_prefix(&prefix)?.parse::<i32>().ok())
            .map(|ordinal| ordinal.saturating_add(1))
            .max();
        // What a master that was taken away has left does not bring it back.
        layout.insert(zone.name.clone(), live.or(claimed.filter(|_| !has_masters)).unwrap_or(0));
    }
    while layout.values().sum::<i32>() < cell.master_count {
        // Ties go to the first name, so that the answer depends on nothing but the input.
        let Some(fewest) = layout.values().min().copied() else { break };
        let Some(count) = layout.values_mut().find(|count| **count == fewest) else { break };
        *count += 1;
    }
    layout
}

fn wanted_masters(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects) -> BTreeMap<String, i32> {
    // While the cluster forms, its masters are those that the bootstrap map names, whatever the spec says by now.
    if let Some(names) = bootstrap_names(cell, key, objects) {
        let mut layout = BTreeMap::new();
        for zone in &cell.zones {
            let prefix = format!("{}-", key.stateful_set(Role::Master, &zone.name));
            let count = names.iter().filter(|name| is_pod_of(name, &prefix)).count();
            layout.insert(zone.name.clone(), i32::try_from(count).unwrap_or(i32::MAX));
        }
        return layout;
    }
    master_layout(cell, key, objects)
}

fn is_pod_of(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit()))
}

/// A change of the user's inputs of existing nodes is recognised and held; the running template stays as it is.
fn hold_template_change(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    role: Role,
    zone: &ValidZone,
    restarts: bool,
    draft: &mut Draft,
) -> bool {
    let name = key.stateful_set(role, &zone.name);
    let Live::Ours(live) = drift::find(&objects.stateful_sets, |o| &o.metadata, &name, &cell.uid) else {
        return false;
    };
    let hash = |cell: &ValidCell| build::input_hash(cell, role, Some(zone));
    if !restarts && annotation(&live.metadata, ANNOTATION_INPUT_HASH) != Some(&hash(cell)) {
        hold_roll(cell, key, role, &live.metadata, &hash, draft);
        return true;
    }
    if volumes::compare(cell, role, live) == Volumes::Other {
        draft.hold(
            &key.cluster,
            Reason::NotSupportedYet,
            format!(
                "spec.nodes.{role}.storage asks for less, or for another class, than the volumes that are there: set it \
                 back; volumes can only grow in place"
            ),
        );
        return true;
    }
    false
}

fn hold_roll(
    cell: &ValidCell,
    key: &ClusterKey,
    role: Role,
    live: &ObjectMeta,
    hash: &impl Fn(&ValidCell) -> String,
    draft: &mut Draft,
) {
    let used = used_by(live);
    let former = used.map(|from| ValidKeystore { from: Some(from.to_owned()), ..ValidKeystore::default() });
    let as_before = hash(&ValidCell { keystore: former, ..cell.clone() });
    let message = if keystore_differs(cell, live)
        && annotation(live, ANNOTATION_INPUT_HASH) == Some(&as_before)
    {
        hold_keystore(cell, role, used)
    } else {
        format!(
            "the {role} nodes run with an earlier spec: applying the change needs a rolling restart, and this operator restarts \
             no nodes (--restart-nodes=false); they stay as they are, set the spec back to go on"
        )
    };
    if !draft.holds.iter().any(|hold| hold.message == message) {
        draft.hold(&key.cluster, Reason::NotSupportedYet, message);
    }
}

fn keystore_differs(cell: &ValidCell, live: &ObjectMeta) -> bool {
    cell.keystore.as_ref().and_then(|keystore| keystore.from.as_deref()) != used_by(live)
}

/// The keystore alone is what keeps a workload from following.
fn hold_keystore(cell: &ValidCell, role: Role, used: Option<&str>) -> String {
    let needs = "needs a rolling restart, and this operator restarts no nodes (--restart-nodes=false); the running nodes keep what they \
                 have";
    let Some(used) = used else {
        return format!(
            "spec.secureSettings: a first keystore for the {role} nodes {needs}; take the list out to go on"
        );
    };
    let Some(keystore) = &cell.keystore else {
        return format!(
            "spec.secureSettings is gone: taking the keystore from the {role} nodes {needs}; set it back to go on"
        );
    };
    let changed = keystore.pending.get(used).map(Vec::as_slice).unwrap_or_default();
    format!(
        "spec.secureSettings: the {role} nodes load {} only when they start, which {needs}; put back in the Secrets what was \
         there to go on",
        some_of(changed)
    )
}

fn hold_ingest_change(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    restarts: bool,
    draft: &mut Draft,
) -> bool {
    let Live::Ours(live) = drift::find(&objects.deployments, |o| &o.metadata, &key.ingest(), &cell.uid)
    else {
        return false;
    };
    if cell.ingest.is_none() && !restarts {
        draft.hold(
            &key.cluster,
            Reason::NotSupportedYet,
            "spec.nodes.ingest is gone: before the ingest nodes go, data nodes restart to take over, and this operator restarts no \
             nodes (--restart-nodes=false); set it back",
        );
        return true;
    }
    let hash = |cell: &ValidCell| build::input_hash(cell, Role::Ingest, None);
    if !restarts && annotation(&live.metadata, ANNOTATION_INPUT_HASH) != Some(&hash(cell)) {
        hold_roll(cell, key, Role::Ingest, &live.metadata, &hash, draft);
        return true;
    }
    false
}

fn plan_stateful_set(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    (role, zone): (Role, &ValidZone),
    replicas: i32,
    held: bool,
    draft: &mut Draft,
) {
    let name = key.stateful_set(role, &zone.name);
    // Pods start with everything that they mount; what is missing is on its way.
    let nodes: Vec<String> = (0..replicas).map(|ordinal| key.pod(role, &zone.name, ordinal)).collect();
    match drift::find(&objects.stateful_sets, |o| &o.metadata, &name, &cell.uid) {
        Live::Missing if held || !is_equipped(cell, objects, &name, &nodes) => {}
        Live::Missing => {
            let set = build::stateful_set(cell, key, role, zone, replicas);
            draft.step(&key.cluster, "it is missing", Action::Create(Object::StatefulSet(Box::new(set))));
        }
        Live::Ours(live) => {
            let current = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            if current < replicas && !held && is_equipped(cell, objects, &name, &nodes) {
                let target = drift::exact_target(Kind::StatefulSet, &live.metadata);
                draft.step(
                    &key.cluster,
                    format!("{role} nodes of zone {} grow from {current} to {replicas}", zone.name),
                    Action::Scale { target, replicas },
                );
            }
        }
        Live::NotOurs => name_conflict(key, Kind::StatefulSet, &name, draft),
        Live::Terminating => terminating(key, Kind::StatefulSet, &name, draft),
    }
}

/// Ingest nodes go when data nodes do their work: all of those have restarted for it, and the Services lead there.
fn remove_ingest(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects, draft: &mut Draft) {
    let Live::Ours(live) = drift::find(&objects.deployments, |o| &o.metadata, &key.ingest(), &cell.uid)
    else {
        return;
    };
    let leads_there = |service: &Service| selected_role(service) == Some(Role::Ingest.as_str());
    if objects.services.iter().any(leads_there) {
        return;
    }
    let why = "data nodes do the work of the ingest nodes now";
    if let Live::Ours(autoscaler) =
        drift::find(&objects.autoscalers, |o| &o.metadata, &key.ingest(), &cell.uid)
    {
        let target = drift::target(Kind::HorizontalPodAutoscaler, &autoscaler.metadata);
        draft.step(&key.cluster, why, Action::Delete { target });
    }
    let target = drift::target(Kind::Deployment, &live.metadata);
    draft.step(&key.cluster, why, Action::Delete { target });
}

fn plan_ingest(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    scale: IngestScale,
    held: bool,
    draft: &mut Draft,
) {
    let deployment = drift::find(&objects.deployments, |o| &o.metadata, &key.ingest(), &cell.uid);
    match &deployment {
        Live::Missing if held || !is_equipped(cell, objects, &key.ingest(), &[SHARED.to_owned()]) => {}
        Live::Missing => {
            let replicas = match scale {
                IngestScale::Fixed(replicas) => replicas,
                // The autoscaler would start from one node, and take its time.
                IngestScale::Autoscaled { min, .. } => min,
            };
            if let Some(object) = build::ingest_deployment(cell, key, Some(replicas)) {
                draft.step(
                    &key.cluster,
                    "it is missing",
                    Action::Create(Object::Deployment(Box::new(object))),
                );
            }
        }
        Live::Ours(live) => plan_ingest_scale(cell, key, objects, scale, live, draft),
        Live::NotOurs => return name_conflict(key, Kind::Deployment, &key.ingest(), draft),
        Live::Terminating => return terminating(key, Kind::Deployment, &key.ingest(), draft),
    }
    if let Some(autoscaler) = build::autoscaler(cell, key)
        && !(held && deployment == Live::Missing)
    {
        plan_simple(
            cell,
            key,
            &objects.autoscalers,
            |o| &o.metadata,
            autoscaler,
            draft,
            |o| Object::HorizontalPodAutoscaler(Box::new(o)),
        );
    }
}

/// Hands the number of ingest nodes over to the autoscaler or takes it back. The value itself is never written on
/// the way to the autoscaler, so it cannot dip.
fn plan_ingest_scale(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    scale: IngestScale,
    live: &Deployment,
    draft: &mut Draft,
) {
    let autoscaler = drift::find(&objects.autoscalers, |o| &o.metadata, &key.ingest(), &cell.uid);
    match scale {
        IngestScale::Fixed(replicas) => {
            if let Live::Ours(autoscaler) = autoscaler {
                let target = drift::target(Kind::HorizontalPodAutoscaler, &autoscaler.metadata);
                draft.step(
                    &key.cluster,
                    "the number of ingest nodes is fixed now",
                    Action::Delete { target },
                );
            }
            if live.spec.as_ref().and_then(|spec| spec.replicas) != Some(replicas) {
                let target = drift::exact_target(Kind::Deployment, &live.metadata);
                draft.step(
                    &key.cluster,
                    format!("{replicas} ingest nodes"),
                    Action::Scale { target, replicas },
                );
            }
        }
        IngestScale::Autoscaled { .. } => {
            if drift::owns_replicas(live) {
                let target = drift::exact_target(Kind::Deployment, &live.metadata);
                draft.step(
                    &key.cluster,
                    "the autoscaler owns the number of ingest nodes",
                    Action::ReleaseReplicas { target },
                );
            }
        }
    }
}
