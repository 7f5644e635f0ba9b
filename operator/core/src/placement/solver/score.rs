//! The policy: what refuses an index, and what makes one cluster better than another. The order of [`Score`]'s fields
//! *is* the policy. Pure.

use std::collections::BTreeMap;

use searchcell_crds::ClusterPlacement;

use super::problem::{Cluster, Index, Load, Readiness};

/// A cluster takes nothing new when that would bring indices or shards above this share of their limit. The rest is
/// for what is not planned: indices of others, a node that is lost beside the zone.
pub const FULL_PERCENT: i64 = 90;
/// Above this share of any limit a cluster is taken only when there is no other.
pub const BUSY_PERCENT: i64 = 75;

/// How good a place is; the lowest wins. Compared field by field, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score<'a> {
    /// It would be near one of its limits.
    pub busy: bool,
    /// Load, in units (see [`Index::units`]).
    pub units: i64,
    /// Indices of the same placement: the loss of a cluster should touch few tenants of a collection.
    pub siblings: i64,
    /// Name: among equals the first.
    pub cluster: &'a str,
}

/// Why a cluster does not take an index. From what lasts to what passes by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its owner closed it.
    Closed,
    /// What is there moves away.
    Draining,
    /// Its masters carry as many indices as they should.
    Indices,
    /// Its data nodes hold as many shards as they may, one zone being lost.
    Shards,
    /// The index would not fit below the low watermark, one zone being lost.
    Disk,
    /// It answers and lacks something.
    Unprepared(String),
    /// It does not answer.
    Unreachable(String),
}

/// A cluster while indices are put on it.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    pub cluster: &'a Cluster,
    pub load: Load,
    pub zone_bytes: i64,
    pub siblings: BTreeMap<&'a str, i64>,
}

impl<'a> Tally<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, load: cluster.others, zone_bytes: 0, siblings: BTreeMap::new() }
    }

    /// The index is there.
    pub fn add(&mut self, index: &'a Index) {
        self.load = self.with(index);
        self.zone_bytes = self.zone_bytes.saturating_add(index.zone_bytes(self.cluster.limits.zones.len()));
        *self.siblings.entry(&index.placement).or_default() += 1;
    }

    fn with(&self, index: &Index) -> Load {
        Load {
            indices: self.load.indices.saturating_add(1),
            shard_copies: self.load.shard_copies.saturating_add(index.shard_copies()),
            units: self.load.units.saturating_add(index.units()),
        }
    }

    /// How good a place for the index it is, or why it is none.
    pub fn judge<'n>(&self, name: &'n str, index: &Index) -> Result<Score<'n>, Refusal> {
        match self.cluster.placement {
            ClusterPlacement::Open => {}
            ClusterPlacement::Closed => return Err(Refusal::Closed),
            ClusterPlacement::Drain => return Err(Refusal::Draining),
        }
        match &self.cluster.readiness {
            Readiness::Ready => {}
            Readiness::Unreachable(why) => return Err(Refusal::Unreachable(why.clone())),
            Readiness::Unprepared(why) => return Err(Refusal::Unprepared(why.clone())),
        }
        let (after, limits) = (self.with(index), &self.cluster.limits);
        let bytes = self.zone_bytes.saturating_add(index.zone_bytes(limits.zones.len()));
        let room = limits.bytes_per_zone();
        if is_above(after.indices, limits.indices, FULL_PERCENT) {
            return Err(Refusal::Indices);
        }
        if is_above(after.shard_copies, limits.shard_copies, FULL_PERCENT) {
            return Err(Refusal::Shards);
        }
        // The watermark is the reserve already. What is full is full also for an index that has no bytes yet.
        if bytes > room || room == 0 {
            return Err(Refusal::Disk);
        }
        let zones = limits.zones.iter();
        let fullest =
            zones.map(|zone| is_above(zone.others.saturating_add(bytes), zone.allowed, BUSY_PERCENT));
        let busy = is_above(after.indices, limits.indices, BUSY_PERCENT)
            || is_above(after.shard_copies, limits.shard_copies, BUSY_PERCENT)
            || fullest.into_iter().any(|busy| busy);
        let siblings = self.siblings.get(index.placement.as_str()).copied().unwrap_or(0);
        Ok(Score { busy, units: after.units, siblings, cluster: name })
    }
}

fn is_above(value: i64, limit: i64, percent: i64) -> bool {
    i128::from(value) * 100 > i128::from(limit) * i128::from(percent)
}
