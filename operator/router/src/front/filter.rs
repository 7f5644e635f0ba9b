//! `filter_path`: parts of an answer. Pure.

use serde_json::{Map, Value};

/// What of `value` the patterns (`items.*.error,-took`) leave; nothing of it is left as an empty object.
pub fn filter(value: Value, patterns: &str) -> Value {
    let split = |pattern: &str| pattern.split('.').map(str::to_owned).collect::<Vec<_>>();
    let patterns = patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
    let (excluded, included): (Vec<&str>, Vec<&str>) = patterns.partition(|pattern| pattern.starts_with('-'));
    let included: Vec<Vec<String>> = included.into_iter().map(split).collect();
    let excluded: Vec<Vec<String>> =
        excluded.into_iter().map(|pattern| split(pattern.trim_start_matches('-'))).collect();
    let mut value = Some(value);
    if !included.is_empty() {
        value = value.and_then(|value| keep(value, &included));
    }
    if !excluded.is_empty() {
        value = value.and_then(|value| remove(value, &excluded));
    }
    value.unwrap_or_else(|| Value::Object(Map::new()))
}

/// What is left of each pattern after a key; a pattern that is used up matches all below.
fn next(patterns: &[Vec<String>], key: &str) -> Vec<Vec<String>> {
    let mut rest = Vec::new();
    for pattern in patterns {
        match pattern.split_first() {
            Some((first, after)) if first == "**" => {
                rest.push(pattern.clone());
                rest.extend(next(&[after.to_vec()], key));
            }
            Some((first, after)) if matches(first, key) => rest.push(after.to_vec()),
            _ => {}
        }
    }
    rest
}

fn keep(value: Value, patterns: &[Vec<String>]) -> Option<Value> {
    if patterns.iter().any(Vec::is_empty) {
        return Some(value);
    }
    match value {
        Value::Object(map) => {
            let kept: Map<String, Value> = map
                .into_iter()
                .filter_map(|(key, value)| {
                    let rest = next(patterns, &key);
                    Some((key, keep(value, &rest).filter(|_| !rest.is_empty())?))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(list) => {
            let kept: Vec<Value> = list.into_iter().filter_map(|value| keep(value, patterns)).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => None,
    }
}

fn remove(value: Value, patterns: &[Vec<String>]) -> Option<Value> {
    if patterns.iter().any(Vec::is_empty) {
        return None;
    }
    Some(match value {
        Value::Object(map) => {
            let left = map.into_iter().filter_map(|(key, value)| {
                let rest = next(patterns, &key);
                Some((key, remove(value, &rest)?))
            });
            Value::Object(left.collect())
        }
        Value::Array(list) => {
            Value::Array(list.into_iter().filter_map(|value| remove(value, patterns)).collect())
        }
        other => other,
    })
}

/// Whether a key is what a pattern with `*` in it means.
fn matches(pattern: &str, key: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == key };
    let Some(key) = key.strip_prefix(first) else { return false };
    (0..=key.len()).any(|at| key.get(at..).is_some_and(|tail| matches(rest, tail)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_clients_use_it() {
        let answer = json!({"took": 1, "errors": true, "items": [
            {"index": {"_id": "1", "status": 200}},
            {"index": {"_id": "2", "status": 400, "error": {"type": "t", "reason": "r"}}}]});
        let get = |patterns: &str| filter(answer.clone(), patterns);
        assert_eq!(get("errors"), json!({"errors": true}));
        assert_eq!(get("items.*.error.type"), json!({"items": [{"index": {"error": {"type": "t"}}}]}));
        assert_eq!(get("**.type"), json!({"items": [{"index": {"error": {"type": "t"}}}]}));
        assert_eq!(get("items.index.st*s,took")["items"][1], json!({"index": {"status": 400}}));
        assert_eq!(get("-items"), json!({"took": 1, "errors": true}));
        assert_eq!(get("items,-items.*._id")["items"][0], json!({"index": {"status": 200}}));
        assert_eq!(get("nothing"), json!({}));
        assert_eq!(get(""), answer);
    }
}
