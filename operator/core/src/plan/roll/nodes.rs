//! Which nodes run what the spec asks for: workloads that are behind, in the order in which they follow. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::build;
use crate::domain::{EsVersion, ValidCell, ValidZone};
use crate::drift;
use crate::names::{ANNOTATION_INPUT_HASH, ClusterKey, LABEL_REVISION, Role};
use crate::snapshot::{CellObjects, ElasticFacts, annotation, is_owned_by, is_ready, label};

/// A workload whose nodes do not all run what the spec asks for.
pub(super) struct Work<'a> {
    pub(super) role: Role,
    /// Absent for ingest nodes.
    pub(super) zone: Option<&'a ValidZone>,
    pub(super) meta: &'a ObjectMeta,
    pub(super) replicas: i32,
    /// Whether its template is the one that the spec asks for.
    pub(super) is_current: bool,
    /// Pods of a StatefulSet that run another one, the elected master last; empty where nobody can say yet.
    pub(super) pods: Vec<&'a Pod>,
    /// Lowest version of its members, whether they are behind or not.
    lowest: Option<EsVersion>,
}

impl<'a> Work<'a> {
    /// A pod of it that runs nothing.
    pub(super) fn stopped(&self) -> Option<&'a Pod> {
        self.pods.iter().copied().find(|pod| is_stopped(pod))
    }
}

/// Workloads that are behind: data nodes zone by zone, the zone of the elected master last, then ingest nodes, then masters.
///
/// Of data nodes of several versions, those of the lowest first. A change of version that is corrected halfway leaves nodes
/// whose replicas only nodes of the same version or a newer one can take: there is none before others have restarted.
pub(super) fn work<'a>(
    cell: &'a ValidCell,
    key: &ClusterKey,
    objects: &'a CellObjects,
    elastic: Option<&ElasticFacts>,
) -> Vec<Work<'a>> {
    let elected = elastic.and_then(|facts| facts.master.as_deref());
    let leads = |zone: &ValidZone| {
        let prefix = format!("{}-", key.stateful_set(Role::Master, &zone.name));
        elected.is_some_and(|elected| elected.starts_with(&prefix))
    };
    let mut zones: Vec<&ValidZone> = cell.zones.iter().collect();
    zones.sort_by_key(|zone| leads(zone));
    let versions = &versions(elastic);
    let sets = |role: Role| {
        let zones = zones.clone();
        zones.into_iter().filter_map(move |zone| {
            let name = key.stateful_set(role, &zone.name);
            let set = drift::find(&objects.stateful_sets, |o| &o.metadata, &name, &cell.uid).ours()?;
            of_set(cell, objects, role, zone, set, (elected, versions))
        })
    };
    let ingest = drift::find(&objects.deployments, |o| &o.metadata, &key.ingest(), &cell.uid);
    // Where the spec has none, they are not made anew: they go.
    let ingest =
        cell.ingest.as_ref().and(ingest.ours()).and_then(|deployment| of_deployment(cell, deployment));
    let mut data: Vec<Work<'a>> = sets(Role::Data).collect();
    data.sort_by_key(|work| work.lowest);
    data.into_iter().chain(ingest).chain(sets(Role::Master)).collect()
}

/// Versions of the members, by name.
fn versions(elastic: Option<&ElasticFacts>) -> BTreeMap<&str, EsVersion> {
    let nodes = elastic.into_iter().flat_map(|facts| &facts.nodes);
    nodes.filter_map(|(name, node)| Some((name.as_str(), node.version.parse().ok()?))).collect()
}

fn of_set<'a>(
    cell: &'a ValidCell,
    objects: &'a CellObjects,
    role: Role,
    zone: &'a ValidZone,
    set: &'a StatefulSet,
    (elected, versions): (Option<&str>, &BTreeMap<&str, EsVersion>),
) -> Option<Work<'a>> {
    let hash = build::input_hash(cell, role, Some(zone));
    let is_current = annotation(&set.metadata, ANNOTATION_INPUT_HASH) == Some(&hash);
    let version = |pod: &&Pod| versions.get(pod.metadata.name.as_deref()?).copied();
    let lowest = pods_of(objects, set).filter_map(|pod| version(&pod)).min();
    let mut pods: Vec<&Pod> = pods_of(objects, set).filter(|pod| !(is_current && runs(set, pod))).collect();
    // The highest ordinal first, as Kubernetes does it.
    pods.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
    if role == Role::Data {
        pods.sort_by_key(version);
    }
    pods.sort_by_key(|pod| elected.is_some() && pod.metadata.name.as_deref() == elected);
    let is_seen = is_seen(set);
    if is_current && pods.is_empty() && (is_seen || is_new(&set.metadata)) {
        return None;
    }
    // Of a template that Kubernetes has not seen yet, the revision is not known.
    let pods = if is_current && !is_seen { Vec::new() } else { pods };
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    Some(Work { role, zone: Some(zone), meta: &set.metadata, replicas, is_current, pods, lowest })
}

fn of_deployment<'a>(cell: &'a ValidCell, deployment: &'a Deployment) -> Option<Work<'a>> {
    let hash = build::input_hash(cell, Role::Ingest, None);
    let meta = &deployment.metadata;
    let is_current =
        annotation(meta, ANNOTATION_INPUT_HASH) == Some(&hash) && !is_in_former_zones(cell, deployment);
    let status = deployment.status.as_ref();
    let is_seen = status.and_then(|status| status.observed_generation) >= meta.generation;
    let (pods, new) = status.map_or((0, 0), |status| {
        (status.replicas.unwrap_or_default(), status.updated_replicas.unwrap_or_default())
    });
    if is_current && new >= pods && (is_seen || is_new(meta)) {
        return None;
    }
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    Some(Work { role: Role::Ingest, zone: None, meta, replicas, is_current, pods: Vec::new(), lowest: None })
}

/// Whether its nodes may run in zones that are to have none. In zones that came later, new ones do not run: that restarts nobody.
fn is_in_former_zones(cell: &ValidCell, deployment: &Deployment) -> bool {
    let of_template = || {
        let template = deployment.spec.as_ref()?.template.spec.as_ref()?;
        let required = template.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = required.required_during_scheduling_ignored_during_execution.as_ref()?;
        let of_zones = |of: &&NodeSelectorRequirement| of.key == cell.topology_key;
        terms.node_selector_terms.first()?.match_expressions.iter().flatten().find(of_zones)?.values.as_ref()
    };
    let is_former = |value: &String| !cell.zones.iter().any(|zone| zone.value == *value);
    of_template().into_iter().flatten().any(is_former)
}

/// It was never changed: whatever it has made so far is of this template.
fn is_new(meta: &ObjectMeta) -> bool {
    meta.generation == Some(1)
}

fn is_seen(set: &StatefulSet) -> bool {
    set.status.as_ref().is_some_and(|status| {
        status.observed_generation >= set.metadata.generation && status.update_revision.is_some()
    })
}

fn pods_of<'a>(objects: &'a CellObjects, set: &'a StatefulSet) -> impl Iterator<Item = &'a Pod> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    objects.pods.iter().filter(move |pod| is_owned_by(&pod.metadata, uid))
}

/// Whether a pod runs what its StatefulSet was made from: the same inputs of the user. What else has come into the template since,
/// by another build of the operator or by hand, restarts nobody. Pods of earlier builds do not tell: there the revision does.
fn runs(set: &StatefulSet, pod: &Pod) -> bool {
    if let Some(hash) = annotation(&pod.metadata, ANNOTATION_INPUT_HASH) {
        return annotation(&set.metadata, ANNOTATION_INPUT_HASH) == Some(hash);
    }
    let newest = set.status.as_ref().and_then(|status| status.update_revision.as_deref());
    newest.is_some() && label(&pod.metadata, LABEL_REVISION) == newest
}

fn ordinal(pod: &Pod) -> Option<u32> {
    pod.metadata.name.as_deref()?.rsplit('-').next()?.parse().ok()
}

/// Whether the process of a node is not there: it was never started, or it has ended.
pub(super) fn is_stopped(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let running = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    let running =
        running.filter_map(|container| container.state.as_ref()).any(|state| state.running.is_some());
    let started = status.and_then(|status| status.phase.as_deref()) == Some("Running");
    let told = status.is_some_and(|status| status.container_statuses.is_some());
    // Without a word of its containers, its phase tells.
    !is_ready(pod) && !running && pod.metadata.deletion_timestamp.is_none() && (told || !started)
}

/// Whether it will not start by itself, as far as Kubernetes says: it ends again and again, or its image is not there.
pub(super) fn is_stopped_for_good(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    is_stopped(pod)
        && all.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref()).any(
            |reason| {
                let image = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];
                let config = [
                    "CrashLoopBackOff",
                    "CreateContainerConfigError",
                    "CreateContainerError",
                    "RunContainerError",
                ];
                image.contains(&reason) || config.contains(&reason)
            },
        )
}

/// Names of the masters and data nodes of a cluster that do not run what the spec asks for.
pub fn outdated(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects) -> BTreeSet<String> {
    let work = work(cell, key, objects, None);
    work.iter().flat_map(|work| &work.pods).filter_map(|pod| pod.metadata.name.clone()).collect()
}

/// Whether any node of a cluster does not run what the spec asks for.
pub fn rolls(cell: &ValidCell, key: &ClusterKey, objects: &CellObjects) -> bool {
    !work(cell, key, objects, None).is_empty()
}
