//! One cluster that is sick harms no other: nothing of the others fails, and nothing of them waits for it. What waits
//! is counted, not timed: the sick one stays so until all that is of the others is done.

use std::collections::BTreeSet;
use std::time::Duration;

use searchcell_crds::Versioning;
use searchcell_workbench::null::Options;
use searchcell_workbench::null::rules::{Applied, Fault, Rule};
use searchcell_workbench::work::{Operation, Shape};
use serde_json::json;

use super::stage::Stage;
use super::writer::{Manner, Told};

enum Sickness {
    Rule(Fault),
    Dead,
}

async fn one_of_four(name: &str, sickness: Sickness) {
    // So little that what the sick one is offered does not fit into its share.
    let limits = json!({"budget": 4 << 20, "bulkTimeout": "15s"});
    let stage = Stage::with(name, 4, 16, Versioning::External, Options::default(), limits).await;
    match sickness {
        Sickness::Rule(fault) => stage.clusters[0].set_rules(vec![Rule::new(fault)]),
        Sickness::Dead => stage.clusters[0].set_up(0, false).await,
    }
    let shape = Shape { tenants: 400, edits: 0.0, deletes: 0.0, duplicates: 0.0, reordered: 0 };
    let work = stage.work(6_000, shape);
    let (sick, healthy): (Vec<Operation>, Vec<Operation>) =
        work.into_iter().partition(|one| stage.place(one).0 == 0);
    let flood = Manner { connections: 24, batch: 100, timeout: Duration::from_secs(1), ..Manner::default() };
    let patient = Manner { timeout: Duration::from_secs(300), ..Manner::default() };
    let healthy_first = async {
        // The sick one holds all that it may before the others begin.
        let started = tokio::time::Instant::now();
        while stage.router.metrics().await.get("held_bytes").copied().unwrap_or(0) < 40 << 10 {
            assert!(started.elapsed() < super::process::LONG, "nothing waits for the sick one");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let report = stage.write(&healthy, &patient).await;
        assert_eq!(report.count("done"), healthy.len() as u64, "{:?}", report.items);
        assert_eq!((report.overloaded, report.lost), (0, 0), "requests of others were turned away");
        let items: BTreeSet<&str> = report.items.keys().copied().collect();
        assert_eq!(items, BTreeSet::from(["done"]));
        // Nothing of them was tried twice either.
        let bulks: u64 = stage.clusters[1..].iter().map(|cluster| cluster.counters().operations).sum();
        assert_eq!(bulks, healthy.len() as u64);
        stage.somebody_is_told_of_a_failure().await;
        stage.clusters[0].set_rules(Vec::new());
        stage.clusters[0].set_up(0, true).await;
        report
    };
    let (first, second) = tokio::join!(stage.write(&sick, &flood), healthy_first);
    assert!(first.count("unsent") + first.count("unknown") + first.overloaded > 0, "{:?}", first.items);
    let mut both = first;
    both.told.extend(second.told);
    let work: Vec<Operation> = sick.into_iter().chain(healthy).collect();
    stage.verify_numbered(&work, &both).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cluster_of_four_hangs() {
    one_of_four("hangs", Sickness::Rule(Fault::Hang { applied: Applied::Some })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cluster_of_four_refuses_connections() {
    one_of_four("refuses", Sickness::Dead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cluster_of_four_answers_a_byte_a_second() {
    one_of_four("drips", Sickness::Rule(Fault::Drip { bytes_per_second: 1.0 })).await;
}

/// The sum that the design is for: of mixed bulks of 50 documents over 100 nodes, `1 - 0.99^50 = 40 %` have something
/// for the one that is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_a_hundred_is_dead_and_one_percent_of_operations_is_affected() {
    const NODES: usize = 100;
    let options = Options { data_nodes: NODES, ..Options::default() };
    // Where what fails is not sent again, it is answered when it fails, and not when a time is over.
    let stage = Stage::with("hundred", 1, 500, Versioning::None, options, json!({})).await;
    let cluster = &stage.clusters[0];
    let shape = Shape { tenants: 1_000_000, edits: 0.0, deletes: 0.0, duplicates: 0.0, reordered: 0 };
    let work = stage.work(4_000, shape);
    let node = |one: &Operation| cluster.data_node(&stage.place(one).1);
    let of = |dead: usize| work.iter().filter(|one| node(one) == dead).count();
    // One that has what a node has on average.
    let dead = (0..NODES).min_by_key(|dead| of(*dead).abs_diff(work.len() / NODES)).unwrap();
    cluster.set_rules(vec![Rule::new(Fault::Red { after_millis: 200 }).data_node(dead)]);
    let manner = Manner {
        versioned: false,
        batch: 50,
        connections: 40,
        timeout: Duration::from_secs(200),
        ..Manner::default()
    };
    let report = stage.write(&work, &manner).await;
    let mut affected = 0;
    for (one, told) in work.iter().zip(&report.told) {
        let expected = if node(one) == dead { Told::Unknown } else { Told::Done };
        affected += usize::from(expected == Told::Unknown);
        assert_eq!(told.as_ref(), Some(&expected), "{one:?}");
    }
    let mixed = work.chunks(50).filter(|batch| batch.iter().any(|one| node(one) == dead)).count() * 50;
    let share = |count: usize| 100.0 * count as f64 / work.len() as f64;
    println!("{:.2} % of operations are affected; of mixed bulks: {:.1} %", share(affected), share(mixed));
    assert!((0.5..=1.5).contains(&share(affected)) && mixed > 15 * affected, "{affected} {mixed}");
    stage.verify_unnumbered(&work, &report).await;
}
