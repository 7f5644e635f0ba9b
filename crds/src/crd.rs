//! The complete custom resource definitions: schemas, rules, columns and status defaults. No effects.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceValidation,
};
use kube::CustomResourceExt;
use kube::core::schema::StructuralSchemaRewriter;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::conditions::{READY, RECONCILING};
use crate::rules::{INDEX_PLACEMENT, ROLE_RULES, ROLES, Refusal, Rule, SEARCH_CELL, VOLUME_RULES, VOLUMES};
use crate::{
    IndexPlacement, IndexPlacementSpec, IndexPlacementStatus, Reason, SearchCell, SearchCellSpec,
    SearchCellStatus,
};

/// Why a definition could not be made: a mistake in this package.
#[derive(Debug)]
pub enum Error {
    /// A rule stands at a place that the schema does not have.
    NoSuchPath(String),
    /// The schema has a shape that Kubernetes does not know.
    Shape(serde_json::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchPath(path) => write!(f, "the schema has no {path}"),
            Self::Shape(error) => write!(f, "the schema is not one of Kubernetes: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Shape(error)
    }
}

/// The definition of SearchCell, complete.
pub fn search_cell() -> Result<CustomResourceDefinition, Error> {
    let schema = root_schema::<SearchCellSpec, SearchCellStatus>(&search_cell_rules())?;
    complete(SearchCell::crd(), schema, SEARCH_CELL_COLUMNS)
}

/// The definition of IndexPlacement, complete.
pub fn index_placement() -> Result<CustomResourceDefinition, Error> {
    let schema = root_schema::<IndexPlacementSpec, IndexPlacementStatus>(&index_placement_rules())?;
    complete(IndexPlacement::crd(), schema, INDEX_PLACEMENT_COLUMNS)
}

/// Both definitions.
pub fn all() -> Result<[CustomResourceDefinition; 2], Error> {
    Ok([search_cell()?, index_placement()?])
}

/// Every rule of SearchCell with its full path.
pub fn search_cell_rules() -> Vec<(String, Rule)> {
    let mut rules: Vec<_> = SEARCH_CELL.iter().map(|rule| (rule.path.to_owned(), *rule)).collect();
    for (places, below) in [(&VOLUMES[..], VOLUME_RULES), (&ROLES[..], ROLE_RULES)] {
        for place in places {
            for rule in below {
                let dot = if rule.path.is_empty() { "" } else { "." };
                rules.push((format!("{place}{dot}{}", rule.path), *rule));
            }
        }
    }
    rules
}

/// Every rule of IndexPlacement with its full path.
pub fn index_placement_rules() -> Vec<(String, Rule)> {
    INDEX_PLACEMENT.iter().map(|rule| (rule.path.to_owned(), *rule)).collect()
}

struct Column {
    name: &'static str,
    type_: &'static str,
    path: &'static str,
    wide: bool,
    description: &'static str,
}

const fn column(
    name: &'static str,
    type_: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column { name, type_, path, wide: false, description }
}

const AGE: Column = column("Age", "date", ".metadata.creationTimestamp", "Time since creation.");
const REASON: Column = Column {
    name: "Reason",
    type_: "string",
    path: ".status.conditions[?(@.type==\"Ready\")].reason",
    wide: true,
    description: "Why it is ready or not.",
};
const MESSAGE: Column = Column {
    name: "Message",
    type_: "string",
    path: ".status.conditions[?(@.type==\"Ready\")].message",
    wide: true,
    description: "What the reason means here.",
};
const READY_PATH: &str = ".status.conditions[?(@.type==\"Ready\")].status";

const SEARCH_CELL_COLUMNS: &[Column] = &[
    column("Ready", "string", READY_PATH, "Whether every cluster has an elected master and serves."),
    column("Version", "string", ".status.version", "The lowest version that runs anywhere in the cell."),
    column("Clusters", "string", ".status.clustersReady", "Clusters that serve, of all."),
    column("Nodes", "string", ".status.nodesReady", "Nodes that are ready, of all."),
    column("Rollout", "string", ".status.rollout.phase", "Where the rollout stands."),
    AGE,
    REASON,
    MESSAGE,
];

const INDEX_PLACEMENT_COLUMNS: &[Column] = &[
    column("Ready", "string", READY_PATH, "Whether every shard has a started primary."),
    column("Cell", "string", ".spec.cell", "The cell that holds the indices."),
    column("Collection", "string", ".spec.collection", "The collection that the indices belong to."),
    column("Indices", "integer", ".status.indices", "Indices that exist."),
    column("Shards", "string", ".status.shards.summary", "Started copies of shards, of all."),
    AGE,
    REASON,
    MESSAGE,
];

fn complete(
    mut crd: CustomResourceDefinition,
    mut schema: Value,
    columns: &[Column],
) -> Result<CustomResourceDefinition, Error> {
    for version in &mut crd.spec.versions {
        if let Some(generated) = version.schema.take().and_then(|schema| schema.open_api_v3_schema)
            && let Some(object) = schema.as_object_mut()
        {
            object.insert("description".to_owned(), json!(generated.description));
        }
        let props = serde_json::from_value(schema.clone())?;
        version.schema = Some(CustomResourceValidation { open_api_v3_schema: Some(props) });
        version.additional_printer_columns = Some(
            columns
                .iter()
                .map(|column| CustomResourceColumnDefinition {
                    name: column.name.to_owned(),
                    type_: column.type_.to_owned(),
                    json_path: column.path.to_owned(),
                    description: Some(column.description.to_owned()),
                    priority: column.wide.then_some(1),
                    format: None,
                })
                .collect(),
        );
    }
    Ok(crd)
}

fn root_schema<Spec: JsonSchema, Status: JsonSchema>(rules: &[(String, Rule)]) -> Result<Value, Error> {
    let mut spec = schema_of::<Spec>();
    let mut status = schema_of::<Status>();
    describe(&mut spec, "What is asked for.");
    describe(&mut status, "What the operator reports.");
    if let Some(object) = status.as_object_mut() {
        object.insert("default".to_owned(), status_default());
    }
    let mut root = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {"spec": spec, "status": status}
    });
    for (path, rule) in rules {
        attach(&mut root, path, rule)?;
    }
    Ok(root)
}

/// The status of an object that the operator has not seen yet: in progress.
fn status_default() -> Value {
    let message = "The operator has not looked at this object yet.";
    let condition = |type_: &str, status: &str| {
        json!({
            "type": type_, "status": status, "reason": Reason::Pending.as_str(), "message": message,
            "observedGeneration": -1, "lastTransitionTime": "1970-01-01T00:00:00Z"
        })
    };
    json!({
        "observedGeneration": -1,
        "conditions": [condition(READY, "Unknown"), condition(RECONCILING, "True")]
    })
}

fn describe(schema: &mut Value, description: &str) {
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(description));
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(AbsentNotNull)
        .with_transform(StructuralSchemaRewriter)
        .with_transform(Tidy)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Makes the schema of an optional value that of the value: absent is absent, and null is dropped by the API server.
#[derive(Clone, Debug)]
struct AbsentNotNull;

impl Transform for AbsentNotNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        object.remove("nullable");
        if let Some(Value::Array(types)) = object.get("type").cloned()
            && let [only] =
                types.iter().filter(|type_| *type_ != "null").cloned().collect::<Vec<_>>().as_slice()
        {
            object.insert("type".to_owned(), only.clone());
        }
        if let Some(Value::Array(branches)) = object.get("anyOf").cloned()
            && let [Value::Object(value), null] = branches.as_slice()
            && (null.get("type") == Some(&json!("null")) || null.get("enum") == Some(&json!([null])))
        {
            object.remove("anyOf");
            for (key, value) in value {
                object.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

/// Leaves out what says nothing to a user (titles, null as a default) and the line breaks of descriptions.
#[derive(Clone, Debug)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if let Some(object) = schema.as_object_mut() {
            object.remove("title");
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
            }
        }
    }
}

fn attach(root: &mut Value, path: &str, rule: &Rule) -> Result<(), Error> {
    let missing = || Error::NoSuchPath(path.to_owned());
    let node = node_mut(root, path).and_then(Value::as_object_mut).ok_or_else(missing)?;
    let mut validation = json!({
        "rule": rule.rule,
        "message": rule.message,
        "reason": match rule.refusal {
            Refusal::Invalid => "FieldValueInvalid",
            Refusal::Forbidden => "FieldValueForbidden",
        }
    });
    if !rule.field.is_empty()
        && let Some(object) = validation.as_object_mut()
    {
        object.insert("fieldPath".to_owned(), json!(rule.field));
    }
    let list = node.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    list.as_array_mut().ok_or_else(missing)?.push(validation);
    Ok(())
}

fn node_mut<'a>(root: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(root, |node, part| {
        let name = part.strip_suffix("[]").unwrap_or(part);
        let property = node.get_mut("properties")?.get_mut(name)?;
        if name == part { Some(property) } else { property.get_mut("items") }
    })
}
