//! What is known of each Elasticsearch cluster: one small request when a reading is too old, the big ones only when
//! the small one says that something changed. Reads only.
//!
//! A sick cluster costs one deadline, then its breaker answers for it; nobody waits for it who does not ask for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use searchcell_core::names::ClusterKey;
use searchcell_core::snapshot::{
    Asked, ElasticFacts, IndexFacts, Preflight, Reading, ShardState, Shutdowns, Unassigned,
};
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::elastic::breaker::Breaker;
use crate::ports::{ClusterDetails, ClusterSizes, ClusterSummary, SearchApi, SearchError};

/// Said of a cluster none of whose nodes takes requests.
pub const NOT_SERVING: &str = "no node serves HTTP yet";

/// How the reader behaves.
#[derive(Clone, Copy, Debug)]
pub struct ReaderTuning {
    /// Longest time that reading one cluster may take.
    pub deadline: Duration,
    /// Details are read again at least this often, even when nothing seems to have changed.
    pub details_max_age: Duration,
    /// Documents, bytes and disks are read at most this often.
    pub sizes_every: Duration,
    /// After a failure they are read again as soon as this: where nothing is known of its disks, nothing is placed.
    pub sizes_retry: Duration,
    /// Elasticsearch is asked this often at most why a copy has no node: about one copy, however many there are.
    pub explain_every: Duration,
    /// What speaks against another version is asked for this often at most.
    pub preflight_every: Duration,
    /// The tenants of an index with a large shard are counted this often at most.
    pub tenants_every: Duration,
    /// After failures.
    pub breaker: Backoff,
    /// Clusters read at the same time on behalf of one pass.
    pub parallel: usize,
}

impl Default for ReaderTuning {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            details_max_age: Duration::from_secs(600),
            sizes_every: Duration::from_secs(300),
            sizes_retry: Duration::from_secs(10),
            explain_every: Duration::from_secs(60),
            preflight_every: Duration::from_secs(30),
            tenants_every: Duration::from_secs(6 * 3600),
            breaker: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) },
            parallel: 8,
        }
    }
}

/// Asks for one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which one.
    pub cluster: ClusterKey,
    /// UIDs of the ready pods behind the cluster's Service. Nothing is asked while there are none.
    pub serving: BTreeSet<String>,
    /// Whether nodes restart, by whomever: what Elasticsearch was told of that has to be known.
    pub restarts: bool,
    /// Version that the spec asks for: while no node has it, what speaks against it has to be known.
    pub version: String,
}

impl Ask {
    /// Whether no node has the version that is asked for.
    fn is_new_to(&self, facts: &ElasticFacts) -> bool {
        !facts.nodes.is_empty() && facts.nodes.values().all(|node| node.version != self.version)
    }
}

/// Readings, and when it is worth reading again where a breaker stands in the way.
#[derive(Debug, Default)]
pub struct Readings {
    /// By name of the cluster within its cell.
    pub by_cluster: BTreeMap<String, Reading<ElasticFacts>>,
    /// Shortest time until a breaker lets a question through.
    pub retry_after: Option<Duration>,
}

/// Cached readings of all clusters.
pub struct ElasticReader<E> {
    api: Arc<E>,
    tuning: ReaderTuning,
    entries: Mutex<BTreeMap<ClusterKey, Arc<tokio::sync::Mutex<Entry>>>>,
}

/// Tenants with their documents, the largest first.
type Tenants = Vec<(String, u64)>;

struct Entry {
    breaker: Breaker,
    serving: BTreeSet<String>,
    last: Option<(Instant, Reading<ElasticFacts>)>,
    details: Option<(Instant, ClusterSummary, ClusterDetails)>,
    sizes: Option<ClusterSizes>,
    sizes_due: Option<Instant>,
    /// Nodes that there were when sizes were last asked for.
    sized: BTreeSet<String>,
    unassigned: Option<Unassigned>,
    explain_due: Option<Instant>,
    /// By index, until when it stays.
    tenants: BTreeMap<String, (Instant, Option<Tenants>)>,
    preflight: Preflight,
    preflight_due: Option<Instant>,
    /// Elasticsearch may have been told of restarts, by this operator or by one before it.
    may_be_told: bool,
}

impl<E: SearchApi> ElasticReader<E> {
    /// A reader that knows nothing yet.
    pub fn new(api: Arc<E>, tuning: ReaderTuning) -> Self {
        Self { api, tuning, entries: Mutex::default() }
    }

    /// Reads several clusters, a bounded number at a time, each no older than `max_age`.
    pub async fn read_all(&self, asks: Vec<Ask>, max_age: Duration) -> Readings {
        let mut readings = Readings::default();
        let mut waiting: Vec<BoxFuture<'_, _>> = Vec::with_capacity(asks.len());
        for ask in asks {
            let read = async move {
                let (reading, retry_after) = self.read(&ask, max_age).await;
                (ask.cluster.cluster, reading, retry_after)
            };
            waiting.push(read.boxed());
        }
        let mut running = futures::stream::iter(waiting).buffer_unordered(self.tuning.parallel.max(1));
        while let Some((name, reading, retry_after)) = running.next().await {
            readings.by_cluster.insert(name, reading);
            readings.retry_after = shortest(readings.retry_after, retry_after);
        }
        readings
    }

    /// Reads one cluster. The second part is when to try again, if a breaker is open.
    pub async fn read(&self, ask: &Ask, max_age: Duration) -> (Reading<ElasticFacts>, Option<Duration>) {
        let entry = self.entry(&ask.cluster);
        let mut entry = entry.lock().await;
        if ask.serving.is_empty() {
            entry.serving.clear();
            entry.last = None;
            return (Reading::Unavailable(NOT_SERVING.to_owned()), None);
        }
        if ask.serving.difference(&entry.serving).next().is_some() {
            entry.breaker.give_a_chance();
        }
        entry.serving.clone_from(&ask.serving);

        let now = Instant::now();
        if let Some(wait) = entry.breaker.open_for(now) {
            let why = match &entry.last {
                Some((_, Reading::Unavailable(why))) => why.clone(),
                _ => "it does not answer".to_owned(),
            };
            return (Reading::Unavailable(why), Some(wait));
        }
        if let Some((at, reading @ Reading::Known(_))) = &entry.last
            && now.saturating_duration_since(*at) < max_age
        {
            let reading = reading.clone();
            let Some(facts) = reading.known() else { return (reading, None) };
            let lacks_shutdowns = ask.restarts && facts.shutdowns == Shutdowns::Unknown;
            let lacks_preflight = ask.is_new_to(facts) && facts.preflight == Preflight::default();
            if lacks_shutdowns {
                self.read_shutdowns(&ask.cluster, &mut entry).await;
            }
            if lacks_preflight {
                self.refresh_preflight(&ask.cluster, &mut entry).await;
            }
            return (entry.last.as_ref().map_or(reading, |(_, reading)| reading.clone()), None);
        }

        let read = timeout(self.tuning.deadline, self.facts(&ask.cluster, &mut entry)).await;
        let reading = match read {
            Ok(Ok(facts)) => Reading::Known(facts),
            Ok(Err(why)) => Reading::Unavailable(why),
            Err(_) => Reading::Unavailable("it does not answer in time".to_owned()),
        };
        let now = Instant::now();
        match &reading {
            Reading::Known(_) => entry.breaker.succeeded(),
            Reading::Unavailable(_) => entry.breaker.failed(now),
        }
        let retry_after = entry.breaker.open_for(now);
        if let (Reading::Unavailable(why), Some((_, Reading::Known(_)))) = (&reading, &entry.last) {
            tracing::info!(cluster = %ask.cluster, why, "was not read");
        }
        entry.last = Some((now, reading.clone()));
        if reading.known().is_some() {
            self.refresh_sizes(&ask.cluster, &mut entry).await;
            self.refresh_unassigned(&ask.cluster, &mut entry).await;
            if ask.restarts || entry.may_be_told {
                self.read_shutdowns(&ask.cluster, &mut entry).await;
            }
            if reading.known().is_some_and(|facts| ask.is_new_to(facts)) {
                self.refresh_preflight(&ask.cluster, &mut entry).await;
            }
            if let Some((_, Reading::Known(facts))) = &entry.last {
                return (Reading::Known(facts.clone()), None);
            }
        }
        (reading, retry_after)
    }

    /// The tenants with the most documents in an index: asked for once in a while, whatever came of it, for it is the
    /// only question that looks at documents of a large shard. `None`: not known.
    pub async fn largest_tenants(&self, cluster: &ClusterKey, index: &str, field: &str) -> Option<Tenants> {
        let entry = self.entry(cluster);
        let now = Instant::now();
        {
            let mut entry = entry.lock().await;
            entry.tenants.retain(|_, (due, _)| now < *due);
            if let Some((_, known)) = entry.tenants.get(index) {
                return known.clone();
            }
            // Nobody else asks meanwhile.
            entry.tenants.insert(index.to_owned(), (now + self.tuning.tenants_every, None));
        }
        let counted = self.api.largest_tenants(cluster, index, field).await;
        let known =
            counted.map_err(|error| tracing::info!(%cluster, index, %error, "its tenants were not counted"));
        let known = known.ok();
        let mut entry = entry.lock().await;
        entry.tenants.insert(index.to_owned(), (now + self.tuning.tenants_every, known.clone()));
        known
    }

    /// The operator itself changed something: the next reading asks anew.
    pub async fn changed(&self, cluster: &ClusterKey) {
        let entry = self.entry(cluster);
        let mut entry = entry.lock().await;
        entry.details = None;
        entry.may_be_told = true;
        if matches!(entry.last, Some((_, Reading::Known(_)))) {
            entry.last = None;
        }
    }

    /// Forgets the clusters of a cell that is gone.
    pub fn forget(&self, namespace: &str, cell: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|key, _| key.namespace != namespace || key.cell != cell);
    }

    fn entry(&self, cluster: &ClusterKey) -> Arc<tokio::sync::Mutex<Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Entry {
            breaker: Breaker::new(self.tuning.breaker),
            serving: BTreeSet::new(),
            last: None,
            details: None,
            sizes: None,
            sizes_due: None,
            sized: BTreeSet::new(),
            unassigned: None,
            explain_due: None,
            tenants: BTreeMap::new(),
            preflight: Preflight::default(),
            preflight_due: None,
            may_be_told: true,
        };
        Arc::clone(entries.entry(cluster.clone()).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(new()))))
    }

    async fn facts(&self, cluster: &ClusterKey, entry: &mut Entry) -> Result<ElasticFacts, String> {
        let summary = self.api.summary(cluster).await.map_err(|error| error.to_string())?;
        let current = matches!(&entry.details, Some((at, of, _))
            if *of == summary && at.elapsed() < self.tuning.details_max_age);
        if !current {
            entry.details = None;
            let details = self.api.details(cluster).await.map_err(|error| error.to_string())?;
            entry.details = Some((Instant::now(), summary.clone(), details));
        }
        let details = entry.details.as_ref().map(|(_, _, details)| details.clone()).unwrap_or_default();
        Ok(ElasticFacts {
            uuid: summary.uuid,
            known_as: summary.known_as,
            master: summary.master,
            nodes: details.nodes,
            settings: details.settings,
            indices: details.indices,
            voting: details.voting,
            no_votes: details.no_votes,
            loads: entry.sizes.as_ref().map(|sizes| sizes.loads.clone()),
            shutdowns: Shutdowns::Unknown,
            preflight: Preflight::default(),
            unassigned: None,
            counts: entry.sizes.as_ref().map(|sizes| sizes.counts.clone()),
            disks: entry.sizes.as_ref().map(|sizes| sizes.disks.clone()),
        })
    }

    /// What is not known opens no gate: an error leaves it unknown, and the next pass asks again.
    async fn read_shutdowns(&self, cluster: &ClusterKey, entry: &mut Entry) {
        let read = timeout(self.tuning.deadline, self.api.shutdowns(cluster)).await;
        let shutdowns = match read {
            Ok(Ok(shutdowns)) => shutdowns,
            Ok(Err(error)) => {
                tracing::debug!(%cluster, %error, "announced restarts were not read");
                Shutdowns::Unknown
            }
            Err(_) => Shutdowns::Unknown,
        };
        entry.may_be_told = match &shutdowns {
            Shutdowns::Unknown => entry.may_be_told,
            Shutdowns::NotAvailable => false,
            Shutdowns::Known(records) => !records.is_empty(),
        };
        if let Some((_, Reading::Known(facts))) = &mut entry.last {
            facts.shutdowns = shutdowns;
        }
    }

    /// An error leaves it unknown, and it is asked again soon.
    async fn refresh_preflight(&self, cluster: &ClusterKey, entry: &mut Entry) {
        if entry.preflight_due.is_none_or(|due| Instant::now() >= due) {
            let asked = async { tokio::join!(self.api.deprecations(cluster), self.api.snapshots(cluster)) };
            let (deprecations, snapshots) = match timeout(self.tuning.deadline, asked).await {
                Ok((deprecations, snapshots)) => (known(cluster, deprecations), known(cluster, snapshots)),
                Err(_) => (Asked::Unknown, Asked::Unknown),
            };
            let is_whole = deprecations != Asked::Unknown && snapshots != Asked::Unknown;
            let wait = if is_whole { self.tuning.preflight_every } else { self.tuning.sizes_retry };
            entry.preflight_due = Some(Instant::now() + wait);
            entry.preflight = Preflight { deprecations, snapshots };
        }
        if let Some((_, Reading::Known(facts))) = &mut entry.last {
            facts.preflight.clone_from(&entry.preflight);
        }
    }

    /// Asks about the first copy without a node, primaries first. What was said of it stays while what keeps it stays.
    async fn refresh_unassigned(&self, cluster: &ClusterKey, entry: &mut Entry) {
        let Some((_, Reading::Known(facts))) = &mut entry.last else { return };
        let lost = |(name, index): (&String, &IndexFacts)| {
            let copies = index.copies.iter().filter(|copy| copy.state == ShardState::Unassigned);
            copies.map(|copy| (!copy.primary, name.clone(), copy.shard)).min()
        };
        let ours = facts.indices.iter().filter(|(_, index)| index.mark.is_some());
        let Some((is_replica, index, shard)) = ours.filter_map(lost).min() else {
            entry.unassigned = None;
            return;
        };
        let of_same =
            |known: &Unassigned| known.index == index && known.shard == shard && known.primary != is_replica;
        entry.unassigned = entry.unassigned.take().filter(of_same);
        if entry.explain_due.is_none_or(|due| Instant::now() >= due) {
            entry.explain_due = Some(Instant::now() + self.tuning.explain_every);
            let asked = self.api.explain(cluster, &index, shard, !is_replica);
            match timeout(self.tuning.deadline, asked).await {
                Ok(Ok(now)) => {
                    let same =
                        |known: &Unassigned| now.as_ref().is_some_and(|now| now.deciders == known.deciders);
                    if !entry.unassigned.as_ref().is_some_and(same) {
                        entry.unassigned = now;
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(%cluster, %error, "a copy without a node was not explained")
                }
                Err(_) => tracing::debug!(%cluster, "a copy without a node was not explained in time"),
            }
        }
        facts.unassigned.clone_from(&entry.unassigned);
    }

    /// When they cannot be read the older ones stay, and the reading is good all the same: they change slowly.
    async fn refresh_sizes(&self, cluster: &ClusterKey, entry: &mut Entry) {
        // A node that has joined since has a disk that nobody has looked at: without it, nothing is placed in its zone.
        let Some((_, Reading::Known(facts))) = &entry.last else { return };
        let has_joined = facts.nodes.keys().any(|node| !entry.sized.contains(node));
        if !has_joined && entry.sizes_due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        entry.sized = facts.nodes.keys().cloned().collect();
        let read = timeout(self.tuning.deadline, self.api.sizes(cluster)).await;
        let now = Instant::now();
        match read {
            Ok(Ok(sizes)) => {
                entry.sizes_due = Some(now + self.tuning.sizes_every);
                if let Some((_, Reading::Known(facts))) = &mut entry.last {
                    (facts.counts, facts.disks) = (Some(sizes.counts.clone()), Some(sizes.disks.clone()));
                    facts.loads = Some(sizes.loads.clone());
                }
                entry.sizes = Some(sizes);
                return;
            }
            Ok(Err(error)) => tracing::debug!(%cluster, %error, "sizes were not read"),
            Err(_) => tracing::debug!(%cluster, "sizes were not read in time"),
        }
        entry.sizes_due = Some(now + self.tuning.sizes_retry);
    }
}

fn known<T>(cluster: &ClusterKey, asked: Result<Asked<T>, SearchError>) -> Asked<T> {
    let known = asked.map_err(|error| tracing::debug!(%cluster, %error, "was not asked before an upgrade"));
    known.unwrap_or_default()
}

/// The shorter of two optional waits.
pub fn shortest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
