//! A cluster leaves the spec: while it has an index it stays and says so; when it is empty it goes, volumes and all; and it comes
//! back as a new one.

use std::time::Instant;

use http::Method;
use searchcell_e2e::objects::{items, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::json;

/// Everything of cluster b that the operator, or Kubernetes for it, has made; Secrets stay with the cell.
const KINDS: [&str; 7] = [
    "pods",
    "statefulsets",
    "services",
    "poddisruptionbudgets",
    "networkpolicies",
    "configmaps",
    "persistentvolumeclaims",
];

async fn uuid(t: &Scenario, cluster: &str) -> Option<String> {
    let cell = t.objects.expect("searchcells", "cell").await;
    let found = items(&cell, "/status/clusters").iter().find(|of| text(of, "/name") == cluster)?.clone();
    Some(text(&found, "/uuid").to_owned()).filter(|uuid| !uuid.is_empty())
}

#[test]
fn a_cluster_that_is_empty_goes() {
    run("a_cluster_that_is_empty_goes", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell { clusters: vec!["a".to_owned(), "b".to_owned()], ..Cell::mini("cell") };
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let former = uuid(t, "b").await.unwrap();
        let elastic = t.elastic("cell", "b");
        let index = json!({"settings": {"number_of_replicas": 0}});
        elastic.json(Method::PUT, "/by-hand", Some(&index)).await.unwrap();

        cell.clusters.pop();
        t.apply(&cell.object()).await;
        let object = t.condition("searchcells", "cell", "Stalled", "True", "NotEmpty").await;
        let stalled = items(&object, "/status/conditions").iter().find(|of| text(of, "/type") == "Stalled");
        let message = text(stalled.unwrap(), "/message").to_owned();
        assert!(message.contains("by-hand"), "{message}");
        let pods = t.pods("searchcell.dev/cluster=b").await;
        assert_eq!(pods.len(), 2, "{pods:?}");

        let began = Instant::now();
        elastic.json(Method::DELETE, "/by-hand", None).await.unwrap();
        for kind in KINDS {
            t.gone(kind, "searchcell.dev/cluster=b").await;
        }
        say(format!("cluster b is gone {:.0} s after its last index", began.elapsed().as_secs_f64()));
        wait_for("status has forgotten it", LIMIT, async || {
            let found = uuid(t, "b").await;
            ensure(found.is_none(), || format!("{found:?}"))
        })
        .await;
        t.cell_ready(&cell).await;

        cell.clusters.push("b".to_owned());
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let new = uuid(t, "b").await.unwrap();
        assert_ne!(new, former, "its volumes went, so it is another one");
        assert!(uuid(t, "a").await.is_some());
    });
}
