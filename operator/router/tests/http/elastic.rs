//! An Elasticsearch that stores documents in memory, and knows of searches only the term of their routing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Default)]
struct Store {
    /// (index, id) → version, routing, source.
    documents: BTreeMap<(String, String), (i64, Option<String>, Value)>,
}

/// What it asks of clients, as it is when they connect or ask.
#[derive(Clone, Default)]
pub struct Guard {
    /// Absent: no TLS.
    pub tls: Option<Arc<Mutex<Arc<ServerConfig>>>>,
    /// The only header `Authorization` that it takes; absent: it takes whoever comes.
    pub authorization: Arc<Mutex<Option<String>>>,
}

pub async fn start(guard: Guard) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(Mutex::new(Store::default()));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (store, authorization) = (Arc::clone(&store), Arc::clone(&guard.authorization));
            let tls = guard.tls.as_ref().map(|tls| Arc::clone(&tls.lock().unwrap()));
            tokio::spawn(async move {
                match tls {
                    None => serve(stream, store, authorization).await,
                    Some(config) => {
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            serve(stream, store, authorization).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn serve<S>(stream: S, store: Arc<Mutex<Store>>, authorization: Arc<Mutex<Option<String>>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let wanted = authorization.lock().unwrap().clone();
        let said = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let welcome = wanted.is_none() || wanted.as_deref() == said;
        let store = Arc::clone(&store);
        async move {
            if welcome {
                return answer(store, request).await;
            }
            let body =
                json!({"error": {"type": "security_exception", "reason": "who are you?"}, "status": 401});
            Ok(Response::builder().status(401).body(Full::new(body.to_string().into())).unwrap())
        }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(
    store: Arc<Mutex<Store>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8().unwrap().into_owned();
    let path: Vec<String> = parts.uri.path().split('/').skip(1).map(decode).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let mut store = store.lock().unwrap();
    let (status, value) = match path.as_slice() {
        [index, "_bulk"] => (200, store.bulk(index, std::str::from_utf8(&body).unwrap())),
        [index, "_doc", id] => store.get(index, id),
        [index, "_search"] => (200, store.search(index, &serde_json::from_slice(&body).unwrap())),
        [index, "_count"] => {
            let found = store.search(index, &serde_json::from_slice(&body).unwrap());
            (200, json!({"count": found["hits"]["total"]["value"], "_shards": {"total": 1}}))
        }
        _ => (200, json!({"_shards": {"failed": 0}})),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::new(value.to_string().into())).unwrap())
}

impl Store {
    fn bulk(&mut self, index: &str, body: &str) -> Value {
        let mut lines = body.lines();
        let mut items = Vec::new();
        while let Some(line) = lines.next() {
            let action: Value = serde_json::from_str(line).unwrap();
            let (verb, meta) = action.as_object().unwrap().iter().next().unwrap();
            let id = meta["_id"].as_str().unwrap().to_owned();
            let key = (index.to_owned(), id);
            let before = self.documents.get(&key).map(|(version, ..)| *version);
            let version = meta["version"].as_i64().unwrap_or(before.unwrap_or(0) + 1);
            let source = (verb != "delete").then(|| serde_json::from_str::<Value>(lines.next().unwrap()));
            let conflict = before.is_some_and(|before| version <= before || verb == "create");
            let item = match source {
                _ if conflict => json!({"status": 409, "error": {"type": "version_conflict_engine_exception",
                    "reason": format!("[{}]: version conflict", key.1)}}),
                Some(Err(error)) => json!({"status": 400, "error": {"type": "document_parsing_exception",
                    "reason": error.to_string()}}),
                source => {
                    let result = match (&source, before) {
                        (None, None) => "not_found",
                        (None, _) => "deleted",
                        (_, None) => "created",
                        _ => "updated",
                    };
                    let status = match result {
                        "created" => 201,
                        "not_found" => 404,
                        _ => 200,
                    };
                    match source {
                        Some(source) => {
                            let routing = meta["routing"].as_str().map(str::to_owned);
                            self.documents.insert(key, (version, routing, source.unwrap()));
                        }
                        None => {
                            self.documents.remove(&key);
                        }
                    }
                    json!({"_version": version, "result": result, "_shards": {"total": 1, "successful": 1, "failed": 0},
                        "_seq_no": 1, "_primary_term": 1, "status": status})
                }
            };
            items.push(json!({verb.clone(): item}));
        }
        json!({"items": items})
    }

    fn get(&self, index: &str, id: &str) -> (u16, Value) {
        match self.documents.get(&(index.to_owned(), id.to_owned())) {
            Some((version, routing, source)) => (
                200,
                json!({"_index": index, "_id": id, "_version": version, "_routing": routing, "found": true, "_source": source}),
            ),
            None => (404, json!({"_index": index, "_id": id, "found": false})),
        }
    }

    fn search(&self, index: &str, body: &Value) -> Value {
        let wanted = body["query"]["bool"]["filter"][0]["term"]["_routing"]["value"].as_str();
        let hits: Vec<Value> = (self.documents.iter())
            .filter(|((at, _), (_, routing, _))| at == index && (wanted.is_none() || routing.as_deref() == wanted))
            .map(|((at, id), (_, routing, source))| json!({"_index": at, "_id": id, "_routing": routing, "_source": source}))
            .collect();
        json!({"took": 1, "timed_out": false, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {"total": {"value": hits.len(), "relation": "eq"}, "hits": hits}})
    }
}
