//! The processes of a measurement beside the one that drives it: the Elasticsearch without an index, the router, and a
//! queue. Each ends when it is dropped. Effects: starts and ends processes, writes files.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::context::DeleteStreamErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode, stream};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::null::rules::Rule;
use crate::null::{Counters, Document};

/// How long a process may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(10);

/// Clusters without an index behind them, told over HTTP.
pub struct Null {
    _process: Child,
    /// A node of each cluster.
    pub clusters: Vec<SocketAddr>,
    control: Client,
}

impl Null {
    /// So many clusters of one node, each with so many data nodes.
    pub async fn start(clusters: usize, data_nodes: usize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["null", "--clusters", &clusters.to_string(), "--data-nodes", &data_nodes.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        #[derive(Deserialize)]
        struct Said {
            clusters: Vec<Vec<SocketAddr>>,
            control: SocketAddr,
        }
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let said: Said = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        let clusters = said.clusters.iter().map(|nodes| nodes[0]).collect();
        Self { _process: process, clusters, control: Client::new(said.control) }
    }

    async fn tell(&mut self, method: Method, path: &str, value: &Value) {
        let body = Bytes::from(value.to_string());
        let (status, body) = self.control.send(method, path, body).await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }

    /// Forgets documents and counts.
    pub async fn reset(&mut self) {
        for number in 0..self.clusters.len() {
            self.tell(Method::POST, &format!("/{number}/reset"), &Value::Null).await;
        }
    }

    /// Rules of a cluster from now on.
    pub async fn rules(&mut self, cluster: usize, rules: &[Rule]) {
        self.tell(Method::PUT, &format!("/{cluster}/rules"), &json!(rules)).await;
    }

    /// Whether a cluster's node lives.
    pub async fn up(&mut self, cluster: usize, up: bool) {
        self.tell(Method::PUT, &format!("/{cluster}/nodes/0"), &json!(up)).await;
    }

    /// What a cluster counted.
    pub async fn counters(&mut self, cluster: usize) -> Counters {
        let text = self.control.get(&format!("/{cluster}/counters")).await;
        serde_json::from_str(&text).unwrap()
    }

    /// What a cluster has, or had until it was deleted.
    pub async fn documents(&mut self, cluster: usize) -> Vec<Document> {
        let text = self.control.get(&format!("/{cluster}/documents")).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Operations of a bulk, of all clusters.
    pub async fn per_bulk(&mut self) -> f64 {
        let (mut operations, mut bulks) = (0, 0);
        for number in 0..self.clusters.len() {
            let counters = self.counters(number).await;
            operations += counters.operations;
            bulks += counters.bulks;
        }
        operations as f64 / bulks.max(1) as f64
    }
}

/// The router's process.
pub struct Router {
    process: Child,
    /// Where clients connect.
    pub front: SocketAddr,
}

impl Router {
    /// With this file; ready.
    pub async fn start(program: &Path, file: &Path) -> Self {
        let mut process = Command::new(program)
            .arg("--config")
            .arg(file)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut addresses = BTreeMap::new();
        while addresses.len() < 2 {
            let line = log.next_line().await.unwrap().expect("the router runs");
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            for name in ["address", "admin"] {
                if let Some(address) = entry["fields"][name].as_str() {
                    addresses.insert(name, address.parse::<SocketAddr>().unwrap());
                }
            }
        }
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let mut admin = Client::new(addresses["admin"]);
        while !admin.send(Method::GET, "/readyz", Bytes::new()).await.is_ok_and(|(status, _)| status == 200) {
            sleep(BETWEEN).await;
        }
        Self { process, front: addresses["address"] }
    }

    /// Its process.
    pub fn id(&self) -> String {
        self.process.id().unwrap().to_string()
    }
}

/// Stream that documents are published to; what is done leaves it.
pub const STREAM: &str = "chat";
/// Subject of documents.
pub const SUBJECT: &str = "chat.messages";
/// The router's consumer.
pub const CONSUMER: &str = "router";
/// Stream, and subject, of dead letters.
pub const DEAD: &str = "dead";

/// A `nats-server` of its own, which keeps everything in memory.
pub struct Nats {
    _process: Child,
    /// Where it is.
    pub url: String,
    context: Context,
}

impl Nats {
    /// With its files in a directory.
    pub async fn start(program: &Path, directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        // It chooses its port, and writes down which.
        let file = directory.join("server.conf");
        let place = directory.display();
        let text = format!(
            "host: 127.0.0.1\nport: -1\nports_file_dir: \"{place}\"\njetstream {{store_dir: \"{place}/store\"}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = command.spawn().unwrap();
        let ports = directory.join(format!("nats-server_{}.ports", process.id().unwrap()));
        let started = Instant::now();
        loop {
            if let Some(url) = url_of(&ports)
                && let Ok(client) = async_nats::connect(&url).await
            {
                let context = jetstream::new(client);
                // Deleting what is not there is answered as soon as streams are served.
                let answer = context.delete_stream(STREAM).await.map_err(|error| error.kind());
                if let Err(DeleteStreamErrorKind::JetStream(error)) = answer
                    && error.error_code() == ErrorCode::STREAM_NOT_FOUND
                {
                    return Self { _process: process, url, context };
                }
            }
            assert!(started.elapsed() < PATIENCE, "nats-server does not come up");
            sleep(BETWEEN).await;
        }
    }

    /// Its streams, empty and without a consumer.
    pub async fn make_streams(&self) {
        for (name, subject) in [(STREAM, SUBJECT), (DEAD, DEAD)] {
            let config = stream::Config {
                name: name.into(),
                subjects: vec![subject.into()],
                storage: stream::StorageType::Memory,
                retention: stream::RetentionPolicy::WorkQueue,
                ..stream::Config::default()
            };
            self.context.create_stream(config).await.unwrap();
        }
    }

    /// Messages that a stream has, and how many it ever had.
    pub async fn messages(&self, stream: &str) -> (u64, u64) {
        let state = self.context.get_stream(stream).await.unwrap().get_info().await.unwrap().state;
        (state.messages, state.last_sequence)
    }

    /// A file for the router beside its usual one, with this queue.
    pub fn settings(&self, files: &Path) -> PathBuf {
        let text = std::fs::read_to_string(files.join("router.yaml")).unwrap();
        let mut settings: Value = serde_json::from_str(&text).unwrap();
        settings["source"] = json!({"nats": {"servers": [self.url], "stream": STREAM, "consumer": CONSUMER}});
        settings["deadLetter"] = json!({"subject": DEAD});
        let file = files.join("queue.yaml");
        std::fs::write(&file, settings.to_string()).unwrap();
        file
    }
}

/// What it wrote down.
fn url_of(ports: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let ports: Ports = serde_json::from_str(&std::fs::read_to_string(ports).ok()?).ok()?;
    ports.nats.into_iter().next()
}
