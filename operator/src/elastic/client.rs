//! The real `SearchApi`: HTTP requests to Elasticsearch. Effects: network.
//!
//! Each request carries its cluster's absolute URL and its user: `clients` says over which connection pool it goes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use elasticsearch::Elasticsearch;
use elasticsearch::http::headers::HeaderMap;
use elasticsearch::http::transport::BuildError;
use elasticsearch::http::{Method, Url};
use jiff::Timestamp;
use searchcell_core::names::ClusterKey;
use searchcell_core::security::Served;
use searchcell_core::snapshot::{Asked, Shutdowns, Unassigned};
use searchcell_core::step::Absence;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::elastic::clients::{Clients, authorization};
use crate::elastic::tenants::{self, COUNT, Counted, Refreshed};
use crate::elastic::wire::{
    ClusterState, DiskStats, Explanation, Nodes, Reloaded, Settings, Stats, error_of,
};
use crate::elastic::{preflight, shutdown};
use crate::ports::{ClusterDetails, ClusterSizes, ClusterSummary, NodeReload, SearchApi, SearchError};
use crate::security::access::Accesses;
use crate::security::handshake;

const SUMMARY: &str = "/_cluster/state/version,master_node,nodes?master_timeout=3s\
    &filter_path=cluster_uuid,version,state_uuid,master_node,nodes.*.name";
const DETAILS: &str = "/_cluster/state/nodes,metadata,routing_table?master_timeout=3s&expand_wildcards=all\
    &filter_path=nodes.*.name,nodes.*.version,nodes.*.roles,nodes.*.attributes.zone,\
    metadata.cluster_coordination.last_committed_config,\
    metadata.cluster_coordination.voting_config_exclusions,\
    metadata.indices.*.settings,-metadata.indices.*.settings.index.analysis,\
    metadata.indices.*.mappings._meta.searchcell,\
    metadata.indices.*.mappings.*._meta.searchcell,routing_table.indices.*.shards.*.state,\
    routing_table.indices.*.shards.*.primary,routing_table.indices.*.shards.*.node,\
    routing_table.indices.*.shards.*.unassigned_info.reason,\
    routing_table.indices.*.shards.*.unassigned_info.at";
const NODES: &str = "/_nodes/http?timeout=3s\
    &filter_path=nodes.*.name,nodes.*.version,nodes.*.roles,nodes.*.attributes.zone";
const SETTINGS: &str = "/_cluster/settings?flat_settings=true&master_timeout=3s&filter_path=persistent";
const COUNTS: &str = "/_stats/docs,store?level=shards&filter_path=indices.*.shards.*.routing.primary,\
    indices.*.shards.*.routing.node,\
    indices.*.shards.*.docs.count,indices.*.shards.*.docs.deleted,\
    indices.*.shards.*.store.size_in_bytes";

const DISKS: &str = "/_nodes/stats/fs,process,jvm?timeout=3s\
    &filter_path=nodes.*.name,nodes.*.fs.total.total_in_bytes,nodes.*.fs.total.available_in_bytes,\
    nodes.*.process.cpu.percent,nodes.*.jvm.mem.heap_max_in_bytes,\
    nodes.*.jvm.mem.pools.old.used_in_bytes";

const EXPLAIN: &str = "/_cluster/allocation/explain?filter_path=current_state,allocate_explanation,\
    node_allocation_decisions.deciders.decider,node_allocation_decisions.deciders.explanation";

/// Reads of one answer may not take more memory than this.
const MAX_BODY: u64 = 64 << 20;
/// Longest part of an error text that is handed on.
const MAX_REASON: usize = 512;

/// Where the HTTP endpoint of a cluster is, by scheme.
pub type Locate = dyn Fn(&ClusterKey, &str) -> String + Send + Sync;
/// Hears of every request: its operation and its outcome, both from closed sets.
pub type OnRequest = dyn Fn(&'static str, &'static str) + Send + Sync;

/// Talks to all clusters.
pub struct ElasticHttp {
    clients: Clients,
    locate: Box<Locate>,
    on_request: Arc<OnRequest>,
    read_timeout: Duration,
    write_timeout: Duration,
}

struct Answer {
    status: u16,
    body: Bytes,
    known_as: Option<String>,
}

/// One request, one answer.
async fn send(
    client: &Elasticsearch,
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: Option<Bytes>,
    limit: Duration,
) -> Result<Answer, SearchError> {
    let response = client
        .send(method, url, headers, None::<&()>, body, Some(limit))
        .await
        .map_err(|error| SearchError::Unreachable(connection_problem(&error).to_owned()))?;
    if response.content_length().is_some_and(|length| length > MAX_BODY) {
        return Err(SearchError::Refused("its answer is too big to be read".to_owned()));
    }
    let status = response.status_code().as_u16();
    let body =
        response.bytes().await.map_err(|_| SearchError::Unreachable("its answer broke off".to_owned()))?;
    Ok(Answer { status, body, known_as: None })
}

/// Tells of one request when it ends.
struct Tally<'a> {
    on_request: &'a OnRequest,
    op: &'static str,
    outcome: &'static str,
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        (self.on_request)(self.op, self.outcome);
    }
}

impl ElasticHttp {
    /// A client that finds each cluster behind its Service.
    pub fn new(accesses: Arc<dyn Accesses>, on_request: Arc<OnRequest>) -> Result<Self, BuildError> {
        Self::with_locate(Box::new(|cluster, scheme| cluster.endpoint(scheme)), accesses, on_request)
    }

    /// A client that finds clusters elsewhere.
    pub fn with_locate(
        locate: Box<Locate>,
        accesses: Arc<dyn Accesses>,
        on_request: Arc<OnRequest>,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            clients: Clients::new(accesses)?,
            locate,
            on_request,
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(30),
        })
    }

    /// The same, with a tunnelling proxy before the clusters that have TLS.
    pub fn through(self, proxy: Url) -> Self {
        Self { clients: self.clients.through(proxy), ..self }
    }

    async fn request(
        &self,
        op: &'static str,
        cluster: &ClusterKey,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, SearchError> {
        let limit = if matches!(method, Method::Get) { self.read_timeout } else { self.write_timeout };
        // Counted however it ends, a caller's own deadline included.
        let mut tally = Tally { on_request: self.on_request.as_ref(), op, outcome: "unreachable" };
        let result = match timeout(limit, self.exchange(cluster, method, path, body, limit)).await {
            Ok(result) => result,
            Err(_) => Err(SearchError::Unreachable("it does not answer in time".to_owned())),
        };
        tally.outcome = match &result {
            Ok(answer) if answer.status < 300 => "success",
            Ok(answer) if answer.status < 500 => "refused",
            Ok(_) => "error",
            Err(_) => "unreachable",
        };
        result
    }

    /// As the current user, or, where a node does not know that one yet, as the one that it knew before.
    async fn exchange(
        &self,
        cluster: &ClusterKey,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Answer, SearchError> {
        let way = self.clients.way(cluster)?;
        let url = format!("{}{path}", (self.locate)(cluster, way.scheme));
        if way.users.is_empty() {
            return send(&way.client, method, &url, HeaderMap::new(), body, limit).await;
        }
        let mut refused = None;
        for user in &way.users {
            let headers = authorization(user)?;
            let mut answer = send(&way.client, method, &url, headers, body.clone(), limit).await?;
            if answer.status == 401 {
                refused = Some(answer);
                continue;
            }
            self.clients.worked(cluster, user);
            answer.known_as = Some(user.username.clone());
            return Ok(answer);
        }
        refused.ok_or_else(|| SearchError::Unreachable("there is no user to be".to_owned()))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        op: &'static str,
        cluster: &ClusterKey,
        path: &str,
    ) -> Result<T, SearchError> {
        let answer = self.request(op, cluster, Method::Get, path, None).await?;
        answer.json()
    }
}

impl Answer {
    fn ok(self) -> Result<Bytes, SearchError> {
        if (200..300).contains(&self.status) { Ok(self.body) } else { Err(self.error()) }
    }

    /// Of a change of indices that are there.
    fn changed(self) -> Result<(), SearchError> {
        let status = self.status;
        match self.ok() {
            Ok(_) => Ok(()),
            Err(SearchError::Refused(reason)) if status == 400 => Err(SearchError::NotInPlace(reason)),
            Err(error) => Err(error),
        }
    }

    fn json<T: DeserializeOwned>(self) -> Result<T, SearchError> {
        let body = self.ok()?;
        serde_json::from_slice(&body)
            .map_err(|_| SearchError::Unreachable("its answer is not what Elasticsearch says".to_owned()))
    }

    fn error(&self) -> SearchError {
        let (kind, reason) = error_of(&self.body).unwrap_or_default();
        let reason = if reason.is_empty() { format!("HTTP status {}", self.status) } else { cut(&reason) };
        match self.status {
            400 if kind == "resource_already_exists_exception" => SearchError::IndexExists(reason),
            // Older releases have another name for it.
            400 if kind == "index_already_exists_exception" => SearchError::IndexExists(reason),
            400 if reason.contains("no handler found") => SearchError::NotAvailable(reason),
            404 if kind.is_empty() => SearchError::NotAvailable(reason),
            405 => SearchError::NotAvailable(reason),
            408 | 429 | 500.. => SearchError::Unreachable(reason),
            _ => SearchError::Refused(reason),
        }
    }
}

/// In words that stay the same while the problem does.
fn connection_problem(error: &elasticsearch::Error) -> &'static str {
    if error.is_timeout() {
        return "it does not answer in time";
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return "it refuses the connection";
        }
        if error.to_string().contains("dns error") {
            return "its address does not resolve";
        }
        if is_distrust(error) {
            return "its certificate is not one that the operator trusts";
        }
        cause = error.source();
    }
    "the connection to it failed"
}

/// TLS libraries wrap their errors in those of streams, sometimes twice; a stream's error hides what it wraps from
/// `source`.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    match error.downcast_ref::<rustls::Error>() {
        Some(error) => matches!(error, rustls::Error::InvalidCertificate(_)),
        None => (error.downcast_ref::<std::io::Error>())
            .and_then(std::io::Error::get_ref)
            .is_some_and(|inner| is_distrust(inner)),
    }
}

fn cut(reason: &str) -> String {
    match reason.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", reason.get(..end).unwrap_or_default()),
        None => reason.to_owned(),
    }
}

/// Percent-encodes one segment of a path.
fn segment(name: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    // A segment of dots alone would be taken for a step up.
    let dots = !name.is_empty() && name.bytes().all(|byte| byte == b'.');
    if name.bytes().all(plain) && !dots {
        return Cow::Borrowed(name);
    }
    let encode = |byte: u8| {
        if plain(byte) && !dots { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    Cow::Owned(name.bytes().map(encode).collect())
}

/// Several names, as Elasticsearch takes them in a path.
fn segments(names: &[String]) -> String {
    names.iter().map(|name| segment(name)).collect::<Vec<_>>().join(",")
}

#[async_trait]
impl SearchApi for ElasticHttp {
    async fn summary(&self, cluster: &ClusterKey) -> Result<ClusterSummary, SearchError> {
        let answer = self.request("summary", cluster, Method::Get, SUMMARY, None).await?;
        let known_as = answer.known_as.clone();
        let state: ClusterState = answer.json()?;
        let summary = state.summary().map(|summary| ClusterSummary { known_as, ..summary });
        summary.ok_or_else(|| SearchError::Unreachable("its answer is incomplete".to_owned()))
    }

    async fn served(&self, _cluster: &ClusterKey, address: &str) -> Result<Served, SearchError> {
        let mut tally =
            Tally { on_request: self.on_request.as_ref(), op: "handshake", outcome: "unreachable" };
        let served = handshake::served(address).await.map_err(SearchError::Unreachable)?;
        tally.outcome = "success";
        Ok(served)
    }

    async fn details(&self, cluster: &ClusterKey) -> Result<ClusterDetails, SearchError> {
        let state: ClusterState = self.get("state", cluster, DETAILS).await?;
        let nodes: Nodes =
            if state.lacks_node_info() { self.get("nodes", cluster, NODES).await? } else { Nodes::default() };
        let settings: Settings = self.get("settings", cluster, SETTINGS).await?;
        Ok(state.details(nodes, settings))
    }

    async fn sizes(&self, cluster: &ClusterKey) -> Result<ClusterSizes, SearchError> {
        let stats: Stats = self.get("stats", cluster, COUNTS).await?;
        let disks: DiskStats = self.get("disks", cluster, DISKS).await?;
        let (counts, loads) = (stats.counts().into(), disks.loads());
        Ok(ClusterSizes { counts, loads, disks: disks.disks(&stats.stored()) })
    }

    async fn reload_keystore(
        &self,
        cluster: &ClusterKey,
    ) -> Result<BTreeMap<String, NodeReload>, SearchError> {
        let path = "/_nodes/reload_secure_settings?timeout=20s";
        let answer = self.request("reload_keystore", cluster, Method::Post, path, None).await?;
        Ok(answer.json::<Reloaded>()?.nodes())
    }

    async fn explain(
        &self,
        cluster: &ClusterKey,
        index: &str,
        shard: i32,
        primary: bool,
    ) -> Result<Option<Unassigned>, SearchError> {
        let body = Bytes::from(json!({"index": index, "shard": shard, "primary": primary}).to_string());
        let answer = self.request("explain", cluster, Method::Post, EXPLAIN, Some(body)).await?;
        let explanation: Explanation = answer.json()?;
        let mut unassigned = explanation.unassigned(index, shard, primary);
        if let Some(unassigned) = &mut unassigned {
            unassigned.explanation = cut(&unassigned.explanation);
        }
        Ok(unassigned)
    }

    async fn documents_of(
        &self,
        cluster: &ClusterKey,
        index: &str,
        tenants: &[String],
        is_last: bool,
    ) -> Result<BTreeMap<String, u64>, SearchError> {
        if is_last {
            let path = format!("/{}/_refresh?filter_path=_shards.failed", segment(index));
            let refreshed: Refreshed =
                self.request("refresh", cluster, Method::Post, &path, None).await?.json()?;
            refreshed.whole()?;
        }
        self.count(cluster, index, tenants::of_tenants(tenants)).await?.of(tenants)
    }

    async fn largest_tenants(
        &self,
        cluster: &ClusterKey,
        index: &str,
        field: &str,
    ) -> Result<Vec<(String, u64)>, SearchError> {
        self.count(cluster, index, tenants::largest(field)).await?.largest()
    }

    async fn shutdowns(&self, cluster: &ClusterKey) -> Result<Shutdowns, SearchError> {
        match self.get::<shutdown::Answer>("shutdowns", cluster, shutdown::ALL).await {
            Ok(answer) => Ok(answer.shutdowns()),
            Err(SearchError::NotAvailable(_)) => Ok(Shutdowns::NotAvailable),
            Err(error) => Err(error),
        }
    }

    async fn deprecations(&self, cluster: &ClusterKey) -> Result<Asked<Vec<String>>, SearchError> {
        let answer = self.get("deprecations", cluster, preflight::DEPRECATIONS).await;
        preflight::asked(answer.map(|answer| preflight::critical(&answer)))
    }

    async fn snapshots(
        &self,
        cluster: &ClusterKey,
    ) -> Result<Asked<BTreeMap<String, Timestamp>>, SearchError> {
        let answer = self.get("snapshots", cluster, preflight::SNAPSHOTS).await;
        preflight::asked(answer.map(preflight::Snapshots::newest))
    }

    async fn announce_restart(
        &self,
        cluster: &ClusterKey,
        id: &str,
        absence: Absence,
    ) -> Result<(), SearchError> {
        let body = Bytes::from(shutdown::restart(absence).to_string());
        let path = shutdown::path(&segment(id));
        self.request("announce_restart", cluster, Method::Put, &path, Some(body)).await?.ok()?;
        Ok(())
    }

    async fn withdraw_restart(&self, cluster: &ClusterKey, id: &str) -> Result<(), SearchError> {
        let path = shutdown::path(&segment(id));
        let answer = self.request("withdraw_restart", cluster, Method::Delete, &path, None).await?;
        // Somebody else was faster.
        if answer.status == 404 { Ok(()) } else { answer.ok().map(drop) }
    }

    async fn exclude_voter(&self, cluster: &ClusterKey, node: &str) -> Result<(), SearchError> {
        let path = format!("/_cluster/voting_config_exclusions?node_names={}&timeout=20s", segment(node));
        self.request("exclude_voter", cluster, Method::Post, &path, None).await?.ok()?;
        Ok(())
    }

    async fn clear_voting_exclusions(&self, cluster: &ClusterKey) -> Result<(), SearchError> {
        // The nodes may stay.
        let path = "/_cluster/voting_config_exclusions?wait_for_removal=false";
        self.request("clear_voting_exclusions", cluster, Method::Delete, path, None).await?.ok()?;
        Ok(())
    }

    async fn put_settings(
        &self,
        cluster: &ClusterKey,
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        let body = Bytes::from(json!({ "persistent": settings }).to_string());
        let path = "/_cluster/settings?master_timeout=10s&timeout=10s&flat_settings=true";
        self.request("put_settings", cluster, Method::Put, path, Some(body)).await?.ok()?;
        Ok(())
    }

    async fn create_index(&self, cluster: &ClusterKey, name: &str, body: &Value) -> Result<(), SearchError> {
        let path = format!("/{}?wait_for_active_shards=0&master_timeout=10s&timeout=10s", segment(name));
        let body = Bytes::from(body.to_string());
        match self.request("create_index", cluster, Method::Put, &path, Some(body)).await?.ok() {
            Ok(_) => Ok(()),
            Err(SearchError::IndexExists(_)) => Err(SearchError::IndexExists(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    async fn put_mapping(
        &self,
        cluster: &ClusterKey,
        indices: &[String],
        body: &Value,
    ) -> Result<(), SearchError> {
        let path = format!("/{}/_mapping?master_timeout=10s&timeout=10s", segments(indices));
        let body = Bytes::from(body.to_string());
        self.request("put_mapping", cluster, Method::Put, &path, Some(body)).await?.changed()
    }

    async fn put_index_settings(
        &self,
        cluster: &ClusterKey,
        indices: &[String],
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        let path = format!("/{}/_settings?master_timeout=10s&timeout=10s", segments(indices));
        let body = Bytes::from(json!(settings).to_string());
        self.request("put_index_settings", cluster, Method::Put, &path, Some(body)).await?.changed()
    }

    async fn delete_index(&self, cluster: &ClusterKey, name: &str, uuid: &str) -> Result<(), SearchError> {
        let path = format!("/{}/_settings/index.uuid?flat_settings=true&master_timeout=3s", segment(name));
        let answer = self.request("index_uuid", cluster, Method::Get, &path, None).await?;
        if answer.is_missing_index() {
            return Ok(());
        }
        let found: BTreeMap<String, Value> = answer.json()?;
        let live = found.get(name).and_then(|index| index.get("settings")?.get("index.uuid")?.as_str());
        match live {
            Some(live) if live == uuid => {}
            Some(_) => return Ok(()),
            None => return Err(SearchError::Unreachable("its answer is incomplete".to_owned())),
        }
        let path = format!("/{}?master_timeout=10s&timeout=10s", segment(name));
        let answer = self.request("delete_index", cluster, Method::Delete, &path, None).await?;
        if answer.is_missing_index() {
            return Ok(());
        }
        answer.ok()?;
        Ok(())
    }
}

impl ElasticHttp {
    async fn count(&self, cluster: &ClusterKey, index: &str, body: Value) -> Result<Counted, SearchError> {
        let path = format!("/{}{COUNT}", segment(index));
        let body = Bytes::from(body.to_string());
        self.request("count", cluster, Method::Post, &path, Some(body)).await?.json()
    }
}

impl Answer {
    fn is_missing_index(&self) -> bool {
        self.status == 404
            && error_of(&self.body).is_some_and(|(kind, _)| kind == "index_not_found_exception")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_as_one_segment() {
        assert_eq!(segment("messages.p001.g1"), "messages.p001.g1");
        assert_eq!(segment("a/../b?c=*"), "a%2F..%2Fb%3Fc%3D%2A");
        assert_eq!(segment(".."), "%2E%2E");
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ä".repeat(600)).chars().count(), 513);
    }
}
