//! How another process tells clusters what goes wrong, and asks what they know. Effects: listens.
//!
//! | request | what it does |
//! | --- | --- |
//! | `PUT /<cluster>/rules` | the rules from now on: a list of them as JSON |
//! | `PUT /<cluster>/nodes/<node>` | `true` or `false`: whether the node lives |
//! | `GET /<cluster>/counters` | what was counted |
//! | `GET /<cluster>/documents` | all documents, one JSON object a line |
//! | `POST /<cluster>/reset` | forgets documents and counts |

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::Cluster;
use super::rules::Rule;

/// Serves for as long as it runs. Clusters are named by their position.
pub async fn serve(listener: TcpListener, clusters: Arc<Vec<Arc<Cluster>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let clusters = Arc::clone(&clusters);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&clusters, request));
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn answer(
    clusters: &[Arc<Cluster>],
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let cluster = path.first().and_then(|name| name.parse::<usize>().ok()).and_then(|at| clusters.get(at));
    let (status, text) = match cluster {
        None => (404, "there is no such cluster: /0, /1, ...".to_owned()),
        Some(cluster) => match carry_out(cluster, &parts.method, &path[1..], &body).await {
            Ok(text) => (200, text),
            Err(why) => (400, why),
        },
    };
    Ok(Response::builder().status(status).body(Full::new(text.into())).unwrap())
}

async fn carry_out(cluster: &Cluster, method: &Method, path: &[&str], body: &[u8]) -> Result<String, String> {
    match (method.as_str(), path) {
        ("PUT", ["rules"]) => {
            let rules: Vec<Rule> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            cluster.set_rules(rules);
            Ok("{}".to_owned())
        }
        ("PUT", ["nodes", node]) => {
            let node: usize = node.parse().map_err(|_| "a node is a number".to_owned())?;
            if node >= cluster.addresses().len() {
                return Err(format!("there is no node {node}"));
            }
            let up = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            cluster.set_up(node, up).await;
            Ok("{}".to_owned())
        }
        ("GET", ["counters"]) => Ok(json!(cluster.counters()).to_string()),
        ("GET", ["documents"]) => {
            Ok(cluster.documents().iter().map(|document| format!("{}\n", json!(document))).collect())
        }
        ("POST", ["reset"]) => {
            cluster.reset();
            Ok("{}".to_owned())
        }
        (method, _) => Err(format!("no {method} there: rules, nodes/<node>, counters, documents, reset")),
    }
}
