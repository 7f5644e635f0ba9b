//! Shapes of Elasticsearch's answers, 7.17 to 9, read leniently: what is missing is absent, never invented. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use searchcell_core::flat::flatten;
use searchcell_core::snapshot::{
    ElasticNode, IndexCounts, IndexFacts, NodeDisk, NodeLoad, OwnershipMark, ShardCopy, ShardState,
    Unassigned,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ports::{ClusterDetails, ClusterSummary, NodeReload};

/// `cluster_uuid` of a cluster that has not formed.
const NO_UUID: &str = "_na_";

/// `GET /_cluster/state/…`
#[derive(Debug, Default, Deserialize)]
pub struct ClusterState {
    #[serde(default)]
    cluster_uuid: Option<String>,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    state_uuid: Option<String>,
    #[serde(default)]
    master_node: Option<String>,
    #[serde(default)]
    nodes: BTreeMap<String, Node>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    routing_table: RoutingTable,
}

/// A node, in the cluster state and in `GET /_nodes`.
#[derive(Debug, Default, Deserialize)]
pub struct Node {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    roles: Option<Vec<String>>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// `GET /_nodes`
#[derive(Debug, Default, Deserialize)]
pub struct Nodes {
    #[serde(default)]
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    cluster_coordination: Coordination,
    #[serde(default)]
    indices: BTreeMap<String, IndexMetadata>,
}

#[derive(Debug, Default, Deserialize)]
struct Coordination {
    #[serde(default)]
    last_committed_config: BTreeSet<String>,
    #[serde(default)]
    voting_config_exclusions: Vec<VotingExclusion>,
}

#[derive(Debug, Default, Deserialize)]
struct VotingExclusion {
    #[serde(default)]
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
struct IndexMetadata {
    #[serde(default)]
    settings: Map<String, Value>,
    #[serde(default)]
    mappings: Value,
}

#[derive(Debug, Default, Deserialize)]
struct RoutingTable {
    #[serde(default)]
    indices: BTreeMap<String, IndexRouting>,
}

#[derive(Debug, Default, Deserialize)]
struct IndexRouting {
    #[serde(default)]
    shards: BTreeMap<String, Vec<Copy>>,
}

#[derive(Debug, Default, Deserialize)]
struct Copy {
    #[serde(default)]
    state: String,
    #[serde(default)]
    primary: bool,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    unassigned_info: Option<UnassignedInfo>,
}

#[derive(Debug, Default, Deserialize)]
struct UnassignedInfo {
    #[serde(default)]
    reason: String,
    at: Option<Timestamp>,
}

/// `GET /_cluster/settings?flat_settings=true`
#[derive(Debug, Default, Deserialize)]
pub struct Settings {
    /// The persistent ones.
    #[serde(default)]
    pub persistent: BTreeMap<String, Value>,
}

/// `GET /_stats/docs,store?level=shards`
#[derive(Debug, Default, Deserialize)]
pub struct Stats {
    #[serde(default)]
    indices: BTreeMap<String, IndexStats>,
}

#[derive(Debug, Default, Deserialize)]
struct IndexStats {
    #[serde(default)]
    shards: BTreeMap<String, Vec<ShardStats>>,
}

#[derive(Debug, Default, Deserialize)]
struct ShardStats {
    #[serde(default)]
    routing: ShardRouting,
    #[serde(default)]
    docs: Docs,
    #[serde(default)]
    store: Store,
}

#[derive(Debug, Default, Deserialize)]
struct ShardRouting {
    #[serde(default)]
    primary: bool,
    #[serde(default)]
    node: String,
}

#[derive(Debug, Default, Deserialize)]
struct Docs {
    #[serde(default)]
    count: i64,
    #[serde(default)]
    deleted: i64,
}

#[derive(Debug, Default, Deserialize)]
struct Store {
    #[serde(default)]
    size_in_bytes: i64,
}

/// `POST /_cluster/allocation/explain`
#[derive(Debug, Default, Deserialize)]
pub struct Explanation {
    #[serde(default)]
    current_state: String,
    #[serde(default)]
    allocate_explanation: String,
    #[serde(default)]
    node_allocation_decisions: Vec<NodeDecision>,
}

#[derive(Debug, Default, Deserialize)]
struct NodeDecision {
    #[serde(default)]
    deciders: Vec<Decider>,
}

#[derive(Debug, Default, Deserialize)]
struct Decider {
    #[serde(default)]
    decider: String,
    #[serde(default)]
    explanation: String,
}

impl Explanation {
    /// What keeps the copy from nodes, each reason once; `None`: it is on one.
    pub fn unassigned(self, index: &str, shard: i32, primary: bool) -> Option<Unassigned> {
        if self.current_state != "unassigned" {
            return None;
        }
        let mut deciders = BTreeMap::new();
        for decider in self.node_allocation_decisions.into_iter().flat_map(|node| node.deciders) {
            deciders.entry(decider.decider).or_insert(decider.explanation);
        }
        let mut texts: Vec<String> = vec![self.allocate_explanation];
        // The rule that no two copies are on one node is true of every copy, and says nothing.
        let telling = |name: &str| deciders.len() == 1 || name != "same_shard";
        texts.extend(deciders.iter().filter(|(name, _)| telling(name)).map(|(_, text)| text.clone()));
        texts.retain(|text| !text.is_empty());
        let explanation = texts.join("; ");
        Some(Unassigned {
            index: index.to_owned(),
            shard,
            primary,
            deciders: deciders.into_keys().collect(),
            explanation,
        })
    }
}

/// `GET /_nodes/stats/fs,process,jvm`
#[derive(Debug, Default, Deserialize)]
pub struct DiskStats {
    #[serde(default)]
    nodes: BTreeMap<String, NodeStats>,
}

#[derive(Debug, Default, Deserialize)]
struct NodeStats {
    #[serde(default)]
    name: String,
    #[serde(default)]
    fs: FileSystem,
    #[serde(default)]
    process: Process,
    #[serde(default)]
    jvm: Jvm,
}

/// What the node itself uses: its machine may have others.
#[derive(Debug, Default, Deserialize)]
struct Process {
    #[serde(default)]
    cpu: Cpu,
}

/// Less than nothing: it is not known.
#[derive(Debug, Default, Deserialize)]
struct Cpu {
    percent: Option<i16>,
}

#[derive(Debug, Default, Deserialize)]
struct Jvm {
    #[serde(default)]
    mem: Memory,
}

#[derive(Debug, Default, Deserialize)]
struct Memory {
    heap_max_in_bytes: Option<i64>,
    #[serde(default)]
    pools: Pools,
}

/// What outlived collections: the rest of the heap is mostly what nobody has collected yet.
#[derive(Debug, Default, Deserialize)]
struct Pools {
    #[serde(default)]
    old: Pool,
}

#[derive(Debug, Default, Deserialize)]
struct Pool {
    used_in_bytes: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
struct FileSystem {
    total: Option<FileSystemTotal>,
}

#[derive(Debug, Default, Deserialize)]
struct FileSystemTotal {
    total_in_bytes: Option<i64>,
    available_in_bytes: Option<i64>,
}

impl DiskStats {
    /// How busy nodes are, by name. A node that does not say both figures is left out.
    pub fn loads(&self) -> BTreeMap<String, NodeLoad> {
        let percent = |of: Option<i16>| of.and_then(|of| u8::try_from(of).ok());
        let load = |node: &NodeStats| {
            let cpu_percent = percent(node.process.cpu.percent)?;
            let (heap, old) = (node.jvm.mem.heap_max_in_bytes?, node.jvm.mem.pools.old.used_in_bytes?);
            let heap_percent = u8::try_from(old.checked_mul(100)?.checked_div(heap)?).ok()?;
            Some((node.name.clone(), NodeLoad { cpu_percent, heap_percent }))
        };
        self.nodes.values().filter_map(load).collect()
    }

    /// Disks by node name. `shards`: what the shards of each node take, by its id. A node that does not say both figures is left
    /// out.
    pub fn disks(self, shards: &BTreeMap<String, i64>) -> BTreeMap<String, NodeDisk> {
        let disk = |(id, node): (String, NodeStats)| {
            let total = node.fs.total?;
            let shards = shards.get(&id).copied().unwrap_or_default();
            let disk =
                NodeDisk { total: total.total_in_bytes?, available: total.available_in_bytes?, shards };
            Some((node.name, disk))
        };
        self.nodes.into_iter().filter_map(disk).collect()
    }
}

/// `POST /_nodes/reload_secure_settings`
#[derive(Debug, Default, Deserialize)]
pub struct Reloaded {
    #[serde(default)]
    nodes: BTreeMap<String, ReloadedNode>,
}

#[derive(Debug, Default, Deserialize)]
struct ReloadedNode {
    #[serde(default)]
    name: String,
    #[serde(default)]
    reload_exception: Option<Value>,
    #[serde(default)]
    keystore_digest: Option<String>,
}

impl Reloaded {
    /// What each node said.
    pub fn nodes(self) -> BTreeMap<String, NodeReload> {
        let said = |node: ReloadedNode| {
            let error = node.reload_exception.as_ref().map(reason_of);
            (node.name, NodeReload { error, digest: node.keystore_digest })
        };
        self.nodes.into_values().map(said).collect()
    }
}

/// The reason of an error, and that of its cause when that is another.
fn reason_of(error: &Value) -> String {
    let of = |error: &Value| {
        let text = |field: &str| error.get(field).and_then(Value::as_str);
        text("reason").or(text("type")).unwrap_or("it does not say why").to_owned()
    };
    let reason = of(error);
    match error.get("caused_by").map(of) {
        Some(cause) if !reason.contains(&cause) => format!("{reason}: {cause}"),
        _ => reason,
    }
}

impl ClusterState {
    /// The small reading. `None` when the body lacks what makes it one.
    pub fn summary(&self) -> Option<ClusterSummary> {
        let master =
            self.master_node.as_ref().and_then(|id| self.nodes.get(id)).map(|node| node.name.clone());
        Some(ClusterSummary {
            uuid: self.cluster_uuid.clone().filter(|uuid| uuid != NO_UUID),
            state_version: self.version?,
            state_uuid: self.state_uuid.clone()?,
            master,
            ..ClusterSummary::default()
        })
    }

    /// True when the nodes of the state say less than `GET /_nodes` would: versions and roles came with later
    /// releases.
    pub fn lacks_node_info(&self) -> bool {
        self.nodes.values().any(|node| node.version.is_none() || node.roles.is_none())
    }

    /// The big reading. Nodes that `info` does not know stay, without version and roles.
    pub fn details(self, mut info: Nodes, settings: Settings) -> ClusterDetails {
        let names: BTreeMap<&str, &str> =
            self.nodes.iter().map(|(id, node)| (id.as_str(), node.name.as_str())).collect();
        let mut indices = BTreeMap::new();
        for (name, metadata) in &self.metadata.indices {
            let routing = self.routing_table.indices.get(name);
            indices.insert(name.clone(), metadata.facts(routing, &names));
        }
        let mut nodes = BTreeMap::new();
        for (id, node) in &self.nodes {
            let more = info.nodes.remove(id).unwrap_or_default();
            let known = ElasticNode {
                id: id.clone(),
                version: node.version.clone().or(more.version).unwrap_or_default(),
                roles: node.roles.clone().or(more.roles).unwrap_or_default(),
                zone: node.attributes.get("zone").or_else(|| more.attributes.get("zone")).cloned(),
            };
            nodes.insert(node.name.clone(), known);
        }
        let Coordination { last_committed_config: voting, voting_config_exclusions } =
            self.metadata.cluster_coordination;
        let no_votes = voting_config_exclusions.into_iter().map(|of| of.node_name).collect();
        ClusterDetails { nodes, settings: settings.persistent, voting, no_votes, indices: indices.into() }
    }
}

impl IndexMetadata {
    fn facts(&self, routing: Option<&IndexRouting>, names: &BTreeMap<&str, &str>) -> IndexFacts {
        let mut copies: Vec<ShardCopy> = (routing.into_iter().flat_map(|routing| &routing.shards))
            .filter_map(|(shard, copies)| Some((shard.parse::<i32>().ok()?, copies)))
            .flat_map(|(shard, copies)| copies.iter().map(move |copy| copy.of(shard, names)))
            .collect();
        copies.sort_by(|a, b| (a.shard, !a.primary, &a.node).cmp(&(b.shard, !b.primary, &b.node)));
        // Flat or nested, as the release has it.
        let settings = flatten(&self.settings).0;
        let number = |name: &str| settings.get(name).and_then(integer).unwrap_or_default();
        IndexFacts {
            uuid: settings.get("index.uuid").and_then(Value::as_str).unwrap_or_default().to_owned(),
            primaries: number("index.number_of_shards"),
            replicas: number("index.number_of_replicas"),
            mark: mark(&self.mappings),
            copies,
            settings,
        }
    }
}

impl Copy {
    fn of(&self, shard: i32, names: &BTreeMap<&str, &str>) -> ShardCopy {
        let state = match self.state.as_str() {
            "STARTED" => ShardState::Started,
            "RELOCATING" => ShardState::Relocating,
            "INITIALIZING" => ShardState::Initializing,
            _ => ShardState::Unassigned,
        };
        let node = self.node.as_deref().and_then(|id| names.get(id)).map(|name| (*name).to_owned());
        let is_new =
            |info: &&UnassignedInfo| matches!(info.reason.as_str(), "INDEX_CREATED" | "REPLICA_ADDED");
        let new = self.unassigned_info.as_ref().filter(is_new);
        let new_since = new.and_then(|info| info.at).filter(|_| !state.is_started());
        ShardCopy { shard, primary: self.primary, state, node, new_since }
    }
}

/// Settings are strings in most places, numbers in some.
fn integer(value: &Value) -> Option<i32> {
    match value {
        Value::String(text) => text.parse().ok(),
        _ => value.as_i64().and_then(|number| number.try_into().ok()),
    }
}

/// `_meta.searchcell` of a mapping, with or without the type level that the cluster state still has.
fn mark(mappings: &Value) -> Option<OwnershipMark> {
    let with_type = mappings.as_object().into_iter().flat_map(|types| types.values());
    std::iter::once(mappings)
        .chain(with_type)
        .filter_map(|mapping| mapping.get("_meta")?.get("searchcell"))
        .find_map(|mark| OwnershipMark::deserialize(mark).ok())
}

impl Stats {
    /// Counts of primaries, by index.
    pub fn counts(&self) -> BTreeMap<String, IndexCounts> {
        let count = |index: &IndexStats| {
            let mut counts = IndexCounts::default();
            for copy in index.shards.values().flatten().filter(|copy| copy.routing.primary) {
                counts.documents += copy.docs.count;
                let stored = copy.docs.count.saturating_add(copy.docs.deleted);
                counts.largest_shard_documents = counts.largest_shard_documents.max(stored);
                counts.largest_shard_bytes = counts.largest_shard_bytes.max(copy.store.size_in_bytes);
            }
            counts
        };
        self.indices.iter().map(|(name, index)| (name.clone(), count(index))).collect()
    }

    /// Bytes of all copies, by the persistent id of their node.
    pub fn stored(&self) -> BTreeMap<String, i64> {
        let mut stored: BTreeMap<String, i64> = BTreeMap::new();
        for copy in self.indices.values().flat_map(|index| index.shards.values().flatten()) {
            let of_node = stored.entry(copy.routing.node.clone()).or_default();
            *of_node = of_node.saturating_add(copy.store.size_in_bytes);
        }
        stored
    }
}

/// What an error body says: type and reason, as far as it has them.
pub fn error_of(body: &[u8]) -> Option<(String, String)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match body.get("error")? {
        Value::String(reason) => Some((String::new(), reason.clone())),
        error => Some((
            error.get("type").and_then(text).unwrap_or_default(),
            error.get("reason").and_then(text).or_else(|| error.get("type").and_then(text))?,
        )),
    }
}
