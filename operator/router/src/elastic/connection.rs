//! One connection to one node. Effects: network.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::access::Trust;

/// How long a connection may take to be there, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Unused for so long, a connection is not used again: the other side may close it just then.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// A connection that can carry one request at a time.
pub struct Connection {
    /// To send with.
    pub sender: SendRequest<Full<Bytes>>,
    /// The credentials and the trust that it was made with.
    pub edition: u64,
    /// When it was last used.
    pub used: Instant,
}

impl Connection {
    /// Whether it can be used for a request with these credentials.
    pub fn usable(&self, edition: u64) -> bool {
        self.edition == edition && self.used.elapsed() < IDLE_FOR && self.sender.is_ready()
    }
}

/// Connects. The error is text for people.
pub async fn connect(
    address: SocketAddr,
    tls: Option<(Trust, ServerName<'static>)>,
    edition: u64,
) -> Result<Connection, String> {
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match tls {
            None => shake_hands(stream).await,
            Some((Trust { config, file }, name)) => {
                let stream = TlsConnector::from(config).connect(name.clone(), stream).await;
                shake_hands(stream.map_err(|error| no_tls(&error, &name, &file))?).await
            }
        }
    };
    let sender =
        timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| "no connection in time".to_owned())??;
    Ok(Connection { sender, edition, used: Instant::now() })
}

async fn shake_hands<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends when the sender is dropped or the other side closes; errors reach whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// Why there is no TLS, in words that name what has to be put right.
fn no_tls(error: &std::io::Error, name: &ServerName<'_>, authorities: &Path) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(wrong)) = inner else { return format!("no TLS: {error}") };
    match wrong {
        // An authority of the same name, with another key, is the usual one after it was made again.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("its certificate is not of an authority in {}", authorities.display())
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for {}", name.to_str())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        _ => format!("its certificate cannot be used: {error}"),
    }
}
