//! Starts and stops everything. Effects: all of them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::elastic::ElasticHttp;
use crate::elastic::access::Accesses;
use crate::elastic::nodes::{self, Resolver};
use crate::fence::{self, Fence};
use crate::flow::Core;
use crate::flow::budget::Budget;
use crate::front::refresh::Refresher;
use crate::front::server::{self, TlsError};
use crate::front::{App, auth::Users};
use crate::hot::{self, Hot};
use crate::ids::Minter;
use crate::meters::Meters;
use crate::routes::{Directory, TableFile, watch as watch_tables};
use crate::settings::{Collection, Settings};
use crate::source::message::Rules;
use crate::source::nats::{Lane, Nats};
use crate::source::pump::{Pump, Works};
use crate::source::settings::{DeadLetter, SourceSettings};

/// Time of the grace that is kept for telling queues what became of their messages.
const TELLING: Duration = Duration::from_secs(3);

/// Why the router does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened at.
    #[error("cannot listen at {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// The front's certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is no randomness.
    #[error("the system has no randomness")]
    Random,
}

/// A router that runs.
pub struct Router {
    /// Where clients connect.
    pub address: std::net::SocketAddr,
    /// Where metrics are.
    pub admin: std::net::SocketAddr,
    /// Everything inside.
    pub app: Arc<App>,
    stop: watch::Sender<bool>,
    queues: Vec<tokio::task::JoinHandle<()>>,
    front: tokio::task::JoinHandle<Result<(), TlsError>>,
}

impl Router {
    /// Starts one. It serves when this returns; it is ready when it has its tables.
    pub async fn start(settings: Settings) -> Result<Self, RunError> {
        Self::resolving(settings, nodes::system()).await
    }

    /// The same, where `resolver` finds the nodes of clusters.
    pub async fn resolving(settings: Settings, resolver: Resolver) -> Result<Self, RunError> {
        let mut random = [0_u8; 13];
        SystemRandom::new().fill(&mut random).map_err(|_| RunError::Random)?;
        let [a, b, c, d, e, seed @ ..] = random;
        if let Some(files) = &settings.front.tls {
            server::tls(files)?;
        }
        let directory = Arc::new(Directory::default());
        let meters = Arc::new(Meters::default());
        let state = settings.state_directory.as_deref();
        let mut files: Vec<TableFile> =
            settings.collections.iter().map(|collection| TableFile::new(collection, state)).collect();
        for file in &mut files {
            // The newer of both is in force; what is wrong with the file is told by who watches it.
            if let Err(error) = file.restore(&directory) {
                tracing::warn!(%error, "the table that was kept cannot be used");
            }
        }
        let accesses = Accesses::new(settings.elasticsearch.directory.clone());
        let elastic = Arc::new(ElasticHttp::new(Arc::clone(&directory), accesses, resolver));
        let sizes = settings.limits.clone();
        let limits = sizes.limits();
        let waits = limits.share(limits.sick_share);
        let hot = Arc::new(Hot::new(settings.hot.clone()));
        let fence = Arc::new(Fence::new(settings.fence.after, Instant::now()));
        let core = Arc::new(Core::start(
            Arc::clone(&elastic),
            limits,
            Arc::clone(&meters),
            sizes.owners,
            sizes.bulk_timeout,
            u64::from_be_bytes(seed),
        ));
        let app = Arc::new(App {
            directory: Arc::clone(&directory),
            core,
            pauses: Budget::new(waits),
            queues: Budget::new(waits),
            hot: Arc::clone(&hot),
            fence: Arc::clone(&fence),
            elastic,
            refresher: Refresher::default(),
            sizes,
            minter: Minter::new([a, b, c, d, e]),
            meters: Arc::clone(&meters),
            users: Users::new(settings.front.users.clone()),
        });
        let front = listen(settings.listen).await?;
        let admin = listen(settings.admin).await?;
        let (address, admin_address) =
            (front.local_addr().unwrap_or(settings.listen), admin.local_addr().unwrap_or(settings.admin));
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(hot::watch(hot, Arc::clone(&meters)));
        let core = Arc::downgrade(&app);
        let end = move || {
            if let Some(app) = core.upgrade() {
                app.core.fence();
            }
        };
        tokio::spawn(fence::watch(fence, Arc::clone(&directory), Arc::clone(&meters), end));
        tokio::spawn(watch_tables(files, directory, meters));
        let names = settings.collections.iter().map(|collection| collection.name.clone()).collect();
        let port = Admin { app: Arc::clone(&app), collections: Arc::new(names), stopping: stopping.clone() };
        tokio::spawn(port.serve(admin));
        let queues = queues(&app, settings.source, settings.dead_letter, &settings.collections, &stopping);
        let front = tokio::spawn(server::serve(front, Arc::clone(&app), settings.front.tls, stopping));
        Ok(Self { address, admin: admin_address, app, stop, queues, front })
    }

    /// Takes no more requests, and returns when those that it has are answered, or the grace is over.
    pub async fn stop(self) {
        self.stop.send(true).ok();
        // Queues have to be told what became of their messages.
        let grace = self.app.sizes.grace;
        let telling = if self.queues.is_empty() { Duration::ZERO } else { TELLING.min(grace / 4) };
        self.app.core.stop(grace - telling).await;
        for queue in self.queues {
            queue.await.ok();
        }
        self.front.await.ok();
    }
}

/// Reads the queue and what is parked of it, if there is one.
fn queues(
    app: &Arc<App>,
    source: Option<SourceSettings>,
    dead: Option<DeadLetter>,
    collections: &[Collection],
    stopping: &watch::Receiver<bool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let (Some(source), Some(dead)) = (source, dead) else { return Vec::new() };
    let names: Vec<String> = collections.iter().map(|collection| collection.name.clone()).collect();
    let only = names.first().filter(|_| names.len() == 1);
    let collection = source.collection.clone().or_else(|| only.cloned());
    let mut lanes = vec![Lane::Main];
    lanes.extend(source.parking.as_ref().map(|_| Lane::Parked));
    let start = |lane: Lane| {
        let meters = Arc::clone(&app.meters.queues);
        let queue = Nats::new(source.clone(), dead.clone(), lane, Arc::clone(&meters));
        let rules = Rules {
            names: source.headers.clone(),
            // What is parked stays parked: it returns there.
            parks: lane == Lane::Main && source.parking.is_some(),
            delays: true,
            meters,
            waited: AtomicU64::new(0),
        };
        let works = Works {
            name: lane.name(),
            core: Arc::clone(&app.core),
            directory: Arc::clone(&app.directory),
            bulk: (app.sizes.bulk_bytes, app.sizes.bulk_operations),
            collections: names.clone(),
            collection: collection.clone(),
            most: source.nats.max_ack_pending,
            rules: Arc::new(rules),
            hot: Arc::clone(&app.hot),
            fence: Arc::clone(&app.fence),
        };
        tokio::spawn(Pump::new(queue, works).run(stopping.clone(), app.sizes.grace))
    };
    lanes.into_iter().map(start).collect()
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| RunError::Listen(address, error))
}
