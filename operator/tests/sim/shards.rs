//! Shards of the simulated Elasticsearch: allocation under awareness, the same-shard rule, recovery over time,
//! promotion, delayed reallocation, and what is lost with a disk.

use std::collections::{BTreeMap, BTreeSet};

use searchcell_core::domain::EsVersion;
use searchcell_core::plan::{ALLOCATION_ENABLE, ALLOCATION_EXCLUDE};
use searchcell_core::snapshot::{ElasticNode, IndexFacts, OwnershipMark, ShardCopy, ShardState};
use serde_json::Value;

use crate::elastic::Cluster;
use crate::store::timestamp;
use crate::world::World;

/// As the operator asks for it when it announces a restart.
const ANNOUNCED_MS: u64 = 900_000;
/// `index.unassigned.node_left.delayed_timeout`.
const DELAY_MS: u64 = 60_000;

#[derive(Clone, Debug)]
pub struct Index {
    pub uuid: String,
    pub primaries: i32,
    pub replicas: i32,
    pub mark: Option<OwnershipMark>,
    /// Its settings, flat, but for its numbers of shards and copies.
    pub settings: BTreeMap<String, Value>,
    pub documents: i64,
    /// Documents of tenants of which an index of their own is asked, in an index of a pool.
    pub tenants: BTreeMap<String, u64>,
    pub bytes: i64,
    pub copies: Vec<Copy>,
    /// Persistent node ids that hold all acknowledged writes, by shard. Empty: never had a primary.
    pub in_sync: BTreeMap<i32, BTreeSet<String>>,
}

#[derive(Clone, Debug)]
pub struct Copy {
    pub shard: i32,
    pub primary: bool,
    pub state: ShardState,
    /// Node name and persistent id.
    pub node: Option<(String, String)>,
    /// Where a relocating copy goes.
    pub target: Option<(String, String)>,
    /// When recovery is done.
    pub due: u64,
    /// Node id it was on, and since when it is unassigned.
    pub last: Option<(String, u64)>,
    /// When it was added, in milliseconds.
    pub added: u64,
}

impl Copy {
    fn new(shard: i32, primary: bool, added: u64) -> Self {
        let state = ShardState::Unassigned;
        Copy { shard, primary, state, node: None, target: None, due: 0, last: None, added }
    }
}

impl Index {
    pub fn new(
        uuid: String,
        primaries: i32,
        replicas: i32,
        mark: Option<OwnershipMark>,
        created: u64,
    ) -> Self {
        let copies = (0..primaries)
            .flat_map(|shard| (0..=replicas).map(move |copy| (shard, copy == 0)))
            .map(|(shard, primary)| Copy::new(shard, primary, created))
            .collect();
        let (settings, in_sync) = (BTreeMap::new(), BTreeMap::new());
        Index {
            uuid,
            primaries,
            replicas,
            mark,
            settings,
            documents: 0,
            bytes: 0,
            tenants: BTreeMap::new(),
            copies,
            in_sync,
        }
    }

    /// More copies are added; fewer: those without a node go first, a primary never does.
    pub fn set_replicas(&mut self, replicas: i32, ms: u64) {
        for shard in 0..self.primaries {
            for _ in self.replicas..replicas {
                self.copies.push(Copy::new(shard, false, ms));
            }
            for _ in replicas..self.replicas {
                let of_shard = |copy: &&(usize, &Copy)| copy.1.shard == shard && !copy.1.primary;
                let rank = |state| match state {
                    ShardState::Unassigned => 0,
                    ShardState::Initializing => 1,
                    ShardState::Started | ShardState::Relocating => 2,
                };
                let mut copies: Vec<(usize, &Copy)> = self.copies.iter().enumerate().collect();
                copies.retain(|copy| of_shard(&copy));
                copies.sort_by_key(|(_, copy)| rank(copy.state));
                let Some(at) = copies.first().map(|(at, _)| *at) else { continue };
                let gone = self.copies.remove(at);
                if let (Some((_, id)), true) = (gone.node, gone.state.is_started()) {
                    self.in_sync.entry(shard).or_default().remove(&id);
                }
            }
        }
        self.replicas = replicas;
    }

    pub fn facts(&self) -> IndexFacts {
        let copies = (self.copies.iter())
            .map(|copy| ShardCopy {
                shard: copy.shard,
                primary: copy.primary,
                state: copy.state,
                node: copy.node.as_ref().map(|(name, _)| name.clone()),
                new_since: (copy.last.is_none() && !copy.state.is_started()).then(|| timestamp(copy.added)),
            })
            .collect();
        IndexFacts {
            uuid: self.uuid.clone(),
            primaries: self.primaries,
            replicas: self.replicas,
            mark: self.mark.clone(),
            copies,
            settings: self.settings.clone(),
        }
    }

    fn key(&self, shard: i32) -> String {
        format!("{}/{shard}", self.uuid)
    }
}

pub fn node_left(cluster: &mut Cluster, name: &str, id: &str, ms: u64) {
    let is_left = |node: &Option<(String, String)>| node.as_ref().is_some_and(|(_, other)| other == id);
    let _ = name;
    let cluster_members = &cluster.members;
    for index in cluster.indices.values_mut() {
        for copy in &mut index.copies {
            if is_left(&copy.target) {
                (copy.target, copy.state) = (None, ShardState::Started);
            }
        }
        let lost: Vec<usize> =
            (0..index.copies.len()).filter(|&at| is_left(&index.copies[at].node)).collect();
        for at in lost {
            let shard = index.copies[at].shard;
            let was_started = index.copies[at].state.is_started();
            let copy = &mut index.copies[at];
            (copy.state, copy.node, copy.target) = (ShardState::Unassigned, None, None);
            copy.last = Some((id.to_owned(), ms));
            // The copy on the highest version is promoted.
            let survivor = (0..index.copies.len())
                .filter(|&at| index.copies[at].shard == shard && index.copies[at].state.is_started())
                .max_by_key(|&at| (version_at(cluster_members, &index.copies[at]), std::cmp::Reverse(at)));
            if let (Some(survivor), true) = (survivor, was_started) {
                index.in_sync.entry(shard).or_default().remove(id);
                if index.copies[at].primary {
                    index.copies[at].primary = false;
                    index.copies[survivor].primary = true;
                }
            }
        }
        // Without a primary there is nothing to recover from.
        for shard in 0..index.primaries {
            if !index.copies.iter().any(|c| c.shard == shard && c.primary && c.state.is_started()) {
                for copy in index.copies.iter_mut().filter(|c| c.shard == shard && !c.state.is_started()) {
                    (copy.state, copy.node) = (ShardState::Unassigned, None);
                }
            }
        }
    }
}

pub fn tick(world: &mut World, uuid: &str) {
    let mut cluster = world.elastic.clusters.remove(uuid).unwrap();
    let before = cluster.version;
    let names: Vec<String> = cluster.indices.keys().cloned().collect();
    for name in &names {
        let mut index = cluster.indices.remove(name).unwrap();
        finish(world, &mut cluster, &mut index);
        cluster.indices.insert(name.clone(), index);
    }
    for name in &names {
        let mut index = cluster.indices.remove(name).unwrap();
        for at in 0..index.copies.len() {
            allocate(world, &mut cluster, &mut index, at);
        }
        cluster.indices.insert(name.clone(), index);
    }
    if cluster.version == before {
        rebalance(world, &mut cluster);
    }
    world.elastic.clusters.insert(uuid.to_owned(), cluster);
}

fn disk<'a>(world: &'a mut World, id: &str) -> Option<&'a mut crate::world::Volume> {
    world.volumes.values_mut().find(|volume| volume.node_id == id)
}

/// Recoveries that are due.
fn finish(world: &mut World, cluster: &mut Cluster, index: &mut Index) {
    for at in 0..index.copies.len() {
        let copy = &index.copies[at];
        if copy.due > world.ms && !world.calm {
            continue;
        }
        let (key, shard) = (index.key(copy.shard), copy.shard);
        match copy.state {
            ShardState::Initializing => {
                let Some((_, id)) = copy.node.clone() else { continue };
                if let Some(disk) = disk(world, &id) {
                    disk.copies.insert(key);
                }
                index.copies[at].state = ShardState::Started;
                index.in_sync.entry(shard).or_default().insert(id);
                cluster.version += 1;
            }
            ShardState::Relocating => {
                let (Some((_, from)), Some(target)) = (copy.node.clone(), copy.target.clone()) else {
                    continue;
                };
                if let Some(disk) = disk(world, &from) {
                    disk.copies.remove(&key);
                }
                if let Some(disk) = disk(world, &target.1) {
                    disk.copies.insert(key);
                }
                let in_sync = index.in_sync.entry(shard).or_default();
                in_sync.remove(&from);
                in_sync.insert(target.1.clone());
                let copy = &mut index.copies[at];
                (copy.node, copy.target, copy.state) = (Some(target), None, ShardState::Started);
                cluster.version += 1;
            }
            ShardState::Unassigned | ShardState::Started => {}
        }
    }
}

fn allocate(world: &mut World, cluster: &mut Cluster, index: &mut Index, at: usize) {
    let copy = &index.copies[at];
    if copy.state != ShardState::Unassigned {
        return;
    }
    let (shard, key) = (copy.shard, index.key(copy.shard));
    let in_sync = index.in_sync.get(&shard).cloned().unwrap_or_default();
    let mut nodes: Vec<(String, String)> = data_nodes(cluster)
        .filter(|(name, zone, _)| fits(cluster, index, at, name, zone.as_deref()))
        .map(|(name, _, id)| (name.to_owned(), id.to_owned()))
        .collect();
    if copy.primary {
        if !in_sync.is_empty() {
            let has_it = |(_, id): &(String, String)| {
                in_sync.contains(id)
                    && world.volumes.values().any(|v| v.node_id == *id && v.copies.contains(&key))
            };
            nodes.retain(has_it);
            if nodes.is_empty() {
                // Where nobody else has it, it is started against filters, awareness and full disks.
                let all = data_nodes(cluster).map(|(name, _, id)| (name.to_owned(), id.to_owned()));
                nodes = all.filter(has_it).collect();
            }
        }
    } else {
        let has_primary = index.copies.iter().any(|c| c.shard == shard && c.primary && c.state.is_started());
        let enabled = cluster.settings.get(ALLOCATION_ENABLE).and_then(|value| value.as_str());
        if !has_primary || enabled.is_some_and(|enabled| enabled != "all") {
            return;
        }
        if let Some((last, since)) = &copy.last {
            if nodes.iter().any(|(_, id)| id == last) {
                nodes.retain(|(_, id)| id == last);
            } else if world.ms < since + delay(cluster, last) {
                return;
            }
        }
    }
    nodes.sort_by_key(|(name, _)| (copies_on(cluster, index, name), name.clone()));
    let Some(node) = nodes.into_iter().next() else { return };
    let due = world.ms + world.rng.range(500, world.recovery_ms);
    let copy = &mut index.copies[at];
    (copy.node, copy.state, copy.due, copy.last) = (Some(node), ShardState::Initializing, due, None);
    cluster.version += 1;
}

/// How long a copy waits for the node that it was on.
fn delay(cluster: &Cluster, node: &str) -> u64 {
    let announced = cluster.shutdowns.as_ref().is_some_and(|records| records.contains_key(node));
    if announced { ANNOUNCED_MS } else { DELAY_MS }
}

/// Moves copies that may not stay, and evens out the nodes of a zone, one copy at a time.
fn rebalance(world: &mut World, cluster: &mut Cluster) {
    let moving = |index: &Index| {
        index.copies.iter().any(|c| matches!(c.state, ShardState::Relocating | ShardState::Initializing))
    };
    if cluster.indices.values().any(moving) {
        return;
    }
    let names: Vec<String> = cluster.indices.keys().cloned().collect();
    for name in names {
        let index = cluster.indices.remove(&name).unwrap();
        let mut found = None;
        for (at, copy) in index.copies.iter().enumerate() {
            let Some((node, _)) = copy.node.as_ref().filter(|_| copy.state == ShardState::Started) else {
                continue;
            };
            let Some(zone) = cluster.members.get(node).map(|member| member.zone.clone()) else { continue };
            let may_stay = fits_zone(cluster, &index, at, zone.as_deref()) && !is_excluded(cluster, node);
            let here = copies_on(cluster, &index, node);
            let mut targets: Vec<(usize, String, String)> = data_nodes(cluster)
                .filter(|(other, to_zone, _)| fits(cluster, &index, at, other, to_zone.as_deref()))
                .filter(|(_, to_zone, _)| !may_stay || *to_zone == zone)
                .map(|(other, _, id)| (copies_on(cluster, &index, other), other.to_owned(), id.to_owned()))
                .filter(|(load, _, _)| !may_stay || load + 1 < here)
                .collect();
            targets.sort();
            if let Some((_, target, id)) = targets.into_iter().next() {
                found = Some((at, (target, id)));
                break;
            }
        }
        let mut index = index;
        let done = found.is_some();
        if let Some((at, target)) = found {
            let due = world.ms + world.rng.range(2_000, 20_000);
            let copy = &mut index.copies[at];
            (copy.target, copy.state, copy.due) = (Some(target), ShardState::Relocating, due);
            cluster.version += 1;
        }
        cluster.indices.insert(name, index);
        if done {
            return;
        }
    }
}

fn data_nodes(cluster: &Cluster) -> impl Iterator<Item = (&str, Option<String>, &str)> {
    (cluster.members.iter())
        .filter(|(_, member)| member.roles == ["data"])
        .map(|(name, member)| (name.as_str(), member.zone.clone(), member.id.as_str()))
}

fn copies_on(cluster: &Cluster, extra: &Index, node: &str) -> usize {
    let on = |index: &Index| {
        let is_here = |at: &Option<(String, String)>| at.as_ref().is_some_and(|(name, _)| name == node);
        index.copies.iter().filter(|copy| is_here(&copy.node) || is_here(&copy.target)).count()
    };
    cluster.indices.values().map(on).sum::<usize>() + on(extra)
}

/// The same-shard rule and awareness.
fn fits(cluster: &Cluster, index: &Index, at: usize, node: &str, zone: Option<&str>) -> bool {
    let copy = &index.copies[at];
    let same = (index.copies.iter().enumerate())
        .filter(|(other, c)| *other != at && c.shard == copy.shard)
        .flat_map(|(_, c)| c.node.iter().chain(&c.target))
        .any(|(name, _)| name == node);
    let stays = copy.node.as_ref().is_some_and(|(name, _)| name == node);
    let excluded = is_excluded(cluster, node);
    !same
        && !stays
        && !excluded
        && fits_version(cluster, index, at, node)
        && fits_zone(cluster, index, at, zone)
}

/// Whether a node is to have no shards.
pub fn is_excluded(cluster: &Cluster, node: &str) -> bool {
    let excluded = cluster.settings.get(ALLOCATION_EXCLUDE).and_then(|value| value.as_str());
    excluded.is_some_and(|names| names.split(',').any(|name| name == node))
}

/// A replica goes to a node that is as new as its primary's, and a primary to one as new as its own.
fn fits_version(cluster: &Cluster, index: &Index, at: usize, node: &str) -> bool {
    let copy = &index.copies[at];
    let primary = index.copies.iter().find(|c| c.shard == copy.shard && c.primary && c.state.is_started());
    let target = cluster.members.get(node).and_then(version_of);
    primary.is_none_or(|primary| target >= version_at(&cluster.members, primary))
}

fn version_of(member: &ElasticNode) -> Option<EsVersion> {
    member.version.parse().ok()
}

fn version_at(members: &BTreeMap<String, ElasticNode>, copy: &Copy) -> Option<EsVersion> {
    copy.node.as_ref().and_then(|(name, _)| members.get(name)).and_then(version_of)
}

/// Whether a copy has no node because all that could take it are of an older version than its primary's.
pub fn waits_for_a_version(cluster: &Cluster, index: &Index, at: usize) -> bool {
    let mut newest = data_nodes(cluster);
    let takes =
        |(name, zone, _): (&str, Option<String>, &str)| fits(cluster, index, at, name, zone.as_deref());
    let is_older = |(name, ..): (&str, Option<String>, &str)| !fits_version(cluster, index, at, name);
    !newest.any(takes) && data_nodes(cluster).any(is_older)
}

fn fits_zone(cluster: &Cluster, index: &Index, at: usize, zone: Option<&str>) -> bool {
    let text = |name: &str| match cluster.settings.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Array(items)) => {
            items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    };
    let awareness = "cluster.routing.allocation.awareness";
    if !text(&format!("{awareness}.attributes")).split(',').any(|attribute| attribute.trim() == "zone") {
        return true;
    }
    let Some(zone) = zone else { return false };
    let forced = text(&format!("{awareness}.force.zone.values"));
    let mut values: BTreeSet<String> =
        forced.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect();
    values.extend(data_nodes(cluster).filter_map(|(_, zone, _)| zone));
    let copies = index.replicas as usize + 1;
    let most = copies.div_ceil(values.len().max(1));
    let zone_of = |name: &str| cluster.members.get(name).and_then(|member| member.zone.clone());
    let there = (index.copies.iter().enumerate())
        .filter(|(other, c)| *other != at && c.shard == index.copies[at].shard)
        .filter_map(|(_, c)| c.target.as_ref().or(c.node.as_ref()))
        .filter(|(name, _)| zone_of(name).as_deref() == Some(zone))
        .count();
    there < most
}
