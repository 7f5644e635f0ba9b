//! Nodes behind one name, as a headless Service has them: one that is dead harms no destination.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use searchcell_core::routing::encode;
use searchcell_crds::Versioning;
use searchcell_router::elastic::nodes::Resolver;
use searchcell_router::run::Router;
use searchcell_router::settings::Settings;
use searchcell_workbench::null::rules::{Fault, Rule};
use searchcell_workbench::null::{Cluster, Options};
use searchcell_workbench::table::{COLLECTION, Pool};
use searchcell_workbench::work::{Operation, Shape, Work};
use serde_json::json;

use super::stage::{seed, until};
use super::writer::{Manner, write};

struct Service {
    cluster: Arc<Cluster>,
    router: Router,
    root: std::path::PathBuf,
}

impl Service {
    /// A cluster of three nodes at addresses of their own and one port, which one name resolves to.
    async fn new(name: &str, bulk_timeout: &str) -> Self {
        let any = |host: u8, port| SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port));
        let free = std::net::TcpListener::bind(any(2, 0)).unwrap().local_addr().unwrap().port();
        let nodes = vec![any(2, free), any(3, free), any(4, free)];
        let cluster = Cluster::start(Options { nodes: nodes.clone(), ..Options::default() }).await.unwrap();
        let pool = Pool {
            clusters: vec![format!("nodes.test:{free}")],
            indices: 4,
            versioning: Versioning::External,
        };
        let root = std::env::temp_dir().join(format!("searchcell-faults-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("table"), encode(&pool.table(1)).unwrap()).unwrap();
        let settings: Settings = serde_json::from_value(json!({
            "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "limits": {"bulkTimeout": bulk_timeout, "bulkOperations": 20},
            "collections": [{"name": COLLECTION, "table": root.join("table")}]}))
        .unwrap();
        let resolver: Resolver = Arc::new(move |authority| {
            assert_eq!(authority, format!("nodes.test:{free}"));
            let nodes = nodes.clone();
            Box::pin(async move { Ok(nodes) })
        });
        let router = Router::resolving(settings, resolver).await.unwrap();
        until("the table is in force", || !router.app.directory.current().is_empty()).await;
        Self { cluster, router, root }
    }

    async fn write(&self, work: &[Operation]) -> super::writer::Report {
        let manner = Manner { timeout: Duration::from_secs(200), ..Manner::default() };
        write(&Arc::new(Mutex::new(self.router.address)), work, &manner).await
    }

    fn check(&self, work: &[Operation]) {
        let there = self.cluster.documents();
        assert_eq!((there.len(), there.iter().all(|one| one.lives)), (work.len(), true));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).ok();
    }
}

fn work(count: usize) -> Vec<Operation> {
    let shape = Shape { tenants: 300, edits: 0.0, deletes: 0.0, duplicates: 0.0, reordered: 0 };
    Work::new(shape, seed(5)).take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_node_behind_a_name_harms_no_destination() {
    let service = Service::new("service", "30s").await;
    service.cluster.set_up(1, false).await;
    let work = work(3_000);
    let report = service.write(&work).await;
    // Not one operation is answered with anything else, or has to be sent again by its client.
    assert_eq!(report.items, [("done", work.len() as u64)].into());
    assert_eq!(service.cluster.counters().operations, work.len() as u64, "nor sent twice by the router");
    service.check(&work);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_while_it_has_bulks_harms_no_destination() {
    let service = Service::new("dies", "30s").await;
    let work = work(3_000);
    service.cluster.set_rules(vec![Rule::new(Fault::Slow { millis: 10 })]);
    let dying = async {
        until("bulks came", || service.cluster.counters().bulks > 20).await;
        service.cluster.set_up(1, false).await;
    };
    let (report, ()) = tokio::join!(service.write(&work), dying);
    // What was under way at that node is sent again: some of it was applied already.
    let settled = report.count("done") + report.count("superseded");
    assert_eq!(settled, work.len() as u64, "{:?}", report.items);
    service.check(&work);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_nothing_costs_only_what_it_was_sent() {
    let service = Service::new("silent", "1s").await;
    service.cluster.set_rules(vec![Rule::new(Fault::Hang { applied: Default::default() }).node(2)]);
    let work = work(3_000);
    let report = service.write(&work).await;
    let settled = report.count("done") + report.count("superseded");
    assert_eq!(settled, work.len() as u64, "{:?}", report.items);
    service.check(&work);
}
