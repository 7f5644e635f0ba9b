//! What clients see while something is done to a cluster: they write and read without a pause, each request by a new
//! connection through the Service, and account for every answer; the health of the cluster is sampled beside them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::Elastic;
use crate::probe::{Probe, Seen};

const IDS: u64 = 500;
const LIMIT: Duration = Duration::from_secs(30);

/// Runs until it is stopped or dropped.
pub struct Traffic {
    elastic: Elastic,
    index: String,
    stop: Stop,
    acknowledged: Arc<Mutex<BTreeMap<String, u64>>>,
    writes: Arc<Mutex<Seen>>,
    health: Arc<Mutex<Health>>,
    tasks: Vec<JoinHandle<()>>,
    searches: Probe,
    looks: Probe,
}

/// What the samples of `_cluster/health` said, one a second.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Samples by colour; `unknown`: it could not be read.
    pub samples: BTreeMap<String, u64>,
    /// What was said of the first that were neither green nor yellow.
    pub bad: Vec<String>,
}

/// All that was seen.
#[derive(Debug)]
pub struct Told {
    /// Writes, with a version of the source.
    pub writes: Seen,
    /// Searches; an answer with failed shards counts as failed.
    pub searches: Seen,
    /// Documents read by their id.
    pub looks: Seen,
    /// Samples of health.
    pub health: Health,
    /// Documents whose acknowledged version is not there, at the end.
    pub lost: Vec<String>,
    /// Documents that were acknowledged.
    pub documents: usize,
}

impl Traffic {
    /// Starts writing into `index` (documents of a pool, `guild_id` 1), and reading it.
    pub async fn start(elastic: &Elastic, index: &str) -> Self {
        let seed = json!({"guild_id": "1", "content": "the first", "sent": 0});
        let first = now();
        let path = format!("/{index}/_doc/seed?routing=1&version={first}&version_type=external");
        elastic.json(Method::PUT, &path, Some(&seed)).await.expect("the first document");
        let stop = Arc::new(AtomicBool::new(false));
        let (acknowledged, writes) =
            (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(Mutex::new(Seen::default())));
        let health = Arc::new(Mutex::new(Health::default()));
        let tasks = vec![
            tokio::spawn(write(
                elastic.clone(),
                index.to_owned(),
                (stop.clone(), acknowledged.clone(), writes.clone()),
            )),
            tokio::spawn(sample(elastic.clone(), stop.clone(), health.clone())),
        ];
        Self {
            searches: Probe::reader(elastic.clone(), index),
            looks: Probe::asking(elastic.clone(), &format!("/{index}/_doc/seed?routing=1")),
            elastic: elastic.clone(),
            index: index.to_owned(),
            stop: Stop(stop),
            acknowledged,
            writes,
            health,
            tasks,
        }
    }

    /// Ends it, and looks whether everything that was acknowledged is there.
    pub async fn stop(self) -> Told {
        self.stop.0.store(true, Ordering::Relaxed);
        let (searches, looks) = (self.searches.stop().await, self.looks.stop().await);
        for task in self.tasks {
            task.await.expect("a client");
        }
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let mut lost = Vec::new();
        for (id, version) in &acknowledged {
            let path = format!("/{}/_doc/{id}?routing=1", self.index);
            let found = self.elastic.get(&path).await;
            // one whose answer was lost may be there, too: newer, never older
            let there = found.as_ref().ok().and_then(|found| found["_version"].as_u64());
            if there.is_none_or(|there| there < *version) {
                lost.push(format!("{id}: version {version} was acknowledged, there is {found:?}"));
            }
        }
        let writes = self.writes.lock().unwrap().clone();
        let health = self.health.lock().unwrap().clone();
        Told { writes, searches, looks, health, lost, documents: acknowledged.len() }
    }
}

/// Elasticsearch itself repeats a write whose primary went away under it, and the copy that is the primary now may have it
/// already: to a client with versions of its own that is an acknowledgement.
fn is_there_already(version: u64, body: &str) -> bool {
    body.contains(&format!("current version [{version}] is higher or equal to the one provided [{version}]"))
}

/// Versions ascend from one run to the next.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a clock before the year 584 million")
}

type Shared = (Arc<AtomicBool>, Arc<Mutex<BTreeMap<String, u64>>>, Arc<Mutex<Seen>>);

/// Writes the same documents over and over, each time with a higher version.
async fn write(elastic: Elastic, index: String, (stop, acknowledged, seen): Shared) {
    let began = Instant::now();
    let mut last_success = began;
    for turn in now().. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("w{}", turn % IDS);
        let path = format!("/{index}/_doc/{id}?routing=1&version={turn}&version_type=external");
        let body: Value = json!({"guild_id": "1", "content": format!("message {turn}"), "sent": turn});
        let body = Bytes::from(body.to_string());
        let answer = elastic.request(Method::PUT, &path, "application/json", body, LIMIT).await;
        let is_there = |body: &Bytes| is_there_already(turn, &String::from_utf8_lossy(body));
        let outcome = |seen: &mut Seen| match answer {
            Ok((status, body)) if (200..300).contains(&status) || (status == 409 && is_there(&body)) => {
                acknowledged.lock().unwrap().insert(id, turn);
                seen.ok += 1;
                seen.longest_gap = seen.longest_gap.max(last_success.elapsed());
                last_success = Instant::now();
            }
            Ok((status, body)) => seen.fail(began, format!("{status} {}", String::from_utf8_lossy(&body))),
            Err(error) => seen.fail(began, error),
        };
        outcome(&mut seen.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn sample(elastic: Elastic, stop: Arc<AtomicBool>, health: Arc<Mutex<Health>>) {
    let began = Instant::now();
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
        let answer = elastic.get("/_cluster/health").await;
        let colour = match &answer {
            Ok(answer) => answer["status"].as_str().unwrap_or("unknown"),
            Err(_) => "unknown",
        };
        let mut health = health.lock().unwrap();
        *health.samples.entry(colour.to_owned()).or_default() += 1;
        if !["green", "yellow"].contains(&colour) && health.bad.len() < 20 {
            health.bad.push(format!("{:.1} s: {answer:?}", began.elapsed().as_secs_f64()));
        }
    }
}

impl Told {
    /// Nobody failed, nothing was lost, and the cluster was never red.
    pub fn assert_unnoticed(&self) {
        for (what, seen) in [("writes", &self.writes), ("searches", &self.searches), ("gets", &self.looks)] {
            assert!(seen.ok > 0, "no {what} at all: {seen:?}");
            assert_eq!(seen.failed, 0, "{what}: {seen:#?}");
        }
        assert!(self.lost.is_empty(), "{:#?}", self.lost);
        assert!(!self.health.samples.contains_key("red"), "{:#?}", self.health);
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, seen) in [("writes", &self.writes), ("searches", &self.searches), ("gets", &self.looks)] {
            let (ok, failed, gap) = (seen.ok, seen.failed, seen.longest_gap.as_secs_f64());
            write!(f, "{failed} of {} {what} failed (longest gap {gap:.1} s), ", ok + failed)?;
        }
        write!(
            f,
            "{} of {} documents lost, health {:?}",
            self.lost.len(),
            self.documents,
            self.health.samples
        )
    }
}

/// Dropping it ends the clients after the requests in flight.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
