//! Answers to writes in Elasticsearch's shape, ids as the client knows them. Pure.

use std::io::Write;

use serde_json::Value;

use super::error::Failure;
use super::plan::{Asked, write_text};
use crate::flow::answer::{Answer, Done, Outcome, Refused, Why};

/// What is told of one operation, as of all its copies: the worst.
pub fn worst(asked: &Asked, answers: &[Option<Answer>]) -> Result<Done, Failure> {
    let copies = match &asked.copies {
        Ok(copies) => answers.get(copies.clone()).unwrap_or_default(),
        Err(failure) => return Err(failure.clone()),
    };
    let rank = |answer: &&Answer| match answer {
        Answer::Unknown(_) => 4,
        Answer::Unsent(_) => 3,
        Answer::Refused(refused) if refused.status != 409 => 2,
        Answer::Refused(_) => 1,
        Answer::Done(_) => 0,
    };
    match copies.iter().flatten().max_by_key(rank) {
        Some(Answer::Done(done)) => Ok(*done),
        Some(Answer::Refused(refused)) => Err(refusal(refused, &asked.id)),
        Some(Answer::Unsent(why)) => Err(unsent(why)),
        Some(Answer::Unknown(why)) => Err(unknown(&why.to_string())),
        None => Err(unknown("nobody answered")),
    }
}

fn unsent(why: &Why) -> Failure {
    Failure::overloaded(format!("not applied, and may be sent again: {why}"))
}

fn unknown(why: &str) -> Failure {
    let reason = format!("it was sent, and nobody knows whether it was applied: {why}");
    Failure::new(http::StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", reason)
}

fn refusal(refused: &Refused, id: &str) -> Failure {
    Failure {
        status: refused.status,
        kind: refused.kind.to_string().into(),
        reason: strip(&refused.reason, id),
        cause: refused.cause.as_ref().map(|(kind, reason)| (kind.to_string(), strip(reason, id))),
        retry_after: None,
    }
}

/// A reason in which `[<tenant>~<id>]` is `[<id>]`; some have it between other quotes.
fn strip(reason: &str, id: &str) -> String {
    let mut reason = reason.to_owned();
    for (open, close) in [('[', ']'), ('\'', '\'')] {
        let stored = format!("~{id}{close}");
        let mut out = String::with_capacity(reason.len());
        let mut rest = reason.as_str();
        while let Some((before, after)) = rest.split_once(&stored) {
            match before.rsplit_once(open) {
                Some((kept, _)) => out.push_str(kept),
                None => out.push_str(before),
            }
            out.push(open);
            out.push_str(id);
            out.push(close);
            rest = after;
        }
        out.push_str(rest);
        reason = out;
    }
    reason
}

fn result(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Updated => "updated",
        Outcome::Deleted => "deleted",
        Outcome::NotFound => "not_found",
        Outcome::Noop => "noop",
    }
}

fn write_place(out: &mut Vec<u8>, asked: &Asked) {
    out.extend_from_slice(b"\"_index\":");
    write_text(out, &asked.index);
    out.extend_from_slice(b",\"_id\":");
    if asked.id.is_empty() { out.extend_from_slice(b"null") } else { write_text(out, &asked.id) }
}

/// Some text and a number: there are seven numbers in each item.
fn write_number(out: &mut Vec<u8>, before: &str, number: impl itoa::Integer) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_done(out: &mut Vec<u8>, done: &Done) {
    let [total, successful, failed] = done.shards;
    write_number(out, ",\"_version\":", done.version);
    out.extend_from_slice(b",\"result\":\"");
    out.extend_from_slice(result(done.result).as_bytes());
    write_number(out, "\",\"_shards\":{\"total\":", total);
    write_number(out, ",\"successful\":", successful);
    write_number(out, ",\"failed\":", failed);
    write_number(out, "},\"_seq_no\":", done.seq_no);
    write_number(out, ",\"_primary_term\":", done.primary_term);
}

/// The answer to a bulk; and where operations of it may be sent again, the seconds after which the first of them may.
pub fn bulk(asked: &[Asked], answers: &[Option<Answer>], took_ms: u128) -> (Vec<u8>, Option<u64>) {
    let mut out = Vec::with_capacity(asked.len() * 208 + 64);
    // First, as Elasticsearch has it, so that clients need not read on; and so that nothing is copied for it.
    let errors = asked.iter().any(|asked| failed(asked, answers));
    // Writing to memory does not fail.
    write!(out, "{{\"errors\":{errors},\"took\":{took_ms},\"items\":[").ok();
    let mut retry_after: Option<u64> = None;
    for (position, asked) in asked.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(asked.verb.name().as_bytes());
        out.extend_from_slice(b"\":{");
        write_place(&mut out, asked);
        match worst(asked, answers) {
            Ok(done) => {
                write_done(&mut out, &done);
                write_number(&mut out, ",\"status\":", done.status);
                out.extend_from_slice(b"}}");
            }
            Err(failure) => {
                if failure.status == 429 {
                    let after = failure.retry_after.unwrap_or(1);
                    retry_after = Some(retry_after.map_or(after, |least| least.min(after)));
                }
                write!(out, ",\"status\":{},\"error\":{}}}}}", failure.status, failure.error()).ok();
            }
        }
    }
    out.extend_from_slice(b"]}");
    (out, retry_after)
}

/// Whether an item is an error: all of its copies must be done.
fn failed(asked: &Asked, answers: &[Option<Answer>]) -> bool {
    let done = |answer: &Option<Answer>| matches!(answer, Some(Answer::Done(_)));
    let copies = asked.copies.as_ref().ok().and_then(|copies| answers.get(copies.clone()));
    !copies.is_some_and(|copies| !copies.is_empty() && copies.iter().all(done))
}

/// The answer to a write of one document: its status and body.
pub fn single(asked: &Asked, answers: &[Option<Answer>]) -> Result<(u16, Vec<u8>), Failure> {
    let done = worst(asked, answers)?;
    let mut out = Vec::with_capacity(192);
    out.push(b'{');
    write_place(&mut out, asked);
    write_done(&mut out, &done);
    out.push(b'}');
    Ok((done.status, out))
}

/// An answer as the client wants it: parts of it, indented.
pub fn shape(body: Vec<u8>, filter_path: Option<&str>, pretty: bool) -> Vec<u8> {
    if filter_path.is_none() && !pretty {
        return body;
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else { return body };
    if let Some(patterns) = filter_path {
        value = super::filter::filter(value, patterns);
    }
    let shaped = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
    shaped.unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::bulk::Verb;
    use super::*;

    fn asked(copies: Result<std::ops::Range<usize>, Failure>) -> Asked {
        Asked { verb: Verb::Index, index: Arc::from("messages"), id: "a\"b".into(), copies }
    }

    fn done() -> Answer {
        let shards = [3, 2, 0];
        Answer::Done(Done {
            status: 201,
            result: Outcome::Created,
            version: 7,
            seq_no: 4,
            primary_term: 1,
            shards,
        })
    }

    #[test]
    fn items_in_elasticsearchs_shape_with_the_clients_ids() {
        let refused = Answer::Refused(Box::new(Refused {
            status: 409,
            kind: "version_conflict_engine_exception".into(),
            reason: "[g~a\"b]: version conflict, current version [7]".into(),
            cause: Some(("x".into(), "in 'g~a\"b' and [g~other]".into())),
        }));
        let answers = [
            Some(done()),
            Some(refused),
            Some(Answer::Unknown(Why::Timeout)),
            Some(Answer::Unsent(Why::Full)),
            None,
        ];
        let all: Vec<Asked> = (0..5)
            .map(|at| asked(Ok(at..at + 1)))
            .chain([asked(Err(Failure::unsupported("update")))])
            .collect();
        let (body, retry_after) = bulk(&all, &answers, 5);
        assert_eq!(retry_after, Some(1));
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["errors"], &body["took"]), (&json!(true), &json!(5)));
        let item = |at: usize| body["items"][at]["index"].clone();
        assert_eq!(
            item(0),
            json!({"_index": "messages", "_id": "a\"b", "_version": 7, "result": "created", "_seq_no": 4,
                "_primary_term": 1, "_shards": {"total": 3, "successful": 2, "failed": 0}, "status": 201})
        );
        assert_eq!(item(1)["error"]["reason"], "[a\"b]: version conflict, current version [7]");
        assert_eq!(item(1)["error"]["caused_by"]["reason"], "in 'a\"b' and [g~other]");
        let statuses: Vec<u64> = (0..6).map(|at| item(at)["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [201, 409, 503, 429, 503, 400]);
        assert_eq!(item(2)["error"]["type"], "outcome_unknown");
        let (status, one) = single(&all[0], &answers).unwrap();
        assert_eq!(
            (status, serde_json::from_slice::<Value>(&one).unwrap()["_id"].clone()),
            (201, json!("a\"b"))
        );
        assert_eq!(single(&all[3], &answers).unwrap_err().status, 429);
    }

    #[test]
    fn several_copies_answer_with_the_worst() {
        let answers = [Some(done()), Some(Answer::Unsent(Why::Full)), Some(Answer::Unknown(Why::Timeout))];
        assert!(worst(&asked(Ok(0..1)), &answers).is_ok());
        assert_eq!(worst(&asked(Ok(0..2)), &answers).unwrap_err().status, 429);
        assert_eq!(worst(&asked(Ok(0..3)), &answers).unwrap_err().status, 503);
        assert_eq!(worst(&asked(Ok(0..9)), &answers).unwrap_err().status, 503);
    }

    #[test]
    fn shapes() {
        let body = br#"{"errors":false,"took":1,"items":[]}"#.to_vec();
        assert_eq!(shape(body.clone(), None, false), body);
        assert_eq!(shape(body.clone(), Some("errors"), false), br#"{"errors":false}"#);
        assert!(shape(body, None, true).starts_with(b"{\n  \"errors\""));
    }
}
