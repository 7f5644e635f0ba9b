//! The solver: what has a place keeps it, the rest goes, the heaviest first, to the best place of its cell. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use searchcell_crds::{ClusterPlacement, Reason};

use super::problem::{Assignment, ClusterId, Fleet, Index};
use super::score::{Refusal, Tally};
use crate::status::some_of;

/// Where everything belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    /// Every index that has a place, those that should move but cannot included.
    pub assignment: Assignment,
    /// What is not where it was before, by index name.
    pub moves: BTreeMap<String, Move>,
    /// Indices without a place, and those that cannot leave theirs, by name.
    pub unplaced: BTreeMap<String, Obstacle>,
}

/// An index that changes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it was.
    pub from: ClusterId,
    /// Where it belongs now.
    pub to: ClusterId,
}

/// Why an index has no place: what each cluster of its cell says. Empty: the cell has no cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacle {
    /// Clusters by what they say, the names sorted.
    pub refusals: BTreeMap<Refusal, Vec<String>>,
}

/// Gives every index of the fleet a place, or says why it has none.
///
/// The same fleet has the same solution; the solution of a solved fleet is the same again; and no index moves but
/// from a cluster that is gone or drains.
pub fn solve(fleet: &Fleet) -> Solution {
    let mut cells: BTreeMap<&str, BTreeMap<&str, Tally<'_>>> = BTreeMap::new();
    for (id, cluster) in &fleet.clusters {
        cells.entry(&id.cell).or_default().insert(&id.cluster, Tally::new(cluster));
    }
    let mut solution = Solution::default();
    let mut waiting: Vec<Waiting<'_>> = Vec::new();
    for (name, index) in &fleet.indices {
        let before = fleet.previous.get(name).filter(|before| before.cell == index.cell);
        let there = before.and_then(|id| cells.get_mut(id.cell.as_str())?.get_mut(id.cluster.as_str()));
        let mut waits = Waiting { has_place: false, units: Reverse(index.units()), name, index };
        if let (Some(before), Some(tally)) = (before, there) {
            // Also what is to leave is a load until it has left.
            tally.add(index);
            solution.assignment.insert(name.clone(), before.clone());
            if tally.cluster.placement != ClusterPlacement::Drain {
                continue;
            }
            waits.has_place = true;
        }
        waiting.push(waits);
    }
    // Whoever serves nobody yet comes first; among these the heaviest, while there is room for it.
    waiting.sort_by_key(|waits| (waits.has_place, waits.units, waits.name));
    for Waiting { name, index, .. } in waiting {
        let clusters = cells.get(index.cell.as_str()).into_iter().flatten();
        let best = clusters.filter_map(|(&cluster, tally)| tally.judge(cluster, index).ok()).min();
        let Some(best) = best.map(|score| score.cluster) else {
            solution.unplaced.insert(name.to_owned(), Obstacle::default());
            continue;
        };
        if let Some(tally) = cells.get_mut(index.cell.as_str()).and_then(|cell| cell.get_mut(best)) {
            tally.add(index);
        }
        let to = ClusterId::new(&index.cell, best);
        solution.assignment.insert(name.to_owned(), to.clone());
        if let Some(from) = fleet.previous.get(name) {
            solution.moves.insert(name.to_owned(), Move { from: from.clone(), to });
        }
    }
    // In the end, so that it does not matter who came first. Load only grows: who refused then refuses now.
    for (name, obstacle) in &mut solution.unplaced {
        let Some(index) = fleet.indices.get(name) else { continue };
        for (&cluster, tally) in cells.get(index.cell.as_str()).into_iter().flatten() {
            if let Err(refusal) = tally.judge(cluster, index) {
                obstacle.refusals.entry(refusal).or_default().push(cluster.to_owned());
            }
        }
    }
    solution
}

struct Waiting<'a> {
    has_place: bool,
    units: Reverse<i64>,
    name: &'a str,
    index: &'a Index,
}

impl Obstacle {
    /// What it waits for: the cluster, capacity, or a person who opens one.
    pub fn reason(&self) -> Reason {
        // The most hopeful refusal decides.
        match self.refusals.keys().next_back() {
            Some(Refusal::Unreachable(_) | Refusal::Unprepared(_)) => Reason::CellNotReady,
            Some(Refusal::Disk | Refusal::Shards | Refusal::Indices) => Reason::NoCapacity,
            Some(Refusal::Draining | Refusal::Closed) | None => Reason::NoOpenCluster,
        }
    }
}

impl std::fmt::Display for Obstacle {
    /// For a person; the same words while the obstacle is the same.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.refusals.is_empty() {
            return f.write_str("the cell has no cluster");
        }
        for (n, (refusal, clusters)) in self.refusals.iter().rev().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            write!(f, "cluster {} {refusal}", some_of(clusters))?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Closed => f.write_str("is Closed"),
            Refusal::Draining => f.write_str("drains"),
            Refusal::Indices => f.write_str("has as many indices as its masters should carry"),
            Refusal::Shards => {
                f.write_str("has as many shards as its data nodes may hold with one zone lost")
            }
            Refusal::Disk => {
                f.write_str("has no room below the low watermark of its disks with one zone lost")
            }
            Refusal::Unprepared(why) => write!(f, "cannot take new indices: {why}"),
            Refusal::Unreachable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}
