//! Cells go: their volumes as `deletionPolicy` says, and always within a bounded time.

use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{annotation, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::json;

/// A deletion may take this long when nothing of the cell answers. The operator's own bound is half of it.
const BOUND: Duration = Duration::from_secs(600);

/// `Retain`: deleted and applied again, it is the same cluster with its documents. `Delete`: no volume is left.
#[test]
fn retained_volumes_come_back_and_deleted_ones_go() {
    run("retained_volumes_come_back_and_deleted_ones_go", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell { deletion_policy: "Retain", masters: 3, ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        let mut pool = placement("pool", "cell", json!({"pool": {"indices": 2}}), 2);
        pool["spec"]["deletionPolicy"] = json!("Retain");
        t.apply(&pool).await;
        let ready = t.cell_ready(&cell).await;
        let uuid = text(&ready, "/status/clusters/0/uuid").to_owned();
        t.placement_ready("pool").await;
        let elastic = t.elastic("cell", "a");
        let document = json!({"guild_id": "1", "content": "it was here before", "sent": 1});
        let kept = ("messages.p001.g1".to_owned(), "1".to_owned(), Some("1".to_owned()), document);
        elastic.bulk(&[kept]).await.unwrap();

        t.objects.delete("indexplacements", "pool").await.unwrap();
        t.objects.delete("searchcells", "cell").await.unwrap();
        t.gone_one("searchcells", "cell").await;
        t.gone("pods", "").await;
        t.gone("statefulsets", "").await;
        let claims = t.objects.list("persistentvolumeclaims", "").await.unwrap();
        assert_eq!(claims.len(), 6, "{claims:#?}");
        for claim in &claims {
            assert_eq!(annotation(claim, "searchcell.dev/cluster-uuid"), uuid);
            assert!(claim["metadata"]["deletionTimestamp"].is_null(), "{claim:#}");
        }

        t.apply(&cell.object()).await;
        t.apply(&pool).await;
        let ready = t.cell_ready(&cell).await;
        assert_eq!(text(&ready, "/status/clusters/0/uuid"), uuid);
        assert_eq!(elastic.uuid().await.unwrap(), uuid);
        assert_eq!(elastic.count("messages.p001.g1").await, Ok(1));
        // the placement recognizes its indices by their mark
        let placed = t.placement_ready("pool").await;
        assert_eq!(placed["status"]["indices"], 2);

        cell.deletion_policy = "Delete";
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let volumes = volumes_of(t).await;
        assert_eq!(volumes.len(), 6, "{volumes:?}");
        t.objects.delete("searchcells", "cell").await.unwrap();
        t.gone_one("searchcells", "cell").await;
        t.gone("persistentvolumeclaims", "").await;
        wait_for("no volume left", LIMIT, async || {
            let left = volumes_of(t).await;
            ensure(left.is_empty(), || format!("{left:?}"))
        })
        .await;
    });
}

/// Volumes that were bound by claims of the namespace.
async fn volumes_of(t: &Scenario) -> Vec<String> {
    let volumes = t.objects.list("persistentvolumes", "").await.unwrap();
    let ours = volumes.iter().filter(|volume| text(volume, "/spec/claimRef/namespace") == t.namespace);
    ours.map(|volume| text(volume, "/metadata/name").to_owned()).collect()
}

/// A cell whose image cannot be had never starts; deleted, it goes, and its placement, too.
#[test]
fn a_cell_that_never_started_can_be_deleted() {
    run("a_cell_that_never_started_can_be_deleted", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell::small("cell");
        cell.extra = json!({"image": "searchcell.dev/there-is-no-such-image:9.5.3"});
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 2}}), 2)).await;
        wait_for("pods that cannot start", LIMIT, async || {
            let pods = t.objects.list("pods", "").await?;
            let stuck = pods.iter().filter(|pod| pod["status"].to_string().contains("Image")).count();
            ensure(stuck == 4, || format!("{stuck} of {}", pods.len()))
        })
        .await;
        delete_within_the_bound(t).await;
        t.gone("pods", "").await;
        t.gone("persistentvolumeclaims", "").await;
    });
}

/// A cell whose only zone is dark: its Elasticsearch answers nobody, its pods cannot even be stopped. The objects go
/// all the same; what the dark node holds goes when it is back.
#[test]
fn a_cell_whose_elasticsearch_is_down_can_be_deleted() {
    run("a_cell_whose_elasticsearch_is_down_can_be_deleted", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell { zones: vec!["c".to_owned()], ..Cell::mini("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 2}}), 0)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        if !t.node("off", 3).await {
            return;
        }
        t.condition("searchcells", "cell", "Ready", "False", "").await;
        t.condition("indexplacements", "pool", "Ready", "False", "").await;
        delete_within_the_bound(t).await;
        assert!(t.node("on", 3).await);
        t.gone("pods", "").await;
        t.gone("persistentvolumeclaims", "").await;
    });
}

async fn delete_within_the_bound(t: &Scenario) {
    let began = Instant::now();
    t.objects.delete("indexplacements", "pool").await.unwrap();
    t.objects.delete("searchcells", "cell").await.unwrap();
    wait_for("both objects gone", BOUND, async || {
        let mut left = t.objects.list("searchcells", "").await?;
        left.extend(t.objects.list("indexplacements", "").await?);
        ensure(left.is_empty(), || left.iter().map(searchcell_e2e::objects::conditions_line).collect())
    })
    .await;
    say(format!("both objects gone after {:.0} s", began.elapsed().as_secs_f64()));
}
