//! The simulated Elasticsearch: how clusters form from pods, who is master, who is a member. Allocation of shards
//! is in `shards`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use searchcell_core::snapshot::{ElasticNode, Shutdown};
use serde_json::Value;

use crate::invariants;
use crate::shards::{self, Index};
use crate::world::{Container, World};

/// One Elasticsearch cluster: whoever has a quorum of its master-eligible nodes' disks has the cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub uuid: String,
    /// `<cell>/<cluster>` of the pods that formed it.
    pub identity: String,
    /// Persistent node ids of the voting configuration; names of bootstrap nodes that were not there yet.
    pub voting: BTreeSet<String>,
    /// Names of masters that are kept from voting.
    pub no_votes: BTreeSet<String>,
    pub master: Option<String>,
    pub election_due: u64,
    pub members: BTreeMap<String, ElasticNode>,
    pub settings: BTreeMap<String, Value>,
    pub indices: BTreeMap<String, Index>,
    /// Records of the node shutdown API, by persistent id; absent where the build has none.
    pub shutdowns: Option<BTreeMap<String, Shutdown>>,
    pub version: i64,
    /// When the newest snapshot of all its indices was complete.
    pub saved: Option<u64>,
    /// Since when it has indices, and no snapshot.
    pub unsaved_since: Option<u64>,
}

/// All clusters that ever formed.
#[derive(Debug, Default)]
pub struct Elastic {
    pub clusters: BTreeMap<String, Cluster>,
    formation_due: BTreeMap<String, u64>,
}

impl Elastic {
    pub fn has_master(&self, uuid: Option<&str>) -> bool {
        uuid.and_then(|uuid| self.clusters.get(uuid)).is_some_and(|cluster| cluster.master.is_some())
    }

    /// UUIDs of the clusters that formed under an identity.
    pub fn of_identity<'a>(&'a self, identity: &'a str) -> impl Iterator<Item = &'a Cluster> {
        self.clusters.values().filter(move |cluster| cluster.identity == identity)
    }
}

pub fn tick(world: &mut World) {
    let uuids: Vec<String> = world.elastic.clusters.keys().cloned().collect();
    for uuid in uuids {
        elect(world, &uuid);
        if world.elastic.has_master(Some(&uuid)) {
            leave(world, &uuid);
            join(world, &uuid);
            reconfigure(world, &uuid);
            shards::tick(world, &uuid);
        }
    }
    form(world);
}

fn disk_id(world: &World, container: &Container) -> String {
    world.volumes.get(&container.disk).map(|volume| volume.node_id.clone()).unwrap_or_default()
}

fn disk_uuid(world: &World, container: &Container) -> Option<String> {
    world.volumes.get(&container.disk).and_then(|volume| volume.cluster_uuid.clone())
}

/// Nodes find each other through the headless Service, and not before it exists.
fn can_discover(world: &World, identity: &str) -> bool {
    let Some((cell, cluster)) = identity.split_once('/') else { return false };
    world.store.get::<Service>(&format!("{cell}-{cluster}-transport")).is_some()
}

/// A master needs a majority of the voting configuration.
fn elect(world: &mut World, uuid: &str) {
    let voters: BTreeMap<String, String> = (world.containers.values())
        .filter(|container| {
            container.role == "master" && disk_uuid(world, container).as_deref() == Some(uuid)
        })
        .map(|container| (disk_id(world, container), container.name.clone()))
        .collect();
    let discover = can_discover(world, &world.elastic.clusters[uuid].identity);
    let delay = world.rng.range(500, 6_000);
    let (ms, calm) = (world.ms, world.calm);
    let cluster = world.elastic.clusters.get_mut(uuid).unwrap();
    let alive = voters.keys().filter(|id| cluster.voting.contains(*id)).count();
    let quorum = alive * 2 > cluster.voting.len() && (discover || cluster.voting.len() == 1);
    let master_lives =
        cluster.master.as_ref().is_some_and(|master| voters.values().any(|name| name == master));
    if quorum && master_lives {
        return;
    }
    if !quorum {
        if cluster.master.take().is_some() {
            let text = format!("elasticsearch {uuid}: no master, {alive} of {} voters", cluster.voting.len());
            world.note(text);
        }
        return;
    }
    if cluster.master.take().is_some() || cluster.election_due == 0 {
        cluster.election_due = ms + delay;
    }
    if ms >= cluster.election_due || calm {
        cluster.election_due = 0;
        let may_lead = |(id, name): &(&String, &String)| {
            cluster.voting.contains(*id) && !cluster.no_votes.contains(*name)
        };
        let master = voters.iter().find(may_lead).map(|(_, name)| name.clone());
        cluster.version += 1;
        let text = format!("elasticsearch {uuid}: {master:?} elected");
        cluster.master = master;
        world.note(text);
    }
}

/// Members whose process is gone leave.
fn leave(world: &mut World, uuid: &str) {
    let cluster = &world.elastic.clusters[uuid];
    let gone: Vec<(String, String)> = (cluster.members.iter())
        .filter(|(name, member)| {
            !(world.containers.get(*name))
                .is_some_and(|c| disk_id(world, c) == member.id && c.member_of.as_deref() == Some(uuid))
        })
        .map(|(name, member)| (name.clone(), member.id.clone()))
        .collect();
    for (name, id) in gone {
        world.note(format!("elasticsearch {uuid}: {name} left"));
        let ms = world.ms;
        let cluster = world.elastic.clusters.get_mut(uuid).unwrap();
        cluster.members.remove(&name);
        cluster.version += 1;
        shards::node_left(cluster, &name, &id, ms);
    }
}

/// Processes of the identity, on a disk that is blank or of this cluster, join a while after they started.
fn join(world: &mut World, uuid: &str) {
    let identity = world.elastic.clusters[uuid].identity.clone();
    if !can_discover(world, &identity) {
        return;
    }
    let joining: Vec<Container> = (world.containers.values())
        .filter(|c| c.identity == identity && c.join_at <= world.ms)
        .filter(|c| c.member_of.is_none() || c.member_of.as_deref() == Some(uuid))
        .filter(|c| disk_uuid(world, c).is_none_or(|on_disk| on_disk == uuid))
        .filter(|c| !world.elastic.clusters[uuid].members.contains_key(&c.name))
        .cloned()
        .collect();
    for container in joining {
        let id = disk_id(world, &container);
        admit(world, uuid, &container, id);
    }
}

fn admit(world: &mut World, uuid: &str, container: &Container, id: String) {
    world.note(format!("elasticsearch {uuid}: {} joins as {id}", container.name));
    if let Some(volume) = world.volumes.get_mut(&container.disk) {
        volume.cluster_uuid = Some(uuid.to_owned());
    }
    if let Some(running) = world.containers.get_mut(&container.name) {
        running.member_of = Some(uuid.to_owned());
    }
    let role = if container.role == "ingest" { "ingest" } else { container.role.as_str() };
    let node = ElasticNode {
        id,
        version: container.version.clone(),
        roles: vec![role.to_owned()],
        zone: container.attribute.clone(),
    };
    let cluster = world.elastic.clusters.get_mut(uuid).unwrap();
    cluster.members.insert(container.name.clone(), node);
    cluster.version += 1;
}

/// Auto-reconfiguration: live masters vote, an odd number of them, and never fewer than three while there were three.
fn reconfigure(world: &mut World, uuid: &str) {
    let cluster = world.elastic.clusters.get_mut(uuid).unwrap();
    if cluster.master.as_ref().is_some_and(|master| cluster.no_votes.contains(master))
        && cluster.voting.len() > 1
    {
        // It hands over to another one.
        cluster.master = None;
    }
    let live: BTreeSet<String> = (cluster.members.iter())
        .filter(|(name, member)| member.roles == ["master"] && !cluster.no_votes.contains(*name))
        .map(|(_, member)| member.id.clone())
        .collect();
    let master_id =
        cluster.master.as_ref().and_then(|name| cluster.members.get(name)).map(|member| member.id.clone());
    let size = if live.len().is_multiple_of(2) { live.len().saturating_sub(1) } else { live.len() };
    let next: BTreeSet<String> =
        if live.len() >= 3 || cluster.voting.len() == 1 || !cluster.no_votes.is_empty() {
            let mut order: Vec<&String> = live.iter().collect();
            order.sort_by_key(|id| (Some(*id) != master_id.as_ref(), !cluster.voting.contains(*id)));
            order.into_iter().take(size).cloned().collect()
        } else {
            return;
        };
    if !next.is_empty() && next != cluster.voting {
        cluster.voting = next;
        cluster.version += 1;
    }
}

/// Blank master-eligible nodes that were told to bootstrap, and see a majority of those they were told of, form a
/// *new* cluster, unless they find a master to join. Nothing asks whether there was another cluster before.
fn form(world: &mut World) {
    let identities: BTreeSet<String> = world.containers.values().map(|c| c.identity.clone()).collect();
    for identity in identities {
        let joinable = (world.elastic.of_identity(&identity)).any(|cluster| cluster.master.is_some());
        let blank: Vec<Container> = (world.containers.values())
            .filter(|c| c.identity == identity && c.role == "master" && !c.bootstrap.is_empty())
            .filter(|c| disk_uuid(world, c).is_none() && c.join_at <= world.ms)
            .cloned()
            .collect();
        let Some(first) = blank.first().filter(|_| !joinable) else {
            world.elastic.formation_due.remove(&identity);
            continue;
        };
        let present: Vec<&Container> = blank.iter().filter(|c| first.bootstrap.contains(&c.name)).collect();
        let alone = first.bootstrap.len() == 1;
        if present.len() * 2 <= first.bootstrap.len() || !(alone || can_discover(world, &identity)) {
            continue;
        }
        let due = world.ms + world.rng.range(500, 8_000);
        if *world.elastic.formation_due.entry(identity.clone()).or_insert(due) > world.ms {
            continue;
        }
        world.elastic.formation_due.remove(&identity);
        found(world, &identity, &present, &first.bootstrap);
    }
}

fn found(world: &mut World, identity: &str, present: &[&Container], bootstrap: &[String]) {
    world.serial += 1;
    let uuid = format!("uuid-{:04}", world.serial);
    invariants::on_formation(world, identity, &uuid);
    let here: BTreeMap<&str, String> = present.iter().map(|c| (c.name.as_str(), disk_id(world, c))).collect();
    let voting = bootstrap
        .iter()
        .map(|name| here.get(name.as_str()).cloned().unwrap_or_else(|| name.clone()))
        .collect();
    let shutdowns = world.rng.chance(60).then(BTreeMap::new);
    let cluster = Cluster {
        shutdowns,
        uuid: uuid.clone(),
        identity: identity.to_owned(),
        voting,
        master: present.first().map(|c| c.name.clone()),
        version: 1,
        ..Cluster::default()
    };
    world.note(format!("elasticsearch {uuid}: formed for {identity} from {here:?}"));
    world.elastic.clusters.insert(uuid.clone(), cluster);
    for container in present {
        let id = disk_id(world, container);
        admit(world, &uuid, container, id);
    }
}
