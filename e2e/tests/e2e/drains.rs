//! Kubernetes' own disruptions while a cell serves: nodes of Kubernetes are drained, a zone goes dark in the middle of an
//! upgrade.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::elastic::Elastic;
use searchcell_e2e::objects::{items, text};
use searchcell_e2e::scenario::image;
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::ensure;
use searchcell_e2e::{Cell, Ingest, Level, Scenario, run, say, shell, wait_for};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::rolling::{Watcher, rolled};
use crate::upgrades::{ask_for, created_by};

/// Long enough for pods to leave a node one after the other, and to start again.
const DRAIN: Duration = Duration::from_secs(600);

/// Names of the nodes of Kubernetes that have pods of the cell.
async fn used_nodes(t: &Scenario) -> Vec<String> {
    let pods = t.objects.list("pods", "searchcell.dev/cell=cell").await.unwrap();
    let mut nodes: Vec<String> = pods.iter().map(|pod| text(pod, "/spec/nodeName").to_owned()).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

async fn kubectl(arguments: &[&str]) -> String {
    shell::kubectl(arguments, None, DRAIN).await.ok("kubectl")
}

/// Reads again and again what a cluster was told of nodes that go away.
struct Records {
    stop: Arc<AtomicBool>,
    /// Ids of nodes, and why they go.
    seen: Arc<Mutex<BTreeSet<(String, String)>>>,
    task: JoinHandle<()>,
}

impl Records {
    fn start(elastic: Elastic) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
        let (stopped, shared) = (stop.clone(), seen.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                // What cannot be read now is read a moment later.
                let records = elastic.get("/_nodes/shutdown").await.unwrap_or_default();
                for record in items(&records, "/nodes") {
                    let (id, reason) = (text(record, "/node_id"), text(record, "/reason"));
                    shared.lock().unwrap().insert((id.to_owned(), reason.to_owned()));
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        Self { stop, seen, task }
    }

    async fn stop(self) -> BTreeSet<(String, String)> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let seen = self.seen.lock().unwrap();
        seen.clone()
    }
}

/// Every node of Kubernetes is drained in turn, as an upgrade of its system does it: evictions go through budgets that let
/// them go on, clients notice nothing, and Elasticsearch is told of each data node that it comes back.
#[test]
fn every_node_is_drained_in_turn_and_nobody_notices() {
    run("every_node_is_drained_in_turn_and_nobody_notices", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell { ingest: Ingest::Fixed(2), ..Cell::whole("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 4}}), 1)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let before = t.pods("").await;
        let elastic = t.elastic("cell", "a");
        let data: BTreeSet<String> = (elastic.nodes().await.unwrap().into_iter())
            .filter(|(name, _)| name.contains("-data-"))
            .map(|(_, node)| node.id)
            .collect();
        let records = Records::start(elastic.clone());
        let traffic = Traffic::start(&elastic, "messages.p000.g1").await;
        for node in used_nodes(t).await {
            let began = Instant::now();
            let selector = "--pod-selector=searchcell.dev/cell=cell";
            let timeout = format!("--timeout={}s", DRAIN.as_secs());
            kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", selector, &timeout])
                .await;
            kubectl(&["uncordon", &node]).await;
            t.cell_ready(&cell).await;
            // As whoever drains nodes has to: the next one follows when the budgets let it.
            wait_for("copies are whole", DRAIN, async || {
                let placed = t.objects.expect("indexplacements", "pool").await;
                let summary = text(&placed, "/status/shards/summary");
                ensure(summary == "8/8", || summary.to_owned())
            })
            .await;
            say(format!("{node} was drained and is back after {:.0} s", began.elapsed().as_secs_f64()));
        }
        let seen = traffic.stop().await;
        say(seen.to_string());
        seen.assert_unnoticed();
        let after = t.pods("").await;
        let stayed: Vec<&String> = before
            .iter()
            .filter(|(name, (uid, _))| after.get(*name).is_some_and(|of| of.0 == *uid))
            .map(|(name, _)| name)
            .collect();
        assert!(stayed.is_empty(), "never evicted: {stayed:?}");
        let told = records.stop().await;
        let evicted: BTreeSet<String> =
            told.iter().filter(|(_, why)| why.contains("evicted")).map(|(id, _)| id.clone()).collect();
        assert_eq!(evicted, data, "Elasticsearch was told: {told:?}");
        wait_for("nothing stays announced", DRAIN, async || {
            let left = elastic.get("/_nodes/shutdown").await?;
            ensure(items(&left, "/nodes").is_empty(), || left.to_string())
        })
        .await;
    });
}

/// A zone goes dark while nodes change their version: nothing else restarts until it is back, then the upgrade goes on.
#[test]
fn a_zone_that_goes_dark_freezes_an_upgrade() {
    run("a_zone_that_goes_dark_freezes_an_upgrade", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = created_by(t, "9.1.0", "Managed").await;
        image(t.env, "9.5.3").await;
        let watcher = Watcher::start(&t.objects);
        let began = Instant::now();
        ask_for(t, &mut cell, "9.5.3").await;
        wait_for("the first node restarts", DRAIN, async || {
            let restarted = watcher.seen().restarted();
            ensure(!restarted.is_empty(), || "none".to_owned())
        })
        .await;
        if !t.node("off", 2).await {
            return;
        }
        // Whoever was about to come back has come back by then, and Kubernetes knows that the zone is gone.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let frozen = watcher.seen().restarted();
        tokio::time::sleep(Duration::from_secs(40)).await;
        let object = t.objects.expect("searchcells", "cell").await;
        let holds = items(&object, "/status/clusters/0/holds");
        say(format!("dark: {frozen:?}, {holds:?}"));
        let in_dark = |name: &str| name.contains("-b-");
        let others = |restarted: &std::collections::BTreeMap<String, usize>| {
            restarted.keys().filter(|name| !in_dark(name)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(&watcher.seen().restarted()), others(&frozen), "nothing restarts in the dark");
        assert!(frozen.len() < 3, "it was dark too late to show anything: {frozen:?}");
        assert!(!holds.is_empty(), "{:#}", object["status"]);
        assert!(t.node("on", 2).await);
        let took = rolled(t, &cell, began).await;
        t.cell_ready(&cell).await;
        say(format!("all nodes have it after {:.0} s", took.as_secs_f64()));
        let nodes = t.elastic("cell", "a").nodes().await.unwrap();
        assert!(nodes.values().all(|node| node.version == "9.5.3"), "{nodes:#?}");
        let _ = watcher.stop().await;
    });
}
