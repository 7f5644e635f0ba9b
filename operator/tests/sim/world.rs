//! The simulated world: one API server with its controllers and nodes, the Elasticsearch clusters that its pods
//! form, the networks in between, and the log of all that was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use searchcell_core::security::keystore::EntryFacts;
use tokio::time::Instant;

use crate::elastic::Elastic;
use crate::invariants::{History, Violation};
use crate::keystore::{self, Mounted};
use crate::objects::K;
use crate::rng::Rng;
use crate::secure::{self, Loaded};
use crate::store::Store;
use crate::{elastic, invariants, kubernetes, machines};

/// Everybody's handle on the world.
pub type Shared = Arc<Mutex<World>>;

pub fn lock(shared: &Shared) -> MutexGuard<'_, World> {
    shared.lock().unwrap()
}

/// A Kubernetes node.
#[derive(Clone, Debug)]
pub struct Node {
    pub zone: String,
    pub on: bool,
    pub cordoned: bool,
    /// Since when it is on or off.
    pub since: u64,
    pub capacity: usize,
}

/// A volume, or the `emptyDir` of a running container.
#[derive(Clone, Debug)]
pub struct Volume {
    pub zone: String,
    pub ephemeral: bool,
    /// Elasticsearch's persistent node id, written at the first start.
    pub node_id: String,
    /// The cluster whose state was committed here.
    pub cluster_uuid: Option<String>,
    /// `<index uuid>/<shard>` of the copies stored here.
    pub copies: BTreeSet<String>,
}

/// A running Elasticsearch process.
#[derive(Clone, Debug)]
pub struct Container {
    pub pod_uid: String,
    pub name: String,
    /// `<cell>/<cluster>`, from the pod's labels.
    pub identity: String,
    pub role: String,
    /// `node.attr.zone`.
    pub attribute: Option<String>,
    pub version: String,
    pub disk: String,
    /// `cluster.initial_master_nodes` as it stood when the container started.
    pub bootstrap: Vec<String>,
    pub join_at: u64,
    pub member_of: Option<String>,
    /// Certificates and users, with security.
    pub secure: Option<Loaded>,
    pub keystore: Option<Mounted>,
}

/// What is broken between the operator's processes and the world.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Operator processes that the API server does not hear.
    pub without_api: BTreeSet<usize>,
    /// Clusters (`<cell>/<cluster>`) that no operator process reaches.
    pub without_elastic: BTreeSet<String>,
    /// Percent of calls that fail before they have an effect.
    pub refuse: u64,
    /// Percent of calls that have their effect, and whose answer is lost.
    pub lose_answer: u64,
    /// Percent of calls that take seconds.
    pub slow: u64,
    /// Percent of watch events that are held back at each delivery.
    pub stale: u64,
}

/// One write, by whoever.
#[derive(Clone, Debug)]
pub struct Write {
    pub ms: u64,
    pub text: String,
}

pub struct World {
    pub ms: u64,
    pub rng: Rng,
    pub store: Store,
    pub nodes: BTreeMap<String, Node>,
    pub volumes: BTreeMap<String, Volume>,
    /// By pod name.
    pub containers: BTreeMap<String, Container>,
    /// Role and zone of the pods that never start.
    pub never: Option<(String, String)>,
    /// The Secret that a workload's template names, and its entries that only a restart loads, as its first process had them.
    pub restart_only: BTreeMap<String, (String, BTreeMap<String, EntryFacts>)>,
    /// How often the user has written another value of such an entry.
    pub restart_only_written: usize,
    /// When a pod's container is up, by pod UID.
    pub start_at: BTreeMap<String, u64>,
    pub elastic: Elastic,
    pub network: Network,
    /// Ingest nodes that the load asks for, by Deployment.
    pub load: BTreeMap<String, i32>,
    pub revisions: BTreeMap<(String, i64), String>,
    pub next_autoscale: u64,
    /// The clock of an operator process has jumped.
    pub clock_jumped: bool,
    /// Nobody takes snapshots.
    pub nobody_backs_up: bool,
    /// When two operators last led at the same time.
    pub contested_at: Option<u64>,
    /// Seconds that it was ahead at the most.
    pub clock_ahead_s: u64,
    pub serial: u64,
    /// Controllers are prompt: nothing is left to chance any more.
    pub calm: bool,
    /// Most milliseconds that making a copy of a shard takes.
    pub recovery_ms: u64,
    pub log: Vec<Write>,
    pub history: History,
    pub violation: Option<Violation>,
    /// Calls of the operator that write, whether they change anything or not.
    pub operator_writes: u64,
    last_tick: u64,
    started: Instant,
    started_ms: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        World {
            // Not at zero, so that volumes can be older than every cell.
            ms: 3_600_000,
            rng: Rng::new(seed),
            store: Store::default(),
            nodes: BTreeMap::new(),
            volumes: BTreeMap::new(),
            containers: BTreeMap::new(),
            never: None,
            restart_only: BTreeMap::new(),
            restart_only_written: 0,
            start_at: BTreeMap::new(),
            elastic: Elastic::default(),
            network: Network::default(),
            load: BTreeMap::new(),
            revisions: BTreeMap::new(),
            next_autoscale: 0,
            clock_jumped: false,
            nobody_backs_up: false,
            contested_at: None,
            clock_ahead_s: 0,
            serial: 0,
            calm: false,
            recovery_ms: 15_000,
            log: Vec::new(),
            history: History::default(),
            violation: None,
            operator_writes: 0,
            last_tick: 0,
            started: Instant::now(),
            started_ms: 3_600_000,
        }
    }

    /// True in `percent` of a hundred cases; always when calm.
    pub fn soon(&mut self, percent: u64) -> bool {
        self.calm || self.rng.chance(percent)
    }

    pub fn write_log(&mut self, who: &str, verb: &str, kind: K, name: &str, detail: &str) {
        self.note(format!("{who}: {verb} {kind} {name} {detail}"));
    }

    pub fn note(&mut self, text: String) {
        self.log.push(Write { ms: self.ms, text });
    }

    /// Brings the world to the present of the runtime's paused clock.
    pub fn advance(&mut self) {
        self.ms = self.started_ms + self.started.elapsed().as_millis() as u64;
        if self.ms >= self.last_tick + 400 {
            self.tick();
        }
    }

    /// Everybody but the operator has a turn.
    pub fn tick(&mut self) {
        self.last_tick = self.ms;
        kubernetes::tick(self);
        machines::tick(self);
        secure::tick(self);
        keystore::tick(self);
        elastic::tick(self);
        invariants::on_tick(self);
    }

    /// The first broken invariant is kept; what follows from it is noise.
    pub fn violated(&mut self, invariant: &'static str, message: impl Into<String>) {
        let message = message.into();
        self.note(format!("VIOLATION of {invariant}: {message}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, message, ms: self.ms });
        }
    }

    /// Last lines of the log.
    pub fn tail(&self, lines: usize) -> String {
        let from = self.log.len().saturating_sub(lines);
        let line =
            |write: &Write| format!("{:>9.3}s  {}", (write.ms - self.started_ms) as f64 / 1000.0, write.text);
        self.log[from..].iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
