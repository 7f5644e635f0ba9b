//! What the solver is given: clusters with their load and their limits, indices with their size, and where everything
//! was before. Pure data.

use std::collections::BTreeMap;

use searchcell_crds::ClusterPlacement;

/// Documents and bytes of a shard up to which it counts as one unit of load: what Elasticsearch advises for a shard.
const UNIT_DOCUMENTS: i64 = 200_000_000;
const UNIT_BYTES: i64 = 50_000_000_000;

/// A cluster of a cell, of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId {
    /// Name of the SearchCell.
    pub cell: String,
    /// Name of the cluster within it.
    pub cluster: String,
}

impl ClusterId {
    /// A cluster by its two names.
    pub fn new(cell: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self { cell: cell.into(), cluster: cluster.into() }
    }
}

/// Index name → cluster.
pub type Assignment = BTreeMap<String, ClusterId>;

/// All that the solver looks at. Nothing here has an order that could matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Every cluster of every cell.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// Every index that ought to have a place, by name, those that have one included.
    pub indices: BTreeMap<String, Index>,
    /// Where indices are, or were decided to be created. An index keeps its place unless that is gone or drains.
    pub previous: Assignment,
}

/// A cluster as a place for indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What its owner lets land there.
    pub placement: ClusterPlacement,
    /// Whether indices can be created there now.
    pub readiness: Readiness,
    /// What it holds besides the indices of the fleet.
    pub others: Load,
    /// What it may hold.
    pub limits: Limits,
}

/// Whether indices can be created on a cluster now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// They can.
    #[default]
    Ready,
    /// It does not answer. What is there stays there.
    Unreachable(String),
    /// It answers, and lacks something: nodes, awareness, a first reading of its disks.
    Unprepared(String),
}

/// What a cluster holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Indices.
    pub indices: i64,
    /// Copies of shards, primaries included.
    pub shard_copies: i64,
    /// Units: see [`Index::units`].
    pub units: i64,
}

/// What a cluster may hold. New indices are refused at [`super::FULL_PERCENT`] of indices and shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Indices that its masters carry.
    pub indices: i64,
    /// Copies of shards that its data nodes may hold while one zone is lost.
    pub shard_copies: i64,
    /// One entry for each zone.
    pub zones: Vec<ZoneRoom>,
}

/// Disks of the data nodes of one zone, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneRoom {
    /// Most that may lie there: up to the low watermark.
    pub allowed: i64,
    /// What lies there besides the indices of the fleet.
    pub others: i64,
}

impl Limits {
    /// Bytes that the indices of the fleet may have in the fullest zone.
    pub fn bytes_per_zone(&self) -> i64 {
        self.zones.iter().map(|zone| zone.allowed.saturating_sub(zone.others)).min().unwrap_or(0).max(0)
    }
}

/// An index that ought to have a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Its cell: it is placed nowhere else.
    pub cell: String,
    /// Its IndexPlacement: indices of one are kept apart where nothing else decides.
    pub placement: String,
    /// Primary shards.
    pub shards: i64,
    /// Copies of each shard, the primary included.
    pub copies: i64,
    /// Documents of its largest shard: measured or expected, whichever is more.
    pub shard_documents: i64,
    /// Bytes of its largest shard: measured or expected, whichever is more.
    pub shard_bytes: i64,
}

impl Index {
    /// Copies of shards, primaries included.
    pub fn shard_copies(&self) -> i64 {
        self.shards.saturating_mul(self.copies)
    }

    /// Its load: one for each copy of a shard of up to 200 million documents and 50 GB, more for larger ones. So a
    /// few hundred small shards and a few big ones compare, and small differences of size do not count.
    pub fn units(&self) -> i64 {
        let parts = |size: i64, unit: i64| size.max(0).saturating_add(unit - 1) / unit;
        let per_copy = parts(self.shard_documents, UNIT_DOCUMENTS).max(parts(self.shard_bytes, UNIT_BYTES));
        self.shard_copies().saturating_mul(per_copy.max(1))
    }

    /// Most bytes that it has in any zone of `zones` while one of them is lost. Under forced awareness a zone never
    /// holds more than ⌈copies / zones⌉ copies of a shard, so three copies in three zones stay as they are, and of two
    /// copies in three zones the lost one is made again: each zone that is left has one.
    pub fn zone_bytes(&self, zones: usize) -> i64 {
        let zones = i128::try_from(zones.max(1)).unwrap_or(1);
        let copies = i128::from(self.copies.max(0));
        let most = (copies + zones - 1) / zones;
        let left = (zones - 1).max(1);
        let survivors = copies.min(left * most);
        let bytes = i128::from(self.shard_bytes.max(0)) * i128::from(self.shards.max(0)) * survivors;
        i64::try_from((bytes + left - 1) / left).unwrap_or(i64::MAX)
    }
}
