//! The laws of the solver, over random fleets, and the cases that its README tells of. A counter-example prints its
//! seed: `SEARCHCELL_FLEET_SEED=<seed> cargo test -p searchcell-core --test solver` runs that fleet alone,
//! `SEARCHCELL_FLEETS=N` more or fewer than the default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cases;
mod fleets;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fleets::{Rng, any, cluster, fleet, ids, loads};
use searchcell_core::placement::solver::{
    BUSY_PERCENT, Cluster, ClusterId, FULL_PERCENT, Fleet, Index, Load, Readiness, Solution, solve,
};
use searchcell_crds::ClusterPlacement;

/// Fleets of a default run.
const FLEETS: u64 = 10_000;

type Law = Result<(), String>;

fn law(holds: bool, what: impl FnOnce() -> String) -> Law {
    if holds { Ok(()) } else { Err(what()) }
}

#[test]
fn the_laws_hold_for_random_fleets() {
    if let Some(seed) = number("SEARCHCELL_FLEET_SEED") {
        laws(seed).unwrap();
        return;
    }
    let (count, next) = (number("SEARCHCELL_FLEETS").unwrap_or(FLEETS), AtomicU64::new(0));
    let broken: Mutex<BTreeMap<u64, String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get()) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count || !broken.lock().unwrap().is_empty() {
                        break;
                    }
                    let checked = std::panic::catch_unwind(|| laws(seed));
                    let checked = checked.unwrap_or_else(|_| Err("it panics".to_owned()));
                    if let Err(what) = checked {
                        broken.lock().unwrap().insert(seed, what);
                    }
                }
            });
        }
    });
    if let Some((seed, what)) = broken.into_inner().unwrap().first_key_value() {
        panic!(
            "seed {seed}: {what}\nrun it again: SEARCHCELL_FLEET_SEED={seed} cargo test -p searchcell-core --test solver"
        );
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn laws(seed: u64) -> Law {
    let mut rng = Rng::new(seed);
    let fleet = fleet(&mut rng);
    let solution = solve(&fleet);
    whole(&fleet, &solution)?;
    law(solve(&fleet) == solution, || "the same fleet has two solutions".to_owned())?;
    moves_have_reasons(&fleet, &solution)?;
    new_places_are_allowed(&fleet, &solution)?;
    refusals_are_just(&fleet, &solution)?;
    balanced(&fleet, &solution)?;

    let solved = Fleet { previous: solution.assignment.clone(), ..fleet };
    let again = solve(&solved);
    law(again.assignment == solution.assignment, || "a second solution moves something".to_owned())?;
    law(again.moves.is_empty(), || format!("a solved fleet moves {:?}", again.moves))?;
    law(again.unplaced == solution.unplaced, || "a second solution refuses something else".to_owned())?;
    change(&mut rng, &solved)
}

/// Every index has a place or an obstacle, and both only while it cannot leave a cluster that drains.
fn whole(fleet: &Fleet, solution: &Solution) -> Law {
    for name in fleet.indices.keys() {
        let (place, obstacle) = (solution.assignment.get(name), solution.unplaced.get(name));
        let drains = place.is_some_and(|id| fleet.clusters[id].placement == ClusterPlacement::Drain);
        law(place.is_some() != obstacle.is_some() || drains && obstacle.is_some(), || {
            format!("{name}: place {place:?}, obstacle {obstacle:?}")
        })?;
    }
    let known = |name: &&String| fleet.indices.contains_key(*name);
    let mut named = solution.assignment.keys().chain(solution.unplaced.keys()).chain(solution.moves.keys());
    law(named.all(|name| known(&name)), || "it names an index that nobody asked for".to_owned())
}

/// Nothing leaves its place unless that is gone, drains, or is of another cell; what moves says from where to where.
fn moves_have_reasons(fleet: &Fleet, solution: &Solution) -> Law {
    for (name, before) in &fleet.previous {
        let now = solution.assignment.get(name);
        let has_reason = before.cell != fleet.indices[name].cell
            || fleet.clusters.get(before).is_none_or(|c| c.placement == ClusterPlacement::Drain);
        law(now == Some(before) || has_reason, || format!("{name} was on {before:?} and is on {now:?}"))?;
        let told = solution.moves.get(name).map(|told| (&told.from, &told.to));
        let moved = now.filter(|now| *now != before).map(|now| (before, now));
        law(told == moved, || format!("{name}: {moved:?}, and told is {told:?}"))?;
    }
    Ok(())
}

fn is_above(value: i64, limit: i64, percent: i64) -> bool {
    i128::from(value) * 100 > i128::from(limit) * i128::from(percent)
}

fn within(cluster: &Cluster, load: Load, bytes: i64, percent: i64) -> bool {
    let room = |percent: i64| {
        let left = |allowed: i64| i128::from(allowed) * i128::from(percent) / 100;
        cluster
            .limits
            .zones
            .iter()
            .all(|zone| i128::from(zone.others) + i128::from(bytes) <= left(zone.allowed))
    };
    !is_above(load.indices, cluster.limits.indices, percent)
        && !is_above(load.shard_copies, cluster.limits.shard_copies, percent)
        && room(if percent == FULL_PERCENT { 100 } else { percent })
}

fn newly_placed<'a>(
    fleet: &'a Fleet,
    solution: &'a Solution,
) -> impl Iterator<Item = (&'a String, &'a ClusterId)> {
    solution.assignment.iter().filter(|(name, id)| fleet.previous.get(*name) != Some(*id))
}

/// What is placed anew is in its own cell, on a cluster that is Open and ready and within its limits.
fn new_places_are_allowed(fleet: &Fleet, solution: &Solution) -> Law {
    let loads = loads(fleet, &solution.assignment);
    for (name, id) in newly_placed(fleet, solution) {
        let cluster = &fleet.clusters[id];
        law(id.cell == fleet.indices[name].cell, || format!("{name} is in the wrong cell"))?;
        let ready = cluster.placement == ClusterPlacement::Open && cluster.readiness == Readiness::Ready;
        law(ready, || format!("{name} lands on {id:?}, which is {:?}", cluster.placement))?;
        let (load, bytes) = loads[id];
        law(within(cluster, load, bytes, FULL_PERCENT), || {
            format!("{id:?} has {load:?} and {bytes} bytes in a zone of {:?}", cluster.limits)
        })?;
    }
    Ok(())
}

/// True when the cluster would take the index on top of what it has in the end.
fn would_take(cluster: &Cluster, (load, bytes): (Load, i64), index: &Index, percent: i64) -> bool {
    let load = Load {
        indices: load.indices + 1,
        shard_copies: load.shard_copies + index.shards * index.copies,
        units: load.units,
    };
    cluster.placement == ClusterPlacement::Open
        && cluster.readiness == Readiness::Ready
        && cluster.limits.bytes_per_zone() > 0
        && within(cluster, load, bytes + index.zone_bytes(cluster.limits.zones.len()), percent)
}

/// What has no place is refused by every cluster of its cell, also in the end, and says so of each.
fn refusals_are_just(fleet: &Fleet, solution: &Solution) -> Law {
    let loads = loads(fleet, &solution.assignment);
    for (name, obstacle) in &solution.unplaced {
        let index = &fleet.indices[name];
        let named: usize = obstacle.refusals.values().map(Vec::len).sum();
        let cell = || fleet.clusters.iter().filter(|(id, _)| id.cell == index.cell);
        law(named == cell().count(), || format!("{name}: {obstacle:?}"))?;
        for (id, cluster) in cell() {
            law(!would_take(cluster, loads[id], index, FULL_PERCENT), || {
                format!("{id:?} would take {name}")
            })?;
        }
    }
    Ok(())
}

/// Whoever got something new has, without the heaviest of it, no more load than a neighbour that could have taken it.
fn balanced(fleet: &Fleet, solution: &Solution) -> Law {
    let loads = loads(fleet, &solution.assignment);
    let mut heaviest: BTreeMap<&ClusterId, &Index> = BTreeMap::new();
    for (name, id) in newly_placed(fleet, solution) {
        let index = &fleet.indices[name];
        let known = heaviest.entry(id).or_insert(index);
        if index.units() > known.units() {
            *known = index;
        }
    }
    for (id, index) in heaviest {
        let mut neighbours = fleet.clusters.iter().filter(|(other, _)| other.cell == id.cell && *other != id);
        let better = neighbours.find(|(other, cluster)| {
            let lighter = loads[*other].0.units + index.units() < loads[id].0.units;
            // As heavy as any of them, so whatever was placed here would have fitted there.
            let widest = Index { shards: 20, copies: 3, shard_bytes: 40_000_000_000, ..Index::default() };
            lighter && would_take(cluster, loads[*other], &widest, BUSY_PERCENT)
        });
        law(better.is_none(), || {
            format!("{id:?} has {} units, {better:?} less by more than {}", loads[id].0.units, index.units())
        })?;
    }
    Ok(())
}

/// One thing happens to a fleet that is solved; nothing moves but what it concerns.
fn change(rng: &mut Rng, solved: &Fleet) -> Law {
    let mut changed = solved.clone();
    let Some(id) = any(rng, solved) else { return Ok(()) };
    let what = rng.range(0, 6);
    let happened = changed.clusters.get_mut(&id);
    match (what, happened) {
        (0, _) => {
            changed.clusters.insert(ClusterId::new(&id.cell, "new"), cluster(rng));
        }
        (1, Some(it)) => it.placement = ClusterPlacement::Closed,
        (2, Some(it)) => it.readiness = Readiness::Unreachable("gone for a while".to_owned()),
        (3, Some(it)) => (it.limits.indices, it.limits.shard_copies) = (0, 0),
        (4, Some(it)) => it.others.units += 1_000_000,
        (5, Some(it)) => it.placement = ClusterPlacement::Drain,
        _ => {
            changed.clusters.remove(&id);
        }
    }
    let solution = solve(&changed);
    whole(&changed, &solution)?;
    new_places_are_allowed(&changed, &solution)?;
    refusals_are_just(&changed, &solution)?;
    for (name, before) in &solved.previous {
        let now = solution.assignment.get(name);
        // What could not leave a draining cluster may leave it now.
        let drained = solved.clusters[before].placement == ClusterPlacement::Drain;
        let concerned = drained || what > 4 && *before == id;
        law(now == Some(before) || concerned, || {
            format!("change {what} of {id:?} moves {name} from {before:?} to {now:?}")
        })?;
    }
    let gone = ids(solved).filter(|id| !changed.clusters.contains_key(id)).count();
    law(gone <= 1, || "more than one cluster went".to_owned())
}
