//! The controllers of the simulated Kubernetes: StatefulSet, Deployment, autoscaler, garbage collector.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodStatus, PodTemplateSpec,
    Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use searchcell_core::names::LABEL_REVISION;
use searchcell_core::snapshot::label;

use crate::objects::{K, Obj, Stored};
use crate::world::World;

/// Keeps a claim while a pod uses it.
pub const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";

pub fn tick(world: &mut World) {
    collect_garbage(world);
    stateful_sets(world);
    deployments(world);
    autoscalers(world);
    protect_claims(world);
}

/// Deletes what no living owner holds, some time later.
fn collect_garbage(world: &mut World) {
    let mut orphans = Vec::new();
    for kind in K::ALL {
        for (name, object) in world.store.objects(*kind) {
            let owners = object.meta().owner_references.as_deref().unwrap_or_default();
            let orphaned = !owners.is_empty() && !owners.iter().any(|owner| world.store.is_live(&owner.uid));
            if orphaned && object.meta().deletion_timestamp.is_none() {
                orphans.push((*kind, name.clone()));
            }
        }
    }
    for (kind, name) in orphans {
        if world.soon(30) {
            world.write_log("garbage-collector", "delete", kind, &name, "");
            world.store.delete(world.ms, kind, &name);
        }
    }
}

fn owner(kind: &str, meta: &ObjectMeta) -> Vec<OwnerReference> {
    vec![OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap(),
        uid: meta.uid.clone().unwrap(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]
}

/// A hash of the template: what `controller-revision-hash` carries.
fn revision(world: &mut World, meta: &ObjectMeta, template: &PodTemplateSpec) -> String {
    let key = (meta.uid.clone().unwrap(), meta.generation.unwrap_or(1));
    let text = world.revisions.entry(key).or_insert_with(|| {
        let bytes = serde_json::to_vec(template).unwrap();
        let hash = bytes
            .iter()
            .fold(0xcbf2_9ce4_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        format!("{hash:08x}")
    });
    text.clone()
}

fn pods_of<'a>(world: &'a World, uid: &'a str) -> impl Iterator<Item = &'a Pod> {
    world
        .store
        .all::<Pod>()
        .filter(move |pod| pod.metadata.owner_references.iter().flatten().any(|o| o.uid == uid))
}

fn is_ready(pod: &Pod) -> bool {
    searchcell_core::snapshot::is_ready(pod)
}

fn stateful_sets(world: &mut World) {
    let sets = world.store.shared::<StatefulSet>();
    for set in sets.iter().filter_map(|object| StatefulSet::of(object)) {
        if set.metadata.deletion_timestamp.is_some() || !world.soon(60) {
            continue;
        }
        let (name, uid) = (set.metadata.name.clone().unwrap(), set.metadata.uid.clone().unwrap());
        let spec = set.spec.as_ref().unwrap();
        let replicas = spec.replicas.unwrap_or(1);
        let hash = revision(world, &set.metadata, &spec.template);
        for ordinal in 0..replicas {
            let pod = format!("{name}-{ordinal}");
            if world.store.get::<Pod>(&pod).is_none() && ensure_claims(world, set, &pod) {
                create_stateful_pod(world, set, &pod, ordinal, &hash);
            }
        }
        let surplus: Vec<String> = pods_of(world, &uid)
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| pod.metadata.name.clone())
            .filter(|pod| {
                pod.rsplit('-').next().and_then(|n| n.parse::<i32>().ok()).is_some_and(|n| n >= replicas)
            })
            .collect();
        for pod in surplus {
            world.write_log("statefulset-controller", "delete", K::Pod, &pod, "");
            world.store.delete(world.ms, K::Pod, &pod);
        }
        let count = pods_of(world, &uid).count() as i32;
        let ready = pods_of(world, &uid).filter(|pod| is_ready(pod)).count() as i32;
        let updated = pods_of(world, &uid)
            .filter(|pod| label(&pod.metadata, LABEL_REVISION) == Some(format!("{name}-{hash}").as_str()))
            .count() as i32;
        let generation = set.metadata.generation;
        let unchanged = set.status.as_ref().is_some_and(|status| {
            status.observed_generation == generation
                && status.replicas == count
                && status.ready_replicas == Some(ready)
                && status.updated_replicas == Some(updated)
        });
        if unchanged {
            continue;
        }
        world.store.update::<StatefulSet>("kube-controller-manager", &name, |set| {
            let status = set.status.get_or_insert_default();
            status.observed_generation = generation;
            status.replicas = count;
            status.ready_replicas = Some(ready);
            status.available_replicas = Some(ready);
            status.updated_replicas = Some(updated);
            status.update_revision = Some(format!("{name}-{hash}"));
            status.current_revision.get_or_insert_with(|| format!("{name}-{hash}"));
        });
    }
}

/// The claims of a pod, made when missing. False while one is on its way out.
fn ensure_claims(world: &mut World, set: &StatefulSet, pod: &str) -> bool {
    let spec = set.spec.as_ref().unwrap();
    for template in spec.volume_claim_templates.iter().flatten() {
        let name = format!("{}-{pod}", template.metadata.name.as_deref().unwrap_or_default());
        match world.store.get::<PersistentVolumeClaim>(&name) {
            Some(claim) if claim.metadata.deletion_timestamp.is_some() => return false,
            Some(_) => {}
            None => {
                let mut labels = template.metadata.labels.clone().unwrap_or_default();
                labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
                let mut claim = template.clone();
                claim.metadata = ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels),
                    annotations: template.metadata.annotations.clone(),
                    finalizers: Some(vec![PVC_PROTECTION.to_owned()]),
                    ..ObjectMeta::default()
                };
                claim.status.get_or_insert_default().phase = Some("Pending".to_owned());
                world.write_log("statefulset-controller", "create", K::Claim, &name, "");
                world.store.create(world.ms, "kube-controller-manager", Obj::Claim(claim)).ok();
            }
        }
    }
    true
}

fn create_stateful_pod(world: &mut World, set: &StatefulSet, name: &str, ordinal: i32, hash: &str) {
    let spec = set.spec.as_ref().unwrap();
    let mut pod = pod_from(&spec.template, name);
    let labels = pod.metadata.labels.get_or_insert_default();
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    labels.insert(LABEL_REVISION.to_owned(), format!("{set_name}-{hash}"));
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.to_owned());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    pod.metadata.owner_references = Some(owner("StatefulSet", &set.metadata));
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    for template in spec.volume_claim_templates.iter().flatten() {
        let volume = template.metadata.name.clone().unwrap_or_default();
        volumes.retain(|other| other.name != volume);
        let claim_name = format!("{volume}-{name}");
        let source = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
        volumes.push(Volume { name: volume, persistent_volume_claim: Some(source), ..Volume::default() });
    }
    world.write_log("statefulset-controller", "create", K::Pod, name, "");
    world.store.create(world.ms, "kube-controller-manager", Obj::Pod(pod)).ok();
}

fn pod_from(template: &PodTemplateSpec, name: &str) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut spec = template.spec.clone();
    if let Some(spec) = &mut spec {
        // Nobody looks at the rest of a pod's spec, and every pass would copy it.
        (spec.init_containers, spec.security_context) = (None, None);
        for container in &mut spec.containers {
            *container = Container {
                name: std::mem::take(&mut container.name),
                image: container.image.take(),
                env: container.env.take(),
                ..Container::default()
            };
        }
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            ..ObjectMeta::default()
        },
        spec,
        status: Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() }),
    }
}

fn deployments(world: &mut World) {
    let all = world.store.shared::<Deployment>();
    for deployment in all.iter().filter_map(|object| Deployment::of(object)) {
        if deployment.metadata.deletion_timestamp.is_some() || !world.soon(60) {
            continue;
        }
        let meta = &deployment.metadata;
        let (name, uid) = (meta.name.clone().unwrap(), meta.uid.clone().unwrap());
        let spec = deployment.spec.as_ref().unwrap();
        let replicas = spec.replicas.unwrap_or(1);
        let hash = revision(world, meta, &spec.template);
        let is_new = |pod: &Pod| {
            pod.metadata.labels.as_ref().is_some_and(|l| l.get("pod-template-hash") == Some(&hash))
        };
        let pods: Vec<Pod> =
            pods_of(world, &uid).filter(|pod| pod.metadata.deletion_timestamp.is_none()).cloned().collect();
        let (count, new) = (pods.len() as i32, pods.iter().filter(|pod| is_new(pod)).count() as i32);
        // One more while old pods are replaced: maxSurge 1, maxUnavailable 0.
        let surge = i32::from(new < count.min(replicas));
        for _ in count..replicas + surge {
            world.serial += 1;
            let pod_name = format!("{name}-{hash}-{:05}", world.serial);
            let mut pod = pod_from(&spec.template, &pod_name);
            pod.metadata.labels.get_or_insert_default().insert("pod-template-hash".to_owned(), hash.clone());
            pod.metadata.owner_references = Some(owner("ReplicaSet", meta));
            world.write_log("deployment-controller", "create", K::Pod, &pod_name, "");
            world.store.create(world.ms, "kube-controller-manager", Obj::Pod(pod)).ok();
        }
        let ready_new = pods.iter().filter(|pod| is_new(pod) && is_ready(pod)).count() as i32;
        let mut doomed: Vec<&Pod> = pods.iter().collect();
        doomed.sort_by_key(|pod| (is_new(pod), is_ready(pod)));
        // Old ones that are too many go as soon as those that stay are enough, be they new or not.
        let excess = if new < count { count - replicas - (new - ready_new) } else { count - replicas };
        for pod in doomed.iter().take(excess.max(0) as usize) {
            let pod = pod.metadata.name.clone().unwrap();
            world.write_log("deployment-controller", "delete", K::Pod, &pod, "");
            world.store.delete(world.ms, K::Pod, &pod);
        }
        let ready = pods_of(world, &uid).filter(|pod| is_ready(pod)).count() as i32;
        let generation = meta.generation;
        world.store.update::<Deployment>("kube-controller-manager", &name, |deployment| {
            let status = deployment.status.get_or_insert_default();
            status.observed_generation = generation;
            status.replicas = Some(count);
            status.ready_replicas = Some(ready);
            status.available_replicas = Some(ready);
            status.updated_replicas = Some(new);
        });
    }
}

/// Follows the simulated load, within the bounds.
fn autoscalers(world: &mut World) {
    if world.ms < world.next_autoscale {
        return;
    }
    world.next_autoscale = world.ms + 15_000;
    let all: Vec<HorizontalPodAutoscaler> = world.store.all::<HorizontalPodAutoscaler>().cloned().collect();
    for autoscaler in all {
        let spec = &autoscaler.spec;
        let target = spec.scale_target_ref.name.clone();
        let Some(current) = world.store.get::<Deployment>(&target).and_then(|d| d.spec.as_ref()?.replicas)
        else {
            continue;
        };
        let load = world.load.get(&target).copied().unwrap_or(0);
        let wanted = load.clamp(spec.min_replicas.unwrap_or(1), spec.max_replicas);
        // Up at once, down one at a time.
        let next = if wanted < current { current - 1 } else { wanted };
        if next != current {
            world.write_log("autoscaler", "scale", K::Deployment, &target, &format!("{current} -> {next}"));
            world.store.update::<Deployment>("kube-controller-manager", &target, |deployment| {
                deployment.spec.get_or_insert_default().replicas = Some(next);
            });
        }
        let name = autoscaler.metadata.name.clone().unwrap();
        world.store.update::<HorizontalPodAutoscaler>("kube-controller-manager", &name, |autoscaler| {
            let status = autoscaler.status.get_or_insert_default();
            (status.current_replicas, status.desired_replicas) = (Some(current), next);
        });
    }
}

/// Lets go of deleted claims that no pod uses, and of the volumes of claims that are gone.
fn protect_claims(world: &mut World) {
    let mut used: BTreeMap<String, ()> = BTreeMap::new();
    for pod in world.store.all::<Pod>() {
        used.extend(claims_of(pod).map(|claim| (claim.to_owned(), ())));
    }
    let free: Vec<String> = (world.store.all::<PersistentVolumeClaim>())
        .filter(|claim| claim.metadata.deletion_timestamp.is_some())
        .filter_map(|claim| claim.metadata.name.clone())
        .filter(|name| !used.contains_key(name))
        .collect();
    for name in free {
        world.write_log("pvc-protection", "remove", K::Claim, &name, "");
        world.store.update::<PersistentVolumeClaim>("kube-controller-manager", &name, |claim| {
            claim.metadata.finalizers = None;
        });
    }
    let bound: Vec<String> = (world.store.all::<PersistentVolumeClaim>())
        .filter_map(|claim| claim.spec.as_ref()?.volume_name.clone())
        .collect();
    world.volumes.retain(|name, volume| volume.ephemeral || bound.contains(name));
}

/// Names of the claims that a pod mounts.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    (pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()))
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|claim| claim.claim_name.as_str())
}
