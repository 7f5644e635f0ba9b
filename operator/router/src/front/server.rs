//! Listens for clients. Effects: network, and reading the front's certificate.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::App;
use crate::settings::FrontTls;

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a connection that are read and not yet part of a body, which are not counted against the budget.
const READ_AT_ONCE: usize = 64 << 10;
/// How old a certificate may be before the files are looked at again.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// Why the front's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of what it should be.
    #[error("{0} has nothing that can be used: {1}")]
    File(String, String),
    /// Certificate and key do not belong together.
    #[error("certificate and key of the front: {0}")]
    Pair(rustls::Error),
}

/// Reads the front's certificate.
pub fn tls(files: &FrontTls) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        TlsError::File(path.display().to_string(), error.to_string())
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_file_iter(&files.certificate)
        .map_err(|error| wrong(&files.certificate, &error))?
        .collect();
    let chain = chain.map_err(|error| wrong(&files.certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(&files.certificate, &"no certificate"));
    }
    // What a key's file has is not for logs.
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|_| wrong(&files.key, &"no private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    Ok(Arc::new(config))
}

/// Serves until `stop` becomes true; then ends each connection after its request, and returns.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    files: Option<FrontTls>,
    stop: watch::Receiver<bool>,
) -> Result<(), TlsError> {
    let places = Arc::new(Semaphore::new(app.sizes.connections));
    let mut config = files.as_ref().map(tls).transpose()?;
    let mut read = tokio::time::Instant::now();
    let mut stopping = stop.clone();
    loop {
        // Without a place, nobody is let in: clients wait in the listener's line, where they cost nothing.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a client could not connect");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        if let Some(files) = files.as_ref().filter(|_| read.elapsed() >= FRESH_FOR) {
            read = tokio::time::Instant::now();
            match tls(files) {
                Ok(new) => config = Some(new),
                Err(error) => tracing::warn!(%error, "the front's certificate stays as it is"),
            }
        }
        let (app, stop, config) = (Arc::clone(&app), stop.clone(), config.clone());
        tokio::spawn(async move {
            match config {
                None => connection(stream, app, stop).await,
                Some(config) => {
                    let hands = TlsAcceptor::from(config).accept(stream);
                    if let Ok(Ok(stream)) = tokio::time::timeout(HEADER_TIMEOUT, hands).await {
                        connection(stream, app, stop).await;
                    }
                }
            }
            drop(place);
        });
    }
    // Every connection gives its place back when it ends.
    let all = u32::try_from(app.sizes.connections).unwrap_or(u32::MAX);
    tokio::time::timeout(app.sizes.grace, places.acquire_many(all)).await.ok();
    Ok(())
}

async fn connection<S>(stream: S, app: Arc<App>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, std::convert::Infallible>(app.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(READ_AT_ONCE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // An error is the client's: it is gone.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}
