//! What was observed of the world, as plain data: Kubernetes objects from watch caches, and for each
//! Elasticsearch cluster a reading that is known or unavailable. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::{IndexPlacement, SearchCell};
use serde_json::Value;

use crate::names::{LABEL_CLUSTER, LABEL_ROLE, LABEL_ZONE};
use crate::plan::{Disruption, setting_text};
use crate::security::keystore::SecureSource;
use crate::security::{Layer, Lifetimes, SecretFacts, Served, Supplied};

/// A remote reading. An unavailable one satisfies no gate: "the shard query failed" is not "no shards".
#[derive(Clone, Debug, PartialEq)]
pub enum Reading<T> {
    /// Read in this pass, or still valid from a recent one.
    Known(T),
    /// Not read; says why in words for a person. Stable text: no times, no counters.
    Unavailable(String),
}

impl<T> Reading<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Reading::Known(value) => Some(value),
            Reading::Unavailable(_) => None,
        }
    }
}

/// Everything that one pass over a SearchCell looks at.
#[derive(Clone, Debug)]
pub struct CellSnapshot {
    /// The object as the watch cache has it: spec, metadata and the status of the previous pass.
    pub cell: SearchCell,
    /// All objects that carry this cell's labels, those of removed clusters included.
    pub objects: CellObjects,
    /// By cluster name. A cluster that was not read at all is missing, and counts as unavailable.
    pub elastic: BTreeMap<String, Reading<ElasticFacts>>,
    /// All placements of the namespace that name this cell.
    pub placements: Vec<IndexPlacement>,
    /// What the nodes show on their ports, by pod UID; only of those that were to be asked.
    pub served: BTreeMap<String, Reading<Served>>,
    /// Secrets that a user supplied for a layer.
    pub supplied: BTreeMap<Layer, Supplied>,
    /// Secrets of `spec.secureSettings`, by name.
    pub secure_settings: BTreeMap<String, SecureSource>,
    /// Whether this operator restarts nodes that do not run what the spec asks for.
    pub restarts_nodes: bool,
    /// Clusters of all cells whose nodes restart, this one's included.
    pub disruptions: Vec<Disruption>,
    /// How many of them there may be at a time.
    pub most_disruptions: usize,
    /// How this operator was told to rotate.
    pub lifetimes: Lifetimes,
    /// Where the operator's own pods run: they have to be let in to the cluster's nodes.
    pub operator_namespace: String,
}

impl CellSnapshot {
    /// What Elasticsearch said about a cluster, if it said anything.
    pub fn elastic(&self, cluster: &str) -> Option<&ElasticFacts> {
        self.elastic.get(cluster).and_then(Reading::known)
    }
}

/// Kubernetes objects, selected by label. Owner references are *not* checked yet: see [`is_owned_by`].
#[derive(Clone, Debug, Default)]
pub struct CellObjects {
    /// Masters and data nodes.
    pub stateful_sets: Vec<StatefulSet>,
    /// Ingest nodes.
    pub deployments: Vec<Deployment>,
    /// Of the ingest Deployments.
    pub autoscalers: Vec<HorizontalPodAutoscaler>,
    /// Discovery and client Services.
    pub services: Vec<Service>,
    /// Bootstrap maps.
    pub config_maps: Vec<ConfigMap>,
    /// One per role.
    pub budgets: Vec<PodDisruptionBudget>,
    /// One per cluster.
    pub network_policies: Vec<NetworkPolicy>,
    /// Volumes; have no owner on purpose.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Pods of all roles.
    pub pods: Vec<Pod>,
    /// Of authorities, nodes and users.
    pub secrets: Vec<SecretFacts>,
}

impl CellObjects {
    /// The objects of one cluster, and the Secrets and ConfigMaps of the cell as a whole.
    pub fn of_cluster(&self, cluster: &str) -> CellObjects {
        fn keep<T: Clone>(items: &[T], cluster: &str, meta: impl Fn(&T) -> &ObjectMeta) -> Vec<T> {
            items.iter().filter(|item| label(meta(item), LABEL_CLUSTER) == Some(cluster)).cloned().collect()
        }
        CellObjects {
            stateful_sets: keep(&self.stateful_sets, cluster, |o| &o.metadata),
            deployments: keep(&self.deployments, cluster, |o| &o.metadata),
            autoscalers: keep(&self.autoscalers, cluster, |o| &o.metadata),
            services: keep(&self.services, cluster, |o| &o.metadata),
            config_maps: (self.config_maps.iter())
                .filter(|map| label(&map.metadata, LABEL_CLUSTER).is_none_or(|of| of == cluster))
                .cloned()
                .collect(),
            budgets: keep(&self.budgets, cluster, |o| &o.metadata),
            network_policies: keep(&self.network_policies, cluster, |o| &o.metadata),
            claims: keep(&self.claims, cluster, |o| &o.metadata),
            pods: keep(&self.pods, cluster, |o| &o.metadata),
            secrets: (self.secrets.iter())
                .filter(|secret| label(&secret.metadata, LABEL_CLUSTER).is_none_or(|of| of == cluster))
                .cloned()
                .collect(),
        }
    }

    /// Names of all clusters that any object belongs to, sorted.
    pub fn cluster_names(&self) -> Vec<String> {
        let metas = (self.stateful_sets.iter().map(|o| &o.metadata))
            .chain(self.deployments.iter().map(|o| &o.metadata))
            .chain(self.autoscalers.iter().map(|o| &o.metadata))
            .chain(self.services.iter().map(|o| &o.metadata))
            .chain(self.config_maps.iter().map(|o| &o.metadata))
            .chain(self.budgets.iter().map(|o| &o.metadata))
            .chain(self.network_policies.iter().map(|o| &o.metadata))
            .chain(self.claims.iter().map(|o| &o.metadata))
            .chain(self.pods.iter().map(|o| &o.metadata));
        let mut names: Vec<String> =
            metas.filter_map(|meta| label(meta, LABEL_CLUSTER)).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A label of an object.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// An annotation of an object.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Role and zone labels of an object.
pub fn role_and_zone(meta: &ObjectMeta) -> (Option<&str>, Option<&str>) {
    (label(meta, LABEL_ROLE), label(meta, LABEL_ZONE))
}

/// True when the object's *controlling* owner is the object with this UID.
pub fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// True when a pod is ready and not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && (pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What one Elasticsearch cluster said about itself, from one consistent cluster state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ElasticFacts {
    /// `cluster_uuid`; absent while the cluster has not formed (`_na_`).
    pub uuid: Option<String>,
    /// The user that the operator was when it read; absent without security.
    pub known_as: Option<String>,
    /// Node name of the elected master; absent when there is none.
    pub master: Option<String>,
    /// All nodes of the cluster, by name.
    pub nodes: BTreeMap<String, ElasticNode>,
    /// Persistent cluster settings, flat.
    pub settings: BTreeMap<String, Value>,
    /// All indices, by name: many, and looked at by many passes.
    pub indices: Arc<BTreeMap<String, IndexFacts>>,
    /// Persistent ids of the masters whose votes count.
    pub voting: BTreeSet<String>,
    /// Names of the masters that are kept from voting, since they go away.
    pub no_votes: BTreeSet<String>,
    /// Refreshed with `counts`, by node name; absent until the first reading.
    pub loads: Option<BTreeMap<String, NodeLoad>>,
    /// Asked for only while nodes restart.
    pub shutdowns: Shutdowns,
    /// Asked for only while another version is asked for than any node has.
    pub preflight: Preflight,
    /// Why a copy of a shard has no node, in Elasticsearch's own words; absent while all have one, and until it was asked.
    pub unassigned: Option<Unassigned>,
    /// Refreshed every few minutes only, by index; absent until the first reading.
    pub counts: Option<Arc<BTreeMap<String, IndexCounts>>>,
    /// Refreshed with `counts`, by node name; absent until the first reading.
    pub disks: Option<BTreeMap<String, NodeDisk>>,
}

/// What Elasticsearch was told of nodes that go away for a while, and whether it can be told at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shutdowns {
    /// Nobody has asked, or it was not answered.
    #[default]
    Unknown,
    /// This build has no API for it.
    NotAvailable,
    /// By persistent node id.
    Known(BTreeMap<String, Shutdown>),
}

/// The answer of something that a build of Elasticsearch may not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked<T> {
    /// Nobody has asked, or it was not answered.
    #[default]
    Unknown,
    /// This build has no API for it.
    NotAvailable,
    /// The answer.
    Known(T),
}

/// What speaks against another version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// What Elasticsearch calls critical for the next major version, in its own words.
    pub deprecations: Asked<Vec<String>>,
    /// By name of the index, when its newest successful snapshot was complete.
    pub snapshots: Asked<BTreeMap<String, Timestamp>>,
}

/// One record of the node shutdown API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// `RESTART`, `REMOVE`, `REPLACE` or `SIGTERM`.
    pub kind: String,
    /// What whoever made it gave as the reason.
    pub reason: String,
}

/// One node as Elasticsearch sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ElasticNode {
    /// Persistent node id.
    pub id: String,
    /// `x.y.z`.
    pub version: String,
    /// For example `["data"]`.
    pub roles: Vec<String>,
    /// `node.attr.zone`.
    pub zone: Option<String>,
}

impl ElasticNode {
    /// True when it holds shards.
    pub fn is_data(&self) -> bool {
        self.roles.iter().any(|role| role == "data" || role.starts_with("data_"))
    }
}

/// One index as metadata and routing table have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IndexFacts {
    /// Index UUID.
    pub uuid: String,
    /// `index.number_of_shards`.
    pub primaries: i32,
    /// `index.number_of_replicas`.
    pub replicas: i32,
    /// All its settings but those of analysis, flat, `index.` in front.
    pub settings: BTreeMap<String, Value>,
    /// `_meta.searchcell` of its mapping: who it belongs to.
    pub mark: Option<OwnershipMark>,
    /// All copies of all shards, the unassigned included.
    pub copies: Vec<ShardCopy>,
}

impl IndexFacts {
    /// Most replicas that Elasticsearch itself gives an index that `index.auto_expand_replicas` rules; absent: its number is
    /// fixed. Those that may be everywhere have no bound.
    pub fn most_replicas(&self) -> Option<usize> {
        let range = setting_text(self.settings.get("index.auto_expand_replicas")?);
        let (_, most) = range.rsplit_once('-')?;
        Some(if most == "all" { usize::MAX } else { most.parse().ok()? })
    }
}

/// The mark of ownership in a managed index's mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OwnershipMark {
    /// Namespace of the IndexPlacement.
    pub namespace: String,
    /// Its collection.
    pub collection: String,
    /// Its name.
    pub placement: String,
    /// Index generation, from 1.
    pub generation: i32,
    /// Hash of the placement's inputs that the index was made from.
    #[serde(default)]
    pub inputs: String,
    /// How many indices the pool was made of; absent for dedicated indices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<i32>,
    /// Replicas that it was made with; in force while the placement says nothing of replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Names of the settings that were set for its placement: one that is not asked for any more goes back to its default.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub settings: BTreeSet<String>,
    /// Hash of its settings of analysis; empty: it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub analysis: String,
}

/// One copy of a shard in the routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCopy {
    /// Shard number.
    pub shard: i32,
    /// Primary or replica.
    pub primary: bool,
    /// State in the routing table.
    pub state: ShardState,
    /// Node name it is on; for a relocating copy the source.
    pub node: Option<String>,
    /// Since when it waits for its first start, because its index or itself is new; absent for one that was started before.
    pub new_since: Option<Timestamp>,
}

/// Why a copy of a shard has no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unassigned {
    /// Index of the shard.
    pub index: String,
    /// Its number.
    pub shard: i32,
    /// Primary or replica.
    pub primary: bool,
    /// What keeps it from nodes, by the names that Elasticsearch has for it. While these stay the same, so does
    /// the explanation, which has figures that change all the time.
    pub deciders: BTreeSet<String>,
    /// For a person.
    pub explanation: String,
}

/// State of a shard copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// On no node.
    Unassigned,
    /// Being recovered.
    Initializing,
    /// Serving.
    Started,
    /// Serving, while a copy of it is being made elsewhere.
    Relocating,
}

impl ShardState {
    /// True when the copy holds all acknowledged writes.
    pub fn is_started(self) -> bool {
        matches!(self, ShardState::Started | ShardState::Relocating)
    }
}

/// The disk that a node keeps its shards on, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeDisk {
    /// Its size.
    pub total: i64,
    /// What Elasticsearch may still use of it.
    pub available: i64,
    /// What its shards take.
    pub shards: i64,
}

/// How busy a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Percent of the CPUs it may use that its own process does use.
    pub cpu_percent: u8,
    /// Percent of its heap that outlived collections.
    pub heap_percent: u8,
}

/// Size of an index, of primaries only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexCounts {
    /// Live documents.
    pub documents: i64,
    /// Most documents in one shard, with the deleted ones that Lucene still stores.
    pub largest_shard_documents: i64,
    /// Most bytes in one shard.
    pub largest_shard_bytes: i64,
}
