//! The nodes that a cluster ought to have, and which of them are missing. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::ZoneStatus;

use crate::build;
use crate::domain::{IngestScale, ValidCell};
use crate::names::{
    ANNOTATION_CLUSTER_UUID, ANNOTATION_INPUT_HASH, ClusterKey, LABEL_ROLE, LABEL_ZONE, Role,
};
use crate::plan::{master_layout, outdated};
use crate::snapshot::{CellObjects, annotation, is_owned_by, is_ready, label};

/// Nodes that a cluster ought to have: as the spec asks, and never fewer than its workloads run.
pub(super) struct Wanted {
    /// (role, zone) → number; the zone of ingest nodes is empty.
    nodes: BTreeMap<(Role, String), i32>,
    pub(super) workloads_exist: bool,
    pub(super) updated: i32,
    key: ClusterKey,
}

impl Wanted {
    pub(super) fn new(cell: Option<&ValidCell>, key: &ClusterKey, objects: &CellObjects) -> Self {
        let mut nodes: BTreeMap<(Role, String), i32> = BTreeMap::new();
        let mut updated = 0;
        let outdated = cell.map(|cell| outdated(cell, key, objects)).unwrap_or_default();
        let is_updated = |pod: &&Pod| pod.metadata.name.as_ref().is_some_and(|name| !outdated.contains(name));
        for set in &objects.stateful_sets {
            let role =
                Role::ALL.into_iter().find(|role| label(&set.metadata, LABEL_ROLE) == Some(role.as_str()));
            let (Some(role), Some(zone)) = (role, label(&set.metadata, LABEL_ZONE)) else { continue };
            nodes.insert(
                (role, zone.to_owned()),
                set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            );
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let ready = objects.pods.iter().filter(|pod| is_owned_by(&pod.metadata, uid) && is_ready(pod));
            updated += i32::try_from(ready.filter(is_updated).count()).unwrap_or(i32::MAX);
        }
        for deployment in &objects.deployments {
            let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            nodes.insert((Role::Ingest, String::new()), replicas);
            let hash = cell.map(|cell| build::input_hash(cell, Role::Ingest, None));
            if hash.is_none() || hash.as_deref() == annotation(&deployment.metadata, ANNOTATION_INPUT_HASH) {
                updated += deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
            }
        }
        let mut workloads_exist = !nodes.is_empty();
        if let Some(cell) = cell {
            let mut want = |role: Role, zone: &str, count: i32| {
                let entry = nodes.entry((role, zone.to_owned()));
                workloads_exist &=
                    matches!(entry, std::collections::btree_map::Entry::Occupied(_)) || count == 0;
                let live = entry.or_insert(0);
                *live = (*live).max(count);
            };
            for (zone, count) in master_layout(cell, key, objects) {
                want(Role::Master, &zone, count);
            }
            for zone in &cell.zones {
                want(Role::Data, &zone.name, cell.data_per_zone);
            }
            match &cell.ingest {
                Some((IngestScale::Fixed(count), _)) => want(Role::Ingest, "", *count),
                Some((IngestScale::Autoscaled { min, .. }, _)) => want(Role::Ingest, "", *min),
                None => {}
            }
        }
        Self { nodes, workloads_exist, updated, key: key.clone() }
    }

    pub(super) fn total(&self) -> i32 {
        self.nodes.values().sum()
    }

    /// Names of nodes that ought to be there and are not ready. Ingest nodes have no stable names.
    pub(super) fn missing(&self, objects: &CellObjects) -> Vec<String> {
        let ready = |name: &str| {
            objects.pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name) && is_ready(pod))
        };
        let mut missing = Vec::new();
        for ((role, zone), count) in &self.nodes {
            if *role == Role::Ingest {
                let is_ingest =
                    |pod: &&Pod| label(&pod.metadata, LABEL_ROLE) == Some(role.as_str()) && is_ready(pod);
                let there = i32::try_from(objects.pods.iter().filter(is_ingest).count()).unwrap_or(i32::MAX);
                if there < *count {
                    missing.push(format!("nodes of {}", self.key.ingest()));
                }
                continue;
            }
            missing.extend((0..*count).map(|n| self.key.pod(*role, zone, n)).filter(|name| !ready(name)));
        }
        missing
    }

    /// True when no missing node has ever been a member: its volume carries no UUID yet, or it has no volume.
    pub(super) fn only_new_nodes_missing(&self, objects: &CellObjects, missing: &[String]) -> bool {
        missing.iter().all(|name| {
            let claim = objects
                .claims
                .iter()
                .find(|claim| claim.metadata.name.as_deref() == Some(&format!("data-{name}")));
            claim.is_none_or(|claim| annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).is_none())
        })
    }

    pub(super) fn zones(&self, ready: &[&Pod]) -> Vec<ZoneStatus> {
        let mut zones: BTreeMap<&str, ZoneStatus> = BTreeMap::new();
        for ((role, zone), count) in &self.nodes {
            if *role != Role::Ingest {
                let entry = zones
                    .entry(zone)
                    .or_insert_with(|| ZoneStatus { name: zone.clone(), ..ZoneStatus::default() });
                entry.total += count;
            }
        }
        for pod in ready {
            if let Some(entry) = label(&pod.metadata, LABEL_ZONE).and_then(|zone| zones.get_mut(zone)) {
                entry.ready += 1;
            }
        }
        zones.into_values().collect()
    }
}
