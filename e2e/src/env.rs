//! Where the tests run: which cluster, which operator, which level, and where failures leave their evidence.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use kube::{Client, Config};
use tokio::runtime::Runtime;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Part of `make test`: minutes.
    Smoke,
    /// Everything: hours.
    Full,
}

/// The cluster and the build under test.
pub struct Env {
    /// SEARCHCELL_E2E_LEVEL: smoke (default) or full.
    pub level: Level,
    /// Client with the rights of a cluster administrator.
    pub client: Client,
    /// Checkout.
    pub repository: PathBuf,
    /// The operator's binary: SEARCHCELL_OPERATOR_BINARY, or the one beside the test binary.
    pub operator_binary: PathBuf,
    /// The router's binary, beside that of the operator.
    pub router_binary: PathBuf,
    /// Evidence of failures: SEARCHCELL_E2E_ARTIFACTS, or a folder of the cache.
    pub artifacts: PathBuf,
    /// SEARCHCELL_E2E_KEEP: leave the namespace of a failed test for a look.
    pub keep: bool,
}

impl Env {
    /// The environment, or why there is nothing to run on. Asks for the cluster only when told to (by
    /// SEARCHCELL_E2E or SEARCHCELL_E2E_LEVEL, which make sets): plain `cargo test --workspace` must never touch
    /// the cluster that somebody's kubeconfig happens to point at.
    pub fn current() -> Result<&'static Env, &'static str> {
        static ENV: OnceLock<Option<Env>> = OnceLock::new();
        ENV.get_or_init(|| {
            let asked =
                ["SEARCHCELL_E2E", "SEARCHCELL_E2E_LEVEL"].iter().any(|name| variable(name).is_some());
            asked.then(|| runtime().block_on(Env::find()))
        })
        .as_ref()
        .ok_or("no cluster (make e2e)")
    }

    async fn find() -> Env {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = Config::infer().await.expect("a kubeconfig: run the tests with make e2e");
        config.read_timeout = Some(Duration::from_secs(40));
        let client = Client::try_from(config).expect("a usable kubeconfig");
        let version = client.apiserver_version().await.expect("an API server: run the tests with make e2e");
        crate::raw(&format!("\n    Kubernetes {}\n", version.git_version));

        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
        let profile = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        let cache = variable("SEARCHCELL_CACHE").map(PathBuf::from).unwrap_or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || PathBuf::from(variable("HOME").expect("HOME")).join(".cache");
            cache.unwrap_or_else(home).join("searchcell")
        });
        let operator_binary =
            variable("SEARCHCELL_OPERATOR_BINARY").map_or_else(|| profile.join("searchcell"), PathBuf::from);
        Env {
            level: match variable("SEARCHCELL_E2E_LEVEL").as_deref() {
                None | Some("smoke" | "1") => Level::Smoke,
                Some("full") => Level::Full,
                Some(other) => panic!("SEARCHCELL_E2E_LEVEL is smoke or full, not {other}"),
            },
            client,
            router_binary: operator_binary.with_file_name("router"),
            operator_binary,
            repository,
            artifacts: variable("SEARCHCELL_E2E_ARTIFACTS").map_or_else(|| cache.join("e2e"), PathBuf::from),
            keep: variable("SEARCHCELL_E2E_KEEP").is_some(),
        }
    }

    /// The script that runs the cluster.
    pub fn cluster_script(&self) -> PathBuf {
        self.repository.join("e2e/cluster/cluster")
    }

    /// The script that builds images of Elasticsearch.
    pub fn elasticsearch_script(&self) -> PathBuf {
        self.repository.join("e2e/images/elasticsearch/build")
    }
}

/// A variable of the environment; an empty one counts as absent.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The one runtime of all tests: clients and their connections outlive a single test.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}
