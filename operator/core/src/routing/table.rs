//! The table as it is published: JSON, `camelCase`, versioned. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use searchcell_crds::{IdScope, Versioning};
use serde::{Deserialize, Serialize};

use super::slots::{SEED, SLOTS, Slot, slot_of};

/// Version of the format. A reader refuses a higher one; members that it does not know it ignores, because they are
/// added within a version only where ignoring them is harmless.
pub const SCHEMA_VERSION: u32 = 1;

/// The routing table of one collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// [`SCHEMA_VERSION`] of its writer.
    pub schema_version: u32,
    /// Number of the table; a higher one replaces a lower one.
    pub generation: i64,
    /// Namespace of the collection.
    pub namespace: String,
    /// What clients index into and search.
    pub collection: String,
    /// How a document's tenant and id are found.
    pub tenant: TenantRules,
    /// Who numbers the versions of documents.
    pub versioning: Versioning,
    /// How slots are computed: written down, so that a table explains itself.
    pub hash: Hash,
    /// Clusters that indices refer to by position.
    pub clusters: Vec<TableCluster>,
    /// Indices that destinations refer to by position.
    pub indices: Vec<TableIndex>,
    /// Slots of the pool in ascending order, without gaps from slot 0. Empty: only overridden tenants have a place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotRange>,
    /// Tenants that are not where their slot says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Override>,
}

/// How a document's tenant and id are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantRules {
    /// Top-level field of the document.
    pub field: String,
    /// Whether the field is a list, each element of which gets its own copy.
    pub fan_out: bool,
    /// Where the id of a document is unique.
    pub id_scope: IdScope,
}

/// The function from tenant to slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hash {
    /// `xxh3-64`: the slot is the upper 14 bits.
    pub algorithm: String,
    /// Seed of the hash.
    pub seed: u64,
    /// Number of slots.
    pub slots: u16,
}

impl Default for Hash {
    fn default() -> Self {
        Self { algorithm: "xxh3-64".to_owned(), seed: SEED, slots: SLOTS }
    }
}

/// A cluster, and how to talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableCluster {
    /// `<cell>-<cluster>`.
    pub name: String,
    /// SearchCell of the namespace that it belongs to; names the Secrets with CA and credential.
    pub cell: String,
    /// URL of the Service.
    pub endpoint: String,
    /// Host and port of the headless Service, whose addresses are the nodes that take requests.
    pub nodes: String,
    /// Secret of the same namespace with `username` and `password`; absent: the cluster asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_secret: Option<String>,
    /// ConfigMap of the same namespace with the authorities to trust, under `ca.crt`; absent: there is no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map: Option<String>,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableIndex {
    /// Name of the index.
    pub name: String,
    /// Position in `clusters`.
    pub cluster: u32,
    /// Whether documents are routed by their tenant, as those of pools are.
    pub routed: bool,
    /// Whether writes go there now.
    #[serde(default, skip_serializing_if = "Traffic::is_open")]
    pub traffic: Traffic,
}

/// Whether writes go to an index now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Traffic {
    /// They do.
    #[default]
    Open,
    /// They wait.
    Paused,
}

impl Traffic {
    fn is_open(&self) -> bool {
        *self == Traffic::Open
    }
}

/// Where reads and writes go: positions in `indices`. A migration writes to two and reads from one. Without both it
/// is nowhere: its index is not there yet, or lost. Writes wait, and searches have no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Where searches go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u32>,
    /// Where every write goes; absent: where searches go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<u32>,
}

impl Destination {
    /// Reads and writes go to one index.
    pub fn only(index: u32) -> Self {
        Self { read: Some(index), write: Vec::new() }
    }

    /// There is no index now.
    pub fn nowhere() -> Self {
        Self { read: None, write: Vec::new() }
    }

    /// True when there is no index now.
    pub fn is_nowhere(&self) -> bool {
        self.writes().is_empty()
    }

    /// True while a migration moves what is there: writes do not go where searches go, or not only there.
    pub fn is_moving(&self) -> bool {
        !self.is_nowhere() && self.writes() != self.read.as_slice()
    }

    /// Every index that a write goes to.
    pub fn writes(&self) -> &[u32] {
        if self.write.is_empty() { self.read.as_slice() } else { &self.write }
    }
}

/// Neighbouring slots with one destination; the range ends where the next one begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotRange {
    /// First slot.
    pub from: Slot,
    /// Where they are.
    #[serde(flatten)]
    pub to: Destination,
}

/// A tenant that is not where its slot says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// Where it is.
    #[serde(flatten)]
    pub to: Destination,
    /// Most documents a second; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents_per_second: Option<u32>,
    /// A lane of its own, so that it cannot stand in the way of others; absent: the common one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
}

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It was written by a newer version, in a format that this one does not know.
    #[error("schemaVersion is {0}, and this program reads up to {SCHEMA_VERSION}: use a newer one")]
    SchemaVersion(u32),
    /// The hash is not the one that this version knows.
    #[error("hash is not xxh3-64 with seed {SEED} and {SLOTS} slots")]
    Hash,
    /// A position points nowhere.
    #[error("{from} points at position {position}, which the table does not have")]
    Dangling {
        /// What points.
        from: String,
        /// Where to.
        position: u32,
    },
    /// Slot ranges do not begin at 0, or do not ascend.
    #[error("slots do not ascend from slot 0")]
    Slots,
}

impl Table {
    /// Everything that [`Table::lookup`] relies on.
    pub fn check(&self) -> Result<(), TableError> {
        if self.schema_version > SCHEMA_VERSION {
            return Err(TableError::SchemaVersion(self.schema_version));
        }
        if self.hash != Hash::default() {
            return Err(TableError::Hash);
        }
        let dangling = |from: &str, position| Err(TableError::Dangling { from: from.to_owned(), position });
        for index in &self.indices {
            if at(&self.clusters, index.cluster).is_none() {
                return dangling(&format!("index {}", index.name), index.cluster);
            }
        }
        let destinations = (self.slots.iter().map(|range| ("slots", &range.to)))
            .chain(self.overrides.iter().map(|(tenant, o)| (tenant.as_str(), &o.to)));
        for (from, to) in destinations {
            let lost = to.writes().iter().chain(&to.read).find(|i| at(&self.indices, **i).is_none());
            if let Some(position) = lost {
                return dangling(from, *position);
            }
        }
        let ascend = self.slots.is_sorted_by(|a, b| a.from < b.from);
        let begins = self.slots.first().is_none_or(|range| range.from == 0);
        let ends = self.slots.last().is_none_or(|range| range.from < SLOTS);
        if ascend && begins && ends { Ok(()) } else { Err(TableError::Slots) }
    }

    /// Where the tenant is; absent: nowhere, because there is no pool. A destination may be nowhere, too.
    pub fn lookup(&self, tenant: &str) -> Option<&Destination> {
        match self.overrides.get(tenant) {
            Some(found) => Some(&found.to),
            None => self.in_pool(tenant),
        }
    }

    /// Where the tenant's slot is, whatever overrides say; absent: there is no pool.
    pub fn in_pool(&self, tenant: &str) -> Option<&Destination> {
        let slot = slot_of(tenant);
        let after = self.slots.partition_point(|range| range.from <= slot);
        self.slots.get(after.checked_sub(1)?).map(|range| &range.to)
    }

    /// True when it names the index, on the cluster of this name (`<cell>-<cluster>`).
    pub fn names(&self, index: &str, cluster: &str) -> bool {
        let on = |position| at(&self.clusters, position).is_some_and(|found| found.name == cluster);
        self.indices.iter().any(|found| found.name == index && on(found.cluster))
    }

    /// An index by its position, and its cluster.
    pub fn index(&self, position: u32) -> Option<(&TableIndex, &TableCluster)> {
        let index = at(&self.indices, position)?;
        Some((index, at(&self.clusters, index.cluster)?))
    }
}

fn at<T>(list: &[T], position: u32) -> Option<&T> {
    list.get(usize::try_from(position).ok()?)
}
