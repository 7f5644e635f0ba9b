//! The two seams between deciding and the world: Kubernetes and Elasticsearch, typed by what the operator does
//! and not by HTTP. The real ones are `kube_io` and `elastic`; the simulation implements them too. No effects
//! of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use searchcell_core::names::ClusterKey;
use searchcell_core::plan::Disruption;
use searchcell_core::routing::Published;
use searchcell_core::security::Served;
use searchcell_core::snapshot::{
    Asked, CellObjects, ElasticNode, IndexCounts, IndexFacts, NodeDisk, NodeLoad, Shutdowns, Unassigned,
};
use searchcell_core::step::{Absence, Object, Target};
use searchcell_crds::{IndexPlacement, IndexPlacementStatus, SearchCell, SearchCellStatus};
use serde_json::Value;

use crate::security::sealed::Sealed;

/// Why a call to the API server did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KubeError {
    /// The object is gone, was replaced, or was changed since it was observed. Look again.
    #[error("{0}")]
    Conflict(String),
    /// An object of that name is there and belongs to somebody else.
    #[error(
        "{kind} {name} exists and is not controlled by this SearchCell: rename the cell or delete the object"
    )]
    NotOurs {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The storage class of a claim does not let volumes grow: the text is the API server's.
    #[error("{0}")]
    FixedSize(String),
    /// The API server refuses the request itself (invalid, forbidden, quota): the text is its own.
    #[error("{0}")]
    Refused(String),
    /// No answer, or an answer that says to try again. The effect may or may not have happened.
    #[error("{0}")]
    Unreachable(String),
}

/// What the operator asks of Kubernetes. Reads come from watch caches and may be stale, except where a name ends
/// in `_live`.
#[async_trait]
pub trait KubeApi: Send + Sync {
    /// The object from the cache.
    fn search_cell(&self, namespace: &str, name: &str) -> Option<SearchCell>;
    /// All placements of a namespace, from the cache.
    fn placements(&self, namespace: &str) -> Vec<IndexPlacement>;
    /// Where the operator's own pods run.
    fn operator_namespace(&self) -> &str;
    /// Clusters of all cells whose nodes restart, from the cache.
    fn disruptions(&self) -> Vec<Disruption>;
    /// All objects labelled with the cell, from the caches.
    fn cell_objects(&self, namespace: &str, cell: &str) -> CellObjects;

    /// The routing table of a collection, from the cache.
    fn table(&self, namespace: &str, collection: &str) -> Option<Arc<Published>>;

    /// The routing table of a collection, from the API server itself, whatever its labels are.
    async fn table_live(&self, namespace: &str, collection: &str) -> Result<Option<Published>, KubeError>;
    /// The object, from the API server itself.
    async fn search_cell_live(&self, namespace: &str, name: &str) -> Result<Option<SearchCell>, KubeError>;
    /// Clusters of all cells whose nodes restart, from the API server itself.
    async fn disruptions_live(&self) -> Result<Vec<Disruption>, KubeError>;
    /// All placements of a namespace, from the API server itself.
    async fn placements_live(&self, namespace: &str) -> Result<Vec<IndexPlacement>, KubeError>;
    /// The volume claims of a cluster, from the API server itself.
    async fn claims_live(&self, cluster: &ClusterKey) -> Result<Vec<PersistentVolumeClaim>, KubeError>;

    /// Creates an object (POST). `owner_uid` is the controlling owner's UID: when the name is taken by an object
    /// with that owner the answer is [`KubeError::Conflict`] (the cache is behind), else [`KubeError::NotOurs`].
    async fn create(&self, namespace: &str, object: &Object, owner_uid: &str) -> Result<(), KubeError>;
    /// Server-side apply (forced) of an object whose UID must still be the target's.
    async fn apply(&self, namespace: &str, object: &Object, target: &Target) -> Result<(), KubeError>;
    /// Sets `spec.replicas` and nothing else; UID and resource version are preconditions.
    async fn scale(&self, namespace: &str, target: &Target, replicas: i32) -> Result<(), KubeError>;
    /// Removes `spec.replicas` from our field manager's entries without changing its value.
    async fn release_replicas(&self, namespace: &str, target: &Target) -> Result<(), KubeError>;
    /// Sets annotations; the UID is a precondition.
    async fn annotate(
        &self,
        namespace: &str,
        target: &Target,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), KubeError>;
    /// Asks for a bigger volume; the UID is a precondition. A storage class that cannot grow is
    /// [`KubeError::FixedSize`].
    async fn grow_claim(&self, namespace: &str, target: &Target, size: &Quantity) -> Result<(), KubeError>;
    /// Deletes a StatefulSet without its pods, and creates it as it was, template included, with claims of `size`.
    async fn recreate_around_pods(
        &self,
        namespace: &str,
        target: &Target,
        size: &Quantity,
    ) -> Result<(), KubeError>;
    /// Puts the pod template and the annotations of `object` into the workload that is there, and changes nothing else of it;
    /// UID and resource version are preconditions.
    async fn replace_template(
        &self,
        namespace: &str,
        object: &Object,
        target: &Target,
    ) -> Result<(), KubeError>;
    /// Deletes with UID (and resource version, if given) as preconditions. Already gone is success.
    async fn delete(&self, namespace: &str, target: &Target) -> Result<(), KubeError>;

    /// UIDs of the pods with these labels, from the API server itself.
    async fn pods_live(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<String>, KubeError>;
    /// A Secret, from the API server itself: one of ours, or one that a user supplied.
    async fn secret_live(&self, namespace: &str, name: &str) -> Result<Option<Sealed>, KubeError>;
    /// Creates a Secret; as [`KubeApi::create`].
    async fn create_secret(&self, namespace: &str, secret: &Sealed, owner_uid: &str)
    -> Result<(), KubeError>;
    /// Replaces a Secret (PUT); the UID and the resource version in its metadata are preconditions.
    async fn replace_secret(&self, namespace: &str, secret: &Sealed) -> Result<(), KubeError>;

    /// Adds or removes our finalizer; the UID and resource version of `cell` are preconditions.
    async fn set_cell_finalizer(&self, cell: &SearchCell, present: bool) -> Result<(), KubeError>;
    /// The same for a placement.
    async fn set_placement_finalizer(
        &self,
        placement: &IndexPlacement,
        present: bool,
    ) -> Result<(), KubeError>;
    /// Replaces the status; the resource version of `cell` is a precondition, so that a stale pass loses.
    async fn publish_cell_status(
        &self,
        cell: &SearchCell,
        status: &SearchCellStatus,
    ) -> Result<(), KubeError>;
    /// The same for a placement.
    async fn publish_placement_status(
        &self,
        placement: &IndexPlacement,
        status: &IndexPlacementStatus,
    ) -> Result<(), KubeError>;
}

/// Why Elasticsearch did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SearchError {
    /// No connection, no answer in time, or no elected master. The effect may or may not have happened.
    #[error("{0}")]
    Unreachable(String),
    /// Elasticsearch refuses the request; the text is its own reason.
    #[error("{0}")]
    Refused(String),
    /// Elasticsearch does not make this change of an index that is there; the text is its own reason.
    #[error("Elasticsearch refuses to change the indices: {0}; take the change back, or migrate")]
    NotInPlace(String),
    /// The index is already there.
    #[error("index {0} already exists")]
    IndexExists(String),
    /// This build of Elasticsearch has no such API.
    #[error("{0}")]
    NotAvailable(String),
}

/// Cheap to ask for: one small request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterSummary {
    /// `cluster_uuid`, absent while not formed.
    pub uuid: Option<String>,
    /// Version of the cluster state; equal versions (and masters) mean equal details.
    pub state_version: i64,
    /// State UUID: distinguishes states of two masters.
    pub state_uuid: String,
    /// Elected master's node name.
    pub master: Option<String>,
    /// The user that was asking; absent without security.
    pub known_as: Option<String>,
}

/// Asked for only when the summary changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterDetails {
    /// By node name.
    pub nodes: BTreeMap<String, ElasticNode>,
    /// Persistent settings, flat.
    pub settings: BTreeMap<String, Value>,
    /// Persistent ids of the masters whose votes count.
    pub voting: BTreeSet<String>,
    /// Names of the masters that are kept from voting.
    pub no_votes: BTreeSet<String>,
    /// Metadata and routing table of one cluster state.
    pub indices: Arc<BTreeMap<String, IndexFacts>>,
}

/// Asked for every few minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterSizes {
    /// Documents and bytes, by index.
    pub counts: Arc<BTreeMap<String, IndexCounts>>,
    /// Disks, by node name.
    pub disks: BTreeMap<String, NodeDisk>,
    /// How busy nodes are, by name.
    pub loads: BTreeMap<String, NodeLoad>,
}

/// What a node says when it is told to load its keystore again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReload {
    /// Why it does not.
    pub error: Option<String>,
    /// SHA-256 of the file that it has read; versions before 9.3 do not say.
    pub digest: Option<String>,
}

/// What the operator asks of Elasticsearch. Every call has a deadline of its own.
#[async_trait]
pub trait SearchApi: Send + Sync {
    /// Identity, master and state version.
    async fn summary(&self, cluster: &ClusterKey) -> Result<ClusterSummary, SearchError>;
    /// Nodes, settings, indices.
    async fn details(&self, cluster: &ClusterKey) -> Result<ClusterDetails, SearchError>;
    /// Documents and sizes by index, and disks by node.
    async fn sizes(&self, cluster: &ClusterKey) -> Result<ClusterSizes, SearchError>;
    /// Why a copy of a shard has no node; `None`: it has one by now.
    async fn explain(
        &self,
        cluster: &ClusterKey,
        index: &str,
        shard: i32,
        primary: bool,
    ) -> Result<Option<Unassigned>, SearchError>;
    /// Documents of each of these tenants in an index of a pool. `is_last`: those, too, that were written a moment ago
    /// and are not to be seen yet by searches.
    async fn documents_of(
        &self,
        cluster: &ClusterKey,
        index: &str,
        tenants: &[String],
        is_last: bool,
    ) -> Result<BTreeMap<String, u64>, SearchError>;
    /// The tenants with the most documents in an index of a pool, and how many, the largest first. `field`: the field of
    /// a document that has its tenant.
    async fn largest_tenants(
        &self,
        cluster: &ClusterKey,
        index: &str,
        field: &str,
    ) -> Result<Vec<(String, u64)>, SearchError>;
    /// What the node at this address shows on its ports.
    async fn served(&self, cluster: &ClusterKey, address: &str) -> Result<Served, SearchError>;
    /// Has every node load its keystore again; what each said, by its name.
    async fn reload_keystore(
        &self,
        cluster: &ClusterKey,
    ) -> Result<BTreeMap<String, NodeReload>, SearchError>;
    /// What it was told of nodes that go away for a while.
    async fn shutdowns(&self, cluster: &ClusterKey) -> Result<Shutdowns, SearchError>;
    /// What it calls critical for the next major version, in its own words.
    async fn deprecations(&self, cluster: &ClusterKey) -> Result<Asked<Vec<String>>, SearchError>;
    /// By name of the index, when the newest successful snapshot that has it was complete.
    async fn snapshots(
        &self,
        cluster: &ClusterKey,
    ) -> Result<Asked<BTreeMap<String, Timestamp>>, SearchError>;
    /// Tells it that the node with this persistent id restarts; told again is success.
    async fn announce_restart(
        &self,
        cluster: &ClusterKey,
        id: &str,
        absence: Absence,
    ) -> Result<(), SearchError>;
    /// Takes that back; nothing to take back is success.
    async fn withdraw_restart(&self, cluster: &ClusterKey, id: &str) -> Result<(), SearchError>;
    /// Takes the vote from a master; returns when the cluster does not count on it any more.
    async fn exclude_voter(&self, cluster: &ClusterKey, node: &str) -> Result<(), SearchError>;
    /// All masters vote again.
    async fn clear_voting_exclusions(&self, cluster: &ClusterKey) -> Result<(), SearchError>;
    /// Changes persistent settings; `None` resets one.
    async fn put_settings(
        &self,
        cluster: &ClusterKey,
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError>;
    /// Creates an index, without waiting for its shards.
    async fn create_index(&self, cluster: &ClusterKey, name: &str, body: &Value) -> Result<(), SearchError>;
    /// Adds to the mappings of indices: of all of them, or of none.
    async fn put_mapping(
        &self,
        cluster: &ClusterKey,
        indices: &[String],
        body: &Value,
    ) -> Result<(), SearchError>;
    /// Changes settings of indices, of all of them or of none; `None` resets one.
    async fn put_index_settings(
        &self,
        cluster: &ClusterKey,
        indices: &[String],
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError>;
    /// Deletes an index when its UUID is still `uuid`; gone or another one is success.
    async fn delete_index(&self, cluster: &ClusterKey, name: &str, uuid: &str) -> Result<(), SearchError>;
}
