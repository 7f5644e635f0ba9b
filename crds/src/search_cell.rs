//! The desired state of a SearchCell: what a user writes in its spec. No effects.

use std::time::Duration;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{self, DeletionPolicy, Settings};
pub use crate::nodes::*;
pub use crate::search_cell_status::*;

/// Label of a Kubernetes node that names its zone, unless the cell says otherwise.
pub const DEFAULT_TOPOLOGY_KEY: &str = "topology.kubernetes.io/zone";
/// Repository of the Elasticsearch image, unless the cell says otherwise.
pub const DEFAULT_IMAGE_REPOSITORY: &str = "docker.elastic.co/elasticsearch/elasticsearch";
/// How long a settled cluster stays settled before the next step, unless the cell says otherwise.
pub const DEFAULT_SOAK: Duration = Duration::from_secs(60);
/// Most of `rollout.soak`.
const LONGEST_SOAK: Duration = Duration::from_secs(24 * 3600);

/// The desired state of the cell.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "searchcell.dev",
    version = "v1alpha1",
    kind = "SearchCell",
    plural = "searchcells",
    singular = "searchcell",
    shortname = "cell",
    category = "search",
    namespaced,
    status = "SearchCellStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A cell: a named group of several small, independent Elasticsearch clusters that serve one purpose."
)]
#[serde(rename_all = "camelCase")]
pub struct SearchCellSpec {
    /// Version of Elasticsearch, as x.y.z. Required. A change restarts every node, one cluster and one step at a
    /// time; once a node has joined with a version, no lower version is accepted by the operator.
    #[schemars(length(max = 20))]
    pub version: String,
    /// Image of Elasticsearch; its version must be that of spec.version. Default:
    /// docker.elastic.co/elasticsearch/elasticsearch with spec.version as tag. A change restarts nodes, one step at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Label of Kubernetes nodes whose values are the failure domains. Default: topology.kubernetes.io/zone. Immutable.
    #[serde(default = "default_topology_key")]
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
    /// Failure domains that every cluster of the cell spans, 1 to 6; the order means nothing. Required. A new zone
    /// gets nodes and restarts nobody; a zone leaves only by way of state Retiring.
    #[schemars(length(min = 1, max = 6))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub zones: Vec<Zone>,
    /// Elasticsearch clusters of the cell, 1 to 64; a name is an identity. Required. A new name makes a cluster; a
    /// name that goes deletes its cluster, and deletionPolicy says what becomes of its volumes.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub clusters: Vec<Cluster>,
    /// Elasticsearch nodes of each cluster, by role. Required.
    pub nodes: Nodes,
    /// Entries of elasticsearch.yml for all nodes. Default: none. Keys that the operator sets are refused by name.
    /// A change restarts nodes, one step at a time.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    #[schemars(schema_with = "common::settings")]
    pub settings: Settings,
    /// Persistent cluster settings, set through the API of Elasticsearch. Default: none. Keys that the operator sets
    /// (awareness, allocation) are refused by name. A change never restarts a node.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    #[schemars(schema_with = "common::settings")]
    pub cluster_settings: Settings,
    /// Secrets whose entries go into the keystore of every node, at most 16. Default: none. What Elasticsearch can load
    /// again reaches running nodes without a restart, also when the contents of a Secret change; another change restarts
    /// nodes, one step at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["secretName"]))]
    pub secure_settings: Vec<SecureSettings>,
    /// How changes that restart nodes are carried out. A change of it restarts nothing, except restartedAt.
    #[serde(default)]
    pub rollout: Rollout,
    /// Encryption and users. Default: mode Managed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// What becomes of the volumes when the cell or one of its clusters goes: Retain keeps them, Delete deletes them.
    /// Default: Retain. A change restarts nothing.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Whether the operator changes nothing and only reports the status. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

fn default_topology_key() -> String {
    DEFAULT_TOPOLOGY_KEY.to_owned()
}

impl SearchCellSpec {
    /// Image of Elasticsearch: the user's, or the default repository with the version as tag.
    pub fn image(&self) -> String {
        self.image.clone().unwrap_or_else(|| format!("{DEFAULT_IMAGE_REPOSITORY}:{}", self.version))
    }

    /// Zones that are to have nodes.
    pub fn active_zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter().filter(|zone| !zone.is_retiring())
    }

    /// Mode of security: the user's, or Managed.
    pub fn security_mode(&self) -> SecurityMode {
        self.security.as_ref().and_then(|security| security.mode).unwrap_or_default()
    }
}

/// A failure domain: one value of the label topologyKey.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// Name of the zone in object names and as node.attr.zone of Elasticsearch: lower-case letters, digits and
    /// dashes, at most 20. Required. It is an identity: another name is another zone.
    #[schemars(length(min = 1, max = 20))]
    pub name: String,
    /// Value of the label topologyKey on the Kubernetes nodes of this zone. Default: same as name. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub value: Option<String>,
    /// Active: the zone has nodes. Retiring: its nodes are emptied, then removed; afterwards the zone may be taken
    /// off the list. Default: Active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ZoneState>,
}

impl Zone {
    /// Value of the topology label: the stated one, or the name.
    pub fn value(&self) -> &str {
        self.value.as_deref().unwrap_or(&self.name)
    }

    /// Whether the zone is to be emptied.
    pub fn is_retiring(&self) -> bool {
        self.state == Some(ZoneState::Retiring)
    }
}

/// Whether a zone is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ZoneState {
    /// The zone has nodes.
    #[default]
    Active,
    /// The zone is emptied, then its nodes are removed.
    Retiring,
}

/// One Elasticsearch cluster of the cell: the unit of failure, of upgrade and of capacity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Name of the cluster in the cell: a lower-case letter, then letters and digits, at most 15. Required. It is an
    /// identity: another name is another, empty cluster.
    #[schemars(length(min = 1, max = 15))]
    pub name: String,
    /// Open: new indices may land here. Closed: nothing new lands here. Drain: what is here moves away. Default: Open.
    /// A change restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<ClusterPlacement>,
    /// Whether the indices of the cluster can be rebuilt from elsewhere, so that it may be dropped and made anew.
    /// Default: false. A change restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disposable: Option<bool>,
}

impl Cluster {
    /// What may land in the cluster: the stated placement, or Open.
    pub fn placement(&self) -> ClusterPlacement {
        self.placement.unwrap_or_default()
    }

    /// Whether the cluster may be dropped and made anew.
    pub fn is_disposable(&self) -> bool {
        self.disposable.unwrap_or(false)
    }
}

/// Whether indices may land in a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterPlacement {
    /// New indices may land here.
    #[default]
    Open,
    /// Nothing new lands here; what is here stays.
    Closed,
    /// Nothing new lands here, and what is here moves away.
    Drain,
}

/// A Secret whose entries go into the keystore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecureSettings {
    /// Name of a Secret of the same namespace; each of its keys is the name of a secure setting. Required.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// How changes that restart nodes are carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// What restarts together. Auto: a zone where copies and capacity allow it, else a node. Zone: all nodes of one
    /// zone of a cluster. Node: one node. Default: Auto.
    #[serde(default)]
    pub unit: RolloutUnit,
    /// Name of the cluster that changes first; the others follow only after it has soaked. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub canary: Option<String>,
    /// Most clusters of the cell with a disruption in flight, 1 to 64. Default: 1.
    #[serde(default = "default_max_unavailable_clusters")]
    #[schemars(range(min = 1, max = 64))]
    pub max_unavailable_clusters: i32,
    /// How long a cluster that has changed stays settled before the next one follows, for example 90s or 1h30m; 0s to
    /// 24h. Default: 60s.
    #[serde(default = "default_soak")]
    #[schemars(length(min = 1, max = 16))]
    pub soak: String,
    /// Automatic: a rollout starts by itself. Manual: it waits for the annotation searchcell.dev/approve-rollout with
    /// the id in status.rollout.id. Default: Automatic.
    #[serde(default)]
    pub approval: Approval,
    /// Any new value restarts all nodes, one step at a time; by custom a date. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub restarted_at: Option<String>,
    /// What is not looked at before nodes change, by name: the holds of a cluster name what keeps it. Default: everything is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub waive: Vec<Waiver>,
}

/// Something that is looked at before nodes change, and that a user may answer for instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Waiver {
    /// Before nodes change to the next major version: nothing that Elasticsearch itself calls critical for it.
    DeprecationsResolved,
    /// Before nodes change their version: every index is in a successful snapshot of the last 24 hours.
    RecentSnapshot,
    /// The same: no allocation filter, no announced shutdown and no voting exclusion is left of something else.
    NoLeftovers,
    /// The same: the disk of each data node is below the low watermark, else its copies do not come back to it.
    DiskFree,
    /// Before a data node restarts: each of its shards has another copy. Waived, indices without replicas are away meanwhile.
    CopiesElsewhere,
}

fn default_max_unavailable_clusters() -> i32 {
    1
}

fn default_soak() -> String {
    format!("{}s", DEFAULT_SOAK.as_secs())
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            unit: RolloutUnit::default(),
            canary: None,
            max_unavailable_clusters: default_max_unavailable_clusters(),
            soak: default_soak(),
            approval: Approval::default(),
            restarted_at: None,
            waive: Vec::new(),
        }
    }
}

impl Rollout {
    /// How long a settled cluster stays settled; the default where the text is no duration (the schema refuses that).
    pub fn soak(&self) -> Duration {
        common::parse_duration(&self.soak).unwrap_or(DEFAULT_SOAK)
    }

    /// Whether the text is such a duration.
    pub fn has_soak(&self) -> bool {
        common::parse_duration(&self.soak).is_some_and(|soak| soak <= LONGEST_SOAK)
    }
}

/// What restarts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutUnit {
    /// A zone where copies and capacity allow it, else a node.
    #[default]
    Auto,
    /// All nodes of one zone of a cluster.
    Zone,
    /// One node.
    Node,
}

/// Who starts a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Approval {
    /// The operator.
    #[default]
    Automatic,
    /// A user, by annotation.
    Manual,
}

/// Encryption and users of the clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Managed: encryption of HTTP and transport, and users, all kept by the operator; from Elasticsearch 8.2 on.
    /// Disabled: neither. Default: Managed. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<SecurityMode>,
    /// Certificates from elsewhere. Default: the operator makes them. A change restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
}

/// Certificates from elsewhere, by layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// Of the HTTP layer of all clusters: it needs the names of their Services. Default: made by the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<CertificateSource>,
    /// Of the transport layer of all clusters; whoever has a certificate of its authority can join them. Default:
    /// made by the operator, with an authority of its own for each cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<CertificateSource>,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSource {
    /// Name of a Secret of the same namespace with tls.crt, tls.key and ca.crt. Required. A new content reaches the
    /// nodes without a restart, once it has been checked.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// Who cares for encryption and users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecurityMode {
    /// The operator: certificates for HTTP and transport, and users.
    #[default]
    Managed,
    /// Nobody: plain HTTP, plain transport, no users.
    Disabled,
}
