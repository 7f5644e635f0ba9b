//! Which certificates the nodes of a workload need: one of each layer per node where pods have stable names, one of
//! each layer for all where they have not. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::order::Source;
use super::{CertificateFacts, Layer, SecretFacts};
use crate::domain::ValidCell;
use crate::names::{ClusterKey, LABEL_ROLE, LABEL_ZONE, Role};
use crate::plan::master_layout;
use crate::snapshot::{CellObjects, is_owned_by, label};

/// File name of the certificates that all ingest nodes of a cluster share.
pub const SHARED: &str = "ingest";

/// A StatefulSet or Deployment, and the files that its nodes read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// Names before `.http.crt` and so on: pods, or [`SHARED`].
    pub nodes: BTreeSet<String>,
}

impl Workload {
    /// The Secret of its certificates.
    pub fn secret(&self) -> String {
        certificates_secret(&self.name)
    }

    /// The file name of a pod's certificates.
    pub fn node_of<'a>(&self, pod: &'a str) -> &'a str {
        if self.role == Role::Ingest { SHARED } else { pod }
    }

    /// Everything that its nodes need.
    pub fn leaves(&self, key: &ClusterKey) -> Vec<Leaf> {
        let of = |node: &String| Layer::ALL.map(|layer| Leaf::new(key, self, node, layer));
        self.nodes.iter().flat_map(of).collect()
    }
}

/// The Secret of the certificates of a workload.
pub fn certificates_secret(workload: &str) -> String {
    format!("{workload}-certificates")
}

/// One certificate of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// File name without its ending, for example `guilds-a-data-b-0.http`.
    pub file: String,
    /// Layer.
    pub layer: Layer,
    /// Common name.
    pub common_name: String,
    /// Names and addresses that clients use.
    pub names: BTreeSet<String>,
}

impl Leaf {
    fn new(key: &ClusterKey, workload: &Workload, node: &str, layer: Layer) -> Self {
        let host = if node == SHARED { &workload.name } else { node };
        let mut names = BTreeSet::from([host.to_owned()]);
        if layer == Layer::Http {
            names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
            for service in [key.name(), key.http_service()] {
                names.extend(forms(&service, &key.namespace));
            }
        }
        if node != SHARED {
            // The names that the StatefulSet's Service gives to its pods, and those of the Service for clients.
            for service in [key.transport_service(), key.http_service()] {
                names.extend(forms(&format!("{host}.{service}"), &key.namespace));
            }
        }
        Self { file: format!("{node}.{layer}"), layer, common_name: host.to_owned(), names }
    }

    /// The certificate that is there, when it is good for another while: it has its key, its source is the present
    /// one, its names are all there, and it is not due.
    pub fn is_good(
        &self,
        secret: &SecretFacts,
        source: &Source,
        issuer: &CertificateFacts,
        now: Timestamp,
    ) -> bool {
        let Some(found) = secret.pair(&self.file) else { return false };
        match source {
            Source::Authority { .. } => {
                found.is_signed_by(issuer) && self.names.is_subset(&found.names) && now < found.renew_at()
            }
            Source::Supplied { fingerprint, .. } => found.fingerprint == *fingerprint,
        }
    }
}

/// A name of a Service, or of a pod below it, in all forms that resolvers of the cluster take.
fn forms(name: &str, namespace: &str) -> [String; 4] {
    [
        name.to_owned(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ]
}

/// The workloads of a cluster: those that the spec asks for, and those that are there. Without a valid spec, the latter.
pub fn workloads(
    cell: Option<&ValidCell>,
    uid: &str,
    key: &ClusterKey,
    objects: &CellObjects,
) -> Vec<Workload> {
    let mut found: BTreeMap<String, Workload> = BTreeMap::new();
    let mut add = |name: String, role: Role, zone: Option<&str>, nodes: BTreeSet<String>| {
        let zone = zone.map(str::to_owned);
        let new = Workload { name: name.clone(), role, zone, nodes: BTreeSet::new() };
        found.entry(name).or_insert(new).nodes.extend(nodes);
    };
    let pods = |name: &str, count: i32| (0..count).map(|ordinal| format!("{name}-{ordinal}")).collect();
    for set in objects.stateful_sets.iter().filter(|set| is_owned_by(&set.metadata, uid)) {
        let name = set.metadata.name.clone().unwrap_or_default();
        let role = Role::ALL.into_iter().find(|role| label(&set.metadata, LABEL_ROLE) == Some(role.as_str()));
        let Some(role) = role else { continue };
        let count = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let nodes = pods(&name, count);
        add(name, role, label(&set.metadata, LABEL_ZONE), nodes);
    }
    let shared = || BTreeSet::from([SHARED.to_owned()]);
    for deployment in objects.deployments.iter().filter(|o| is_owned_by(&o.metadata, uid)) {
        add(deployment.metadata.name.clone().unwrap_or_default(), Role::Ingest, None, shared());
    }
    if let Some(cell) = cell {
        let masters = master_layout(cell, key, objects);
        for zone in &cell.zones {
            let count = masters.get(&zone.name).copied().unwrap_or(0);
            for (role, count) in [(Role::Master, count), (Role::Data, cell.data_per_zone)] {
                if count > 0 {
                    let name = key.stateful_set(role, &zone.name);
                    let nodes = pods(&name, count);
                    add(name, role, Some(&zone.name), nodes);
                }
            }
        }
        if cell.ingest.is_some() {
            add(key.ingest(), Role::Ingest, None, shared());
        }
    }
    found.into_values().collect()
}
