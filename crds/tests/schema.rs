//! What every generated schema must be like: typed, bounded, described, keyed. No effects.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;

/// Calls a function for every node of a schema, with its path.
fn each(path: &str, node: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        each(&format!("{path}.{name}"), property, visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = node.get(key) {
            each(&format!("{path}[]"), below, visit);
        }
    }
}

fn check(rule: impl Fn(&str, &Value) -> Option<String>) {
    let mut failures = Vec::new();
    for (kind, _, schema) in support::tables() {
        each(kind, &schema, &mut |path, node| {
            failures.extend(rule(path, node).map(|what| format!("{path}: {what}")))
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_node_has_a_type() {
    check(|_, node| {
        let quantity = node.get("x-kubernetes-int-or-string").is_some();
        (node.get("type").is_none() && !quantity).then(|| "no type".to_owned())
    });
}

#[test]
fn no_node_refers_to_another_or_allows_null() {
    check(|_, node| {
        ["$ref", "nullable", "oneOf", "anyOf", "allOf", "not"]
            .into_iter()
            .find(|key| node.get(key).is_some())
            .map(str::to_owned)
    });
}

#[test]
fn every_format_is_known_to_the_api_server() {
    check(|_, node| {
        let format = node.get("format")?.as_str()?;
        (!["int32", "int64", "date-time"].contains(&format)).then(|| format!("format {format}"))
    });
}

#[test]
fn every_property_is_described_in_few_words() {
    check(|_, node| {
        for (name, property) in node.get("properties").and_then(Value::as_object)? {
            let words = property.get("description").and_then(Value::as_str).unwrap_or_default();
            if words.len() < 10 || words.len() > 400 || words.contains("  ") || !words.ends_with('.') {
                return Some(format!("{name}: description {words:?}"));
            }
        }
        None
    });
}

#[test]
fn every_field_of_a_spec_says_its_default_or_that_it_is_required() {
    let mut failures = Vec::new();
    for (kind, _, schema) in support::tables() {
        each("spec", &schema["properties"]["spec"], &mut |path, node| {
            let required = node.get("required").cloned().unwrap_or_default();
            for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let words = property["description"].as_str().unwrap_or_default();
                let is_required = required.as_array().is_some_and(|all| all.contains(&name.as_str().into()));
                let says = if is_required {
                    words.contains("Required.")
                } else {
                    words.contains("Default")
                        || words.contains("required")
                        || property.get("default").is_some()
                };
                if !says {
                    failures.push(format!("{kind} {path}.{name}: {words:?}"));
                }
                if let Some(Value::String(default)) = property.get("default")
                    && !words.contains(&format!("Default: {default}"))
                {
                    failures.push(format!(
                        "{kind} {path}.{name}: the default is {default}, the words are {words:?}"
                    ));
                }
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_list_says_how_it_merges_and_every_keyed_list_has_its_keys() {
    check(|_, node| {
        if node.get("type")? != "array" {
            return None;
        }
        let kind = node.get("x-kubernetes-list-type").and_then(Value::as_str);
        let Some(kind) = kind else { return Some("no list type".to_owned()) };
        if kind != "map" {
            return None;
        }
        let keys =
            node.get("x-kubernetes-list-map-keys").and_then(Value::as_array).cloned().unwrap_or_default();
        let required = node["items"].get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        (keys.is_empty() || keys.iter().any(|key| !required.contains(key))).then(|| format!("keys {keys:?}"))
    });
}

#[test]
fn everything_in_a_spec_is_bounded() {
    let mut failures = Vec::new();
    for (kind, _, schema) in support::tables() {
        each("spec", &schema["properties"]["spec"], &mut |path, node| {
            let has = |key: &str| node.get(key).is_some();
            let free = node.get("properties").is_none();
            let bounded = match node.get("type").and_then(Value::as_str) {
                Some("string") => has("enum") || has("maxLength"),
                Some("array") => has("maxItems"),
                Some("object") => !free || has("maxProperties"),
                Some("integer") => has("minimum") && (has("maximum") || path.ends_with("expectedDocuments")),
                None => has("maxLength"),
                _ => true,
            };
            if !bounded {
                failures.push(format!("{kind} {path}"));
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_message_says_what_to_do() {
    for (path, rule) in
        [searchcell_crds::crd::search_cell_rules(), searchcell_crds::crd::index_placement_rules()].concat()
    {
        let acts = rule.message.contains(": ") || rule.message.contains("must be");
        assert!(acts && rule.message.len() <= 200, "{path}: {}", rule.message);
    }
}

#[test]
fn the_definitions_are_of_a_modest_size() {
    for (name, text) in searchcell_crds::generate::crds().unwrap() {
        assert!(text.len() < 64 * 1024, "{name} has {} bytes", text.len());
    }
}
