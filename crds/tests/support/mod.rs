//! The table of accepted and refused objects, read from `cases/*.yaml`. Effects: reads files.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod bounds;
pub mod server;

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

/// Root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// One kind's table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub base: Value,
    pub cases: Vec<Case>,
}

/// One case: an object to create, perhaps an update of it, and what becomes of the last of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    patch: Option<Value>,
    items: Option<Repeat>,
    text: Option<Repeat>,
    then: Option<Value>,
    pub rejects: Option<String>,
    #[serde(default)]
    pub schema: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    at: String,
    count: usize,
    of: Value,
}

impl Case {
    /// The object to create.
    pub fn object(&self, base: &Value) -> Value {
        let mut object = base.clone();
        if let Some(patch) = &self.patch {
            merge(&mut object, patch);
        }
        if let Some(items) = &self.items {
            let list = (0..items.count).map(|number| numbered(&items.of, number)).collect();
            set(&mut object, &items.at, Value::Array(list));
        }
        if let Some(text) = &self.text {
            set(&mut object, &text.at, json!(text.of.as_str().unwrap().repeat(text.count)));
        }
        object
    }

    /// The object to update it to, if the case is one of an update.
    pub fn update(&self, object: &Value) -> Option<Value> {
        self.then.as_ref().map(|patch| {
            let mut next = object.clone();
            merge(&mut next, patch);
            next
        })
    }
}

/// The table of one kind.
pub fn table(name: &str) -> Table {
    let path = root().join("crds/tests/cases").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Both tables, each with the complete schema of its kind.
pub fn tables() -> Vec<(&'static str, Table, Value)> {
    let [cell, placement] = searchcell_crds::crd::all().unwrap();
    vec![
        ("SearchCell", table("search_cell.yaml"), schema(&cell)),
        ("IndexPlacement", table("index_placement.yaml"), schema(&placement)),
    ]
}

/// The schema of a definition's only version.
pub fn schema(
    definition: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// JSON merge patch.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn set(object: &mut Value, at: &str, value: Value) {
    let (parent, key) = at.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
}

fn numbered(value: &Value, number: usize) -> Value {
    let text = serde_json::to_string(value).unwrap().replace("{}", &number.to_string());
    serde_json::from_str(&text).unwrap()
}
