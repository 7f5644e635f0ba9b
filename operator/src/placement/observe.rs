//! Looks at everything that one pass over a placement needs. Reads only; never fails as a whole.

use std::time::Duration;

use searchcell_core::placement::PlacementSnapshot;

use crate::cell::asks;
use crate::elastic::reader::{ElasticReader, Readings};
use crate::ports::{KubeApi, SearchApi};

/// The snapshot, and when to look again where a breaker stands in the way. `None`: the placement is gone.
pub(crate) async fn observe<K: KubeApi, E: SearchApi>(
    kube: &K,
    reader: &ElasticReader<E>,
    namespace: &str,
    name: &str,
    max_age: Duration,
) -> Option<(PlacementSnapshot, Option<Duration>)> {
    let (mine, siblings): (Vec<_>, Vec<_>) = (kube.placements(namespace).into_iter())
        .partition(|placement| placement.metadata.name.as_deref() == Some(name));
    let placement = mine.into_iter().next()?;
    let cell_name = placement.spec.cell.clone();
    let cell = kube.search_cell(namespace, &cell_name);
    let readings = match &cell {
        Some(cell) => {
            let objects = kube.cell_objects(namespace, &cell_name);
            reader.read_all(asks(cell, namespace, &cell_name, &objects), max_age).await
        }
        None => Readings::default(),
    };
    let elastic = readings.by_cluster;
    let table = kube.table(namespace, &placement.spec.collection);
    Some((PlacementSnapshot { placement, cell, siblings, table, elastic }, readings.retry_after))
}
