//! Volumes grow under running nodes where their class allows it, and say so where it does not.

use std::time::Duration;

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{number, text};
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, run, say, wait_for};
use serde_json::json;

const SELECTOR: &str = "searchcell.dev/cell=cell,searchcell.dev/role=data";

/// `storage.size` raised while clients write and read: claims and volumes grow, the StatefulSets are made anew around their
/// pods, nothing restarts, no request fails, and a pod that is deleted afterwards comes back on its volume.
#[test]
fn volumes_grow_in_place_and_nothing_restarts() {
    run("volumes_grow_in_place_and_nothing_restarts", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell::small("cell");
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 3}}), 2)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let before = t.pods("searchcell.dev/cell=cell").await;
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;
        let uuid = t.elastic("cell", "a").uuid().await.unwrap();

        for size in ["2Gi", "3Gi", "4Gi"] {
            cell.extra = json!({"nodes": {"data": {"storage": {"size": size}}}});
            t.apply(&cell.object()).await;
            wait_for(&format!("volumes of {size} and StatefulSets that ask for them"), LIMIT, async || {
                for claim in t.objects.list("persistentvolumeclaims", SELECTOR).await? {
                    let capacity = text(&claim, "/status/capacity/storage").to_owned();
                    ensure(capacity == size, || format!("{}: {capacity}", text(&claim, "/metadata/name")))?;
                }
                let sets = t.objects.list("statefulsets", SELECTOR).await?;
                ensure(sets.len() == 3, || format!("{} StatefulSets", sets.len()))?;
                for set in sets {
                    let asked =
                        text(&set, "/spec/volumeClaimTemplates/0/spec/resources/requests/storage").to_owned();
                    ensure(asked == size, || format!("{}: {asked}", text(&set, "/metadata/name")))?;
                    ensure(number(&set, "/status/readyReplicas") == 1, || {
                        "its pod is not adopted yet".to_owned()
                    })?;
                }
                Ok(())
            })
            .await;
            t.cell_ready(&cell).await;
            // Time for requests on what has grown.
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, before, "a pod has restarted");
        let seen = traffic.stop().await;
        say(seen.to_string());
        seen.assert_unnoticed();

        t.objects.delete("pods", "cell-a-data-b-0").await.unwrap();
        t.cell_ready(&cell).await;
        assert_eq!(t.elastic("cell", "a").uuid().await.unwrap(), uuid);
    });
}

/// A class without `allowVolumeExpansion`: Stalled with its own reason, and everything runs on.
#[test]
fn a_class_that_cannot_grow_is_named() {
    run("a_class_that_cannot_grow_is_named", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell::mini("cell");
        let storage =
            |size: &str| json!({"nodes": {"data": {"storage": {"size": size, "storageClassName": "fixed"}}}});
        cell.extra = storage("1Gi");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let before = t.pods("searchcell.dev/cell=cell").await;
        cell.extra = storage("2Gi");
        t.apply(&cell.object()).await;
        t.condition("searchcells", "cell", "Stalled", "True", "StorageClassFixed").await;
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, before, "a pod has restarted");
        cell.extra = storage("1Gi");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, before, "a pod has restarted");
    });
}
