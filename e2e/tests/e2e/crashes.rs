//! The operator dies, status dies, a volume dies: one cluster stays one cluster.

use std::time::{Duration, SystemTime};

use searchcell_e2e::objects::{annotation, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};

/// SIGKILL at random moments while a cell of 9 nodes forms, at least ten times: it forms, and only once.
#[test]
fn operator_killed_while_forming_makes_one_cluster() {
    run("operator_killed_while_forming_makes_one_cluster", Level::Full, async |t| {
        let cell = Cell::whole("cell");
        t.apply(&cell.object()).await;
        let mut seen = Vec::new();
        let mut kills = 0;
        // Lives of 0.1 to 4 seconds; at least ten, and on until the moments after the election are among them. They do
        // not wait for the lease (each is alone): else all but the first would die waiting for it.
        while kills < 10 || (kills < 40 && seen.is_empty()) {
            let operator = t.spawn_operator_alone().await;
            let life = Duration::from_millis(100 + random_below(3900));
            tokio::time::sleep(life).await;
            operator.kill().await;
            kills += 1;
            let object = t.objects.expect("searchcells", "cell").await;
            let uuid = text(&object, "/status/clusters/0/uuid");
            let map = t.objects.get("configmaps", "cell-a-bootstrap").await.unwrap();
            let workloads = t.workloads("").await.len();
            say(format!(
                "kill {kills} after {life:?}: {workloads} workloads, bootstrap map {}, {uuid}",
                map.is_some()
            ));
            if !uuid.is_empty() {
                seen.push(uuid.to_owned());
            }
        }
        let operator = t.start_operator().await;
        let object = t.cell_ready(&cell).await;
        let uuid = text(&object, "/status/clusters/0/uuid").to_owned();
        seen.push(uuid.clone());
        seen.dedup();
        assert_eq!(seen, std::slice::from_ref(&uuid), "one UUID, from the first time it was seen");
        one_cluster(t, &cell, &uuid).await;
        let leftover = t.objects.get("configmaps", "cell-a-bootstrap").await.unwrap();
        assert!(leftover.is_none(), "{leftover:?}");
        drop(operator);
    });
}

/// Every node is a member of the one cluster: none formed another by itself.
async fn one_cluster(t: &Scenario, cell: &Cell, uuid: &str) {
    let elastic = t.elastic(&cell.name, "a");
    assert_eq!(elastic.uuid().await.unwrap(), uuid);
    assert_eq!(i32::try_from(elastic.nodes().await.unwrap().len()).unwrap(), cell.nodes());
    for claim in t.objects.list("persistentvolumeclaims", "").await.unwrap() {
        assert_eq!(
            annotation(&claim, "searchcell.dev/cluster-uuid"),
            uuid,
            "{}",
            text(&claim, "/metadata/name")
        );
    }
}

/// The status of a running cell is wiped: it is found again on the volume claims, and nothing is bootstrapped.
#[test]
fn wiped_status_is_found_again() {
    run("wiped_status_is_found_again", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell { masters: 3, ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        let before = uuid_of(&t.cell_ready(&cell).await);
        let workloads = t.workloads("").await;
        let pods = t.pods("").await;

        // while it runs, and while it does not
        t.objects.replace_status("searchcells", "cell", json!({})).await.unwrap();
        assert_eq!(uuid_of(&t.cell_ready(&cell).await), before);
        operator.kill().await;
        t.objects.replace_status("searchcells", "cell", json!({})).await.unwrap();
        let _operator = t.start_operator().await;
        assert_eq!(uuid_of(&t.cell_ready(&cell).await), before);

        one_cluster(t, &cell, &before).await;
        assert_eq!(t.workloads("").await, workloads);
        assert_eq!(t.pods("").await, pods);
        let map = t.objects.get("configmaps", "cell-a-bootstrap").await.unwrap();
        assert!(map.is_none(), "{map:?}");
    });
}

/// A backup brings back the cell without its status and all volumes but one master's: the same cluster comes up, on
/// two masters, and the third joins empty. No second bootstrap, at no moment.
#[test]
fn restored_without_status_and_one_master_volume_is_the_same_cluster() {
    run("restored_without_status_and_one_master_volume_is_the_same_cluster", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let mut cell = Cell { masters: 3, ..Cell::small("cell") };
        cell.deletion_policy = "Retain";
        t.apply(&cell.object()).await;
        let before = uuid_of(&t.cell_ready(&cell).await);
        let elastic = t.elastic("cell", "a");
        let document = json!({"content": "it was here before"});
        let kept = ("kept".to_owned(), "1".to_owned(), None, document);
        elastic.bulk(&[kept]).await.unwrap();

        // the disaster: everything goes but the volumes, and of these one master's goes, too
        t.objects.delete("searchcells", "cell").await.unwrap();
        t.gone_one("searchcells", "cell").await;
        t.gone("pods", "").await;
        operator.kill().await;
        let lost = "data-cell-a-master-b-0";
        assert_eq!(uuid_on(&t.objects.expect("persistentvolumeclaims", lost).await), before);
        t.objects.delete("persistentvolumeclaims", lost).await.unwrap();
        t.gone_one("persistentvolumeclaims", lost).await;

        t.apply(&cell.object()).await;
        let watched = watch_for_bootstrap(t);
        let _operator = t.start_operator().await;
        assert_eq!(uuid_of(&t.cell_ready(&cell).await), before);
        assert!(!watched.await.unwrap(), "a bootstrap map was there, if only for a moment");
        one_cluster(t, &cell, &before).await;
        assert_eq!(elastic.count("kept").await, Ok(1));
        cell.deletion_policy = "Delete";
        t.apply(&cell.object()).await;
    });
}

/// Looks for the bootstrap map for a minute, five times a second; true when it was seen.
fn watch_for_bootstrap(t: &Scenario) -> tokio::task::JoinHandle<bool> {
    let objects = t.objects.clone();
    tokio::spawn(async move {
        for _ in 0..300 {
            if matches!(objects.get("configmaps", "cell-a-bootstrap").await, Ok(Some(_))) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    })
}

/// A master dies for good while the operator is away and the cell has no status: pods alone prove nothing.
#[test]
fn a_lost_master_volume_of_a_running_cell_is_no_new_cluster() {
    run("a_lost_master_volume_of_a_running_cell_is_no_new_cluster", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell { masters: 3, ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        let before = uuid_of(&t.cell_ready(&cell).await);
        operator.kill().await;
        t.objects.replace_status("searchcells", "cell", json!({})).await.unwrap();
        let (pod, claim) = ("cell-a-master-c-0", "data-cell-a-master-c-0");
        t.objects.delete("persistentvolumeclaims", claim).await.unwrap();
        t.objects.delete("pods", pod).await.unwrap();
        t.gone_claim(claim, pod).await;

        let watched = watch_for_bootstrap(t);
        let _operator = t.start_operator().await;
        assert_eq!(uuid_of(&t.cell_ready(&cell).await), before);
        assert!(!watched.await.unwrap(), "a bootstrap map was there, if only for a moment");
        wait_for("the UUID on the new volume", LIMIT, async || {
            let claim = t.objects.get("persistentvolumeclaims", claim).await?.ok_or("no claim")?;
            ensure(uuid_on(&claim) == before, || uuid_on(&claim))
        })
        .await;
        one_cluster(t, &cell, &before).await;
    });
}

fn uuid_of(cell: &Value) -> String {
    let uuid = text(cell, "/status/clusters/0/uuid").to_owned();
    assert!(!uuid.is_empty(), "{:#}", cell["status"]);
    uuid
}

fn uuid_on(claim: &Value) -> String {
    annotation(claim, "searchcell.dev/cluster-uuid").to_owned()
}

/// Good enough for moments: the sub-second part of the clock.
pub fn random_below(limit: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_micros()) % limit
}
