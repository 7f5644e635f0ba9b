//! Another table while documents are on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use searchcell_core::routing::Table;
use searchcell_crds::Versioning;
use searchcell_workbench::null::Options;
use searchcell_workbench::null::rules::{Fault, Rule};
use searchcell_workbench::work::Shape;

use super::numbered::tangled;
use super::process::LONG;
use super::stage::{Stage, impatient, until};
use super::writer::Manner;

const OLD: &str = "messages.p0000.g1";
const NEW: &str = "messages.p0000.g2";

/// The next table: what was in `OLD` is in `NEW`.
fn moved(stage: &Stage) -> Table {
    let mut table = stage.table.clone();
    table.generation += 1;
    table.indices.iter_mut().filter(|index| index.name == OLD).for_each(|index| index.name = NEW.to_owned());
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_missing_until_the_table_names_another() {
    let mut stage = Stage::new("missing", 2, 6, Versioning::External).await;
    let next = moved(&stage);
    let cluster = stage.clusters[0].clone();
    cluster.set_rules(vec![Rule::new(Fault::Missing).index(OLD)]);
    let work = stage.work(1_200, tangled());
    let manner = Manner { timeout: Duration::from_millis(500), ..Manner::default() };
    let repairing = async {
        until("it is missed", || cluster.counters().items.get(&404).is_some_and(|count| *count > 5)).await;
        stage.router.put_table(&next);
    };
    let (report, ()) = tokio::join!(stage.write(&work, &manner), repairing);
    assert!(report.count("unsent") > 0, "{:?}", report.items);
    stage.verify_counts(&report).await;
    stage.table = next;
    stage.verify_numbered(&work, &report).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_older_table_arrives_once_it_is_drained() {
    let stage = Stage::with("drained", 2, 6, Versioning::External, Options::default(), impatient()).await;
    let next = moved(&stage);
    let cluster = &stage.clusters[0];
    // Bulks that hang or come late are under way when the table changes.
    let hang = Rule::new(Fault::Hang { applied: Default::default() }).index(OLD).times(2);
    cluster.set_rules(vec![hang, Rule::new(Fault::Slow { millis: 30 })]);
    let shape = Shape { tenants: 200, ..tangled() };
    let (before, after) = (stage.work(1_000, shape.clone()), stage.work(2_000, shape).split_off(1_000));
    let manner = Manner::default();
    let moving = async {
        until("the old index is written", || cluster.documents().iter().any(|one| one.index == OLD)).await;
        stage.router.put_table(&next);
        let started = tokio::time::Instant::now();
        while stage.router.generations().await != (2, 2) {
            assert!(started.elapsed() < LONG, "{:?}", stage.router.generations().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        written(cluster.documents())
    };
    let ((report, second), drained) = tokio::join!(
        async {
            let first = stage.write(&before, &manner).await;
            (first, stage.write(&after, &manner).await)
        },
        moving
    );
    assert_eq!(written(cluster.documents()), drained, "something came to the old index after it was drained");
    let new = cluster.documents().iter().filter(|one| one.index == NEW).count();
    assert!(drained.0 > 0 && new > 0);
    // Whatever index it is in: the highest version of each document is there.
    let mut highest: BTreeMap<String, i64> = BTreeMap::new();
    for one in before.iter().chain(&after) {
        let known = highest.entry(one.stored_id()).or_default();
        *known = one.version.max(*known);
    }
    let mut there: BTreeMap<String, i64> = BTreeMap::new();
    for document in stage.clusters.iter().flat_map(|cluster| cluster.documents()) {
        let known = there.entry(document.id).or_default();
        *known = document.version.max(*known);
    }
    assert!(highest == there, "versions differ");
    let refused = report.count("refused") + second.count("refused");
    assert_eq!(refused, 0, "{:?} {:?}", report.items, second.items);
}

/// Documents of the old index, and how often they were written.
fn written(documents: Vec<searchcell_workbench::null::Document>) -> (usize, u64) {
    let old: Vec<_> = documents.into_iter().filter(|one| one.index == OLD).collect();
    (old.len(), old.iter().map(|one| u64::from(one.writes)).sum())
}
