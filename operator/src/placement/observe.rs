//! Looks at everything that one pass over a placement needs. Reads only; never fails as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use searchcell_core::domain::ValidPlacement;
use searchcell_core::names::ClusterKey;
use searchcell_core::placement::{PlacementSnapshot, PoolCount, TenantsToCount, tenants_to_count, to_count};
use searchcell_core::snapshot::Reading;
use searchcell_crds::IndexPlacement;

use crate::cell::asks;
use crate::elastic::reader::{ElasticReader, Readings, shortest};
use crate::ports::{KubeApi, SearchApi};

/// The snapshot, with readings of Elasticsearch that are no older than `max_age` says, and when to look again where a
/// breaker stands in the way. `None`: the placement is gone.
pub(crate) async fn observe<K: KubeApi, E: SearchApi>(
    kube: &K,
    reader: &ElasticReader<E>,
    namespace: &str,
    name: &str,
    max_age: impl Fn(&IndexPlacement) -> Duration,
) -> Option<(PlacementSnapshot, Option<Duration>)> {
    let (mine, siblings): (Vec<_>, Vec<_>) = (kube.placements(namespace).into_iter())
        .partition(|placement| placement.metadata.name.as_deref() == Some(name));
    let placement = mine.into_iter().next()?;
    let cell_name = placement.spec.cell.clone();
    let cell = kube.search_cell(namespace, &cell_name);
    let readings = match &cell {
        Some(cell) => {
            let objects = kube.cell_objects(namespace, &cell_name);
            reader.read_all(asks(cell, namespace, &cell_name, &objects), max_age(&placement)).await
        }
        None => Readings::default(),
    };
    let elastic = readings.by_cluster;
    let table = kube.table(namespace, &placement.spec.collection);
    let (pooled, largest, limits) = Default::default();
    let snapshot = PlacementSnapshot { placement, cell, siblings, table, elastic, pooled, largest, limits };
    Some((snapshot, readings.retry_after))
}

/// Counts documents in the collection's pool of tenants that ask for an index of their own, wherever the pool is; and
/// when to look again where a breaker stands in the way.
pub(crate) async fn count_pooled<K: KubeApi, E: SearchApi>(
    kube: &K,
    elastic: &E,
    reader: &ElasticReader<E>,
    snapshot: &mut PlacementSnapshot,
    valid: &ValidPlacement,
    max_age: Duration,
) -> Option<Duration> {
    let mut retry_after = None;
    // One question that is not answered is enough: the next would wait as long.
    let mut silent: BTreeMap<ClusterKey, String> = BTreeMap::new();
    for PoolCount { cluster, index, tenants, is_last } in to_count(snapshot, valid) {
        let of = |why: &str| format!("cluster {} of SearchCell {}: {why}", cluster.cluster, cluster.cell);
        let counted = match silent.get(&cluster) {
            Some(why) => Err(why.clone()),
            None => match readable(kube, reader, &cluster, max_age).await {
                Ok(()) => (elastic.documents_of(&cluster, &index, &tenants, is_last).await)
                    .map_err(|error| of(&error.to_string())),
                Err((why, wait)) => {
                    retry_after = shortest(retry_after, wait);
                    Err(of(&why))
                }
            },
        };
        if let Err(why) = &counted {
            silent.insert(cluster.clone(), why.clone());
        }
        snapshot.pooled.extend(tenants.into_iter().map(|tenant| {
            let reading = match &counted {
                Ok(counts) => counts.get(&tenant).copied().map_or_else(
                    || Reading::Unavailable("its documents were not counted".to_owned()),
                    Reading::Known,
                ),
                Err(why) => Reading::Unavailable(why.clone()),
            };
            (tenant, reading)
        }));
    }
    retry_after
}

/// Finds the largest tenants of indices that are past a limit.
pub(crate) async fn count_tenants<E: SearchApi>(
    reader: &ElasticReader<E>,
    snapshot: &mut PlacementSnapshot,
    valid: &ValidPlacement,
) {
    for TenantsToCount { cluster, index, field } in tenants_to_count(snapshot, valid) {
        let key = ClusterKey::new(&valid.namespace, &valid.cell, cluster);
        if let Some(tenants) = reader.largest_tenants(&key, &index, &field).await {
            snapshot.largest.insert(index, tenants);
        }
    }
}

/// Whether a cluster, of whatever cell, answers; where not, why, and when it is worth asking again.
async fn readable<K: KubeApi, E: SearchApi>(
    kube: &K,
    reader: &ElasticReader<E>,
    cluster: &ClusterKey,
    max_age: Duration,
) -> Result<(), (String, Option<Duration>)> {
    let Some(cell) = kube.search_cell(&cluster.namespace, &cluster.cell) else {
        return Err(("the cell is gone".to_owned(), None));
    };
    let objects = kube.cell_objects(&cluster.namespace, &cluster.cell);
    let ask = (asks(&cell, &cluster.namespace, &cluster.cell, &objects).into_iter())
        .find(|ask| ask.cluster == *cluster)
        .ok_or_else(|| ("it is not of the cell".to_owned(), None))?;
    match reader.read(&ask, max_age).await {
        (Reading::Known(_), _) => Ok(()),
        (Reading::Unavailable(why), wait) => Err((why, wait)),
    }
}
