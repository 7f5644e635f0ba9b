//! A bad network between the operator and the API server: writes whose effect is there and whose answer is not, calls that
//! never arrive, and watches that tell late, each kind of object by its own delay. A server on loopback that passes on
//! everything else as it is; who asks stays who asks.

use std::error::Error;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt;
use http::header::HOST;
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::objects::{items, text};

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Percent of writes that have their effect, and no answer.
    pub lost_answers: u64,
    /// Percent of all calls that do not arrive.
    pub refused: u64,
    /// How long a watch may hold back what it has to tell, at most.
    pub stale: Duration,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Told {
    lost_answers: AtomicU64,
    refused: AtomicU64,
    held_back: AtomicU64,
    passed: AtomicU64,
}

impl Told {
    /// Writes whose answer was lost.
    pub fn lost_answers(&self) -> u64 {
        self.lost_answers.load(Ordering::Relaxed)
    }

    /// Calls that did not arrive.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How often a watch fell silent.
    pub fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed.load(Ordering::Relaxed);
        let (lost, refused, held) = (self.lost_answers(), self.refused(), self.held_back());
        write!(
            f,
            "{passed} calls answered, {lost} writes without an answer, {refused} refused, {held} watches held back"
        )
    }
}

type Upstream = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;
type Broken = Box<dyn Error + Send + Sync>;
type Answer = Response<BoxBody<Bytes, Broken>>;

struct Way {
    base: String,
    upstream: Upstream,
    faults: Faults,
    is_bad: AtomicBool,
    random: AtomicU64,
    told: Told,
}

/// It stands until it is dropped.
pub struct BadNetwork {
    address: SocketAddr,
    way: Arc<Way>,
    task: JoinHandle<()>,
}

impl Drop for BadNetwork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BadNetwork {
    /// Before the API server of a kubeconfig.
    pub async fn before(kubeconfig: &Value, faults: Faults) -> Self {
        let cluster = items(kubeconfig, "/clusters").first().expect("a cluster in the kubeconfig");
        let authority = text(cluster, "/cluster/certificate-authority-data");
        let authority = base64::engine::general_purpose::STANDARD.decode(authority).expect("base64");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&authority) {
            roots.add(certificate.expect("a certificate")).expect("an authority");
        }
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let way = Arc::new(Way {
            base: text(cluster, "/cluster/server").trim_end_matches('/').to_owned(),
            upstream: Client::builder(TokioExecutor::new()).build(connector.build()),
            faults,
            is_bad: AtomicBool::new(true),
            random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
            told: Told::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let task = tokio::spawn(serve(listener, way.clone()));
        Self { address, way, task }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on everything arrives.
    pub fn heal(&self) {
        self.way.is_bad.store(false, Ordering::Relaxed);
    }

    /// What has happened so far.
    pub fn told(&self) -> &Told {
        &self.way.told
    }
}

async fn serve(listener: TcpListener, way: Arc<Way>) {
    // connections end with their client, or with the task
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let way = way.clone();
        connections.spawn(async move {
            let service = service_fn(|request| pass(way.clone(), request));
            // an answer that is lost on purpose is an error of the connection
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One call, through the bad network.
async fn pass(way: Arc<Way>, request: Request<Incoming>) -> Result<Answer, Broken> {
    let is_write = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
    if way.happens(way.faults.refused) {
        way.told.refused.fetch_add(1, Ordering::Relaxed);
        return Err("does not arrive".into());
    }
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map(|path| path.as_str()).unwrap_or("/");
    head.uri = format!("{}{path}", way.base).parse::<Uri>()?;
    head.headers.remove(HOST);
    let body = Full::new(body.collect().await?.to_bytes());
    let answer = way.upstream.request(Request::from_parts(head, body)).await?;
    if is_write && way.happens(way.faults.lost_answers) {
        way.told.lost_answers.fetch_add(1, Ordering::Relaxed);
        return Err("its answer is lost".into());
    }
    way.told.passed.fetch_add(1, Ordering::Relaxed);
    let (head, body) = answer.into_parts();
    let body = if is_watch { late(way, body) } else { body.map_err(Broken::from).boxed() };
    Ok(Response::from_parts(head, body))
}

/// What a watch tells, later: it falls silent for a while, and then tells all of it in its order.
fn late(way: Arc<Way>, body: Incoming) -> BoxBody<Bytes, Broken> {
    let mut silent_until = Instant::now();
    let frames = BodyStream::new(body).then(move |frame| {
        if silent_until < Instant::now() && way.happens(50) {
            way.told.held_back.fetch_add(1, Ordering::Relaxed);
            silent_until = Instant::now() + way.faults.stale.mul_f64(way.below(1000) as f64 / 1000.0);
        }
        let until = silent_until;
        async move {
            tokio::time::sleep_until(until.into()).await;
            frame.map_err(Broken::from)
        }
    });
    BodyExt::boxed(StreamBody::new(frames))
}

impl Way {
    /// True in `percent` of a hundred cases, while the network is bad.
    fn happens(&self, percent: u64) -> bool {
        self.is_bad.load(Ordering::Relaxed) && self.below(100) < percent
    }

    fn below(&self, limit: u64) -> u64 {
        // splitmix64
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
