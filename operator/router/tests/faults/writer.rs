//! A client that writes until everything has an answer for good, and keeps what it was told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use searchcell_workbench::client::{Client, ClientError};
use searchcell_workbench::work::Operation;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::process::LONG;

const BLOCK: &str = "cluster_block_exception";

/// What was told of one operation, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Elasticsearch did it.
    Done,
    /// A version at least as high is there.
    Superseded,
    /// Elasticsearch refused it: status and type.
    Refused(u64, String),
    /// Nobody knows.
    Unknown,
    /// Not applied. Only where it is not sent again.
    Unsent,
}

/// How to write.
#[derive(Clone, Debug)]
pub struct Manner {
    /// With versions: then what nobody knows of is sent again.
    pub versioned: bool,
    /// Operations of a request.
    pub batch: usize,
    /// Requests at once.
    pub connections: usize,
    /// `timeout` of requests.
    pub timeout: Duration,
    /// Whether what was not applied is sent again.
    pub again: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { versioned: true, batch: 40, connections: 4, timeout: Duration::from_secs(3), again: true }
    }
}

/// What a writer was told.
#[derive(Debug, Default)]
pub struct Report {
    /// Of each operation, by its position.
    pub told: Vec<Option<Told>>,
    /// Items of answers by outcome, as the router counts them: `done`, `superseded`, `refused`, `unsent`, `unknown`.
    pub items: BTreeMap<&'static str, u64>,
    /// Requests refused as a whole for lack of room.
    pub overloaded: u64,
    /// Requests without an answer.
    pub lost: u64,
}

impl Report {
    pub fn count(&self, outcome: &str) -> u64 {
        self.items.get(outcome).copied().unwrap_or(0)
    }
}

struct Shared {
    left: Mutex<VecDeque<usize>>,
    report: Mutex<Report>,
}

/// Writes everything, and returns when each operation has its last answer.
pub async fn write(front: &Arc<Mutex<SocketAddr>>, work: &[Operation], manner: &Manner) -> Report {
    let report = Report { told: vec![None; work.len()], ..Report::default() };
    let shared = Shared { left: Mutex::new((0..work.len()).collect()), report: Mutex::new(report) };
    let workers = (0..manner.connections).map(|_| worker(front, work, manner, &shared));
    futures::future::join_all(workers).await;
    shared.report.into_inner().unwrap()
}

async fn worker(front: &Mutex<SocketAddr>, work: &[Operation], manner: &Manner, shared: &Shared) {
    let started = Instant::now();
    let mut at = *front.lock().unwrap();
    let client = |at| {
        let mut client = Client::new(at);
        client.patience = manner.timeout + LONG;
        client
    };
    let mut writes = client(at);
    loop {
        let batch: Vec<usize> = {
            let mut left = shared.left.lock().unwrap();
            let count = manner.batch.min(left.len());
            left.drain(..count).collect()
        };
        if batch.is_empty() {
            // What another worker has under way may have to be sent again.
            if shared.report.lock().unwrap().told.iter().all(Option::is_some) {
                return;
            }
            assert!(started.elapsed() < LONG * 2, "not everything is answered");
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        assert!(
            started.elapsed() < LONG * 2,
            "not everything is answered: {:?}",
            shared.report.lock().unwrap().items
        );
        let now = *front.lock().unwrap();
        if now != at {
            at = now;
            writes = client(at);
        }
        let mut body = Vec::new();
        for position in &batch {
            work[*position].lines(manner.versioned, &mut body);
        }
        let path = format!("/messages/_bulk?timeout={}ms", manner.timeout.as_millis());
        let answer = writes.bulk(&path, body.into()).await;
        if !note(answer, &batch, manner, shared) {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Takes an answer to a request. False: some of it has to be sent again.
fn note(
    answer: Result<(http::StatusCode, Bytes), ClientError>,
    batch: &[usize],
    manner: &Manner,
    shared: &Shared,
) -> bool {
    let mut report = shared.report.lock().unwrap();
    let mut again = Vec::new();
    match answer {
        Ok((status, body)) if status == 200 => {
            let value: Value = serde_json::from_slice(&body).unwrap();
            let items = value["items"].as_array().unwrap();
            assert_eq!(items.len(), batch.len(), "{value}");
            for (position, item) in batch.iter().zip(items) {
                let (verb, item) = item.as_object().unwrap().iter().next().unwrap();
                let told = told(verb, item);
                let (name, last) = match &told {
                    Told::Done => ("done", true),
                    Told::Superseded => ("superseded", true),
                    // A block passes: whoever wants the document written sends it again.
                    Told::Refused(_, kind) => ("refused", kind != BLOCK || !manner.again),
                    Told::Unsent => ("unsent", !manner.again),
                    Told::Unknown => ("unknown", !manner.versioned || !manner.again),
                };
                *report.items.entry(name).or_default() += 1;
                if last { report.told[*position] = Some(told) } else { again.push(*position) }
            }
        }
        Ok((status, body)) => {
            assert_eq!(status, 429, "{}", String::from_utf8_lossy(&body));
            report.overloaded += 1;
            again.extend(batch);
        }
        Err(ClientError::Unsent(_)) => again.extend(batch),
        Err(ClientError::Lost(_)) => {
            report.lost += 1;
            match manner.versioned {
                true => again.extend(batch),
                false => batch.iter().for_each(|position| report.told[*position] = Some(Told::Unknown)),
            }
        }
    }
    let fine = again.is_empty();
    shared.left.lock().unwrap().extend(again);
    fine
}

fn told(verb: &str, item: &Value) -> Told {
    let status = item["status"].as_u64().unwrap();
    match (status, item["error"]["type"].as_str()) {
        (200..=299, None) => Told::Done,
        (404, None) if verb == "delete" => Told::Done,
        (409, Some("version_conflict_engine_exception")) => Told::Superseded,
        (503, Some("outcome_unknown")) => Told::Unknown,
        // The router's own word, and not that of an index at its flood stage.
        (429, Some(kind)) if kind != BLOCK => Told::Unsent,
        (400..=499, Some(kind)) => Told::Refused(status, kind.to_owned()),
        _ => panic!("an item that has no meaning: {verb} {item}"),
    }
}
