//! Faults where versions come from the source of truth: afterwards the set of ids and versions in Elasticsearch is
//! the oracle's, whatever happened.

use std::time::Duration;

use searchcell_crds::Versioning;
use searchcell_workbench::null::Options;
use searchcell_workbench::null::rules::{Applied, Fault, Rule};
use searchcell_workbench::work::{Operation, Shape};
use serde_json::json;
use tokio::time::sleep;

use super::stage::{Stage, impatient, until};
use super::writer::{Manner, Report, Told};

/// Edits and deletes of much, often delivered twice, and before what they are about.
pub fn tangled() -> Shape {
    Shape { tenants: 60, edits: 0.25, deletes: 0.15, duplicates: 0.15, reordered: 60 }
}

async fn stage(name: &str) -> Stage {
    Stage::new(name, 2, 6, Versioning::External).await
}

/// Writes work while rules are in force for good. `hangs`: whether some of them let bulks hang.
async fn endures(name: &str, count: usize, rules: &[Rule], hangs: bool) {
    let limits = if hangs { impatient() } else { json!({}) };
    let stage = Stage::with(name, 2, 6, Versioning::External, Options::default(), limits).await;
    stage.clusters.iter().for_each(|cluster| cluster.set_rules(rules.to_vec()));
    let work = stage.work(count, tangled());
    let timeout = Duration::from_secs(if hangs { 3 } else { 200 });
    let report = stage.write(&work, &Manner { timeout, ..Manner::default() }).await;
    stage.verify_numbered(&work, &report).await;
    stage.verify_counts(&report).await;
    assert!(report.count("done") > 0 && report.count("superseded") > 0, "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_and_another_order_with_deletes() {
    endures("order", 3_000, &[], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_429() {
    let rules =
        [Rule::new(Fault::Reject).share(0.4).times(12), Rule::new(Fault::RejectItems).share(0.2).times(60)];
    endures("storm", 2_000, &rules, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_failures_in_all_mixes() {
    let fail = |status, kind: &str, applied| {
        Rule::new(Fault::FailItems { status, kind: kind.to_owned(), applied }).share(0.04).times(12)
    };
    let rules = [
        Rule::new(Fault::RejectItems).share(0.05).times(15),
        fail(503, "unavailable_shards_exception", Applied::Some),
        fail(500, "i_o_exception", Applied::Some),
        fail(503, "cluster_block_exception", Applied::No),
        fail(429, "circuit_breaking_exception", Applied::No),
        fail(503, "no_shard_available_action_exception", Applied::Yes),
        Rule::new(Fault::ReadOnly { status: 403 }).share(0.01).times(5),
        Rule::new(Fault::ReadOnly { status: 429 }).share(0.01).times(5),
    ];
    endures("mixes", 1_500, &rules, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_break_off_or_never_come() {
    let mut rules = Vec::new();
    for applied in [Applied::No, Applied::Yes, Applied::Some] {
        rules.push(Rule::new(Fault::Truncate { applied }).share(0.15).times(4));
        rules.push(Rule::new(Fault::Cut { applied }).share(0.15).times(4));
        rules.push(Rule::new(Fault::Gateway { applied }).share(0.15).times(4));
        rules.push(Rule::new(Fault::Hang { applied }).share(0.02).times(1));
    }
    rules.push(Rule::new(Fault::Miscount).share(0.15).times(4));
    rules.push(Rule::new(Fault::NoMaster).share(0.15).times(4));
    endures("answers", 1_500, &rules, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_is_killed_between_write_and_ack() {
    let mut stage = stage("kill").await;
    let work = stage.work(2_000, tangled());
    let report = stage.write_while_it_dies(&work, &Manner::default(), 3).await;
    stage.verify_numbered(&work, &report).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed_in_the_middle_of_bulks() {
    let stage = stage("node").await;
    let work = stage.work(2_000, tangled());
    let report = while_nodes_die(&stage, stage.write(&work, &Manner::default())).await;
    stage.verify_numbered(&work, &report).await;
    stage.verify_counts(&report).await;
}

/// Kills nodes that have bulks, one after the other, for as long as somebody writes.
pub async fn while_nodes_die(stage: &Stage, writing: impl Future<Output = Report>) -> Report {
    let mut deaths = 0;
    let dying = async {
        for cluster in stage.clusters.iter().cycle() {
            // Everything is done some time before it is answered.
            cluster.set_rules(vec![Rule::new(Fault::Slow { millis: 50 })]);
            let before = cluster.counters().applied;
            until("operations are applied", || cluster.counters().applied >= before + 20).await;
            cluster.set_up(0, false).await;
            deaths += 1;
            sleep(Duration::from_millis(50)).await;
            cluster.set_up(0, true).await;
            cluster.set_rules(Vec::new());
            // Some time to live, so that the end comes nearer.
            sleep(Duration::from_secs(1)).await;
        }
    };
    let report = tokio::select! {
        report = writing => report,
        () = dying => unreachable!("they die again and again"),
    };
    for cluster in &stage.clusters {
        cluster.set_up(0, true).await;
        cluster.set_rules(Vec::new());
    }
    assert!(deaths > 0, "nothing died");
    report
}

/// A document of some size, with a text in it that the rules know.
fn message(number: u64, tenant: u64, text: &str, size: usize) -> Operation {
    let document =
        format!("{{\"guild_id\":\"{tenant}\",\"text\":\"{text}\",\"more\":\"{}\"}}", "x".repeat(size));
    Operation { tenant, id: number + 1, version: 1, document: Some(document) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_in_each_position_sinks_no_neighbour() {
    const BATCH: u64 = 9;
    let stage = stage("poison").await;
    let poisons = [
        (
            "of-the-request",
            Fault::PoisonRequest { text: "of-the-request".into() },
            "illegal_argument_exception",
        ),
        ("of-the-item", Fault::PoisonItem { text: "of-the-item".into() }, "document_parsing_exception"),
    ];
    let rules: Vec<Rule> = poisons.iter().map(|(_, fault, _)| Rule::new(fault.clone())).collect();
    stage.clusters.iter().for_each(|cluster| cluster.set_rules(rules.clone()));
    let timeout = Duration::from_secs(200);
    let manner = Manner { batch: BATCH as usize, connections: 1, timeout, ..Manner::default() };
    let mut all = (Vec::new(), Report::default());
    for (text, _, kind) in &poisons {
        for poisoned in (0..BATCH).map(|position| vec![position]).chain([vec![0, 4, 8], (0..BATCH).collect()])
        {
            let work: Vec<Operation> = (0..BATCH)
                .map(|position| {
                    let text = if poisoned.contains(&position) { text } else { "fine" };
                    // One tenant: all of them are in one bulk.
                    message(all.0.len() as u64 + position, 7, text, 100)
                })
                .collect();
            let report = stage.write(&work, &manner).await;
            for (position, told) in (0..BATCH).zip(&report.told) {
                let expected = match poisoned.contains(&position) {
                    true => Told::Refused(400, (*kind).to_owned()),
                    false => Told::Done,
                };
                assert_eq!(told.as_ref(), Some(&expected), "position {position} of {poisoned:?}");
            }
            all.0.extend(work);
            all.1.told.extend(report.told);
            report.items.into_iter().for_each(|(name, count)| *all.1.items.entry(name).or_default() += count);
        }
    }
    stage.verify_numbered(&all.0, &all.1).await;
    let metrics = stage.router.metrics().await;
    assert_eq!(metrics["operations_total outcome=\"refused\""], all.1.count("refused"));
    assert_eq!(metrics["operations_total outcome=\"done\""], all.1.count("done"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_split_and_what_cannot_be_is_refused() {
    let stage = stage("large").await;
    let rules = vec![Rule::new(Fault::MaxBytes { bytes: 2_500 })];
    stage.clusters.iter().for_each(|cluster| cluster.set_rules(rules.clone()));
    let work: Vec<Operation> = (0..300)
        .map(|number| message(number, number % 5, "fine", if number % 40 == 7 { 3_000 } else { 300 }))
        .collect();
    let report = stage.write(&work, &Manner::default()).await;
    for (number, told) in report.told.iter().enumerate() {
        let refused = matches!(told, Some(Told::Refused(413, _)));
        assert_eq!(refused, number % 40 == 7, "{number}: {told:?}");
    }
    stage.verify_numbered(&work, &report).await;
    let refused: u64 = stage.clusters.iter().map(|cluster| cluster.counters().statuses[&413]).sum();
    assert!(refused >= 8, "{refused}");
}

/// What stops one index until it is released: nothing else of its cluster stops.
async fn stops_and_goes_on(name: &str, fault: Fault, item: u16) {
    let stage = stage(name).await;
    let sick = "messages.p0001.g1";
    let cluster = &stage.clusters[1];
    cluster.set_rules(vec![Rule::new(fault).index(sick)]);
    let work = stage.work(1_200, tangled());
    let (affected, others): (Vec<Operation>, Vec<Operation>) =
        work.into_iter().partition(|one| stage.place(one).1 == sick);
    assert!(affected.len() > 50 && others.len() > 500);
    let manner = Manner { connections: 2, timeout: Duration::from_millis(400), ..Manner::default() };
    let releasing = async {
        // Released only when the others are all written: they did not wait for it.
        let patient = Manner { timeout: Duration::from_secs(200), ..manner.clone() };
        let report = stage.write(&others, &patient).await;
        for outcome in ["refused", "unsent", "unknown"] {
            assert_eq!(report.count(outcome), 0, "others fail with it: {:?}", report.items);
        }
        until("it was tried", || cluster.counters().items.get(&item).is_some_and(|count| *count > 5)).await;
        stage.somebody_is_told_of_a_failure().await;
        cluster.set_rules(Vec::new());
        report
    };
    let (first, second) = tokio::join!(stage.write(&affected, &manner), releasing);
    assert!(first.count("unsent") + first.count("unknown") > 0, "{:?}", first.items);
    let mut both = first;
    both.told.extend(second.told);
    second.items.into_iter().for_each(|(name, count)| *both.items.entry(name).or_default() += count);
    let work: Vec<Operation> = affected.into_iter().chain(others).collect();
    stage.verify_numbered(&work, &both).await;
    stage.verify_counts(&both).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_red_index_and_its_recovery() {
    stops_and_goes_on("red", Fault::Red { after_millis: 100 }, 503).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_block_and_its_release() {
    stops_and_goes_on("readonly", Fault::ReadOnly { status: 403 }, 403).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flood_stage_of_a_disk_and_its_release() {
    stops_and_goes_on("flood", Fault::ReadOnly { status: 429 }, 429).await;
}
