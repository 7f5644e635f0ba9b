//! The plain bounds of a schema (types, lengths, ranges, keys), checked without an API server. No effects.

use serde_json::Value;

/// Every bound that a value breaks, each with its path.
pub fn broken(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk("", schema, value, &mut found);
    found
}

fn walk(path: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let mut refuse = |what: &str| found.push(format!("{path}: {what}"));
    if schema.get("x-kubernetes-int-or-string").is_some() {
        if !value.is_string() && !value.is_i64() {
            refuse("neither integer nor text");
        }
    } else {
        let fits = match schema.get("type").and_then(Value::as_str) {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64(),
            _ => true,
        };
        if !fits {
            return refuse("type");
        }
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        refuse("enum");
    }
    let size = match value {
        Value::String(text) => Some(("Length", text.chars().count())),
        Value::Array(items) => Some(("Items", items.len())),
        Value::Object(entries) => Some(("Properties", entries.len())),
        _ => None,
    };
    if let Some((what, size)) = size {
        if number(&format!("max{what}")).is_some_and(|most| size as f64 > most) {
            refuse(&format!("max{what}"));
        }
        if number(&format!("min{what}")).is_some_and(|fewest| (size as f64) < fewest) {
            refuse(&format!("min{what}"));
        }
    }
    if let Some(amount) = value.as_f64() {
        if number("maximum").is_some_and(|most| amount > most) {
            refuse("maximum");
        }
        if number("minimum").is_some_and(|least| amount < least) {
            refuse("minimum");
        }
    }
    if let Some(entries) = value.as_object() {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !entries.contains_key(name.as_str().unwrap()) {
                refuse(&format!("required {name}"));
            }
        }
        for (name, entry) in entries {
            let below =
                schema.get("properties").and_then(|all| all.get(name)).or(schema.get("additionalProperties"));
            if let Some(below) = below {
                walk(&format!("{path}.{name}"), below, entry, found);
            } else if schema.get("properties").is_some() && !path.is_empty() {
                found.push(format!("{path}.{name}: unknown"));
            }
        }
    } else if let Some(items) = value.as_array() {
        let mut keys = Vec::new();
        for (number, item) in items.iter().enumerate() {
            if let Some(names) = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
                let key: Vec<_> = names.iter().map(|name| item.get(name.as_str().unwrap())).collect();
                if keys.contains(&key) {
                    found.push(format!("{path}[{number}]: duplicate"));
                }
                keys.push(key);
            }
            if let Some(below) = schema.get("items") {
                walk(&format!("{path}[{number}]"), below, item, found);
            }
        }
    }
}
