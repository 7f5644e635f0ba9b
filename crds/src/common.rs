//! Types that both kinds share, and the schemas of values whose shape is free. No effects.

use std::collections::BTreeMap;
use std::time::Duration;

pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A map of settings of Elasticsearch, as written by the user: flat dotted keys or nested objects.
pub type Settings = serde_json::Map<String, Value>;

/// A partial pod template, as written by the user: a JSON object that is merged over the generated one.
pub type PodTemplate = serde_json::Map<String, Value>;

/// Most top-level keys of a map of settings.
pub const MAX_SETTINGS: u32 = 256;

/// What happens to stored data when the object that asked for it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The data stays where it is.
    #[default]
    Retain,
    /// The data is deleted.
    Delete,
}

/// Requests and limits of one container, as in a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler reserves for each node, by resource name, for example cpu "2" or memory 4Gi.
    /// Default: nothing is reserved. A change restarts nodes, one step at a time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What each node may use at most, by resource name. Elasticsearch sizes its heap from the memory limit
    /// unless heap is set. Default: no limit. A change restarts nodes, one step at a time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// Whether nothing is requested and nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

/// A duration of whole hours, minutes and seconds, in that order: 90s, 5m, 1h30m. Anything else is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut parts = 0;
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((digits, tail)) = rest.split_once(unit)
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
        {
            let part = digits.parse::<u64>().ok()?.checked_mul(length)?;
            seconds = seconds.checked_add(part)?;
            rest = tail;
            parts += 1;
        }
    }
    (parts > 0 && rest.is_empty()).then(|| Duration::from_secs(seconds))
}

/// Schema of a quantity of Kubernetes: a number, or a string with a unit.
pub fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 32
    })
}

/// Schema of a map from resource name to quantity.
pub fn quantities(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": quantity(generator)
    })
}

/// Schema of a map of settings whose keys are not ours to know.
pub fn settings(_: &mut SchemaGenerator) -> Schema {
    free_form(MAX_SETTINGS)
}

/// Schema of a small JSON object whose keys are not ours to know.
pub fn object(_: &mut SchemaGenerator) -> Schema {
    free_form(32)
}

fn free_form(max_properties: u32) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": max_properties,
        "x-kubernetes-preserve-unknown-fields": true
    })
}
