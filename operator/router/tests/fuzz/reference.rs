//! What a bulk is, said once more: every line is split off and copied, every value is looked at by its text.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A value of an action line.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    /// Something that is only noted.
    Noted,
}

/// An operation.
#[derive(Debug, PartialEq)]
pub struct Operation {
    pub verb: String,
    pub meta: Vec<(String, Value)>,
    pub document: Option<Vec<u8>>,
}

/// Keys and values of an object, as they stand there.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(All)
    }
}

fn pairs(text: &str) -> Result<Vec<(String, Box<RawValue>)>, String> {
    serde_json::from_str::<Pairs>(text).map(|Pairs(pairs)| pairs).map_err(|error| error.to_string())
}

/// An integer by its digits alone: no sign of plus, no fraction, no exponent; `-0` is none.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || text == "-0" || digits.len() > 30 { None } else { text.parse().ok() }
}

fn value(name: &str, raw: &str) -> Result<Option<(&'static str, Value)>, String> {
    let known = [
        ("_index", "_index"),
        ("_id", "_id"),
        ("routing", "routing"),
        ("_routing", "routing"),
        ("version", "version"),
        ("_version", "version"),
        ("version_type", "version_type"),
        ("_version_type", "version_type"),
        ("if_seq_no", "if_seq_no"),
        ("if_primary_term", "if_primary_term"),
        ("pipeline", "pipeline"),
        ("require_alias", "require_alias"),
        ("require_data_stream", "require_data_stream"),
        ("dynamic_templates", "dynamic_templates"),
        ("retry_on_conflict", "retry_on_conflict"),
        ("_source", "_source"),
    ];
    let (_, name) = known.into_iter().find(|(known, _)| *known == name).ok_or("unknown")?;
    if raw == "null" {
        return Ok(None);
    }
    let value = match name {
        "_index" | "_id" | "routing" | "version_type" | "pipeline" => match integer(raw) {
            Some(number) if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number) => {
                Value::Text(number.to_string())
            }
            _ => Value::Text(serde_json::from_str(raw).map_err(|error| error.to_string())?),
        },
        "version" | "if_seq_no" | "if_primary_term" => {
            Value::Number(integer(raw).and_then(|number| number.try_into().ok()).ok_or("no number")?)
        }
        "require_alias" | "require_data_stream" => match raw {
            "true" => Value::Flag(true),
            "false" => Value::Flag(false),
            _ => return Err("no flag".to_owned()),
        },
        _ => Value::Noted,
    };
    Ok(Some((name, value)))
}

fn action(line: &[u8]) -> Result<(String, Vec<(String, Value)>), String> {
    let text = String::from_utf8(line.to_vec()).map_err(|error| error.to_string())?;
    let outer = pairs(&text)?;
    let [(verb, raw)] = outer.as_slice() else { return Err("one action".to_owned()) };
    if !["index", "create", "delete", "update"].contains(&verb.as_str()) {
        return Err("no action".to_owned());
    }
    let mut meta = Vec::new();
    let mut names = Vec::new();
    for (name, raw) in pairs(raw.get())? {
        let read = value(&name, raw.get())?;
        let name = name.trim_start_matches('_').to_owned();
        // `_routing` is `routing`, but there is nothing that `index` could be but `_index`.
        if names.contains(&name) {
            return Err("twice".to_owned());
        }
        names.push(name);
        meta.extend(read.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok((verb.clone(), meta))
}

pub fn parse(body: &[u8]) -> Result<Vec<Operation>, String> {
    let blank = |line: &[u8]| line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\x0c' | b'\r'));
    if blank(body) || *body.last().unwrap() != b'\n' {
        return Err("empty, or without an end".to_owned());
    }
    let mut lines: Vec<Vec<u8>> = body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    // After the last end there is nothing.
    lines.pop();
    for line in &mut lines {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    let mut operations = Vec::new();
    let mut lines = lines.into_iter();
    while let Some(line) = lines.next() {
        if blank(&line) {
            continue;
        }
        let (verb, meta) = action(&line)?;
        let document = match verb.as_str() {
            "delete" => None,
            _ => Some(lines.next().ok_or("no document")?),
        };
        operations.push(Operation { verb, meta, document });
    }
    Ok(operations)
}

/// The text of a document's field.
pub fn field(document: &[u8], name: &str) -> Result<Option<String>, ()> {
    let text = String::from_utf8(document.to_vec()).map_err(|_| ())?;
    let mut found = pairs(&text).map_err(|_| ())?.into_iter().filter(|(key, _)| key == name);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(()),
        (first, _) => Ok(first.map(|(_, raw)| raw.get().to_owned())),
    }
}
