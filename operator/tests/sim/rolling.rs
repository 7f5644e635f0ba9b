//! What must be true of restarts: who may be restarted, when, and what is left while one is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::domain::{EsVersion, ValidCell};
use searchcell_core::names::{ClusterKey, LABEL_CELL, LABEL_CLUSTER, LABEL_REVISION};
use searchcell_core::plan;
use searchcell_core::snapshot::{CellObjects, CellSnapshot, Reading, ShardCopy, ShardState, label};
use searchcell_core::step::{Action, Kind as ObjectKind, Plan, Step, Target};
use searchcell_crds::{Operation, OperationKind, SearchCell};

use crate::bugs::Bug;
use crate::elastic::Cluster;
use crate::objects::K;
use crate::shards::{self, Index};
use crate::store::api_time;
use crate::world::World;

/// A node restarts only when it does not run the template of its StatefulSet.
pub const RESTART_HAS_REASON: &str = "restarts_have_a_reason";
/// No node restarts that has the only started copy of a shard.
pub const LAST_COPY: &str = "last_copy_stays";
/// No node restarts while copies of shards of its cluster are made or moved, or are without a node that they had.
pub const SETTLED_FIRST: &str = "shards_settle_between_restarts";
/// Data nodes of a zone restart together only when each of their shards is started twice elsewhere.
pub const ZONE_SPARED: &str = "two_copies_outlive_a_zone";
/// Of a cell, one node at a time is away because of the operator, or data nodes of one zone.
pub const ONE_AT_A_TIME: &str = "one_node_at_a_time";
/// Nothing that was told to Elasticsearch for the time of a restart is left.
pub const NOTHING_LEFT: &str = "no_restart_stays_announced";
/// A data node restarts only when Elasticsearch was told that it does.
pub const ANNOUNCED: &str = "restarts_are_announced";
/// A node restarts only when status says so: an operator that takes over knows what was begun.
pub const RECORDED: &str = "restarts_are_recorded_first";
/// No master restarts whose cluster would be without a majority.
pub const QUORUM: &str = "quorum_survives_restarts";
/// At rest every node runs what the spec asks for, and nothing is said to be under way.
pub const ROLLED: &str = "every_node_runs_what_is_asked_for";

/// How long it may take until the operator can know of something.
const NEWS_MS: u64 = 20_000;

/// What restarts need to remember.
#[derive(Debug, Default)]
pub struct Memory {
    /// Pods that an operator has deleted, by name: their UID, until their node is back.
    away: BTreeMap<String, String>,
    /// Since when a node (by cluster UUID and name) has the only started copy of some shard.
    alone: BTreeMap<(String, String), u64>,
    /// Since when a data node (by cluster UUID and name) has a shard that is not started twice in other zones.
    scarce: BTreeMap<(String, String), u64>,
    /// Since when some copy of a cluster is made or moved, or has lost its node.
    moving: BTreeMap<String, u64>,
    /// Since when a node's process has not been there.
    down: BTreeMap<String, u64>,
    /// When a cluster (by UUID) was last seen to be told of a data node, by name.
    told: BTreeMap<(String, String), u64>,
}

/// An operator deletes a pod.
pub fn on_restart(world: &mut World, pod: &Pod) {
    let meta = &pod.metadata;
    let (Some(name), Some(uid)) = (meta.name.clone(), meta.uid.clone()) else { return };
    if meta.deletion_timestamp.is_some() {
        return;
    }
    let set = name.rsplit_once('-').and_then(|(set, _)| world.store.get::<StatefulSet>(set));
    let newest = set.and_then(|set| {
        let status = set.status.as_ref()?;
        let is_seen = status.observed_generation >= set.metadata.generation;
        status.update_revision.clone().filter(|_| is_seen)
    });
    if newest.is_some() && label(meta, LABEL_REVISION) == newest.as_deref() {
        world.violated(RESTART_HAS_REASON, format!("{name} runs {newest:?} already"));
    }
    let runs = world.containers.get(&name).is_some_and(|container| container.pod_uid == uid);
    if !runs {
        return;
    }
    // Of two operators, one may call off what the other is about to do.
    let is_contested = world.contested_at.is_some_and(|at| at + NEWS_MS >= world.ms);
    if !is_contested && !is_recorded(world, pod, &name) {
        world.violated(RECORDED, format!("{name} restarts, and status does not say so"));
    }
    let others: Vec<String> =
        world.history.rolling.away.keys().filter(|other| **other != name).cloned().collect();
    let is_of_zone = |other: &String| name.contains("-data-") && set_of(other) == set_of(&name);
    let of_zone = !others.is_empty() && others.iter().all(is_of_zone);
    if !others.is_empty() && !of_zone {
        world.violated(ONE_AT_A_TIME, format!("{name} restarts while {others:?} are not back"));
    }
    world.history.rolling.away.insert(name.clone(), uid);
    let Some(of) = world.containers.get(&name).and_then(|container| container.member_of.clone()) else {
        return;
    };
    if name.contains("-data-") && !is_told(world, &of, &name) {
        world.violated(ANNOUNCED, format!("{name} restarts, and its cluster was not told"));
    }
    let is_scarce = |node: &String| {
        let since = world.history.rolling.scarce.get(&(of.clone(), node.clone()));
        since.is_some_and(|since| since + NEWS_MS < world.ms)
    };
    if of_zone && others.iter().chain([&name]).any(is_scarce) {
        world.violated(ZONE_SPARED, format!("{name} restarts together with {others:?}"));
    }
    if let Some(since) = world.history.rolling.alone.get(&(of.clone(), name.clone()))
        && since + NEWS_MS < world.ms
        && data_nodes_of(world, &name) > 1
    {
        world.violated(LAST_COPY, format!("{name} has had the only started copy of a shard for a while"));
    }
    if world.history.rolling.moving.get(&of).is_some_and(|since| since + NEWS_MS < world.ms) {
        world.violated(
            SETTLED_FIRST,
            format!("{name} restarts while copies have been on their way for a while"),
        );
    }
    quorum(world, &of, &name);
}

/// Whether the status of its cell has a node in what is under way.
fn is_recorded(world: &World, pod: &Pod, name: &String) -> bool {
    let (cell, cluster) = (label(&pod.metadata, LABEL_CELL), label(&pod.metadata, LABEL_CLUSTER));
    let status = cell.and_then(|cell| world.store.get::<SearchCell>(cell)?.status.as_ref());
    let of = status.and_then(|status| status.clusters.iter().find(|of| Some(of.name.as_str()) == cluster));
    of.and_then(|of| of.operation.as_ref()).is_some_and(|operation| operation.nodes.contains(name))
}

/// Whether a cluster makes no copies anew of what a node takes with it. Of two operators, one may take back what the other has
/// just told, since it does not know yet of what that one has begun: Elasticsearch cannot tell them apart.
fn is_told(world: &World, uuid: &str, name: &str) -> bool {
    let Some(cluster) = world.elastic.clusters.get(uuid) else { return true };
    let lately = world.history.rolling.told.get(&(uuid.to_owned(), name.to_owned()));
    let is_late = |at: Option<u64>| at.is_some_and(|at| at + NEWS_MS >= world.ms);
    tells(cluster, name) || (is_late(world.contested_at) && is_late(lately.copied()))
}

fn tells(cluster: &Cluster, name: &str) -> bool {
    let Some(member) = cluster.members.get(name) else { return true };
    // Of the only data node no copy can be made elsewhere.
    if !cluster.members.keys().any(|other| other != name && other.contains("-data-")) {
        return true;
    }
    match &cluster.shutdowns {
        Some(records) => records.contains_key(&member.id),
        None => cluster.settings.get(plan::ALLOCATION_ENABLE).is_some_and(|value| value == "primaries"),
    }
}

/// How many data nodes there ought to be in the cluster of a node.
fn data_nodes_of(world: &World, pod: &str) -> i32 {
    let Some(cluster) = pod.split_once("-data-").map(|(cluster, _)| format!("{cluster}-data-")) else {
        return 0;
    };
    let sets = world.store.all::<StatefulSet>();
    let sets = sets.filter(|set| set.metadata.name.as_ref().is_some_and(|name| name.starts_with(&cluster)));
    sets.filter_map(|set| set.spec.as_ref()?.replicas).sum()
}

fn quorum(world: &mut World, uuid: &str, name: &str) {
    let Some(cluster) = world.elastic.clusters.get(uuid) else { return };
    let is_voter =
        |member: &str| cluster.members.get(member).is_some_and(|member| cluster.voting.contains(&member.id));
    if !is_voter(name) || cluster.voting.len() < 3 {
        return;
    }
    let down =
        |member: &str| world.history.rolling.down.get(member).is_some_and(|since| since + NEWS_MS < world.ms);
    let others =
        cluster.members.keys().filter(|member| *member != name && is_voter(member) && !down(member)).count();
    if others * 2 <= cluster.voting.len() {
        let voting = cluster.voting.len();
        world.violated(
            QUORUM,
            format!("{name} restarts while only {others} others of {voting} voters are there"),
        );
    }
}

/// What time alone changes.
pub fn on_tick(world: &mut World) {
    let ms = world.ms;
    let memory = &mut world.history.rolling;
    let (containers, clusters) = (&world.containers, &world.elastic.clusters);
    memory.away.retain(|name, uid| {
        let back = containers.get(name).filter(|container| container.pod_uid != *uid);
        back.is_none_or(|container| container.member_of.is_none())
    });
    let live: BTreeSet<&String> = world.store.objects(K::Pod).map(|(name, _)| name).collect();
    memory
        .away
        .retain(|name, _| live.contains(name) || world.store.get::<StatefulSet>(set_of(name)).is_some());
    let mut alone = BTreeSet::new();
    let mut scarce = BTreeSet::new();
    for (uuid, cluster) in clusters {
        for name in cluster.members.keys() {
            if name.contains("-data-") && tells(cluster, name) {
                memory.told.insert((uuid.clone(), name.clone()), ms);
            }
            if containers.contains_key(name) {
                memory.down.remove(name);
            } else {
                memory.down.entry(name.clone()).or_insert(ms);
            }
        }
        let moves = |index: &Index, at: usize| match index.copies[at].state {
            ShardState::Initializing | ShardState::Relocating => true,
            ShardState::Unassigned => {
                index.copies[at].last.is_some() && !shards::waits_for_a_version(cluster, index, at)
            }
            ShardState::Started => false,
        };
        if cluster.indices.values().any(|index| (0..index.copies.len()).any(|at| moves(index, at))) {
            memory.moving.entry(uuid.clone()).or_insert(ms);
        } else {
            memory.moving.remove(uuid);
        }
        for index in cluster.indices.values() {
            for shard in 0..index.primaries {
                let started: Vec<&str> = (index.copies.iter())
                    .filter(|copy| copy.shard == shard && copy.state.is_started())
                    .filter_map(|copy| copy.node.as_ref().map(|(name, _)| name.as_str()))
                    .collect();
                let copies = index.copies.iter().filter(|copy| copy.shard == shard);
                for (node, _) in copies.filter_map(|copy| copy.node.as_ref()) {
                    let elsewhere = started.iter().filter(|other| set_of(other) != set_of(node)).count();
                    if elsewhere < 2 {
                        scarce.insert((uuid.clone(), node.clone()));
                    }
                }
                if let [only] = started.as_slice() {
                    alone.insert((uuid.clone(), (*only).to_owned()));
                }
            }
        }
    }
    memory.scarce.retain(|key, _| scarce.contains(key));
    for key in scarce {
        memory.scarce.entry(key).or_insert(ms);
    }
    memory.alone.retain(|key, _| alone.contains(key));
    for key in alone {
        memory.alone.entry(key).or_insert(ms);
    }
}

fn set_of(pod: &str) -> &str {
    pod.rsplit_once('-').map_or(pod, |(set, _)| set)
}

/// What keeps a cluster from running what the spec asks for, at rest.
pub fn unsettled(
    world: &World,
    cell: &SearchCell,
    valid: &ValidCell,
    key: &ClusterKey,
) -> Option<(&'static str, String)> {
    let of = |meta: &ObjectMeta| {
        label(meta, LABEL_CELL) == Some(&key.cell) && label(meta, LABEL_CLUSTER) == Some(&key.cluster)
    };
    let objects = CellObjects {
        stateful_sets: world.store.all::<StatefulSet>().filter(|set| of(&set.metadata)).cloned().collect(),
        deployments: world.store.all::<Deployment>().filter(|one| of(&one.metadata)).cloned().collect(),
        pods: world.store.all::<Pod>().filter(|pod| of(&pod.metadata)).cloned().collect(),
        ..CellObjects::default()
    };
    if valid.keystore.is_none() && plan::rolls(valid, key, &objects) {
        let behind = plan::outdated(valid, key, &objects);
        return Some((ROLLED, format!("{}: {behind:?} do not run what is asked for", key.name())));
    }
    let operation = (cell.status.iter().flat_map(|status| &status.clusters))
        .find(|of| of.name == key.cluster)
        .and_then(|of| of.operation.as_ref());
    operation.map(|operation| (ROLLED, format!("{}: {operation:?} is not over", key.name())))
}

/// A deliberate bug: every copy that there ought to be is started, wherever it is.
pub fn all_started(snapshot: &mut CellSnapshot) {
    for reading in snapshot.elastic.values_mut() {
        let Reading::Known(facts) = reading else { continue };
        let nodes: Vec<String> = facts.nodes.keys().cloned().collect();
        for index in Arc::make_mut(&mut facts.indices).values_mut() {
            for (number, copy) in index.copies.iter_mut().enumerate() {
                copy.state = ShardState::Started;
                copy.node = copy.node.take().or_else(|| nodes.get(number % nodes.len().max(1)).cloned());
            }
        }
    }
}

/// A deliberate bug: of each shard there seem to be more started copies, on a node in a zone of its own.
pub fn third_copies(snapshot: &mut CellSnapshot) {
    const NOWHERE: &str = "nowhere";
    for reading in snapshot.elastic.values_mut() {
        let Reading::Known(facts) = reading else { continue };
        facts.nodes.entry(NOWHERE.to_owned()).or_default();
        for index in Arc::make_mut(&mut facts.indices).values_mut() {
            let shards: BTreeSet<i32> = index.copies.iter().map(|copy| copy.shard).collect();
            let copy = |shard| ShardCopy {
                shard,
                primary: false,
                state: ShardState::Started,
                node: Some(NOWHERE.to_owned()),
                new_since: None,
            };
            index.copies.extend(shards.into_iter().flat_map(|shard| [copy(shard), copy(shard)]));
        }
    }
}

/// A deliberate bug: all nodes are taken for the newest version.
pub fn one_version(snapshot: &mut CellSnapshot) {
    for reading in snapshot.elastic.values_mut() {
        let Reading::Known(facts) = reading else { continue };
        let newest = facts.nodes.values().filter_map(|node| node.version.parse::<EsVersion>().ok()).max();
        for node in facts.nodes.values_mut() {
            node.version = newest.map(|version| version.to_string()).unwrap_or_default();
        }
    }
}

/// A deliberate bug: whoever has a pod is ready, and a member.
pub fn all_ready(snapshot: &mut CellSnapshot) {
    for pod in &mut snapshot.objects.pods {
        pod.metadata.deletion_timestamp = None;
        let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        pod.status.get_or_insert_default().conditions = Some(vec![ready]);
        let (Some(cluster), Some(name)) = (label(&pod.metadata, LABEL_CLUSTER), &pod.metadata.name) else {
            continue;
        };
        if let Some(Reading::Known(facts)) = snapshot.elastic.get_mut(cluster) {
            facts.nodes.entry(name.clone()).or_default();
        }
    }
}

/// A deliberate bug: what is about to begin is taken for recorded.
pub fn as_if_recorded(snapshot: &CellSnapshot, plan: &Plan) -> Option<CellSnapshot> {
    let mut snapshot = snapshot.clone();
    let status = snapshot.cell.status.as_mut()?;
    let mut begins = false;
    for of in &mut status.clusters {
        if let (None, Some(Some(operation))) = (&of.operation, plan.operations.get(&of.name)) {
            of.operation = Some(operation.clone());
            begins = true;
        }
    }
    begins.then_some(snapshot)
}

/// The same for whoever asks the API server: every node is about to restart.
pub fn with_all_recorded(world: &World, mut cell: SearchCell) -> SearchCell {
    let nodes: Vec<String> = world.store.objects(K::Pod).map(|(name, _)| name.clone()).collect();
    for of in cell.status.iter_mut().flat_map(|status| &mut status.clusters) {
        let at = api_time(world.ms);
        of.operation = Some(Operation {
            kind: OperationKind::RestartNode,
            zone: None,
            nodes: nodes.clone(),
            uids: Vec::new(),
            message: None,
            started_at: at,
        });
    }
    cell
}

/// Deliberate bugs: more restarts than the plan has.
pub fn restart_more(cell: &ValidCell, snapshot: &CellSnapshot, plan: &mut Plan, bug: Bug) {
    for cluster in &cell.clusters {
        let objects = snapshot.objects.of_cluster(&cluster.name);
        let behind = plan::outdated(cell, &cell.key(&cluster.name), &objects);
        let restarts = plan.steps.iter().any(|step| {
            matches!(step.action, Action::RestartNode { .. }) && step.cluster.as_ref() == Some(&cluster.name)
        });
        let is_chosen = |name: &String| match bug {
            Bug::RestartsTogether => restarts && behind.contains(name),
            _ => restarts && !behind.contains(name) && name.contains("-data-"),
        };
        for pod in &objects.pods {
            let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { continue };
            if is_chosen(name) {
                let target = Target {
                    kind: ObjectKind::Pod,
                    name: name.clone(),
                    uid: uid.clone(),
                    resource_version: None,
                };
                plan.steps.push(Step {
                    cluster: Some(cluster.name.clone()),
                    action: Action::RestartNode { target },
                    why: "a deliberate bug".to_owned(),
                });
            }
        }
    }
}
