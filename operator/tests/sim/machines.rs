//! Kubernetes nodes, zones, the scheduler, the kubelets and the volumes: what makes a pod run, and stop.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, PodCondition, Volume as PodVolume};
use searchcell_core::names::{INITIAL_MASTER_NODES, LABEL_CELL, LABEL_CLUSTER, LABEL_ROLE};
use searchcell_core::snapshot::{label, role_and_zone};

use crate::kubernetes::claims_of;
use crate::objects::{K, Stored};
use crate::store::api_time;
use crate::world::{Container, Volume, World};
use crate::{keystore, secure};

/// How long a silent node stays trusted, and how long its pods.
const NODE_GRACE_MS: u64 = 40_000;
const EVICTION_MS: u64 = 300_000;

pub fn tick(world: &mut World) {
    schedule(world);
    run(world);
    report(world);
}

/// Binds pending pods to nodes, and their claims to volumes.
fn schedule(world: &mut World) {
    let pending: Vec<Pod> = (world.store.all::<Pod>())
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()))
        .cloned()
        .collect();
    for pod in pending {
        if !world.soon(70) {
            continue;
        }
        let name = pod.metadata.name.clone().unwrap();
        let node = choose_node(world, &pod);
        let (status, reason) = if node.is_some() { ("True", None) } else { ("False", Some("Unschedulable")) };
        let ms = world.ms;
        if let Some(node) = &node {
            let zone = world.nodes[node].zone.clone();
            for claim in claims_of(&pod).map(str::to_owned).collect::<Vec<_>>() {
                bind(world, &claim, &zone);
            }
        }
        world.store.update::<Pod>("kube-scheduler", &name, |pod| {
            pod.spec.get_or_insert_default().node_name = node;
            set_condition(pod, "PodScheduled", status, reason, ms);
        });
    }
}

fn choose_node(world: &World, pod: &Pod) -> Option<String> {
    let bound_zone = claims_of(pod)
        .filter_map(|claim| {
            world.store.get::<PersistentVolumeClaim>(claim)?.spec.as_ref()?.volume_name.clone()
        })
        .find_map(|volume| world.volumes.get(&volume).map(|volume| volume.zone.clone()));
    if claims_of(pod).any(|claim| world.store.get::<PersistentVolumeClaim>(claim).is_none()) {
        return None;
    }
    let wanted = required_zones(pod);
    let load = |node: &str| {
        world
            .store
            .all::<Pod>()
            .filter(|pod| pod.spec.as_ref().is_some_and(|s| s.node_name.as_deref() == Some(node)))
            .count()
    };
    (world.nodes.iter())
        .filter(|(_, node)| node.on && !node.cordoned)
        .filter(|(_, node)| bound_zone.as_ref().is_none_or(|zone| *zone == node.zone))
        .filter(|(_, node)| wanted.as_ref().is_none_or(|zones| zones.contains(&node.zone)))
        .map(|(name, node)| (load(name), node.capacity, name))
        .filter(|(load, capacity, _)| load < capacity)
        .min()
        .map(|(_, _, name)| name.clone())
}

/// Zones that a pod's node affinity or selector asks for.
fn required_zones(pod: &Pod) -> Option<Vec<String>> {
    const KEY: &str = "topology.kubernetes.io/zone";
    let spec = pod.spec.as_ref()?;
    if let Some(zone) = spec.node_selector.as_ref().and_then(|selector| selector.get(KEY)) {
        return Some(vec![zone.clone()]);
    }
    let required = spec
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    (required.node_selector_terms.iter())
        .flat_map(|term| term.match_expressions.iter().flatten())
        .find(|expression| expression.key == KEY && expression.operator == "In")
        .and_then(|expression| expression.values.clone())
}

fn bind(world: &mut World, claim: &str, zone: &str) {
    let unbound = (world.store.get::<PersistentVolumeClaim>(claim))
        .is_some_and(|claim| claim.spec.as_ref().is_none_or(|spec| spec.volume_name.is_none()));
    if unbound {
        let volume = world.new_volume(zone, false);
        world.store.update::<PersistentVolumeClaim>("kube-controller-manager", claim, |claim| {
            claim.spec.get_or_insert_default().volume_name = Some(volume);
            claim.status.get_or_insert_default().phase = Some("Bound".to_owned());
        });
    }
}

/// Kubelets start containers, and let go of deleted pods. A dead node does neither.
fn run(world: &mut World) {
    let pods = world.store.shared::<Pod>();
    for pod in pods.iter().filter_map(|object| Pod::of(object)) {
        let name = pod.metadata.name.clone().unwrap();
        let uid = pod.metadata.uid.clone().unwrap();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let node_on = node.as_ref().is_none_or(|node| world.nodes.get(node).is_some_and(|node| node.on));
        if pod.metadata.deletion_timestamp.is_some() {
            if node_on && world.soon(40) {
                world.containers.remove(&name);
                world.start_at.remove(&uid);
                world.write_log("kubelet", "remove", K::Pod, &name, "");
                world.store.remove(K::Pod, &name);
            }
            continue;
        }
        let Some(node) = node else { continue };
        if !node_on {
            world.containers.remove(&name);
            world.start_at.remove(&uid);
            continue;
        }
        if world.containers.get(&name).is_some_and(|container| container.pod_uid == uid) {
            continue;
        }
        let never = world.never.as_ref().is_some_and(|(role, zone)| {
            role_and_zone(&pod.metadata) == (Some(role.as_str()), Some(zone.as_str()))
        });
        if never {
            continue;
        }
        let wait = world.rng.range(1_000, 12_000);
        let now = world.ms;
        if *world.start_at.entry(uid.clone()).or_insert(now + wait) > now
            || !mounts_exist(world, pod)
            || !secure::can_start(world, pod)
            || !keystore::can_start(world, pod)
        {
            continue;
        }
        start(world, pod, &node);
    }
    world.containers.retain(|name, _| pods.iter().any(|pod| pod.meta().name.as_ref() == Some(name)));
    let disks: Vec<String> = world.containers.values().map(|container| container.disk.clone()).collect();
    world.volumes.retain(|name, volume| !volume.ephemeral || disks.contains(name));
}

/// A container waits until every ConfigMap that it mounts is there, optional ones excepted.
fn mounts_exist(world: &World, pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    (config_maps(volumes).chain(environment(pod).map(|(name, _, optional)| (name, optional))))
        .all(|(name, optional)| optional || world.store.get::<ConfigMap>(&name).is_some())
}

/// ConfigMaps, and their keys, that the environment of a pod's containers takes values from.
fn environment(pod: &Pod) -> impl Iterator<Item = (String, String, bool)> {
    (pod.spec.iter().flat_map(|spec| &spec.containers))
        .flat_map(|container| container.env.iter().flatten())
        .filter_map(|variable| variable.value_from.as_ref()?.config_map_key_ref.as_ref())
        .map(|from| (from.name.clone(), from.key.clone(), from.optional.unwrap_or(false)))
}

fn config_maps<'a>(volumes: impl Iterator<Item = &'a PodVolume>) -> impl Iterator<Item = (String, bool)> {
    volumes.flat_map(|volume| {
        let direct = volume.config_map.iter().map(|map| (map.name.clone(), map.optional.unwrap_or(false)));
        let projected = (volume.projected.iter().flat_map(|p| p.sources.iter().flatten()))
            .filter_map(|source| source.config_map.as_ref())
            .map(|map| (map.name.clone(), map.optional.unwrap_or(false)));
        direct.chain(projected).collect::<Vec<_>>()
    })
}

/// An Elasticsearch process comes up; what it knows of bootstrapping it reads now, once.
fn start(world: &mut World, pod: &Pod, node: &str) {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref().unwrap();
    let (Some(cell), Some(cluster), Some(role)) =
        (label(meta, LABEL_CELL), label(meta, LABEL_CLUSTER), label(meta, LABEL_ROLE))
    else {
        return;
    };
    let zone = world.nodes[node].zone.clone();
    let claim = claims_of(pod).next().map(str::to_owned);
    let disk = match claim {
        Some(claim) => {
            let volume = world
                .store
                .get::<PersistentVolumeClaim>(&claim)
                .and_then(|c| c.spec.as_ref()?.volume_name.clone());
            let Some(volume) = volume else { return };
            volume
        }
        None => world.new_volume(&zone, true),
    };
    let mounted =
        config_maps(spec.volumes.iter().flatten()).map(|(name, _)| (name, INITIAL_MASTER_NODES.to_owned()));
    let bootstrap = (environment(pod).map(|(name, key, _)| (name, key)).chain(mounted))
        .filter(|(_, key)| key == INITIAL_MASTER_NODES)
        .filter_map(|(name, key)| world.store.get::<ConfigMap>(&name)?.data.as_ref()?.get(&key).cloned())
        .flat_map(|names| names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect();
    let image = spec
        .containers
        .iter()
        .find(|c| c.name == "elasticsearch")
        .and_then(|c| c.image.clone())
        .unwrap_or_default();
    let version = image.rsplit(':').next().unwrap_or_default().to_owned();
    let started = world.ms;
    let join_at = started + world.rng.range(500, 9_000);
    let name = meta.name.clone().unwrap();
    world.note(format!("container {name} starts on {node} ({zone}), bootstrap {bootstrap:?}"));
    let keystore = keystore::load(world, pod);
    let container = Container {
        pod_uid: meta.uid.clone().unwrap(),
        name: name.clone(),
        identity: format!("{cell}/{cluster}"),
        role: role.to_owned(),
        attribute: zone_attribute(pod),
        version,
        disk,
        bootstrap: if role == "master" { bootstrap } else { Vec::new() },
        join_at,
        member_of: None,
        secure: secure::load(world, pod),
        keystore,
    };
    world.containers.insert(name.clone(), container);
    secure::check(world, &name);
}

/// `node.attr.zone` as the pod's `elasticsearch.yml` has it.
fn zone_attribute(pod: &Pod) -> Option<String> {
    let yml = searchcell_core::snapshot::annotation(
        &pod.metadata,
        searchcell_core::names::ANNOTATION_ELASTICSEARCH_YML,
    )?;
    let line = yml.lines().find(|line| line.trim_start().trim_matches('"').starts_with("node.attr.zone"))?;
    Some(line.split_once(':')?.1.trim().trim_matches(['"', '\'']).to_owned())
}

/// Pod readiness, and what the node controller does with silent nodes.
fn report(world: &mut World) {
    let pods: Vec<(String, bool, bool, Option<u64>)> = (world.store.all::<Pod>())
        .filter_map(|pod| {
            let name = pod.metadata.name.clone()?;
            let told = is_reported(pod);
            let node = pod.spec.as_ref()?.node_name.clone();
            let off_for = node.and_then(|node| {
                let node = world.nodes.get(&node)?;
                (!node.on).then(|| world.ms.saturating_sub(node.since))
            });
            let running = world.containers.contains_key(&name);
            let serves = world.containers.get(&name).is_some_and(|c| {
                c.pod_uid == *pod.metadata.uid.as_ref().unwrap()
                    && world.elastic.has_master(c.member_of.as_deref())
                    && !is_announced(world, c)
            });
            let news = off_for.is_some() || told != (running, serves);
            news.then_some((name, running, serves, off_for))
        })
        .collect();
    let ms = world.ms;
    for (name, running, serves, off_for) in pods {
        let ready = match off_for {
            // The last word of a silent kubelet stands for a while.
            Some(off) if off < NODE_GRACE_MS => continue,
            Some(_) => false,
            None => serves,
        };
        let was_ready = world.store.get::<Pod>(&name).is_some_and(condition_is_true);
        if ready != was_ready && !world.soon(60) {
            continue;
        }
        world.store.update::<Pod>("kubelet", &name, |pod| {
            if running {
                let uid = pod.metadata.uid.clone();
                let status = pod.status.get_or_insert_default();
                // An address as good as any: nobody else has it.
                (status.phase, status.pod_ip) = (Some("Running".to_owned()), uid);
            }
            set_condition(pod, "Ready", if ready { "True" } else { "False" }, None, ms);
        });
        if off_for.is_some_and(|off| off > EVICTION_MS) {
            world.store.delete(ms, K::Pod, &name);
        }
    }
}

/// A node that was announced to go away is not ready, until that is taken back.
fn is_announced(world: &World, container: &Container) -> bool {
    let cluster = container.member_of.as_ref().and_then(|uuid| world.elastic.clusters.get(uuid));
    let member = cluster.and_then(|cluster| cluster.members.get(&container.name));
    let records = cluster.and_then(|cluster| cluster.shutdowns.as_ref());
    records.zip(member).is_some_and(|(records, member)| records.contains_key(&member.id))
}

/// Whether a pod is said to run, and to be ready.
fn is_reported(pod: &Pod) -> (bool, bool) {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    (phase == Some("Running"), condition_is_true(pod))
}

fn condition_is_true(pod: &Pod) -> bool {
    (pod.status.iter().flat_map(|status| status.conditions.iter().flatten()))
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn set_condition(pod: &mut Pod, type_: &str, status: &str, reason: Option<&str>, ms: u64) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    if let Some(found) = conditions.iter_mut().find(|condition| condition.type_ == type_) {
        if found.status != status {
            found.last_transition_time = Some(api_time(ms));
        }
        (found.status, found.reason) = (status.to_owned(), reason.map(str::to_owned));
        return;
    }
    conditions.push(PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        last_transition_time: Some(api_time(ms)),
        ..PodCondition::default()
    });
}

impl World {
    /// A blank volume in a zone.
    pub fn new_volume(&mut self, zone: &str, ephemeral: bool) -> String {
        self.serial += 1;
        let name = format!("pv-{:04}", self.serial);
        let volume = Volume {
            zone: zone.to_owned(),
            ephemeral,
            node_id: format!("node-{:04}", self.serial),
            cluster_uuid: None,
            copies: Default::default(),
        };
        self.volumes.insert(name.clone(), volume);
        name
    }

    /// The disk is empty again: a new persistent node id, no cluster, no shards.
    pub fn wipe_volume(&mut self, name: &str) {
        self.serial += 1;
        let serial = self.serial;
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.node_id = format!("node-{serial:04}");
            volume.cluster_uuid = None;
            volume.copies.clear();
        }
    }
}
