//! Growing: more cells, more clusters, more data nodes; what was there first does not notice.

use std::collections::BTreeMap;

use searchcell_e2e::cells::placement;
use searchcell_e2e::elastic::{Node, in_different_zones};
use searchcell_e2e::probe::Probe;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::json;

/// Everything by which a restart or a rewrite of a cluster's objects would show.
#[derive(Debug, PartialEq)]
struct Fingerprint {
    workloads: BTreeMap<String, (String, i64)>,
    pods: BTreeMap<String, (String, i64)>,
    nodes: BTreeMap<String, Node>,
}

async fn fingerprint(t: &Scenario, cell: &str, cluster: &str) -> Fingerprint {
    let selector = format!("searchcell.dev/cell={cell},searchcell.dev/cluster={cluster}");
    Fingerprint {
        workloads: t.workloads(&selector).await,
        pods: t.pods(&selector).await,
        nodes: t.elastic(cell, cluster).nodes().await.unwrap(),
    }
}

/// A second cell, and a second cluster of the first one: node ids, generations and pods of the first stay.
#[test]
fn cells_and_clusters_are_added_beside_a_running_one() {
    run("cells_and_clusters_are_added_beside_a_running_one", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut first = Cell::small("first");
        t.apply(&first.object()).await;
        t.cell_ready(&first).await;
        let before = fingerprint(t, "first", "a").await;
        assert_eq!((before.workloads.len(), before.pods.len(), before.nodes.len()), (4, 4, 4), "{before:#?}");

        let second = Cell::small("second");
        t.apply(&second.object()).await;
        t.cell_ready(&second).await;
        assert_eq!(fingerprint(t, "first", "a").await, before, "after a second cell");

        first.clusters.push("b".to_owned());
        t.apply(&first.object()).await;
        t.cell_ready(&first).await;
        assert_eq!(fingerprint(t, "first", "a").await, before, "after a second cluster");

        // three clusters, each of its own
        let mut uuids = vec![
            t.elastic("first", "a").uuid().await.unwrap(),
            t.elastic("first", "b").uuid().await.unwrap(),
            t.elastic("second", "a").uuid().await.unwrap(),
        ];
        uuids.sort();
        uuids.dedup();
        assert_eq!(uuids.len(), 3, "{uuids:?}");
    });
}

/// `perZone` 1 → 2: three nodes join, shards spread over all six, nothing restarts, no request fails.
#[test]
fn more_data_nodes_per_zone_join_without_a_restart() {
    run("more_data_nodes_per_zone_join_without_a_restart", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell::small("cell");
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 6}}), 2)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let before = fingerprint(t, "cell", "a").await;
        let elastic = t.elastic("cell", "a");
        let writer = Probe::writer(elastic.clone(), "messages.p000.g1");
        let reader = Probe::reader(elastic.clone(), "messages.p000.g1");

        cell.per_zone = 2;
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        wait_for("shards on all six data nodes", LIMIT, async || {
            let copies = elastic.copies("messages.").await?;
            let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
            for copy in &copies {
                ensure(copy.state == "STARTED", || format!("{copy:?}"))?;
                *by_node.entry(&copy.node).or_default() += 1;
            }
            ensure(by_node.len() == 6, || format!("{by_node:?}"))?;
            in_different_zones(&copies, 3)
        })
        .await;
        t.placement_ready("pool").await;

        let after = fingerprint(t, "cell", "a").await;
        assert_eq!(after.nodes.len(), 7);
        for (name, node) in &before.nodes {
            assert_eq!(after.nodes.get(name), Some(node), "{name} has restarted or changed");
        }
        for (name, pod) in &before.pods {
            assert_eq!(after.pods.get(name), Some(pod), "{name} has restarted");
        }
        for (what, probe) in [("writes", writer), ("searches", reader)] {
            let seen = probe.stop().await;
            say(format!("{what}: {} ok, longest gap {:.1} s", seen.ok, seen.longest_gap.as_secs_f64()));
            assert_eq!(seen.failed, 0, "{what}: {seen:?}");
        }
    });
}
