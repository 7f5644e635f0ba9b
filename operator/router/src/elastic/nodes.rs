//! The nodes of a cluster that take requests: resolved again and again, each with a breaker and its idle connections.
//! Effects: name resolution, by the system unless another resolver is given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::connection::Connection;

/// How old the list of nodes may be.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_IDLE: usize = 64;
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Finds the addresses of a host and port.
pub type Resolver = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's own resolver.
pub fn system() -> Resolver {
    Arc::new(|authority| Box::pin(async move { Ok(tokio::net::lookup_host(authority).await?.collect()) }))
}

/// One node.
pub struct Node {
    /// Where it is.
    pub address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    breaker: Mutex<Breaker>,
}

#[derive(Default)]
struct Breaker {
    failures: u32,
    until: Option<Instant>,
}

impl Node {
    fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, idle: Mutex::default(), breaker: Mutex::default() })
    }

    /// A connection that is there already.
    pub fn idle(&self, edition: u64) -> Option<Connection> {
        let mut idle = self.idle.lock().ok()?;
        while let Some(connection) = idle.pop() {
            if connection.usable(edition) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < MAX_IDLE
        {
            idle.push(connection);
        }
    }

    /// It could not be reached, or did not answer.
    pub fn failed(&self) {
        if let Ok(mut breaker) = self.breaker.lock() {
            breaker.failures = breaker.failures.saturating_add(1);
            let pause = PAUSE.saturating_mul(1 << breaker.failures.min(10)).min(PAUSE_MAX);
            breaker.until = Some(Instant::now() + pause);
        }
        if let Ok(mut idle) = self.idle.lock() {
            idle.clear();
        }
    }

    /// It answered.
    pub fn answered(&self) {
        if let Ok(mut breaker) = self.breaker.lock() {
            *breaker = Breaker::default();
        }
    }

    /// Whether to try it: one request finds out whether a node that failed works again.
    fn admits(&self, now: Instant) -> bool {
        let Ok(mut breaker) = self.breaker.lock() else { return true };
        match breaker.until {
            Some(until) if until > now => false,
            Some(_) => {
                breaker.until = Some(now + PAUSE_MAX);
                true
            }
            None => true,
        }
    }
}

/// The nodes of a cluster.
pub struct Nodes {
    authority: String,
    resolver: Resolver,
    list: Mutex<(Option<Instant>, Vec<Arc<Node>>)>,
    resolving: AtomicBool,
    turn: AtomicUsize,
}

impl Nodes {
    /// Those that `authority` (host and port) resolves to.
    pub fn new(authority: String, resolver: Resolver) -> Self {
        Self {
            authority,
            resolver,
            list: Mutex::default(),
            resolving: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
        }
    }

    /// Nodes in the order in which to try them: in turns; those that failed lately only when no other is there.
    pub async fn candidates(self: &Arc<Self>) -> Result<Vec<Arc<Node>>, String> {
        let (resolved, mut nodes) = self.list.lock().map(|list| list.clone()).unwrap_or_default();
        let now = Instant::now();
        if resolved.is_none_or(|at| now.duration_since(at) >= RESOLVE_EVERY) {
            if nodes.is_empty() {
                self.resolve().await?;
                nodes = self.list.lock().map(|list| list.1.clone()).unwrap_or_default();
            } else if !self.resolving.swap(true, Ordering::AcqRel) {
                // Nobody waits for it: the nodes that are known do.
                let nodes = Arc::clone(self);
                tokio::spawn(async move {
                    nodes.resolve().await.ok();
                    nodes.resolving.store(false, Ordering::Release);
                });
            }
        }
        if nodes.is_empty() {
            return Err(format!("{} has no addresses", self.authority));
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
        nodes.rotate_left(start);
        let (mut ready, rest): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.admits(now));
        ready.extend(rest.into_iter().take(usize::from(ready.is_empty())));
        Ok(ready)
    }

    async fn resolve(&self) -> Result<(), String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("{} cannot be resolved: {error}", self.authority);
        let addresses = timeout(RESOLVE_TIMEOUT, (self.resolver)(self.authority.clone())).await;
        let mut addresses = addresses.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        addresses.sort_unstable();
        addresses.dedup();
        if let Ok(mut list) = self.list.lock() {
            let known: HashMap<SocketAddr, Arc<Node>> =
                list.1.drain(..).map(|node| (node.address, node)).collect();
            let node =
                |address: &SocketAddr| known.get(address).cloned().unwrap_or_else(|| Node::new(*address));
            *list = (Some(Instant::now()), addresses.iter().map(node).collect());
        }
        Ok(())
    }
}
