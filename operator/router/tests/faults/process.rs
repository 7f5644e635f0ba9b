//! The router as a process of its own, that can be killed, and whose numbers and memory can be asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use searchcell_core::routing::{Table, encode};
use searchcell_workbench::client::Client;
use searchcell_workbench::cost::{self, Cost};
use searchcell_workbench::table::COLLECTION;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long anything may take that happens in a moment, on a machine that has no time for it.
pub const LONG: Duration = Duration::from_secs(300);

pub struct Router {
    child: Child,
    root: PathBuf,
    /// Where it serves; changes when it is started again.
    pub front: Arc<Mutex<SocketAddr>>,
    admin: SocketAddr,
}

impl Router {
    /// Starts one that has this table, and these `limits` in its file.
    pub async fn start(name: &str, table: &Table, limits: &Value) -> Self {
        let root = std::env::temp_dir().join(format!("searchcell-faults-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("table"), encode(table).unwrap()).unwrap();
        let file = json!({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "stateDirectory": root, "limits": limits,
            "collections": [{"name": COLLECTION, "table": root.join("table")}]});
        // JSON is YAML.
        std::fs::write(root.join("router.yaml"), file.to_string()).unwrap();
        let (child, front, admin) = spawn(&root).await;
        Self { child, root, front: Arc::new(Mutex::new(front)), admin }
    }

    /// Ends it as the kernel does when memory is short: at once.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again.
    pub async fn again(&mut self) {
        let (child, front, admin) = spawn(&self.root).await;
        self.child = child;
        self.admin = admin;
        *self.front.lock().unwrap() = front;
    }

    /// Replaces its table whole, as the kubelet does.
    pub fn put_table(&self, table: &Table) {
        std::fs::write(self.root.join("new"), encode(table).unwrap()).unwrap();
        std::fs::rename(self.root.join("new"), self.root.join("table")).unwrap();
    }

    /// The generation that is applied, and the one up to which nothing older is in flight.
    pub async fn generations(&self) -> (i64, i64) {
        let text = Client::new(self.admin).get("/generation").await;
        let value: Value = serde_json::from_str(&text).unwrap();
        let of = |name: &str| value["collections"][COLLECTION][name].as_i64().unwrap();
        (of("applied"), of("drained"))
    }

    /// Everything that it counts, by name; of several series, their sum, and each by its labels.
    pub async fn metrics(&self) -> BTreeMap<String, u64> {
        let text = Client::new(self.admin).get("/metrics").await;
        let mut metrics = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value = value.parse::<f64>().unwrap() as u64;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let name = name.trim_start_matches("searchcell_router_");
            *metrics.entry(name.to_owned()).or_default() += value;
            for label in labels.trim_end_matches('}').split(',').filter(|label| label.starts_with("outcome="))
            {
                *metrics.entry(format!("{name} {label}")).or_default() += value;
            }
        }
        metrics
    }

    /// What it has cost.
    pub fn cost(&self) -> Cost {
        cost::of(self.child.id().unwrap()).unwrap()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.child.start_kill().ok();
        std::fs::remove_dir_all(&self.root).ok();
    }
}

async fn spawn(root: &std::path::Path) -> (Child, SocketAddr, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_router"))
        .arg("--config")
        .arg(root.join("router.yaml"))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let (front, admin) = loop {
        let Some(line) = log.next_line().await.unwrap() else { panic!("the router ended: {said:#?}") };
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        let field = |name: &str| entry["fields"][name].as_str().and_then(|text| text.parse().ok());
        if let (Some(front), Some(admin)) = (field("address"), field("admin")) {
            break (front, admin);
        }
        said.push(line);
    };
    tokio::spawn(async move {
        while let Ok(Some(line)) = log.next_line().await {
            // Shown only when a test fails.
            println!("{line}");
        }
    });
    let ready = async {
        loop {
            let asked = Client::new(admin).send(http::Method::GET, "/readyz", bytes::Bytes::new()).await;
            if asked.is_ok_and(|(status, _)| status == 200) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, ready).await.expect("the router becomes ready");
    (child, front, admin)
}
