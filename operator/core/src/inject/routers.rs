//! The pods of routers: which tables they should have by now, what they lack, and what a pod that runs without its router
//! is told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde::Deserialize;

use super::sidecar::ACCESS;
use super::{Collection, Verdict, asked_by, has_router};
use crate::names::{ANNOTATION_INJECT_ROUTER, ANNOTATION_ROUTES_GENERATION, LABEL_ROUTER_INJECTION};
use crate::snapshot::annotation;

/// A pod with the label of routers, as far as anything is decided about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterPod {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// Its address, while it runs.
    pub address: Option<String>,
    /// Collections that it asked for; absent: it is a router by itself, with collections of its namespace.
    pub collections: Option<BTreeSet<String>>,
    /// The generation that its kubelet was told of.
    pub told: Option<i64>,
    /// Has the container of a router that was injected.
    pub has_router: bool,
    /// Cells whose files it mounts, where it was injected.
    pub cells: BTreeSet<String>,
}

impl RouterPod {
    /// Absent for a pod that ends or has ended, or is nobody's.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if meta.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            address: address.filter(|_| phase == Some("Running")),
            collections: annotation(meta, ANNOTATION_INJECT_ROUTER).map(|_| asked_by(meta)),
            told: annotation(meta, ANNOTATION_ROUTES_GENERATION).and_then(|told| told.parse().ok()),
            has_router: has_router(spec),
            cells: mounted(spec),
        })
    }

    /// True when it runs, asked for a router, and has none: somebody else gave it the label.
    pub fn is_without(&self) -> bool {
        self.collections.is_some() && !self.has_router && self.address.is_some()
    }

    /// Whether a collection of its namespace is one of its own.
    pub fn routes(&self, collection: &str) -> bool {
        self.collections.as_ref().is_none_or(|own| own.contains(collection))
    }

    /// The generation that its kubelet should be told of, when that is news. `published`: by collection of its
    /// namespace.
    pub fn news(&self, published: &BTreeMap<String, i64>) -> Option<i64> {
        let own = published.iter().filter(|(collection, _)| self.routes(collection));
        let newest = own.map(|(_, generation)| *generation).max()?;
        (self.told.is_none_or(|told| told < newest)).then_some(newest)
    }

    /// Cells of its collections that it has no files of: only a new pod mounts them.
    pub fn lacks(&self, collections: &BTreeMap<String, Collection>) -> BTreeSet<String> {
        if !self.has_router {
            return BTreeSet::new();
        }
        let own = collections.iter().filter(|(name, _)| self.routes(name));
        let cells: BTreeSet<String> =
            own.flat_map(|(_, collection)| collection.cells.iter().cloned()).collect();
        cells.difference(&self.cells).cloned().collect()
    }
}

/// Cells whose trust a pod mounts for its router.
fn mounted(spec: &PodSpec) -> BTreeSet<String> {
    let volumes = spec.volumes.iter().flatten().filter(|volume| volume.name == ACCESS);
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    let paths = sources.filter_map(|source| source.config_map.as_ref()?.items.as_ref()).flatten();
    paths.filter_map(|item| item.path.split_once('/')).map(|(cell, _)| cell.to_owned()).collect()
}

/// What a pod is told that runs without the router that it asked for; `None`: it has one, or asked for none.
pub fn missing(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::NotAsked | Verdict::Present => None,
        Verdict::Refused(refusal) => Some(format!("the pod runs without a router: {refusal}")),
        Verdict::Inject(_) => Some(format!(
            "the pod runs without a router: when it was made, its namespace had no label {LABEL_ROUTER_INJECTION}=enabled, \
             the operator's webhook did not answer, or the collection had no placement yet. Delete the pod: the one \
             that comes in its place gets a router"
        )),
    }
}

/// What a pod is told whose router cannot reach cells.
pub fn outdated(lacks: &BTreeSet<String>) -> String {
    let cells: Vec<&str> = lacks.iter().take(8).map(String::as_str).collect();
    format!(
        "the pod was made before its collections came to SearchCell {}: its router has no credential there. Delete the \
         pod: the one that comes in its place mounts it",
        cells.join(", ")
    )
}

/// What a router says at `/generation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Reading {
    /// By collection.
    pub collections: BTreeMap<String, Generations>,
}

/// How far a router is with one collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Generations {
    /// The table that it resolves with.
    pub applied: i64,
    /// Nothing older than this is in flight.
    pub drained: i64,
}

/// How far a router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has every table, and nothing of an older one is in flight.
    Current,
    /// It has every table, and something of an older one is in flight.
    Draining,
    /// It has not every table; by how much the worst is behind.
    Behind(i64),
}

impl RouterPod {
    /// Compares what it says with what is published in its namespace.
    pub fn progress(&self, reading: &Reading, published: &BTreeMap<String, i64>) -> Progress {
        let (mut lag, mut draining) = (0, false);
        for (collection, generation) in published.iter().filter(|(collection, _)| self.routes(collection)) {
            match reading.collections.get(collection) {
                Some(has) => {
                    lag = lag.max(generation.saturating_sub(has.applied));
                    draining |= has.drained < has.applied;
                }
                // One by itself need not have all of its namespace.
                None if self.collections.is_none() => {}
                None => lag = lag.max(*generation),
            }
        }
        match (lag, draining) {
            (1.., _) => Progress::Behind(lag),
            (_, true) => Progress::Draining,
            _ => Progress::Current,
        }
    }
}

#[cfg(test)]
#[path = "routers_tests.rs"]
mod tests;
