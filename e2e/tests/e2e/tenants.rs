//! Tenants that outgrow the pool, and those that get an index of their own.

use std::time::{Duration, Instant};

use http::Method;
use searchcell_core::names::ClusterKey;
use searchcell_core::routing::{
    Destination, Located, Override, Table, TableInput, TenantRules, build_table, encode,
};
use searchcell_crds::{IdScope, Versioning};
use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{condition, items, text};
use searchcell_e2e::shell;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
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

/// Ten thousand indices and twenty thousand tenants with a place of their own, as ids are: without an order.
fn largest_table(namespace: &str) -> Table {
    let tenant = |n: u64| ((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1).to_string();
    let at = |name: String, cell: &str, n: u64| Located {
        name,
        cluster: ClusterKey::new(namespace, cell, format!("c{}", n % 40)),
        is_secure: true,
    };
    let pool = (0..1_000).map(|n| Some(at(format!("messages.p{n:03}.g1"), "guilds", n)));
    let own = |n: u64| (tenant(n), Some(at(format!("messages.t.{}.g1", tenant(n)), "bfg", n)));
    let input = TableInput {
        namespace: namespace.to_owned(),
        collection: "messages".to_owned(),
        tenant: TenantRules { field: "guild_id".to_owned(), fan_out: false, id_scope: IdScope::Tenant },
        versioning: Versioning::External,
        pool: Some(pool.collect()),
        dedicated: (0..9_000).map(own).collect(),
    };
    let mut table = build_table(&input, 1).unwrap();
    for n in 9_000..20_000_u32 {
        let to = Destination::only(n % 1_000);
        table.overrides.insert(tenant(n.into()), Override { to, documents_per_second: None, lane: None });
    }
    table
}

/// The API server takes the largest table that is promised, and the command reads it back.
#[test]
fn the_largest_table_is_stored_and_read_back() {
    run("the_largest_table_is_stored_and_read_back", Level::Smoke, async |t| {
        let table = largest_table(&t.namespace);
        assert_eq!((table.indices.len(), table.overrides.len()), (10_000, 20_000));
        let bytes = encode(&table).unwrap();
        let size = bytes.len();
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "routes-messages"},
            "binaryData": {"table.json.gz": k8s_openapi::ByteString(bytes)},
        });
        let started = Instant::now();
        t.objects.create(&map).await.unwrap();
        let stored = started.elapsed();
        let source = format!("{}/messages", t.namespace);
        let (tenant, to) = table.overrides.last_key_value().unwrap();
        let (index, cluster) = table.index(to.to.read.unwrap()).unwrap();
        let arguments = ["table", &source, "lookup", tenant];
        let started = Instant::now();
        let answer = shell::run(&t.env.operator_binary, &arguments, None, LIMIT).await.unwrap();
        say(format!("{size} bytes stored in {stored:.1?}, read back in {:.1?}", started.elapsed()));
        let expected = format!("{} on {}", index.name, cluster.name);
        assert!(answer.code == 0 && answer.stdout.contains(&expected), "{expected}: {}", answer.stdout);
    });
}
