//! What becomes of a bulk: it is carried out, or fails as the rules say. Effects: versions and counts of its cluster.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::bulk::{self, Item, Operation};
use super::rules::{Applied, Fault, Rule};
use super::store::Asked;
use super::{Cluster, State, serve};

/// What becomes of a bulk.
pub enum Outcome {
    /// An answer, after a pause.
    Answer { status: u16, body: Vec<u8>, pause: Duration, bytes_per_second: Option<f64>, broken: bool },
    /// None, and the connection is closed.
    Close,
    /// None until rules change; then it is closed.
    Hang,
}

impl Cluster {
    /// Carries out a bulk, or lets it fail.
    pub(crate) fn bulk(
        &self,
        node: usize,
        path: Option<&str>,
        query: &BTreeMap<String, String>,
        body: &[u8],
    ) -> Outcome {
        let started = Instant::now();
        let refused = |status: u16, kind: &str, reason: &str| Outcome::Answer {
            status,
            body: serve::error(status, kind, reason),
            pause: Duration::ZERO,
            bytes_per_second: None,
            broken: false,
        };
        let fields = match bulk::Fields::new(query.get("filter_path").map(String::as_str)) {
            Ok(fields) => fields,
            Err(reason) => return refused(400, "illegal_argument_exception", &reason),
        };
        let mut operations = match bulk::parse(body, path) {
            Ok(operations) => operations,
            Err(reason) => return refused(400, "illegal_argument_exception", &reason),
        };
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        state.note(&operations, body.len());
        for operation in operations.iter_mut().filter(|operation| operation.id.is_none()) {
            operation.id = Some(format!("auto-{:016x}", state.random.any()).into());
        }
        if !self.troubled.load(Ordering::Acquire) {
            let items: Vec<Item> = operations.iter().map(|one| self.apply(state, one)).collect();
            state.answered(200, &items);
            drop(guard);
            let body = bulk::answer(&operations, &items, started.elapsed().as_millis(), fields);
            return Outcome::Answer {
                status: 200,
                body,
                pause: Duration::ZERO,
                bytes_per_second: None,
                broken: false,
            };
        }
        self.trouble(state, node, &operations, body, (query, fields))
    }

    /// The same where rules are in force.
    fn trouble(
        &self,
        state: &mut State,
        node: usize,
        operations: &[Operation<'_>],
        body: &[u8],
        (query, fields): (&BTreeMap<String, String>, bulk::Fields),
    ) -> Outcome {
        let mut pause = Duration::ZERO;
        let mut bytes_per_second = None;
        let mut broken = false;
        let mut miscounted = false;
        let mut rules = std::mem::take(&mut state.rules);
        let fits = |rule: &Rule| {
            operations.iter().any(|one| rule.fits(node, &one.index, self.data_node(&one.index)))
        };
        let mut fate = None;
        for rule in &mut rules {
            if fate.is_some() || !fits(rule) {
                continue;
            }
            let relevant = match &rule.fault {
                Fault::MaxBytes { bytes } => body.len() > *bytes,
                Fault::PoisonRequest { text } => memchr::memmem::find(body, text.as_bytes()).is_some(),
                Fault::PoisonItem { .. }
                | Fault::RejectItems
                | Fault::FailItems { .. }
                | Fault::Red { .. }
                | Fault::ReadOnly { .. }
                | Fault::Missing => false,
                _ => true,
            };
            if !relevant || !rule.strikes(&mut state.random) {
                continue;
            }
            match &rule.fault {
                Fault::Slow { millis } => pause += Duration::from_millis(*millis),
                Fault::Drip { bytes_per_second: speed } => bytes_per_second = Some(*speed),
                Fault::Truncate { applied: Applied::Yes } => broken = true,
                Fault::Miscount => miscounted = true,
                other => fate = Some(other.clone()),
            }
        }
        if let Some(fate) = fate {
            state.rules = rules;
            return self.fail(state, operations, &fate, pause);
        }
        let patience = query.get("timeout").and_then(|text| text.strip_suffix("ms")?.parse().ok());
        let mut items: Vec<Item> = operations
            .iter()
            .map(|one| self.troubled_item(state, node, one, &mut rules, (&mut pause, patience)))
            .collect();
        state.rules = rules;
        if miscounted {
            items.pop();
        }
        let status = if broken { 0 } else { 200 };
        state.answered(status, &items);
        let body = bulk::answer(operations, &items, pause.as_millis(), fields);
        Outcome::Answer { status: 200, body, pause, bytes_per_second, broken }
    }

    fn fail(
        &self,
        state: &mut State,
        operations: &[Operation<'_>],
        fate: &Fault,
        pause: Duration,
    ) -> Outcome {
        let done = |state: &mut State, applied: Applied| {
            let mut items = Vec::new();
            for one in operations {
                let is = match applied {
                    Applied::No => false,
                    Applied::Yes => true,
                    Applied::Some => state.random.chance(0.5),
                };
                if is {
                    items.push(self.apply(state, one));
                }
            }
            items
        };
        let (status, kind, reason) = match fate {
            Fault::Hang { applied } => {
                done(state, *applied);
                state.answered(0, &[]);
                return Outcome::Hang;
            }
            Fault::Cut { applied } => {
                done(state, *applied);
                state.answered(0, &[]);
                return Outcome::Close;
            }
            Fault::Truncate { applied } => {
                done(state, *applied);
                state.answered(0, &[]);
                let body = b"{\"errors\":false,\"took\":1,\"items\":[{\"index\":{\"status\":201}},".to_vec();
                return Outcome::Answer { status: 200, body, pause, bytes_per_second: None, broken: true };
            }
            Fault::Gateway { applied } => {
                done(state, *applied);
                state.answered(502, &[]);
                let body = b"<html>502 Bad Gateway</html>".to_vec();
                return Outcome::Answer { status: 502, body, pause, bytes_per_second: None, broken: false };
            }
            Fault::Reject => {
                (429, "es_rejected_execution_exception", "rejected execution of coordinating operation")
            }
            Fault::NoMaster => {
                (503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no master];")
            }
            Fault::Unauthorized => (401, "security_exception", "unable to authenticate user"),
            Fault::PoisonRequest { .. } => {
                (400, "illegal_argument_exception", "something in it cannot be read")
            }
            _ => {
                state.answered(413, &[]);
                return Outcome::Answer {
                    status: 413,
                    body: Vec::new(),
                    pause,
                    bytes_per_second: None,
                    broken: false,
                };
            }
        };
        state.answered(status, &[]);
        let body = serve::error(status, kind, reason);
        Outcome::Answer { status, body, pause, bytes_per_second: None, broken: false }
    }

    fn troubled_item(
        &self,
        state: &mut State,
        node: usize,
        one: &Operation<'_>,
        rules: &mut [Rule],
        (pause, patience): (&mut Duration, Option<u64>),
    ) -> Item {
        let failed = |status, kind: &'static str, reason: String| Item::Failed(status, kind.into(), reason);
        let index = one.index.as_ref();
        for rule in rules.iter_mut().filter(|rule| rule.fits(node, index, self.data_node(index))) {
            let has = |text: &str| {
                one.document.is_some_and(|document| memchr::memmem::find(document, text.as_bytes()).is_some())
            };
            let relevant = match &rule.fault {
                Fault::PoisonItem { text } => has(text),
                Fault::RejectItems
                | Fault::FailItems { .. }
                | Fault::Red { .. }
                | Fault::ReadOnly { .. }
                | Fault::Missing => true,
                _ => false,
            };
            if !relevant || !rule.strikes(&mut state.random) {
                continue;
            }
            match rule.fault.clone() {
                Fault::PoisonItem { .. } => {
                    return failed(400, "document_parsing_exception", "[1:1] failed to parse".into());
                }
                Fault::RejectItems => {
                    return failed(
                        429,
                        "es_rejected_execution_exception",
                        "rejected execution of primary operation".into(),
                    );
                }
                Fault::FailItems { status, kind, applied } => {
                    let chance = match applied {
                        Applied::No => 0.0,
                        Applied::Yes => 1.0,
                        Applied::Some => 0.5,
                    };
                    if state.random.chance(chance) {
                        self.apply(state, one);
                    }
                    return Item::Failed(status, kind.into(), format!("[{index}] as the rule says"));
                }
                Fault::Red { after_millis } => {
                    let wait = patience.map_or(after_millis, |patience: u64| patience.min(after_millis));
                    *pause = (*pause).max(Duration::from_millis(wait));
                    let reason = format!("[{index}][0] primary shard is not active");
                    return failed(503, "unavailable_shards_exception", reason);
                }
                Fault::ReadOnly { status } => {
                    let reason = format!("index [{index}] blocked by: [FORBIDDEN/8/index write (api)];");
                    return failed(status, "cluster_block_exception", reason);
                }
                Fault::Missing => {
                    return failed(404, "index_not_found_exception", format!("no such index [{index}]"));
                }
                _ => {}
            }
        }
        self.apply(state, one)
    }

    fn apply(&self, state: &mut State, one: &Operation<'_>) -> Item {
        let failed = |kind: &'static str, reason: &str| Item::Failed(400, kind.into(), reason.into());
        let id = one.id.as_deref().unwrap_or_default();
        if one.verb == "update" {
            return failed("illegal_argument_exception", "this Elasticsearch has no updates");
        }
        if id.len() > 512 {
            return failed("illegal_argument_exception", "id is too long");
        }
        let same_is_fine = one.version_type.as_deref() == Some("external_gte");
        let external = match (one.version_type.as_deref(), one.version) {
            (Some("external" | "external_gte"), Some(version)) => Some(version),
            (Some("external" | "external_gte"), None) => {
                return failed("action_request_validation_exception", "version is missing");
            }
            (_, Some(_)) => {
                return failed("action_request_validation_exception", "internal versioning has no version");
            }
            (_, None) => None,
        };
        if let Some(document) = one.document {
            let object = |document: &[u8]| document.first() == Some(&b'{') && document.last() == Some(&b'}');
            let whole = !self.options.reads_documents
                || serde_json::from_slice::<serde::de::IgnoredAny>(document).is_ok();
            if !object(document.trim_ascii()) || !whole {
                return failed("document_parsing_exception", "[1:1] failed to parse");
            }
        }
        let asked = Asked {
            create: one.verb == "create",
            delete: one.verb == "delete",
            external,
            same_is_fine,
            condition: one.condition,
            hash: one.document.map_or(0, xxh3_64),
        };
        match state.store.apply(&one.index, id, &asked, Instant::now()) {
            Ok(done) => {
                state.counters.applied += 1;
                Item::Done(done)
            }
            Err(conflict) => Item::conflict(id, conflict),
        }
    }
}

impl State {
    fn note(&mut self, operations: &[Operation<'_>], bytes: usize) {
        let mut indices: Vec<&str> = Vec::new();
        let mut last = "";
        for one in operations {
            if one.index != last {
                last = &one.index;
                indices.push(last);
            }
        }
        indices.sort_unstable();
        indices.dedup();
        let counters = &mut self.counters;
        counters.bulks += 1;
        counters.operations += operations.len() as u64;
        counters.destinations += indices.len() as u64;
        counters.most_destinations = counters.most_destinations.max(indices.len() as u64);
        counters.largest = counters.largest.max(bytes as u64);
    }

    fn answered(&mut self, status: u16, items: &[Item]) {
        *self.counters.statuses.entry(status).or_default() += 1;
        let mut failed = status != 200;
        let (mut run, mut last) = (0, 0);
        for item in items {
            let status = item.status();
            failed |= matches!(item, Item::Failed(..)) && status != 409;
            if status != last && run > 0 {
                *self.counters.items.entry(last).or_default() += run;
                run = 0;
            }
            last = status;
            run += 1;
        }
        if run > 0 {
            *self.counters.items.entry(last).or_default() += run;
        }
        self.counters.failed_bulks += u64::from(failed);
    }
}
