//! The operator under test, two ways: as a process of this computer that a test can kill at any moment, with account and
//! rights of the namespaced overlay; or deployed from its image by the shipped manifests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::objects::text;
use crate::wait::{LIMIT, ensure};
use crate::{Elastic, Env, say, shell, wait_for};

/// Name of ServiceAccount, ClusterRole and Deployment in the shipped manifests.
pub const OPERATOR: &str = "searchcell-operator";
/// Namespace of the shipped Deployment.
pub const SYSTEM_NAMESPACE: &str = "searchcell-system";
/// Namespace of the namespaced overlay.
pub const OVERLAY_NAMESPACE: &str = "search";

/// All objects of an overlay, as `kubectl apply -k` would send them.
pub async fn manifests(env: &Env, overlay: &str) -> Vec<Value> {
    self::overlay(env, &format!("manifests/overlays/{overlay}")).await
}

/// All objects of a folder of the repository.
pub async fn overlay(env: &Env, folder: &str) -> Vec<Value> {
    let overlay = env.repository.join(folder);
    let rendered =
        shell::kubectl(&["kustomize", &overlay.display().to_string()], None, Duration::from_secs(60)).await;
    let rendered = rendered.ok("kubectl kustomize");
    let documents = serde_yaml::Deserializer::from_str(&rendered);
    documents
        .map(|document| serde::Deserialize::deserialize(document).expect("YAML of the overlay"))
        .collect()
}

/// Applies objects as the installer.
pub async fn install(objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=e2e-install", "-f", "-"];
    shell::kubectl(&arguments, Some(&list), Duration::from_secs(120)).await.ok("kubectl apply");
}

/// The objects of the namespaced overlay, moved to another namespace. Of an installation in one namespace nothing may lie
/// outside of it.
pub fn moved_to(namespace: &str, manifests: &[Value]) -> Vec<Value> {
    let mut objects = manifests.to_vec();
    for object in &mut objects {
        assert_eq!(text(object, "/metadata/namespace"), OVERLAY_NAMESPACE, "{object:#}");
        object["metadata"]["namespace"] = json!(namespace);
        for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            subject["namespace"] = json!(namespace);
        }
    }
    objects
}

/// What a process of the operator needs of an installation in one namespace: its account and its rights.
pub fn rules_in(namespace: &str, manifests: &[Value]) -> Vec<Value> {
    let rules = |object: &Value| ["ServiceAccount", "Role", "RoleBinding"].contains(&text(object, "/kind"));
    moved_to(namespace, manifests).into_iter().filter(rules).collect()
}

/// A running process of the operator. Dropping it kills it.
pub struct Operator {
    child: Child,
    /// Its output.
    pub log: PathBuf,
    metrics: Elastic,
    /// Its user name, as in the API server's audit log.
    pub user: String,
}

impl Operator {
    /// Starts the binary for one namespace; its rights are installed there already. It reaches the API server as
    /// [`kubeconfig_of`] says.
    pub async fn start(
        binary: &Path,
        namespace: &str,
        flags: &[&str],
        log: PathBuf,
        config: &Value,
    ) -> Operator {
        let kubeconfig = log.with_extension("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).expect("the kubeconfig");
        // processes of one test follow each other quickly: each gets a port of its own
        static PORT: AtomicU16 = AtomicU16::new(18080);
        let address = format!("127.0.0.1:{}", PORT.fetch_add(1, Ordering::Relaxed));
        let output = std::fs::File::create(&log).expect("the operator's log");
        let child = Command::new(binary)
            .args(["--namespace", namespace, "--lease-name", OPERATOR, "--metrics-address", &address])
            .args(flags)
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAME", name_of(&log))
            .env("POD_NAMESPACE", namespace)
            .env("RUST_BACKTRACE", "1")
            .env(
                "RUST_LOG",
                std::env::var("SEARCHCELL_E2E_OPERATOR_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the operator's log"))
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; build it first", binary.display()));
        let metrics = Elastic::at(&format!("http://{address}"));
        let user = user_in(namespace);
        Operator { child, log, metrics, user }
    }

    /// Waits until it leads and has seen the world: `/readyz`.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                panic!("the operator ended: {status}; {}", self.log_tail());
            }
            let limit = Duration::from_secs(5);
            let answer = self.metrics.request(Method::GET, "/readyz", "", Bytes::new(), limit).await;
            if matches!(answer, Ok((200, _))) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(300), "/readyz: {answer:?}; {}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What it calls itself; its name in the lease begins so.
    pub fn name(&self) -> String {
        name_of(&self.log)
    }

    /// Its metrics, as text.
    pub async fn metrics(&self) -> String {
        let answer =
            self.metrics.request(Method::GET, "/metrics", "", Bytes::new(), Duration::from_secs(5)).await;
        let (status, body) = answer.expect("/metrics");
        assert_eq!(status, 200, "/metrics");
        String::from_utf8_lossy(&body).into_owned()
    }

    /// A counter of its metrics, by its labels as they are written there.
    pub async fn counts(&self, name: &str) -> BTreeMap<String, u64> {
        let metrics = self.metrics().await;
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let pair = |line: &str| {
            let (labels, count) = line.rsplit_once("} ")?;
            Some((labels.to_owned(), count.parse().ok()?))
        };
        lines.filter_map(pair).collect()
    }

    /// Waits until it has looked at everything of a kind (`cell`, `placement`, `table`) so many times more.
    pub async fn looks(&self, kind: &str, objects: u64, times: u64) {
        let finished = async || {
            let all = self.counts("searchcell_reconciliations_total").await;
            let label = format!("controller=\"{kind}\"");
            all.iter().filter(|(labels, _)| labels.contains(&label)).map(|(_, count)| count).sum::<u64>()
        };
        let wanted = finished().await + objects * times;
        wait_for(&format!("{times} more looks at each {kind}"), LIMIT, async || {
            let seen = finished().await;
            ensure(seen >= wanted, || format!("{seen} of {wanted}"))
        })
        .await;
    }

    /// SIGKILL, and wait for the end.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("SIGKILL");
    }

    /// SIGTERM, and wait for the end; how long it took.
    pub async fn terminate(mut self) -> Duration {
        let began = Instant::now();
        if let Some(pid) = self.child.id() {
            let killed =
                shell::run("/bin/kill", &["-TERM", &pid.to_string()], None, Duration::from_secs(5)).await;
            killed.unwrap().ok("kill");
        }
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        ended.expect("the operator ends within a minute of SIGTERM").expect("its exit status");
        began.elapsed()
    }

    /// Its exit status, if it has ended by itself.
    pub fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10) // USER_HZ is 100 on every Linux this runs on
    }

    /// Resident memory now, and the most so far, in MiB.
    pub fn memory(&self) -> (f64, f64) {
        memory_of(self.child.id().expect("a running operator"))
    }

    fn proc(&self, file: &str) -> String {
        let pid = self.child.id().expect("a running operator");
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("its /proc")
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Resident memory of a process now, and the most so far, in MiB.
pub fn memory_of(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its /proc");
    let mib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let kib = line.split_whitespace().nth(1).and_then(|value| value.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    };
    (mib("VmRSS:"), mib("VmHWM:"))
}

/// The operator's user name in the API server's audit log, where it runs in this namespace.
pub fn user_in(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{OPERATOR}")
}

fn name_of(log: &Path) -> String {
    log.file_stem().unwrap().to_string_lossy().into_owned()
}

impl Drop for Operator {
    fn drop(&mut self) {
        // its log may become evidence of a failure; its token need not
        let _ = std::fs::remove_file(self.log.with_extension("kubeconfig"));
    }
}

/// A kubeconfig like the tests' own, with the rights of the operator's ServiceAccount of a namespace.
/// The kubeconfig of the operator's account in a namespace.
pub async fn kubeconfig_of(namespace: &str) -> Value {
    let limit = Duration::from_secs(30);
    let arguments = ["create", "token", OPERATOR, "-n", namespace, "--duration=12h"];
    let token = shell::kubectl(&arguments, None, limit).await.ok("kubectl create token");
    let arguments = ["config", "view", "--minify", "--raw", "--flatten", "-o", "json"];
    let own = shell::kubectl(&arguments, None, limit).await.ok("kubectl config view");
    let mut config: Value = serde_json::from_str(&own).expect("a kubeconfig");
    config["users"] = json!([{"name": "operator", "user": {"token": token.trim()}}]);
    config["contexts"][0]["context"]["user"] = json!("operator");
    config
}

/// Installs the shipped manifests whole and waits until the Deployment is available.
pub async fn deploy(manifests: &[Value]) {
    install(manifests).await;
    scale_deployed(1).await;
    let arguments = ["rollout", "status", "deployment", OPERATOR, "-n", SYSTEM_NAMESPACE, "--timeout=300s"];
    shell::kubectl(&arguments, None, Duration::from_secs(310)).await.ok("the operator's Deployment");
    say("the operator is deployed from its image");
}

/// Sets the number of deployed operators; nothing where none is deployed. A deployed one watches every namespace, so
/// it has to rest while a test runs one of its own.
pub async fn scale_deployed(replicas: i32) {
    let limit = Duration::from_secs(120);
    let arguments =
        ["get", "deployment", OPERATOR, "-n", SYSTEM_NAMESPACE, "--ignore-not-found", "-o", "name"];
    if shell::kubectl(&arguments, None, limit).await.ok("kubectl get").trim().is_empty() {
        return;
    }
    let replicas = format!("--replicas={replicas}");
    let arguments = ["scale", "deployment", OPERATOR, "-n", SYSTEM_NAMESPACE, &replicas];
    shell::kubectl(&arguments, None, limit).await.ok("kubectl scale");
    if replicas == "--replicas=0" {
        let selector = format!("app.kubernetes.io/name={OPERATOR}");
        let arguments =
            ["wait", "--for=delete", "pod", "-l", &selector, "-n", SYSTEM_NAMESPACE, "--timeout=60s"];
        shell::kubectl(&arguments, None, limit).await.ok("the end of the deployed operator");
    }
}
