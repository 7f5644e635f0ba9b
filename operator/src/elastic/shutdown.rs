//! Bodies of the node shutdown API, by which Elasticsearch is told that a node restarts. No effects.

use searchcell_core::snapshot::{Shutdown, Shutdowns};
use searchcell_core::step::Absence;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// How long copies of the node are not made anew elsewhere. One that the operator restarts comes back: longer than a node takes that
/// opens many shards. One that somebody evicts may find no place: as long as its volume takes to come to another machine.
fn allocation_delay(absence: Absence) -> &'static str {
    match absence {
        Absence::Restart => "15m",
        Absence::Eviction => "5m",
    }
}

/// All records.
pub const ALL: &str = "/_nodes/shutdown";

/// `GET /_nodes/shutdown`. A build without this API takes `shutdown` for the name of a node, and says of no node something: its
/// `nodes` is an object, and not a list.
#[derive(Debug, Deserialize)]
pub struct Answer {
    nodes: Nodes,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Nodes {
    Records(Vec<Record>),
    Other(IgnoredAny),
}

#[derive(Debug, Deserialize)]
struct Record {
    node_id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
}

impl Answer {
    /// What it says.
    pub fn shutdowns(self) -> Shutdowns {
        match self.nodes {
            Nodes::Records(records) => Shutdowns::Known(
                (records.into_iter())
                    .map(|record| (record.node_id, Shutdown { kind: record.kind, reason: record.reason }))
                    .collect(),
            ),
            Nodes::Other(IgnoredAny) => Shutdowns::NotAvailable,
        }
    }
}

/// Path of the record of a node, by its persistent id.
pub fn path(id: &str) -> String {
    format!("/_nodes/{id}/shutdown")
}

/// The record of a node that comes back.
pub fn restart(absence: Absence) -> Value {
    json!({"type": "restart", "reason": absence.reason(), "allocation_delay": allocation_delay(absence)})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Shutdowns {
        serde_json::from_value::<Answer>(body).unwrap().shutdowns()
    }

    #[test]
    fn a_list_is_of_records_and_an_object_of_nodes_that_are_not_there() {
        let record = json!({"node_id": "n1", "type": "RESTART", "reason": "x", "allocation_delay": "15m",
            "shutdown_startedmillis": 1, "status": "COMPLETE", "shard_migration": {"status": "COMPLETE"},
            "persistent_tasks": {"status": "COMPLETE"}, "plugins": {"status": "COMPLETE"}});
        let Shutdowns::Known(records) = read(json!({"nodes": [record]})) else { panic!() };
        assert_eq!(records["n1"], Shutdown { kind: "RESTART".into(), reason: "x".into() });
        assert_eq!(read(json!({"nodes": []})), Shutdowns::Known(Default::default()));
        let absent =
            json!({"_nodes": {"total": 0, "successful": 0, "failed": 0}, "cluster_name": "c", "nodes": {}});
        assert_eq!(read(absent), Shutdowns::NotAvailable);
    }
}
