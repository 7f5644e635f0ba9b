//! What users and fate do to the world: edits, faults, repairs.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::domain::EsVersion;
use searchcell_core::names::{
    ANNOTATION_CLUSTER_UUID, ANNOTATION_HIGHEST_VERSION, ClusterKey, LABEL_CELL, LABEL_CLUSTER, LABEL_ROLE,
    routing_table,
};
use searchcell_core::security::ANNOTATION_ROTATE;
use searchcell_core::snapshot::{ShardState, label};
use searchcell_crds::{
    Autoscaling, Cluster, ClusterPlacement, DeletionPolicy, IndexPlacement, IndexPlacementSpec, SearchCell,
    SearchCellSpec, ZoneState,
};
use serde_json::json;

use crate::keystore;
use crate::objects::{K, Obj};
use crate::shards::Index;
use crate::store::NAMESPACE;
use crate::tenants;
use crate::world::{Network, World};

/// The one cell of a schedule.
pub const CELL: &str = "guilds";
/// Of a document that somebody indexes.
const BYTES_OF_A_DOCUMENT: i64 = 250;

/// A change of a placement's spec.
#[derive(Clone, Debug)]
pub enum Change {
    Replicas(i32),
    /// `index.refresh_interval`, in seconds, or none.
    Refresh(Option<u64>),
    /// A field of this name.
    Field(String),
}

/// What somebody does to an index behind the operator's back.
#[derive(Clone, Copy, Debug)]
pub enum Meddling {
    Replicas(i32),
    Filter,
    Setting,
}

/// A change of a cell's spec.
#[derive(Clone, Debug)]
pub enum Edit {
    AddCluster(String),
    RemoveCluster(String),
    CloseCluster(String),
    DrainCluster(String),
    OpenCluster(String),
    DataPerZone(i32),
    /// Data nodes in each zone, and masters: more or fewer.
    Nodes(i32, i32),
    /// The state of a zone: true, it is to be emptied.
    Retire(String, bool),
    /// A zone that is being emptied leaves the list.
    DropZone(String),
    IngestFixed(i32),
    /// No ingest nodes any more.
    IngestGone,
    IngestAutoscaled(i32, i32),
    ClusterSetting(i64),
    /// Nodes of all roles have to restart for it.
    NodeSetting(i64),
    Version(String),
    /// Only those of this role.
    RoleSetting(String, i64),
    Suspend(bool),
    Policy(DeletionPolicy),
    /// A spec that breaks rules, until it is set back.
    Invalid(bool),
}

#[derive(Clone, Debug)]
pub enum Act {
    CreateCell(Box<SearchCellSpec>),
    EditCell(Edit),
    DeleteCell,
    CreatePlacement(String, Box<IndexPlacementSpec>),
    DeletePlacement(String),
    EditPlacement(String, Change),
    /// Somebody changes an index by hand.
    Meddle(Meddling),
    /// Claims come back from a backup that knows no annotations.
    StripClaims,
    /// Somebody reads the message: annotates claims older than the cell with the UUID that is on their volumes, and
    /// deletes those of a cluster that never formed.
    AnnotateClaims,
    WipeStatus,
    /// The status of a placement is lost: in a restore, for example.
    WipePlacement(String),
    /// A person deletes a table, or puts something else there.
    DeleteTable(String),
    EditTable(String),
    /// Somebody lets everybody in to a cluster, or takes its NetworkPolicy away.
    OpenUp {
        cluster: String,
        remove: bool,
    },
    /// A claim and its volume are lost, and its pod with them. Only while nothing else is wrong.
    LoseClaim {
        role: String,
    },
    /// A disk is replaced by a blank one; the claim stays. Only while nothing else is wrong.
    WipeVolume {
        role: String,
    },
    Foreign(String),
    /// Pods of a role in a zone never start: their image cannot be pulled, for good.
    NeverStart {
        role: String,
        zone: String,
    },
    /// A person deletes a Secret of the cell, and with it asks for a rotation.
    DeleteSecret(String),
    /// A person writes the Secret of secure settings: what a running node loads, and what it does not.
    WriteSecure(String, Option<String>),
    /// A person puts back what the nodes have.
    PutBack,
    /// A person deletes that Secret, for a while.
    RemoveSecure,
    /// A person asks for another authority.
    RotateAuthority(String),
    /// Somebody takes snapshots all the time from now on, or nobody does.
    BackUp(bool),
    NodeOff,
    ZoneOff(String),
    AllOn,
    Evict,
    KillContainer,
    Cordon,
    Load(i32),
    Documents(i64),
    /// A client writes a document of a tenant.
    Write(String),
    /// Every index has so much from now on.
    Fill {
        documents: i64,
        bytes: i64,
    },
    CutElastic(String),
    Flaky {
        refuse: u64,
        lose: u64,
        slow: u64,
        stale: u64,
    },
    Steady,
    // To the operator's processes; done by the driver.
    CutApi,
    Crash {
        after: u64,
        with_effect: bool,
    },
    SecondLeader,
    EndSecondLeader,
    ClockJump(i64),
}

impl Act {
    /// Users do one thing after the other; fate does not wait for them.
    pub fn is_of_a_user(&self) -> bool {
        matches!(
            self,
            Act::CreateCell(_)
                | Act::EditCell(_)
                | Act::DeleteCell
                | Act::CreatePlacement(..)
                | Act::DeletePlacement(_)
                | Act::EditPlacement(..)
                | Act::StripClaims
                | Act::AnnotateClaims
        )
    }
}

/// Its time has come.
pub fn announce(world: &mut World, act: &Act) {
    if !matches!(act, Act::Documents(_) | Act::Fill { .. } | Act::Write(_)) {
        world.note(format!("--- {act:?}").chars().take(300).collect());
    }
}

/// Does it. False when it cannot be done yet: a name is still on its way out.
pub fn perform(world: &mut World, act: &Act) -> bool {
    let ms = world.ms;
    match act {
        Act::CreateCell(spec) => {
            let cell = SearchCell { metadata: named(CELL), spec: (**spec).clone(), status: None };
            return is_answered(world.store.create(ms, "user", Obj::Cell(cell)));
        }
        Act::CreatePlacement(name, spec) => {
            let placement = IndexPlacement { metadata: named(name), spec: (**spec).clone(), status: None };
            return is_answered(world.store.create(ms, "user", Obj::Placement(placement)));
        }
        Act::EditCell(change) => {
            world.store.update::<SearchCell>("user", CELL, |cell| edit(&mut cell.spec, change));
        }
        Act::DeleteSecret(name) => world.store.delete(ms, K::Secret, name),
        Act::WriteSecure(reloaded, restart_only) => {
            keystore::write(world, reloaded, restart_only.as_deref());
        }
        Act::PutBack => keystore::put_back(world),
        Act::RemoveSecure => keystore::remove(world),
        Act::RotateAuthority(name) => {
            let value = ms.to_string();
            world.store.update::<Secret>("user", name, |secret| {
                let annotations = secret.metadata.annotations.get_or_insert_default();
                annotations.insert(ANNOTATION_ROTATE.to_owned(), value);
            });
        }
        Act::DeleteCell => world.store.delete(ms, K::Cell, CELL),
        Act::DeletePlacement(name) => world.store.delete(ms, K::Placement, name),
        Act::EditPlacement(name, change) => {
            world.store.update::<IndexPlacement>("user", name, |placement| {
                edit_placement(&mut placement.spec, change);
            });
        }
        Act::Meddle(meddling) => meddle(world, *meddling),
        Act::StripClaims => {
            if world.store.get::<SearchCell>(CELL).is_some() {
                return false;
            }
            for name in claims(world, |_| true) {
                world.store.update::<PersistentVolumeClaim>("user", &name, |claim| {
                    claim.metadata.annotations = None
                });
            }
        }
        Act::AnnotateClaims => annotate(world),
        Act::WipeStatus => {
            world.history.wiped = Some(ms);
            world.store.update::<SearchCell>("user", CELL, |cell| cell.status = None);
        }
        Act::DeleteTable(collection) => world.store.delete(ms, K::ConfigMap, &routing_table(collection)),
        Act::EditTable(collection) => {
            world.store.update::<ConfigMap>("somebody", &routing_table(collection), |map| {
                map.binary_data = None;
            });
        }
        Act::WipePlacement(name) => {
            world.store.update::<IndexPlacement>("user", name, |placement| placement.status = None);
        }
        Act::LoseClaim { role } => {
            if let Some(claim) = victim(world, role) {
                let pod = claim.trim_start_matches("data-").to_owned();
                let volume = volume_of(world, &claim);
                world.wipe_volume(&volume);
                world.note(format!("claim {claim} is lost"));
                world.containers.remove(&pod);
                world.store.delete(ms, K::Claim, &claim);
                world.store.delete(ms, K::Pod, &pod);
            }
        }
        Act::WipeVolume { role } => {
            if let Some(claim) = victim(world, role) {
                let volume = volume_of(world, &claim);
                world.note(format!("the disk of {claim} is blank"));
                world.containers.remove(claim.trim_start_matches("data-"));
                world.wipe_volume(&volume);
            }
        }
        Act::OpenUp { cluster, remove } => {
            let name = ClusterKey::new(NAMESPACE, CELL, cluster).network_policy();
            if *remove {
                world.history.opened.insert(name.clone());
                world.store.delete(ms, K::Policy, &name);
            } else {
                world.store.update::<NetworkPolicy>("somebody", &name, |policy| {
                    let rules = policy.spec.get_or_insert_default().ingress.get_or_insert_default();
                    rules.push(NetworkPolicyIngressRule::default());
                });
            }
        }
        Act::Foreign(name) => {
            let service = Service { metadata: named(name), ..Service::default() };
            if let Ok(created) = world.store.create(ms, "somebody", Obj::Service(service)) {
                world.history.foreign.extend(created.meta().uid.clone());
            }
        }
        Act::NeverStart { role, zone } => world.never = Some((role.clone(), zone.clone())),
        Act::NodeOff => {
            let names: Vec<String> = world.nodes.keys().cloned().collect();
            if let Some(name) = world.rng.pick(&names).cloned() {
                power(world, |node, _| node == name, false);
            }
        }
        Act::ZoneOff(zone) => power(world, |_, of| of == zone, false),
        Act::AllOn => {
            power(world, |_, _| true, true);
            world.nodes.values_mut().for_each(|node| node.cordoned = false);
        }
        Act::Evict => {
            if let Some(pod) = random_pod(world) {
                world.store.delete(ms, K::Pod, &pod);
            }
        }
        Act::KillContainer => {
            if let Some(pod) = random_pod(world) {
                world.note(format!("container {pod} is killed"));
                world.containers.remove(&pod);
                if let Some(uid) = world.store.get::<Pod>(&pod).and_then(|pod| pod.metadata.uid.clone()) {
                    world.start_at.remove(&uid);
                }
            }
        }
        Act::Cordon => {
            let names: Vec<String> = world.nodes.keys().cloned().collect();
            if let Some(name) = world.rng.pick(&names).cloned() {
                world.nodes.get_mut(&name).unwrap().cordoned = true;
            }
        }
        Act::Load(nodes) => {
            let names: Vec<String> =
                world.store.objects(K::Deployment).map(|(name, _)| name.clone()).collect();
            for name in names {
                world.load.insert(name, *nodes);
            }
        }
        Act::Documents(more) => {
            for index in indices(world) {
                index.documents += more;
                index.bytes += more * BYTES_OF_A_DOCUMENT;
            }
        }
        Act::Fill { documents, bytes } => {
            for index in indices(world) {
                (index.documents, index.bytes) = (*documents, *bytes);
            }
        }
        Act::Write(tenant) => tenants::write(world, tenant),
        Act::CutElastic(cluster) => {
            world.network.without_elastic.insert(format!("{CELL}/{cluster}"));
        }
        Act::Flaky { refuse, lose, slow, stale } => {
            let network = &mut world.network;
            (network.refuse, network.lose_answer, network.slow, network.stale) =
                (*refuse, *lose, *slow, *stale);
        }
        Act::BackUp(back_up) => crate::backups::set(world, *back_up),
        Act::Steady => world.network = Network::default(),
        Act::ClockJump(seconds) => {
            world.clock_jumped = true;
            world.clock_ahead_s = world.clock_ahead_s.max(u64::try_from(*seconds).unwrap_or_default());
        }
        Act::CutApi | Act::Crash { .. } | Act::SecondLeader | Act::EndSecondLeader => {}
    }
    true
}

fn indices(world: &mut World) -> impl Iterator<Item = &mut Index> {
    world.elastic.clusters.values_mut().flat_map(|cluster| cluster.indices.values_mut())
}

/// A name that is on its way out is waited for; one that is there to stay is an answer, too.
fn is_answered(created: Result<Arc<Obj>, Arc<Obj>>) -> bool {
    created.err().is_none_or(|existing| existing.meta().deletion_timestamp.is_none())
}

pub fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

pub fn edit(spec: &mut SearchCellSpec, change: &Edit) {
    match change {
        Edit::AddCluster(name) => {
            if !spec.clusters.iter().any(|cluster| cluster.name == *name) {
                spec.clusters.push(Cluster { name: name.clone(), ..Cluster::default() });
            }
        }
        Edit::RemoveCluster(name) => {
            if spec.clusters.len() > 1 {
                spec.clusters.retain(|cluster| cluster.name != *name);
            }
        }
        Edit::CloseCluster(name) => let_land(spec, name, ClusterPlacement::Closed),
        Edit::DrainCluster(name) => let_land(spec, name, ClusterPlacement::Drain),
        Edit::OpenCluster(name) => let_land(spec, name, ClusterPlacement::Open),
        Edit::DataPerZone(nodes) => spec.nodes.data.per_zone = spec.nodes.data.per_zone.max(*nodes),
        Edit::Nodes(per_zone, masters) => {
            (spec.nodes.data.per_zone, spec.nodes.master.count) = (*per_zone, *masters);
        }
        Edit::Retire(name, retires) => {
            let state = retires.then_some(ZoneState::Retiring);
            spec.zones.iter_mut().filter(|zone| zone.name == *name).for_each(|zone| zone.state = state);
        }
        Edit::DropZone(name) => spec.zones.retain(|zone| zone.name != *name || !zone.is_retiring()),
        Edit::IngestFixed(replicas) => {
            let ingest = spec.nodes.ingest.get_or_insert_default();
            (ingest.replicas, ingest.autoscaling) = (Some(*replicas), None);
        }
        Edit::IngestGone => spec.nodes.ingest = None,
        Edit::IngestAutoscaled(min_replicas, max_replicas) => {
            if let Some(ingest) = &mut spec.nodes.ingest {
                ingest.replicas = None;
                ingest.autoscaling = Some(Autoscaling {
                    min_replicas: *min_replicas,
                    max_replicas: *max_replicas,
                    target_cpu_utilization_percentage: 70,
                });
            }
        }
        Edit::ClusterSetting(value) => {
            spec.cluster_settings.insert("cluster.max_shards_per_node".to_owned(), (*value).into());
        }
        // There is no way back: a lower one than was asked for before is not asked for.
        Edit::Version(version) => {
            if version.parse::<EsVersion>().ok() > spec.version.parse().ok() {
                spec.version.clone_from(version);
            }
        }
        Edit::NodeSetting(value) => {
            spec.settings.insert("indices.query.bool.max_clause_count".to_owned(), (*value).into());
        }
        Edit::RoleSetting(role, value) => {
            let options = match (role.as_str(), &mut spec.nodes.ingest) {
                ("master", _) => &mut spec.nodes.master.options,
                ("ingest", Some(ingest)) => &mut ingest.options,
                _ => &mut spec.nodes.data.options,
            };
            options.settings.insert("search.max_buckets".to_owned(), (*value).into());
        }
        Edit::Suspend(suspend) => spec.suspend = *suspend,
        Edit::Policy(policy) => spec.deletion_policy = *policy,
        Edit::Invalid(invalid) => {
            spec.settings.remove("cluster.name");
            if *invalid {
                spec.settings.insert("cluster.name".to_owned(), "mine".into());
            }
        }
    }
}

fn edit_placement(spec: &mut IndexPlacementSpec, change: &Change) {
    let options = spec.index.get_or_insert_default();
    match change {
        Change::Replicas(replicas) => spec.replicas = Some(*replicas),
        Change::Refresh(Some(seconds)) => {
            options.settings.insert("refresh_interval".to_owned(), format!("{seconds}s").into());
        }
        Change::Refresh(None) => drop(options.settings.remove("refresh_interval")),
        Change::Field(name) => {
            options.mappings.insert("properties".to_owned(), json!({name: {"type": "keyword"}}));
        }
    }
}

fn meddle(world: &mut World, meddling: Meddling) {
    let ms = world.ms;
    let names: Vec<(String, String)> = (world.elastic.clusters.values())
        .flat_map(|cluster| cluster.indices.keys().map(|name| (cluster.uuid.clone(), name.clone())))
        .collect();
    let Some((uuid, name)) = world.rng.pick(&names).cloned() else { return };
    let Some(cluster) = world.elastic.clusters.get_mut(&uuid) else { return };
    let Some(index) = cluster.indices.get_mut(&name) else { return };
    match meddling {
        Meddling::Replicas(replicas) => index.set_replicas(replicas, ms),
        Meddling::Filter => {
            index.settings.insert("index.routing.allocation.require.disk".to_owned(), json!("fast"));
        }
        Meddling::Setting => drop(index.settings.remove("index.gc_deletes")),
    }
    cluster.version += 1;
    world.note(format!("somebody changes {name}"));
}

fn let_land(spec: &mut SearchCellSpec, name: &str, placement: ClusterPlacement) {
    for cluster in spec.clusters.iter_mut().filter(|cluster| cluster.name == name) {
        cluster.placement = Some(placement);
    }
}

fn power(world: &mut World, which: impl Fn(&str, &str) -> bool, on: bool) {
    let ms = world.ms;
    for (name, node) in &mut world.nodes {
        if which(name, &node.zone) && node.on != on {
            (node.on, node.since) = (on, ms);
        }
    }
}

fn claims(world: &World, which: impl Fn(&PersistentVolumeClaim) -> bool) -> Vec<String> {
    let all = world.store.all::<PersistentVolumeClaim>().filter(|claim| which(claim));
    all.filter_map(|claim| claim.metadata.name.clone()).collect()
}

fn volume_of(world: &World, claim: &str) -> String {
    let claim = world.store.get::<PersistentVolumeClaim>(claim);
    claim.and_then(|claim| claim.spec.as_ref()?.volume_name.clone()).unwrap_or_default()
}

fn annotate(world: &mut World) {
    let Some(born) =
        world.store.get::<SearchCell>(CELL).and_then(|cell| cell.metadata.creation_timestamp.clone())
    else {
        return;
    };
    // In the cell's first second only those of a former life are there without nodes: times are whole seconds.
    let has_nodes = |claim: &PersistentVolumeClaim| {
        let of = label(&claim.metadata, LABEL_CLUSTER);
        world.store.all::<StatefulSet>().any(|set| label(&set.metadata, LABEL_CLUSTER) == of)
    };
    let older = claims(world, |claim| {
        let made = claim.metadata.creation_timestamp.as_ref();
        made.is_some_and(|made| made.0 < born.0 || made.0 == born.0 && !has_nodes(claim))
    });
    let uuid = |claim: &String| world.volumes.get(&volume_of(world, claim))?.cluster_uuid.clone();
    let cluster = |claim: &String| {
        let claim = world.store.get::<PersistentVolumeClaim>(claim)?;
        label(&claim.metadata, LABEL_CLUSTER).map(str::to_owned)
    };
    let formed: Vec<Option<String>> =
        older.iter().filter(|claim| uuid(claim).is_some()).map(cluster).collect();
    let blank: Vec<String> =
        older.iter().filter(|claim| !formed.contains(&cluster(claim))).cloned().collect();
    let uuids: BTreeMap<String, String> =
        older.iter().filter_map(|claim| Some((claim.clone(), uuid(claim)?))).collect();
    for claim in blank {
        world.store.delete(world.ms, K::Claim, &claim);
    }
    for (claim, uuid) in uuids {
        world.store.update::<PersistentVolumeClaim>("user", &claim, |claim| {
            let annotations = claim.metadata.annotations.get_or_insert_default();
            annotations.insert(ANNOTATION_CLUSTER_UUID.to_owned(), uuid);
            annotations.insert(ANNOTATION_HIGHEST_VERSION.to_owned(), "9.5.3".to_owned());
        });
    }
}

fn random_pod(world: &mut World) -> Option<String> {
    let pods: Vec<String> = world.store.objects(K::Pod).map(|(name, _)| name.clone()).collect();
    world.rng.pick(&pods).cloned()
}

/// Names of the nodes that the StatefulSets of a cluster ask for, whether their pods are there or not.
fn nodes_of(world: &World, identity: &str) -> Vec<String> {
    let of = |set: &StatefulSet, key| label(&set.metadata, key).unwrap_or_default().to_owned();
    (world.store.all::<StatefulSet>())
        .filter(|set| format!("{}/{}", of(set, LABEL_CELL), of(set, LABEL_CLUSTER)) == identity)
        .flat_map(|set| {
            let (name, spec) = (set.metadata.name.clone().unwrap_or_default(), set.spec.as_ref());
            let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
            (0..replicas).map(move |ordinal| format!("{name}-{ordinal}"))
        })
        .collect()
}

/// A claim of a role that may be lost without losing data: everything else is whole.
fn victim(world: &mut World, role: &str) -> Option<String> {
    let whole = world.nodes.values().all(|node| node.on)
        && !world.elastic.clusters.is_empty()
        && world.elastic.clusters.values().all(|cluster| {
            let copies = || cluster.indices.values().flat_map(|index| &index.copies);
            cluster.master.is_some()
                && copies().all(|copy| copy.state == ShardState::Started)
                && cluster.indices.values().all(|index| index.replicas > 0)
                && (nodes_of(world, &cluster.identity).iter()).all(|name| cluster.members.contains_key(name))
                && cluster.members.keys().all(|name| world.containers.contains_key(name))
        });
    if !whole {
        return None;
    }
    let bound = claims(world, |claim| {
        label(&claim.metadata, LABEL_ROLE) == Some(role)
            && claim.metadata.deletion_timestamp.is_none()
            && claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some())
    });
    world.rng.pick(&bound).cloned()
}
