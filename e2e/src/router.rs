//! The router under test, as a process of this computer: its files are those that a pod would have mounted, and are
//! brought up to date as a kubelet does it, only sooner. Effects: a process, a folder that only this user may read.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::objects::{Objects, text};
use crate::{Elastic, Scenario, shell};

/// How often mounted files are brought up to date.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The files of a router. Dropping them removes them.
pub struct Mounts {
    folder: PathBuf,
    sync: JoinHandle<()>,
}

impl Mounts {
    /// Tables of collections, and authority and credential of every cell of the namespace.
    pub async fn new(t: &Scenario, collections: &[&str]) -> Mounts {
        static NUMBER: AtomicU16 = AtomicU16::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Not with the evidence: there is a password in it.
        let folder = std::env::temp_dir().join(format!("searchcell-e2e-{}-{number}", std::process::id()));
        for part in ["tables", "elasticsearch", "state"] {
            std::fs::create_dir_all(folder.join(part)).expect("a folder for the router");
        }
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("a folder of ours");
        let objects = Objects::new(t.env.client.clone(), &t.namespace);
        let collections: Vec<String> = collections.iter().map(|&name| name.to_owned()).collect();
        write(&objects, &folder, &collections).await.expect("the router's files");
        let to = folder.clone();
        let sync = tokio::spawn(async move {
            loop {
                tokio::time::sleep(SYNC_EVERY).await;
                // Without an API server a kubelet leaves files as they are, too.
                let _ = write(&objects, &to, &collections).await;
            }
        });
        Mounts { folder, sync }
    }

    /// The configuration: `settings` over what every test has.
    fn configure(&self, collections: &[&str], ports: (u16, u16), settings: &Value) -> PathBuf {
        let table = |name: &&str| json!({"name": name, "table": self.table(name)});
        let base = json!({
            "listen": format!("127.0.0.1:{}", ports.0),
            "admin": format!("127.0.0.1:{}", ports.1),
            "collections": collections.iter().map(table).collect::<Vec<_>>(),
            "stateDirectory": self.folder.join("state"),
            "elasticsearch": {"directory": self.folder.join("elasticsearch")},
        });
        let file = self.folder.join("router.yaml");
        // JSON is YAML.
        std::fs::write(&file, crate::cells::merged(base, settings).to_string()).expect("the configuration");
        file
    }

    /// The table of a collection.
    pub fn table(&self, collection: &str) -> PathBuf {
        self.folder.join("tables").join(format!("{collection}.json.gz"))
    }

    /// Brings nothing up to date from now on, and takes the tables away: only what the router itself has kept is left.
    pub fn take_tables_away(&self) {
        self.sync.abort();
        std::fs::remove_dir_all(self.folder.join("tables")).expect("the tables");
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.sync.abort();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What is there is written; what is not yet is left out, as an optional volume does.
async fn write(objects: &Objects, folder: &Path, collections: &[String]) -> Result<(), String> {
    for name in collections {
        let Some(map) = objects.get("configmaps", &format!("routes-{name}")).await? else { continue };
        let table = bytes_of(&map["binaryData"]["table.json.gz"])?;
        replace(&folder.join("tables").join(format!("{name}.json.gz")), &table)?;
    }
    for cell in objects.list("searchcells", "").await? {
        let cell = text(&cell, "/metadata/name").to_owned();
        let into = folder.join("elasticsearch").join(&cell);
        std::fs::create_dir_all(&into).map_err(|error| error.to_string())?;
        if let Some(map) = objects.get("configmaps", &format!("{cell}-http-ca-public")).await? {
            replace(&into.join("ca.crt"), text(&map, "/data/ca.crt").as_bytes())?;
        }
        if let Some(secret) = objects.get("secrets", &format!("{cell}-router")).await? {
            for key in ["username", "password"] {
                replace(&into.join(key), &bytes_of(&secret["data"][key])?)?;
            }
        }
    }
    Ok(())
}

fn bytes_of(value: &Value) -> Result<Vec<u8>, String> {
    let bytes = serde_json::from_value::<k8s_openapi::ByteString>(value.clone());
    bytes.map(|bytes| bytes.0).map_err(|error| error.to_string())
}

/// Whole, or not at all; and only when it is new, as the kubelet does it.
fn replace(file: &Path, content: &[u8]) -> Result<(), String> {
    if std::fs::read(file).is_ok_and(|before| before == content) {
        return Ok(());
    }
    let part = file.with_extension("part");
    let written = std::fs::write(&part, content).and_then(|()| std::fs::rename(&part, file));
    written.map_err(|error| format!("{}: {error}", file.display()))
}

/// A running router. Dropping it kills it.
pub struct Router {
    child: Child,
    /// Its output.
    pub log: PathBuf,
    /// Where clients connect.
    pub port: u16,
    /// The same: `http://127.0.0.1:<port>`.
    pub url: String,
    /// The same, as a client.
    pub front: Elastic,
    admin: Elastic,
}

impl Router {
    /// Starts one and waits until it has its tables.
    pub async fn start(t: &Scenario, mounts: &Mounts, collections: &[&str], settings: &Value) -> Router {
        let mut router = Self::spawn(t, mounts, collections, settings);
        router.ready().await;
        router
    }

    /// Starts one.
    pub fn spawn(t: &Scenario, mounts: &Mounts, collections: &[&str], settings: &Value) -> Router {
        static PORT: AtomicU16 = AtomicU16::new(19200);
        Self::spawn_at(PORT.fetch_add(2, Ordering::Relaxed), t, mounts, collections, settings)
    }

    /// Starts one where another one was, which has ended.
    pub fn spawn_at(
        port: u16,
        t: &Scenario,
        mounts: &Mounts,
        collections: &[&str],
        settings: &Value,
    ) -> Router {
        let file = mounts.configure(collections, (port, port + 1), settings);
        let log = t.folder.join(format!("router-{port}.log"));
        let output = std::fs::File::options().create(true).append(true).open(&log);
        let output = output.expect("the router's log");
        let binary = &t.env.router_binary;
        let child = Command::new(binary)
            .arg("--config")
            .arg(file)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the router's log"))
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; build it first", binary.display()));
        let url = format!("http://127.0.0.1:{port}");
        let (front, admin) = (Elastic::at(&url), Elastic::at(&format!("http://127.0.0.1:{}", port + 1)));
        Router { child, log, port, url, front, admin }
    }

    /// Waits for `/readyz`.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the state of a child") {
                panic!("the router ended: {status}; {}", self.log_tail());
            }
            let answer = self.ask("/readyz").await;
            if matches!(answer, Ok((200, _))) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "/readyz: {answer:?}; {}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What is at a path of the admin port.
    pub async fn ask(&self, path: &str) -> Result<(u16, String), String> {
        let limit = Duration::from_secs(5);
        let (status, body) = self.admin.request(Method::GET, path, "", Bytes::new(), limit).await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// A counter, summed over its labels; those of lines that have `label`, which is as it is written there.
    pub async fn counter(&self, name: &str, label: &str) -> u64 {
        let (status, metrics) = self.ask("/metrics").await.expect("/metrics");
        assert_eq!(status, 200, "/metrics");
        let line = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let is_it = rest.starts_with(['{', ' ']) && rest.contains(label);
            is_it.then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
        };
        metrics.lines().filter_map(line).sum()
    }

    /// SIGKILL, and wait for the end.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("SIGKILL");
    }

    /// SIGTERM, and wait for the end; how long it took, and whether it ended well.
    pub async fn terminate(mut self) -> (Duration, bool) {
        let began = Instant::now();
        let pid = self.child.id().expect("a running router").to_string();
        shell::run("/bin/kill", &["-TERM", &pid], None, Duration::from_secs(5)).await.unwrap().ok("kill");
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = ended.expect("the router ends within a minute of SIGTERM").expect("its exit status");
        (began.elapsed(), status.success())
    }

    /// Resident memory now, and the most so far, in MiB.
    pub fn memory(&self) -> (f64, f64) {
        crate::operator::memory_of(self.child.id().expect("a running router"))
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// A bulk of lines; the items of the answer, in the order asked.
    pub async fn bulk(&self, path: &str, lines: &[Value]) -> Result<Vec<Item>, String> {
        bulk(&self.front, path, lines).await
    }
}

/// A bulk of lines to a router; the items of the answer, in the order asked.
pub async fn bulk(front: &Elastic, path: &str, lines: &[Value]) -> Result<Vec<Item>, String> {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let limit = Duration::from_secs(120);
    let sent = front.request(Method::POST, path, "application/x-ndjson", body.into(), limit).await?;
    let answer: Value = serde_json::from_slice(&sent.1).map_err(|error| error.to_string())?;
    if sent.0 != 200 {
        return Err(format!("{path}: {} {answer}", sent.0));
    }
    let item = |item: &Value| {
        let of = item.as_object().and_then(|item| item.values().next()).expect("an item");
        Item {
            id: text(of, "/_id").to_owned(),
            status: u16::try_from(of["status"].as_u64().expect("a status")).unwrap(),
            error: text(of, "/error/type").to_owned(),
            reason: text(of, "/error/reason").to_owned(),
        }
    };
    Ok(answer["items"].as_array().ok_or("no items")?.iter().map(item).collect())
}

/// An item of the answer to a bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Id, as its client knows it.
    pub id: String,
    /// HTTP status.
    pub status: u16,
    /// `error.type`; empty: none.
    pub error: String,
    /// `error.reason`, for people.
    pub reason: String,
}

/// How many items there are of each status.
pub fn statuses(items: &[Item]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item.status).or_default() += 1;
    }
    counts
}
