//! What differs between two objects, leaf by leaf, for a person. Pure.

use searchcell_core::drift::is_empty;
use serde_json::Value;

/// Longest value that is printed, in characters.
const LONGEST: usize = 100;

/// Everything that differs.
pub fn all(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk("", Some(before), Some(after), false, &mut lines);
    lines
}

/// What of `after` is not so in `before`: what others added there, or the API server filled in, stays.
pub fn ours(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk("", Some(before), Some(after), true, &mut lines);
    lines
}

/// One leaf.
pub fn leaf(path: &str, before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let mut lines = Vec::new();
    walk(path, before, after, false, &mut lines);
    lines
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, ours: bool, lines: &mut Vec<String>) {
    match (before, after) {
        (before, after) if before == after => {}
        // The API server drops what is empty.
        (None, Some(after)) if is_empty(after) => {}
        (Some(before), None) if is_empty(before) => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let gone = old.keys().filter(|key| !ours && !new.contains_key(*key));
            let mut keys: Vec<&String> = new.keys().chain(gone).collect();
            keys.sort();
            for key in keys {
                walk(&below(path, key), old.get(key), new.get(key), ours, lines);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for position in 0..old.len().max(new.len()) {
                let path = format!("{path}[{position}]");
                walk(&path, old.get(position), new.get(position), ours, lines);
            }
        }
        (None, Some(Value::Object(new))) => {
            for (key, value) in new {
                walk(&below(path, key), None, Some(value), ours, lines);
            }
        }
        (before, after) => {
            lines.extend(before.map(|value| format!("- {path}: {}", text(value))));
            lines.extend(after.map(|value| format!("+ {path}: {}", text(value))));
        }
    }
}

fn below(path: &str, key: &str) -> String {
    let is_plain = !key.is_empty()
        && key.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '-');
    match (is_plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key:?}]"),
    }
}

/// A value in one line.
fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.escape_debug().to_string(),
        value => value.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_that_differ_are_told_with_their_paths() {
        let before =
            json!({"spec": {"replicas": 2, "gone": "x", "list": [{"a": 1}, {"a": 2}], "same": true}});
        let after = json!({"spec": {"replicas": 3, "list": [{"a": 1}], "same": true, "new": {"k.e/y": "v"}, "none": {}}});
        assert_eq!(
            all(&before, &after),
            [
                "- spec.gone: x",
                "- spec.list[1]: {\"a\":2}",
                "+ spec.new[\"k.e/y\"]: v",
                "- spec.replicas: 2",
                "+ spec.replicas: 3",
            ]
        );
    }

    #[test]
    fn what_others_added_is_no_difference_of_ours() {
        let live = json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 9200, "protocol": "TCP"}]}});
        assert!(ours(&live, &json!({"spec": {"ports": [{"port": 9200}]}})).is_empty());
        let other = ours(&live, &json!({"spec": {"ports": [{"port": 9201}]}}));
        assert_eq!(other, ["- spec.ports[0].port: 9200", "+ spec.ports[0].port: 9201"]);
    }

    #[test]
    fn long_values_are_cut_and_stay_in_their_line() {
        let lines = leaf("data", None, Some(&json!(format!("a\nb{}", "x".repeat(500)))));
        assert!(lines[0].starts_with("+ data: a\\nbx") && lines[0].ends_with('…') && lines[0].len() < 130);
    }
}
