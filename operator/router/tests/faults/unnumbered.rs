//! Faults where Elasticsearch numbers versions itself: what is acknowledged is there, nothing is applied twice, and
//! what nobody knows is said to be unknown.

use std::time::Duration;

use searchcell_crds::Versioning;
use searchcell_workbench::null::Options;
use searchcell_workbench::null::rules::{Applied, Fault, Rule};
use searchcell_workbench::work::{Operation, Shape};
use serde_json::json;

use super::numbered::while_nodes_die;
use super::stage::{Stage, impatient};
use super::writer::{Manner, Told};

/// Some ids are written several times, so that their order and number matter.
fn work(stage: &Stage, count: usize) -> Vec<Operation> {
    stage.work(count, Shape { tenants: 60, edits: 0.15, deletes: 0.05, duplicates: 0.0, reordered: 0 })
}

fn manner() -> Manner {
    Manner { versioned: false, ..Manner::default() }
}

async fn endures(name: &str, rules: &[Rule], doubts: bool) {
    let limits = if doubts { impatient() } else { json!({}) };
    let stage = Stage::with(name, 2, 6, Versioning::None, Options::default(), limits).await;
    stage.clusters.iter().for_each(|cluster| cluster.set_rules(rules.to_vec()));
    let work = work(&stage, 1_500);
    // Where nothing is to be in doubt, time is not to be over either.
    let timeout = Duration::from_secs(if doubts { 3 } else { 200 });
    let report = stage.write(&work, &Manner { timeout, ..manner() }).await;
    stage.verify_unnumbered(&work, &report).await;
    stage.verify_counts(&report).await;
    assert_eq!(report.count("unknown") > 0, doubts, "{:?}", report.items);
    assert!(report.count("done") > 0, "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proven_unapplied_is_sent_again_and_nothing_is_in_doubt() {
    let rules = [
        Rule::new(Fault::Reject).share(0.3).times(12),
        Rule::new(Fault::RejectItems).share(0.1).times(40),
        Rule::new(Fault::NoMaster).share(0.1).times(5),
        Rule::new(Fault::FailItems {
            status: 503,
            kind: "cluster_block_exception".into(),
            applied: Applied::No,
        })
        .share(0.05)
        .times(12),
        Rule::new(Fault::MaxBytes { bytes: 4_000 }),
    ];
    endures("none-proven", &rules, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_applied_is_told_and_not_sent_again() {
    let mut rules = Vec::new();
    for applied in [Applied::No, Applied::Yes, Applied::Some] {
        rules.push(Rule::new(Fault::Truncate { applied }).share(0.1).times(4));
        rules.push(Rule::new(Fault::Cut { applied }).share(0.1).times(4));
        rules.push(Rule::new(Fault::Gateway { applied }).share(0.1).times(4));
        let kind = "unavailable_shards_exception".to_owned();
        rules.push(Rule::new(Fault::FailItems { status: 503, kind, applied }).share(0.02).times(6));
        let kind = "i_o_exception".to_owned();
        rules.push(Rule::new(Fault::FailItems { status: 500, kind, applied }).share(0.02).times(6));
        rules.push(Rule::new(Fault::Hang { applied }).share(0.02).times(1));
    }
    rules.push(Rule::new(Fault::Miscount).share(0.1).times(4));
    endures("none-doubt", &rules, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed_in_the_middle_of_bulks() {
    let stage = Stage::new("none-node", 2, 6, Versioning::None).await;
    let work = work(&stage, 1_500);
    let report = while_nodes_die(&stage, stage.write(&work, &manner())).await;
    stage.verify_unnumbered(&work, &report).await;
    stage.verify_counts(&report).await;
    assert!(report.count("unknown") > 0, "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_is_killed_between_write_and_ack() {
    let mut stage = Stage::new("none-kill", 2, 6, Versioning::None).await;
    let work = work(&stage, 1_500);
    let report = stage.write_while_it_dies(&work, &manner(), 2).await;
    let unknown = report.told.iter().filter(|told| **told == Some(Told::Unknown)).count();
    assert!(unknown as u64 >= report.lost);
    stage.verify_unnumbered(&work, &report).await;
}
