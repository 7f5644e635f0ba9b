//! The list of hostile specs, by what they are after.
#![allow(dead_code)]

mod cells;
mod placements;
mod pods;
mod secrets;

use serde_json::{Value, json};

/// The kind that an attack is written into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Cell,
    Placement,
}

/// What has to become of it.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Refused, with this in the message: the path, the reason or the next action.
    Refused(String),
    /// Accepted, and sound when rendered.
    Harmless,
}

/// One hostile spec.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: String,
    pub on: On,
    pub object: Value,
    pub expect: Expect,
}

/// All of them.
pub fn attacks() -> Vec<Attack> {
    [cells::attacks(), pods::attacks(), secrets::attacks(), placements::attacks()].concat()
}

/// A cell with nodes of every role, without security.
pub fn cell() -> Value {
    json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
        "metadata": {"name": "guilds", "namespace": "search", "uid": "u1"},
        "spec": {
            "version": "9.5.3",
            "zones": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "clusters": [{"name": "a"}],
            "nodes": {
                "master": {"count": 3, "storage": {"size": "10Gi"}},
                "ingest": {"replicas": 3},
                "data": {"perZone": 1, "storage": {"size": "100Gi"}},
            },
            "security": {"mode": "Disabled"},
        },
    })
}

/// A placement with a tenant of its own.
pub fn placement() -> Value {
    json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": "big", "namespace": "search", "uid": "p1"},
        "spec": {
            "cell": "guilds", "collection": "messages", "tenant": {"field": "guild_id"},
            "dedicated": {"tenants": [{"id": "1", "expectedDocuments": 10}]},
        },
    })
}

/// `base` with `patch` merged over it; lists are replaced.
pub fn merged(mut base: Value, patch: &Value) -> Value {
    match (&mut base, patch) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (key, change) in changes {
                let field = fields.remove(key).unwrap_or(Value::Null);
                fields.insert(key.clone(), merged(field, change));
            }
            base
        }
        _ => patch.clone(),
    }
}

/// A spec merged over the good one, and what has to become of it: an empty text is harmless.
pub fn attack(on: On, name: &str, spec: Value, refused: &str) -> Attack {
    let good = match on {
        On::Cell => cell(),
        On::Placement => placement(),
    };
    let expect = if refused.is_empty() { Expect::Harmless } else { Expect::Refused(refused.to_owned()) };
    Attack { name: name.to_owned(), on, object: merged(good, &json!({"spec": spec})), expect }
}
