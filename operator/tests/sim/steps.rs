//! The operator dies between any two steps of creating the indices of a pool and publishing their table, once before
//! and once after the step has its effect: every schedule is run to its rest, under all invariants.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use searchcell_core::names::{pool_index, routing_table};
use searchcell_core::routing::Published;
use searchcell_operator::engine::Silent;

use crate::acts::Act;
use crate::driver::{self, Report};
use crate::rng::Rng;
use crate::scenario::{Expect, Kind, MACHINES_PER_ZONE, Scenario};
use crate::specs::{plain_cell, plain_pool};
use crate::world::World;

/// Indices of the pool.
const INDICES: i32 = 12;
/// By then the cell is at rest, and every write is about the placement.
const SETTLED_S: u64 = 300;

/// A cell of two clusters, and a pool on it, in the making of which the operator dies: when it has made so many writes,
/// before or after the last one has its effect.
fn creation(writes: u64, with_effect: bool) -> Scenario {
    let cell = plain_cell(&["a", "b", "c"], &["a", "b"], 3);
    let placement = plain_pool(INDICES);
    let zones = cell.zones.iter().map(|zone| zone.name.clone()).collect();
    Scenario {
        kind: Kind::Placing,
        zones,
        machines_per_zone: MACHINES_PER_ZONE,
        acts: vec![
            (1, Act::CreateCell(Box::new(cell))),
            (SETTLED_S, Act::CreatePlacement("messages".to_owned(), Box::new(placement))),
            (SETTLED_S, Act::Crash { after: writes, with_effect }),
        ],
        expect: Expect::Ready,
        elastic_stays_down: false,
        rest: 60,
        later: Vec::new(),
    }
}

/// Runs it to its rest.
pub fn die(writes: u64, with_effect: bool) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let seed = 2 * writes + u64::from(with_effect);
    runtime.block_on(driver::play(
        seed,
        Rng::new(seed),
        creation(writes, with_effect),
        None,
        Arc::new(Silent),
        wrong,
    ))
}

/// What is wrong at rest that no invariant is about: an index that is not of the pool, one that is there twice, a table
/// that does not have them all.
fn wrong(world: &World) -> Option<String> {
    let mut names: Vec<&String> =
        world.elastic.clusters.values().flat_map(|cluster| cluster.indices.keys()).collect();
    names.sort();
    let wanted: Vec<String> = (0..INDICES).map(|n| pool_index("messages", n, 1)).collect();
    if names != wanted.iter().collect::<Vec<_>>() {
        return Some(format!("these indices are there: {names:?}"));
    }
    let map = world.store.get::<ConfigMap>(&routing_table("messages"));
    let table = map.and_then(|map| Published::read(map).table);
    let named = table.map(|table| table.indices.len());
    (named != Some(wanted.len())).then(|| format!("the table has {named:?} indices"))
}
