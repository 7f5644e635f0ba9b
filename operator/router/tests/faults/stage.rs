//! A router before clusters, work for it, and what must be true afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use searchcell_core::routing::Table;
use searchcell_crds::Versioning;
use searchcell_workbench::null::rules::{Fault, Rule};
use searchcell_workbench::null::{Cluster, Document, Options};
use searchcell_workbench::table::{Pool, place};
use searchcell_workbench::work::{Operation, Shape, Work};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64;

use super::process::{LONG, Router};
use super::writer::{Manner, Report, Told, write};

/// Bytes that the routers of these tests may have in flight, and what they may have beside it.
pub const BUDGET: u64 = 16 << 20;
const BESIDE: u64 = 64 << 20;

pub struct Stage {
    pub clusters: Vec<Arc<Cluster>>,
    pub table: Table,
    pub router: Router,
    pub seed: u64,
    name: String,
}

/// `limits` where bulks hang: their answers are not waited for long. Elsewhere they are, so that a slow machine's are not
/// taken for lost.
pub fn impatient() -> Value {
    json!({"bulkTimeout": "1s"})
}

/// The seed of the work, unless another one is asked for.
pub fn seed(usual: u64) -> u64 {
    std::env::var("SEARCHCELL_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(usual)
}

/// Waits until something is true.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < LONG, "this does not come true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

impl Stage {
    /// Waits until somebody has been told that an operation failed. What is wrong may be over only then: a router and a
    /// machine that are quick enough are done with all else before the first client's time is over.
    pub async fn somebody_is_told_of_a_failure(&self) {
        let started = Instant::now();
        loop {
            let metrics = self.router.metrics().await;
            let told =
                |outcome: &str| metrics.get(&format!("operations_total outcome=\"{outcome}\"")).copied();
            if ["unsent", "unknown"].into_iter().filter_map(told).sum::<u64>() > 0 {
                return;
            }
            assert!(started.elapsed() < LONG, "nobody is told of a failure");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Clusters of one node, with a pool of indices over them.
    pub async fn new(name: &str, clusters: usize, indices: usize, versioning: Versioning) -> Self {
        Self::with(name, clusters, indices, versioning, Options::default(), json!({})).await
    }

    /// The same with other clusters, and other `limits` in the router's file.
    pub async fn with(
        name: &str,
        clusters: usize,
        indices: usize,
        versioning: Versioning,
        options: Options,
        limits: Value,
    ) -> Self {
        let seed = seed(7);
        println!("{name}: SEARCHCELL_FAULTS_SEED={seed}");
        let mut started = Vec::new();
        for number in 0..clusters {
            // What was deleted is remembered for as long as any test takes.
            let gc_deletes = Duration::from_secs(3_600);
            let options = Options { gc_deletes, seed: seed + number as u64, ..options.clone() };
            started.push(Cluster::start(options).await.unwrap());
        }
        let addresses: Vec<_> = started.iter().map(|cluster| cluster.addresses()[0]).collect();
        let pool = Pool::new(&addresses, indices, versioning);
        let table = pool.table(1);
        let mut all =
            json!({"budget": BUDGET, "bulkTimeout": "30s", "bulkBytes": 8 << 10, "bulkOperations": 30});
        all.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let router = Router::start(name, &table, &all).await;
        Self { clusters: started, table, router, seed, name: name.to_owned() }
    }

    /// Work for it, which `shape` says more of: few tenants, much of it changed, twice, and in another order.
    pub fn work(&self, count: usize, shape: Shape) -> Vec<Operation> {
        Work::new(shape, self.seed ^ xxh3_64(self.name.as_bytes())).take(count).collect()
    }

    /// Writes it.
    pub async fn write(&self, work: &[Operation], manner: &Manner) -> Report {
        write(&self.router.front, work, manner).await
    }

    /// Writes it, while the router is killed so many times, with much that is done and not answered, and started again.
    pub async fn write_while_it_dies(
        &mut self,
        work: &[Operation],
        manner: &Manner,
        deaths: usize,
    ) -> Report {
        let (front, clusters) = (self.router.front.clone(), self.clusters.clone());
        let rules = |rules: &[Rule]| clusters.iter().for_each(|cluster| cluster.set_rules(rules.to_vec()));
        let applied = || clusters.iter().map(|cluster| cluster.counters().applied).sum::<u64>();
        let killing = async {
            for _ in 0..deaths {
                // Everything is done long before it is answered, so that the router dies in between.
                rules(&[Rule::new(Fault::Slow { millis: 150 })]);
                let before = applied();
                until("operations are applied", || applied() >= before + 60).await;
                self.router.kill().await;
                rules(&[]);
                self.router.again().await;
            }
        };
        let (report, ()) = tokio::join!(write(&front, work, manner), killing);
        assert!(report.lost > 0, "requests were under way");
        report
    }

    /// Where an operation belongs.
    pub fn place(&self, operation: &Operation) -> (usize, String) {
        place(&self.table, &operation.tenant.to_string())
    }

    /// All that clusters know, whatever index it is in: cluster and index by stored id, and what is known.
    fn known(&self) -> BTreeMap<(usize, String, String), Document> {
        let of = |(number, cluster): (usize, &Arc<Cluster>)| {
            let documents = cluster.documents().into_iter();
            documents.map(move |one| ((number, one.index.clone(), one.id.clone()), one)).collect::<Vec<_>>()
        };
        self.clusters.iter().enumerate().flat_map(of).collect()
    }

    /// With versions: the highest version of everything that was not refused is there, in its place, with its content,
    /// and nothing else.
    pub async fn verify_numbered(&self, work: &[Operation], report: &Report) {
        self.rest().await;
        let mut oracle: BTreeMap<(usize, String, String), (i64, Option<u64>)> = BTreeMap::new();
        for (operation, told) in work.iter().zip(&report.told) {
            match told.as_ref().unwrap() {
                Told::Refused(..) => continue,
                Told::Unknown | Told::Unsent => panic!("{operation:?}: {told:?}"),
                Told::Done | Told::Superseded => {}
            }
            let (cluster, index) = self.place(operation);
            let hash = operation.document.as_ref().map(|document| xxh3_64(document.as_bytes()));
            let newest = oracle.entry((cluster, index, operation.stored_id())).or_insert((0, None));
            if operation.version > newest.0 {
                *newest = (operation.version, hash);
            }
        }
        let there: BTreeMap<_, _> = (self.known().into_iter())
            .map(|(key, one)| (key, (one.version, one.lives.then_some(one.hash))))
            .collect();
        compare(&oracle, &there);
        self.verify_bounds();
    }

    /// Without versions: what is acknowledged is there, nothing is there more often than it was written, and what is
    /// there beyond that was said to be unknown.
    pub async fn verify_unnumbered(&self, work: &[Operation], report: &Report) {
        self.rest().await;
        let mut bounds: BTreeMap<(usize, String, String), (u32, u32)> = BTreeMap::new();
        for (operation, told) in work.iter().zip(&report.told) {
            let (cluster, index) = self.place(operation);
            let (least, most) = bounds.entry((cluster, index, operation.stored_id())).or_default();
            match told.as_ref().unwrap() {
                Told::Done => (*least, *most) = (*least + 1, *most + 1),
                Told::Unknown => *most += 1,
                Told::Refused(..) | Told::Unsent => {}
                Told::Superseded => panic!("a conflict without versions: {operation:?}"),
            }
        }
        let known = self.known();
        for (key, (least, most)) in &bounds {
            let writes = known.get(key).map_or(0, |one| one.writes);
            assert!(
                (*least..=*most).contains(&writes),
                "{key:?} is written {writes} times: {least} are acknowledged, {most} are not denied"
            );
        }
        let strangers: Vec<_> = known.keys().filter(|key| !bounds.contains_key(*key)).collect();
        assert!(strangers.is_empty(), "{strangers:?}");
        self.verify_bounds();
    }

    /// What the router counts is what its clients were told, and what Elasticsearch was sent.
    pub async fn verify_counts(&self, report: &Report) {
        let sent = |name: &str| -> u64 {
            let of = |cluster: &Arc<Cluster>| match name {
                "bulks" => cluster.counters().bulks,
                _ => cluster.counters().operations,
            };
            self.clusters.iter().map(of).sum()
        };
        let started = Instant::now();
        // An owner counts after it has answered.
        let differences = loop {
            let metrics = self.router.metrics().await;
            let counted = |name: &str| metrics.get(name).copied().unwrap_or(0);
            let mut differences = Vec::new();
            for outcome in ["done", "superseded", "refused", "unsent", "unknown"] {
                let counted = counted(&format!("operations_total outcome=\"{outcome}\""));
                if counted != report.count(outcome) {
                    differences.push(format!("{outcome}: {counted} counted, {} told", report.count(outcome)));
                }
            }
            let held = counted("held_bytes") + counted("bulks_in_flight") + counted("budget_used_bytes");
            if held != 0 {
                differences.push(format!("{held} bytes or bulks are still held"));
            }
            for (name, metric) in [("bulks", "bulks_total"), ("operations", "bulk_operations_sum")] {
                let (counted, came, again) = (counted(metric), sent(name), counted("retries_total"));
                // Beyond that are those that could not be sent.
                if counted < came || (again == 0 && counted != came) {
                    differences.push(format!("{name}: {counted} counted, {came} came"));
                }
            }
            if differences.is_empty() || started.elapsed() > LONG {
                break differences;
            }
            sleep(Duration::from_millis(20)).await;
        };
        assert!(differences.is_empty(), "{differences:#?}");
    }

    /// Nothing is in flight any more.
    async fn rest(&self) {
        let started = Instant::now();
        while self.router.metrics().await.get("budget_used_bytes").copied().unwrap_or(0) > 0 {
            assert!(started.elapsed() < LONG, "bytes are held for ever");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn verify_bounds(&self) {
        let peak = self.router.cost().peak;
        assert!(peak <= BUDGET + BESIDE, "the router had {} MiB", peak >> 20);
        for cluster in &self.clusters {
            let counters = cluster.counters();
            assert!(counters.most_destinations <= 1, "bulks have one destination: {counters:?}");
        }
    }
}

fn compare<V: std::fmt::Debug + PartialEq>(
    oracle: &BTreeMap<(usize, String, String), V>,
    there: &BTreeMap<(usize, String, String), V>,
) {
    let keys: BTreeSet<_> = oracle.keys().chain(there.keys()).collect();
    let wrong: Vec<String> = (keys.into_iter())
        .filter(|key| oracle.get(*key) != there.get(*key))
        .map(|key| format!("{key:?}: {:?} is there, and should be {:?}", there.get(key), oracle.get(key)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} documents: {:#?}",
        wrong.len(),
        oracle.len(),
        &wrong[..wrong.len().min(10)]
    );
}
