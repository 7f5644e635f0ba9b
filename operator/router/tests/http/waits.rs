//! Operations that cannot go yet wait by themselves: whoever is in the same request goes at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use searchcell_core::routing::{Destination, Override, Table, Traffic, encode};
use searchcell_crds::Versioning;
use searchcell_router::hot::turns::Turn;
use searchcell_router::run::Router;
use searchcell_router::settings::HotTenants;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{self, Got};
use super::elastic::{self, Guard};
use super::journey;
use super::mount::Mount;

const LONG: Duration = Duration::from_secs(60);

async fn table(versioning: Versioning) -> Table {
    let address = elastic::start(Guard::default()).await;
    journey::table("http", address, "g1", "messages", versioning)
}

fn says(to: Destination, documents_per_second: Option<u32>) -> Override {
    Override { to, documents_per_second, lane: None }
}

/// Operations, tenant and id of each; one that begins with `-` deletes.
fn bulk(router: &Arc<Router>, timeout: &str, operations: &[(&str, &str)]) -> JoinHandle<Got> {
    let line = |(tenant, id): &(&str, &str)| match id.strip_prefix('-') {
        Some(id) => format!("{{\"delete\":{{\"_id\":\"{id}\",\"routing\":\"{tenant}\"}}}}\n"),
        None => format!("{{\"index\":{{\"_id\":\"{id}\",\"routing\":\"{tenant}\"}}}}\n{{\"n\":1}}\n"),
    };
    let body: String = operations.iter().map(line).collect();
    let (router, path) = (Arc::clone(router), format!("/messages/_bulk?timeout={timeout}"));
    tokio::spawn(async move {
        client::send(router.address, "POST", &path, "content-type: application/x-ndjson\r\n", body.as_bytes())
            .await
    })
}

fn statuses(got: &Got) -> Vec<u64> {
    let items = got.body["items"].as_array().unwrap_or_else(|| panic!("{}", got.text));
    items
        .iter()
        .map(|item| item.as_object().unwrap().values().next().unwrap()["status"].as_u64().unwrap())
        .collect()
}

async fn is_there(router: &Router, tenant: &str, id: &str) -> bool {
    let path = format!("/messages/_doc/{id}?routing={tenant}");
    client::json(router.address, "GET", &path, "").await.status == 200
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is().await {
        assert!(started.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn debug(router: &Router, path: &str) -> Value {
    client::json(router.admin, "GET", path, "").await.body
}

#[tokio::test]
async fn only_operations_of_a_tenant_without_an_index_wait_and_go_with_the_next_table() {
    let mut table = table(Versioning::None).await;
    let there = table.lookup("lost").unwrap().clone();
    table.overrides.insert("lost".into(), says(Destination::nowhere(), None));
    let mount = Mount::new("nowhere");
    let router = Arc::new(mount.router(&table, json!({})).await);
    // Time is over: that item alone is refused.
    let got = bulk(&router, "300ms", &[("lost", "1"), ("well", "1"), ("lost", "2")]).await.unwrap();
    assert_eq!(statuses(&got), [429, 201, 429], "{}", got.text);
    assert!(got.head.contains("retry-after: 1") && got.text.contains("has no index now"), "{}", got.text);
    // The others are done long before. An id has its operations in the order asked, also where one was minted.
    let waiting = bulk(&router, "60s", &[("lost", "3"), ("well", "2"), ("lost", "-3"), ("lost", "4")]);
    until("the other tenant's document", async || is_there(&router, "well", "2").await).await;
    assert!(!waiting.is_finished() && router.app.pauses.used() > 0);
    table.overrides.insert("lost".into(), says(there, None));
    table.generation += 1;
    mount.put("table", encode(&table).unwrap());
    let got = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(statuses(&got), [201, 201, 200, 201], "{}", got.text);
    assert!(!is_there(&router, "lost", "3").await && is_there(&router, "lost", "4").await);
    assert_eq!((router.app.pauses.used(), router.app.core.budget().used()), (0, 0));
}

#[tokio::test]
async fn a_request_that_waits_for_a_table_does_not_hold_the_old_one() {
    let mut table = table(Versioning::None).await;
    let sick = usize::try_from(table.lookup("sick").unwrap().read.unwrap()).unwrap();
    let place = |tenant: &String| table.lookup(tenant).unwrap().read.unwrap();
    let names = (0..100).map(|tenant| tenant.to_string());
    let well = names.into_iter().find(|tenant| usize::try_from(place(tenant)).unwrap() != sick).unwrap();
    table.indices[sick].traffic = Traffic::Paused;
    let mount = Mount::new("holds");
    let router = Arc::new(mount.router(&table, json!({})).await);
    let waiting = bulk(&router, "60s", &[("sick", "1"), (&well, "1")]);
    until("the other's document", async || is_there(&router, &well, "1").await).await;
    // Still paused: a migration goes from step to step only when nothing of the old table is in flight.
    table.generation += 1;
    mount.put("table", encode(&table).unwrap());
    let drained = async || {
        debug(&router, "/generation").await["collections"]["messages"]["drained"] == table.generation
    };
    until("the old table is drained", drained).await;
    assert!(!waiting.is_finished());
    let mut open = table.clone();
    open.indices[sick].traffic = Traffic::Open;
    open.generation += 1;
    mount.put("table", encode(&open).unwrap());
    assert_eq!(statuses(&tokio::time::timeout(LONG, waiting).await.unwrap().unwrap()), [201, 201]);
}

#[tokio::test]
async fn tenants_who_are_moved_wait_while_nobody_reads_the_generation() {
    let mut table = table(Versioning::External).await;
    let at = table.lookup("moved").unwrap().read.unwrap();
    let to = Destination { read: Some(at), write: vec![at, (at + 1) % 3] };
    table.overrides.insert("moved".into(), says(to, None));
    let mount = Mount::new("fence");
    let router = Arc::new(mount.router(&table, json!({"fence": {"after": "1s"}})).await);
    let write = |tenant: &'static str, timeout: &str| {
        let path = format!("/messages/_doc/1?routing={tenant}&version=1&timeout={timeout}");
        let address = router.address;
        tokio::spawn(async move { client::json(address, "PUT", &path, "{}").await })
    };
    until("the fence", async || router.app.fence.is_up(Instant::now())).await;
    let got = write("moved", "200ms").await.unwrap();
    assert!(got.status == 429 && got.text.contains("being moved"), "{}", got.text);
    assert_eq!(write("stays", "60s").await.unwrap().status, 201);
    let waiting = write("moved", "60s");
    until("it waits", async || router.app.pauses.used() > 0).await;
    let told = debug(&router, "/generation").await;
    assert!(told["fenced"] == true && told["secondsSinceRead"].as_u64().unwrap() >= 1, "{told}");
    let got = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(got.status, 201, "{}", got.text);
}

#[tokio::test]
async fn a_tenant_with_a_limit_is_slowed_down_and_its_neighbours_are_not() {
    let mut table = table(Versioning::None).await;
    let place = table.lookup("fast").unwrap().clone();
    table.overrides.insert("fast".into(), says(place, Some(5)));
    let mount = Mount::new("limit");
    let router = Arc::new(mount.router(&table, json!({})).await);
    let ids: Vec<String> = (0..40).map(|id| id.to_string()).collect();
    let mut operations: Vec<(&str, &str)> = ids.iter().map(|id| ("fast", id.as_str())).collect();
    operations.push(("well", "1"));
    // Five at once and five a second, for three quarters of four seconds: twenty go, and one or two are on the edge.
    let started = Instant::now();
    let request = bulk(&router, "4s", &operations);
    until("the neighbour's document", async || is_there(&router, "well", "1").await).await;
    assert!(!request.is_finished());
    let got = request.await.unwrap();
    let statuses = statuses(&got);
    let done = statuses.iter().take(40).filter(|status| **status == 201).count();
    assert!((19..=21).contains(&done), "{done} {}", got.text);
    assert!(statuses[..done].iter().all(|status| *status == 201), "the first go first: {statuses:?}");
    assert!(statuses[done..40].iter().all(|status| *status == 429) && statuses[40] == 201, "{statuses:?}");
    assert!(started.elapsed() >= Duration::from_millis(2_700), "{:?}", started.elapsed());
    assert!(
        got.head.contains("retry-after: ") && got.text.contains("writes more to [messages]"),
        "{}",
        got.head
    );
    assert_eq!((router.app.queues.used(), router.app.core.budget().used()), (0, 0));
    let got = debug(&router, "/debug/hot").await;
    let fast = got["tenants"].as_array().unwrap().iter().find(|tenant| tenant["tenant"] == "fast").unwrap();
    assert_eq!(fast["action"]["documentsPerSecond"], 5, "{got}");
}

#[tokio::test]
async fn turns_that_find_no_room_are_given_back() {
    let mut table = table(Versioning::None).await;
    let place = table.lookup("fast").unwrap().clone();
    table.overrides.insert("fast".into(), says(place, Some(1)));
    let mount = Mount::new("turns");
    let limits = json!({"limits": {"budget": "1Mi", "bulkBytes": "64Ki"}});
    let router = Arc::new(mount.router(&table, limits).await);
    let ids: Vec<String> = (0..600).map(|id| format!("{id:0400}")).collect();
    let operations: Vec<(&str, &str)> = ids.iter().map(|id| ("fast", id.as_str())).collect();
    let request = bulk(&router, "300s", &operations);
    until("some wait", async || router.app.queues.used() > 0).await;
    let metrics = client::json(router.admin, "GET", "/metrics", "").await.text;
    let delayed = "searchcell_router_delayed_operations_total{reason=\"limit\"} ";
    let delayed: u64 = metrics.lines().find_map(|line| line.strip_prefix(delayed)).unwrap().parse().unwrap();
    assert!((100..200).contains(&delayed), "{delayed}");
    // The next turn is after those that wait, and not after all that were asked for.
    let route = Arc::clone(&router.app.directory.current()["messages"]);
    let key = xxhash_rust::xxh3::xxh3_64_with_seed(b"fast", route.seed);
    let turn = router.app.hot.take(&[(key, NonZeroU32::MIN)], Instant::now(), None);
    let Turn::At(turn) = turn else { panic!("{turn:?}") };
    let waits = turn.duration_since(Instant::now()).as_secs();
    assert!(waits <= delayed + 1 && waits + 20 >= delayed, "{waits} {delayed}");
    request.abort();
}

#[tokio::test]
async fn who_writes_much_becomes_hot_and_the_thresholds_change_while_it_runs() {
    let table = table(Versioning::None).await;
    let mount = Mount::new("hot");
    let router =
        Arc::new(mount.router(&table, json!({"hot": {"documentsPerSecond": 0, "bytesPerSecond": 0}})).await);
    let ids: Vec<String> = (0..500).map(|id| id.to_string()).collect();
    let mut operations: Vec<(&str, &str)> = ids.iter().map(|id| ("big", id.as_str())).collect();
    operations.push(("small", "1"));
    let entry = async |name: &str| {
        let tenants = debug(&router, "/debug/hot").await["tenants"].as_array().unwrap().clone();
        tenants.into_iter().find(|tenant| tenant["tenant"] == name).unwrap_or_default()
    };
    until("its rate is told", async || {
        bulk(&router, "60s", &operations).await.unwrap();
        entry("big").await["documentsPerSecond"].as_f64().unwrap_or_default() > 20.0
    })
    .await;
    assert_eq!(entry("big").await["hot"], false);
    router.app.hot.set(HotTenants { documents_per_second: 20, ..HotTenants::default() });
    until("it is hot", async || {
        bulk(&router, "60s", &operations).await.unwrap();
        entry("big").await["hot"] == true
    })
    .await;
    let big = entry("big").await;
    assert!(big["share"].as_f64().unwrap() > 0.9 && big["action"]["lane"] == true, "{big}");
    assert_eq!(big["destinations"][0]["cluster"], "guilds-a", "{big}");
    assert_ne!(entry("small").await["hot"], true);
    let metrics = client::json(router.admin, "GET", "/metrics", "").await.text;
    assert!(metrics.contains("searchcell_router_hot_tenants 1\n"), "{metrics}");
    assert!(!metrics.contains("\"big\""), "tenants are nothing for metrics");
}
