//! `_bulk` as Elasticsearch has it: its lines, and the answer, item by item, with `filter_path`. Pure.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use memchr::memchr;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::store::{Applied, Conflict};

/// One operation.
#[derive(Debug)]
pub struct Operation<'a> {
    /// `index`, `create`, `delete` or `update`.
    pub verb: &'static str,
    /// Where to.
    pub index: Cow<'a, str>,
    /// Id; absent: one is made.
    pub id: Option<Cow<'a, str>>,
    /// `version`, if it is from outside.
    pub version: Option<i64>,
    /// `version_type`.
    pub version_type: Option<Cow<'a, str>>,
    /// `if_seq_no` and `if_primary_term`.
    pub condition: Option<(i64, i64)>,
    /// The document; absent: a delete.
    pub document: Option<&'a [u8]>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    #[serde(borrow)]
    Index(Meta<'a>),
    #[serde(borrow)]
    Create(Meta<'a>),
    #[serde(borrow)]
    Delete(Meta<'a>),
    #[serde(borrow)]
    Update(Meta<'a>),
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(default, borrow, rename = "_index")]
    index: Option<Text<'a>>,
    #[serde(default, borrow, rename = "_id")]
    id: Option<Text<'a>>,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default, borrow)]
    version_type: Option<Text<'a>>,
    #[serde(default)]
    if_seq_no: Option<i64>,
    #[serde(default)]
    if_primary_term: Option<i64>,
}

/// Text that is not copied unless it has escapes; numbers are taken for their text.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a number")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

/// The operations of a body; an error is what the request as a whole is refused for.
pub fn parse<'a>(body: &'a [u8], path: Option<&'a str>) -> Result<Vec<Operation<'a>>, String> {
    if body.is_empty() {
        return Err("request body is required".into());
    }
    if body.last() != Some(&b'\n') {
        return Err("The bulk request must be terminated by a newline [\\n]".into());
    }
    let mut operations = Vec::with_capacity(body.len() / 512 + 1);
    let mut rest = body;
    let mut number = 0;
    let mut line = || {
        let end = memchr(b'\n', rest)?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        number += 1;
        Some((number, line.strip_suffix(b"\r").unwrap_or(line)))
    };
    while let Some((number, action)) = line() {
        if action.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let wrong = |why: &dyn fmt::Display| format!("Malformed action/metadata line [{number}], {why}");
        let action: Line<'_> = serde_json::from_slice(action).map_err(|error| wrong(&error))?;
        let (verb, meta) = match action {
            Line::Index(meta) => ("index", meta),
            Line::Create(meta) => ("create", meta),
            Line::Delete(meta) => ("delete", meta),
            Line::Update(meta) => ("update", meta),
        };
        let document = match verb {
            "delete" => None,
            _ => Some(line().ok_or_else(|| wrong(&"its document is missing"))?.1),
        };
        let index = match (meta.index, path) {
            (Some(Text(index)), _) => index,
            (None, Some(path)) => Cow::Borrowed(path),
            (None, None) => return Err(wrong(&"index is missing")),
        };
        operations.push(Operation {
            verb,
            index,
            id: meta.id.map(|Text(id)| id),
            version: meta.version,
            version_type: meta.version_type.map(|Text(kind)| kind),
            condition: meta.if_seq_no.zip(meta.if_primary_term),
            document,
        });
    }
    Ok(operations)
}

/// What an item answers.
#[derive(Clone, Debug)]
pub enum Item {
    /// It was done.
    Done(Applied),
    /// It was not, or says that it was not: status, type and reason.
    Failed(u16, Cow<'static, str>, String),
}

impl Item {
    /// A version conflict.
    pub fn conflict(id: &str, Conflict(current): Conflict) -> Self {
        let reason = format!("[{id}]: version conflict, current version [{current}] is higher or equal");
        Item::Failed(409, "version_conflict_engine_exception".into(), reason)
    }

    /// Its HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Item::Done(done) => done.status,
            Item::Failed(status, ..) => *status,
        }
    }
}

/// What of an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    errors: bool,
    took: bool,
    items: bool,
    place: bool,
    version: bool,
    result: bool,
    shards: bool,
    seq_no: bool,
    term: bool,
    status: bool,
    error: bool,
}

impl Fields {
    const ALL: Self = Self::every(true);

    const fn every(is: bool) -> Self {
        Self {
            errors: is,
            took: is,
            items: is,
            place: is,
            version: is,
            result: is,
            shards: is,
            seq_no: is,
            term: is,
            status: is,
            error: is,
        }
    }

    /// Of a `filter_path`; absent: everything. Patterns that it does not have are told.
    pub fn new(filter_path: Option<&str>) -> Result<Self, String> {
        let Some(patterns) = filter_path else { return Ok(Self::ALL) };
        let mut fields = Self::every(false);
        for pattern in patterns.split(',') {
            let item = |pattern: &str| Some(pattern.strip_prefix("items.*.")?.to_owned());
            match (pattern, item(pattern).as_deref()) {
                ("errors", _) => fields.errors = true,
                ("took", _) => fields.took = true,
                ("items" | "items.*" | "items.*.*", _) => {
                    fields = Self { errors: fields.errors, took: fields.took, ..Self::ALL };
                }
                (_, Some("_index" | "_id")) => fields.place = true,
                (_, Some("_version")) => fields.version = true,
                (_, Some("result")) => fields.result = true,
                (_, Some("_shards")) => fields.shards = true,
                (_, Some("_seq_no")) => fields.seq_no = true,
                (_, Some("_primary_term")) => fields.term = true,
                (_, Some("status")) => fields.status = true,
                (_, Some("error" | "error.type" | "error.reason")) => fields.error = true,
                _ => return Err(format!("this Elasticsearch has no filter_path [{pattern}]")),
            }
            fields.items |= pattern.starts_with("items");
        }
        Ok(fields)
    }
}

/// Text as JSON.
fn text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).unwrap();
    }
}

/// The answer to a bulk.
pub fn answer(operations: &[Operation<'_>], items: &[Item], took: u128, fields: Fields) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + items.len() * 200);
    out.push(b'{');
    if fields.errors {
        let errors = items.iter().any(|item| matches!(item, Item::Failed(..)));
        write!(out, "\"errors\":{errors},").unwrap();
    }
    if fields.took {
        write!(out, "\"took\":{took},").unwrap();
    }
    if fields.items {
        out.extend_from_slice(b"\"items\":[");
        for (operation, item) in operations.iter().zip(items) {
            one(&mut out, operation, item, fields);
            out.push(b',');
        }
        if !items.is_empty() {
            out.pop();
        }
        out.extend_from_slice(b"],");
    }
    if out.len() > 1 {
        out.pop();
    }
    out.push(b'}');
    out
}

fn one(out: &mut Vec<u8>, operation: &Operation<'_>, item: &Item, fields: Fields) {
    write!(out, "{{\"{}\":{{", operation.verb).unwrap();
    let empty = out.len();
    if fields.place {
        out.extend_from_slice(b"\"_index\":");
        text(out, &operation.index);
        out.extend_from_slice(b",\"_id\":");
        text(out, operation.id.as_deref().unwrap_or_default());
        out.push(b',');
    }
    match item {
        Item::Done(done) => {
            if fields.version {
                write!(out, "\"_version\":{},", done.version).unwrap();
            }
            if fields.result {
                write!(out, "\"result\":\"{}\",", done.result).unwrap();
            }
            if fields.shards {
                out.extend_from_slice(b"\"_shards\":{\"total\":2,\"successful\":2,\"failed\":0},");
            }
            if fields.seq_no {
                write!(out, "\"_seq_no\":{},", done.seq_no).unwrap();
            }
            if fields.term {
                out.extend_from_slice(b"\"_primary_term\":1,");
            }
        }
        Item::Failed(_, kind, reason) if fields.error => {
            out.extend_from_slice(b"\"error\":{\"type\":");
            text(out, kind);
            out.extend_from_slice(b",\"reason\":");
            text(out, reason);
            out.extend_from_slice(b"},");
        }
        Item::Failed(..) => {}
    }
    if fields.status {
        write!(out, "\"status\":{},", item.status()).unwrap();
    }
    if out.len() > empty {
        out.pop();
    }
    out.extend_from_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BODY: &[u8] = b"{\"index\":{\"_id\":\"1\",\"routing\":\"t\",\"version\":7,\"version_type\":\"external\"}}\n{\"a\":1}\r\n\n\
        {\"delete\":{\"_index\":\"other\",\"_id\":2}}\n{\"create\":{\"_id\":\"a\\\"b\",\"if_seq_no\":4,\"if_primary_term\":1}}\n{}\n";

    #[test]
    fn lines_are_operations_in_their_order() {
        let operations = parse(BODY, Some("path")).unwrap();
        let places: Vec<(&str, &str, &str)> = (operations.iter())
            .map(|operation| (operation.verb, operation.index.as_ref(), operation.id.as_deref().unwrap()))
            .collect();
        assert_eq!(places, [("index", "path", "1"), ("delete", "other", "2"), ("create", "path", "a\"b")]);
        assert_eq!((operations[0].version, operations[0].document), (Some(7), Some(&b"{\"a\":1}"[..])));
        assert_eq!(operations[2].condition, Some((4, 1)));
    }

    #[test]
    fn what_is_no_bulk_is_refused_whole() {
        assert!(parse(BODY, None).unwrap_err().contains("index is missing"));
        assert!(parse(b"", None).is_err());
        assert!(parse(b"{\"delete\":{\"_id\":1}}", Some("i")).unwrap_err().contains("newline"));
        assert!(parse(b"{\"index\":{\"_id\":1}}\n", Some("i")).unwrap_err().contains("document is missing"));
        assert!(parse(b"nonsense\n", Some("i")).unwrap_err().contains("[1]"));
    }

    #[test]
    fn answers_are_filtered_and_keep_the_place_of_each_item() {
        let operations = parse(BODY, Some("path")).unwrap();
        let done = Item::Done(Applied { result: "created", status: 201, version: 7, seq_no: 4 });
        let items = [done.clone(), Item::conflict("2", Conflict(3)), done];
        let whole: Value =
            serde_json::from_slice(&answer(&operations, &items, 3, Fields::new(None).unwrap())).unwrap();
        assert_eq!((&whole["errors"], &whole["took"]), (&json!(true), &json!(3)));
        assert_eq!(
            whole["items"][0],
            json!({"index": {"_index": "path", "_id": "1", "_version": 7, "result": "created", "_seq_no": 4,
                "_primary_term": 1, "_shards": {"total": 2, "successful": 2, "failed": 0}, "status": 201}})
        );
        assert_eq!(whole["items"][1]["delete"]["error"]["type"], "version_conflict_engine_exception");
        let some = Fields::new(Some("errors,items.*.status")).unwrap();
        let filtered: Value = serde_json::from_slice(&answer(&operations, &items, 3, some)).unwrap();
        assert_eq!(
            filtered,
            json!({"errors": true, "items": [{"index": {"status": 201}}, {"delete": {"status": 409}},
                {"create": {"status": 201}}]})
        );
        assert!(Fields::new(Some("items.*.nonsense")).is_err());
        let router = "items.*.status,items.*.result,items.*._version,items.*._seq_no,items.*._primary_term,items.*._shards,items.*.error";
        let fields = Fields::new(Some(router)).unwrap();
        assert!(!fields.errors && !fields.place && fields.items && fields.error);
    }
}
