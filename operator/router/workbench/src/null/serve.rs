//! A node: HTTP/1.1 at an address of its own, that can be dead. Effects: network.

use std::collections::BTreeMap;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::Cluster;
use super::carry::Outcome;

/// The body of an error, as Elasticsearch has it.
pub fn error(status: u16, kind: &str, reason: &str) -> Vec<u8> {
    let cause = json!({"type": kind, "reason": reason});
    json!({"error": {"root_cause": [cause], "type": kind, "reason": reason}, "status": status})
        .to_string()
        .into_bytes()
}

/// Why a connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed, as the rules say")]
pub struct Closed;

/// The body of an answer that may come slowly, and may break off.
struct Paced {
    rest: Bytes,
    announced: u64,
    breaks: bool,
    pace: Option<f64>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        if self.rest.is_empty() {
            return Poll::Ready(self.breaks.then_some(Err(Closed)));
        }
        let Some(pace) = self.pace else {
            let all = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(Frame::data(all))));
        };
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(sleep(Duration::from_secs_f64(1.0 / pace.max(0.001)))));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.timer = None;
        let one = self.rest.split_to(1);
        Poll::Ready(Some(Ok(Frame::data(one))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}

/// Serves for as long as it runs, except while the node is dead.
pub async fn node(cluster: Arc<Cluster>, position: usize, listener: TcpListener) {
    let own = &cluster.nodes[position];
    let mut up = own.up.subscribe();
    let mut listener = Some(listener);
    loop {
        let open = match listener.take() {
            Some(listener) => listener,
            None => {
                if up.wait_for(|up| *up).await.is_err() {
                    return;
                }
                match TcpListener::bind(own.address).await {
                    Ok(listener) => listener,
                    Err(_) => {
                        sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                }
            }
        };
        own.is_up.send_replace(true);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = open.accept() => if let Ok((stream, _)) = accepted {
                    stream.set_nodelay(true).ok();
                    let cluster = Arc::clone(&cluster);
                    connections.spawn(async move {
                        let service = service_fn(|request| answer(&cluster, position, request));
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                    });
                },
                Some(_) = connections.join_next() => {}
                _ = up.wait_for(|up| !*up) => break,
            }
        }
        drop(open);
        connections.shutdown().await;
        own.is_up.send_replace(false);
    }
}

fn unpack(headers: &HeaderMap, body: Bytes) -> Option<Bytes> {
    match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None => Some(body),
        Some(b"gzip") => {
            let mut unpacked = Vec::with_capacity(body.len() * 4);
            flate2::read::MultiGzDecoder::new(body.as_ref()).read_to_end(&mut unpacked).ok()?;
            Some(unpacked.into())
        }
        Some(_) => None,
    }
}

async fn answer(
    cluster: &Cluster,
    node: usize,
    request: Request<Incoming>,
) -> Result<Response<Paced>, Closed> {
    let mut epoch = cluster.epoch.subscribe();
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let query: BTreeMap<String, String> = (parts.uri.query().unwrap_or_default().split('&'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%2C", ",").replace("%2A", "*")))
        .collect();
    let Some(body) = unpack(&parts.headers, body) else {
        return Ok(respond(400, error(400, "illegal_argument_exception", "the body is no gzip")));
    };
    let outcome = match path.as_slice() {
        ["_bulk"] => cluster.bulk(node, None, &query, &body),
        [index, "_bulk"] => cluster.bulk(node, Some(index), &query, &body),
        _ => return Ok(look(cluster, &path)),
    };
    match outcome {
        Outcome::Close => Err(Closed),
        Outcome::Hang => {
            epoch.changed().await.ok();
            Err(Closed)
        }
        Outcome::Answer { status, body, pause, bytes_per_second, broken } => {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let mut response = respond(status, body);
            response.body_mut().pace = bytes_per_second;
            if broken {
                let body = response.body_mut();
                let half = body.rest.len() / 2;
                body.rest.truncate(half);
                body.breaks = true;
            }
            Ok(response)
        }
    }
}

/// Everything but bulks.
fn look(cluster: &Cluster, path: &[&str]) -> Response<Paced> {
    let shards = json!({"total": 1, "successful": 1, "skipped": 0, "failed": 0});
    let value = match path {
        [] => json!({"name": "null", "cluster_name": "null", "cluster_uuid": "null",
            "version": {"number": "9.1.0", "build_flavor": "default", "build_type": "tar", "build_hash": "null",
                "build_date": "2026-01-01T00:00:00Z", "build_snapshot": false, "lucene_version": "10.2.2",
                "minimum_wire_compatibility_version": "8.19.0", "minimum_index_compatibility_version": "8.0.0"},
            "tagline": "You Know, for Search"}),
        ["_count"] => json!({"count": cluster.count(None), "_shards": shards}),
        [index, "_count"] => json!({"count": cluster.count(Some(index)), "_shards": shards}),
        ["_refresh"] | [_, "_refresh"] => json!({"_shards": shards}),
        ["_cluster", "health"] => json!({"cluster_name": "null", "status": "green", "timed_out": false}),
        _ => {
            let reason = format!("no handler found for uri [/{}]", path.join("/"));
            return respond(400, error(400, "illegal_argument_exception", &reason));
        }
    };
    respond(200, value.to_string().into_bytes())
}

fn respond(status: u16, body: Vec<u8>) -> Response<Paced> {
    let announced = body.len() as u64;
    let body = Paced { rest: body.into(), announced, breaks: false, pace: None, timer: None };
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header("X-Elastic-Product", "Elasticsearch");
    response.body(body).unwrap()
}
