//! Plans one cluster: its identity first, then its objects, its nodes, its settings. Pure.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use searchcell_crds::{OperationKind, Reason};

use super::{Draft, Turn, drain, leave, roll, settings, workloads};
use crate::build;
use crate::domain::ValidCell;
use crate::drift::{self, Live};
use crate::identity::{Identity, highest_version, identity};
use crate::names::{
    ANNOTATION_CLUSTER_UUID, ANNOTATION_HIGHEST_VERSION, ClusterKey, INITIAL_MASTER_NODES, LABEL_ROLE, Role,
};
use crate::snapshot::{
    CellObjects, CellSnapshot, ElasticFacts, annotation, is_owned_by, is_ready, label, role_and_zone,
};
use crate::step::{Action, Kind, Object};

pub(super) fn plan_cluster(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    snapshot: &CellSnapshot,
    turn: Turn<'_>,
    draft: &mut Draft,
) {
    let under_way = leave::recorded(&snapshot.cell, &key.cluster);
    if let Some(recorded) = under_way.filter(|of| of.kind == OperationKind::DeleteVolumes) {
        return leave::delete_volumes(key, objects, recorded, draft);
    }
    if under_way.is_some_and(leave::is_removal) {
        // It was put back before its volumes went.
        draft.operation = Some(None);
    }
    // Volumes on their way out belong to a former cluster of this name; new nodes must not come up on them.
    let is_going = |claim: &&PersistentVolumeClaim| claim.metadata.deletion_timestamp.is_some();
    if objects.stateful_sets.is_empty()
        && let Some(claim) = objects.claims.iter().find(is_going)
    {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        return terminating(key, Kind::PersistentVolumeClaim, name, draft);
    }
    let elastic = snapshot.elastic(&key.cluster);
    let status_uuid = recorded_in_status(snapshot, &key.cluster);
    let identity = identity(status_uuid, objects, elastic, cell.created_at);
    if !is_safe_to_act(key, &identity, draft) {
        return;
    }
    if let Some(highest) = highest_version(objects, elastic)
        && cell.version < highest
    {
        draft.hold(
            &key.cluster,
            Reason::ForwardOnly,
            format!("a node has joined with {highest}: set spec.version to {highest} or higher"),
        );
        return;
    }

    if let Identity::Known(uuid) = &identity {
        record_identity(key, objects, elastic, uuid, draft);
        finish_bootstrap(cell, key, objects, elastic, status_uuid == Some(uuid), draft);
    } else {
        bootstrap(cell, key, objects, draft);
    }
    if !draft.holds.is_empty() {
        return;
    }
    let policy = build::network_policy(cell, key, &snapshot.operator_namespace);
    plan_simple(
        cell,
        key,
        &objects.network_policies,
        |o| &o.metadata,
        policy,
        draft,
        |o| Object::NetworkPolicy(Box::new(o)),
    );
    if !draft.holds.is_empty() {
        // Somebody else's policy is in its place: nodes without one would be open to everybody.
        return;
    }
    plan_services(cell, key, objects, draft);
    for budget in build::disruption_budgets(cell, key, is_whole(cell, key, objects, elastic)) {
        plan_simple(
            cell,
            key,
            &objects.budgets,
            |o| &o.metadata,
            budget,
            draft,
            |o| Object::PodDisruptionBudget(Box::new(o)),
        );
    }
    prune(cell, key, objects, draft);
    // Of a cluster that has not formed, what runs nothing is put right by the spec, too; what runs waits until it has.
    let restarts = snapshot.restarts_nodes && matches!(identity, Identity::Known(_) | Identity::Unborn);
    let recorded = under_way.filter(|of| !leave::is_removal(of));
    let scope = roll::Scope { cell, key, objects, elastic, recorded, order: turn.order, now: turn.now };
    if restarts {
        // Whatever is held from now on: what has begun comes to its end.
        scope.observed().keep_told(draft);
    }
    let is_held = workloads::plan_workloads(&scope, &identity, restarts, draft);
    let is_known = matches!(identity, Identity::Known(_));
    let may_drain = !is_held && !roll::rolls(cell, key, objects);
    drain::prune_empty(&scope, draft);
    let drains = is_known && drain::plan_drain(&scope, may_drain, draft);
    if restarts && !is_held && !drains {
        roll::plan_roll(&scope, draft);
    }
    if let (Identity::Known(_), Some(facts)) = (&identity, elastic) {
        let operation = draft.operation.clone().unwrap_or_else(|| recorded.cloned());
        let operation = operation.as_ref();
        let temporary =
            roll::wanted_allocation(key, operation, facts).or_else(|| drain::wanted_exclusion(operation));
        settings::plan_settings(cell, key, facts, temporary, draft);
        drain::restore_votes(&scope, operation, draft);
    }
}

/// True when taking one node away takes nothing that is not there twice: every master and data node that ought to
/// be there is ready and a member, and every copy of every shard is started.
fn is_whole(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    elastic: Option<&ElasticFacts>,
) -> bool {
    let Some(facts) = elastic.filter(|facts| facts.master.is_some()) else { return false };
    let masters = workloads::master_layout(cell, key, objects)
        .into_iter()
        .map(|(zone, count)| (Role::Master, zone, count));
    let data = cell.zones.iter().map(|zone| (Role::Data, zone.name.clone(), cell.data_per_zone));
    let is_member = |name: &str| {
        facts.nodes.contains_key(name)
            && objects.pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name) && is_ready(pod))
    };
    masters.chain(data).all(|(role, zone, count)| (0..count).all(|n| is_member(&key.pod(role, &zone, n))))
        && facts.indices.values().all(|index| {
            let wanted = i64::from(index.primaries) * i64::from(index.replicas.saturating_add(1));
            let started = index.copies.iter().filter(|copy| copy.state.is_started()).count();
            i64::try_from(started).is_ok_and(|started| started >= wanted)
        })
}

/// Services, budgets and policies of ours that the spec does not ask for any more.
fn prune(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects, draft: &mut Draft) {
    let services: Vec<String> =
        build::services(cell, key).into_iter().filter_map(|o| o.metadata.name).collect();
    let budgets: Vec<String> =
        build::disruption_budgets(cell, key, true).into_iter().filter_map(|o| o.metadata.name).collect();
    let policies = vec![key.network_policy()];
    let services = objects.services.iter().map(|o| (Kind::Service, &o.metadata, &services));
    let budgets = objects.budgets.iter().map(|o| (Kind::PodDisruptionBudget, &o.metadata, &budgets));
    let policies = objects.network_policies.iter().map(|o| (Kind::NetworkPolicy, &o.metadata, &policies));
    for (kind, meta, wanted) in services.chain(budgets).chain(policies) {
        let is_wanted = meta.name.as_ref().is_some_and(|name| wanted.contains(name));
        if !is_wanted && meta.deletion_timestamp.is_none() && is_owned_by(meta, &cell.uid) {
            let target = drift::target(kind, meta);
            draft.step(&key.cluster, "the spec does not ask for it any more", Action::Delete { target });
        }
    }
}

/// The UUID that status recorded for a cluster.
pub(super) fn recorded_in_status<'a>(snapshot: &'a CellSnapshot, cluster: &str) -> Option<&'a str> {
    let status = snapshot.cell.status.as_ref()?;
    status.clusters.iter().find(|entry| entry.name == cluster)?.uuid.as_deref()
}

/// Holds the cluster, whatever else is to be done, while it is unclear which cluster it is.
fn is_safe_to_act(key: &ClusterKey, identity: &Identity, draft: &mut Draft) -> bool {
    let message = match identity {
        Identity::Unborn | Identity::Known(_) => return true,
        Identity::Conflict(uuids) => {
            let uuids: Vec<&str> = uuids.iter().map(String::as_str).collect();
            format!(
                "status and volume claims record different cluster UUIDs ({}): remove the claims that do not belong to {}",
                uuids.join(", "),
                key.name()
            )
        }
        Identity::Foreign { recorded, running } => format!(
            "the running cluster has the UUID {running}, but {recorded} was recorded for {}: nothing is changed; \
             find out which nodes formed the other cluster",
            key.name()
        ),
        Identity::OlderVolumes(claims) => format!(
            "volume claims are older than the cell and carry no cluster UUID ({}): delete them, or annotate them with \
             {ANNOTATION_CLUSTER_UUID}",
            claims.join(", ")
        ),
    };
    draft.hold(&key.cluster, Reason::ForeignVolume, message);
    false
}

/// Records the UUID, and the highest version that joined, on every claim whose node is a member.
fn record_identity(
    key: &ClusterKey,
    objects: &CellObjects,
    elastic: Option<&ElasticFacts>,
    uuid: &str,
    draft: &mut Draft,
) {
    let Some(facts) = elastic.filter(|facts| facts.uuid.as_deref() == Some(uuid)) else { return };
    let highest = highest_version(objects, elastic).map(|version| version.to_string());
    for claim in &objects.claims {
        if claim.metadata.deletion_timestamp.is_some() {
            continue;
        }
        // `data-<pod>` is the name that the StatefulSet controller gives.
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let Some(node) = name.strip_prefix("data-").and_then(|pod| facts.nodes.get(pod)) else { continue };
        let mut wanted = vec![(ANNOTATION_CLUSTER_UUID.to_owned(), uuid.to_owned())];
        wanted.push((
            ANNOTATION_HIGHEST_VERSION.to_owned(),
            highest.clone().unwrap_or_else(|| node.version.clone()),
        ));
        wanted.retain(|(key, value)| annotation(&claim.metadata, key) != Some(value));
        if !wanted.is_empty() {
            let target = drift::target(Kind::PersistentVolumeClaim, &claim.metadata);
            let annotations = wanted.into_iter().collect();
            draft.step(
                &key.cluster,
                "record the cluster's identity on its volume",
                Action::AnnotateClaim { target, annotations },
            );
        }
    }
}

/// The bootstrap map goes as soon as the identity is in status *and* on the claims of all masters that are members. One
/// that has not joined yet joins without the map; with it, two blank masters could form another cluster.
fn finish_bootstrap(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    elastic: Option<&ElasticFacts>,
    in_status: bool,
    draft: &mut Draft,
) {
    let map = drift::find(&objects.config_maps, |o| &o.metadata, &key.bootstrap_config_map(), &cell.uid);
    let Live::Ours(map) = map else { return };
    let is_marked =
        |claim: &PersistentVolumeClaim| annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).is_some();
    let is_member = |claim: &PersistentVolumeClaim| {
        let pod = claim.metadata.name.as_deref().and_then(|name| name.strip_prefix("data-"));
        // Nobody knows who has joined: then everybody may have.
        elastic.is_none_or(|facts| pod.is_some_and(|pod| facts.nodes.contains_key(pod)))
    };
    let masters: Vec<&PersistentVolumeClaim> = (objects.claims.iter())
        .filter(|claim| label(&claim.metadata, LABEL_ROLE) == Some(Role::Master.as_str()))
        .collect();
    let on_claims = masters.iter().any(|claim| is_marked(claim))
        && masters.iter().all(|claim| is_marked(claim) || !is_member(claim));
    if in_status && on_claims {
        let target = drift::target(Kind::ConfigMap, &map.metadata);
        draft.step(
            &key.cluster,
            "the cluster has formed: no node may ever bootstrap again",
            Action::Delete { target },
        );
    }
}

/// A cluster that was never born gets its bootstrap map, once, before any of its nodes exist.
fn bootstrap(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects, draft: &mut Draft) {
    match drift::find(&objects.config_maps, |o| &o.metadata, &key.bootstrap_config_map(), &cell.uid) {
        Live::Ours(_) => {}
        Live::Missing => {
            let has_claims = (objects.claims.iter())
                .any(|claim| role_and_zone(&claim.metadata).0 == Some(Role::Master.as_str()));
            let has_masters = (objects.stateful_sets.iter())
                .any(|set| role_and_zone(&set.metadata).0 == Some(Role::Master.as_str()));
            if has_claims || has_masters {
                // It may have formed already, unrecorded. Only its own word can tell.
                draft.hold(
                    &key.cluster,
                    Reason::Forming,
                    "master nodes exist and no cluster UUID is recorded: waiting for Elasticsearch to tell its UUID",
                );
                return;
            }
            let names = master_names(cell, key, objects);
            let map = build::bootstrap_config_map(cell, key, &names);
            draft.step(
                &key.cluster,
                format!("let the cluster form from {}", names.join(", ")),
                Action::Bootstrap(Box::new(map)),
            );
        }
        Live::NotOurs => name_conflict(key, Kind::ConfigMap, &key.bootstrap_config_map(), draft),
        Live::Terminating => terminating(key, Kind::ConfigMap, &key.bootstrap_config_map(), draft),
    }
}

fn master_names(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects) -> Vec<String> {
    workloads::master_layout(cell, key, objects)
        .into_iter()
        .flat_map(|(zone, count)| (0..count).map(move |ordinal| (zone.clone(), ordinal)))
        .map(|(zone, ordinal)| key.pod(Role::Master, &zone, ordinal))
        .collect()
}

/// Names in the bootstrap map, while there is one.
pub(super) fn bootstrap_names(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
) -> Option<Vec<String>> {
    let map = drift::find(&objects.config_maps, |o| &o.metadata, &key.bootstrap_config_map(), &cell.uid);
    let names = map.ours()?.data.as_ref()?.get(INITIAL_MASTER_NODES)?.clone();
    Some(names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
}

/// Services: created at once; a change of the role that they lead to waits until a pod of that role is ready.
fn plan_services(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects, draft: &mut Draft) {
    for service in build::services(cell, key) {
        let name = service.metadata.name.clone().unwrap_or_default();
        if let Live::Ours(live) = drift::find(&objects.services, |o| &o.metadata, &name, &cell.uid)
            && let Some(role) = selected_role(&service)
            && selected_role(live).is_some_and(|now| now != role)
            && !objects.pods.iter().any(|pod| label(&pod.metadata, LABEL_ROLE) == Some(role) && is_ready(pod))
        {
            draft.hold(
                &key.cluster,
                Reason::Scaling,
                format!("Service {name} goes to the {role} nodes when one of them is ready"),
            );
            continue;
        }
        plan_simple(
            cell,
            key,
            &objects.services,
            |o| &o.metadata,
            service,
            draft,
            |o| Object::Service(Box::new(o)),
        );
    }
}

/// The role of the nodes that a Service leads to; absent where it leads to all of them.
pub(super) fn selected_role(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.selector.as_ref()?.get(LABEL_ROLE).map(String::as_str)
}

/// An object that is created when missing and applied when it differs.
pub(super) fn plan_simple<T: serde::Serialize>(
    cell: &ValidCell,
    key: &ClusterKey,
    live: &[T],
    meta: impl Fn(&T) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    desired: T,
    draft: &mut Draft,
    wrap: impl Fn(T) -> Object,
) {
    let name = meta(&desired).name.clone().unwrap_or_default();
    match drift::find(live, &meta, &name, &cell.uid) {
        Live::Missing => draft.step(&key.cluster, "it is missing", Action::Create(wrap(desired))),
        Live::Ours(found) if drift::differs(&desired, found) => {
            let found = meta(found).clone();
            let object = wrap(desired);
            let target = drift::target(object.kind(), &found);
            draft.step(&key.cluster, "it differs from what it ought to be", Action::Apply { object, target });
        }
        Live::Ours(_) => {}
        Live::NotOurs => name_conflict(key, wrap(desired).kind(), &name, draft),
        Live::Terminating => terminating(key, wrap(desired).kind(), &name, draft),
    }
}

pub(super) fn name_conflict(key: &ClusterKey, kind: Kind, name: &str, draft: &mut Draft) {
    draft.hold(
        &key.cluster,
        Reason::NameConflict,
        format!(
            "{} {name} belongs to another owner and is not adopted: delete it, or rename the cluster",
            kind.as_str()
        ),
    );
}

pub(super) fn terminating(key: &ClusterKey, kind: Kind, name: &str, draft: &mut Draft) {
    draft.hold(
        &key.cluster,
        Reason::Progressing,
        format!("{} {name} is on its way out: waiting until it is gone", kind.as_str()),
    );
}
