//! The observed state of a SearchCell: what the operator reports in its status. No effects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state of the cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchCellStatus {
    /// Generation of the spec that this status describes; -1 before the first pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is true of the cell: Ready and Degraded always, Reconciling and Stalled while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
    /// Lowest version of Elasticsearch that runs anywhere in the cell, as x.y.z.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Clusters that serve, of all: for example 2/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters_ready: Option<String>,
    /// Nodes that are ready, of all: for example 18/18.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_ready: Option<String>,
    /// The current rollout, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// State of each cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub clusters: Vec<ClusterStatus>,
}

/// A rollout: one change of the cell that restarts nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Identity of the rollout: the value that the annotation searchcell.dev/approve-rollout takes.
    pub id: String,
    /// Where the rollout stands: Pending, AwaitingApproval, Canary, Rolling, Paused or Complete.
    pub phase: RolloutPhase,
    /// What the rollout is for: VersionChange, SpecChange, SecretChange or RestartRequested.
    pub reason: RolloutReason,
    /// Lowest version before the rollout, as x.y.z; absent where the version stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_version: Option<String>,
    /// Version that the rollout leads to, as x.y.z; absent where the version stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_version: Option<String>,
    /// Clusters whose nodes all run what the rollout asks for.
    pub clusters_done: i32,
    /// Clusters of the cell.
    pub clusters_total: i32,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// It has not begun.
    #[default]
    Pending,
    /// It waits for the approval of a user.
    AwaitingApproval,
    /// The canary changes or soaks.
    Canary,
    /// The other clusters change.
    Rolling,
    /// It waits: suspended, or held by a cluster that is not well.
    Paused,
    /// All clusters run what was asked for.
    Complete,
}

/// What a rollout is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutReason {
    /// Another version of Elasticsearch.
    VersionChange,
    /// Another setting, image, resource or pod template.
    #[default]
    SpecChange,
    /// Another content of a Secret that Elasticsearch cannot reload.
    SecretChange,
    /// A new value of spec.rollout.restartedAt.
    RestartRequested,
}

/// The observed state of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Name of the cluster in spec.clusters.
    pub name: String,
    /// UUID that Elasticsearch gave the cluster when it first formed; recorded once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// State of the cluster in one word: Pending, Forming, Ready, Rolling, Scaling, Degraded, Unavailable or Deleting.
    pub phase: ClusterPhase,
    /// Lowest version of Elasticsearch that runs in the cluster, as x.y.z.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Address of the cluster inside Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Nodes of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// Nodes of the cluster by zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub zones: Vec<ZoneStatus>,
    /// Indices of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indices: Option<i32>,
    /// Started copies of shards, primaries included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<i32>,
    /// Documents in primary shards, to two significant digits; refreshed at most every five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<i64>,
    /// The disruptive operation in flight; at most one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// What the operator would do and does not do yet, each with the named reason; the order means nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub holds: Vec<Hold>,
}

/// The state of a cluster in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterPhase {
    /// Its objects are not all there.
    #[default]
    Pending,
    /// Its masters have not yet elected a leader for the first time.
    Forming,
    /// It serves, as asked for.
    Ready,
    /// It serves while its nodes restart, step by step.
    Rolling,
    /// It serves while nodes are added or removed.
    Scaling,
    /// It serves with less redundancy than asked for.
    Degraded,
    /// It has no elected master, or cannot be reached.
    Unavailable,
    /// It is on its way out.
    Deleting,
}

/// Counts of the nodes of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that are ready and joined.
    pub ready: i32,
    /// Nodes that are asked for.
    pub total: i32,
    /// Nodes that run what the spec asks for.
    pub updated: i32,
}

/// Counts of the nodes of a cluster in one zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZoneStatus {
    /// Name of the zone in spec.zones.
    pub name: String,
    /// Nodes of the zone that are ready and joined.
    pub ready: i32,
    /// Nodes of the zone that are asked for.
    pub total: i32,
}

/// A disruptive operation in flight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// What is done: RestartNode, RestartZone, RestartCluster, DrainNode, DrainZone, ResizeVolume, RemoveCluster or
    /// DeleteVolumes.
    pub kind: OperationKind,
    /// Zone that it touches; absent where it touches several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Names of the nodes that it touches, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub nodes: Vec<String>,
    /// UIDs of their pods when it was decided, in the order of the nodes: while they are there, it has not begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub uids: Vec<String>,
    /// Why it is no more than that, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was decided.
    pub started_at: Time,
}

/// Kinds of disruptive operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// One node restarts.
    RestartNode,
    /// All nodes of one zone restart together.
    RestartZone,
    /// All nodes restart together: a single-node or disposable cluster.
    RestartCluster,
    /// One node is emptied, to be removed.
    DrainNode,
    /// All nodes of one zone are emptied, to be removed.
    DrainZone,
    /// Volumes grow.
    ResizeVolume,
    /// A cluster that left spec.clusters and is empty goes. Put back, it stays.
    RemoveCluster,
    /// The volumes of such a cluster, whose nodes are gone, are deleted. Put back, it is a new cluster after that.
    DeleteVolumes,
}

/// Something that the operator would do and does not do yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Name of the gate that is shut, for example ShardsSettled.
    pub gate: String,
    /// What the gate waits for; it changes when the reason does, and carries no counters and no times.
    pub message: String,
}
