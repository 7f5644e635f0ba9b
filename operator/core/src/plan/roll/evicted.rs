//! Data nodes whose pods somebody else takes down: a drain of their Kubernetes node, an eviction, a person. Elasticsearch is told
//! that they restart, as of those that the operator restarts itself, so that it does not make their copies anew elsewhere for a node
//! that is back in a minute. For one that is not, Elasticsearch waits for five minutes, and makes them then. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;

use super::announce::{has_other_data_node, has_started};
use super::{Observed, name};
use crate::names::{LABEL_ROLE, Role};
use crate::plan::Draft;
use crate::plan::drain::is_drain;
use crate::snapshot::{CellObjects, ElasticFacts, Shutdowns, is_ready, label};
use crate::step::{Absence, Action};

/// Tells Elasticsearch of data nodes that are being stopped, and that come back.
pub(super) fn announce_evicted(scope: &Observed<'_>, draft: &mut Draft) {
    let Some(facts) = scope.elastic else { return };
    let Shutdowns::Known(records) = &facts.shutdowns else { return };
    let leaves_for_good = |pod: &Pod| {
        let drains = scope.recorded.filter(|recorded| is_drain(recorded));
        drains.is_some_and(|recorded| recorded.nodes.iter().any(|node| node == name(pod)))
    };
    for pod in scope.objects.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
        let Some(node) = facts.nodes.get(name(pod)).filter(|_| comes_back(scope.objects, name(pod))) else {
            continue;
        };
        if is_data(pod)
            && !leaves_for_good(pod)
            && !records.contains_key(&node.id)
            && has_other_data_node(facts, node)
        {
            let action = Action::AnnounceRestart {
                id: node.id.clone(),
                name: name(pod).to_owned(),
                absence: Absence::Eviction,
            };
            draft.step(&scope.key.cluster, format!("{} is being stopped", name(pod)), action);
        }
    }
}

/// Whether a node that was announced is not back, as far as its pod tells. `node`: its name, where it is a member.
pub(super) fn is_awaited(scope: &Observed<'_>, facts: &ElasticFacts, node: Option<&str>) -> bool {
    let runs = |node: &str| {
        let pod = scope.objects.pods.iter().find(|pod| name(pod) == node);
        pod.is_some_and(|pod| {
            pod.metadata.deletion_timestamp.is_none() && (is_ready(pod) || has_started(pod))
        })
    };
    match node {
        Some(node) => comes_back(scope.objects, node) && !runs(node),
        // It is one of those that are away.
        None => data_nodes(scope.objects).iter().any(|node| !facts.nodes.contains_key(node) || !runs(node)),
    }
}

fn is_data(pod: &Pod) -> bool {
    label(&pod.metadata, LABEL_ROLE) == Some(Role::Data.as_str())
}

/// Whether a StatefulSet makes a pod of this name anew.
fn comes_back(objects: &CellObjects, node: &str) -> bool {
    data_nodes(objects).iter().any(|of| of == node)
}

/// Names of the data nodes that there ought to be.
fn data_nodes(objects: &CellObjects) -> Vec<String> {
    let is_data = |set: &&StatefulSet| {
        label(&set.metadata, LABEL_ROLE) == Some(Role::Data.as_str())
            && set.metadata.deletion_timestamp.is_none()
    };
    let nodes = |set: &StatefulSet| {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let name = set.metadata.name.clone().unwrap_or_default();
        (0..replicas).map(move |ordinal| format!("{name}-{ordinal}"))
    };
    objects.stateful_sets.iter().filter(is_data).flat_map(nodes).collect()
}
