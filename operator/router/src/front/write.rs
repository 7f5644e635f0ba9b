//! Writes: `_bulk`, and documents one by one. Effects: hands operations to the flow.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep_until};

use super::body::{self, Held};
use super::bulk::{self, Action, BulkError, Meta, Operations, Verb, Word};
use super::course::{Course, Outcome, Patience, What};
use super::error::Failure;
use super::{Answer, App, Asked, render};

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
        let outcome = self.carry_out(held, index, routing, &may_write, patience, bulk::read).await?;
        let took = started.elapsed().as_millis();
        let (body, retry_after) = render::bulk(&outcome.asked, &outcome.answers, took);
        Ok(Answer { retry_after, lease: Some(outcome.lease), ..Answer::ok(body) })
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
                Ok(Operations::One(Some(Action { verb, meta, document })))
            })
            .await?;
        let Some(one) = outcome.asked.first() else { return Err(Failure::illegal("nothing was asked")) };
        let (status, body) = render::single(one, &outcome.answers)?;
        Ok(Answer { status, ..Answer::ok(body) })
    }

    async fn carry_out(
        &self,
        held: Held,
        index: Option<&str>,
        routing: Option<&str>,
        may_write: &(dyn Fn(&str) -> bool + Sync),
        patience: Patience,
        read: impl for<'b> Fn(&'b [u8]) -> Result<Operations<'b>, BulkError> + Sync,
    ) -> Result<Outcome, Failure> {
        let mut changes = self.directory.changes();
        changes.mark_unchanged();
        let what = What { index, routing, may_write };
        let mut course = Course::begin(self, what, patience, held, read)?;
        while let Some(wake) = course.wake() {
            // A table that came meanwhile has changed it already.
            tokio::select! {
                () = sleep_until(wake) => {}
                changed = changes.changed() => if changed.is_err() { break },
            }
            if Instant::now() >= patience.until {
                break;
            }
            course.go_on();
        }
        let mut outcome = course.end().await;
        if patience.refresh {
            self.refresher.refresh(&self.elastic, std::mem::take(&mut outcome.places)).await;
        }
        Ok(outcome)
    }
}

fn word(text: &str) -> Word<'static> {
    Word(Cow::Owned(text.to_owned()))
}

impl Patience {
    fn new(params: &super::params::Params, now: Instant, default: Duration) -> Result<Self, Failure> {
        let timeout = params.time("timeout")?.unwrap_or(default).min(MAX_TIMEOUT);
        let refresh = match params.get("refresh") {
            None | Some("false") => false,
            Some("" | "true" | "wait_for") => true,
            Some(other) => return Err(Failure::illegal(format!("Unknown value for refresh: [{other}]."))),
        };
        // Who waits longer for its turn would be answered before Elasticsearch has answered.
        Ok(Self { until: now + timeout, latest: now + timeout * 3 / 4, refresh })
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
