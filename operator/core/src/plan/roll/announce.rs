//! Telling Elasticsearch that a data node restarts, so that it does not make its copies anew elsewhere meanwhile: by a record of the
//! node shutdown API, or, where a build has none, by placing primaries only. Both are desired state, computed afresh from the
//! operation that status records: nothing is left behind by an operator that dies. Pure.

use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::{Operation, Reason};
use serde_json::Value;

use super::evicted::is_awaited;
use super::{Observed, Scope, is_restart, name};
use crate::names::{ClusterKey, LABEL_ROLE, Role};
use crate::plan::Draft;
use crate::plan::settings::setting_text;
use crate::snapshot::{ElasticFacts, ElasticNode, Shutdowns, label};
use crate::step::{Absence, Action, Hold};

/// With `primaries`, no copies are made of what a restart took.
pub const ALLOCATION_ENABLE: &str = "cluster.routing.allocation.enable";
pub(in crate::plan) const PRIMARIES: &str = "primaries";

/// Sees to it that Elasticsearch knows of the restart of a node before its pod goes; the error says what it waits for.
pub(super) fn announce(scope: &Scope<'_>, pod: &Pod, draft: &mut Draft) -> Result<(), Hold> {
    let is_data = label(&pod.metadata, LABEL_ROLE) == Some(Role::Data.as_str());
    let node = scope.elastic.and_then(|facts| Some((facts, facts.nodes.get(name(pod))?)));
    let (Some((facts, node)), true) = (node, is_data) else { return Ok(()) };
    if !has_other_data_node(facts, node) {
        return Ok(());
    }
    match &facts.shutdowns {
        Shutdowns::Unknown => {
            let message = "nodes restart only when it is known what Elasticsearch was told of restarts";
            Err(scope.hold((Reason::Unreachable, message.to_owned())))
        }
        Shutdowns::NotAvailable if has_primaries_only(facts) => Ok(()),
        Shutdowns::NotAvailable => {
            let message =
                format!("a node restarts only while {ALLOCATION_ENABLE} is {PRIMARIES}: it is being set");
            Err(scope.hold((Reason::RollingOut, message)))
        }
        Shutdowns::Known(records) => {
            if !records.contains_key(&node.id) {
                let action = Action::AnnounceRestart {
                    id: node.id.clone(),
                    name: name(pod).to_owned(),
                    absence: Absence::Restart,
                };
                draft.step(&scope.key.cluster, format!("{} is about to restart", name(pod)), action);
            }
            Ok(())
        }
    }
}

/// Without another one there is none to make copies on. And the only one would not be ready again with its record, so that nobody
/// could reach the cluster to take the record back.
pub(super) fn has_other_data_node(facts: &ElasticFacts, node: &ElasticNode) -> bool {
    facts.nodes.values().any(|other| other.is_data() && other.id != node.id)
}

/// Takes back the operator's own records of nodes that are back, or that are not to restart any more.
pub(super) fn withdraw(scope: &Observed<'_>, draft: &mut Draft) {
    let Some(facts) = scope.elastic else { return };
    let Shutdowns::Known(records) = &facts.shutdowns else { return };
    for (id, _) in records.iter().filter(|(_, record)| Absence::is_own(&record.reason)) {
        let node = facts.nodes.iter().find(|(_, node)| node.id == *id).map(|(name, _)| name.as_str());
        let is_recorded =
            scope.recorded.filter(|recorded| is_restart(recorded)).is_some_and(|recorded| match node {
                Some(node) => {
                    recorded.nodes.iter().any(|other| other == node) && !has_returned(scope, recorded, node)
                }
                // It is away, and it is the one: there is one operation at a time.
                None => true,
            });
        if !is_recorded && !is_awaited(scope, facts, node) {
            let action = Action::WithdrawRestart { id: id.clone() };
            let why = format!("{} does not restart any more", node.unwrap_or(id));
            draft.step(&scope.key.cluster, why, action);
        }
    }
}

/// The new process of a node that is a member. It is not ready while its record stands: the record closes the port of readiness.
fn has_returned(scope: &Observed<'_>, recorded: &Operation, node: &str) -> bool {
    let is_new = |pod: &&Pod| {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        name(pod) == node
            && pod.metadata.deletion_timestamp.is_none()
            && !recorded.uids.iter().any(|old| old == uid)
    };
    scope.objects.pods.iter().find(is_new).is_some_and(has_started)
}

/// Whether its process runs, ready or not.
pub(super) fn has_started(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    match containers {
        Some(containers) => containers.iter().any(|container| container.started == Some(true)),
        // Without a word of its containers, its phase tells.
        None => status.and_then(|status| status.phase.as_deref()) == Some("Running"),
    }
}

fn has_primaries_only(facts: &ElasticFacts) -> bool {
    facts.settings.get(ALLOCATION_ENABLE).map(setting_text).as_deref() == Some(PRIMARIES)
}

/// The setting that goes with an operation where nothing else can be told.
pub(in crate::plan) fn wanted_allocation(
    key: &ClusterKey,
    operation: Option<&Operation>,
    facts: &ElasticFacts,
) -> Option<(String, Value)> {
    let of_data = |operation: &&Operation| {
        let data = format!("{}-{}-", key.name(), Role::Data);
        is_restart(operation) && operation.nodes.iter().any(|node| node.starts_with(&data))
    };
    operation.filter(of_data)?;
    let is_wanted = match facts.shutdowns {
        Shutdowns::NotAvailable => true,
        // As it was, until somebody knows.
        Shutdowns::Unknown => has_primaries_only(facts),
        Shutdowns::Known(_) => false,
    };
    is_wanted.then(|| (ALLOCATION_ENABLE.to_owned(), Value::from(PRIMARIES)))
}
