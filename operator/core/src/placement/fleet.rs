//! From a snapshot to what the solver is given: clusters with load and limits, indices with sizes, and where they are
//! or were decided to be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use searchcell_crds::{ClusterPlacement, IndexPlacementSpec, NodeOptions, SearchCell, Settings};
use serde_json::Value;

use super::PlacementSnapshot;
use super::record::recorded_in;
use super::solver::{Cluster, ClusterId, Fleet, Index, Limits, Load, Readiness, ZoneRoom};
use crate::domain::ValidPlacement;
use crate::flat::flatten;
use crate::names::{OWNED_SETTINGS, ZONE_ATTRIBUTE, dedicated_index};
use crate::plan::setting_text;
use crate::snapshot::{ElasticFacts, ElasticNode, IndexFacts, Reading};
use crate::validate::quantity::Amount;
use crate::watermark::Watermark;

/// Indices that the masters of a cluster carry for each GiB of their heap, by Elasticsearch's advice.
const INDICES_PER_GIB_OF_HEAP: i64 = 3_000;
/// Elasticsearch's own limit of shards for each data node, where no setting says otherwise.
const DEFAULT_SHARDS_PER_NODE: i64 = 1_000;
const MAX_SHARDS_PER_NODE: &str = "cluster.max_shards_per_node";

/// The cell of a placement as the solver sees it. `copies` are those of each shard of the placement, the primary
/// included.
pub(super) fn fleet(
    placement: &ValidPlacement,
    snapshot: &PlacementSnapshot,
    cell: &SearchCell,
    copies: i32,
) -> Fleet {
    let mut fleet = Fleet::default();
    let expected = expected_documents(snapshot);
    let id = |cluster: &str| ClusterId::new(&placement.cell, cluster);
    let index = |of: &str, shards: i32, copies: i32, name: &str| Index {
        cell: placement.cell.clone(),
        placement: of.to_owned(),
        shards: i64::from(shards),
        copies: i64::from(copies),
        shard_documents: expected.get(name).copied().unwrap_or(0),
        shard_bytes: 0,
    };
    // What is there, of this placement and of all others.
    for found in snapshot.indices().filter(|found| cell.spec.clusters.iter().any(|c| c.name == found.cluster))
    {
        let Some(mark) = found.mark() else { continue };
        let facts = found.facts;
        let mut there = index(&mark.placement, facts.primaries, facts.replicas.saturating_add(1), found.name);
        if let Some(counts) = found.elastic.counts.as_ref().and_then(|counts| counts.get(found.name)) {
            there.shard_documents = there.shard_documents.max(counts.largest_shard_documents);
            there.shard_bytes = counts.largest_shard_bytes;
        }
        fleet.indices.insert(found.name.to_owned(), there);
        fleet.previous.insert(found.name.to_owned(), id(found.cluster));
    }
    // What is about to be there.
    let prefix = format!("{}-", placement.cell);
    for other in snapshot.siblings.iter().filter(|other| other.spec.cell == placement.cell) {
        let Some(status) = &other.status else { continue };
        let (of, shards) = (other.metadata.name.as_deref().unwrap_or_default(), shards_of(&other.spec));
        for (name, at) in recorded_in(status).into_iter().filter(|(_, at)| !at.seen) {
            let Some(cluster) = at.cluster.strip_prefix(&prefix) else { continue };
            let copies = other.spec.replicas.unwrap_or(copies - 1).saturating_add(1);
            let shards = shards.get(name).copied().unwrap_or(1);
            fleet.indices.entry(name.to_owned()).or_insert_with(|| index(of, shards, copies, name));
            fleet.previous.entry(name.to_owned()).or_insert_with(|| id(cluster));
        }
    }
    let record = snapshot.placement.status.as_ref().map(recorded_in).unwrap_or_default();
    for wanted in &placement.indices {
        let name = wanted.name.as_str();
        let new = || index(&placement.name, wanted.shards, copies, name);
        fleet.indices.entry(name.to_owned()).or_insert_with(new);
        if let Some(cluster) = record.get(name).and_then(|at| at.cluster.strip_prefix(&prefix)) {
            fleet.previous.entry(name.to_owned()).or_insert_with(|| id(cluster));
        }
    }
    for cluster in &cell.spec.clusters {
        let reading = snapshot.elastic.get(&cluster.name);
        let there = Cluster {
            placement: cluster.placement(),
            readiness: readiness(cell, reading, copies),
            others: others(reading.and_then(Reading::known), &fleet),
            limits: limits(cell, reading.and_then(Reading::known), &fleet, &id(&cluster.name)),
        };
        fleet.clusters.insert(id(&cluster.name), there);
    }
    fleet
}

/// Clusters that are Open, answer, hold nothing yet and cannot hold anything yet, with what they lack: they are being
/// set up, and what is placed meanwhile would all land on the others.
pub(super) fn being_set_up(fleet: &Fleet) -> Option<(&str, &str)> {
    let is_empty = |id: &ClusterId| !fleet.previous.values().any(|at| at == id);
    fleet.clusters.iter().find_map(|(id, cluster)| match &cluster.readiness {
        Readiness::Unprepared(why) if cluster.placement == ClusterPlacement::Open && is_empty(id) => {
            Some((id.cluster.as_str(), why.as_str()))
        }
        _ => None,
    })
}

/// Documents that are expected of each shard of a dedicated index, by name, of this placement and its siblings.
fn expected_documents(snapshot: &PlacementSnapshot) -> BTreeMap<String, i64> {
    let specs =
        std::iter::once(&snapshot.placement).chain(&snapshot.siblings).map(|placement| &placement.spec);
    let mut expected = BTreeMap::new();
    for spec in specs {
        for tenant in spec.dedicated.iter().flat_map(|dedicated| &dedicated.tenants) {
            let per_shard = spec.dedicated.as_ref().map_or(1, |dedicated| dedicated.max_documents_per_shard);
            let shards = tenant.primary_shards(per_shard).max(1);
            let name = dedicated_index(&spec.collection, &tenant.id, 1);
            expected.insert(name, tenant.expected_documents / shards + 1);
        }
    }
    expected
}

/// Primary shards of the dedicated indices of a spec, by name; all others have one.
fn shards_of(spec: &IndexPlacementSpec) -> BTreeMap<String, i32> {
    let of = |dedicated: &searchcell_crds::Dedicated| {
        let per_shard = dedicated.max_documents_per_shard;
        let shards = |tenant: &searchcell_crds::DedicatedTenant| {
            let shards = i32::try_from(tenant.primary_shards(per_shard)).unwrap_or(i32::MAX);
            (dedicated_index(&spec.collection, &tenant.id, 1), shards)
        };
        dedicated.tenants.iter().map(shards).collect()
    };
    spec.dedicated.as_ref().map(of).unwrap_or_default()
}

fn readiness(cell: &SearchCell, reading: Option<&Reading<ElasticFacts>>, copies: i32) -> Readiness {
    match reading {
        None => Readiness::Unreachable("it has not been read yet".to_owned()),
        Some(Reading::Unavailable(why)) => Readiness::Unreachable(why.clone()),
        Some(Reading::Known(facts)) => {
            let zones: Vec<&str> = cell.spec.active_zones().map(|zone| zone.name.as_str()).collect();
            why_not_prepared(facts, &zones, copies).map_or(Readiness::Ready, Readiness::Unprepared)
        }
    }
}

/// Copies that are made before awareness is set, or before a zone has nodes, land in the wrong place.
fn why_not_prepared(facts: &ElasticFacts, zones: &[&str], copies: i32) -> Option<String> {
    // A new index would be of the newer version, and its copies could go to half of the nodes.
    let versions: BTreeSet<&str> = facts.nodes.values().map(|node| node.version.as_str()).collect();
    if versions.len() > 1 {
        return Some("its nodes are changing their version: new indices wait until all have it".to_owned());
    }
    if facts.master.is_none() {
        return Some("it has no elected master".to_owned());
    }
    let attributes = facts.settings.get("cluster.routing.allocation.awareness.attributes").map(setting_text);
    if attributes.as_deref() != Some(ZONE_ATTRIBUTE) || !facts.settings.contains_key(OWNED_SETTINGS) {
        return Some("its awareness settings are not in place yet".to_owned());
    }
    let count = i32::try_from(zones.len().max(1)).unwrap_or(i32::MAX);
    let needed = usize::try_from(copies.saturating_add(count - 1) / count).unwrap_or(usize::MAX);
    let data_nodes = |zone: &str| {
        let is_there = |node: &&ElasticNode| node.zone.as_deref() == Some(zone) && node.is_data();
        facts.nodes.values().filter(is_there).count()
    };
    // Fewer copies than zones do not need a node in every zone, but they need enough zones.
    let ready = zones.iter().filter(|zone| data_nodes(zone) >= needed).count();
    let wanted = zones.len().min(usize::try_from(copies).unwrap_or(usize::MAX));
    if ready < wanted {
        return Some("it has too few data nodes in its zones for the copies that are asked for".to_owned());
    }
    // A zone none of whose disks is known looks full, and is not.
    let is_measured = |name: &String| facts.disks.as_ref().is_some_and(|disks| disks.contains_key(name));
    let is_unmeasured = |zone: &&&str| {
        let of_zone =
            || facts.nodes.iter().filter(|(_, node)| node.zone.as_deref() == Some(**zone) && node.is_data());
        of_zone().next().is_some() && !of_zone().any(|(name, _)| is_measured(name))
    };
    let unmeasured = facts.disks.is_none() || zones.iter().any(|zone| is_unmeasured(&zone));
    unmeasured.then(|| "its disks have not been measured yet".to_owned())
}

/// What lies on a cluster besides managed indices.
fn others(facts: Option<&ElasticFacts>, fleet: &Fleet) -> Load {
    let foreign = facts.into_iter().flat_map(|facts| facts.indices.iter());
    let foreign = foreign.filter(|(name, _)| !fleet.indices.contains_key(*name));
    foreign.fold(Load::default(), |sum, (_, index)| {
        let copies = copies_of(index);
        Load {
            indices: sum.indices + 1,
            shard_copies: sum.shard_copies.saturating_add(copies),
            units: sum.units.saturating_add(copies),
        }
    })
}

fn copies_of(index: &IndexFacts) -> i64 {
    i64::from(index.primaries) * (i64::from(index.replicas) + 1)
}

fn limits(cell: &SearchCell, facts: Option<&ElasticFacts>, fleet: &Fleet, id: &ClusterId) -> Limits {
    let Some(facts) = facts else { return Limits::default() };
    let settings = Effective::of(cell, facts);
    let data: Vec<(&String, &ElasticNode)> = facts.nodes.iter().filter(|(_, node)| node.is_data()).collect();
    let zones: Vec<&str> = cell.spec.active_zones().map(|zone| zone.name.as_str()).collect();
    let of_zone =
        |zone: &str| data.iter().filter(move |(_, node)| node.zone.as_deref() == Some(zone)).count();
    let largest = zones.iter().map(|zone| of_zone(zone)).max().unwrap_or(0);
    let left = if zones.len() > 1 { data.len().saturating_sub(largest) } else { data.len() };
    let per_node = settings.text(MAX_SHARDS_PER_NODE).and_then(|text| text.parse().ok());
    let per_node: i64 = per_node.unwrap_or(DEFAULT_SHARDS_PER_NODE);
    Limits {
        indices: INDICES_PER_GIB_OF_HEAP.saturating_mul(master_heap_gib(&cell.spec.nodes.master.options)),
        shard_copies: per_node.saturating_mul(i64::try_from(left).unwrap_or(i64::MAX)),
        zones: zones.iter().map(|zone| room(zone, facts, &settings, fleet, id, zones.len())).collect(),
    }
}

/// GiB of heap of a master, at least one: as stated, or half of the memory limit, as Elasticsearch sizes it.
fn master_heap_gib(options: &NodeOptions) -> i64 {
    let gib = |amount: Amount| amount.units().map(|bytes| bytes >> 30);
    let stated = options.heap.as_ref().and_then(Amount::of).and_then(gib);
    let memory = options.resources.as_ref().and_then(|resources| resources.limits.get("memory"));
    let half = memory.and_then(Amount::of).and_then(gib).map(|gib| (gib / 2).min(31));
    stated.or(half).unwrap_or(1).max(1)
}

/// Disks of a zone. What lies there besides the indices of the fleet is what is used but for their share.
fn room(
    zone: &str,
    facts: &ElasticFacts,
    settings: &Effective<'_>,
    fleet: &Fleet,
    id: &ClusterId,
    zones: usize,
) -> ZoneRoom {
    let nodes = facts.nodes.iter().filter(|(_, node)| node.is_data() && node.zone.as_deref() == Some(zone));
    let disks = nodes.filter_map(|(name, _)| facts.disks.as_ref()?.get(name));
    let watermark = Watermark::low(|name| settings.text(name));
    let (mut allowed, mut used) = (0_i64, 0_i64);
    for disk in disks {
        allowed = allowed.saturating_add(watermark.allowed(disk.total));
        used = used.saturating_add(disk.total.saturating_sub(disk.available));
    }
    let here =
        fleet.previous.iter().filter(|(_, at)| *at == id).filter_map(|(name, _)| fleet.indices.get(name));
    let total = |index: &Index| i128::from(index.shard_bytes) * i128::from(index.shard_copies());
    let ours: i128 = here.map(total).sum();
    let ours = i64::try_from(ours / i128::try_from(zones.max(1)).unwrap_or(1)).unwrap_or(i64::MAX);
    ZoneRoom { allowed, others: used.saturating_sub(ours).max(0) }
}

/// Settings as a data node of the cluster sees them: those of the cluster before those of its file.
struct Effective<'a> {
    persistent: &'a BTreeMap<String, Value>,
    file: BTreeMap<String, Value>,
}

impl<'a> Effective<'a> {
    fn of(cell: &SearchCell, facts: &'a ElasticFacts) -> Self {
        let flat = |settings: &Settings| flatten(settings).0;
        let mut file = flat(&cell.spec.settings);
        file.extend(flat(&cell.spec.nodes.data.options.settings));
        Self { persistent: &facts.settings, file }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.persistent.get(name).or_else(|| self.file.get(name)).map(setting_text)
    }
}
