//! What a user writes in `spec.nodes` of a SearchCell: the Elasticsearch nodes of each cluster. No effects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{self, PodTemplate, Quantity, Resources, Settings};

/// The Elasticsearch nodes of each cluster, by role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// Dedicated master-eligible nodes, spread over the zones. Required.
    pub master: MasterNodes,
    /// Stateless nodes that take requests: ingest and coordination. Default: none; the data nodes take the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest: Option<IngestNodes>,
    /// Nodes that hold the indices. Required.
    pub data: DataNodes,
}

/// Dedicated master-eligible nodes of each cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MasterNodes {
    /// Master-eligible nodes of each cluster: 1, 3 or 5. Required. Fewer than 3, or 3 in fewer than 3 zones, is
    /// accepted with the notice NoZoneQuorum. A change adds or removes one node at a time and restarts none.
    #[schemars(range(min = 1, max = 5))]
    pub count: i32,
    /// Volume of each node. Required.
    pub storage: Storage,
    /// What all roles have in common.
    #[serde(flatten)]
    pub options: NodeOptions,
}

/// Stateless ingest and coordinating nodes of each cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestNodes {
    /// Fixed number of nodes of each cluster, 1 to 1000. Exactly one of replicas and autoscaling is required. A
    /// change restarts no other node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,
    /// Number of nodes of each cluster by their CPU use. Needs resources.requests.cpu. Exactly one of replicas and
    /// autoscaling is required; the change from one to the other never dips below minReplicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// What all roles have in common.
    #[serde(flatten)]
    pub options: NodeOptions,
}

/// Bounds and target of a HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Fewest nodes of each cluster, 1 to 1000. Required.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Most nodes of each cluster, 1 to 1000, not below minReplicas. Required.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// CPU use that the autoscaler aims at, in percent of resources.requests.cpu, 1 to 100. Required.
    #[serde(rename = "targetCPUUtilizationPercentage")]
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_utilization_percentage: i32,
}

/// Nodes that hold the indices of each cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataNodes {
    /// Data nodes of each cluster in each zone, 1 to 100. Required. More: new nodes join and shards move to them.
    /// Fewer: the surplus nodes are emptied first, then removed. Neither restarts a node.
    #[schemars(range(min = 1, max = 100))]
    pub per_zone: i32,
    /// Volume of each node. Required.
    pub storage: Storage,
    /// What all roles have in common.
    #[serde(flatten)]
    pub options: NodeOptions,
}

/// The volume of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume of each node, for example 100Gi. Required. It can grow where the storage class allows it,
    /// and never shrinks.
    #[schemars(schema_with = "common::quantity")]
    pub size: Quantity,
    /// Storage class of the volume. Default: the default class of the Kubernetes cluster. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// What the nodes of every role can be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOptions {
    /// CPU and memory of each node. Default: neither reserved nor limited. A change restarts the nodes of this role,
    /// one step at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Size of the Java heap, for example 30Gi; less than the memory limit. Default: Elasticsearch sizes it from the
    /// memory limit. A change restarts the nodes of this role, one step at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::quantity")]
    pub heap: Option<Quantity>,
    /// Options of the Java virtual machine, at most 32, in order. Default: none. A change restarts the nodes of this
    /// role, one step at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub jvm_options: Vec<String>,
    /// Entries of elasticsearch.yml for the nodes of this role; they win over spec.settings. Default: none. Keys that
    /// the operator sets are refused by name. A change restarts the nodes of this role, one step at a time.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    #[schemars(schema_with = "common::settings")]
    pub settings: Settings,
    /// Partial pod template, merged over the generated one (the container is named elasticsearch). Default: none. What
    /// the operator owns is refused by name. A change restarts the nodes of this role, one step at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::object")]
    pub pod_template: Option<PodTemplate>,
}
