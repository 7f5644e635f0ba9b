//! Requests to clusters, and whether they were sent at all when they fail. Effects: network, and a line in the log for
//! a cluster that cannot be reached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::access::Accesses;
use super::connection::{Connection, connect};
use super::nodes::{Node, Nodes, Resolver};
use crate::flow::reply::FILTER;
use crate::routes::Directory;
use crate::transport::{Bulk, Reply, Transport};

/// What stands as it is in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');
/// Nodes that are tried for one request, as long as nothing was sent.
const NODES_TRIED: usize = 3;
/// Most bytes of an answer for each operation of a bulk, and for the rest of it.
const ANSWER_PER_ITEM: usize = 4 << 10;
const ANSWER_BASE: usize = 64 << 10;

/// How often it is said that a cluster cannot be reached: clients are told only that their time is over.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// A request to a cluster.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path and query, encoded.
    pub path: String,
    /// Body; empty: none.
    pub body: Bytes,
    /// Media type of the body.
    pub content_type: &'static str,
    /// How long the answer is waited for, and how many bytes it may have.
    pub timeout: Duration,
    /// Most bytes of the answer.
    pub max_answer: usize,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
}

/// Why there is no answer. Texts are for people.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// Not one byte of the request was sent.
    #[error("{0}")]
    NotSent(String),
    /// It was sent, perhaps in part.
    #[error("{0}")]
    Lost(String),
    /// The answer has more bytes than there is room for.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// All clusters of the tables in force.
pub struct ElasticHttp {
    directory: Arc<Directory>,
    accesses: Accesses,
    resolver: Resolver,
    clusters: Mutex<HashMap<String, Arc<Nodes>>>,
    /// Clusters that cannot be reached, and when that was last said.
    unreachable: Mutex<HashMap<String, Instant>>,
}

/// A part of a path, encoded.
pub fn encode(part: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(part, IN_PATH)
}

impl ElasticHttp {
    /// Finds clusters in the tables of `directory`, and their nodes with `resolver`.
    pub fn new(directory: Arc<Directory>, accesses: Accesses, resolver: Resolver) -> Self {
        Self { directory, accesses, resolver, clusters: Mutex::default(), unreachable: Mutex::default() }
    }

    /// Sends a request to one of the cluster's nodes.
    pub async fn send(&self, cluster: &str, request: Request) -> Result<Response, SendError> {
        let until = Instant::now() + request.timeout;
        let mut sent = None;
        let result = match timeout_at(until, self.attempt(cluster, &request, &mut sent)).await {
            Ok(result) => result,
            Err(_) => match sent {
                Some(node) => {
                    node.failed();
                    Err(SendError::Lost(format!("{}: no answer in time", node.address)))
                }
                None => Err(SendError::NotSent("no connection in time".to_owned())),
            },
        };
        self.tell(cluster, &result);
        result
    }

    fn tell(&self, cluster: &str, result: &Result<Response, SendError>) {
        let Ok(mut unreachable) = self.unreachable.lock() else { return };
        match result {
            Err(SendError::NotSent(error)) => {
                let told = unreachable.get(cluster);
                if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                    tracing::warn!(cluster, %error, "a cluster cannot be reached");
                    unreachable.insert(cluster.to_owned(), Instant::now());
                }
            }
            Err(_) => {}
            Ok(_) => {
                if unreachable.remove(cluster).is_some() {
                    tracing::info!(cluster, "the cluster is reached again");
                }
            }
        }
    }

    /// `sent`: the node that the request was sent to, for whoever stops waiting.
    async fn attempt(
        &self,
        cluster: &str,
        request: &Request,
        sent: &mut Option<Arc<Node>>,
    ) -> Result<Response, SendError> {
        let routes = self.directory.current();
        let known =
            routes.values().flat_map(|route| &route.table.clusters).find(|known| known.name == cluster);
        let known =
            known.ok_or_else(|| SendError::NotSent(format!("no table has cluster {cluster} any more")))?;
        let (scheme, rest) = known.endpoint.split_once("://").unwrap_or(("http", &known.endpoint));
        let authority = rest.trim_end_matches('/').to_owned();
        let access = self.accesses.of(cluster, &known.cell);
        let access = access.map_err(|error| SendError::NotSent(error.to_string()))?;
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned();
        let tls = if scheme == "https" {
            let trust = access.trust.clone();
            let trust =
                trust.ok_or_else(|| SendError::NotSent(format!("there is no ca.crt for {cluster}")))?;
            let name = ServerName::try_from(host);
            Some((trust, name.map_err(|error| SendError::NotSent(error.to_string()))?))
        } else {
            None
        };
        let nodes = self.nodes(cluster, &known.nodes);
        let candidates = nodes.candidates().await.map_err(SendError::NotSent)?;
        let mut last = String::new();
        for node in candidates.into_iter().take(NODES_TRIED) {
            // A connection that was idle may turn out to be closed; then a new one is made.
            for fresh in [false, true] {
                let idle = if fresh { None } else { node.idle(access.edition) };
                let connection = match idle {
                    Some(connection) => connection,
                    None if !fresh => continue,
                    None => match connect(node.address, tls.clone(), access.edition).await {
                        Ok(connection) => connection,
                        Err(error) => {
                            node.failed();
                            last = format!("{}: {error}", node.address);
                            break;
                        }
                    },
                };
                let authorization = access.authorization.as_ref().map(crate::sealed::Hidden::reveal);
                match exchange(&node, connection, request, &authority, authorization, sent).await {
                    Err(SendError::NotSent(error)) => last = format!("{}: {error}", node.address),
                    other => return other,
                }
            }
        }
        Err(SendError::NotSent(last))
    }

    fn nodes(&self, cluster: &str, authority: &str) -> Arc<Nodes> {
        let new = || Arc::new(Nodes::new(authority.to_owned(), Arc::clone(&self.resolver)));
        let Ok(mut clusters) = self.clusters.lock() else { return new() };
        // Clusters of another address are other clusters.
        Arc::clone(clusters.entry(format!("{cluster} {authority}")).or_insert_with(new))
    }
}

async fn exchange(
    node: &Arc<Node>,
    mut connection: Connection,
    request: &Request,
    authority: &str,
    authorization: Option<&str>,
    sent: &mut Option<Arc<Node>>,
) -> Result<Response, SendError> {
    let not_sent = |error: &dyn std::fmt::Display| SendError::NotSent(error.to_string());
    let mut built = ::http::Request::builder()
        .method(request.method.clone())
        .uri(&request.path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("searchcell-router/", env!("CARGO_PKG_VERSION")));
    if !request.body.is_empty() {
        built = built.header(header::CONTENT_TYPE, request.content_type);
    }
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::try_from(authorization).map_err(|_| not_sent(&"unusable credential"))?;
        value.set_sensitive(true);
        built = built.header(header::AUTHORIZATION, value);
    }
    let built = built.body(Full::new(request.body.clone())).map_err(|error| not_sent(&error))?;
    // From here on, whoever gives up waiting does not know.
    *sent = Some(Arc::clone(node));
    let answered = connection.sender.try_send_request(built).await;
    let response = match answered {
        Ok(response) => response,
        Err(mut error) => {
            if error.take_message().is_some() {
                *sent = None;
                return Err(not_sent(error.error()));
            }
            node.failed();
            return Err(SendError::Lost(format!("{}: {}", node.address, error.error())));
        }
    };
    let status = response.status();
    let mut body = response.into_body();
    // Most answers come in one piece, which is not copied.
    let mut whole = Bytes::new();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            node.failed();
            SendError::Lost(format!("{}: {error}", node.address))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + bytes.len() + data.len() > request.max_answer {
            return Err(SendError::TooLarge(request.max_answer));
        }
        if whole.is_empty() && bytes.is_empty() {
            whole = data;
        } else {
            bytes.extend_from_slice(&std::mem::take(&mut whole));
            bytes.extend_from_slice(&data);
        }
    }
    if whole.is_empty() {
        whole = bytes.freeze();
    }
    node.answered();
    if connection.sender.ready().await.is_ok() {
        node.keep(connection);
    }
    Ok(Response { status, body: whole })
}

impl Transport for ElasticHttp {
    async fn bulk(&self, bulk: Bulk) -> Reply {
        let patience = (bulk.timeout / 2).as_millis();
        let request = Request {
            method: Method::POST,
            path: format!("/{}/_bulk?timeout={patience}ms&filter_path={FILTER}", encode(&bulk.index)),
            body: bulk.body,
            content_type: "application/x-ndjson",
            timeout: bulk.timeout,
            max_answer: ANSWER_BASE + bulk.items * ANSWER_PER_ITEM,
        };
        match self.send(&bulk.cluster, request).await {
            Ok(response) => Reply::Answered { status: response.status.as_u16(), body: response.body },
            Err(SendError::NotSent(why)) => Reply::NotSent(why),
            Err(error @ (SendError::Lost(_) | SendError::TooLarge(_))) => Reply::Lost(error.to_string()),
        }
    }
}
