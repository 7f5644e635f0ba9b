//! What Elasticsearch itself says. No connection is kept: every request is balanced anew, and none waits on a connection
//! to a node that is gone. `access` says how a cluster of a cell is talked to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::access::{Access, Way};

/// One node, as `_nodes` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Identity on disk: survives restarts.
    pub id: String,
    /// `node.attr.zone`.
    pub zone: String,
    /// Roles.
    pub roles: BTreeSet<String>,
    /// Start of the process, milliseconds of the epoch: changes with every restart.
    pub started_at: i64,
    /// Version.
    pub version: String,
}

/// One copy of a shard, as the routing table of the cluster state has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// Index.
    pub index: String,
    /// Number of the shard.
    pub shard: String,
    /// Whether it is the primary.
    pub primary: bool,
    /// STARTED, INITIALIZING, RELOCATING or UNASSIGNED.
    pub state: String,
    /// Node name; empty when unassigned.
    pub node: String,
    /// The node's `node.attr.zone`; empty when unassigned.
    pub zone: String,
}

/// A client of one cluster, by a Service.
#[derive(Clone)]
pub struct Elastic {
    access: Arc<Access>,
}

impl Elastic {
    /// By the Service `service` of `namespace`: as the administrator of its cell, where that has security.
    pub fn new(namespace: &str, service: &str) -> Self {
        Self::new_as(namespace, service, "admin")
    }

    /// The same as another user: `router`, `exporter`, `operator`.
    pub fn new_as(namespace: &str, service: &str, user: &str) -> Self {
        Self { access: Arc::new(Access::service(namespace, service, user)) }
    }

    /// At an address, plainly.
    pub fn at(base: &str) -> Self {
        Self { access: Arc::new(Access::address(base)) }
    }

    /// Status and body of any request.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(u16, Bytes), String> {
        let what = format!("{method} {path}");
        let answer = async {
            let Way { base, client, authorization } = &*self.access.way().await?;
            let uri = format!("{base}/{}", path.trim_start_matches('/'));
            let mut request = Request::builder().method(method).uri(uri);
            if !body.is_empty() {
                request = request.header("content-type", content_type);
            }
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
            let response = client.request(request).await.map_err(|error| chain(&error))?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|error| chain(&error))?.to_bytes();
            Ok((status, body))
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|error: String| format!("{what}: {error}")),
            Err(_) => Err(format!("{what}: no answer within {} s", limit.as_secs_f32())),
        }
    }

    /// JSON in, JSON out; anything but 2xx is an error.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let what = format!("{method} {path}");
        let (status, answer) =
            self.request(method, path, "application/json", bytes, Duration::from_secs(20)).await?;
        if !(200..300).contains(&status) {
            return Err(format!("{what}: {status} {}", String::from_utf8_lossy(&answer)));
        }
        serde_json::from_slice(&answer).map_err(|error| format!("{what}: {error}"))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        self.json(Method::GET, path, None).await
    }

    /// `cluster_uuid`; an error while the cluster has not formed.
    pub async fn uuid(&self) -> Result<String, String> {
        let answer = self.get("/").await?;
        match answer["cluster_uuid"].as_str() {
            Some(uuid) if !uuid.is_empty() && uuid != "_na_" => Ok(uuid.to_owned()),
            _ => Err(format!("no cluster UUID yet: {answer}")),
        }
    }

    /// All nodes, by name.
    pub async fn nodes(&self) -> Result<BTreeMap<String, Node>, String> {
        let answer = self.get("/_nodes/jvm").await?;
        let nodes = answer["nodes"].as_object().ok_or("no nodes")?;
        let node = |(id, node): (&String, &Value)| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let roles = node["roles"].as_array().into_iter().flatten().map(text).collect();
            let facts = Node {
                id: id.clone(),
                zone: text(&node["attributes"]["zone"]),
                roles,
                started_at: node["jvm"]["start_time_in_millis"].as_i64().unwrap_or_default(),
                version: text(&node["version"]),
            };
            (text(&node["name"]), facts)
        };
        Ok(nodes.iter().map(node).collect())
    }

    /// Persistent cluster settings, flat.
    pub async fn settings(&self) -> Result<serde_json::Map<String, Value>, String> {
        let answer = self.get("/_cluster/settings?flat_settings=true").await?;
        Ok(answer["persistent"].as_object().cloned().unwrap_or_default())
    }

    /// Every copy of every shard of the indices whose names begin with `prefix`, from `_cluster/state`.
    pub async fn copies(&self, prefix: &str) -> Result<Vec<Copy>, String> {
        let state = self.get("/_cluster/state/nodes,routing_table").await?;
        let mut copies = Vec::new();
        let indices = state["routing_table"]["indices"].as_object().ok_or("no routing table")?;
        for (index, table) in indices.iter().filter(|(index, _)| index.starts_with(prefix)) {
            for (shard, list) in table["shards"].as_object().into_iter().flatten() {
                for copy in list.as_array().into_iter().flatten() {
                    let node = &state["nodes"][copy["node"].as_str().unwrap_or("-")];
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    copies.push(Copy {
                        index: index.clone(),
                        shard: shard.clone(),
                        primary: copy["primary"] == true,
                        state: text(&copy["state"]),
                        node: text(&node["name"]),
                        zone: text(&node["attributes"]["zone"]),
                    });
                }
            }
        }
        copies.sort();
        Ok(copies)
    }

    /// Indexes documents: (index, id, routing, source). Every item has to succeed.
    pub async fn bulk(&self, documents: &[(String, String, Option<String>, Value)]) -> Result<(), String> {
        let mut body = String::new();
        for (index, id, routing, source) in documents {
            let mut action = json!({"index": {"_index": index, "_id": id}});
            if let Some(routing) = routing {
                action["index"]["routing"] = json!(routing);
            }
            body.push_str(&format!("{action}\n{source}\n"));
        }
        let limit = Duration::from_secs(60);
        let (status, answer) = self
            .request(Method::POST, "/_bulk?refresh=true", "application/x-ndjson", body.into(), limit)
            .await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        if status == 200 && answer["errors"] == false {
            Ok(())
        } else {
            Err(format!("_bulk: {status} {answer}"))
        }
    }

    /// Number of documents of an index (or pattern).
    pub async fn count(&self, index: &str) -> Result<i64, String> {
        let answer = self.get(&format!("/{index}/_count")).await?;
        answer["count"].as_i64().ok_or_else(|| format!("{answer}"))
    }
}

/// An error with its causes: hyper's own text says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// For each shard, whether its `copies` started copies are in that many different zones; what is wrong, else.
pub fn in_different_zones(copies: &[Copy], wanted: usize) -> Result<(), String> {
    let mut shards: BTreeMap<(&str, &str), Vec<&Copy>> = BTreeMap::new();
    for copy in copies {
        shards.entry((&copy.index, &copy.shard)).or_default().push(copy);
    }
    for ((index, shard), copies) in shards {
        let started = copies.iter().filter(|copy| copy.state == "STARTED");
        let zones: BTreeSet<&str> =
            started.map(|copy| copy.zone.as_str()).filter(|zone| !zone.is_empty()).collect();
        if zones.len() != wanted || copies.len() != wanted {
            return Err(format!("{index}[{shard}] has {} copies, started in zones {zones:?}", copies.len()));
        }
    }
    Ok(())
}
