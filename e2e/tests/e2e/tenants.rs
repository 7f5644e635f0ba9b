//! Tenants that outgrow the pool, and those that get an index of their own.

use std::time::Duration;

use http::Method;
use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{condition, items, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, wait_for};
use serde_json::{Value, json};

use crate::placements::table;

/// The tenant that has documents, and one that has none.
const LARGE: &str = "7";
const NEW: &str = "81384788765712384";

/// Where the published table sends a tenant: index and cluster.
async fn read(t: &Scenario, tenant: &str) -> Result<(String, String), String> {
    let (table, _) = table(t).await?;
    let at = table.lookup(tenant).and_then(|to| to.read).and_then(|at| table.index(at));
    at.map(|(index, cluster)| (index.name.clone(), cluster.name.clone())).ok_or("nowhere".to_owned())
}

/// A shard past a limit is told by condition, event and metric, with the tenant that has outgrown the pool. An index of
/// its own in another cell would hide its documents: it is not made, the tenant stays where it is, another one gets its
/// index; and when the documents have gone it gets one, too.
#[test]
fn tenants_with_documents_stay_in_the_pool_until_they_have_none() {
    run("tenants_with_documents_stay_in_the_pool_until_they_have_none", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let (guilds, bfg) = (Cell::mini("guilds"), Cell::mini("bfg"));
        for cell in [&guilds, &bfg] {
            t.apply(&cell.object()).await;
        }
        for cell in [&guilds, &bfg] {
            t.cell_ready(cell).await;
        }
        t.apply(&placement("pool", "guilds", json!({"pool": {"indices": 2}}), 0)).await;
        t.placement_ready("pool").await;
        let elastic = t.elastic("guilds", "a");
        let home = read(t, LARGE).await.unwrap();
        let document = |tenant: String, n: usize| {
            let source = json!({"guild_id": tenant, "content": "hello", "sent": n});
            (home.0.clone(), format!("{tenant}~{n}"), Some(tenant), source)
        };
        let documents = (0..400).map(|n| document(LARGE.to_owned(), n));
        // Tenants that this index would not get are as good as others for being small.
        let small = (0..100).map(|n| document(format!("small-{}", n % 50), n));
        elastic.bulk(&documents.chain(small).collect::<Vec<_>>()).await.unwrap();

        // Sizes are read every five minutes; a new process reads them at once.
        operator.terminate().await;
        let operator = t.start_operator_with(&["--large-shard-documents=300"]).await;
        let object = t.condition("indexplacements", "pool", "ShardPressure", "True", "ShardLarge").await;
        let message = condition(&object, "ShardPressure").unwrap().2;
        for words in ["more than 300 documents", home.0.as_str(), "(spec.dedicated) to 7"] {
            assert!(message.contains(words), "{message}");
        }
        let named: Vec<&Value> = items(&object, "/status/candidates").iter().collect();
        assert_eq!(named, [&json!({"id": LARGE, "index": home.0, "documents": 400})]);
        wait_for("an event that says so", LIMIT, async || {
            let events = t.objects.list("events", "").await?;
            let is_told = events.iter().any(|event| text(event, "/reason") == "ShardLarge");
            ensure(is_told, || "no event".to_owned())
        })
        .await;
        let metrics = operator.metrics().await;
        assert!(metrics.contains("searchcell_large_shards{limit=\"ShardLarge\"} 1"), "{metrics}");

        let tenant = |id: &str| json!({"id": id, "expectedDocuments": 10});
        let big = json!({"dedicated": {"tenants": [tenant(LARGE), tenant(NEW)]}});
        t.apply(&placement("big", "bfg", big, 0)).await;
        let object = t.condition("indexplacements", "big", "Stalled", "True", "NeedsMigration").await;
        let message = condition(&object, "Stalled").unwrap().2;
        assert!(message.contains("tenant 7 has documents in the pool"), "{message}");
        let own = |id: &str| (format!("messages.t.{id}.g1"), "bfg-a".to_owned());
        wait_for("the other tenant has an index of its own", LIMIT, async || {
            let at = read(t, NEW).await?;
            ensure(at == own(NEW), || format!("{at:?}"))
        })
        .await;
        t.condition("indexplacements", "big", "Ready", "True", "Serving").await;
        assert_eq!(read(t, LARGE).await.unwrap(), home, "it stays");
        let elsewhere = t.elastic("bfg", "a");
        assert_eq!(elsewhere.copies("messages.").await.unwrap().len(), 1, "nothing is made for it");
        assert_eq!(elastic.count(&home.0).await.unwrap(), 500, "nothing is touched");

        // Not refreshed: the last count is to see it all the same.
        let delete = |n: usize| {
            let action = json!({"_index": home.0, "_id": format!("{LARGE}~{n}"), "routing": LARGE});
            format!("{}\n", json!({"delete": action}))
        };
        let (body, limit) = ((0..400).map(delete).collect::<String>(), Duration::from_secs(60));
        let sent = elastic.request(Method::POST, "/_bulk", "application/x-ndjson", body.into(), limit).await;
        assert_eq!(sent.unwrap().0, 200);
        wait_for("it has an index of its own", LIMIT, async || {
            let at = read(t, LARGE).await?;
            ensure(at == own(LARGE), || format!("{at:?}"))
        })
        .await;
        t.placement_ready("big").await;
    });
}
