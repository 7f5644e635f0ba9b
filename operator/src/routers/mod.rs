//! Pods of routers, while this process leads: a pod without the router that it asked for is told so (`missing`), a new
//! table is brought to its routers at once (`nudge`), what they have is read from them (`read`), and somebody is told of
//! tenants that they find hot (`hot`). What is decided is in `searchcell_core::inject`. Effects: reads pods, annotates
//! them, writes events, asks routers.

mod hot;
mod missing;
mod nudge;
mod read;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use searchcell_core::inject::hot::HotMemory;
use searchcell_core::inject::routers::{Reading, RouterPod};
use searchcell_core::names::{ANNOTATION_TABLE_GENERATION, routing_table};
use searchcell_core::snapshot::annotation;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::kube_io::client::{KubeIo, OnRequest};
use crate::kube_io::fanout::Caches;
use crate::leadership::Leadership;
use crate::report::{Metrics, Report};
use watches::{Unrouted, Watched, Watches};

/// How often is looked, in memory, whether somebody is to be told something.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often routers are asked what they have. For them this is a sign of life: those that this operator injects hold back
/// some writes when they have none for five minutes (`fence.after`).
const READ_EVERY: Duration = Duration::from_secs(60);
/// How long after it began to lead, first.
const FIRST_READ: Duration = Duration::from_secs(10);
/// Requests at once, to the API server or to routers.
const AT_ONCE: usize = 16;

/// What routers are, of all that is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// They have every table, and nothing of an older one is in flight.
    pub current: i64,
    /// They have every table.
    pub draining: i64,
    /// They have not every table.
    pub behind: i64,
    /// They did not answer.
    pub unread: i64,
    /// By how much the worst is behind.
    pub lag: i64,
}

/// Looks after the pods of routers.
pub struct Routers {
    /// Client.
    pub client: Client,
    /// What is known of collections.
    pub kube: Arc<KubeIo>,
    /// The same.
    pub caches: Arc<Caches>,
    /// Namespaces that are watched; empty: all.
    pub namespaces: Vec<String>,
    /// Whether pods get routers from this operator, so that one without is missed.
    pub injects: bool,
    /// Who may write.
    pub leadership: Leadership,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// Events.
    pub report: Arc<Report>,
    /// Hears of requests.
    pub on_request: Arc<OnRequest>,
}

/// What has been said already, so that it is said once.
#[derive(Default)]
struct Told {
    /// Generation that the kubelet of a pod was told of, by UID of the pod.
    generations: BTreeMap<String, i64>,
    /// Pods that were told that they have no router, by UID; whether they have none.
    missing: BTreeMap<String, bool>,
    /// Pods that were told which cells their routers lack, by UID.
    outdated: BTreeMap<String, BTreeSet<String>>,
    /// Tenants that somebody was told of.
    hot: HotMemory,
}

impl Routers {
    /// Looks after them for as long as it runs.
    pub async fn run(self) {
        let watched = Arc::new(Watched::default());
        let mut watches = Watches::start(&self.client, &self.namespaces, &watched);
        let (mut told, began) = (Told::default(), Instant::now());
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reads = interval_at(Instant::now() + FIRST_READ, READ_EVERY);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    if self.injects {
                        watches.follow(&self.client, &self.cell_namespaces(), &watched);
                    }
                    let pods = watched.routers();
                    self.nudge(&pods, &mut told).await;
                    self.tell_missing(&pods, &watched.unrouted(), &mut told).await;
                }
                _ = reads.tick() => {
                    let pods = watched.routers();
                    self.tell_outdated(&pods, &mut told);
                    let (census, hot) = self.read(&pods).await;
                    self.metrics.routers(census);
                    self.tell_hot(&hot, began.elapsed(), &mut told);
                }
                () = watches.ended() => return,
            }
        }
    }

    /// Namespaces in which a pod may ask for a router.
    fn cell_namespaces(&self) -> BTreeSet<String> {
        let slots = self.caches.placements.slots().into_iter().chain(self.caches.cells.slots());
        slots.map(|(namespace, _)| namespace).collect()
    }

    /// Generations of the tables of a namespace, by collection. From an annotation: tables are large.
    fn published(&self, namespace: &str) -> BTreeMap<String, i64> {
        let slots = self.caches.tables.slots().into_iter().filter(|(of, _)| of == namespace);
        let generation = |collection: &str| {
            let maps = self.caches.tables.shared(namespace, collection);
            let name = routing_table(collection);
            let map = maps.iter().find(|map| map.metadata.name.as_deref() == Some(name.as_str()))?;
            annotation(&map.metadata, ANNOTATION_TABLE_GENERATION)?.parse().ok()
        };
        slots.filter_map(|(_, collection)| Some((collection.clone(), generation(&collection)?))).collect()
    }

    /// The same for every namespace of some pods.
    fn published_for(&self, pods: &[RouterPod]) -> BTreeMap<String, BTreeMap<String, i64>> {
        let namespaces: BTreeSet<&String> = pods.iter().map(|pod| &pod.namespace).collect();
        namespaces.into_iter().map(|namespace| (namespace.clone(), self.published(namespace))).collect()
    }
}
