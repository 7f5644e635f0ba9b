//! The world as the operator sees it, read once: objects of the namespaces into its caches, and what each Elasticsearch
//! cluster says. Effects: reads from the API server and from Elasticsearch, the latter through ports that the API server
//! forwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use elasticsearch::http::Url;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use searchcell_core::names::ClusterKey;
use searchcell_core::snapshot::{ElasticFacts, Reading};

use super::tunnel::Tunnels;
use crate::cell::asks;
use crate::elastic::client::ElasticHttp;
use crate::elastic::reader::{Ask, ElasticReader, ReaderTuning};
use crate::kube_io::access::CachedAccess;
use crate::kube_io::client::KubeIo;
use crate::kube_io::fanout::{Caches, OnUnreadable};
use crate::kube_io::once::{ListError, fill};
use crate::ports::{KubeApi, SearchApi, SearchError};

/// A cluster is far away, and asked once.
const DEADLINE: Duration = Duration::from_secs(30);

/// How clusters are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Through ports of pods that the API server forwards.
    Forwarded,
    /// By the names of their Services.
    Direct,
}

/// What there is.
pub struct World {
    /// Objects.
    pub caches: Arc<Caches>,
    /// What each cluster said.
    pub elastic: BTreeMap<ClusterKey, Reading<ElasticFacts>>,
    /// Objects that cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// Counts documents in the real clusters, as long as the way to them is open.
pub struct Counting {
    http: Arc<ElasticHttp>,
    _open: Option<Tunnels>,
}

impl Counting {
    /// As far as searches see them: nothing is refreshed for a plan.
    pub async fn documents_of(
        &self,
        cluster: &ClusterKey,
        index: &str,
        tenants: &[String],
    ) -> Result<BTreeMap<String, u64>, SearchError> {
        self.http.documents_of(cluster, index, tenants, false).await
    }
}

/// Why the world is not known.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A kind cannot be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// There is no way.
    #[error("no way to Elasticsearch can be opened: {0}")]
    Tunnel(#[from] std::io::Error),
    /// There is no client.
    #[error("the client for Elasticsearch cannot be built: {0}")]
    Client(#[from] elasticsearch::http::transport::BuildError),
    /// A cluster that serves cannot be read.
    #[error("Elasticsearch of cluster {cluster} cannot be read: {why}")]
    Elastic {
        /// Which one.
        cluster: String,
        /// Why.
        why: String,
    },
}

/// Reads the objects of these namespaces.
pub async fn objects(client: &Client, namespaces: &BTreeSet<String>) -> Result<World, WorldError> {
    let caches = Arc::new(Caches::default());
    let unreadable: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&unreadable);
    let on_unreadable: Box<OnUnreadable> = Box::new(move |about, why| {
        let (kind, name) =
            (about.kind.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default());
        let text = format!("{kind} {name} cannot be read and is left out: {why}");
        told.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    });
    for namespace in namespaces {
        fill(client, namespace, &caches, on_unreadable.as_ref()).await?;
    }
    let unreadable = unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(World { caches, elastic: BTreeMap::new(), unreadable })
}

impl World {
    /// Asks all clusters of these cells, by namespace and name.
    pub async fn ask(
        &mut self,
        client: &Client,
        io: &KubeIo,
        cells: &BTreeSet<(String, String)>,
        reach: Reach,
    ) -> Result<Counting, WorldError> {
        let mut all: Vec<Ask> = Vec::new();
        let mut pods = BTreeMap::new();
        for (namespace, name) in cells {
            let Some(cell) = io.search_cell(namespace, name) else { continue };
            let objects = io.cell_objects(namespace, name);
            for mut ask in asks(&cell, namespace, name, &objects) {
                // The file may ask for another version than the live object: what speaks against one is asked in any case.
                ask.version.clear();
                let serving: Vec<String> = names(&objects.pods, &ask.serving);
                if !serving.is_empty() {
                    pods.insert(ask.cluster.clone(), serving);
                }
                all.push(ask);
            }
        }
        let tunnels = match reach {
            Reach::Forwarded => Some(Tunnels::open(client.clone(), pods).await?),
            Reach::Direct => None,
        };
        let http = Arc::new(self.http(tunnels.as_ref())?);
        let tuning = ReaderTuning { deadline: DEADLINE, ..ReaderTuning::default() };
        let reader = ElasticReader::new(Arc::clone(&http), tuning);
        let read = |ask: Ask| {
            let reader = &reader;
            async move {
                let (reading, _) = reader.read(&ask, Duration::ZERO).await;
                (ask, reading)
            }
        };
        for (ask, reading) in futures::future::join_all(all.into_iter().map(read)).await {
            if let (Reading::Unavailable(why), false) = (&reading, ask.serving.is_empty()) {
                let problem = tunnels.as_ref().and_then(|tunnels| tunnels.problem(&ask.cluster));
                let why = problem.map_or_else(|| why.clone(), |problem| format!("{why}: {problem}"));
                return Err(WorldError::Elastic { cluster: ask.cluster.to_string(), why });
            }
            self.elastic.insert(ask.cluster, reading);
        }
        Ok(Counting { http, _open: tunnels })
    }

    fn http(&self, tunnels: Option<&Tunnels>) -> Result<ElasticHttp, WorldError> {
        let accesses = Arc::new(CachedAccess(Arc::clone(&self.caches)));
        let unheard = Arc::new(|_, _| {});
        let Some(tunnels) = tunnels else { return Ok(ElasticHttp::new(accesses, unheard)?) };
        let plain = tunnels.plain();
        let locate = move |cluster: &ClusterKey, scheme: &str| match plain.get(cluster) {
            Some(address) if scheme == "http" => format!("http://{address}"),
            _ => cluster.endpoint(scheme),
        };
        let proxy = Url::parse(&tunnels.proxy()).map_err(std::io::Error::other)?;
        Ok(ElasticHttp::with_locate(Box::new(locate), accesses, unheard)?.through(proxy))
    }
}

/// Names of the pods with these UIDs.
fn names(pods: &[Pod], uids: &BTreeSet<String>) -> Vec<String> {
    let is_one = |pod: &&Pod| pod.metadata.uid.as_ref().is_some_and(|uid| uids.contains(uid));
    pods.iter().filter(is_one).filter_map(|pod| pod.metadata.name.clone()).collect()
}
