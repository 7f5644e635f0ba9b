//! Puts the operator together and runs it until it is told to stop. Effects: all of them, through the other modules.

use std::sync::Arc;
use std::time::Duration;

use kube::Config;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::clock::SystemClock;
use crate::elastic::client::ElasticHttp;
use crate::engine::{Engine, Tuning};
use crate::kube_io::access::CachedAccess;
use crate::kube_io::client::{KubeIo, OnRequest, client};
use crate::kube_io::fanout::{Caches, OnUnreadable, Watches};
use crate::kube_io::queue::Queue;
use crate::leadership::Leadership;
use crate::lease::{Elector, LeaseTuning, identity};
use crate::report::{Metrics, Report};
use crate::routers::Routers;
use crate::server::{Shared, serve};
use crate::settings::Settings;
use crate::webhook::certificate::Keeper;
use crate::webhook::{self, Image, Webhook};

/// Events of an object are gathered for this long before it is looked at.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Passes that run when the operator is told to stop may take this long to end.
const GRACE: Duration = Duration::from_secs(8);

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to the API server is configured.
    #[error("no configuration for Kubernetes: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be built.
    #[error("the client for Kubernetes cannot be built: {0}")]
    Client(#[from] kube::Error),
    /// The client cannot be built.
    #[error("the client for Elasticsearch cannot be built: {0}")]
    Elastic(#[from] elasticsearch::http::transport::BuildError),
    /// The address is taken, or signals cannot be heard.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The webhook does not know which image routers have.
    #[error("the image of routers is not known: set --router-image, or POD_NAME and POD_NAMESPACE")]
    RouterImage,
    /// Another operator leads now.
    #[error("leadership was lost")]
    LeadershipLost,
    /// A watch ended, which none does by itself.
    #[error("a watch ended")]
    WatchEnded,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let (stop_sender, stop) = watch::channel(false);
    let stopping = stop.clone();
    let stopped = move || {
        let mut stop = stop.clone();
        async move {
            // An error says that the sender is gone: then it is time, too.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    };
    listen_for_signals(stop_sender.clone())?;

    let config = Config::infer().await?;
    let own_namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| config.default_namespace.clone());
    let lease_namespace = settings.lease_namespace.clone().unwrap_or_else(|| own_namespace.clone());
    let me = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    let me = me.unwrap_or_else(|_| "searchcell".to_owned());
    let client = client(config)?;

    let metrics = Arc::new(Metrics::default());
    let queue = Arc::new(Queue::new(DEBOUNCE));
    let caches = Arc::new(Caches::default());
    let report = Arc::new(Report::start(Arc::clone(&metrics), client.clone(), me.clone()));
    let on_unreadable: Arc<OnUnreadable> = {
        let report = Arc::clone(&report);
        Arc::new(move |about, why| report.unreadable(about, why))
    };
    let mut watches = Watches::start(&client, &settings.namespaces, &caches, &queue, &on_unreadable);

    let address = settings.metrics_address;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Io { what: format!("cannot listen on {address}"), source })?;
    let shared = Shared { metrics: Arc::clone(&metrics), synced: watches.synced() };
    let server = tokio::spawn(serve(listener, shared, stopped()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?settings.namespaces, %address, "started");

    let leadership = if settings.leader_elect { Leadership::none() } else { Leadership::always() };
    let (leading_sender, leading) = oneshot::channel();
    // The lease is given back when the last pass has ended, not before.
    let (worked_sender, worked) = oneshot::channel::<()>();
    let mut elector = settings.leader_elect.then(|| {
        let elector = Elector::new(
            client.clone(),
            &lease_namespace,
            &settings.lease_name,
            identity(&me),
            LeaseTuning::default(),
            leadership.clone(),
            Box::new(SystemClock),
        );
        tokio::spawn(elector.run(
            async {
                let _ = worked.await;
            },
            leading_sender,
        ))
    });

    let es_metrics = Arc::clone(&metrics);
    let accesses = Arc::new(CachedAccess(Arc::clone(&caches)));
    let on_request = Arc::new(move |op, outcome| es_metrics.es_request(op, outcome));
    let elastic = ElasticHttp::new(accesses, on_request)?;
    let kube_metrics = Arc::clone(&metrics);
    let on_request: Arc<OnRequest> = Arc::new(move |verb, outcome| kube_metrics.kube_request(verb, outcome));
    let kube =
        KubeIo::new(client.clone(), Arc::clone(&caches), own_namespace.clone(), Arc::clone(&on_request));
    let kube = Arc::new(kube.of_namespaces(&settings.namespaces));
    let mut keeper = match settings.webhook_address {
        None => None,
        Some(address) => {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| RunError::Io { what: format!("cannot listen on {address}"), source })?;
            let keeper = Keeper {
                client: client.clone(),
                namespace: own_namespace.clone(),
                configuration: settings.webhook_configuration.clone(),
                names: webhook::names(&settings.webhook_hosts, &own_namespace),
                lifetimes: settings.lifetimes(),
                leadership: leadership.clone(),
                shown: Arc::default(),
                clock: Arc::new(SystemClock),
                on_request: Arc::clone(&on_request),
            };
            let webhook_metrics = Arc::clone(&metrics);
            let webhook = Webhook {
                client: client.clone(),
                kube: Arc::clone(&kube),
                synced: watches.synced(),
                image: router_image(&settings)?,
                on_verdict: Arc::new(move |outcome| webhook_metrics.injection(outcome)),
            };
            Some(webhook.start(listener, keeper, stopping))
        }
    };
    let routers = Routers {
        client: client.clone(),
        kube: Arc::clone(&kube),
        caches,
        namespaces: settings.namespaces.clone(),
        injects: settings.webhook_address.is_some(),
        leadership: leadership.clone(),
        metrics: Arc::clone(&metrics),
        report: Arc::clone(&report),
        on_request,
    };
    let engine = Engine::new(
        kube,
        Arc::new(elastic),
        Arc::new(SystemClock),
        leadership.clone(),
        Tuning {
            lifetimes: settings.lifetimes(),
            limits: settings.limits(),
            restarts_nodes: settings.restart_nodes,
            most_disruptions: usize::from(settings.max_disrupted_clusters),
            ..Tuning::default()
        },
    );
    let engine = Arc::new(engine.with_observer(report));

    let elects = elector.is_some();
    let begin = begin(watches.synced(), elects.then_some(leading));
    let work = async {
        tokio::select! {
            began = begin => if !began { return Ok(()) },
            () = stopped() => return Ok(()),
        }
        metrics.set_leader(true);
        let concurrency = usize::from(settings.concurrency);
        let pass = |key| {
            let engine = Arc::clone(&engine);
            async move { engine.pass(&key).await }
        };
        tokio::select! {
            () = queue.run(concurrency, stopped(), pass) => Ok(()),
            () = routers.run() => Err(RunError::WatchEnded),
        }
    };
    let overdue = async {
        stopped().await;
        sleep(GRACE).await;
    };

    // Passes end at the next step boundary once they are told to stop.
    let result = tokio::select! {
        result = work => result,
        () = overdue => Ok(()),
        () = watches.ended() => Err(RunError::WatchEnded),
        () = ended(&mut keeper) => Err(RunError::WatchEnded),
        () = lost(&mut elector) => Err(RunError::LeadershipLost),
    };
    metrics.set_leader(false);
    stop_sender.send_replace(true);
    // Whatever still runs finds out before its next write.
    leadership.give_up();
    if !matches!(result, Err(RunError::LeadershipLost)) {
        let _ = worked_sender.send(());
        if let Some(elector) = elector {
            let _ = timeout(Duration::from_secs(4), elector).await;
        }
    }
    let _ = timeout(Duration::from_secs(2), server).await;
    tracing::info!("stopped");
    result
}

/// Waits until there is something to work on and the right to do so. False: that will not come.
async fn begin(mut synced: watch::Receiver<bool>, leading: Option<oneshot::Receiver<()>>) -> bool {
    if synced.wait_for(|synced| *synced).await.is_err() {
        return false;
    }
    tracing::info!("caches are complete");
    match leading {
        Some(leading) => leading.await.is_ok(),
        None => true,
    }
}

/// Comes back when what ought to run for ever has ended; never when nothing was to run.
async fn ended(task: &mut Option<tokio::task::JoinHandle<()>>) {
    match task {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}

/// That of the flag, or of this process's pod.
fn router_image(settings: &Settings) -> Result<Image, RunError> {
    let own = || match (std::env::var("POD_NAMESPACE"), std::env::var("POD_NAME")) {
        (Ok(namespace), Ok(pod)) => Ok(Image::OfPod { namespace, pod }),
        _ => Err(RunError::RouterImage),
    };
    settings.router_image.clone().map_or_else(own, |image| Ok(Image::Given(image)))
}

type Contender = Option<tokio::task::JoinHandle<bool>>;

/// Comes back when the Lease was lost; never without an election.
async fn lost(elector: &mut Contender) {
    match elector {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}

fn listen_for_signals(stop: watch::Sender<bool>) -> Result<(), RunError> {
    let listen = |kind| {
        signal(kind).map_err(|source| RunError::Io { what: "cannot listen for signals".to_owned(), source })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.send_replace(true);
    });
    Ok(())
}
