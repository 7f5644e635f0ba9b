//! Looks at everything that one pass over a cell needs. Reads only; never fails as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use searchcell_core::names::{ClusterKey, LABEL_CLUSTER, LABEL_ROLE, Role};
use searchcell_core::plan::{Disruption, NodeToAsk, nodes_to_ask, supplied_secrets};
use searchcell_core::security::keystore::{MOST_SECRETS, SecureSource};
use searchcell_core::security::{Served, Supplied};
use searchcell_core::snapshot::{CellObjects, CellSnapshot, Reading, is_ready, label};
use searchcell_crds::{RolloutPhase, SearchCell};

use crate::elastic::reader::Ask;
use crate::engine::Engine;
use crate::ports::{KubeApi, SearchApi};
use crate::security::{parse, supplied};

/// Nodes that are asked at the same time what they show.
const ASKED_AT_ONCE: usize = 16;

/// The snapshot, and when to look again where a breaker stands in the way. `None`: the cell is gone.
pub(crate) async fn observe<K: KubeApi, E: SearchApi>(
    engine: &Engine<K, E>,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Option<(CellSnapshot, Option<Duration>)> {
    let kube = engine.kube.as_ref();
    let cell = kube.search_cell(namespace, name)?;
    let objects = kube.cell_objects(namespace, name);
    let placements =
        kube.placements(namespace).into_iter().filter(|placement| placement.spec.cell == name).collect();
    let asks = asks(&cell, namespace, name, &objects);
    // Whoever lets a node restart has to know of everything that the pods, as they are known, have done before.
    let max_age = if restarts(&cell) { Duration::ZERO } else { engine.tuning.max_reading_age };
    let readings = engine.reader.read_all(asks, max_age).await;
    // Of this cell, as this pass sees it.
    let is_other =
        |of: &Disruption| (of.cluster().namespace.as_str(), of.cluster().cell.as_str()) != (namespace, name);
    let mut disruptions: Vec<Disruption> = kube.disruptions().into_iter().filter(is_other).collect();
    disruptions.extend(Disruption::of_cell(&cell));
    let mut snapshot = CellSnapshot {
        cell,
        objects,
        elastic: readings.by_cluster,
        placements,
        served: BTreeMap::new(),
        supplied: BTreeMap::new(),
        secure_settings: BTreeMap::new(),
        lifetimes: engine.tuning.lifetimes,
        restarts_nodes: engine.tuning.restarts_nodes,
        disruptions,
        most_disruptions: engine.tuning.most_disruptions,
        operator_namespace: kube.operator_namespace().to_owned(),
    };
    for (layer, secret) in supplied_secrets(&snapshot.cell) {
        snapshot.supplied.insert(layer, supplied(kube, namespace, &secret, now).await);
    }
    for from in snapshot.cell.spec.secure_settings.iter().take(MOST_SECRETS) {
        let source = secure_source(kube, namespace, &from.secret_name).await;
        snapshot.secure_settings.insert(from.secret_name.clone(), source);
    }
    snapshot.served = served(engine, namespace, name, &nodes_to_ask(&snapshot, now)).await;
    Some((snapshot, readings.retry_after))
}

/// Whether nodes of a cell restart, as far as its status tells.
fn restarts(cell: &SearchCell) -> bool {
    let status = cell.status.as_ref();
    let rolls = status.and_then(|status| status.rollout.as_ref());
    let operates = status.is_some_and(|status| status.clusters.iter().any(|of| of.operation.is_some()));
    operates || rolls.is_some_and(|rollout| rollout.phase != RolloutPhase::Complete)
}

/// A Secret of a user is in no cache: it has no label of ours.
async fn supplied<K: KubeApi>(kube: &K, namespace: &str, name: &str, now: Timestamp) -> Supplied {
    match kube.secret_live(namespace, name).await {
        Ok(Some(secret)) => supplied::read(&secret, now),
        Ok(None) => Supplied::Missing,
        Err(error) => Supplied::Unavailable(error.to_string()),
    }
}

/// The same; its values are looked at once, and nothing but their digests is kept until the end of the pass.
async fn secure_source<K: KubeApi>(kube: &K, namespace: &str, name: &str) -> SecureSource {
    match kube.secret_live(namespace, name).await {
        Ok(Some(secret)) => SecureSource::Read(parse::secure_settings(&secret)),
        Ok(None) => SecureSource::Missing,
        Err(error) => SecureSource::Unavailable(error.to_string()),
    }
}

/// Asks nodes what they show, a bounded number at a time.
async fn served<K: KubeApi, E: SearchApi>(
    engine: &Engine<K, E>,
    namespace: &str,
    name: &str,
    nodes: &[NodeToAsk],
) -> BTreeMap<String, Reading<Served>> {
    let ask = |node: &NodeToAsk| {
        let node = node.clone();
        let elastic = Arc::clone(&engine.elastic);
        let cluster = ClusterKey::new(namespace, name, &node.cluster);
        async move {
            let reading = match elastic.served(&cluster, &node.address).await {
                Ok(served) => Reading::Known(served),
                Err(error) => Reading::Unavailable(error.to_string()),
            };
            (node.uid, reading)
        }
    };
    let asked: Vec<_> = nodes.iter().map(ask).collect();
    futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await
}

/// What to ask for: every cluster of the spec, and every cluster that still has objects.
pub(crate) fn asks(cell: &SearchCell, namespace: &str, name: &str, objects: &CellObjects) -> Vec<Ask> {
    let restarts = restarts(cell);
    let mut names: BTreeSet<String> = objects.cluster_names().into_iter().collect();
    names.extend(cell.spec.clusters.iter().map(|cluster| cluster.name.clone()));
    names
        .into_iter()
        .map(|cluster| {
            let cluster = ClusterKey::new(namespace, name, cluster);
            let serving = serving(&cluster, objects);
            let restarts = restarts || is_disturbed(&cluster, objects);
            Ask { cluster, serving, restarts, version: cell.spec.version.clone() }
        })
        .collect()
}

/// Whether somebody stops a data node of it, or one is not back.
fn is_disturbed(cluster: &ClusterKey, objects: &CellObjects) -> bool {
    let of_data = |pod: &&Pod| {
        label(&pod.metadata, LABEL_CLUSTER) == Some(&cluster.cluster)
            && label(&pod.metadata, LABEL_ROLE) == Some(Role::Data.as_str())
    };
    let pods = objects.pods.iter().filter(of_data);
    pods.into_iter().any(|pod| pod.metadata.deletion_timestamp.is_some() || !is_ready(pod))
}

/// UIDs of the ready pods that the cluster's Service leads to. The Service itself says which role that is.
fn serving(cluster: &ClusterKey, objects: &CellObjects) -> BTreeSet<String> {
    let service_name = cluster.name();
    let selector = (objects.services.iter())
        .find(|service| service.metadata.name.as_deref() == Some(service_name.as_str()))
        .and_then(|service| service.spec.as_ref()?.selector.as_ref());
    let Some(role) = selector.and_then(|selector| selector.get(LABEL_ROLE)) else {
        return BTreeSet::new();
    };
    (objects.pods.iter())
        .filter(|pod| label(&pod.metadata, LABEL_CLUSTER) == Some(&cluster.cluster))
        .filter(|pod| label(&pod.metadata, LABEL_ROLE) == Some(role))
        .filter(|pod| is_ready(pod))
        .filter_map(|pod| pod.metadata.uid.clone())
        .collect()
}
