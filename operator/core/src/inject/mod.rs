//! The router as a sidecar: whether a pod that asks for one gets it, and the patch that puts it in. Pure.
//!
//! Nothing here ever keeps a pod from being admitted: what cannot be done is a [`Refusal`], and the pod runs without.

pub mod certificate;
pub mod hot;
mod patch;
pub mod routers;
pub mod sidecar;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::IndexPlacement;

use crate::names::{
    ANNOTATION_INJECT_ROUTER, ANNOTATION_ROUTER_BUDGET, HTTP_PORT, ROUTER_ADMIN_PORT, ROUTER_CONTAINER,
};
use crate::routing::Published;
use crate::snapshot::annotation;
pub use patch::{Added, Operation};
use sidecar::{Sidecar, VOLUMES};

/// Most collections of one router.
pub const MOST_COLLECTIONS: usize = 64;
/// Bytes that a router may have in flight, unless the pod says otherwise.
const DEFAULT_BUDGET_MIB: u32 = 256;
/// A router with less could not hold four bulks and a request.
const LEAST_BUDGET_MIB: u32 = 16;
/// More is no sidecar.
const MOST_BUDGET_GIB: u32 = 16;
/// Most characters of a user's words that are repeated.
const MOST_QUOTED: usize = 63;

/// A collection, as far as a router's pod is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// SearchCells that its documents are in, or will be.
    pub cells: BTreeSet<String>,
    /// Generation of its table; absent: none is published yet.
    pub generation: Option<i64>,
}

/// The collections of a namespace, by name: those that have a placement that stays.
pub fn collections<'a>(
    placements: &'a [IndexPlacement],
    table: impl Fn(&str) -> Option<std::sync::Arc<Published>>,
) -> BTreeMap<String, Collection> {
    let mut found: BTreeMap<String, Collection> = BTreeMap::new();
    let stays = |placement: &&'a IndexPlacement| placement.metadata.deletion_timestamp.is_none();
    for placement in placements.iter().filter(stays) {
        let collection = found.entry(placement.spec.collection.clone()).or_default();
        collection.cells.insert(placement.spec.cell.clone());
    }
    for (name, collection) in &mut found {
        // What is still on its way from another cell is read there.
        if let Some(table) = table(name).as_ref().and_then(|published| published.table.as_ref()) {
            collection.cells.extend(table.clusters.iter().map(|cluster| cluster.cell.clone()));
            collection.generation = Some(table.generation);
        }
    }
    found
}

/// Why a pod gets no router. Short enough for a warning of the API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The annotation names nothing.
    #[error("{ANNOTATION_INJECT_ROUTER}: no collection is named; write their names with commas between them")]
    NoCollection,
    /// It names too many.
    #[error("{ANNOTATION_INJECT_ROUTER}: {0} collections are named; a router has at most {MOST_COLLECTIONS}")]
    TooManyCollections(usize),
    /// A name that no placement has.
    #[error(
        "{ANNOTATION_INJECT_ROUTER}: no IndexPlacement of this namespace has collection {0:?}; create one, or \
         correct the name"
    )]
    UnknownCollection(String),
    /// The other annotation is wrong.
    #[error(
        "{ANNOTATION_ROUTER_BUDGET}: {0:?} is not a size from {LEAST_BUDGET_MIB}Mi to {MOST_BUDGET_GIB}Gi, like 512Mi"
    )]
    Budget(String),
    /// The router would listen on the node, and every application of the node could write.
    #[error(
        "spec.hostNetwork: a router is not injected into the network of a node; run it as pods of its own"
    )]
    HostNetwork,
    /// There is no router for it.
    #[error("spec.os.name: a router is not injected into a pod of {0:?}")]
    System(String),
    /// A container has the port.
    #[error("container {container:?} has port {port}, which the router needs; move it to another port")]
    PortTaken {
        /// Which container.
        container: String,
        /// Which port.
        port: i32,
    },
    /// A volume has the name.
    #[error("volume {0:?} has the name of a volume of the router; rename it")]
    VolumeTaken(String),
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It does not ask for a router.
    NotAsked,
    /// It has one.
    Present,
    /// It gets one, by this JSON patch.
    Inject(Vec<Operation>),
    /// It asks for one and cannot have it.
    Refused(Refusal),
}

/// Decides about a pod. `collections`: those of its namespace; `image`: of the router.
pub fn inject(pod: &Pod, collections: &BTreeMap<String, Collection>, image: &str) -> Verdict {
    if annotation(&pod.metadata, ANNOTATION_INJECT_ROUTER).is_none() {
        return Verdict::NotAsked;
    }
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    if has_router(spec) {
        return Verdict::Present;
    }
    match wanted(pod, spec, collections) {
        Ok(sidecar) => Verdict::Inject(patch::operations(pod, spec, &sidecar, image)),
        Err(refusal) => Verdict::Refused(refusal),
    }
}

/// True when the pod has the container of a router.
pub fn has_router(spec: &PodSpec) -> bool {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.into_iter().any(|container| container.name == ROUTER_CONTAINER)
}

/// The collections that a pod asks for, each once, in order.
pub fn asked_by(pod: &ObjectMeta) -> BTreeSet<String> {
    let names = annotation(pod, ANNOTATION_INJECT_ROUTER).unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn wanted(pod: &Pod, spec: &PodSpec, collections: &BTreeMap<String, Collection>) -> Result<Sidecar, Refusal> {
    let names = asked_by(&pod.metadata);
    if names.is_empty() {
        return Err(Refusal::NoCollection);
    }
    if names.len() > MOST_COLLECTIONS {
        return Err(Refusal::TooManyCollections(names.len()));
    }
    let mut cells = BTreeSet::new();
    let mut generation = None;
    for name in &names {
        let found = collections.get(name).ok_or_else(|| Refusal::UnknownCollection(quoted(name)))?;
        cells.extend(found.cells.iter().cloned());
        generation = generation.max(found.generation);
    }
    let budget_mib = match annotation(&pod.metadata, ANNOTATION_ROUTER_BUDGET) {
        None => DEFAULT_BUDGET_MIB,
        Some(text) => mebibytes(text).ok_or_else(|| Refusal::Budget(quoted(text)))?,
    };
    fits(spec)?;
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    Ok(Sidecar { collections: names, cells, budget_mib, grace, generation })
}

/// Whether there is room for a router beside what the pod has.
fn fits(spec: &PodSpec) -> Result<(), Refusal> {
    if spec.host_network == Some(true) {
        return Err(Refusal::HostNetwork);
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        return Err(Refusal::System(quoted(&os.name)));
    }
    // Other init containers have ended before the application starts, but not before the router does.
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        if let Some(port) = taken(container) {
            return Err(Refusal::PortTaken { container: container.name.clone(), port });
        }
    }
    let mut volumes = spec.volumes.iter().flatten().map(|volume| volume.name.as_str());
    match volumes.find(|name| VOLUMES.contains(name)) {
        Some(name) => Err(Refusal::VolumeTaken(name.to_owned())),
        None => Ok(()),
    }
}

/// A port that both would listen on, as far as the container says which ones it has.
fn taken(container: &Container) -> Option<i32> {
    let is_tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let ports = container.ports.iter().flatten().filter(|port| is_tcp(&port.protocol));
    ports.map(|port| port.container_port).find(|port| [HTTP_PORT, ROUTER_ADMIN_PORT].contains(port))
}

/// A size in whole mebibytes, as the router's file takes it.
fn mebibytes(text: &str) -> Option<u32> {
    let text = text.trim();
    let (number, factor) = match (text.strip_suffix("Mi"), text.strip_suffix("Gi")) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1 << 10),
        (None, None) => return None,
    };
    let mebibytes = number.parse::<u32>().ok()?.checked_mul(factor)?;
    (LEAST_BUDGET_MIB..=MOST_BUDGET_GIB << 10).contains(&mebibytes).then_some(mebibytes)
}

fn quoted(text: &str) -> String {
    text.chars().take(MOST_QUOTED).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
