//! Nodes are taken away while clients write and read: emptied first, one zone after the other, and back when the spec says so.

use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{items, text};
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Ingest, Level, Scenario, run, say, shell, wait_for};
use serde_json::json;

use crate::rolling::Watcher;

async fn per_zone(t: &Scenario, cell: &mut Cell, nodes: i32) {
    let began = Instant::now();
    cell.per_zone = nodes;
    t.apply(&cell.object()).await;
    settled(t, cell).await;
    say(format!("{nodes} data nodes in each zone after {:.0} s", began.elapsed().as_secs_f64()));
}

/// As many nodes as the spec asks for, every copy started, and nothing that keeps shards from nodes or masters from voting.
async fn settled(t: &Scenario, cell: &Cell) {
    t.cell_ready(cell).await;
    t.placement_ready("pool").await;
    let elastic = t.elastic("cell", "a");
    wait_for("nothing is left of a drain", LIMIT, async || {
        let object = t.objects.expect("searchcells", "cell").await;
        let cluster = &items(&object, "/status/clusters")[0];
        ensure(cluster.get("operation").is_none(), || cluster["operation"].to_string())?;
        let nodes = elastic.nodes().await?;
        ensure(nodes.len() == usize::try_from(cell.nodes()).unwrap(), || format!("{:?}", nodes.keys()))?;
        let settings = elastic.settings().await?;
        let left: Vec<&String> = settings.keys().filter(|name| name.contains("allocation.exclude")).collect();
        ensure(left.is_empty(), || format!("{left:?}"))?;
        let state = elastic.get("/_cluster/state/metadata?filter_path=metadata.cluster_coordination").await?;
        let excluded = items(&state, "/metadata/cluster_coordination/voting_config_exclusions");
        ensure(excluded.is_empty(), || format!("{excluded:?}"))
    })
    .await;
}

/// `perZone` 2 → 1, halfway back to 2, then 1 → 2 → 1: no request fails, no document is lost, and no node that stays restarts.
#[test]
fn data_nodes_go_when_they_are_empty_and_come_back() {
    run("data_nodes_go_when_they_are_empty_and_come_back", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        // Whoever comes back finds the volume that it had.
        let mut cell = Cell { masters: 3, per_zone: 2, deletion_policy: "Retain", ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 6}}), 1)).await;
        settled(t, &cell).await;
        let watcher = Watcher::start(&t.objects);
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;

        cell.per_zone = 1;
        t.apply(&cell.object()).await;
        wait_for("the first node is gone", LIMIT, async || {
            let pods = t.pods("searchcell.dev/role=data").await;
            ensure(pods.len() == 5, || format!("{:?}", pods.keys()))
        })
        .await;
        per_zone(t, &mut cell, 2).await;
        per_zone(t, &mut cell, 1).await;
        per_zone(t, &mut cell, 2).await;
        per_zone(t, &mut cell, 1).await;

        let seen = traffic.stop().await;
        say(seen.to_string());
        let course = watcher.stop().await;
        say(format!("{:#?}", course.operations));
        seen.assert_unnoticed();
        let stayed: Vec<String> =
            course.restarted().into_keys().filter(|name| !name.ends_with("-1")).collect();
        assert!(stayed.is_empty(), "nodes that stay have restarted: {stayed:?}");
        let drains =
            course.operations.iter().filter(|(kind, nodes, _)| kind == "DrainNode" && nodes.len() == 1);
        assert_eq!(drains.count(), course.operations.len(), "{:#?}", course.operations);
        assert_eq!(course.operations.len(), 3, "one zone after the other: {:#?}", course.operations);
    });
}

/// Masters 3 → 5 → 3: there is a master all the time, and volumes go with their nodes where the policy says so.
#[test]
fn masters_come_and_go_and_volumes_with_them() {
    run("masters_come_and_go_and_volumes_with_them", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell { masters: 3, ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 3}}), 2)).await;
        settled(t, &cell).await;
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;
        for masters in [5, 3] {
            let began = Instant::now();
            cell.masters = masters;
            t.apply(&cell.object()).await;
            settled(t, &cell).await;
            say(format!("{masters} masters after {:.0} s", began.elapsed().as_secs_f64()));
            // As many masters vote as there are.
            let path =
                "/_cluster/state/metadata?filter_path=metadata.cluster_coordination.last_committed_config";
            wait_for("all masters vote", LIMIT, async || {
                let state = t.elastic("cell", "a").get(path).await?;
                let voting = items(&state, "/metadata/cluster_coordination/last_committed_config").len();
                ensure(voting == usize::try_from(masters).unwrap(), || format!("{voting} vote"))
            })
            .await;
        }
        let seen = traffic.stop().await;
        say(seen.to_string());
        seen.assert_unnoticed();
        wait_for("volumes of masters that are gone are gone", Duration::from_secs(120), async || {
            let claims = t.objects.list("persistentvolumeclaims", "searchcell.dev/role=master").await?;
            let names: Vec<&str> = claims.iter().map(|claim| text(claim, "/metadata/name")).collect();
            ensure(names.len() == 3, || format!("{names:?}"))
        })
        .await;
    });
}

/// A zone retires under load: its nodes are gone, ingest nodes and masters are elsewhere, and it leaves the list.
#[test]
fn a_zone_retires_and_leaves_the_list() {
    run("a_zone_retires_and_leaves_the_list", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell { ingest: Ingest::Fixed(3), masters: 3, ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 4}}), 1)).await;
        settled(t, &cell).await;
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;

        let selector = "topology.kubernetes.io/zone=zone-c";
        let hosts = shell::kubectl(&["get", "nodes", "-l", selector, "-o", "name"], None, LIMIT).await;
        let hosts = hosts.ok("kubectl");
        let hosts: Vec<&str> = hosts.lines().filter_map(|line| line.strip_prefix("node/")).collect();
        assert!(!hosts.is_empty());

        let began = Instant::now();
        let mut retiring = cell.object();
        retiring["spec"]["zones"][2]["state"] = json!("Retiring");
        t.apply(&retiring).await;
        let two = Cell { zones: vec!["a".to_owned(), "b".to_owned()], ..cell.clone() };
        wait_for("nothing is left in the zone", LIMIT, async || {
            let pods = t.objects.list("pods", "searchcell.dev/cell=cell").await?;
            let in_zone: Vec<&str> = (pods.iter())
                .filter(|pod| hosts.contains(&text(pod, "/spec/nodeName")))
                .map(|pod| text(pod, "/metadata/name"))
                .collect();
            ensure(in_zone.is_empty(), || format!("{in_zone:?}"))?;
            let sets = t.objects.list("statefulsets", "searchcell.dev/zone=c").await?;
            ensure(sets.is_empty(), || format!("{} StatefulSets", sets.len()))
        })
        .await;
        settled(t, &two).await;
        say(format!("zone c is empty after {:.0} s", began.elapsed().as_secs_f64()));
        t.apply(&two.object()).await;
        settled(t, &two).await;

        let seen = traffic.stop().await;
        say(seen.to_string());
        seen.assert_unnoticed();
    });
}
