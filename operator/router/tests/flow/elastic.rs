//! Clusters that speak `_bulk` as Elasticsearch does, external versions included, and fail as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use searchcell_router::transport::{Bulk, Reply, Transport};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Seeded randomness.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x1234_5678_9abc_def1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How a cluster behaves, in percent of bulks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Connections are refused.
    pub refused: u64,
    /// The request is lost before anything is done.
    pub lost_before: u64,
    /// It is done, and the answer is lost.
    pub lost_after: u64,
    /// The answer is lost, and it is done later.
    pub lost_late: u64,
    /// The answer breaks off.
    pub truncated: u64,
    /// The answer has one item too few.
    pub miscounted: u64,
    /// Nothing comes until the time is over.
    pub hangs: u64,
    /// 429 for all of it.
    pub rejected: u64,
    /// 429 for some of it.
    pub partly_rejected: u64,
    /// No master: 503, nothing done.
    pub no_master: u64,
    /// A proxy's 503, done or not.
    pub gateway: u64,
    /// 503 or 500 for some of it, done or not.
    pub partly_failed: u64,
    /// The index is read-only.
    pub read_only: u64,
    /// There is no such index.
    pub missing: u64,
    /// The credential is not accepted.
    pub unauthorized: u64,
}

#[derive(Default)]
pub struct World {
    pub weather: BTreeMap<String, Weather>,
    /// (cluster, index, id) → its version and the operation that wrote it.
    pub documents: BTreeMap<(String, String, String), (i64, u64)>,
    /// Operation → how often it was applied.
    pub applied: BTreeMap<u64, u32>,
    /// (cluster, index, id) → operations in the order in which they were applied.
    pub order: BTreeMap<(String, String, String), Vec<u64>>,
    /// Operations applied after their answer was given up: their order is nobody's.
    pub late: BTreeSet<u64>,
    /// Operation → how often it was sent.
    pub sent: BTreeMap<u64, u32>,
    /// Bulks that were sent: cluster, operations.
    pub bulks: Vec<(String, usize)>,
    /// (cluster, index, id) in a bulk on its way, where ids must not be in two.
    pub in_flight: BTreeMap<(String, String, String), u32>,
    pub bytes_in_flight: usize,
    pub most_bytes_in_flight: usize,
    pub max_body: usize,
    /// Whether an id in two bulks at once is a mistake.
    pub ordered: bool,
}

pub struct Elastic {
    pub world: Arc<Mutex<World>>,
    pub rng: Arc<Mutex<Rng>>,
}

struct Line {
    verb: String,
    id: String,
    version: Option<i64>,
    operation: u64,
    poison: Option<String>,
}

fn lines(body: &[u8]) -> Vec<Line> {
    let text = std::str::from_utf8(body).unwrap();
    assert!(text.ends_with('\n'), "a bulk ends with a newline");
    let mut rows = text.lines();
    let mut lines = Vec::new();
    while let Some(action) = rows.next() {
        let action: Value = serde_json::from_str(action).unwrap();
        let (verb, meta) = action.as_object().unwrap().iter().next().unwrap();
        assert!(meta.get("_index").is_none(), "the index is in the path");
        let document: Value = if verb == "delete" {
            meta["routing"].clone()
        } else {
            serde_json::from_str(rows.next().unwrap()).unwrap()
        };
        let operation = match &document {
            Value::String(routing) => routing.parse().unwrap(),
            document => document["operation"].as_u64().unwrap(),
        };
        lines.push(Line {
            verb: verb.clone(),
            id: meta["_id"].as_str().unwrap().to_owned(),
            version: meta.get("version").and_then(Value::as_i64),
            operation,
            poison: document.get("poison").and_then(Value::as_str).map(str::to_owned),
        });
    }
    lines
}

impl World {
    fn apply(&mut self, cluster: &str, index: &str, line: &Line) -> Value {
        let key = (cluster.to_owned(), index.to_owned(), line.id.clone());
        let verb = line.verb.as_str();
        let current = self.documents.get(&key).map(|(version, _)| *version);
        let conflict = match (line.version, current) {
            (Some(version), Some(current)) => version <= current,
            (None, Some(_)) => verb == "create",
            _ => false,
        };
        if conflict {
            return json!({verb: {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "conflict"}}});
        }
        let version = line.version.unwrap_or(current.unwrap_or(0) + 1);
        self.documents.insert(key.clone(), (version, line.operation));
        *self.applied.entry(line.operation).or_default() += 1;
        self.order.entry(key).or_default().push(line.operation);
        json!({verb: {"status": 200, "result": if verb == "delete" { "deleted" } else { "updated" },
            "_version": version, "_seq_no": 1, "_primary_term": 1, "_shards": {"total": 1, "successful": 1, "failed": 0}}})
    }
}

fn failed(line: &Line, status: u16, kind: &str) -> Value {
    json!({line.verb.clone(): {"status": status, "error": {"type": kind, "reason": format!("{kind} of the test")}}})
}

fn error(status: u16, kind: &str) -> Reply {
    let body = json!({"error": {"type": kind, "reason": kind}, "status": status}).to_string();
    Reply::Answered { status, body: Bytes::from(body) }
}

impl Elastic {
    fn roll(&self, end: u64) -> u64 {
        self.rng.lock().unwrap().below(end)
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.rng.lock().unwrap().chance(percent)
    }

    fn all(&self, bulk: &Bulk, lines: &[Line], weather: Weather) -> Vec<Value> {
        let mut world = self.world.lock().unwrap();
        let mut items = Vec::new();
        for line in lines {
            let cluster: &str = &bulk.cluster;
            items.push(match line.poison.as_deref() {
                Some("item") => failed(line, 400, "document_parsing_exception"),
                _ if self.chance(weather.partly_rejected) => {
                    failed(line, 429, "es_rejected_execution_exception")
                }
                _ if self.chance(weather.partly_failed) => {
                    if self.chance(50) {
                        world.apply(cluster, &bulk.index, line);
                    }
                    let (status, kind) = [(503, "unavailable_shards_exception"), (500, "i_o_exception")]
                        [self.roll(2) as usize];
                    failed(line, status, kind)
                }
                _ => world.apply(cluster, &bulk.index, line),
            });
        }
        items
    }

    async fn answer(&self, bulk: &Bulk, lines: Vec<Line>) -> Reply {
        let weather = self.world.lock().unwrap().weather.get(&*bulk.cluster).copied().unwrap_or_default();
        if self.chance(weather.refused) {
            return Reply::NotSent("connection refused".to_owned());
        }
        for line in &lines {
            *self.world.lock().unwrap().sent.entry(line.operation).or_default() += 1;
        }
        let max_body = self.world.lock().unwrap().max_body;
        let too_large = bulk.body.len() > max_body;
        let refused = lines.iter().any(|line| line.poison.as_deref() == Some("request"));
        if self.chance(weather.hangs) {
            // What is refused as a whole is not done either when nobody waits for the refusal.
            let done = self.chance(50) && !too_large && !refused;
            sleep(bulk.timeout).await;
            if done {
                self.all(bulk, &lines, Weather::default());
            }
            return Reply::Lost("timeout".to_owned());
        }
        sleep(Duration::from_micros(500 + self.roll(20_000))).await;
        if self.chance(weather.lost_before) {
            return Reply::Lost("reset".to_owned());
        }
        if self.chance(weather.rejected) {
            return error(429, "es_rejected_execution_exception");
        }
        if self.chance(weather.no_master) {
            return error(503, "cluster_block_exception");
        }
        if self.chance(weather.unauthorized) {
            return error(401, "security_exception");
        }
        if too_large {
            return Reply::Answered { status: 413, body: Bytes::new() };
        }
        if refused {
            return error(400, "illegal_argument_exception");
        }
        if self.chance(weather.lost_late) {
            let (world, bulk) = (Arc::clone(&self.world), bulk.clone());
            let delay = Duration::from_millis(self.roll(3_000));
            tokio::spawn(async move {
                sleep(delay).await;
                let mut world = world.lock().unwrap();
                for line in lines.iter().filter(|line| line.poison.is_none()) {
                    world.late.insert(line.operation);
                    world.apply(&bulk.cluster, &bulk.index, line);
                }
            });
            return Reply::Lost("reset".to_owned());
        }
        let every = |status, kind| lines.iter().map(|line| failed(line, status, kind)).collect();
        let mut items: Vec<Value> = if self.chance(weather.read_only) {
            every(if self.chance(50) { 403 } else { 429 }, "cluster_block_exception")
        } else if self.chance(weather.missing) {
            every(404, "index_not_found_exception")
        } else if self.chance(weather.gateway) {
            if self.chance(50) {
                self.all(bulk, &lines, Weather::default());
            }
            return Reply::Answered { status: 503, body: Bytes::from_static(b"<html>") };
        } else {
            self.all(bulk, &lines, weather)
        };
        if self.chance(weather.lost_after) {
            return Reply::Lost("reset".to_owned());
        }
        if self.chance(weather.miscounted) {
            items.pop();
        }
        let body = json!({"errors": true, "took": 1, "items": items}).to_string();
        let whole = body.len() as u64;
        let end = if self.chance(weather.truncated) { self.roll(whole) } else { whole } as usize;
        Reply::Answered { status: 200, body: Bytes::from(body).slice(..end) }
    }
}

impl Transport for Elastic {
    async fn bulk(&self, bulk: Bulk) -> Reply {
        let started = Instant::now();
        let lines = lines(&bulk.body);
        assert_eq!(lines.len(), bulk.items);
        let keys: Vec<_> = (lines.iter())
            .map(|line| (bulk.cluster.to_string(), bulk.index.to_string(), line.id.clone()))
            .collect();
        {
            let mut world = self.world.lock().unwrap();
            world.bulks.push((bulk.cluster.to_string(), bulk.items));
            world.bytes_in_flight += bulk.body.len();
            world.most_bytes_in_flight = world.most_bytes_in_flight.max(world.bytes_in_flight);
            for key in &keys {
                let count = world.in_flight.entry(key.clone()).or_default();
                *count += 1;
                let count = *count;
                assert!(!world.ordered || count == 1, "{key:?} is in two places at once");
            }
        }
        let reply = self.answer(&bulk, lines).await;
        assert!(started.elapsed() <= bulk.timeout + Duration::from_millis(30));
        let mut world = self.world.lock().unwrap();
        world.bytes_in_flight -= bulk.body.len();
        for key in keys {
            *world.in_flight.get_mut(&key).unwrap() -= 1;
        }
        reply
    }
}
