//! Every example is read by the types, written back as it was, and accepted by the schemas. Effects: reads files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use kube_cel::Validator;
use searchcell_crds::{IndexPlacement, SearchCell};
use serde::Deserialize as _;
use serde_json::Value;

/// Every object of our kinds of every example, with the name of its file.
fn objects() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(support::root().join("manifests/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            for document in serde_yaml::Deserializer::from_str(&text) {
                let value = Value::deserialize(document).unwrap();
                if value["apiVersion"] == "searchcell.dev/v1alpha1" {
                    found.push((path.display().to_string(), value));
                }
            }
        }
    }
    assert!(found.len() >= 7);
    found
}

/// Whether everything in the first value is in the second.
fn within(small: &Value, large: &Value) -> bool {
    match (small, large) {
        (Value::Object(small), Value::Object(large)) => {
            small.iter().all(|(key, value)| large.get(key).is_some_and(|other| within(value, other)))
        }
        (Value::Array(small), Value::Array(large)) => {
            small.len() == large.len() && small.iter().zip(large).all(|(a, b)| within(a, b))
        }
        _ => small == large,
    }
}

#[test]
fn examples_survive_a_round_trip() {
    for (file, value) in objects() {
        let (first, second) = match value["kind"].as_str().unwrap() {
            "SearchCell" => {
                let read: SearchCell = serde_json::from_value(value.clone()).unwrap();
                let written = serde_json::to_value(&read).unwrap();
                let again: SearchCell = serde_json::from_value(written.clone()).unwrap();
                assert_eq!(read, again, "{file}");
                (written, serde_json::to_value(again).unwrap())
            }
            "IndexPlacement" => {
                let read: IndexPlacement = serde_json::from_value(value.clone()).unwrap();
                let written = serde_json::to_value(&read).unwrap();
                let again: IndexPlacement = serde_json::from_value(written.clone()).unwrap();
                assert_eq!(read, again, "{file}");
                (written, serde_json::to_value(again).unwrap())
            }
            other => panic!("{file}: kind {other}"),
        };
        assert_eq!(first, second, "{file}");
        assert!(within(&value, &first), "{file}: something was lost: {first}");
    }
}

#[test]
fn examples_are_accepted() {
    let tables = support::tables();
    for (file, value) in objects() {
        let (_, _, schema) = tables.iter().find(|(kind, ..)| value["kind"] == *kind).unwrap();
        assert_eq!(support::bounds::broken(schema, &value), Vec::<String>::new(), "{file}");
        Validator::new().validate(schema, &value, None).unwrap_or_else(|errors| panic!("{file}: {errors}"));
    }
}

#[test]
fn defaults_of_the_types_are_defaults_of_the_schemas() {
    for (_, table, schema) in support::tables() {
        let read = match table.base["kind"].as_str().unwrap() {
            "SearchCell" => {
                serde_json::to_value(serde_json::from_value::<SearchCell>(table.base.clone()).unwrap())
                    .unwrap()
            }
            _ => serde_json::to_value(serde_json::from_value::<IndexPlacement>(table.base.clone()).unwrap())
                .unwrap(),
        };
        let mut defaulted = table.base["spec"].clone();
        fill(&schema["properties"]["spec"], &mut defaulted);
        assert_eq!(read["spec"], defaulted);
    }
}

fn fill(schema: &Value, value: &mut Value) {
    if let (Some(properties), Some(entries)) =
        (schema.get("properties").and_then(Value::as_object), value.as_object_mut())
    {
        for (name, property) in properties {
            if let Some(default) = property.get("default")
                && !entries.contains_key(name)
            {
                entries.insert(name.clone(), default.clone());
            }
            if let Some(entry) = entries.get_mut(name) {
                fill(property, entry);
            }
        }
    } else if let Some(items) = value.as_array_mut() {
        for item in items {
            fill(&schema["items"], item);
        }
    }
}
