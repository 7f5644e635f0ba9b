//! Writes: `_bulk`, and documents one by one. Effects: hands operations to the flow.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use super::body::{self, Held};
use super::bulk::{self, Action, Meta, Verb, Word};
use super::error::Failure;
use super::pending::Pending;
use super::plan::{Plan, Request};
use super::{Answer, App, Asked, render};
use crate::flow::answer::{self, Ticket};

/// Longest that a request may wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// Parameters of Elasticsearch that no write through the router can have.
const REFUSED: [&str; 6] = [
    "pipeline",
    "wait_for_active_shards",
    "require_alias",
    "require_data_stream",
    "dynamic_templates",
    "_source",
];
const BULK: [&str; 5] =
    ["refresh", "timeout", "routing", "list_executed_pipelines", "include_source_on_error"];
const DOCUMENT: [&str; 9] = [
    "refresh",
    "timeout",
    "routing",
    "version",
    "version_type",
    "if_seq_no",
    "if_primary_term",
    "op_type",
    "include_source_on_error",
];

/// What became of the operations of a request.
struct Outcome {
    asked: Vec<super::plan::Asked>,
    answers: Vec<Option<answer::Answer>>,
}

impl App {
    /// `_bulk`.
    pub(super) async fn bulk(&self, index: Option<&str>, asked: Asked<'_>) -> Result<Answer, Failure> {
        let started = Instant::now();
        asked.params.only(&BULK, &REFUSED)?;
        let held = body::read(&asked.headers, asked.body, self.core.budget(), self.sizes.max_request).await?;
        let caller = asked.caller;
        let may_write = |collection: &str| caller.may_write(collection);
        let patience = Patience::new(&asked.params, started, self.sizes.request_timeout)?;
        let routing = asked.params.get("routing");
        let outcome = self
            .carry_out(held, index, routing, &may_write, patience, |body| {
                bulk::parse(body).map_err(|error| Failure::illegal(error.to_string()))
            })
            .await?;
        let took = started.elapsed().as_millis();
        Ok(Answer::ok(render::bulk(&outcome.asked, &outcome.answers, took)))
    }

    /// One document.
    pub(super) async fn write(
        &self,
        index: &str,
        id: Option<&str>,
        verb: Verb,
        asked: Asked<'_>,
    ) -> Result<Answer, Failure> {
        let started = Instant::now();
        let params = &asked.params;
        params.only(&DOCUMENT, &REFUSED)?;
        let verb = match (verb, params.get("op_type")) {
            (Verb::Index, Some("create")) => Verb::Create,
            (verb, None | Some("index")) => verb,
            (_, Some(other)) => {
                return Err(Failure::illegal(format!(
                    "opType must be 'create' or 'index', found: [{other}]"
                )));
            }
        };
        let (version, if_seq_no, if_primary_term) =
            (params.number("version")?, params.number("if_seq_no")?, params.number("if_primary_term")?);
        let patience = Patience::new(params, started, self.sizes.request_timeout)?;
        let mut held =
            body::read(&asked.headers, asked.body, self.core.budget(), self.sizes.max_request).await?;
        if verb != Verb::Delete {
            held.bytes = one_line(&held.bytes)?;
        }
        let may_write = |collection: &str| asked.caller.may_write(collection);
        let outcome = self
            .carry_out(held, Some(index), params.get("routing"), &may_write, patience, |body| {
                let meta = Meta {
                    id: id.map(word),
                    version,
                    version_type: params.get("version_type").map(word),
                    if_seq_no,
                    if_primary_term,
                    ..Meta::default()
                };
                let document = (verb != Verb::Delete).then_some(body);
                Ok(vec![Action { verb, meta, document }])
            })
            .await?;
        let Some(one) = outcome.asked.first() else { return Err(Failure::illegal("nothing was asked")) };
        let (status, body) = render::single(one, &outcome.answers)?;
        Ok(Answer { status, body })
    }

    async fn carry_out(
        &self,
        held: Held,
        index: Option<&str>,
        routing: Option<&str>,
        may_write: &(dyn Fn(&str) -> bool + Sync),
        patience: Patience,
        read: impl for<'b> Fn(&'b [u8]) -> Result<Vec<Action<'b>>, Failure> + Sync,
    ) -> Result<Outcome, Failure> {
        let mut changes = self.directory.changes();
        let paused = |why| {
            Failure::overloaded(format!("writes to a destination are paused{why}: send it again later"))
        };
        let mut room = None;
        let submitted = loop {
            changes.mark_unchanged();
            if let Some(submitted) = self.submit(&held, index, routing, may_write, patience, &read)? {
                break submitted;
            }
            // A migration: the next table says where to. What waits is this request, with its body and not in the
            // flow, which would keep it to its share.
            if room.is_none() {
                let taken = self.pauses.take(held.cost());
                room = Some(taken.ok_or_else(|| paused(", and too much waits for that"))?);
            }
            if !matches!(timeout_at(patience.until, changes.changed()).await, Ok(Ok(()))) {
                return Err(paused(""));
            }
        };
        // Everything has been copied: what the client sent is no longer needed.
        drop((held, room));
        let answers = submitted.pending.all().await;
        if patience.refresh {
            self.refresher.refresh(&self.elastic, submitted.places).await;
        }
        Ok(Outcome { asked: submitted.asked, answers })
    }

    /// Hands the operations to the flow; absent: a destination takes no writes for now, and nothing was handed on.
    fn submit(
        &self,
        held: &Held,
        index: Option<&str>,
        routing: Option<&str>,
        may_write: &(dyn Fn(&str) -> bool + Sync),
        patience: Patience,
        read: impl for<'b> Fn(&'b [u8]) -> Result<Vec<Action<'b>>, Failure>,
    ) -> Result<Option<Submitted>, Failure> {
        let routes = self.directory.current();
        let may_write = |collection: &str| may_write(collection);
        let request = Request {
            routes: &routes,
            index,
            routing,
            may_write: &may_write,
            minter: &self.minter,
            now: SystemTime::now(),
        };
        let mut plan = Plan::new(read(&held.bytes)?, &request);
        if plan.paused {
            return Ok(None);
        }
        let lease = self.core.budget().take(plan.cost());
        let lease = lease
            .ok_or_else(|| Failure::overloaded("the router holds as much as it may: send it again later"))?;
        let pending = Arc::new(Pending::new(plan.copies()));
        let bulk = (self.sizes.bulk_bytes, self.sizes.bulk_operations);
        let ticket = |slot| Some(Ticket::new(Arc::clone(&pending) as _, slot));
        let parcels = plan.parcels(ticket, Some(patience.until), Instant::now(), bulk);
        let places = if patience.refresh { plan.places(0..plan.copies()) } else { Vec::new() };
        let asked = std::mem::take(&mut plan.asked);
        self.core.submit(parcels, lease);
        Ok(Some(Submitted { asked, places, pending }))
    }
}

/// Operations that the flow has.
struct Submitted {
    asked: Vec<super::plan::Asked>,
    places: Vec<(Arc<str>, Arc<str>)>,
    pending: Arc<Pending>,
}

fn word(text: &str) -> Word<'static> {
    Word(Cow::Owned(text.to_owned()))
}

/// How long a request waits, and whether its writes are to be found afterwards.
#[derive(Clone, Copy)]
struct Patience {
    until: Instant,
    refresh: bool,
}

impl Patience {
    fn new(params: &super::params::Params, now: Instant, default: Duration) -> Result<Self, Failure> {
        let timeout = params.time("timeout")?.unwrap_or(default).min(MAX_TIMEOUT);
        let refresh = match params.get("refresh") {
            None | Some("false") => false,
            Some("" | "true" | "wait_for") => true,
            Some(other) => return Err(Failure::illegal(format!("Unknown value for refresh: [{other}]."))),
        };
        Ok(Self { until: now + timeout, refresh })
    }
}

/// A document in one line, as a bulk needs it. Line breaks in JSON are between its parts; inside of a string they are no JSON.
pub fn one_line(document: &Bytes) -> Result<Bytes, Failure> {
    if document.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::new(
            http::StatusCode::BAD_REQUEST,
            "parse_exception",
            "request body is required",
        ));
    }
    if !document.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Ok(document.clone());
    }
    serde_json::from_slice::<IgnoredAny>(document).map_err(|error| {
        Failure::new(http::StatusCode::BAD_REQUEST, "document_parsing_exception", error.to_string())
    })?;
    let line = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    Ok(document.iter().map(line).collect::<Vec<u8>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_become_one_line_or_are_refused() {
        let line = |text: &'static str| one_line(&Bytes::from_static(text.as_bytes()));
        assert_eq!(line("{\r\n \"a\": 1\n}").unwrap(), "{   \"a\": 1 }");
        assert_eq!(line("{broken").unwrap(), "{broken", "Elasticsearch says what is wrong with it");
        assert!(line("{\"a\": \"x\ny\"}").is_err() && line(" \n").is_err());
    }
}
