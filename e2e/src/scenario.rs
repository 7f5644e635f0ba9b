//! One test: a namespace with what it needs, the body, evidence when it fails, and nothing left behind.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use serde_json::{Value, json};

use crate::audit::AuditLog;
use crate::bad_network::{BadNetwork, Faults};
use crate::leaks::Material;
use crate::objects::{Objects, conditions_line, items, text};
use crate::wait::{LIMIT, ensure};
use crate::{
    Env, Level, Operator, artifacts, env, nodes, operator, raw, rights, say, shell, skipped, wait_for,
};

/// Label of the namespaces of tests; what an interrupted run left is found by it.
const LABEL: &str = "searchcell.dev/e2e";

/// What a test works with.
pub struct Scenario {
    /// The cluster and the build.
    pub env: &'static Env,
    /// Its namespace.
    pub namespace: String,
    /// The objects of the namespace.
    pub objects: Objects,
    /// Where the operator's logs are, and after a failure everything else.
    pub folder: PathBuf,
    manifests: Vec<Value>,
    /// The namespaced overlay.
    pub namespaced: Vec<Value>,
    log: Option<AuditLog>,
    operators: AtomicUsize,
    binary: Mutex<PathBuf>,
    deployed: Mutex<bool>,
    faults: Mutex<BTreeSet<usize>>,
    material: tokio::sync::Mutex<Material>,
}

/// Runs a test of a level, or says in one line why not.
pub fn run(name: &str, level: Level, test: impl AsyncFnOnce(&Scenario)) {
    // one at a time, also where somebody forgot --test-threads=1: faults hit whole nodes
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let env = match Env::current() {
        Ok(env) => env,
        Err(why) => return skipped(&format!("{name}: {why}")),
    };
    if level > env.level && env::variable("TEST").is_none() {
        return skipped(&format!("{name}: not of this level (make e2e LEVEL=full, or TEST={name})"));
    }
    raw("\n"); // the runner's own line has no end yet
    let began = Instant::now();
    let failure = env::runtime().block_on(async {
        let scenario = Scenario::begin(env, name).await;
        let outcome = AssertUnwindSafe(test(&scenario)).catch_unwind().await;
        scenario.end(outcome).await
    });
    let seconds = began.elapsed().as_secs();
    match failure {
        None => say(format!("{name}: passed in {seconds} s")),
        Some(panic) => {
            // in the runner's own words: its line was torn apart by the progress
            raw(&format!("test {name} ... FAILED\n    after {seconds} s\n"));
            std::panic::resume_unwind(panic);
        }
    }
}

impl Scenario {
    async fn begin(env: &'static Env, name: &str) -> Scenario {
        let manifests = operator::manifests(env, "e2e").await;
        let namespaced = operator::manifests(env, "namespaced").await;
        prepare(env, &manifests).await;
        let log = AuditLog::mark(env).await;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let short: String = name.replace('_', "-").chars().take(24).collect();
        let namespace = format!("e2e-{}-{:x}", short.trim_end_matches('-'), since.as_millis() & 0xff_ffff);
        say(format!("{name} in namespace {namespace}"));
        let created = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {
                LABEL: "true",
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            }},
        });
        operator::install(&[created]).await;
        operator::install(&operator::rules_in(&namespace, &namespaced)).await;
        operator::install(&[let_this_computer_in(&namespace)]).await;
        let folder = env.artifacts.join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the folder for evidence");
        Scenario {
            env,
            objects: Objects::new(env.client.clone(), &namespace),
            namespace,
            folder,
            manifests,
            namespaced,
            log,
            operators: AtomicUsize::new(0),
            binary: Mutex::new(env.operator_binary.clone()),
            deployed: Mutex::new(false),
            faults: Mutex::default(),
            material: tokio::sync::Mutex::default(),
        }
    }

    async fn end(
        &self,
        outcome: Result<(), Box<dyn std::any::Any + Send>>,
    ) -> Option<Box<dyn std::any::Any + Send>> {
        let mut failure = outcome.err();
        if failure.is_some() {
            artifacts::collect(self.env, &self.namespace, &self.folder).await;
            say(format!("evidence: {}", self.folder.display()));
        }
        let faults: Vec<usize> = self.faults.lock().unwrap().iter().copied().collect();
        for n in faults {
            nodes::node(self.env, "on", n, None).await;
            nodes::node(self.env, "heal", n, None).await;
        }
        if failure.is_some() && self.env.keep {
            say(format!("namespace {} is kept", self.namespace));
            return failure;
        }
        if *self.deployed.lock().unwrap() {
            self.keep_log_of_deployed(operator::SYSTEM_NAMESPACE).await;
        }
        if failure.is_none() {
            failure = self.leaks().await;
        }
        if failure.is_none() {
            // leaving is part of every test: with an operator at work, objects go by themselves
            let leaving = AssertUnwindSafe(self.leave()).catch_unwind().await;
            if leaving.is_err() {
                artifacts::collect(self.env, &self.namespace, &self.folder).await;
                say(format!("evidence: {}", self.folder.display()));
            }
            failure = leaving.err();
        }
        if failure.is_none() {
            failure = self.refused_requests();
        }
        if *self.deployed.lock().unwrap() {
            operator::scale_deployed(0).await;
        }
        sweep(self.env).await;
        if failure.is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        failure
    }

    /// Remembers what the Secrets of the cells have now: it may not be seen anywhere, also when it is no longer used.
    pub async fn remember_secrets(&self) {
        self.material.lock().await.remember(&self.objects).await.expect("the Secrets of the namespace");
    }

    /// What is secret is in Secrets alone. That nobody could look is a failure, too.
    async fn leaks(&self) -> Option<Box<dyn std::any::Any + Send>> {
        let mut material = self.material.lock().await;
        let found = async {
            material.remember(&self.objects).await?;
            if material.is_empty() {
                return Ok(Vec::new());
            }
            let found =
                material.search(&self.objects, &self.namespace, &self.folder, self.log.as_ref()).await?;
            say(format!("{} pieces of Secrets looked for, {} found", material.len(), found.len()));
            Ok::<_, String>(found)
        };
        let why = match found.await {
            Ok(found) if found.is_empty() => return None,
            Ok(found) => format!("found outside of Secrets: {found:#?}"),
            Err(error) => format!("what is secret was not looked for: {error}"),
        };
        say(&why);
        Some(Box::new(why))
    }

    /// The operator may never ask for what it has no right to: then a manifest lacks a rule.
    fn refused_requests(&self) -> Option<Box<dyn std::any::Any + Send>> {
        let log = self.log.as_ref()?;
        let users = [operator::user_in(&self.namespace), operator::user_in(operator::SYSTEM_NAMESPACE)];
        let refused: Vec<String> =
            users.iter().flat_map(|user| rights::refused(&log.requests_of(user))).collect();
        (!refused.is_empty()).then(|| {
            say(format!("refused for want of a right: {refused:#?}"));
            Box::new("the operator was refused what it asked for") as Box<dyn std::any::Any + Send>
        })
    }

    async fn leave(&self) {
        let left = self.objects.list("searchcells", "").await.unwrap();
        let placements = self.objects.list("indexplacements", "").await.unwrap();
        if left.is_empty() && placements.is_empty() {
            return;
        }
        let deployed = *self.deployed.lock().unwrap();
        let mut own = None;
        if !deployed {
            // alone: the lease of the one that the test has killed need not run out first
            let mut operator = self.spawn_operator_alone().await;
            operator.ready().await;
            own = Some(operator);
        }
        for placement in &placements {
            self.objects.delete("indexplacements", text(placement, "/metadata/name")).await.unwrap();
        }
        self.gone("indexplacements", "").await;
        for cell in &left {
            self.objects.delete("searchcells", text(cell, "/metadata/name")).await.unwrap();
        }
        wait_for("the deletion of cells and placements", Duration::from_secs(300), async || {
            let mut left = self.objects.list("searchcells", "").await?;
            left.extend(self.objects.list("indexplacements", "").await?);
            ensure(left.is_empty(), || left.iter().map(conditions_line).collect::<Vec<_>>().join(" | "))
        })
        .await;
        if let Some(operator) = &mut own {
            assert!(operator.exited().is_none(), "the operator ended: {}", operator.log_tail());
        }
    }

    /// Starts a process of the operator for this namespace and waits until it is ready.
    pub async fn start_operator(&self) -> Operator {
        let mut operator = self.spawn_operator().await;
        operator.ready().await;
        operator
    }

    /// Waits until a process of the operator holds the lease: its killed predecessor's has to run out first.
    pub async fn leads(&self, operator: &Operator) {
        wait_for(&format!("{} leads", operator.name()), LIMIT, async || {
            let lease = self.objects.get("leases", operator::OPERATOR).await?.ok_or("no lease")?;
            let holder = text(&lease, "/spec/holderIdentity");
            ensure(holder.starts_with(&format!("{}_", operator.name())), || {
                format!("the lease is held by {holder:?}")
            })
        })
        .await
    }

    /// Starts a process of the operator and does not wait.
    pub async fn spawn_operator(&self) -> Operator {
        self.spawn(&[]).await
    }

    /// The same without a lease: it acts at once. No other may run meanwhile.
    pub async fn spawn_operator_alone(&self) -> Operator {
        self.spawn(&["--leader-elect=false"]).await
    }

    /// Starts a process of the operator with flags of its own and waits until it is ready.
    pub async fn start_operator_with(&self, flags: &[&str]) -> Operator {
        let mut operator = self.spawn(flags).await;
        operator.ready().await;
        operator
    }

    /// Starts a process of the operator without a lease behind a bad network, and does not wait.
    pub async fn spawn_operator_behind(&self, network: &BadNetwork) -> Operator {
        let mut config = operator::kubeconfig_of(&self.namespace).await;
        config["clusters"][0]["cluster"] = json!({"server": network.url()});
        self.spawn_with(&["--leader-elect=false"], &config).await
    }

    /// A bad network between this namespace's operators and the API server.
    pub async fn bad_network(&self, faults: Faults) -> BadNetwork {
        BadNetwork::before(&operator::kubeconfig_of(&self.namespace).await, faults).await
    }

    async fn spawn(&self, flags: &[&str]) -> Operator {
        self.spawn_with(flags, &operator::kubeconfig_of(&self.namespace).await).await
    }

    async fn spawn_with(&self, flags: &[&str], config: &Value) -> Operator {
        let number = self.operators.fetch_add(1, Ordering::Relaxed) + 1;
        let binary = self.binary.lock().unwrap().clone();
        let log = self.folder.join(format!("operator-{number}.log"));
        Operator::start(&binary, &self.namespace, flags, log, config).await
    }

    /// Processes that start from now on run this binary.
    pub fn use_binary(&self, path: &str) {
        *self.binary.lock().unwrap() = PathBuf::from(path);
    }

    /// Deploys the operator from its image, as users do; it rests again when the test ends.
    pub async fn deploy_operator(&self) {
        *self.deployed.lock().unwrap() = true;
        operator::deploy(&self.manifests).await;
    }

    /// Keeps what the operator that is deployed in a namespace has logged, with the logs of the processes.
    pub async fn keep_log_of_deployed(&self, namespace: &str) {
        let deployment = format!("deployment/{}", operator::OPERATOR);
        let arguments = ["logs", "-n", namespace, &deployment];
        let log = shell::kubectl(&arguments, None, Duration::from_secs(60)).await.ok("kubectl logs");
        assert!(!log.is_empty(), "the deployed operator has logged nothing");
        std::fs::write(self.folder.join("operator-deployed.log"), log).expect("the folder for evidence");
    }

    /// Applies an object as the user.
    pub async fn apply(&self, object: &Value) -> Value {
        self.objects.apply(object).await.unwrap_or_else(|error| panic!("apply: {error}\n{object:#}"))
    }

    /// Pulls the plug of a node, cuts its network and so on; undone when the test ends. False: impossible here.
    pub async fn node(&self, verb: &str, n: usize) -> bool {
        self.faults.lock().unwrap().insert(n);
        nodes::node(self.env, verb, n, None).await
    }
}

/// Lets the tests, and processes of the operator, through to the nodes of cells: they are no pods, so no policy of the
/// operator names them. SEARCHCELL_E2E_FROM is the address that they have in the cluster.
fn let_this_computer_in(namespace: &str) -> Value {
    let from = env::variable("SEARCHCELL_E2E_FROM").unwrap_or_else(|| "10.77.0.1/32".to_owned());
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "e2e", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "searchcell-operator"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": from}}]}],
        },
    })
}

/// Once per run: what earlier runs left goes, CRDs and rules come, images are there, a deployed operator rests.
async fn prepare(env: &Env, manifests: &[Value]) {
    static PREPARED: Mutex<bool> = Mutex::new(false);
    if std::mem::replace(&mut *PREPARED.lock().unwrap(), true) {
        return;
    }
    let shared: Vec<Value> = (manifests.iter())
        .filter(|object| ["CustomResourceDefinition", "ClusterRole"].contains(&text(object, "/kind")))
        // Processes of the operator get along without it.
        .filter(|object| text(object, "/metadata/name") != operator::OPERATOR)
        .cloned()
        .collect();
    operator::install(&shared).await;
    let arguments =
        ["wait", "--for=condition=Established", "--timeout=60s", "crd/searchcells.searchcell.dev"];
    shell::kubectl(&arguments, None, Duration::from_secs(70)).await.ok("the CRDs");
    build_operator(env).await;
    operator::scale_deployed(0).await;
    sweep(env).await;
    image(env, crate::cells::VERSION).await;
}

/// Builds the binaries of operator and router, as cargo does for a package's own tests, unless the environment names one: with the tests
/// of the workspace, so that libraries are those that were built for them.
async fn build_operator(env: &Env) {
    if env::variable("SEARCHCELL_OPERATOR_BINARY").is_some() {
        return;
    }
    let mut arguments = vec!["build", "--offline", "--workspace", "--bin", "searchcell", "--bin", "router"];
    let is_release = env.operator_binary.parent().is_some_and(|folder| folder.ends_with("release"));
    arguments.push(if is_release { "--release" } else { "--tests" });
    let cargo = env::variable("CARGO").unwrap_or_else(|| "cargo".to_owned());
    shell::run(cargo, &arguments, None, Duration::from_secs(3600))
        .await
        .unwrap()
        .ok("cargo build of the operator");
}

/// Removes the namespaces of tests, whatever is in them, and waits until their processes are gone.
async fn sweep(env: &Env) {
    let all = Objects::new(env.client.clone(), "");
    let selector = format!("{LABEL}=true");
    let Ok(left) = all.list("namespaces", &selector).await else { return };
    for namespace in &left {
        all.delete("namespaces", text(namespace, "/metadata/name")).await.unwrap();
    }
    wait_for("the end of the test's namespace", Duration::from_secs(300), async || {
        let left = all.list("namespaces", &selector).await?;
        for namespace in &left {
            // Of an interrupted run, a process of the operator may still be about, which puts them on again.
            remove_finalizers(&Objects::new(env.client.clone(), text(namespace, "/metadata/name"))).await;
        }
        ensure(left.is_empty(), || left.iter().map(conditions_line).collect())
    })
    .await;
}

async fn remove_finalizers(objects: &Objects) {
    for plural in ["indexplacements", "searchcells"] {
        for object in objects.list(plural, "").await.unwrap_or_default() {
            let unfinalized = json!({"metadata": {"finalizers": null}});
            // It may be gone by now; if not, the next look tries again.
            let _ = objects.merge(plural, text(&object, "/metadata/name"), &unfinalized).await;
        }
    }
}

/// Makes sure that every node has the image of a version of Elasticsearch.
pub async fn image(env: &Env, version: &str) {
    let reference = format!("docker.elastic.co/elasticsearch/elasticsearch:{version}");
    let nodes = Objects::new(env.client.clone(), "").list("nodes", "").await.unwrap();
    let has = |node: &Value| {
        items(node, "/status/images")
            .iter()
            .any(|image| items(image, "/names").iter().any(|name| name.as_str() == Some(reference.as_str())))
    };
    if nodes.iter().filter(|node| text(node, "/metadata/name") != "searchcell-control-plane").all(has) {
        return;
    }
    say(format!("loading the image of Elasticsearch {version}"));
    let limit = Duration::from_secs(1800);
    let built = shell::run(env.elasticsearch_script(), &[version], None, limit).await.unwrap();
    if built.code != 0 {
        panic!("no image of Elasticsearch {version} (build it outside: make e2e): {}", built.stderr);
    }
    let archive = built.stdout.trim().to_owned();
    let loaded = shell::run(env.cluster_script(), &["load", &archive], None, limit).await.unwrap();
    assert!(loaded.code == 0 || loaded.code == 3, "cluster load: {}", loaded.stderr);
}
