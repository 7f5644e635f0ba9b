//! A zone goes dark and comes back.

use std::time::Duration;

use searchcell_e2e::cells::placement;
use searchcell_e2e::elastic::in_different_zones;
use searchcell_e2e::objects::{condition, conditions_line, items, number};
use searchcell_e2e::probe::Probe;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, run, say, wait_for};
use serde_json::json;

/// One zone's node is switched off: copies unassigned are reported, Degraded, still Ready, and still served. It comes
/// back: clean, without anybody's help.
#[test]
fn a_zone_off_is_degraded_and_back_is_clean() {
    run("a_zone_off_is_degraded_and_back_is_clean", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell::whole("cell");
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 4}}), 2)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let elastic = t.elastic("cell", "a");
        let workloads = t.workloads("").await;

        if !t.node("off", 2).await {
            return;
        }
        let placed = wait_for("unassigned copies in the placement's status", LIMIT, async || {
            let object = t.objects.get("indexplacements", "pool").await?.ok_or("gone")?;
            let unassigned = number(&object, "/status/shards/unassigned");
            ensure(unassigned == 4, || format!("{unassigned} unassigned; {}", conditions_line(&object)))?;
            let degraded = condition(&object, "Degraded").is_some_and(|(status, ..)| status == "True");
            ensure(degraded, || conditions_line(&object))?;
            Ok(object)
        })
        .await;
        assert_eq!(
            condition(&placed, "Ready").unwrap().0,
            "True",
            "primaries are started: {}",
            conditions_line(&placed)
        );
        assert_eq!(condition(&placed, "Degraded").unwrap().1, "CopiesUnassigned");
        assert_eq!(number(&placed, "/status/shards/started"), 8);
        let reasons: Vec<&str> = items(&placed, "/status/problems")
            .iter()
            .map(|problem| problem["reason"].as_str().unwrap())
            .collect();
        assert_eq!(reasons, ["CopiesUnassigned"; 4], "{:#}", placed["status"]);
        let degraded = wait_for("the cell Degraded", LIMIT, async || {
            let object = t.objects.get("searchcells", "cell").await?.ok_or("gone")?;
            let holds = condition(&object, "Degraded").is_some_and(|(status, ..)| status == "True")
                && condition(&object, "Ready").is_some_and(|(status, ..)| status == "True");
            ensure(holds, || conditions_line(&object))?;
            Ok(object)
        })
        .await;
        say(conditions_line(&degraded));
        // until Kubernetes knows that the node is gone, its Service sends some requests there
        let mut times = 0;
        wait_for("the Service without the nodes that are off", LIMIT, async || {
            let answer = elastic.uuid().await;
            times = if answer.is_ok() { times + 1 } else { 0 };
            answer?;
            ensure(times >= 40, || format!("{times} answers in a row"))
        })
        .await;
        // what Elasticsearch says, too
        let copies = elastic.copies("messages.").await.unwrap();
        assert_eq!(copies.iter().filter(|copy| copy.state == "UNASSIGNED").count(), 4, "{copies:#?}");
        assert!(copies.iter().all(|copy| copy.zone != "b"), "{copies:#?}");

        // two zones go on serving: writes and searches, by clients who know nothing
        let writer = Probe::writer(elastic.clone(), "messages.p000.g1");
        let reader = Probe::reader(elastic.clone(), "messages.p000.g1");
        tokio::time::sleep(Duration::from_secs(20)).await;
        for (what, probe) in [("writes", writer), ("searches", reader)] {
            let seen = probe.stop().await;
            say(format!("{what} with a zone off: {} ok, {} failed", seen.ok, seen.failed));
            assert!(seen.ok > 50 && seen.failed == 0, "{what}: {seen:?}");
        }

        assert!(t.node("on", 2).await);
        let placed = t.placement_ready("pool").await;
        assert_eq!(number(&placed, "/status/shards/unassigned"), 0);
        assert!(items(&placed, "/status/problems").is_empty());
        t.cell_ready(&cell).await;
        in_different_zones(&elastic.copies("messages.").await.unwrap(), 3).unwrap();
        assert_eq!(t.workloads("").await, workloads, "nothing was changed to get there");
    });
}
