//! Asks routers which tables they have, at `/generation` of their admin port, and which tenants are hot, at
//! `/debug/hot`. Effects: network.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use searchcell_core::inject::hot::HotReading;
use searchcell_core::inject::routers::{Progress, RouterPod};
use searchcell_core::names::ROUTER_ADMIN_PORT;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{AT_ONCE, Census, Reading, Routers};

/// Longest time that one answer of a router may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Most that it may say in one.
const MOST_BYTES: usize = 256 << 10;

/// Why a router was not read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it does not answer within {LIMIT:?}")]
    Late,
    #[error("it has no address that can be used")]
    Address,
    #[error("it cannot be reached: {0}")]
    Connect(std::io::Error),
    #[error("it does not answer: {0}")]
    Request(hyper::Error),
    #[error("the request cannot be made: {0}")]
    Build(http::Error),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("its answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer is not as expected: {0}")]
    Json(serde_json::Error),
}

/// What one router says: which tables it has, and which tenants are hot, where that was to be had.
type Said = (Reading, Option<HotReading>);

impl Routers {
    /// Asks all routers that run how far they are, and which tenants are hot.
    pub(super) async fn read<'a>(&self, pods: &'a [RouterPod]) -> (Census, Vec<(&'a RouterPod, HotReading)>) {
        let published = self.published_for(pods);
        let asked = pods.iter().filter_map(|pod| Some((pod, pod.address.as_deref()?)));
        let asked: Vec<(&RouterPod, &str)> = asked.collect();
        let said =
            futures::stream::iter(asked).map(|(pod, address)| async move { (pod, said(pod, address).await) });
        let said: Vec<(&RouterPod, Result<Said, ReadError>)> = said.buffer_unordered(AT_ONCE).collect().await;
        let (mut census, mut readings) = (Census::default(), Vec::new());
        let none = BTreeMap::new();
        for (pod, said) in said {
            match said {
                Ok((reading, hot)) => {
                    match pod.progress(&reading, published.get(&pod.namespace).unwrap_or(&none)) {
                        Progress::Current => census.current += 1,
                        Progress::Draining => census.draining += 1,
                        Progress::Behind(lag) => {
                            census.behind += 1;
                            census.lag = census.lag.max(lag);
                        }
                    }
                    readings.extend(hot.map(|hot| (pod, hot)));
                }
                Err(error) => {
                    let (namespace, name) = (&pod.namespace, &pod.name);
                    tracing::debug!(namespace, name, %error, "a router was not read");
                    census.unread += 1;
                }
            }
        }
        (census, readings)
    }
}

async fn said(pod: &RouterPod, address: &str) -> Result<Said, ReadError> {
    let address: IpAddr = address.parse().map_err(|_| ReadError::Address)?;
    let port = u16::try_from(ROUTER_ADMIN_PORT).map_err(|_| ReadError::Address)?;
    let address = SocketAddr::new(address, port);
    let reading = within_limit(address, "/generation").await?;
    let hot = within_limit(address, "/debug/hot").await.inspect_err(|error| {
        // What it has is known all the same.
        let (namespace, name) = (&pod.namespace, &pod.name);
        tracing::debug!(namespace, name, %error, "the hot tenants of a router were not read");
    });
    Ok((reading, hot.ok()))
}

async fn within_limit<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, ReadError> {
    timeout(LIMIT, get(address, path)).await.unwrap_or(Err(ReadError::Late))
}

async fn get<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, ReadError> {
    let stream = TcpStream::connect(address).await.map_err(ReadError::Connect)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(ReadError::Request)?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(ReadError::Build)?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(ReadError::Request)?;
        if answer.status() != StatusCode::OK {
            return Err(ReadError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(ReadError::Body)?;
        serde_json::from_slice(&body.to_bytes()).map_err(ReadError::Json)
    };
    // The connection is driven as long as the answer is waited for, and no longer.
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        ended = connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(ReadError::Request(error)),
        },
    }
}
