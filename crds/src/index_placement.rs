//! An IndexPlacement: what a user writes in its spec and what the operator reports in its status. No effects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{self, DeletionPolicy, Settings};

/// Documents that one primary shard is planned for, unless the placement says otherwise.
pub const DEFAULT_MAX_DOCUMENTS_PER_SHARD: i64 = 1_000_000_000;
/// Most documents that Lucene stores in one shard.
pub const LUCENE_MAX_DOCUMENTS: i64 = 2_147_483_519;
/// Most documents that may be expected of one shard: 90 % of what Lucene stores.
pub const MAX_EXPECTED_DOCUMENTS_PER_SHARD: i64 = 1_932_735_167;
/// Documents of a shard above which a notice says so; Elasticsearch advises to stay below.
pub const MANY_DOCUMENTS: i64 = 200_000_000;
/// Documents of a shard above which a warning says so.
pub const VERY_MANY_DOCUMENTS: i64 = 1_000_000_000;
/// Bytes of a shard above which a notice says so; Elasticsearch advises to stay below.
pub const MANY_BYTES: i64 = 50_000_000_000;
/// Most primary shards of an index.
pub const MAX_SHARDS: i64 = 1024;

/// The desired state of the placement.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "searchcell.dev",
    version = "v1alpha1",
    kind = "IndexPlacement",
    plural = "indexplacements",
    singular = "indexplacement",
    shortname = "placement",
    shortname = "ipl",
    category = "search",
    namespaced,
    status = "IndexPlacementStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A placement: which tenants of a collection are stored in which cell, and in how many indices, shards and copies."
)]
#[serde(rename_all = "camelCase")]
pub struct IndexPlacementSpec {
    /// Name of the SearchCell, of the same namespace, that holds the indices. Required. A change moves every index to
    /// the other cell, by migration.
    #[schemars(length(min = 1, max = 63))]
    pub cell: String,
    /// What clients index into and search: a lower-case letter, then letters, digits and dashes, at most 40. Required.
    /// It spans cells and clusters; no index has this name. Immutable.
    #[schemars(length(min = 1, max = 40))]
    pub collection: String,
    /// The key whose documents stay together. Required. The same in every placement of a collection. Immutable.
    pub tenant: Tenant,
    /// External: every write carries a version from the source of truth, and the higher one wins. None: the last
    /// write wins. Default: None. The same in every placement of a collection. Immutable.
    #[serde(default)]
    pub versioning: Versioning,
    /// Indices that all tenants of the collection share. Exactly one of pool and dedicated is required, for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Tenants with an index of their own; they override the pool of the collection. Exactly one of pool and
    /// dedicated is required, for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedicated: Option<Dedicated>,
    /// Copies of each shard besides the primary, 0 to 15; copies and primary must fit the data nodes and spread evenly
    /// over the zones. Default: one fewer than the zones, at most 2, computed once at creation. A change restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 15))]
    pub replicas: Option<i32>,
    /// Settings and mappings of the indices. Default: those of Elasticsearch; a dedicated placement takes mappings and
    /// analysis from the pool of its collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexOptions>,
    /// What becomes of the indices when the placement goes: Retain keeps them, Delete deletes them. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The key whose documents stay together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Top-level field of the document that holds the tenant; mapped as keyword or long. Required. Immutable.
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
    /// Whether the field is a list, each element of which gets its own copy of the document. Needs idScope Tenant.
    /// Default: false. Immutable.
    #[serde(default)]
    pub fan_out: bool,
    /// Tenant: ids are unique for each tenant (stored with the tenant in front, which answers leave out). Collection:
    /// you assert that ids are unique in the collection. Default: Tenant. Immutable.
    #[serde(default)]
    pub id_scope: IdScope,
}

/// Where the id of a document is unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdScope {
    /// In its tenant.
    #[default]
    Tenant,
    /// In its collection: the user asserts so.
    Collection,
}

/// Who numbers the versions of documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Versioning {
    /// The source of truth: every write carries a version, and the higher one wins.
    External,
    /// Nobody: the last write wins.
    #[default]
    None,
}

/// Indices that all tenants share, each of one primary shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Number of indices, each of one primary shard, 1 to 1000. Required. It changes only through a migration.
    #[schemars(range(min = 1, max = 1000))]
    pub indices: i32,
}

/// Tenants with an index of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dedicated {
    /// Documents that one primary shard is planned for, 1 to 1932735167 (90 % of what Lucene stores). A tenant gets
    /// its expectedDocuments divided by this number, rounded up, as primary shards. Default: 1000000000.
    #[serde(default = "default_max_documents_per_shard")]
    #[schemars(range(min = 1, max = MAX_EXPECTED_DOCUMENTS_PER_SHARD))]
    pub max_documents_per_shard: i64,
    /// The tenants, 1 to 256, each with an index of its own. Required. A tenant is in one dedicated placement only.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub tenants: Vec<DedicatedTenant>,
}

fn default_max_documents_per_shard() -> i64 {
    DEFAULT_MAX_DOCUMENTS_PER_SHARD
}

impl Default for Dedicated {
    fn default() -> Self {
        Self { max_documents_per_shard: DEFAULT_MAX_DOCUMENTS_PER_SHARD, tenants: Vec::new() }
    }
}

/// A tenant with an index of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DedicatedTenant {
    /// The tenant: the value of tenant.field, 1 to 128 bytes. Required. Quote it in YAML, even when it is a number.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// Documents that the tenant is expected to have, at least 1. Required.
    #[schemars(range(min = 1))]
    pub expected_documents: i64,
    /// Primary shards of the index, 1 to 1024. Default: expectedDocuments divided by maxDocumentsPerShard, rounded up.
    /// The number of an existing index changes only through a migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_SHARDS))]
    pub shards: Option<i32>,
}

impl DedicatedTenant {
    /// Primary shards of the tenant's index: as stated, or its expected documents over the documents of one shard,
    /// rounded up and at least 1.
    pub fn primary_shards(&self, max_documents_per_shard: i64) -> i64 {
        match self.shards {
            Some(shards) => i64::from(shards),
            None => {
                let per_shard = max_documents_per_shard.max(1);
                let documents = self.expected_documents.max(1);
                documents / per_shard + i64::from(documents % per_shard != 0)
            }
        }
    }
}

/// Settings and mappings of managed indices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IndexOptions {
    /// Settings of the indices. Default: none. Numbers of shards and copies, allocation filters and routing are refused
    /// by name. A change of a dynamic setting is applied; a static one changes only through a migration.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    #[schemars(schema_with = "common::settings")]
    pub settings: Settings,
    /// Mappings of the indices. Default: none. New fields are applied; an incompatible change needs a migration.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    #[schemars(schema_with = "common::object")]
    pub mappings: Settings,
}

/// The observed state of the placement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IndexPlacementStatus {
    /// Generation of the spec that this status describes; -1 before the first pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is true of the placement: Ready and Degraded always, Reconciling and Stalled while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
    /// Generation of the collection's routing table that holds this placement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_generation: Option<i64>,
    /// Indices that exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indices: Option<i32>,
    /// Shards, as the routing table of Elasticsearch has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<ShardCounts>,
    /// Documents in primary shards, to two significant digits; refreshed at most every five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<i64>,
    /// The primary shard with the most documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_shard: Option<LargestShard>,
    /// Documents and bytes of the largest shard over time, oldest first: at most one sample in six hours, at most 16.
    /// What does not grow is not sampled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub growth: Vec<ShardSample>,
    /// When the largest shard is past the next limit, at the pace of its growth; absent: it does not grow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Clusters that hold the indices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub clusters: Vec<PlacementCluster>,
    /// Which cluster each index belongs to: decided and recorded here before the index is created, and kept for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cluster"]))]
    pub assignments: Vec<PlacementAssignment>,
    /// Tenants with an index of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub tenants: Vec<PlacementTenant>,
    /// Tenants of a pool that have a tenth or more of the documents of a shard that is past a limit, the largest first, at
    /// most 16: each is a candidate for a placement of its own. Counted every six hours at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub candidates: Vec<PlacementCandidate>,
    /// What is wrong with single indices, at most 16, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub problems: Vec<Problem>,
}

/// Counts of shards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardCounts {
    /// Primary shards.
    pub primaries: i32,
    /// Copies that are asked for, primaries included.
    pub copies: i32,
    /// Copies that are started, primaries included.
    pub started: i32,
    /// Started copies in a zone that has more of them than its share.
    pub misplaced: i32,
    /// Copies without a node.
    pub unassigned: i32,
    /// Started copies, of all: for example 192/192.
    pub summary: String,
}

/// The largest primary shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LargestShard {
    /// Name of its index.
    pub index: String,
    /// Its documents, with the deleted ones that Lucene still stores.
    pub documents: i64,
    /// Its size in bytes.
    pub bytes: i64,
}

/// The largest shard at some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardSample {
    /// When it was measured.
    pub at: Time,
    /// Most documents in one shard, with the deleted ones that Lucene still stores.
    pub documents: i64,
    /// Most bytes in one shard.
    pub bytes: i64,
}

/// When the largest shard is past a limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// Days from the last sample on, to two significant digits.
    pub days: i64,
    /// What is to be said of the shard then: ShardLarge, ShardVeryLarge, ShardAlmostFull or ShardFull.
    pub reason: String,
}

/// A cluster that holds indices of the placement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementCluster {
    /// Name of the cluster: that of the cell, a dash, and that in the cell.
    pub name: String,
    /// Indices of the placement that it holds.
    pub indices: i32,
}

/// The indices of the placement that belong to one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementAssignment {
    /// Name of the cluster: that of the cell, a dash, and that in the cell.
    pub cluster: String,
    /// Indices that are there, as far as was last read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub indices: Vec<String>,
    /// Indices that are created there and nowhere else, and have not been seen yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub pending: Vec<String>,
    /// Indices that were seen there and are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub missing: Vec<String>,
}

/// A tenant with an index of its own, as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementTenant {
    /// The tenant.
    pub id: String,
    /// Primary shards of its index.
    pub shards: i32,
}

/// A tenant that outgrows the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementCandidate {
    /// The tenant.
    pub id: String,
    /// The index that has it.
    pub index: String,
    /// Its documents there, to two significant digits.
    pub documents: i64,
}

/// What is wrong with one index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Name of the index.
    pub index: String,
    /// What is wrong, in one word from the list of reasons.
    pub reason: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}
