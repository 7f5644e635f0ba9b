//! Writes that a table pauses.

use std::sync::Arc;
use std::time::Duration;

use searchcell_core::routing::{Traffic, encode};
use searchcell_crds::Versioning;
use serde_json::json;

use super::client;
use super::elastic::{self, Guard};
use super::journey;
use super::mount::Mount;

#[tokio::test]
async fn what_waits_for_another_table_leaves_room_for_the_others_and_goes_on_with_it() {
    let address = elastic::start(Guard::default()).await;
    let mut table = journey::table("http", address, "g1", "messages", Versioning::None);
    let place = |tenant: &String| table.lookup(tenant).unwrap().read.unwrap();
    let tenants: Vec<String> = (0..100).map(|tenant| tenant.to_string()).collect();
    let sick = &tenants[0];
    let well = tenants.iter().find(|tenant| place(tenant) != place(sick)).unwrap();
    let paused = usize::try_from(place(sick)).unwrap();
    table.indices[paused].traffic = Traffic::Paused;
    let mount = Mount::new("paused");
    let router =
        Arc::new(mount.router(&table, json!({"limits": {"budget": "4Mi", "bulkBytes": "1Mi"}})).await);
    let write = |tenant: &str, id: usize| {
        let (router, path) =
            (Arc::clone(&router), format!("/messages/_doc/{id}?routing={tenant}&timeout=30s"));
        let body = json!({"text": "x".repeat(400 << 10)}).to_string();
        async move { client::json(router.address, "PUT", &path, &body).await }
    };
    // There is room for one of them. With all, the body of another would still fit, and not what is sent of it.
    let mut waiting = tokio::task::JoinSet::new();
    for id in 0..9 {
        waiting.spawn(write(sick, id));
    }
    for _ in 0..8 {
        let refused = waiting.join_next().await.unwrap().unwrap();
        assert!(refused.status == 429 && refused.text.contains("too much waits"), "{}", refused.text);
    }
    assert_eq!(write(well, 0).await.status, 201);
    assert_eq!(waiting.len(), 1);
    table.indices[paused].traffic = Traffic::Open;
    table.generation += 1;
    mount.put("table", encode(&table).unwrap());
    let done = tokio::time::timeout(Duration::from_secs(20), waiting.join_next()).await;
    assert_eq!(done.unwrap().unwrap().unwrap().status, 201);
    assert_eq!(router.app.pauses.used(), 0);
    assert_eq!(router.app.core.budget().used(), 0);
}
