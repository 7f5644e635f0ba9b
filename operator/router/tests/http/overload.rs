//! The router as a process before clusters that take connections and never answer, while clients offer as much as they
//! can: memory stays flat, everybody is answered, and what was acknowledged is there when the clusters are back.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use searchcell_core::routing::encode;
use searchcell_crds::Versioning;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::client;
use super::journey;
use super::mount::Mount;

const BUDGET_MIB: usize = 32;
const CONNECTIONS: usize = 160;
const BODY: usize = 128 << 10;
const LONG: Duration = Duration::from_secs(300);

/// Answers nothing until it is opened; then it keeps the ids that it is given.
struct Hole {
    open: watch::Sender<bool>,
    ids: Mutex<BTreeSet<String>>,
}

impl Hole {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let hole = Arc::new(Self { open: watch::Sender::new(false), ids: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, all) = (listener.local_addr().unwrap(), Arc::clone(&hole));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let hole = Arc::clone(&all);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let hole = Arc::clone(&hole);
                        async move { Ok::<_, std::convert::Infallible>(hole.answer(request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    http.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        (hole, address)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        // Whoever has gone meanwhile has sent nothing.
        let Ok(body) = request.into_body().collect().await else { return Response::default() };
        let body = body.to_bytes();
        let text = std::str::from_utf8(&body).unwrap();
        let created = r#"{"index":{"status":201,"result":"created","_version":1,"_seq_no":1,"_primary_term":1,"_shards":{"total":1,"successful":1,"failed":0}}}"#;
        let conflict =
            r#"{"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":""}}}"#;
        let mut ids = self.ids.lock().unwrap();
        let items: Vec<&str> = (text.lines())
            .filter_map(|line| line.strip_prefix(r#"{"index":{"_id":""#)?.split_once('"'))
            .map(|(id, _)| if ids.insert(id.to_owned()) { created } else { conflict })
            .collect();
        Response::new(Full::new(format!(r#"{{"items":[{}]}}"#, items.join(",")).into()))
    }
}

/// The router, as it is installed.
struct Process {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    fn start(mount: &Mount) -> Self {
        mount.put(
            "router.yaml",
            json!({
                "listen": "127.0.0.1:0", "admin": "127.0.0.1:0",
                "collections": [{"name": "messages", "table": mount.path("table")}],
                "limits": {"budget": format!("{BUDGET_MIB}Mi"), "bulkTimeout": "15s"},
            })
            .to_string(),
        );
        let mut child = Command::new(env!("CARGO_BIN_EXE_router"))
            .arg("--config")
            .arg(mount.path("router.yaml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let serves = lines.find(|line| line.contains("the router serves")).unwrap();
        // Whoever logs must not find the pipe full.
        std::thread::spawn(move || lines.for_each(drop));
        let fields: Value = serde_json::from_str(&serves).unwrap();
        let address = |name: &str| fields["fields"][name].as_str().unwrap().parse().unwrap();
        Self { child, address: address("address"), admin: address("admin") }
    }

    /// Resident memory in MiB.
    fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Too many to be shown.
#[derive(Default)]
struct Acknowledged(Mutex<Vec<String>>);

impl std::fmt::Debug for Acknowledged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.lock().unwrap().len().fmt(f)
    }
}

/// What clients were told.
#[derive(Debug, Default)]
struct Told {
    number: AtomicU64,
    offered: AtomicUsize,
    refused: AtomicUsize,
    done: AtomicUsize,
    unknown: AtomicUsize,
    acknowledged: Acknowledged,
    stop: std::sync::atomic::AtomicBool,
}

/// Offers one request after the other, without a pause: documents of a chat, or as many small ones as fit.
async fn offer(to: SocketAddr, told: Arc<Told>, padding: usize) {
    let padding = "x".repeat(padding);
    while !told.stop.load(Ordering::Relaxed) {
        let mut body = String::with_capacity(BODY + 1024);
        let mut ids = Vec::new();
        while body.len() < BODY {
            let id = told.number.fetch_add(1, Ordering::Relaxed);
            let tenant = id % 97;
            body.push_str(&format!(
                "{{\"index\":{{\"_id\":\"{id}\",\"routing\":\"{tenant}\",\"version\":1}}}}\n{{\"p\":\"{padding}\"}}\n"
            ));
            ids.push(format!("{tenant}~{id}"));
        }
        told.offered.fetch_add(body.len(), Ordering::Relaxed);
        let path = "/messages/_bulk?timeout=240s";
        let got =
            client::send(to, "POST", path, "content-type: application/x-ndjson\r\n", body.as_bytes()).await;
        if got.status == 429 {
            assert!(got.head.contains("retry-after: "), "{}", got.head);
            told.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        assert_eq!(got.status, 200, "{}", got.text);
        let items = got.body["items"].as_array().unwrap_or_else(|| panic!("{}", got.text));
        assert_eq!(items.len(), ids.len());
        let (mut acknowledged, mut refused, mut unknown) = (Vec::new(), 0, 0);
        for (item, id) in items.iter().zip(ids) {
            match item["index"]["status"].as_u64().unwrap() {
                // With external versions, 409 says that it is there.
                201 | 409 => acknowledged.push(id),
                429 => refused += 1,
                // Sent as often as such an operation is sent, and nobody knows.
                503 => unknown += 1,
                other => panic!("{other}: {item}"),
            }
        }
        told.done.fetch_add(acknowledged.len(), Ordering::Relaxed);
        told.refused.fetch_add(usize::from(refused > 0), Ordering::Relaxed);
        told.unknown.fetch_add(unknown, Ordering::Relaxed);
        told.acknowledged.0.lock().unwrap().extend(acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_while_no_cluster_answers_and_what_was_taken_is_there_afterwards() {
    let (hole, address) = Hole::start().await;
    let mount = Mount::new("overload");
    let table = journey::table("http", address, "g1", "messages", Versioning::External);
    mount.put("table", encode(&table).unwrap());
    let router = Process::start(&mount);
    let started = Instant::now();
    while client::json(router.admin, "GET", "/readyz", "").await.status != 200 {
        assert!(started.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = Arc::new(Told::default());
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        clients.spawn(offer(router.address, Arc::clone(&told), if number % 4 == 0 { 0 } else { 500 }));
    }
    let mut most = 0;
    let mut watch = async |what: &str, enough: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !enough() {
            most = most.max(router.resident());
            assert!(most <= BUDGET_MIB + 64, "{what}: {most} MiB are resident");
            assert!(begun.elapsed() < LONG, "{what}: {told:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let enough = (6 * BUDGET_MIB) << 20;
    watch("unlimited offer", &|| {
        told.offered.load(Ordering::Relaxed) >= enough && told.refused.load(Ordering::Relaxed) >= 300
    })
    .await;
    assert_eq!(told.done.load(Ordering::Relaxed), 0);
    hole.open.send_replace(true);
    watch("the clusters are back", &|| told.done.load(Ordering::Relaxed) >= 20_000).await;
    told.stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let acknowledged = std::mem::take(&mut *told.acknowledged.0.lock().unwrap());
    let lost: Vec<String> = {
        let ids = hole.ids.lock().unwrap();
        acknowledged.into_iter().filter(|id| !ids.contains(id)).take(5).collect()
    };
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are not there");
    let ended = Instant::now();
    while !client::json(router.admin, "GET", "/metrics", "")
        .await
        .text
        .contains("router_budget_used_bytes 0\n")
    {
        assert!(ended.elapsed() < LONG, "bytes leaked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!(
        "{most} MiB were resident at most, {} requests were refused",
        told.refused.load(Ordering::Relaxed)
    );
}
