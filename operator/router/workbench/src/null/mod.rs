//! An Elasticsearch without an index behind it: `_bulk` with the answers that the real one gives, and faults as they
//! are told to it while it runs. Effects: listens, keeps versions in memory.
//!
//! A cluster has nodes that take requests, each at an address of its own, and data nodes, which are only a number:
//! an index has its primary on one of them, and a fault may be of one of them.

pub mod bulk;
mod carry;
pub mod control;
pub mod rules;
mod serve;
pub mod store;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use self::rules::Rule;
use self::store::Store;
use crate::random::Random;

/// A cluster to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses of its nodes; port 0: any.
    pub nodes: Vec<SocketAddr>,
    /// Data nodes that primaries are spread over.
    pub data_nodes: usize,
    /// How long the version of a deleted document is remembered.
    pub gc_deletes: Duration,
    /// Whether documents are read, so that broken ones are refused.
    pub reads_documents: bool,
    /// Of faults that strike now and then.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)],
            data_nodes: 1,
            gc_deletes: Duration::from_secs(60),
            reads_documents: true,
            seed: 1,
        }
    }
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Bulks that came, whatever became of them.
    pub bulks: u64,
    /// Operations in them.
    pub operations: u64,
    /// Operations that were carried out; version conflicts are not.
    pub applied: u64,
    /// Sum over bulks of the indices in each.
    pub destinations: u64,
    /// Most indices in one bulk.
    pub most_destinations: u64,
    /// Largest body in bytes.
    pub largest: u64,
    /// Bulks by HTTP status of the answer; 0: there was none.
    pub statuses: BTreeMap<u16, u64>,
    /// Items answered, by status.
    pub items: BTreeMap<u16, u64>,
    /// Bulks in which at least one item, or the request, failed with another status than 409.
    pub failed_bulks: u64,
}

/// One document as it is, or was until it was deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Index.
    pub index: String,
    /// Id as it is stored.
    pub id: String,
    /// Version.
    pub version: i64,
    /// Whether it is there.
    pub lives: bool,
    /// How often it was written or deleted.
    pub writes: u32,
    /// Hash of its text: xxh3-64; 0 for a deleted one.
    pub hash: u64,
}

pub(crate) struct State {
    pub store: Store,
    pub rules: Vec<Rule>,
    pub counters: Counters,
    pub random: Random,
}

/// One cluster.
pub struct Cluster {
    options: Options,
    state: Mutex<State>,
    /// Changes whenever rules do.
    epoch: watch::Sender<u64>,
    nodes: Vec<Node>,
    /// Whether this is the time to say that it goes wrong: rules are looked at only when there are any.
    troubled: AtomicBool,
}

/// A node that takes requests.
pub(crate) struct Node {
    pub address: SocketAddr,
    pub up: watch::Sender<bool>,
    /// Whether it does what it was told last: listens, or does not.
    pub is_up: watch::Sender<bool>,
}

impl Cluster {
    /// Starts one; it serves when this returns.
    pub async fn start(options: Options) -> std::io::Result<Arc<Self>> {
        let mut nodes = Vec::new();
        let mut listeners = Vec::new();
        for address in &options.nodes {
            let listener = tokio::net::TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            nodes.push(Node { address, up: watch::Sender::new(true), is_up: watch::Sender::new(true) });
            listeners.push(listener);
        }
        let state = State {
            store: Store::new(options.gc_deletes),
            rules: Vec::new(),
            counters: Counters::default(),
            random: Random::new(options.seed),
        };
        let cluster = Arc::new(Self {
            options,
            state: Mutex::new(state),
            epoch: watch::Sender::new(0),
            nodes,
            troubled: AtomicBool::new(false),
        });
        for (position, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(serve::node(Arc::clone(&cluster), position, listener));
        }
        Ok(cluster)
    }

    /// Addresses of its nodes.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// The data node that has an index's primary.
    pub fn data_node(&self, index: &str) -> usize {
        let nodes = self.options.data_nodes.max(1) as u64;
        usize::try_from(xxh3_64(index.as_bytes()) % nodes).unwrap()
    }

    /// What goes wrong from now on; empty: nothing. Whatever hangs is closed.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.troubled.store(!rules.is_empty(), Ordering::Release);
        self.state.lock().unwrap().rules = rules;
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Kills a node, its connections with it, or brings it back at its address. It has happened when this returns.
    pub async fn set_up(&self, node: usize, up: bool) {
        let node = &self.nodes[node];
        node.up.send_replace(up);
        node.is_up.subscribe().wait_for(|is| *is == up).await.unwrap();
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.state.lock().unwrap().counters.clone()
    }

    /// Every document that is or was there, sorted.
    pub fn documents(&self) -> Vec<Document> {
        let state = self.state.lock().unwrap();
        let mut documents: Vec<Document> = (state.store.all())
            .map(|(index, id, entry)| Document {
                index: index.to_owned(),
                id: id.to_owned(),
                version: entry.version,
                lives: entry.lives(),
                writes: entry.writes,
                hash: entry.hash,
            })
            .collect();
        documents.sort_unstable();
        documents
    }

    /// Forgets documents and counts.
    pub fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        state.store = Store::new(self.options.gc_deletes);
        state.counters = Counters::default();
    }

    pub(crate) fn count(&self, index: Option<&str>) -> usize {
        self.state.lock().unwrap().store.count(index)
    }
}
