//! How long a cluster of ninety data nodes takes to change: by zone, and one pod at a time. Simulated, through the operator's
//! own loop; prints the rows of a table.

use std::sync::Arc;

use searchcell_crds::{IngestNodes, NodeOptions, RolloutUnit};
use searchcell_operator::engine::Silent;

use crate::acts::{Act, Edit};
use crate::driver::{self, Report};
use crate::rng::Rng;
use crate::scenario::{Expect, Kind, Scenario};
use crate::specs::{plain_cell, plain_pool};
use crate::world::World;

const PER_ZONE: i32 = 30;
/// Each data node has three shards: a primary and two copies.
const INDICES: i32 = 90;
/// By then the cell is at rest, and its placement serves.
const CHANGED_AT_S: u64 = 900;
const RUNS: u64 = 5;

/// What one change took.
struct Change {
    /// How often nodes were taken away: at once, or one by one.
    steps: usize,
    restarts: usize,
    minutes: f64,
}

/// Least, median and greatest.
struct Spread([f64; 3]);

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self([values[0], values[values.len() / 2], values[values.len() - 1]])
    }

    fn text(&self, digits: usize) -> String {
        let Spread([least, median, most]) = self;
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

fn scenario(unit: RolloutUnit) -> Scenario {
    let mut cell = plain_cell(&["a", "b", "c"], &["a"], 3);
    cell.nodes.data.per_zone = PER_ZONE;
    cell.nodes.ingest =
        Some(IngestNodes { replicas: Some(3), autoscaling: None, options: NodeOptions::default() });
    cell.rollout.unit = unit;
    let acts = vec![
        (1, Act::CreateCell(Box::new(cell))),
        (300, Act::CreatePlacement("messages".to_owned(), Box::new(plain_pool(INDICES)))),
        (CHANGED_AT_S, Act::EditCell(Edit::Version("9.5.4".to_owned()))),
    ];
    Scenario {
        kind: Kind::Rolling,
        zones: ["a", "b", "c"].map(str::to_owned).to_vec(),
        machines_per_zone: u64::from(PER_ZONE.unsigned_abs()),
        acts,
        expect: Expect::Ready,
        elastic_stays_down: false,
        rest: 60,
        later: Vec::new(),
    }
}

fn play(seed: u64, unit: RolloutUnit) -> (Report, Option<Change>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut change = None;
    let measure = |world: &World| {
        change = changed(world);
        None
    };
    let report =
        runtime.block_on(driver::play(seed, Rng::new(seed), scenario(unit), None, Arc::new(Silent), measure));
    (report, change)
}

/// From the first node that goes to the last that is back.
fn changed(world: &World) -> Option<Change> {
    let edited = world.log.iter().position(|write| write.text.contains("EditCell"))?;
    let after = &world.log[edited..];
    let (mut steps, mut restarts, mut is_in_step) = (0, 0, false);
    for write in after {
        if write.text.contains("operator") && write.text.contains("delete Pod") {
            steps += usize::from(!is_in_step);
            restarts += 1;
            is_in_step = true;
        } else if write.text.contains(" joins as ") {
            is_in_step = false;
        }
    }
    let last = after.iter().rfind(|write| write.text.contains(" joins as "))?;
    let minutes = (last.ms - after.first()?.ms) as f64 / 60_000.0;
    Some(Change { steps, restarts, minutes })
}

/// Runs both ways from the same seeds, and prints what they took.
pub fn compare() {
    let mut rows = Vec::new();
    let mut minutes: Vec<Vec<f64>> = Vec::new();
    for (name, unit) in [("by zone", RolloutUnit::Auto), ("one pod at a time", RolloutUnit::Node)] {
        let mut changes = Vec::new();
        for seed in 0..RUNS {
            let (report, change) = play(seed, unit);
            assert!(report.violation.is_none(), "{}", crate::describe(seed, &report));
            changes.push(change.unwrap());
        }
        let nodes = 3 * PER_ZONE as usize + 3;
        assert!(changes.iter().all(|change| change.restarts == nodes), "each master and data node once");
        let spread = |of: &dyn Fn(&Change) -> f64| Spread::of(changes.iter().map(of).collect());
        rows.push((
            name,
            spread(&|change| change.steps as f64).text(0),
            spread(&|change| change.minutes).text(1),
        ));
        minutes.push(changes.iter().map(|change| change.minutes).collect());
    }
    let ratio = Spread::of(minutes[1].iter().zip(&minutes[0]).map(|(one, zone)| one / zone).collect());
    println!("| | steps | minutes | × by zone |\n| --- | --- | --- | --- |");
    for ((name, steps, minutes), times) in rows.iter().zip(["1.0".to_owned(), ratio.text(1)]) {
        println!("| {name} | {steps} | {minutes} | {times} |");
    }
    assert!(ratio.0[0] > 1.0, "{:?}", ratio.0);
}
