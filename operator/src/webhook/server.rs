//! Lets the API server in: TLS, one path, bounded in connections, bytes and time. Effects: listens.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::PATH;
use super::review::Reviewer;
use crate::ports::KubeApi;

/// Connections at once. There are few API servers.
const CONNECTIONS: usize = 256;
/// Largest body; the API server takes pods up to a third of that.
const MOST_BYTES: usize = 8 << 20;
/// How long a handshake may take, and a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be idle. API servers close theirs earlier, so that none is closed under a request.
const IDLE: Duration = Duration::from_secs(180);

/// The certificate that is shown; it changes without a restart.
#[derive(Default)]
pub struct Shown {
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Shown {
    /// Shows this one from now on.
    pub fn show(&self, certificate: Arc<CertifiedKey>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves until `stop` becomes true; then ends each connection after its request.
pub async fn serve<K: KubeApi + 'static>(
    listener: TcpListener,
    shown: Arc<Shown>,
    reviewer: Arc<Reviewer<K>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the API server could not connect to the webhook");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, reviewer, stop) = (acceptor.clone(), Arc::clone(&reviewer), stop.clone());
        tokio::spawn(async move {
            connection(stream, acceptor, reviewer, stop).await;
            drop(place);
        });
    }
    Ok(())
}

/// Also when nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<K: KubeApi + 'static>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    reviewer: Arc<Reviewer<K>>,
    mut stop: watch::Receiver<bool>,
) {
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        // Also whoever only looks whether something listens.
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake with the webhook failed"),
        Err(_) => return,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let reviewer = Arc::clone(&reviewer);
        async move { Ok::<_, std::convert::Infallible>(answer(&reviewer, request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            timeout(PATIENCE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the webhook ended");
    }
}

async fn answer<K: KubeApi>(reviewer: &Reviewer<K>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH || request.method() != Method::POST {
        return text(StatusCode::NOT_FOUND, format!("here is POST {PATH}"));
    }
    let body = Limited::new(request.into_body(), MOST_BYTES).collect();
    let body = match timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()),
    };
    match reviewer.answer(&body) {
        Ok(answer) => {
            let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
            response.body(Full::new(answer.into())).unwrap_or_default()
        }
        Err(error @ super::review::ReviewError::NotSynced) => {
            text(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let response =
        Response::builder().status(status).header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    response.body(Full::new(text.into())).unwrap_or_default()
}
