//! Random fleets, from a seed: most small, some large, a few as large as they are promised to work.

use std::collections::BTreeMap;

use searchcell_core::placement::solver::{
    Assignment, Cluster, ClusterId, Fleet, Index, Limits, Load, Readiness, ZoneRoom,
};
use searchcell_crds::ClusterPlacement;

/// A source of random numbers that is the same everywhere and for ever (SplitMix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub fn chance(&mut self, percent: i64) -> bool {
        self.range(0, 99) < percent
    }
}

/// Most clusters, and most indices.
fn size(rng: &mut Rng) -> (i64, i64) {
    match rng.range(0, 999) {
        0 => (64, 10_000),
        1..=19 => (24, 1_000),
        _ => (8, 40),
    }
}

pub fn cluster(rng: &mut Rng) -> Cluster {
    let placement = match rng.range(0, 9) {
        0 => ClusterPlacement::Closed,
        1 => ClusterPlacement::Drain,
        _ => ClusterPlacement::Open,
    };
    let readiness = match rng.range(0, 19) {
        0 => Readiness::Unreachable("no answer".to_owned()),
        1 => Readiness::Unprepared("no elected master".to_owned()),
        _ => Readiness::Ready,
    };
    let indices = rng.range(0, 30);
    let others = Load { indices, shard_copies: indices * 3, units: indices * rng.range(3, 6) };
    let tight = rng.chance(20);
    let limits = Limits {
        indices: if tight { rng.range(0, 60) } else { 3_000 },
        shard_copies: if tight { rng.range(0, 200) } else { 9_000 },
        zones: zones(rng, tight),
    };
    Cluster { placement, readiness, others, limits }
}

fn zones(rng: &mut Rng, tight: bool) -> Vec<ZoneRoom> {
    let count = [1, 2, 3, 3, 3, 6][rng.range(0, 5) as usize];
    let terabytes = 1_000_000_000_000;
    (0..count)
        .map(|_| {
            let allowed =
                if tight { rng.range(0, terabytes / 10) } else { rng.range(terabytes, 60 * terabytes) };
            ZoneRoom { allowed, others: rng.range(0, allowed) / 2 }
        })
        .collect()
}

fn index(rng: &mut Rng, cell: &str, placement: &str) -> Index {
    let big = rng.chance(5);
    Index {
        cell: cell.to_owned(),
        placement: placement.to_owned(),
        shards: if big { rng.range(2, 20) } else { 1 },
        copies: rng.range(1, 3),
        shard_documents: if big { rng.range(0, 1_900_000_000) } else { rng.range(0, 150_000_000) },
        shard_bytes: if rng.chance(50) { 0 } else { rng.range(0, 40_000_000_000) },
    }
}

/// Cells with clusters and indices, a part of which has a place already: on clusters that are there, or were.
pub fn fleet(rng: &mut Rng) -> Fleet {
    let (clusters, indices) = size(rng);
    let cells: Vec<String> = (0..rng.range(1, 3)).map(|n| format!("cell{n}")).collect();
    let mut fleet = Fleet::default();
    for n in 0..rng.range(0, clusters) {
        let cell = &cells[rng.range(0, cells.len() as i64 - 1) as usize];
        fleet.clusters.insert(ClusterId::new(cell, format!("c{n}")), cluster(rng));
    }
    let placed = rng.range(0, 100);
    let of_cell: BTreeMap<&String, Vec<ClusterId>> =
        cells.iter().map(|cell| (cell, ids(&fleet).filter(|id| id.cell == *cell).collect())).collect();
    for n in 0..rng.range(0, indices) {
        let cell = &cells[rng.range(0, cells.len() as i64 - 1) as usize];
        let placement = format!("p{}", rng.range(0, 2));
        let name = format!("messages.p{n:05}.g1");
        let there = &of_cell[cell];
        if rng.chance(placed) && !there.is_empty() {
            let id = if rng.chance(3) {
                ClusterId::new(cell, "gone")
            } else {
                there[rng.range(0, there.len() as i64 - 1) as usize].clone()
            };
            fleet.previous.insert(name.clone(), id);
        }
        fleet.indices.insert(name, index(rng, cell, &placement));
    }
    fleet
}

pub fn ids(fleet: &Fleet) -> impl Iterator<Item = ClusterId> {
    fleet.clusters.keys().cloned()
}

/// A cluster of the fleet, if it has one.
pub fn any(rng: &mut Rng, fleet: &Fleet) -> Option<ClusterId> {
    let count = fleet.clusters.len() as i64;
    (count > 0).then(|| fleet.clusters.keys().nth(rng.range(0, count - 1) as usize).cloned())?
}

/// What clusters hold under an assignment: indices, copies of shards, units, and bytes in a zone.
pub fn loads(fleet: &Fleet, assignment: &Assignment) -> BTreeMap<ClusterId, (Load, i64)> {
    let mut loads: BTreeMap<ClusterId, (Load, i64)> =
        fleet.clusters.iter().map(|(id, cluster)| (id.clone(), (cluster.others, 0))).collect();
    for (name, id) in assignment {
        let (index, cluster) = (&fleet.indices[name], &fleet.clusters[id]);
        let (load, bytes) = loads.get_mut(id).unwrap();
        load.indices += 1;
        load.shard_copies += index.shards * index.copies;
        load.units += index.units();
        *bytes += index.zone_bytes(cluster.limits.zones.len());
    }
    loads
}
