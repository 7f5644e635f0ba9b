//! Other versions of Elasticsearch: node after node, while clients write and read all the time.

use std::time::{Duration, Instant};

use http::Method;
use searchcell_e2e::cells::{merged, placement};
use searchcell_e2e::objects::{condition, items, text};
use searchcell_e2e::scenario::image;
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};

use crate::crashes::random_below;
use crate::rolling::{Course, Watcher, rolled};

/// A cell of three masters and three data nodes with a pool of indices that this version has created.
pub async fn created_by(t: &Scenario, version: &str, security: &str) -> Cell {
    created_with(t, version, json!({"security": {"mode": security}}), 1, 1).await
}

/// The same with so many data nodes in each zone, and so many replicas.
async fn created_with(t: &Scenario, version: &str, extra: Value, per_zone: i32, replicas: i32) -> Cell {
    image(t.env, version).await;
    // There is no repository for snapshots here, and this build does not name what is deprecated.
    let waived = json!({"rollout": {"waive": ["RecentSnapshot", "DeprecationsResolved"]}});
    let extra = merged(merged(waived, &extra), &json!({"version": version}));
    let cell = Cell { masters: 3, per_zone, extra, ..Cell::small("cell") };
    t.apply(&cell.object()).await;
    t.apply(&placement("pool", "cell", json!({"pool": {"indices": 4}}), replicas)).await;
    t.cell_ready(&cell).await;
    t.placement_ready("pool").await;
    cell
}

/// Asks for another version.
pub async fn ask_for(t: &Scenario, cell: &mut Cell, version: &str) {
    image(t.env, version).await;
    cell.extra = merged(cell.extra.clone(), &json!({"version": version}));
    t.apply(&cell.object()).await;
}

/// Asks for another version, under traffic, and waits until all nodes have it; how long that took.
async fn upgrade(t: &Scenario, cell: &mut Cell, version: &str) -> Duration {
    image(t.env, version).await;
    let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;
    let began = Instant::now();
    ask_for(t, cell, version).await;
    let took = rolled(t, cell, began).await;
    let seen = traffic.stop().await;
    say(format!("{version} on {} nodes after {:.0} s: {seen}", cell.nodes(), took.as_secs_f64()));
    seen.assert_unnoticed();
    let nodes = t.elastic("cell", "a").nodes().await.unwrap();
    assert!(nodes.values().all(|node| node.version == version), "{nodes:#?}");
    took
}

/// Asks for a version that the cluster cannot take: it says why, and no node restarts.
async fn refused(t: &Scenario, cell: &mut Cell, version: &str, reason: &str, says: &str) {
    let pods = t.pods("").await;
    ask_for(t, cell, version).await;
    wait_for(&format!("{version} is refused"), LIMIT, async || {
        let object = t.objects.expect("searchcells", &cell.name).await;
        let stalled = condition(&object, "Stalled");
        ensure(
            stalled
                .is_some_and(|(status, why, text)| status == "True" && why == reason && text.contains(says)),
            || format!("{stalled:?}"),
        )
    })
    .await;
    assert_eq!(t.pods("").await, pods, "nothing restarts");
}

/// Another version waits until the indices are in a snapshot, and until nothing is left of something else.
#[test]
fn another_version_waits_for_a_snapshot() {
    run("another_version_waits_for_a_snapshot", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        // Each node has a folder of its own there: enough for Elasticsearch to say that it was saved.
        let folder = "/backups";
        let mount = json!({"spec": {
            "containers": [{"name": "elasticsearch", "volumeMounts": [{"name": "backups", "mountPath": folder}]}],
            "volumes": [{"name": "backups", "emptyDir": {}}],
        }});
        let extra = json!({
            "rollout": {"waive": ["DeprecationsResolved"]},
            "settings": {"path.repo": [folder]},
            "nodes": {"master": {"podTemplate": mount}, "data": {"podTemplate": mount}},
        });
        let mut cell = created_with(t, "9.1.0", extra, 1, 1).await;
        let pods = t.pods("").await;
        let elastic = t.elastic("cell", "a");
        let put =
            async |path: &str, body: Value| elastic.json(Method::PUT, path, Some(&body)).await.expect(path);
        let filter =
            |value: Value| json!({"persistent": {"cluster.routing.allocation.exclude._name": value}});
        put("/_cluster/settings", filter(json!("nobody"))).await;
        ask_for(t, &mut cell, "9.5.3").await;
        held(t, &cell, "NoLeftovers", "cluster.routing.allocation.exclude._name").await;
        put("/_cluster/settings", filter(Value::Null)).await;
        held(t, &cell, "RecentSnapshot", "messages.p000.g1").await;
        assert_eq!(t.pods("").await, pods, "nothing restarts");
        let repository = json!({"type": "fs", "settings": {"location": folder}});
        put("/_snapshot/backup?verify=false", repository).await;
        let taken =
            put("/_snapshot/backup/one?wait_for_completion=true", json!({"indices": "messages.*"})).await;
        assert_eq!(taken["snapshot"]["state"], "SUCCESS", "{taken}");
        let took = rolled(t, &cell, Instant::now()).await;
        say(format!("all nodes have it {:.0} s after the snapshot", took.as_secs_f64()));
        t.cell_ready(&cell).await;
    });
}

/// A hold of the cluster with this gate, which says this.
async fn held(t: &Scenario, cell: &Cell, gate: &str, says: &str) {
    wait_for(&format!("held: {gate}"), LIMIT, async || {
        let object = t.objects.expect("searchcells", &cell.name).await;
        let holds = items(&object, "/status/clusters/0/holds");
        let is_it = |hold: &&Value| text(hold, "/gate") == gate && text(hold, "/message").contains(says);
        ensure(holds.iter().any(|hold| is_it(&hold)), || format!("{holds:?}"))
    })
    .await;
}

/// From 7.17 to 8.19, and no further: its index is too old for 9, and 9.1.0 was released before 8.19.21.
#[test]
fn seven_seventeen_to_eight_nineteen() {
    run("seven_seventeen_to_eight_nineteen", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = created_by(t, "7.17.29", "Disabled").await;
        refused(t, &mut cell, "9.5.3", "UnsupportedVersion", "the latest 8.19 first").await;
        upgrade(t, &mut cell, "8.19.21").await;
        refused(t, &mut cell, "9.5.3", "IndexTooOld", "messages.p000.g1").await;
        refused(t, &mut cell, "9.1.0", "UnsupportedVersion", "was released before 8.19.21").await;
        ask_for(t, &mut cell, "8.19.21").await;
        t.cell_ready(&cell).await;
    });
}

/// From 8.19 to 9.1 to 9.5, with security.
#[test]
fn eight_nineteen_to_nine_five() {
    run("eight_nineteen_to_nine_five", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = created_by(t, "8.19.0", "Managed").await;
        upgrade(t, &mut cell, "9.1.0").await;
        upgrade(t, &mut cell, "9.5.3").await;
    });
}

/// The operator is killed every few seconds, and two of them run at once every other time, while nodes change their
/// version: it comes to the same, each node restarts once, and one at a time.
#[test]
fn operators_that_are_killed_and_run_twice_upgrade_all_the_same() {
    run("operators_that_are_killed_and_run_twice_upgrade_all_the_same", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let mut cell = created_by(t, "9.1.0", "Managed").await;
        operator.kill().await;
        image(t.env, "9.5.3").await;
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;
        let watcher = Watcher::start(&t.objects);
        let began = Instant::now();
        ask_for(t, &mut cell, "9.5.3").await;
        let mut lives = 0;
        loop {
            // Without a lease: both act at once.
            let first = t.spawn_operator_alone().await;
            let second = if lives % 2 == 1 { Some(t.spawn_operator_alone().await) } else { None };
            tokio::time::sleep(Duration::from_millis(2_000 + random_below(4_000))).await;
            first.kill().await;
            if let Some(second) = second {
                second.kill().await;
            }
            lives += 1;
            let nodes = t.elastic("cell", "a").nodes().await;
            let old = nodes.map(|nodes| nodes.values().filter(|node| node.version != "9.5.3").count());
            if old == Ok(0) || lives > 200 {
                break;
            }
        }
        let _operator = t.start_operator().await;
        let took = rolled(t, &cell, began).await;
        let (course, seen) = (watcher.stop().await, traffic.stop().await);
        say(format!("{lives} lives, {:.0} s: {seen}", took.as_secs_f64()));
        seen.assert_unnoticed();
        let restarted = course.restarted();
        assert_eq!(restarted.len(), 6, "{course:#?}");
        assert!(restarted.values().all(|times| *times == 1), "each node once: {restarted:?}");
        assert_eq!(course.most_away, 1, "{course:#?}");
        assert!(lives >= 5, "{lives} lives are too few to show anything");
    });
}

/// The steps of an upgrade of nine nodes, six of them data nodes, and how long it took.
async fn steps(t: &Scenario, unit: &str, replicas: i32) -> (Course, Duration) {
    let mut cell = created_with(t, "9.1.0", json!({"rollout": {"unit": unit}}), 2, replicas).await;
    let watcher = Watcher::start(&t.objects);
    let took = upgrade(t, &mut cell, "9.5.3").await;
    let course = watcher.stop().await;
    say(format!("unit {unit}, {replicas} replicas: {:.0} s, {:#?}", took.as_secs_f64(), course.operations));
    t.objects.delete("indexplacements", "pool").await.unwrap();
    t.gone("indexplacements", "").await;
    t.objects.delete("searchcells", "cell").await.unwrap();
    t.gone("searchcells", "").await;
    t.gone("persistentvolumeclaims", "").await;
    (course, took)
}

/// With three copies, the data nodes of a zone restart together, zone after zone; with two they restart one by one, and the
/// status says why.
#[test]
fn zones_restart_together_where_copies_allow_it() {
    run("zones_restart_together_where_copies_allow_it", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let (by_zone, fast) = steps(t, "Auto", 2).await;
        let zones =
            by_zone.operations.iter().filter(|(kind, nodes, _)| kind == "RestartZone" && nodes.len() == 2);
        assert_eq!(
            (zones.count(), by_zone.operations.len()),
            (3, 6),
            "three zones, three masters: {by_zone:#?}"
        );
        assert_eq!(by_zone.most_away, 2, "{by_zone:#?}");
        assert!(by_zone.restarted().values().all(|times| *times == 1), "{by_zone:#?}");
        let (by_node, slow) = steps(t, "Node", 2).await;
        assert_eq!((by_node.operations.len(), by_node.most_away), (9, 1), "{by_node:#?}");
        say(format!(
            "node by node {slow:?}, by zone {fast:?}: {:.2} of it",
            fast.as_secs_f64() / slow.as_secs_f64()
        ));
        let (scarce, _) = steps(t, "Auto", 1).await;
        let told = |(kind, _, why): &&(String, Vec<String>, String)| {
            kind == "RestartNode" && why.contains("fewer than 2 started copies in other zones")
        };
        assert_eq!((scarce.most_away, scarce.operations.len()), (1, 9), "{scarce:#?}");
        assert!(scarce.operations.iter().filter(told).count() >= 3, "{scarce:#?}");
    });
}
