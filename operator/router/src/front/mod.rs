//! The front: Elasticsearch's HTTP API as far as the router has it. Effects: answers requests.

pub mod auth;
pub mod body;
pub mod bulk;
pub mod confine;
pub mod course;
pub mod error;
pub mod filter;
pub mod ingress;
pub mod params;
pub mod pending;
pub mod plan;
pub mod read;
pub mod refresh;
pub mod render;
pub mod rules;
pub mod server;
pub mod write;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::json;

use self::auth::{Caller, Users};
use self::error::Failure;
use self::params::Params;
use self::refresh::Refresher;
use crate::elastic::ElasticHttp;
use crate::fence::Fence;
use crate::flow::Core;
use crate::flow::budget::{Budget, Lease};
use crate::hot::Hot;
use crate::ids::Minter;
use crate::meters::{Meters, PerRequest};
use crate::routes::Directory;
use crate::settings::Sizes;

/// Everything that a request may need.
pub struct App {
    /// Tables.
    pub directory: Arc<Directory>,
    /// Writes.
    pub core: Arc<Core>,
    /// Room for operations that wait for another table: a part of the budget, so that they leave some to the others.
    pub pauses: Arc<Budget>,
    /// The same for operations that wait for their turn.
    pub queues: Arc<Budget>,
    /// Tenants that write far more than others.
    pub hot: Arc<Hot>,
    /// Whether tenants whom a migration moves have to wait.
    pub fence: Arc<Fence>,
    /// Reads.
    pub elastic: Arc<ElasticHttp>,
    /// Refreshes.
    pub refresher: Refresher,
    /// Sizes and times.
    pub sizes: Sizes,
    /// Ids for documents without one.
    pub minter: Minter,
    /// Numbers.
    pub meters: Arc<Meters>,
    /// Who may do what.
    pub users: Users,
}

/// An answer before it has its headers.
pub struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: Vec<u8>,
    /// Its part of the budget, where it may be large.
    lease: Option<Lease>,
}

/// A body, counted until the client has it.
struct Counted {
    body: Vec<u8>,
    _lease: Option<Lease>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Answer {
    fn ok(body: Vec<u8>) -> Self {
        Self { status: 200, retry_after: None, body, lease: None }
    }
}

/// A request, taken apart.
pub struct Asked<'a> {
    /// Who asks.
    pub caller: Caller<'a>,
    /// Parameters.
    pub params: Params,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, not read yet.
    pub body: Incoming,
}

/// Version that the router says that it is: every client of the 8 and 9 lines talks to it.
const VERSION: &str = "9.0.0";

impl App {
    /// Answers a request. Never fails: errors are answers.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let head = parts.method == Method::HEAD;
        let media = media_type(&parts.headers);
        let packs = parts.headers.get(header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
        let path: Result<Vec<String>, _> = (parts.uri.path().split('/').filter(|part| !part.is_empty()))
            .map(|part| percent_decode_str(part).decode_utf8().map(|part| part.into_owned()))
            .collect();
        let kind = path.as_deref().map_or("other", |path| kind(path));
        let params = Params::new(parts.uri.path(), parts.uri.query());
        let shape = params.as_ref().ok().map(|params| {
            (params.get("filter_path").map(str::to_owned), params.flag("pretty").unwrap_or_default())
        });
        let result = async {
            let path = path.map_err(|_| Failure::illegal("the path must be UTF-8"))?;
            let caller = self.users.caller(&parts.headers)?;
            let asked = Asked { caller, params: params?, headers: parts.headers, body };
            self.dispatch(&parts.method, &path, asked).await
        }
        .await;
        let answer = result.unwrap_or_else(|failure: Failure| Answer {
            status: failure.status,
            lease: None,
            retry_after: (failure.status == 429).then_some(failure.retry_after.unwrap_or(1)),
            body: failure.body().to_string().into_bytes(),
        });
        self.meters.requests.get_or_create(&PerRequest { kind, status: answer.status }).inc();
        if answer.status == 429 {
            self.meters.overloaded.inc();
        }
        let (filter, pretty) = shape.unwrap_or_default();
        let body = render::shape(answer.body, filter.as_deref(), pretty);
        respond((answer.status, answer.retry_after), (body, answer.lease), media, head, packs)
    }

    async fn dispatch(&self, method: &Method, path: &[String], asked: Asked<'_>) -> Result<Answer, Failure> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match (method.as_str(), path.as_slice()) {
            ("GET" | "HEAD", []) => Ok(Answer::ok(info())),
            ("GET", ["_cluster", "health"]) => Ok(Answer::ok(self.health())),
            ("POST" | "PUT", ["_bulk"]) => self.bulk(None, asked).await,
            ("POST" | "PUT", [index, "_bulk"]) => self.bulk(Some(index), asked).await,
            ("POST" | "PUT", [index, "_doc"]) => self.write(index, None, bulk::Verb::Index, asked).await,
            ("POST" | "PUT", [index, "_doc", id]) => {
                self.write(index, Some(id), bulk::Verb::Index, asked).await
            }
            ("POST" | "PUT", [index, "_create", id]) => {
                self.write(index, Some(id), bulk::Verb::Create, asked).await
            }
            ("DELETE", [index, "_doc", id]) => self.write(index, Some(id), bulk::Verb::Delete, asked).await,
            ("GET" | "HEAD", [index, "_doc", id]) => self.get(index, id, asked).await,
            ("GET" | "POST", [index, "_search"]) => self.search(index, asked).await,
            ("GET" | "POST", [index, "_count"]) => self.count(index, asked).await,
            ("GET" | "POST", ["_msearch"]) => self.multi_search(None, asked).await,
            ("GET" | "POST", [index, "_msearch"]) => self.multi_search(Some(index), asked).await,
            (method, path) => Err(Failure::illegal(format!(
                "no handler found for uri [/{}] and method [{method}]: the router has _bulk, _doc, _create, _search, _count, _msearch",
                path.join("/")
            ))),
        }
    }

    /// Of the router itself: green when it has a table for every collection, whatever becomes of the clusters.
    fn health(&self) -> Vec<u8> {
        let status = if self.directory.current().is_empty() { "red" } else { "green" };
        json!({"cluster_name": "searchcell", "status": status, "timed_out": false, "number_of_nodes": 1,
            "number_of_data_nodes": 1, "active_primary_shards": 0, "active_shards": 0, "relocating_shards": 0,
            "initializing_shards": 0, "unassigned_shards": 0, "delayed_unassigned_shards": 0,
            "number_of_pending_tasks": 0, "number_of_in_flight_fetch": 0,
            "task_max_waiting_in_queue_millis": 0, "active_shards_percent_as_number": 100.0})
        .to_string()
        .into_bytes()
    }
}

fn info() -> Vec<u8> {
    json!({"name": "searchcell-router", "cluster_name": "searchcell", "cluster_uuid": "searchcell-router",
        "version": {"number": VERSION, "build_flavor": "default", "build_type": "docker", "build_hash": "unknown",
            "build_date": "2026-01-01T00:00:00.000Z", "build_snapshot": false, "lucene_version": "10.0.0",
            "minimum_wire_compatibility_version": "8.18.0", "minimum_index_compatibility_version": "8.0.0"},
        "tagline": "You Know, for Search"})
    .to_string()
    .into_bytes()
}

fn kind(path: &[String]) -> &'static str {
    match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["_bulk"] | [_, "_bulk"] => "bulk",
        [_, "_doc" | "_create", ..] => "document",
        [_, "_search"] => "search",
        [_, "_count"] => "count",
        ["_msearch"] | [_, "_msearch"] => "msearch",
        _ => "other",
    }
}

/// The media type that the client asked for: plain, or that of a line of clients.
fn media_type(headers: &HeaderMap) -> &'static str {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let compatible = |line: &str| accept.contains("vnd.elasticsearch+") && accept.contains(line);
    if compatible("compatible-with=8") {
        "application/vnd.elasticsearch+json;compatible-with=8"
    } else if compatible("compatible-with=9") {
        "application/vnd.elasticsearch+json;compatible-with=9"
    } else {
        "application/json"
    }
}

fn accepts_gzip(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|coding| coding.trim().starts_with("gzip")))
}

/// Answers smaller than this are not packed.
const PACK_FROM: usize = 1 << 10;

fn respond(
    (status, retry_after): (u16, Option<u64>),
    (mut body, lease): (Vec<u8>, Option<Lease>),
    media: &'static str,
    head: bool,
    packs: bool,
) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header(header::CONTENT_TYPE, media)
        .header("X-elastic-product", "Elasticsearch");
    if let Some(seconds) = retry_after {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    if status == 401 {
        response = response.header(header::WWW_AUTHENTICATE, "Basic realm=\"router\"");
    }
    if packs && body.len() >= PACK_FROM {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // Writing to memory does not fail.
        if std::io::Write::write_all(&mut encoder, &body).is_ok()
            && let Ok(packed) = encoder.finish()
        {
            body = packed;
            response = response.header(header::CONTENT_ENCODING, "gzip");
        }
    }
    if head {
        response = response.header(header::CONTENT_LENGTH, body.len());
        body.clear();
    }
    response.body(Full::new(Bytes::from_owner(Counted { body, _lease: lease }))).unwrap_or_default()
}
