//! What a queue has to offer so that a driver of it can be tested, and what tests are made of.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use searchcell_core::names::ClusterKey;
use searchcell_core::routing::{Located, Table, TableInput, TenantRules, build_table};
use searchcell_crds::{IdScope, Versioning};
use searchcell_router::fence::Fence;
use searchcell_router::flow::Core;
use searchcell_router::flow::limits::Limits;
use searchcell_router::hot::Hot;
use searchcell_router::routes::Directory;
use searchcell_router::settings::HotTenants;
use searchcell_router::source::message::Rules;
use searchcell_router::source::meters::QueueMeters;
use searchcell_router::source::nats::Lane;
use searchcell_router::source::pump::{Pump, Works};
use searchcell_router::source::settings::HeaderNames;
use searchcell_router::source::{Credit, Delivery, OVERHEAD, Source};
use tokio::sync::watch;
use tokio::time::Instant;

use super::elastic::{Elastic, Rng, Weather, World};

/// Every message that is held is delivered again after this time, unless its lease is extended: so long that a machine
/// with much to do extends it.
pub const ACK_WAIT: Duration = Duration::from_secs(4);
/// Generous: a test waits for conditions, never for a speed.
pub const LONG: Duration = Duration::from_secs(90);

/// A message somewhere else.
#[derive(Clone, Debug)]
pub struct Copy {
    pub payload: String,
    pub headers: BTreeMap<String, String>,
}

/// A queue of one kind.
#[allow(async_fn_in_trait)]
pub trait Queue {
    type Source: Source;
    /// Publishes, and returns when the queue has it.
    async fn publish(&self, payload: &str, headers: &[(&str, &str)]);
    /// A reader.
    fn source(&self, lane: Lane) -> Self::Source;
    /// Copies of dead messages.
    async fn dead(&self) -> Vec<Copy>;
    /// Messages that the queue has not seen acknowledged.
    async fn left(&self, lane: Lane) -> usize;
    /// Whether copies are taken.
    async fn takes_copies(&self, yes: bool);
    /// The queue dies, and comes back with what it had.
    async fn restart(&mut self);
    /// What drivers have counted; none for one that does not.
    fn meters(&self) -> Option<Arc<QueueMeters>>;
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < LONG, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Polls until so many messages came, in all; never returns more than the credit in one go.
pub async fn take<S: Source>(source: &mut S, messages: usize, count: usize) -> Vec<Delivery> {
    let started = Instant::now();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(started.elapsed() < LONG, "{} of {count} messages came", all.len());
        let credit = Credit { bytes: source.capabilities().largest + 64 * OVERHEAD, messages };
        match source.poll(credit).await {
            Ok(deliveries) => {
                assert!(deliveries.len() <= messages, "{} came, {messages} may", deliveries.len());
                let bytes: usize = deliveries.iter().map(Delivery::cost).sum();
                assert!(bytes <= credit.bytes, "{bytes} bytes came, {} may", credit.bytes);
                all.extend(deliveries);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    all
}

/// Elasticsearch, and a router's inside on it.
pub struct Inside {
    pub core: Arc<Core>,
    pub directory: Arc<Directory>,
    pub meters: Arc<QueueMeters>,
    stop: watch::Sender<bool>,
    pumps: Vec<tokio::task::JoinHandle<()>>,
    grace: Duration,
}

pub fn limits() -> Limits {
    Limits {
        budget: 8 << 20,
        linger: Duration::from_millis(50),
        linger_max: Duration::from_millis(200),
        hold: Duration::from_secs(1),
        backoff_max: Duration::from_millis(500),
        ..Limits::default()
    }
}

/// A collection of four indices on two clusters, `guilds-a` and `guilds-b`.
pub fn table(versioning: Versioning, fan_out: bool) -> Table {
    let located = |number: usize| Located {
        name: format!("messages.p{number:03}.g1"),
        cluster: ClusterKey::new("ns", "guilds", ["a", "b"][number % 2]),
        is_secure: false,
    };
    let input = TableInput {
        namespace: "ns".into(),
        collection: "messages".into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out, id_scope: IdScope::Tenant },
        versioning,
        pool: Some((0..4).map(located).map(Some).collect()),
        dedicated: BTreeMap::new(),
    };
    build_table(&input, 7).unwrap()
}

/// The cluster that a tenant is on.
pub fn cluster_of(table: &Table, tenant: &str) -> String {
    let index = &table.indices[usize::try_from(table.lookup(tenant).unwrap().read.unwrap()).unwrap()];
    table.clusters[usize::try_from(index.cluster).unwrap()].name.clone()
}

impl Inside {
    /// Elasticsearch is `world`, which outlives routers.
    pub fn start<Q: Queue>(
        queue: &Q,
        world: &Arc<Mutex<World>>,
        table: &Table,
        limits: Limits,
        parks: bool,
    ) -> Self {
        let elastic = Arc::new(Elastic { world: Arc::clone(world), rng: Arc::new(Mutex::new(Rng::new(3))) });
        let core = Arc::new(Core::start(elastic, limits, Arc::default(), 2, Duration::from_secs(3), 1));
        let directory = Arc::new(Directory::default());
        directory.apply("messages", table.clone());
        let meters = queue.meters().unwrap_or_default();
        let (stop, stopping) = watch::channel(false);
        let grace = Duration::from_secs(20);
        let pump = |lane: Lane| {
            let source = queue.source(lane);
            let rules = Rules {
                names: HeaderNames::default(),
                parks: parks && lane == Lane::Main,
                delays: source.capabilities().delays,
                meters: Arc::clone(&meters),
                waited: AtomicU64::new(0),
            };
            let works = Works {
                name: lane.name(),
                core: Arc::clone(&core),
                directory: Arc::clone(&directory),
                bulk: (1 << 20, 2_000),
                collections: vec!["messages".into()],
                collection: Some("messages".into()),
                most: 5_000,
                rules: Arc::new(rules),
                hot: Arc::new(Hot::new(HotTenants::default())),
                fence: Arc::new(Fence::new(None, Instant::now())),
            };
            tokio::spawn(Pump::new(source, works).run(stopping.clone(), grace))
        };
        let mut pumps = vec![pump(Lane::Main)];
        if parks {
            pumps.push(pump(Lane::Parked));
        }
        Self { core, directory, meters, stop, pumps, grace }
    }

    /// As the router stops.
    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.core.stop(self.grace - Duration::from_secs(3)).await;
        for pump in self.pumps {
            pump.await.unwrap();
        }
        assert_eq!(self.core.budget().used(), 0, "bytes leaked");
        assert!(self.core.budget().peak() <= self.core.budget().limit());
    }
}

pub fn world() -> Arc<Mutex<World>> {
    Arc::new(Mutex::new(World { max_body: 1 << 20, ..World::default() }))
}

pub fn weather(world: &Mutex<World>, cluster: &str, weather: Weather) {
    world.lock().unwrap().weather.insert(cluster.to_owned(), weather);
}

/// Documents by their stored id, with their version.
pub fn documents(world: &Mutex<World>) -> BTreeMap<String, i64> {
    let world = world.lock().unwrap();
    world.documents.iter().map(|((_, _, id), (version, _))| (id.clone(), *version)).collect()
}

/// Waits until the queue has seen everything acknowledged, also what was parked.
pub async fn empty<Q: Queue>(queue: &Q) {
    let all = || async { queue.left(Lane::Main).await + queue.left(Lane::Parked).await == 0 };
    until("everything is acknowledged", all).await;
}
