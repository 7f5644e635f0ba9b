//! Ingest nodes under load: Kubernetes' own autoscaler adds and removes them, and the operator keeps out of its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{Objects, items, number};
use searchcell_e2e::probe::Load;
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Ingest, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};

use crate::rolling::{Watcher, rolled};

const DEPLOYMENT: &str = "cell-a-ingest";

/// Real CPU load is answered with more ingest nodes, its end with fewer; the operator's field manager owns no
/// `replicas` at any of these moments.
#[test]
fn ingest_is_scaled_out_and_in_by_the_autoscaler() {
    run("ingest_is_scaled_out_and_in_by_the_autoscaler", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell { ingest: Ingest::Auto(1, 3, 60), ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        operator_owns_no_replicas(t).await;
        wait_for("the autoscaler's first metrics", LIMIT, async || {
            let scaler =
                t.objects.get("horizontalpodautoscalers", DEPLOYMENT).await?.ok_or("no autoscaler")?;
            ensure(!items(&scaler, "/status/currentMetrics").is_empty(), || scaler["status"].to_string())
        })
        .await;
        // its processes have just started, which the autoscaler may take for load
        replicas(t, "back at the minimum", |spec, _| spec == 1).await;

        let load = Load::start(&t.elastic("cell", "a"), 6);
        replicas(t, "scaled out, and ready", |spec, ready| spec >= 2 && ready >= 2).await;
        operator_owns_no_replicas(t).await;
        say(load.report());
        drop(load);
        replicas(t, "scaled in", |spec, ready| spec == 1 && ready == 1).await;
        operator_owns_no_replicas(t).await;
        t.cell_ready(&cell).await;
    });
}

/// Ingest nodes leave the spec while clients write and read: data nodes restart to take over, one at a time, then the ingest
/// nodes go; and they come back. No request fails.
#[test]
fn ingest_nodes_go_and_come_back() {
    run("ingest_nodes_go_and_come_back", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell { ingest: Ingest::Fixed(2), ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 3}}), 2)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let masters = t.pods("searchcell.dev/role=master").await;
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;
        let watcher = Watcher::start(&t.objects);
        for ingest in [Ingest::None, Ingest::Fixed(2)] {
            let began = Instant::now();
            cell.ingest = ingest;
            t.apply(&cell.object()).await;
            rolled(t, &cell, began).await;
            t.cell_ready(&cell).await;
            wait_for("as many nodes as the spec has", LIMIT, async || {
                let nodes = t.elastic("cell", "a").nodes().await?;
                let pods = t.pods("searchcell.dev/role=ingest").await;
                let are_all = nodes.len() == usize::try_from(cell.nodes()).unwrap();
                ensure(are_all && pods.is_empty() == matches!(ingest, Ingest::None), || {
                    format!("{:?}, pods {:?}", nodes.keys(), pods.keys())
                })
            })
            .await;
            say(format!("{ingest:?} after {:.0} s", began.elapsed().as_secs_f64()));
        }
        let seen = traffic.stop().await;
        say(seen.to_string());
        seen.assert_unnoticed();
        let course = watcher.stop().await;
        assert_eq!(course.most_away, 1, "{course:#?}");
        assert_eq!(t.pods("searchcell.dev/role=master").await, masters, "a master has restarted");
    });
}

/// Fixed → autoscaled → fixed, under load: neither `replicas` nor the number of ready nodes ever dips below the
/// smallest number that was asked for.
#[test]
fn ingest_changes_hands_without_a_dip() {
    run("ingest_changes_hands_without_a_dip", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell { ingest: Ingest::Fixed(2), ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let load = Load::start(&t.elastic("cell", "a"), 6);
        let watch = Watch::start(t.objects.clone());

        cell.ingest = Ingest::Auto(2, 4, 50);
        t.apply(&cell.object()).await;
        replicas(t, "autoscaled out", |spec, ready| spec >= 3 && ready >= 3).await;
        operator_owns_no_replicas(t).await;
        say(load.report());

        cell.ingest = Ingest::Fixed(2);
        t.apply(&cell.object()).await;
        t.gone_one("horizontalpodautoscalers", DEPLOYMENT).await;
        replicas(t, "fixed again", |spec, ready| spec == 2 && ready == 2).await;
        t.cell_ready(&cell).await;

        // and there once more, from a larger number
        cell.ingest = Ingest::Fixed(3);
        t.apply(&cell.object()).await;
        replicas(t, "fixed at three", |spec, ready| spec == 3 && ready == 3).await;
        cell.ingest = Ingest::Auto(2, 4, 50);
        t.apply(&cell.object()).await;
        wait_for("the autoscaler at work", LIMIT, async || {
            let scaler =
                t.objects.get("horizontalpodautoscalers", DEPLOYMENT).await?.ok_or("no autoscaler")?;
            ensure(number(&scaler, "/status/currentReplicas") >= 2, || scaler["status"].to_string())
        })
        .await;
        let lows = watch.stop().await;
        say(format!("lowest of {} samples: replicas {}, ready {}", lows.samples, lows.spec, lows.ready));
        assert!(lows.spec >= 2 && lows.ready >= 2, "{lows:?}");
        drop(load);
    });
}

async fn replicas(t: &Scenario, what: &str, reached: impl Fn(i64, i64) -> bool) {
    wait_for(what, LIMIT, async || {
        let deployment = t.objects.get("deployments", DEPLOYMENT).await?.ok_or("no Deployment")?;
        let spec = number(&deployment, "/spec/replicas");
        let ready = number(&deployment, "/status/readyReplicas").max(0);
        ensure(reached(spec, ready), || format!("{spec} replicas, {ready} ready"))
    })
    .await
}

async fn operator_owns_no_replicas(t: &Scenario) {
    let deployment = t.objects.expect("deployments", DEPLOYMENT).await;
    for entry in items(&deployment, "/metadata/managedFields") {
        let owns = entry.pointer("/fieldsV1/f:spec/f:replicas").is_some();
        let ours = entry["manager"].as_str().is_some_and(|manager| manager.starts_with("searchcell"));
        assert!(!(owns && ours), "the operator owns replicas: {entry:#}");
    }
}

/// Samples the Deployment every 200 ms.
struct Watch {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Lows>,
}

#[derive(Clone, Copy, Debug)]
struct Lows {
    samples: u64,
    spec: i64,
    ready: i64,
}

impl Watch {
    fn start(objects: Objects) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut lows = Lows { samples: 0, spec: i64::MAX, ready: i64::MAX };
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(found) = objects.get("deployments", DEPLOYMENT).await {
                    // gone is the deepest dip
                    let deployment = found.unwrap_or(Value::Null);
                    lows.samples += 1;
                    lows.spec = lows.spec.min(number(&deployment, "/spec/replicas"));
                    lows.ready = lows.ready.min(number(&deployment, "/status/readyReplicas").max(0));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            lows
        });
        Self { stop, task }
    }

    async fn stop(self) -> Lows {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the samples")
    }
}
