//! Nodes of Elasticsearch and the router itself end in the middle of writing: what was acknowledged is there, once, and
//! what nobody knows is said to be unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use searchcell_e2e::cells::placement;
use searchcell_e2e::elastic::Elastic;
use searchcell_e2e::router::{self, Mounts, Router};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::router::{same, stored};

const WRITERS: usize = 4;
const PER_BULK: usize = 50;

/// What became of one writer's operations, by stored id.
#[derive(Default)]
struct Outcomes {
    /// Acknowledged; with external versions, with the version.
    done: BTreeMap<String, i64>,
    /// Answered as of unknown outcome, or not answered at all.
    unknown: BTreeSet<String>,
    /// Answered as not applied, and not sent again.
    unsent: BTreeSet<String>,
}

fn document(tenant: &str, n: i64) -> Value {
    json!({"guild_id": tenant, "content": "in the middle of it", "sent": n})
}

/// Writes versions 1, 2, 3… of the same documents until told to stop; each until it is acknowledged, as a client does
/// that has a source of truth behind it.
async fn numbered(front: Elastic, writer: usize, stop: Arc<AtomicBool>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let tenant = |n: usize| (writer * 100 + n % 10).to_string();
    let mut version = 0;
    while !stop.load(Ordering::Relaxed) {
        version += 1;
        let mut open: Vec<usize> = (0..PER_BULK).collect();
        while !open.is_empty() {
            let lines: Vec<Value> = (open.iter())
                .flat_map(|n| {
                    let action = json!({"index": {"_id": n.to_string(), "version": version, "version_type": "external"}});
                    [action, document(&tenant(*n), version)]
                })
                .collect();
            // A router that is gone has answered nothing: everything is sent again.
            let Ok(items) = router::bulk(&front, "/numbered/_bulk", &lines).await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            // 409: this very version is there, of a try whose answer was lost.
            let over = |status: u16| status < 300 || status == 409;
            let told = items.iter().find(|item| !over(item.status) && ![429, 503].contains(&item.status));
            assert_eq!(told, None, "neither done nor to be sent again");
            let left = open.iter().zip(&items).filter(|(_, item)| !over(item.status));
            open = left.map(|(n, _)| *n).collect();
        }
        outcomes.done.extend((0..PER_BULK).map(|n| (format!("{}~{n}", tenant(n)), version)));
    }
    outcomes
}

/// Writes new documents until told to stop, each once.
async fn unnumbered(front: Elastic, writer: usize, stop: Arc<AtomicBool>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let numbers: Vec<usize> = (next..next + PER_BULK).collect();
        next += PER_BULK;
        let tenant = |n: usize| (writer * 100 + n % 10).to_string();
        let lines: Vec<Value> = (numbers.iter())
            .flat_map(|n| [json!({"index": {"_id": n.to_string()}}), document(&tenant(*n), 1)])
            .collect();
        let ids = numbers.iter().map(|n| format!("{}~{n}", tenant(*n)));
        let Ok(items) = router::bulk(&front, "/plain/_bulk", &lines).await else {
            outcomes.unknown.extend(ids);
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        for (id, item) in ids.zip(items) {
            match (item.status, item.error.as_str()) {
                (200..=299, _) => {
                    outcomes.done.insert(id, 1);
                }
                (503, "outcome_unknown") => {
                    outcomes.unknown.insert(id);
                }
                (429, _) => {
                    outcomes.unsent.insert(id);
                }
                _ => panic!("{item:?}"),
            }
        }
    }
    outcomes
}

/// A pool of the collection with one copy more than the primary.
fn pool(collection: &str, versioning: &str) -> Value {
    let mut object =
        placement(collection, "guilds", json!({"pool": {"indices": 6}, "versioning": versioning}), 1);
    object["spec"]["collection"] = json!(collection);
    object
}

#[test]
fn what_is_acknowledged_is_there_once_whoever_is_killed() {
    run("what_is_acknowledged_is_there_once_whoever_is_killed", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell::small("guilds");
        t.apply(&cell.object()).await;
        for (collection, versioning) in [("numbered", "External"), ("plain", "None")] {
            t.apply(&pool(collection, versioning)).await;
        }
        t.cell_ready(&cell).await;
        for collection in ["numbered", "plain"] {
            t.placement_ready(collection).await;
        }
        let collections = ["numbered", "plain"];
        let mounts = Mounts::new(t, &collections).await;
        let settings = json!({"limits": {"budget": "64Mi", "bulkTimeout": "10s"}});
        let mut router = Router::start(t, &mounts, &collections, &settings).await;

        let stop = Arc::new(AtomicBool::new(false));
        let front = router.front.clone();
        let writers = |write: fn(Elastic, usize, Arc<AtomicBool>) -> _| -> Vec<JoinHandle<Outcomes>> {
            (0..WRITERS).map(|writer| tokio::spawn(write(front.clone(), writer, stop.clone()))).collect()
        };
        let (mut all, plain) = (
            writers(|front, writer, stop| boxed(numbered(front, writer, stop))),
            writers(|front, writer, stop| boxed(unnumbered(front, writer, stop))),
        );
        let numbered_writers = all.len();
        all.extend(plain);

        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let port = router.port;
            router.kill().await;
            router = Router::spawn_at(port, t, &mounts, &collections, &settings);
            router.ready().await;
        }
        if t.node("off", 2).await {
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(t.node("on", 2).await);
            wait_for("every copy is back", LIMIT, async || every_copy(t).await).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut outcomes = Vec::new();
        for writer in all {
            let ended = tokio::time::timeout(Duration::from_secs(300), writer).await;
            outcomes.push(ended.expect("writers end").unwrap());
        }
        let (most, now) = (router.memory().1, router.memory().0);
        assert!(most < 128.0, "{most} MiB, {now} now; the budget is 64 MiB");
        wait_for("every copy", LIMIT, async || every_copy(t).await).await;
        judge(t, &cell, outcomes, numbered_writers).await;
        router.terminate().await;
    });
}

fn boxed(
    writer: impl Future<Output = Outcomes> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = Outcomes> + Send>> {
    Box::pin(writer)
}

async fn every_copy(t: &Scenario) -> Result<(), String> {
    let elastic = t.elastic("guilds", "a");
    let mut copies = elastic.copies("numbered.").await?;
    copies.extend(elastic.copies("plain.").await?);
    let started = copies.iter().filter(|copy| copy.state == "STARTED").count();
    ensure(started == 24, || format!("{started} of 24 copies are started"))
}

/// Compares what writers were told with what is there.
async fn judge(t: &Scenario, cell: &Cell, outcomes: Vec<Outcomes>, numbered_writers: usize) {
    let mut outcomes = outcomes.into_iter();
    let numbered: BTreeMap<String, i64> =
        outcomes.by_ref().take(numbered_writers).flat_map(|outcomes| outcomes.done).collect();
    same(&stored(t, cell, "numbered").await, &numbered);
    let there = stored(t, cell, "plain").await;
    let (mut done, mut unknown, mut unsent) = (0, 0, 0);
    for outcomes in outcomes {
        let missing = outcomes.done.keys().find(|id| !there.contains_key(*id));
        assert_eq!(missing, None, "acknowledged, and not there");
        let applied = outcomes.unsent.iter().find(|id| there.contains_key(*id));
        assert_eq!(applied, None, "answered as not applied, and there");
        done += outcomes.done.len();
        unknown += outcomes.unknown.len();
        unsent += outcomes.unsent.len();
    }
    let twice = there.iter().find(|(_, version)| **version != 1);
    assert_eq!(twice, None, "applied twice");
    let extra = there.len() - done;
    assert!(extra <= unknown, "{extra} are there that nobody was told of, and {unknown} are unknown");
    say(format!(
        "{} documents with versions, up to {:?}, as the oracle has them; without: {done} acknowledged and there, once; \
         {unknown} unknown, of which {extra} are there; {unsent} not applied, and not there",
        numbered.len(),
        numbered.values().max(),
    ));
    // Faults that nobody noticed prove nothing.
    assert!(unknown > 0, "no outcome was ever unknown");
}
