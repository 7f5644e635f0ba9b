//! Plans restarts: which nodes do not run what the spec asks for, in which order they follow, and what is recorded before
//! one of them goes. Pure.
//!
//! `nodes` says who runs what, `gates` what has to hold before a node restarts. An operation is recorded in status, with the
//! pod that it is about, before that pod is deleted: two operators at once cannot record different ones, and one that dies
//! in between leaves behind what the next one finishes.

mod announce;
mod disruption;
mod evicted;
pub(super) mod gates;
mod nodes;
mod order;
mod zone;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_crds::{Operation, OperationKind, Reason};

pub use announce::ALLOCATION_ENABLE;
pub(super) use announce::{PRIMARIES, wanted_allocation};
pub use disruption::Disruption;
use nodes::{Work, work};
pub use nodes::{outdated, rolls};
pub(super) use order::Order;
use order::Shut;

use super::Draft;
use super::settings::setting_text;
use crate::build;
use crate::domain::ValidCell;
use crate::drift;
use crate::names::{ClusterKey, LABEL_ZONE, Role};
use crate::snapshot::{CellObjects, ElasticFacts, is_ready, label};
use crate::step::{Action, Hold, Kind, Object};

/// What restarts look at.
pub(super) struct Scope<'a> {
    pub(super) cell: &'a ValidCell,
    pub(super) key: &'a ClusterKey,
    pub(super) objects: &'a CellObjects,
    pub(super) elastic: Option<&'a ElasticFacts>,
    /// The operation that status records.
    pub(super) recorded: Option<&'a Operation>,
    /// Of the clusters of the cell.
    pub(super) order: &'a Order<'a>,
    pub(super) now: Timestamp,
}

/// What is known of one cluster, whatever its spec asks for.
#[derive(Clone, Copy)]
pub(super) struct Observed<'a> {
    pub(super) key: &'a ClusterKey,
    pub(super) objects: &'a CellObjects,
    pub(super) elastic: Option<&'a ElasticFacts>,
    /// The operation that status records.
    pub(super) recorded: Option<&'a Operation>,
}

impl<'a> Observed<'a> {
    /// Elasticsearch is told of nodes that somebody else takes down, and what it was told of those that are back is taken back:
    /// what has begun comes to its end, whatever is held.
    pub(super) fn keep_told(&self, draft: &mut Draft) {
        announce::withdraw(self, draft);
        evicted::announce_evicted(self, draft);
    }
}

impl<'a> Scope<'a> {
    pub(super) fn observed(&self) -> Observed<'a> {
        Observed { key: self.key, objects: self.objects, elastic: self.elastic, recorded: self.recorded }
    }
}

impl Scope<'_> {
    /// A setting as a data node has it: that of the cluster before that of its file.
    pub(super) fn setting(&self, facts: &ElasticFacts, name: &str) -> Option<String> {
        facts.settings.get(name).or_else(|| self.cell.data.settings.get(name)).map(setting_text)
    }

    fn hold(&self, (reason, message): Shut) -> Hold {
        Hold { cluster: Some(self.key.cluster.clone()), reason, message }
    }
}

/// Plans the next step of whatever restarts in a cluster.
pub(super) fn plan_roll(scope: &Scope<'_>, draft: &mut Draft) {
    draft.operation = Some(None);
    if let Some(recorded) = scope.recorded.filter(|recorded| is_restart(recorded)) {
        if let Some(waits) = unfinished(scope, recorded) {
            draft.operation = Some(Some(recorded.clone()));
            return draft.hold(&scope.key.cluster, Reason::RollingOut, waits);
        }
        let pods = recorded_pods(scope, recorded);
        // What is left of a step that was done in part is decided anew.
        if pods.len() == recorded.nodes.len() {
            return restart(scope, recorded, &pods, draft);
        }
    }
    let all = work(scope.cell, scope.key, scope.objects, scope.elastic);
    let Some(next) = all.first() else { return };
    if let Err(shut) = scope.order.gate(&scope.key.cluster, scope.now) {
        return draft.holds.push(scope.hold(shut));
    }
    if let Some(keystore) = scope.cell.keystore.as_ref().filter(|keystore| !keystore.is_ready) {
        let secret = keystore.from.as_deref().unwrap_or_default();
        let waits = format!("Secret {secret} does not have yet what nodes are to start with");
        return draft.hold(&scope.key.cluster, Reason::LoadingKeystore, waits);
    }
    if let Some((work, pod)) = all.iter().find_map(|work| Some((work, work.stopped()?))) {
        // It runs nothing: whatever else is wrong, it loses nothing by running what is asked for.
        return if work.is_current { record(scope, &[pod], None, draft) } else { render(scope, work, draft) };
    }
    if let Err(hold) = gates::cluster(scope) {
        return draft.holds.push(hold);
    }
    if !next.is_current {
        return render(scope, next, draft);
    }
    // Of a Deployment, Kubernetes restarts the pods itself; of a template that it has not seen, nobody knows them.
    if next.pods.is_empty() {
        let waits = format!("waiting until the {} nodes run what the spec asks for", next.role);
        return draft.hold(&scope.key.cluster, Reason::RollingOut, waits);
    }
    let (pods, why_one) = match zone::together(scope, next) {
        Ok(step) => step,
        Err(shut) => return draft.holds.push(scope.hold(shut)),
    };
    match gates::nodes(scope, &pods) {
        Ok(()) => record(scope, &pods, why_one, draft),
        Err(hold) => draft.holds.push(hold),
    }
}

/// True for an operation that takes nodes away for a while.
pub(crate) fn is_restart(operation: &Operation) -> bool {
    matches!(operation.kind, OperationKind::RestartNode | OperationKind::RestartZone)
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pods that were to be restarted, as far as they are still the same.
fn recorded_pods<'a>(scope: &Scope<'a>, recorded: &Operation) -> Vec<&'a Pod> {
    let is_meant = |pod: &&Pod| {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        recorded.nodes.iter().zip(&recorded.uids).any(|(node, of)| node == name(pod) && of == uid)
    };
    scope
        .objects
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter(is_meant)
        .collect()
}

/// Why an operation is not over: the pod is gone, and the node is not back.
fn unfinished(scope: &Scope<'_>, recorded: &Operation) -> Option<String> {
    let stay: Vec<&str> = recorded_pods(scope, recorded).into_iter().map(name).collect();
    let gone = recorded.nodes.iter().filter(|node| !stay.contains(&node.as_str()));
    let is_back = |node: &String| {
        let pod = scope.objects.pods.iter().find(|pod| name(pod) == node);
        let joined = scope.elastic.is_some_and(|facts| facts.nodes.contains_key(node));
        // What does not run can be put right by the spec.
        pod.is_some_and(|pod| (is_ready(pod) && joined) || nodes::is_stopped_for_good(pod))
    };
    let missing: Vec<String> = gone.filter(|node| !is_back(node)).cloned().collect();
    (!missing.is_empty()).then(|| format!("{} restarts: waiting until it is back", missing.join(", ")))
}

/// Deletes the pods, if nothing has changed since that was recorded.
fn restart(scope: &Scope<'_>, recorded: &Operation, pods: &[&Pod], draft: &mut Draft) {
    let all = work(scope.cell, scope.key, scope.objects, scope.elastic);
    let is_old = |pod: &&Pod| {
        all.iter().any(|work| work.is_current && work.pods.iter().any(|old| name(old) == name(pod)))
    };
    if !pods.iter().all(is_old) {
        // It runs what is asked for by now: the spec was set back.
        return;
    }
    if pods.len() > 1 && zone::hindrance(scope, pods).is_some() {
        // The next pass decides anew, and says why they restart one by one.
        return;
    }
    let in_turn = scope.order.gate(&scope.key.cluster, scope.now).map_err(|shut| scope.hold(shut));
    let is_stopped = pods.iter().all(|pod| nodes::is_stopped(pod));
    let gates = if is_stopped {
        in_turn
    } else {
        in_turn.and_then(|()| gates::cluster(scope)).and_then(|()| gates::nodes(scope, pods))
    };
    if let Err(hold) = gates {
        return draft.holds.push(hold);
    }
    draft.operation = Some(Some(recorded.clone()));
    // All are told before the first one goes.
    for pod in pods.iter().filter(|_| !is_stopped) {
        if let Err(hold) = announce::announce(scope, pod, draft) {
            return draft.holds.push(hold);
        }
    }
    for pod in pods {
        let why = format!("{} runs an earlier template", name(pod));
        // What ran nothing may run by now: then it goes like others, and not by what was seen of it before.
        let target = if is_stopped { drift::exact_target } else { drift::target };
        let target = target(Kind::Pod, &pod.metadata);
        draft.step(&scope.key.cluster, why, Action::RestartNode { target });
    }
}

/// Records what is about to be done; the next pass does it.
fn record(scope: &Scope<'_>, pods: &[&Pod], message: Option<String>, draft: &mut Draft) {
    let zone = pods.first().and_then(|pod| label(&pod.metadata, LABEL_ZONE));
    let kind = if pods.len() > 1 { OperationKind::RestartZone } else { OperationKind::RestartNode };
    draft.operation = Some(Some(Operation {
        kind,
        zone: zone.map(str::to_owned),
        nodes: pods.iter().map(|pod| name(pod).to_owned()).collect(),
        uids: pods.iter().map(|pod| pod.metadata.uid.clone().unwrap_or_default()).collect(),
        message,
        started_at: Time(scope.now),
    }));
}

/// Writes the template of a workload whose turn it is.
fn render(scope: &Scope<'_>, work: &Work<'_>, draft: &mut Draft) {
    let Scope { cell, key, .. } = *scope;
    let (kind, object) = match (work.role, work.zone) {
        (Role::Ingest, _) => {
            let Some(deployment) = build::ingest_deployment(cell, key, None) else { return };
            (Kind::Deployment, Object::Deployment(Box::new(deployment)))
        }
        (role, Some(zone)) => {
            let set = build::stateful_set(cell, key, role, zone, work.replicas);
            (Kind::StatefulSet, Object::StatefulSet(Box::new(set)))
        }
        (_, None) => return,
    };
    let why = format!("the template of {} follows the spec", object.name());
    let target = drift::exact_target(kind, work.meta);
    draft.step(&key.cluster, why, Action::ReplaceTemplate { object, target });
}
