//! Mappings of managed indices: what the operator adds must not be there already. Pure.

use searchcell_crds::{Reason, Settings};
use serde_json::{Map, Value};

use super::Problems;
use crate::build::DELETED_FIELD;

const MAX_DEPTH: usize = 64;
/// They are sent to Elasticsearch as they are, and kept in the state of the cluster once for every index.
const MAX_MAPPINGS: usize = 256 << 10;

/// Finds what in a user's mappings is in the way of what the operator adds.
pub(super) fn mappings(path: &str, mappings: &Settings, tenant_field: &str, problems: &mut Problems) {
    if depth(&Value::Object(mappings.clone())) > MAX_DEPTH {
        problems.invalid(path, "is nested more than 64 levels deep: flatten it");
    }
    if Value::Object(mappings.clone()).to_string().len() > MAX_MAPPINGS {
        problems.invalid(path, "exceed 256 KiB: shorten them");
    }
    let mut reserved = |path: String, why: &str| problems.add(Reason::ReservedSetting, path, why);
    if mappings.contains_key("_routing") {
        reserved(
            format!("{path}._routing"),
            "belongs to the operator: remove it; documents of a pool are routed by tenant",
        );
    }
    if mappings.get("_meta").is_some_and(|meta| meta.get("searchcell").is_some()) {
        reserved(
            format!("{path}._meta.searchcell"),
            "belongs to the operator, who marks its indices there: remove it",
        );
    }
    for group in ["properties", "runtime"] {
        for name in fields(mappings, group).keys() {
            let root = name.split('.').next().unwrap_or_default();
            let path = format!("{path}.{group}[{name:?}]");
            if root == DELETED_FIELD {
                reserved(
                    path,
                    "belongs to the operator, who marks deleted documents there: name the field otherwise",
                );
            } else if root == tenant_field && (group == "runtime" || name != tenant_field) {
                reserved(
                    path,
                    "is in the way of the tenant field, which is stored as it is: name the field otherwise",
                );
            }
        }
    }
    for key in ["_meta", "properties", "runtime"] {
        if mappings.get(key).is_some_and(|value| !value.is_object()) {
            problems.invalid(format!("{path}.{key}"), "is no object: write it as Elasticsearch takes it");
        }
    }
    if let Some(mapping) = fields(mappings, "properties").get(tenant_field) {
        let kind = mapping.get("type").and_then(Value::as_str);
        if !matches!(kind, Some("keyword" | "long")) {
            problems.invalid(
                format!("{path}.properties[{tenant_field:?}].type"),
                "must be keyword or long, because the field holds the tenant: change it, or leave the field out",
            );
        }
    }
}

fn fields<'a>(mappings: &'a Settings, group: &str) -> &'a Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    mappings.get(group).and_then(Value::as_object).unwrap_or(&NONE)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
