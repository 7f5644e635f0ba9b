//! Looks at everything that one pass over a cell needs. Reads only; never fails as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use searchcell_core::names::{ClusterKey, LABEL_CLUSTER, LABEL_ROLE};
use searchcell_core::snapshot::{CellObjects, CellSnapshot, is_ready, label};
use searchcell_crds::SearchCell;

use crate::elastic::reader::{Ask, ElasticReader};
use crate::ports::{KubeApi, SearchApi};

/// The snapshot, and when to look again where a breaker stands in the way. `None`: the cell is gone.
pub(crate) async fn observe<K: KubeApi, E: SearchApi>(
    kube: &K,
    reader: &ElasticReader<E>,
    namespace: &str,
    name: &str,
    max_age: Duration,
) -> Option<(CellSnapshot, Option<Duration>)> {
    let cell = kube.search_cell(namespace, name)?;
    let objects = kube.cell_objects(namespace, name);
    let placements =
        kube.placements(namespace).into_iter().filter(|placement| placement.spec.cell == name).collect();
    let asks = asks(&cell, namespace, name, &objects);
    let readings = reader.read_all(asks, max_age).await;
    let operator_namespace = kube.operator_namespace().to_owned();
    let snapshot =
        CellSnapshot { cell, objects, elastic: readings.by_cluster, placements, operator_namespace };
    Some((snapshot, readings.retry_after))
}

/// What to ask for: every cluster of the spec, and every cluster that still has objects.
pub(crate) fn asks(cell: &SearchCell, namespace: &str, name: &str, objects: &CellObjects) -> Vec<Ask> {
    let mut names: BTreeSet<String> = objects.cluster_names().into_iter().collect();
    names.extend(cell.spec.clusters.iter().map(|cluster| cluster.name.clone()));
    names
        .into_iter()
        .map(|cluster| {
            let cluster = ClusterKey::new(namespace, name, cluster);
            let serving = serving(&cluster, objects);
            Ask { cluster, serving }
        })
        .collect()
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
