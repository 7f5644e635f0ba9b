//! What must hold while nodes are taken away: they are empty first, masters have lost their vote, as many stay as the spec asks
//! for, and in the end nothing is left of what Elasticsearch was told.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use searchcell_core::names::{LABEL_CELL, LABEL_CLUSTER};
use searchcell_core::plan::ALLOCATION_EXCLUDE;
use searchcell_core::snapshot::{Reading, label, role_and_zone};
use searchcell_core::step::{Action, Plan};

use crate::elastic::Cluster;
use crate::shards::Copy;
use crate::world::World;

/// A data node goes when it has had no copy of a shard for a while, and never with the only one.
pub const EMPTY_FIRST: &str = "nodes_are_empty_before_they_go";
/// A master goes when the cluster does not count on it.
pub const VOTELESS_FIRST: &str = "masters_lose_their_vote_before_they_go";
/// As many nodes stay as the spec asks for.
pub const ENOUGH_STAY: &str = "as_many_nodes_stay_as_are_asked_for";
/// At rest nothing keeps shards from nodes, or masters from voting.
pub const NOTHING_LEFT: &str = "no_drain_is_left_behind";
/// A volume is deleted when every shard that was on it is elsewhere.
pub const VOLUME_NOT_NEEDED: &str = "volumes_go_when_nothing_needs_them";

/// How long it may take until the operator can know of something.
const NEWS_MS: u64 = 20_000;

fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// An operator has given a StatefulSet fewer nodes.
pub fn on_shrink(world: &mut World, before: &StatefulSet, after: &StatefulSet) {
    let meta = &after.metadata;
    let of = |key| label(meta, key).unwrap_or_default().to_owned();
    let (cell, cluster, name) = (of(LABEL_CELL), of(LABEL_CLUSTER), meta.name.clone().unwrap_or_default());
    let (role, zone) = role_and_zone(meta);
    let zone = zone.unwrap_or_default().to_owned();
    let is_master = role == Some("master");
    let stay = if is_master { masters(world, &cell, &cluster) } else { replicas(after) };
    let asked = world.history.recent(world.ms, &cell).map(|cell| {
        let is_former = !cell.spec.active_zones().any(|of| of.name == zone);
        match (is_master, is_former) {
            (true, _) => cell.spec.nodes.master.count,
            (false, true) => 0,
            (false, false) => cell.spec.nodes.data.per_zone,
        }
    });
    if asked.min().is_some_and(|least| stay < least) {
        world.violated(ENOUGH_STAY, format!("{name}: {stay} stay"));
    }
    let nodes: Vec<String> = (replicas(after)..replicas(before)).map(|n| format!("{name}-{n}")).collect();
    let identity = format!("{cell}/{cluster}");
    let mut faults = Vec::new();
    for live in world.elastic.of_identity(&identity).filter(|live| live.master.is_some()) {
        for node in &nodes {
            let votes = live.members.get(node).is_some_and(|member| live.voting.contains(&member.id));
            if is_master && votes {
                faults.push((VOTELESS_FIRST, format!("{node} votes")));
            }
            faults.extend(lost_with(live, node, world.ms).map(|what| (EMPTY_FIRST, what)));
        }
    }
    for (invariant, what) in faults {
        world.violated(invariant, what);
    }
}

/// Whether a StatefulSet has no nodes, in a zone that is to have none.
pub fn is_of_former_zone(world: &World, set: &StatefulSet) -> bool {
    let (_, zone) = role_and_zone(&set.metadata);
    let cell = label(&set.metadata, LABEL_CELL).unwrap_or_default();
    let mut recent = world.history.recent(world.ms, cell);
    replicas(set) == 0
        && recent.any(|cell| !cell.spec.active_zones().any(|of| Some(of.name.as_str()) == zone))
}

fn masters(world: &World, cell: &str, cluster: &str) -> i32 {
    let of_cluster = |set: &&StatefulSet| {
        label(&set.metadata, LABEL_CELL) == Some(cell)
            && label(&set.metadata, LABEL_CLUSTER) == Some(cluster)
            && role_and_zone(&set.metadata).0 == Some("master")
    };
    world.store.all::<StatefulSet>().filter(of_cluster).map(replicas).sum()
}

/// What a node that goes has: copies for longer than anybody takes to know of it, or the only copy.
fn lost_with(live: &Cluster, node: &str, ms: u64) -> Option<String> {
    let is_here =
        |copy: &Copy| copy.node.as_ref().is_some_and(|(name, _)| name == node) && copy.state.is_started();
    for (name, index) in &live.indices {
        for copy in index.copies.iter().filter(|copy| is_here(copy)) {
            let others =
                index.copies.iter().filter(|other| other.shard == copy.shard && other.state.is_started());
            if others.count() < 2 || copy.due + NEWS_MS < ms {
                return Some(format!("{node} has shard {} of {name}", copy.shard));
            }
        }
    }
    None
}

/// An operator deletes a claim of a cell that stays; true where that may be.
pub fn may_delete(world: &mut World, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.metadata.name.clone().unwrap_or_default();
    let node = name.strip_prefix("data-").unwrap_or_default().to_owned();
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    let id = volume.and_then(|volume| world.volumes.get(&volume).map(|volume| volume.node_id.clone()));
    let needs =
        world.elastic.clusters.values().flat_map(|cluster| &cluster.indices).find_map(|(name, index)| {
            let id = id.as_ref()?;
            let only = index.in_sync.values().any(|in_sync| in_sync.len() == 1 && in_sync.contains(id));
            only.then(|| name.clone())
        });
    if let Some(index) = needs {
        world.violated(VOLUME_NOT_NEEDED, format!("{name} has the only copy of a shard of {index}"));
    }
    let Some((set, ordinal)) = node.rsplit_once('-') else { return false };
    let asks = world.store.get::<StatefulSet>(set).map_or(0, replicas);
    ordinal.parse::<i32>().is_ok_and(|ordinal| ordinal >= asks)
}

/// What is left of drains, at rest.
pub fn unsettled(live: &Cluster) -> Option<(&'static str, String)> {
    if let Some(value) = live.settings.get(ALLOCATION_EXCLUDE) {
        return Some((NOTHING_LEFT, format!("{}: {ALLOCATION_EXCLUDE} is {value}", live.identity)));
    }
    (!live.no_votes.is_empty())
        .then(|| (NOTHING_LEFT, format!("{}: {:?} do not vote", live.identity, live.no_votes)))
}

/// A deliberate bug: nodes that are to be emptied seem to be.
pub fn all_empty(snapshot: &mut searchcell_core::snapshot::CellSnapshot) {
    for (cluster, reading) in &mut snapshot.elastic {
        let Reading::Known(facts) = reading else { continue };
        let status = snapshot.cell.status.iter().flat_map(|status| &status.clusters);
        let operation = status.filter(|of| of.name == *cluster).find_map(|of| of.operation.as_ref());
        let Some(operation) = operation else { continue };
        let goes = |node: &Option<String>| node.as_ref().is_some_and(|node| operation.nodes.contains(node));
        for index in std::sync::Arc::make_mut(&mut facts.indices).values_mut() {
            for copy in index.copies.iter_mut().filter(|copy| goes(&copy.node)) {
                copy.node = Some("elsewhere".to_owned());
                copy.state = searchcell_core::snapshot::ShardState::Started;
            }
        }
    }
}

/// A deliberate bug: masters seem to have no vote.
pub fn nobody_votes(snapshot: &mut searchcell_core::snapshot::CellSnapshot) {
    for reading in snapshot.elastic.values_mut() {
        let Reading::Known(facts) = reading else { continue };
        facts.voting.clear();
        facts.no_votes = facts.nodes.keys().cloned().collect();
    }
}

/// A deliberate bug: what was set for a drain stays.
pub fn forget(plan: &mut Plan) {
    for step in &mut plan.steps {
        if let Action::PutSettings(settings) = &mut step.action {
            settings.retain(|name, value| name != ALLOCATION_EXCLUDE || value.is_some());
        }
    }
    plan.steps.retain(|step| !matches!(&step.action, Action::PutSettings(settings) if settings.is_empty()));
}
