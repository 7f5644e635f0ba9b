//! Specs that have been validated: what the rest of the core works with. Pure.
//!
//! Nothing in these types can be wrong in a way that a later stage would have to report, which is why `build`
//! and `plan` are infallible.

mod releases;
pub mod upgrade;
mod version;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use searchcell_crds::{ClusterPlacement, DeletionPolicy, RolloutUnit, Waiver};
use serde_json::{Map, Value};

pub use version::EsVersion;

use crate::names::{ClusterKey, Role};

/// A SearchCell whose spec is valid and supported by this version of the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidCell {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID: what owner references point to.
    pub uid: String,
    /// When the object was created; older volumes are not ours to overwrite.
    pub created_at: Option<Timestamp>,
    /// Version that new nodes run.
    pub version: EsVersion,
    /// Image that new nodes run.
    pub image: String,
    /// Node label whose value is the zone.
    pub topology_key: String,
    /// Sorted by name.
    pub zones: Vec<ValidZone>,
    /// In the order of the spec.
    pub clusters: Vec<ValidCluster>,
    /// How many master-eligible nodes a cluster has: 1, 3 or 5.
    pub master_count: i32,
    /// Master nodes.
    pub master: ValidRole,
    /// Data nodes in each zone.
    pub data_per_zone: i32,
    /// Data nodes.
    pub data: ValidRole,
    /// Ingest nodes; absent: the data nodes take their work.
    pub ingest: Option<(IngestScale, ValidRole)>,
    /// The user's persistent cluster settings, flat.
    pub cluster_settings: BTreeMap<String, Value>,
    /// What happens to volumes when the cell or a cluster goes.
    pub deletion_policy: DeletionPolicy,
    /// How long a settled cluster stays settled before the next of its nodes restarts.
    pub soak: Duration,
    /// What restarts together.
    pub unit: RolloutUnit,
    /// Cluster that changes first.
    pub canary: Option<String>,
    /// Whether a rollout waits for the annotation of a user.
    pub is_approved_by_hand: bool,
    /// Most clusters whose nodes restart at the same time.
    pub max_unavailable_clusters: i32,
    /// What a user answers for.
    pub waived: Vec<Waiver>,
    /// Another value restarts all nodes.
    pub restarted_at: Option<String>,
    /// Nothing is changed while true.
    pub suspend: bool,
    /// TLS on both layers, and users; else neither.
    pub is_secure: bool,
    /// The keystore of its nodes; absent: they have the one that Elasticsearch makes.
    pub keystore: Option<ValidKeystore>,
    /// Hashes of it that are asked for again and again in a pass.
    pub(crate) hashes: Memo,
}

/// What was made of a value before, by what it was made for. A copy of it is empty: the copy of the value may be changed.
#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<BTreeMap<(Role, Option<String>), String>>);

impl Memo {
    /// Made at the first call.
    pub(crate) fn get(&self, role: Role, zone: Option<&ValidZone>, make: impl FnOnce() -> String) -> String {
        let key = (role, zone.map(|zone| zone.value.clone()));
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(key).or_insert_with(make).clone()
    }
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The keystore of a cell's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidKeystore {
    /// Secrets of the user, in the order of the spec.
    pub secrets: Vec<String>,
    /// The operator's Secret that nodes are to have it from. What it is lies with the contents of Secrets: validation
    /// leaves it open, [`crate::security::keystore::resolve`] finds it. Absent: there is none yet.
    pub from: Option<String>,
    /// For each of the operator's Secrets that nodes have: the entries that these nodes would load at a restart only.
    pub pending: BTreeMap<String, Vec<String>>,
    /// It is there with all that only a restart loads, and nobody doubts that it is the one: templates may name it.
    pub is_ready: bool,
}

impl ValidCell {
    /// Key of one of its clusters.
    pub fn key(&self, cluster: &str) -> ClusterKey {
        ClusterKey::new(&self.namespace, &self.name, cluster)
    }

    /// Names of all zones, sorted.
    pub fn zone_names(&self) -> Vec<&str> {
        self.zones.iter().map(|zone| zone.name.as_str()).collect()
    }

    /// Whether a zone is to have nodes.
    pub fn is_active(&self, zone: &str) -> bool {
        self.zones.iter().any(|of| of.name == zone)
    }

    /// How clients talk to its clusters.
    pub fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }

    /// The settings of a role that has nodes in this cell.
    pub fn role(&self, role: Role) -> Option<&ValidRole> {
        match role {
            Role::Master => Some(&self.master),
            Role::Data => Some(&self.data),
            Role::Ingest => self.ingest.as_ref().map(|(_, valid)| valid),
        }
    }
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidZone {
    /// In object names and as `node.attr.zone`.
    pub name: String,
    /// Value of the topology label.
    pub value: String,
}

/// A cluster of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidCluster {
    /// Its identity in the cell.
    pub name: String,
    /// Whether new indices may land here.
    pub placement: ClusterPlacement,
}

/// How the number of ingest nodes is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestScale {
    /// By the spec: the operator owns `replicas`.
    Fixed(i32),
    /// By a HorizontalPodAutoscaler: the operator does not own `replicas`.
    Autoscaled {
        /// Lower bound.
        min: i32,
        /// Upper bound.
        max: i32,
        /// Target in percent of the CPU request.
        cpu_percent: i32,
    },
}

/// What the user says of the nodes of one role. Everything here is an input of the node's template: a change
/// needs a rolling restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValidRole {
    /// Requests, by resource.
    pub requests: BTreeMap<String, Quantity>,
    /// Limits, by resource.
    pub limits: BTreeMap<String, Quantity>,
    /// Heap in bytes; absent: Elasticsearch sizes it from the memory limit.
    pub heap_bytes: Option<i64>,
    /// Lines for `jvm.options.d`.
    pub jvm_options: Vec<String>,
    /// `elasticsearch.yml`: the settings for all nodes overlaid with those of the role, flat.
    pub settings: BTreeMap<String, Value>,
    /// Strategic merge patch over the operator's pod template.
    pub pod_template: Option<Value>,
    /// Volume; absent for ingest nodes.
    pub storage: Option<ValidStorage>,
}

/// A volume claim.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidStorage {
    /// Size as the user wrote it.
    pub size: Quantity,
    /// Storage class; absent: the default class.
    pub storage_class_name: Option<String>,
}

/// An IndexPlacement whose spec is valid and supported by this version of the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidPlacement {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Name of the SearchCell.
    pub cell: String,
    /// Collection.
    pub collection: String,
    /// Field of the document that names the tenant.
    pub tenant_field: String,
    /// The indices that ought to exist, sorted by name.
    pub indices: Vec<ValidIndex>,
    /// True for a pool: documents are routed by tenant.
    pub is_pool: bool,
    /// Replicas of each shard as the spec gives them; absent: `min(zones − 1, 2)` at creation.
    pub replicas: Option<i32>,
    /// The user's index settings, flat.
    pub settings: BTreeMap<String, Value>,
    /// The user's mappings. Those of the pool for a dedicated placement that has none of its own.
    pub mappings: Map<String, Value>,
    /// What happens to the indices when the placement goes.
    pub deletion_policy: DeletionPolicy,
    /// Things worth a notice that refuse nothing, for example more than 200 M documents a shard.
    pub notices: Vec<String>,
}

impl ValidPlacement {
    /// Number of indices of a pool.
    pub fn pool_size(&self) -> Option<i32> {
        self.is_pool.then(|| i32::try_from(self.indices.len()).unwrap_or(i32::MAX))
    }
}

/// One index of a placement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValidIndex {
    /// Name, generation included.
    pub name: String,
    /// Primary shards.
    pub shards: i32,
    /// Generation, from 1.
    pub generation: i32,
    /// The tenant of a dedicated index.
    pub tenant: Option<String>,
}
