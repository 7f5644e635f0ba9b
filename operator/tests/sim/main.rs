//! The operator's real loop — observe, plan, execute, status — on a simulated Kubernetes and a simulated
//! Elasticsearch, under faults: deterministic, from one seed per schedule, with named invariants on every tick.
//!
//! It takes minutes, and only when it is optimised: `make test` and `make sim` run it in the cargo profile `simtest`,
//! everybody else ignores it. `SEARCHCELL_SIM_SCHEDULES=N` runs more or fewer schedules (`make sim N=`),
//! from the seed `SEARCHCELL_SIM_FIRST` on (`make sim FIRST=`),
//! `SEARCHCELL_SIM_SEED=S` one of them again (`make sim SEED=`), `SEARCHCELL_SIM_STORY=Rolling` those of one kind only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
mod backups;
mod bugs;
mod cache;
mod calls;
mod defaults;
mod driver;
mod elastic;
mod fields;
mod fleet;
mod invariants;
mod keystore;
mod kubernetes;
mod machines;
mod mutants;
mod objects;
mod placed;
mod pressure;
mod removal;
mod rng;
mod rolling;
mod scaling;
mod scenario;
mod secure;
mod settled;
mod shards;
mod sim_elastic;
mod sim_kube;
mod specs;
mod steps;
mod store;
mod tenants;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bugs::{Bug, TABLE};
use driver::Report;
use scenario::{KINDS, Kind};

/// A simulation makes and drops small objects all the time, on every core.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Schedules of a default run.
const SCHEDULES: u64 = 2_000;
/// A bug has to show within so many schedules of its kind.
const SCHEDULES_PER_BUG: u64 = 800;

fn simulate(seed: u64, kind: Option<Kind>, bug: Option<Bug>) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(driver::run(seed, kind, bug))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The kind of story that was asked for, if one was.
fn story() -> Option<Kind> {
    let name = std::env::var("SEARCHCELL_SIM_STORY").ok()?;
    let kind = KINDS.iter().map(|(kind, _)| *kind).find(|kind| format!("{kind:?}") == name);
    Some(kind.unwrap_or_else(|| panic!("SEARCHCELL_SIM_STORY is {name}: there is no such story")))
}

/// Runs `work` for 0, 1, 2, … on all cores until it says stop.
fn on_all_cores(work: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| while work(next.fetch_add(1, Ordering::Relaxed)) {});
        }
    });
}

fn describe(seed: u64, report: &Report) -> String {
    let Some(violation) = &report.violation else { return String::new() };
    format!(
        "{}\n\nseed {seed} ({:?}) breaks `{}` at {:.3}s: {}\nrun it again: make sim SEED={seed}{}\n",
        report.tail,
        report.kind,
        violation.invariant,
        (violation.ms - 3_600_000) as f64 / 1000.0,
        violation.message,
        story().map(|kind| format!(" STORY={kind:?}")).unwrap_or_default(),
    )
}

#[test]
#[ignore = "runs optimised: make test, make sim"]
fn no_schedule_breaks_an_invariant() {
    if let Some(seed) = number("SEARCHCELL_SIM_SEED") {
        let report = simulate(seed, story(), None);
        assert!(report.violation.is_none(), "{}", describe(seed, &report));
        return;
    }
    let schedules = number("SEARCHCELL_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let first = number("SEARCHCELL_SIM_FIRST").unwrap_or(0);
    let keep_going = number("SEARCHCELL_SIM_KEEP_GOING").is_some();
    let started = Instant::now();
    let failures: Mutex<BTreeMap<u64, Report>> = Mutex::default();
    let simulated = AtomicU64::new(0);
    on_all_cores(|nth| {
        let seed = first + nth;
        if nth >= schedules || (!keep_going && !failures.lock().unwrap().is_empty()) {
            return false;
        }
        let report = simulate(seed, story(), None);
        simulated.fetch_add(report.seconds, Ordering::Relaxed);
        if let Some(violation) = &report.violation {
            println!("seed {seed} {:?}: {}: {}", report.kind, violation.invariant, violation.message);
            failures.lock().unwrap().insert(seed, report);
        }
        true
    });
    let failures = failures.into_inner().unwrap();
    let took = started.elapsed().as_secs_f64();
    let hours = simulated.into_inner() / 3_600;
    println!(
        "{schedules} schedules, {hours} simulated hours in {took:.0} s: {:.0} a second",
        schedules as f64 / took
    );
    if let Some((seed, report)) = failures.first_key_value() {
        panic!("{}", describe(*seed, report));
    }
}

#[test]
#[ignore = "runs optimised: make test, make sim"]
fn a_seed_reproduces_a_run() {
    for seed in 0..6 {
        let (first, second) = (simulate(seed, None, None), simulate(seed, None, None));
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
    }
}

/// Of the finalizer, the record, twelve indices, what was seen, and the table, none is left out.
const STEPS_OF_A_CREATION: u64 = 16;

#[test]
#[ignore = "runs optimised: make test, make sim"]
fn an_operator_may_die_between_any_two_steps_of_a_creation() {
    let last: Mutex<u64> = Mutex::default();
    on_all_cores(|number| {
        let (writes, with_effect) = (number / 2, number % 2 == 1);
        let report = steps::die(writes, with_effect);
        assert!(
            report.violation.is_none(),
            "after {writes} writes ({with_effect}): {}",
            describe(0, &report)
        );
        assert_eq!(report.wrong, None, "after {writes} writes ({with_effect})");
        // The first schedule in which there was no such write any more is the last one.
        let died = report.deaths > 0;
        if died {
            let mut last = last.lock().unwrap();
            *last = (writes + 1).max(*last);
        }
        died
    });
    let last = last.into_inner().unwrap();
    println!("the operator died before and after each of {last} writes");
    assert!(last >= STEPS_OF_A_CREATION, "{last}");
}

#[test]
#[ignore = "runs optimised: make test, make sim"]
fn every_limit_of_a_shard_is_told_by_condition_event_and_metric() {
    pressure::every_limit_is_told();
}

#[test]
#[ignore = "runs optimised: make test, make sim"]
fn what_cannot_be_measured_stays_told_as_it_was() {
    pressure::what_cannot_be_measured_stays_told();
}

#[test]
#[ignore = "runs optimised: make test, make sim"]
fn a_steady_growth_is_forecast_within_a_tenth_of_the_truth() {
    for (from, a_day, limit, reason) in [
        (100_000_000, 4_000_000, 200_000_000, "ShardLarge"),
        (600_000_000, 30_000_000, 1_000_000_000, "ShardVeryLarge"),
        (1_900_000_000, 1_500_000, 1_932_735_167, "ShardAlmostFull"),
    ] {
        let worst = pressure::a_steady_growth_is_forecast(from, a_day, limit, reason);
        println!("{reason}: forecast to within {:.1} % of the time that was left", worst * 100.0);
    }
}

#[test]
#[ignore = "runs optimised, for minutes: make bench-upgrades"]
fn ninety_data_nodes_by_zone_and_one_at_a_time() {
    fleet::compare();
}

#[test]
#[ignore = "runs optimised: make test, make sim"]
fn every_deliberate_bug_is_caught() {
    let missed: Mutex<Vec<String>> = Mutex::default();
    on_all_cores(|number| {
        let Some((bug, kind, expected)) = TABLE.get(number as usize) else { return false };
        if std::env::var("SEARCHCELL_SIM_BUG").is_ok_and(|only| only != format!("{bug:?}")) {
            return true;
        }
        let mut others = Vec::new();
        for seed in 0..SCHEDULES_PER_BUG {
            let report = simulate(seed, Some(*kind), Some(*bug));
            match &report.violation {
                Some(violation) if expected.contains(&violation.invariant) => {
                    println!("{bug:?}: {} in schedule {seed}", violation.invariant);
                    return true;
                }
                Some(violation) => others.push(violation.invariant),
                None => {}
            }
        }
        let text =
            format!("{bug:?}: none of {expected:?} broke in {SCHEDULES_PER_BUG} schedules, but {others:?}");
        missed.lock().unwrap().push(text);
        true
    });
    let missed = missed.into_inner().unwrap();
    println!("{} of {} deliberate bugs caught", TABLE.len() - missed.len(), TABLE.len());
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}
