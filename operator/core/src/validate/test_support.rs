//! Good specs, and how tests break them: one value at a time. Tests only.

use searchcell_crds::{IndexPlacement, Reason, SearchCell};
use serde_json::{Value, json};

use super::{Problem, validate_cell, validate_placement};

pub(super) fn good_cell() -> Value {
    json!({
        "apiVersion": "searchcell.dev/v1alpha1",
        "kind": "SearchCell",
        "metadata": {"name": "guild-messages", "namespace": "search", "uid": "u1"},
        "spec": {
            "version": "9.5.3",
            "zones": [{"name": "c"}, {"name": "a", "value": "zone-a"}, {"name": "b"}],
            "clusters": [{"name": "b"}, {"name": "a"}],
            "nodes": {
                "master": {"count": 3, "storage": {"size": "10Gi"}},
                "ingest": {"replicas": 3, "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}},
                "data": {
                    "perZone": 1,
                    "storage": {"size": "100Gi", "storageClassName": "ssd"},
                    "resources": {"requests": {"memory": "4Gi"}, "limits": {"memory": "4Gi"}},
                    "heap": "2Gi",
                    "jvmOptions": ["-Dlog4j2.formatMsgNoLookups=true"],
                    "settings": {"indices.memory.index_buffer_size": "20%"},
                    "podTemplate": {"spec": {"tolerations": [{"key": "search", "operator": "Exists"}]}}
                }
            },
            "settings": {"node.store.allow_mmap": false},
            "clusterSettings": {"cluster.max_shards_per_node": 2000},
            "security": {"mode": "Disabled"}
        }
    })
}

pub(super) fn good_pool() -> Value {
    json!({
        "apiVersion": "searchcell.dev/v1alpha1",
        "kind": "IndexPlacement",
        "metadata": {"name": "pool", "namespace": "search", "uid": "p1", "creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {
            "cell": "guild-messages",
            "collection": "messages",
            "tenant": {"field": "guild_id"},
            "versioning": "External",
            "pool": {"indices": 4},
            "replicas": 2,
            "index": {
                "settings": {"index.codec": "best_compression", "analysis": {"analyzer": {"a": {"type": "standard"}}}},
                "mappings": {"dynamic": "strict", "properties": {"content": {"type": "text"}}}
            }
        }
    })
}

pub(super) fn good_dedicated() -> Value {
    json!({
        "apiVersion": "searchcell.dev/v1alpha1",
        "kind": "IndexPlacement",
        "metadata": {"name": "bfg", "namespace": "search", "uid": "p2", "creationTimestamp": "2026-01-03T00:00:00Z"},
        "spec": {
            "cell": "guild-messages",
            "collection": "messages",
            "tenant": {"field": "guild_id"},
            "versioning": "External",
            "dedicated": {"tenants": [{"id": "81384788765712384", "expectedDocuments": 150_000_000}]}
        }
    })
}

/// Sets one value, making objects and appending to lists (`-`) on the way; null removes.
pub(super) fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let mut at = &mut object;
    let parts: Vec<String> = pointer.split('/').skip(1).map(|part| part.replace("~1", "/")).collect();
    let (last, path) = parts.split_last().unwrap();
    for part in path {
        at = match at {
            Value::Array(items) => &mut items[part.parse::<usize>().unwrap()],
            at => {
                if at.get(part).is_none() {
                    at[part] = json!({});
                }
                &mut at[part]
            }
        };
    }
    match at {
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = value,
        Value::Object(fields) if value.is_null() => {
            fields.remove(last);
        }
        at => at[last.as_str()] = value,
    }
    object
}

pub(super) fn cell(value: Value) -> SearchCell {
    serde_json::from_value(value).unwrap()
}

pub(super) fn placement(value: Value) -> IndexPlacement {
    serde_json::from_value(value).unwrap()
}

pub(super) fn cell_problems(value: Value) -> Vec<Problem> {
    validate_cell(&cell(value)).err().unwrap_or_default()
}

pub(super) fn placement_problems(value: Value, siblings: &[Value]) -> Vec<Problem> {
    let siblings: Vec<IndexPlacement> = siblings.iter().cloned().map(placement).collect();
    validate_placement(&placement(value), Some(&cell(good_cell())), &siblings).err().unwrap_or_default()
}

/// Exactly this problem, and no other.
pub(super) fn assert_one(problems: &[Problem], path: &str, reason: Reason, part: &str) {
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let problem = &problems[0];
    assert_eq!((problem.path.as_str(), problem.reason), (path, reason), "{}", problem.message);
    assert!(problem.message.contains(part), "{:?} has no {part:?}", problem.message);
}
