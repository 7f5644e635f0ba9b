//! Reads what Elasticsearch answers to a bulk. Pure.

use std::borrow::Cow;

use serde::Deserialize;

use super::answer::{Done, Outcome, Refused};
use super::classify::{self, Verdict};
use super::quick;

/// Parameters of every bulk that is sent: only what is read here, so that answers are short. An item's position is
/// kept because its status is.
pub const FILTER: &str = "items.*.status,items.*.result,items.*._version,items.*._seq_no,items.*._primary_term,items.*._shards,items.*.error";

/// Most bytes of a reason that are kept.
const MAX_REASON: usize = 600;

/// One item of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemReply {
    /// What it means.
    pub verdict: Verdict,
    /// What it says.
    pub said: Result<Done, Box<Refused>>,
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not the JSON of a bulk's answer; broken off, for example.
    #[error("the answer is not that of a bulk: {0}")]
    Json(String),
    /// More or fewer items than were sent.
    #[error("the answer has {got} items for the {sent} that were sent")]
    Count {
        /// Items sent.
        sent: usize,
        /// Items answered.
        got: usize,
    },
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    items: Vec<Row<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Row<'a> {
    #[serde(borrow)]
    Index(Item<'a>),
    #[serde(borrow)]
    Create(Item<'a>),
    #[serde(borrow)]
    Delete(Item<'a>),
}

#[derive(Deserialize)]
struct Item<'a> {
    status: u16,
    #[serde(default)]
    result: Option<Outcome>,
    #[serde(default, rename = "_version")]
    version: i64,
    #[serde(default, rename = "_seq_no")]
    seq_no: i64,
    #[serde(default, rename = "_primary_term")]
    primary_term: i64,
    #[serde(default, rename = "_shards")]
    shards: Shards,
    #[serde(default, borrow)]
    error: Option<Error<'a>>,
}

#[derive(Default, Deserialize)]
struct Shards {
    #[serde(default)]
    total: u32,
    #[serde(default)]
    successful: u32,
    #[serde(default)]
    failed: u32,
}

#[derive(Deserialize)]
struct Error<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    caused_by: Option<Box<Error<'a>>>,
}

/// The items of a 200 answer to `sent` operations.
pub fn items(body: &[u8], sent: usize) -> Result<Vec<ItemReply>, ReplyError> {
    match quick::items(body, sent) {
        Some(items) => Ok(items),
        None => general(body, sent),
    }
}

/// The same, whatever the answer looks like.
pub(super) fn general(body: &[u8], sent: usize) -> Result<Vec<ItemReply>, ReplyError> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|error| ReplyError::Json(error.to_string()))?;
    if body.items.len() != sent {
        return Err(ReplyError::Count { sent, got: body.items.len() });
    }
    Ok(body.items.into_iter().map(item).collect())
}

/// The item that a text begins with, whatever it looks like, and what follows it.
pub(super) fn first(text: &[u8]) -> Option<(ItemReply, &[u8])> {
    let mut rows = serde_json::Deserializer::from_slice(text).into_iter::<Row<'_>>();
    let row = rows.next()?.ok()?;
    Some((item(row), text.get(rows.byte_offset()..)?))
}

fn item(row: Row<'_>) -> ItemReply {
    let (Row::Index(item) | Row::Create(item) | Row::Delete(item)) = row;
    let verdict = classify::item(item.status, item.error.as_ref().map(|error| error.kind.as_ref()));
    let said = match (item.error, item.result) {
        (None, Some(result)) => Ok(Done {
            status: item.status,
            result,
            version: item.version,
            seq_no: item.seq_no,
            primary_term: item.primary_term,
            shards: [item.shards.total, item.shards.successful, item.shards.failed],
        }),
        (error, _) => Err(Box::new(refused(item.status, error))),
    };
    // Success that does not say what it did is no success.
    let verdict =
        if said.is_err() && item.status < 300 { Verdict::Doubtful(classify::Class::Server) } else { verdict };
    ItemReply { verdict, said }
}

fn refused(status: u16, error: Option<Error<'_>>) -> Refused {
    let Some(error) = error else {
        return Refused { status, kind: "unknown".into(), reason: "".into(), cause: None };
    };
    let mut cause = error.caused_by;
    while let Some(deeper) = cause.as_mut().and_then(|cause| cause.caused_by.take()) {
        cause = Some(deeper);
    }
    let text = |reason: Option<Cow<'_, str>>| cut(reason.as_deref().unwrap_or_default()).into();
    Refused {
        status,
        kind: cut(&error.kind).into(),
        reason: text(error.reason),
        cause: cause.map(|cause| (cut(&cause.kind).into(), text(cause.reason))),
    }
}

/// What a request was refused with that was not answered 200; a body that says nothing yields the status alone.
pub fn refusal(status: u16, body: &[u8]) -> (Verdict, Refused) {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said<'a> {
        #[serde(borrow)]
        Typed(Error<'a>),
        Text(String),
    }
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: Said<'a>,
    }
    let said = serde_json::from_slice::<Body<'_>>(body).ok().map(|body| body.error);
    let refused = match said {
        Some(Said::Typed(error)) => refused(status, Some(error)),
        Some(Said::Text(text)) => Refused { reason: cut(&text).into(), ..refused(status, None) },
        None => Refused { reason: format!("HTTP status {status}").into(), ..refused(status, None) },
    };
    let kind = (refused.kind.as_ref() != "unknown").then_some(refused.kind.as_ref());
    (classify::request(status, kind), refused)
}

/// At most [`MAX_REASON`] bytes, and whole characters.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_REASON)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::answer::Block;
    use super::super::classify::Class;
    use super::*;

    #[test]
    fn success_and_failure_side_by_side() {
        let body = br#"{"took":3,"errors":true,"items":[
            {"index":{"_version":7,"result":"updated","_shards":{"total":3,"successful":2,"failed":0},"_seq_no":4,"_primary_term":1,"status":200}},
            {"delete":{"_version":1,"result":"not_found","_seq_no":5,"_primary_term":1,"status":404}},
            {"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[1]: \"x\""}}},
            {"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"r","caused_by":{"type":"a","reason":"b","caused_by":{"type":"c","reason":"d"}}}}},
            {"index":{"status":201}}]}"#;
        let items = items(body, 5).unwrap();
        let done = items[0].said.as_ref().unwrap();
        assert_eq!(
            (done.version, done.seq_no, done.shards, done.result),
            (7, 4, [3, 2, 0], Outcome::Updated)
        );
        assert_eq!(items[1].said.as_ref().unwrap().result, Outcome::NotFound);
        assert_eq!(items[2].said.as_ref().unwrap_err().reason.as_ref(), "[1]: \"x\"");
        let cause = items[3].said.as_ref().unwrap_err().cause.clone().unwrap();
        assert_eq!((cause.0.as_ref(), cause.1.as_ref()), ("c", "d"));
        assert!(items[..4].iter().all(|item| item.verdict == Verdict::Final));
        assert_eq!(items[4].verdict, Verdict::Doubtful(Class::Server));
    }

    #[test]
    fn what_is_broken_off_or_miscounted_is_no_answer() {
        let whole = br#"{"items":[{"index":{"status":201,"result":"created"}}]}"#;
        assert!(items(whole, 1).is_ok());
        assert_eq!(items(whole, 2), Err(ReplyError::Count { sent: 2, got: 1 }));
        for end in 0..whole.len() {
            assert!(matches!(items(&whole[..end], 1), Err(ReplyError::Json(_))), "{end}");
        }
    }

    #[test]
    fn refusals() {
        let body = br#"{"error":{"root_cause":[],"type":"es_rejected_execution_exception","reason":"rejected"},"status":429}"#;
        let (verdict, refused) = refusal(429, body);
        assert_eq!((verdict, refused.reason.as_ref()), (Verdict::Again(Class::Rejected), "rejected"));
        assert_eq!(refusal(401, b"").0, Verdict::Blocked(Block::Unauthorized));
        assert_eq!(refusal(502, b"<html>").0, Verdict::Doubtful(Class::Unavailable));
        assert_eq!(refusal(400, br#"{"error":"text"}"#).1.reason.as_ref(), "text");
        let long = "é".repeat(10_000);
        let (_, refused) =
            refusal(400, format!(r#"{{"error":{{"type":"t","reason":"{long}"}}}}"#).as_bytes());
        assert_eq!(refused.reason.len(), MAX_REASON);
    }
}
