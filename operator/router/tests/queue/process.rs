//! The real router as a process, between a real `nats-server` and an Elasticsearch of ours: killed, told to stop, and
//! started again.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use searchcell_core::routing::{Table, encode};
use searchcell_crds::Versioning;
use searchcell_router::source::nats::Lane;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::client;
use super::harness::{Queue, empty, table, until};
use super::nats::Broker;
use super::stored::{self, Guard};

struct Router {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Router {
    fn start(root: &std::path::Path, broker: &Broker) -> Self {
        let (listen, admin) = (free(), free());
        let mut settings = json!({
            "listen": listen, "admin": admin, "stateDirectory": root,
            "collections": [{"name": "messages", "table": root.join("table")}],
            "source": broker.source_settings(), "deadLetter": {"subject": "dead.chat"},
            "limits": {"budget": "16Mi", "grace": "20s"}});
        settings["source"]["collection"] = json!("messages");
        let file = root.join("router.yaml");
        std::fs::write(&file, settings.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_router"));
        command.arg("--config").arg(&file).arg("--log").arg("warn").stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), listen, admin }
    }

    async fn is_ready(&self) -> bool {
        if TcpStream::connect(self.admin).await.is_err() {
            return false;
        }
        client::json(self.admin, "GET", "/readyz", "").await.status == 200
    }

    async fn says(&self, what: &str) -> bool {
        client::json(self.admin, "GET", "/readyz", "").await.text.contains(what)
    }

    async fn metric(&self, line: &str) -> u64 {
        let text = client::json(self.admin, "GET", "/metrics", "").await.text;
        let found = text.lines().find_map(|known| known.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// SIGTERM, and the end of the process.
    async fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        until("the router ends", || {
            let over = self.child.try_wait().unwrap();
            async move { over.is_some_and(|status| status.success()) }
        })
        .await;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A table of indices that are all on one Elasticsearch.
fn on(address: SocketAddr) -> Table {
    let mut table = table(Versioning::External, false);
    for cluster in &mut table.clusters {
        cluster.endpoint = format!("http://{address}");
        cluster.nodes = address.to_string();
    }
    table
}

/// What Elasticsearch has of documents, by tenant and id: their versions.
async fn there(address: SocketAddr, table: &Table, wanted: &BTreeMap<(String, String), i64>) -> usize {
    let mut count = 0;
    for ((tenant, id), version) in wanted {
        let index = usize::try_from(table.lookup(tenant).unwrap().read.unwrap()).unwrap();
        let path = format!("/{}/_doc/{tenant}~{id}", table.indices[index].name);
        let got = client::json(address, "GET", &path, "").await.body;
        count += usize::from(got["_version"].as_i64() == Some(*version));
    }
    count
}

async fn publish(broker: &Broker, tenant: u64, id: u64, version: i64) {
    let payload = json!({"guild_id": tenant, "text": format!("{id} {version}")}).to_string();
    let (id, version) = (format!("d{id}"), version.to_string());
    broker.publish(&payload, &[("Searchcell-Id", &id), ("Searchcell-Version", &version)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_between_nats_and_elasticsearch_loses_nothing_whatever_is_killed() {
    let Some(mut broker) = Broker::start("process").await else { return };
    let address = stored::start(Guard::default()).await;
    let table = on(address);
    let root: PathBuf = std::env::temp_dir().join(format!("searchcell-router-queue-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("table"), encode(&table).unwrap()).unwrap();
    let mut oracle = BTreeMap::new();
    let mut number = 0_u64;
    let mut more = |count: u64| {
        let all: Vec<(u64, u64, i64)> = (0..count)
            .map(|_| {
                number += 1;
                let (tenant, id, version) =
                    (number % 11, number % 150, i64::try_from(number * 13 % 97 + 1).unwrap());
                let known = oracle.entry((tenant.to_string(), format!("d{id}"))).or_insert(0_i64);
                *known = version.max(*known);
                (tenant, id, version)
            })
            .collect();
        all
    };

    let mut router = Router::start(&root, &broker);
    until("the router is ready", || router.is_ready()).await;
    for (tenant, id, version) in more(200) {
        publish(&broker, tenant, id, version).await;
    }
    broker.publish("no document", &[("Searchcell-Tenant", "1"), ("Searchcell-Version", "1")]).await;
    empty(&broker).await;
    assert_eq!(broker.dead().await.len(), 1);
    let settled = |decision: &str| {
        format!("searchcell_router_messages_settled_total{{source=\"queue\",decision=\"{decision}\"}}")
    };
    until("it counts what the queue knows", || async {
        router.metric(&settled("acked")).await == 200 && router.metric(&settled("dead")).await == 1
    })
    .await;
    assert_eq!(router.metric("searchcell_router_messages_received_total{source=\"queue\"}").await, 201);

    // The router is killed with messages on their way, and the next one has them again.
    for (tenant, id, version) in more(200) {
        publish(&broker, tenant, id, version).await;
        if id == 75 {
            router.child.kill().unwrap();
            router.child.wait().unwrap();
            router = Router::start(&root, &broker);
        }
    }
    empty(&broker).await;

    // The queue is killed: the router stays, says so, and goes on with it.
    broker.server.kill();
    until("the router says that its queue is away", || router.says("the queue cannot be reached")).await;
    assert_eq!(client::json(router.listen, "GET", "/", "").await.status, 200, "clients are served");
    broker.server.again().await;
    broker.context = broker.server.context().await.unwrap();
    until("the router is ready again", || router.is_ready()).await;
    let last = more(200);
    for (position, (tenant, id, version)) in last.into_iter().enumerate() {
        publish(&broker, tenant, id, version).await;
        if position == 150 {
            // Told to stop in the middle: what it has is written or returned, without a lease to wait for.
            router.stop().await;
            router = Router::start(&root, &broker);
        }
    }
    empty(&broker).await;
    assert_eq!(broker.left(Lane::Main).await, 0);
    // One is deleted; a delete of an older version comes too late for another.
    let gone = ("5".to_owned(), "d5".to_owned());
    let version = oracle.remove(&gone).unwrap() + 1;
    let ((tenant, id), _) = oracle.first_key_value().unwrap();
    for (tenant, id, version) in [(&gone.0, &gone.1, version), (tenant, id, 0)] {
        let version = version.to_string();
        let headers = [
            ("Searchcell-Operation", "delete"),
            ("Searchcell-Tenant", tenant),
            ("Searchcell-Id", id),
            ("Searchcell-Version", &version),
        ];
        broker.publish("", &headers).await;
    }
    empty(&broker).await;
    assert_eq!(there(address, &table, &[(gone, version - 1)].into()).await, 0);
    assert_eq!(there(address, &table, &oracle).await, oracle.len());
    assert_eq!(broker.dead().await.len(), 1);
    router.stop().await;
    std::fs::remove_dir_all(&root).unwrap();
}

#[tokio::test]
async fn a_file_whose_source_has_no_dead_letters_is_refused() {
    let root = std::env::temp_dir().join(format!("searchcell-router-refused-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let settings: Value = json!({
        "collections": [{"name": "messages", "table": "/nowhere"}],
        "source": {"nats": {"servers": ["nats://127.0.0.1:4222"], "stream": "s", "consumer": "c"}}});
    let file = root.join("router.yaml");
    std::fs::write(&file, settings.to_string()).unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_router")).arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(!ran.status.success() && said.contains("deadLetter: a source needs one"), "{said}");
    std::fs::remove_dir_all(&root).unwrap();
}
