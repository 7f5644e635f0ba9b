//! The body with which an index is created. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::inputs::hash;
use crate::domain::{ValidIndex, ValidPlacement};
use crate::snapshot::OwnershipMark;

/// Boolean that marks a document as deleted while its index is being moved.
pub const DELETED_FIELD: &str = "searchcell_deleted";
/// How long Elasticsearch remembers the version of a deleted document: late writes of an older version must lose.
const GC_DELETES: (&str, &str) = ("index.gc_deletes", "1h");

/// Settings and mappings of a new index.
pub fn index_body(placement: &ValidPlacement, index: &ValidIndex, replicas: i32) -> Value {
    let mut settings = index_settings(placement);
    settings.insert("index.number_of_shards".into(), json!(index.shards));
    settings.insert("index.number_of_replicas".into(), json!(replicas));
    let mark = index_mark(placement, index, Some(replicas));
    json!({"settings": settings, "mappings": index_mappings(placement, &mark)})
}

/// Settings of an index, but for its numbers of shards and copies.
pub fn index_settings(placement: &ValidPlacement) -> BTreeMap<String, Value> {
    let mut settings = placement.settings.clone();
    settings.entry(GC_DELETES.0.to_owned()).or_insert_with(|| json!(GC_DELETES.1));
    settings
}

/// Part of how texts are cut into terms: fixed when an index is made, and too big to be read from every index.
pub fn is_analysis(setting: &str) -> bool {
    setting.starts_with("index.analysis.")
}

/// The mark of ownership of an index.
pub fn index_mark(placement: &ValidPlacement, index: &ValidIndex, replicas: Option<i32>) -> OwnershipMark {
    let analysis: BTreeMap<&String, &Value> =
        placement.settings.iter().filter(|(name, _)| is_analysis(name)).collect();
    OwnershipMark {
        namespace: placement.namespace.clone(),
        collection: placement.collection.clone(),
        placement: placement.name.clone(),
        generation: index.generation,
        inputs: index_inputs(placement),
        pool: placement.pool_size(),
        replicas,
        settings: index_settings(placement).into_keys().filter(|name| !is_analysis(name)).collect(),
        analysis: if analysis.is_empty() { String::new() } else { hash(&json!(analysis)) },
    }
}

/// Hash of the user's inputs that an index is made from, for its mark of ownership. What can be changed in place
/// without looking at mappings or settings (shards are compared by number, replicas too) is not in it.
pub fn index_inputs(placement: &ValidPlacement) -> String {
    hash(&json!({
        "tenantField": placement.tenant_field,
        "settings": placement.settings,
        "mappings": placement.mappings,
    }))
}

/// Mappings of an index: the user's, its mark, and what the operator adds.
pub fn index_mappings(placement: &ValidPlacement, mark: &OwnershipMark) -> Map<String, Value> {
    let mut mappings = placement.mappings.clone();
    change(&mut mappings, "_meta", |meta| {
        meta.insert("searchcell".into(), json!(mark));
    });
    change(&mut mappings, "properties", |properties| {
        properties.insert(DELETED_FIELD.into(), json!({"type": "boolean"}));
        properties.entry(placement.tenant_field.clone()).or_insert_with(|| json!({"type": "keyword"}));
    });
    if placement.is_pool {
        // A write without a routing would land nowhere near its tenant.
        mappings.insert("_routing".into(), json!({"required": true}));
    }
    mappings
}

/// Changes the object under a key, made when it is not there.
fn change(parent: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut fields = match parent.remove(key) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    change(&mut fields);
    parent.insert(key.to_owned(), Value::Object(fields));
}
