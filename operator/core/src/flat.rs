//! Flattens settings: nested objects become dotted keys, as Elasticsearch itself reads them. Pure.
//!
//! Settings are compared, reserved and rendered flat only, so that no way of nesting hides a key.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Longest key of a setting, in bytes.
const MAX_KEY: usize = 256;
/// Longest text of a single value, in bytes.
const MAX_TEXT: usize = 16_384;
/// Most elements of a list.
const MAX_LIST: usize = 1024;

/// A setting that cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The flat key.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

/// All settings by their dotted keys, and those that cannot be used. A setting is usable when its value is a
/// scalar or a list of scalars, and when its key is given once.
pub fn flatten(settings: &Map<String, Value>) -> (BTreeMap<String, Value>, Vec<Unusable>) {
    let mut flat = BTreeMap::new();
    let mut unusable = Vec::new();
    for (key, value) in settings {
        add(key.clone(), value, &mut flat, &mut unusable);
    }
    (flat, unusable)
}

fn add(key: String, value: &Value, flat: &mut BTreeMap<String, Value>, unusable: &mut Vec<Unusable>) {
    if let Value::Object(fields) = value {
        if fields.is_empty() {
            unusable
                .push(Unusable { key, message: "is an empty object: give it a value or remove it".into() });
            return;
        }
        for (name, value) in fields {
            add(format!("{key}.{name}"), value, flat, unusable);
        }
        return;
    }
    let complaint = bad_key(&key).or_else(|| bad_value(value)).or_else(|| {
        flat.contains_key(&key).then_some("is given twice, nested and with a dotted key: keep one of the two")
    });
    match complaint {
        Some(message) => unusable.push(Unusable { key, message: message.into() }),
        None => {
            flat.insert(key, value.clone());
        }
    }
}

fn bad_key(key: &str) -> Option<&'static str> {
    if key.len() > MAX_KEY {
        return Some("has a key of more than 256 bytes: use the name of a setting of Elasticsearch");
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || c == '*';
    if key.split('.').any(str::is_empty) || key.contains(strange) {
        return Some("is not the name of a setting: write words joined by single dots, without spaces or *");
    }
    None
}

fn bad_value(value: &Value) -> Option<&'static str> {
    match value {
        Value::Null => Some("is null: leave the key out to have the default of Elasticsearch"),
        Value::Object(_) => Some("has an object in a list: lists hold texts, numbers and booleans only"),
        Value::Array(items) if items.len() > MAX_LIST => {
            Some("has more than 1024 elements: shorten the list")
        }
        Value::Array(items) => items.iter().find_map(|item| match item {
            Value::Array(_) => Some("has a list in a list: lists hold texts, numbers and booleans only"),
            item => bad_value(item),
        }),
        Value::String(text) if text.len() > MAX_TEXT => Some("has a text of more than 16 KiB: shorten it"),
        Value::String(text) if text.contains('\0') => Some("has a text with a zero byte: remove it"),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flat(value: Value) -> (BTreeMap<String, Value>, Vec<Unusable>) {
        flatten(value.as_object().unwrap())
    }

    #[test]
    fn nested_objects_become_dotted_keys() {
        let (flat, unusable) = flat(json!({"a": {"b.c": 1, "d": {"e": [true, "x"]}}, "f.g": "20%"}));
        assert_eq!(unusable, []);
        assert_eq!(json!(flat), json!({"a.b.c": 1, "a.d.e": [true, "x"], "f.g": "20%"}));
    }

    #[test]
    fn what_is_no_setting_is_named() {
        for (bad, key, part) in [
            (json!({"a": null}), "a", "null"),
            (json!({"a": {"b": {}}}), "a.b", "empty object"),
            (json!({"a": [{"b": 1}]}), "a", "object in a list"),
            (json!({"a": [[1]]}), "a", "list in a list"),
            (json!({"a": [null]}), "a", "null"),
            (json!({"a..b": 1}), "a..b", "not the name"),
            (json!({"": 1}), "", "not the name"),
            (json!({" node.name": 1}), " node.name", "not the name"),
            (json!({"a\n": 1}), "a\n", "not the name"),
            (json!({"cluster.*": 1}), "cluster.*", "not the name"),
            (json!({"a": {"b": 1}, "a.b": 2}), "a.b", "given twice"),
            (json!({"a": "x".repeat(20_000)}), "a", "16 KiB"),
        ] {
            let (_, unusable) = flat(bad.clone());
            assert_eq!(unusable.len(), 1, "{bad}");
            assert_eq!(unusable[0].key, key);
            assert!(unusable[0].message.contains(part), "{}", unusable[0].message);
        }
    }
}
