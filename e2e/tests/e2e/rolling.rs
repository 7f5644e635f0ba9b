//! Changes that restart nodes: one after the other, while clients write and read all the time.

use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::text;
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::ensure;
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::json;

/// Long enough for every node of a small cluster to restart on a slow computer.
const ROLL: Duration = Duration::from_secs(1200);

/// Waits until every node of a cell runs what the spec asks for, and tells how long that took since `began`.
pub async fn rolled(t: &Scenario, cell: &Cell, began: Instant) -> Duration {
    let generation = t.objects.expect("searchcells", &cell.name).await["metadata"]["generation"].clone();
    wait_for(&format!("all nodes of {} are up to date", cell.name), ROLL, async || {
        let object = t.objects.expect("searchcells", &cell.name).await;
        let is_done = object["status"]["observedGeneration"] == generation
            && text(&object, "/status/rollout/phase") == "Complete"
            && object["status"]["rollout"]["clustersDone"] == object["status"]["rollout"]["clustersTotal"];
        ensure(is_done, || format!("{}", object["status"]["rollout"]))
    })
    .await;
    began.elapsed()
}

/// An option of the JVM for all nodes: data nodes, ingest nodes, masters; nobody who writes or reads notices. A setting of
/// the cluster restarts nobody.
#[test]
fn an_option_of_the_jvm_rolls_over_the_cell() {
    run("an_option_of_the_jvm_rolls_over_the_cell", Level::Smoke, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell { ingest: searchcell_e2e::Ingest::Fixed(1), ..Cell::whole("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 4}}), 1)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let before = t.elastic("cell", "a").nodes().await.unwrap();
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;

        let began = Instant::now();
        let option = json!(["-Dlog4j2.formatMsgNoLookups=true"]);
        let roles = ["master", "data", "ingest"].map(|role| (role.to_owned(), json!({"jvmOptions": option})));
        cell.extra = json!({"nodes": serde_json::Map::from_iter(roles)});
        t.apply(&cell.object()).await;
        let took = rolled(t, &cell, began).await;
        let seen = traffic.stop().await;
        say(format!("rolled over {} nodes in {:.0} s: {seen}", cell.nodes(), took.as_secs_f64()));
        seen.assert_unnoticed();

        let after = t.elastic("cell", "a").nodes().await.unwrap();
        let stayed =
            |name: &String| before.get(name).is_some_and(|old| old.started_at == after[name].started_at);
        assert!(!after.keys().any(stayed), "before: {before:#?}, after: {after:#?}");
        for (name, node) in before.iter().filter(|(name, _)| !name.contains("-ingest-")) {
            assert_eq!(node.id, after[name].id, "{name} kept its volume");
        }

        // a setting of the cluster goes through the API
        let pods = t.pods("").await;
        cell.extra["clusterSettings"] = json!({"cluster.max_shards_per_node": 1234});
        t.apply(&cell.object()).await;
        wait_for("the setting", Duration::from_secs(120), async || {
            let settings = t.elastic("cell", "a").settings().await?;
            ensure(settings.get("cluster.max_shards_per_node") == Some(&json!("1234")), || {
                format!("{settings:?}")
            })
        })
        .await;
        t.cell_ready(&cell).await;
        assert_eq!(t.pods("").await, pods, "nothing restarts for it");
    });
}
