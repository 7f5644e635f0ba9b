//! What must be true at every moment of indices, of where they are recorded to belong, and of tables: each has a name, and
//! a broken one ends the schedule.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use searchcell_core::names::ClusterKey;
use searchcell_core::routing::Published;
use searchcell_core::snapshot::OwnershipMark;
use searchcell_crds::{ClusterPlacement, IndexPlacement, IndexPlacementStatus, SearchCell};

use crate::elastic::Cluster;
use crate::invariants::generations;
use crate::shards::Index;
use crate::tenants;
use crate::world::World;

/// An index name exists on one cluster of a cell only, also while two operators lead: where it belongs is recorded
/// before it is made.
pub const INDEX_ONCE: &str = "index_exists_once";
/// An index is made where its placement's status has recorded that it belongs, and nowhere else.
pub const MADE_WHERE_RECORDED: &str = "index_is_made_where_recorded";
/// A recorded place changes only when its cluster leaves the cell or drains, or when the index is somewhere else.
pub const PLACES_STAY: &str = "recorded_places_stay";
/// An index that is said to be missing is gone: a reading that failed is not an empty one.
pub const MISSING_IS_GONE: &str = "missing_indices_are_gone";
/// Nothing new is given a place on a cluster that is closed or drains.
pub const CLOSED: &str = "closed_clusters_get_nothing";
/// The number of a collection's table ascends, whatever becomes of the object that it lies in.
pub const TABLES_ASCEND: &str = "tables_ascend";
/// A table names an index only where it is, when it is published.
pub const TABLES_ARE_TRUE: &str = "tables_are_true";
/// Every index that the operator makes or deletes carries its mark.
pub const INDEX_MARKED: &str = "index_is_marked";

/// A table that was published.
#[derive(Debug)]
pub struct LastTable {
    generation: i64,
    /// SHA-256 of its JSON.
    digest: [u8; 32],
    /// UIDs of the placements that it belonged to. With the last of them it ends, and so does all memory of its number.
    owners: Vec<String>,
}

pub fn on_placement_status(world: &mut World, name: &str, status: &IndexPlacementStatus) {
    let Some(placement) = world.store.get::<IndexPlacement>(name).cloned() else { return };
    generations(world, &placement.metadata, status.observed_generation, &status.conditions);
    let before = placement.status.as_ref().map(places).unwrap_or_default();
    let cell = &placement.spec.cell;
    let lets = |world: &World, cluster: &str, which: &[ClusterPlacement]| {
        let allows = |cell: &Arc<SearchCell>| {
            let mut clusters = cell.spec.clusters.iter();
            let name = cell.metadata.name.clone().unwrap_or_default();
            clusters.any(|c| format!("{name}-{}", c.name) == cluster && which.contains(&c.placement()))
        };
        let mut recent = world.history.recent(world.ms, cell).map(allows).collect::<Vec<_>>();
        recent.push(recent.last().copied().unwrap_or(true));
        recent
    };
    for (index, (cluster, is_new)) in places(status) {
        let moved = before.get(&index).map(|(old, _)| old).filter(|old| **old != cluster);
        if let Some(old) = moved {
            let stays = [ClusterPlacement::Open, ClusterPlacement::Closed];
            let is_there = (world.elastic.clusters.values())
                .any(|c| c.identity.replace('/', "-") == cluster && c.indices.contains_key(&index));
            if !is_there && lets(world, old, &stays).iter().all(|stays| *stays) {
                world.violated(PLACES_STAY, format!("{index} belonged to {old} and now to {cluster}"));
            }
        }
        let is_decided = is_new && before.get(&index).is_none_or(|(old, _)| *old != cluster);
        if is_decided && lets(world, &cluster, &[ClusterPlacement::Open]).iter().all(|open| !open) {
            world.violated(CLOSED, format!("{index} is given a place on {cluster}"));
        }
        world.history.places.entry(index).or_default().insert(cluster);
    }
    let mut missing =
        status.assignments.iter().flat_map(|at| at.missing.iter().map(move |index| (at, index)));
    let there = missing.find(|(at, index)| {
        let mut clusters = world.elastic.clusters.values().filter(|cluster| cluster.master.is_some());
        clusters.any(|c| c.identity.replace('/', "-") == at.cluster && c.indices.contains_key(*index))
    });
    if let Some((at, index)) = there {
        world.violated(MISSING_IS_GONE, format!("{index} is on {}", at.cluster));
    }
}

/// Where a status says that indices belong, and whether they have still to be made.
fn places(status: &IndexPlacementStatus) -> BTreeMap<String, (String, bool)> {
    let mut places = BTreeMap::new();
    for at in &status.assignments {
        places.extend(at.pending.iter().map(|index| (index.clone(), (at.cluster.clone(), true))));
        places.extend(at.indices.iter().map(|index| (index.clone(), (at.cluster.clone(), false))));
    }
    places
}

pub fn on_index_created(world: &mut World, key: &ClusterKey, name: &str, mark: Option<&OwnershipMark>) {
    if mark.is_none_or(|mark| mark.namespace != key.namespace || mark.placement.is_empty()) {
        world.violated(INDEX_MARKED, format!("{name} was created without our mark"));
    }
    let own = format!("{}/{}", key.cell, key.cluster);
    let all = &world.elastic.clusters;
    // What a former cell's cluster had went with its volumes, when another one has formed in its place.
    let is_former = |cluster: &Cluster| {
        all.values().any(|other| other.identity == cluster.identity && other.uuid > cluster.uuid)
    };
    let elsewhere = (all.values())
        .filter(|cluster| cluster.identity.starts_with(&format!("{}/", key.cell)) && cluster.identity != own)
        .filter(|cluster| !is_former(cluster))
        .find(|cluster| cluster.indices.contains_key(name))
        .map(|cluster| cluster.identity.clone());
    if let Some(elsewhere) = elsewhere {
        world.violated(INDEX_ONCE, format!("{name} is on {own} and on {elsewhere}"));
    }
    if let Some(tenant) = tenants::hidden(world, name) {
        let message = format!("{name} was made, and the pool has documents of tenant {tenant}");
        world.violated(tenants::NOTHING_IS_HIDDEN, message);
    }
    let places = world.history.places.get(name).cloned().unwrap_or_default();
    if !places.contains(&key.name()) {
        world.violated(MADE_WHERE_RECORDED, format!("{name} was made on {own}, recorded is {places:?}"));
    }
}

pub fn on_index_deleted(world: &mut World, name: &str, index: Option<&Index>) {
    if index.is_some_and(|index| index.mark.is_none()) {
        world.violated(INDEX_MARKED, format!("{name} was deleted, and it is not ours"));
    }
}

/// A table was published.
pub fn published(world: &mut World, map: &ConfigMap) {
    let name = map.metadata.name.clone().unwrap_or_default();
    let read = Published::read(map);
    let Some(table) = read.table else {
        return world.violated(TABLES_ARE_TRUE, format!("{name} cannot be read"));
    };
    let lives = |last: &&LastTable| last.owners.iter().any(|uid| world.store.is_live(uid));
    if let Some(last) = world.history.tables.get(&name).filter(lives) {
        let before = last.generation;
        if table.generation < before || table.generation == before && read.digest != last.digest {
            world.violated(TABLES_ASCEND, format!("{name}: {before} -> {}", table.generation));
        }
    }
    let owners = map.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect();
    let last = LastTable { generation: table.generation, digest: read.digest, owners };
    world.history.tables.insert(name.clone(), last);
    for index in &table.indices {
        let on = table
            .clusters
            .get(index.cluster as usize)
            .map(|cluster| cluster.name.clone())
            .unwrap_or_default();
        let is_there = (world.elastic.clusters.values()).any(|cluster| {
            cluster.identity.replace('/', "-") == on && cluster.indices.contains_key(&index.name)
        });
        if !is_there {
            world.violated(TABLES_ARE_TRUE, format!("{name} has {} on {on}, where it is not", index.name));
        }
    }
}
