//! The router on a real Elasticsearch: what goes in is found, by its tenant alone; and what is wrong harms nobody else.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::Method;
use searchcell_e2e::cells::placement;
use searchcell_e2e::elastic::Elastic;
use searchcell_e2e::router::{Item, Mounts, Router, statuses};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, nodes, run, say, wait_for};
use serde_json::{Value, json};

use crate::placements::{places, table};

/// The tenant with an index of its own.
pub const LARGE: &str = "81384788765712384";
const TENANTS: usize = 40;
const DOCUMENTS: usize = 2_000;

/// Tenant of a document; every fifth is the large one's.
fn tenant_of(n: usize) -> String {
    if n.is_multiple_of(5) { LARGE.to_owned() } else { format!("{}", 1_000 + n % TENANTS) }
}

/// Action and document, as a client that knows nothing of indices writes them.
fn index(n: usize, version: i64, content: &str) -> [Value; 2] {
    let action = json!({"index": {"_id": n.to_string(), "version": version, "version_type": "external"}});
    [action, json!({"guild_id": tenant_of(n), "content": content, "sent": n})]
}

fn delete(n: usize, version: i64) -> Value {
    json!({"delete": {"_id": n.to_string(), "routing": tenant_of(n), "version": version, "version_type": "external"}})
}

/// A cell of two clusters, a pool on both, and a tenant with an index of its own.
async fn prepare(t: &Scenario) -> Cell {
    prepare_with(t, json!({})).await
}

/// The same, with `extra` over the cell's spec.
pub async fn prepare_with(t: &Scenario, extra: Value) -> Cell {
    let cell = Cell { clusters: vec!["a".to_owned(), "b".to_owned()], extra, ..Cell::mini("guilds") };
    t.apply(&cell.object()).await;
    t.cell_ready(&cell).await;
    let pool = json!({"pool": {"indices": 4}, "versioning": "External"});
    t.apply(&placement("pool", "guilds", pool, 0)).await;
    t.placement_ready("pool").await;
    let own =
        json!({"dedicated": {"tenants": [{"id": LARGE, "expectedDocuments": 10}]}, "versioning": "External"});
    t.apply(&placement("large", "guilds", own, 0)).await;
    t.placement_ready("large").await;
    wait_for("a table with all of them", LIMIT, async || {
        let (table, _) = table(t).await?;
        let known = table.indices.len();
        ensure(known == 5 && table.lookup(LARGE).is_some_and(|to| !to.is_nowhere()), || {
            format!("{known} indices")
        })
    })
    .await;
    cell
}

/// Every document of a collection that Elasticsearch has: stored id, version.
pub async fn stored(t: &Scenario, cell: &Cell, collection: &str) -> BTreeMap<String, i64> {
    let mut stored = BTreeMap::new();
    for cluster in &cell.clusters {
        let elastic = t.elastic(&cell.name, cluster);
        elastic.json(Method::POST, &format!("/{collection}.*/_refresh"), None).await.unwrap();
        let ask = json!({"size": 5_000, "version": true, "_source": false, "sort": ["_doc"]});
        let path = format!("/{collection}.*/_search?scroll=1m");
        let mut page = elastic.json(Method::POST, &path, Some(&ask)).await.unwrap();
        while let Some(hits) = page["hits"]["hits"].as_array().filter(|hits| !hits.is_empty()) {
            for hit in hits {
                let id = hit["_id"].as_str().unwrap().to_owned();
                let before = stored.insert(id.clone(), hit["_version"].as_i64().unwrap());
                assert_eq!(before, None, "{id} is there twice");
            }
            let next = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]});
            page = elastic.json(Method::POST, "/_search/scroll", Some(&next)).await.unwrap();
        }
    }
    stored
}

/// What Elasticsearch has is what it should have; else, the first differences.
pub fn same(stored: &BTreeMap<String, i64>, oracle: &BTreeMap<String, i64>) {
    let differs = |(id, version): &(&String, &i64)| stored.get(*id) != Some(*version);
    let missing: Vec<_> = oracle.iter().filter(differs).take(5).collect();
    let extra: Vec<_> = stored.iter().filter(|(id, _)| !oracle.contains_key(*id)).take(5).collect();
    let found: Vec<_> = missing.iter().map(|(id, _)| stored.get(*id)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:?}, found {found:?}, too much {extra:?}"
    );
}

async fn search(router: &Router, tenant: &str, what: &str, body: Value) -> (u16, Value) {
    let path = format!("/messages/{what}?routing={tenant}");
    let body = Bytes::from(body.to_string());
    let limit = Duration::from_secs(30);
    let answer = router.front.request(Method::POST, &path, "application/json", body, limit).await.unwrap();
    (answer.0, serde_json::from_slice(&answer.1).unwrap())
}

#[test]
fn documents_go_through_the_router_and_are_found() {
    run("documents_go_through_the_router_and_are_found", Level::Smoke, async |t| {
        let _operator = t.start_operator().await;
        let cell = prepare(t).await;
        let mounts = Mounts::new(t, &["messages"]).await;
        let router = Router::start(t, &mounts, &["messages"], &json!({})).await;
        let mut oracle = BTreeMap::new();
        write_and_count(t, &cell, &router, &mut oracle).await;
        versions(&router, &mut oracle).await;
        only_ones_own(&router, &mut oracle).await;
        poison_harms_itself_alone(&router, &mut oracle).await;
        a_blocked_index_harms_itself_alone(t, &router, &mut oracle).await;
        same(&stored(t, &cell, "messages").await, &oracle);
        let (took, well) = router.terminate().await;
        assert!(well, "it ends with code 0");
        say(format!("{} documents as the oracle has them; it stopped within {took:.1?}", oracle.len()));
    });
}

async fn write_and_count(t: &Scenario, cell: &Cell, router: &Router, oracle: &mut BTreeMap<String, i64>) {
    for start in (0..DOCUMENTS).step_by(500) {
        let lines: Vec<Value> = (start..start + 500).flat_map(|n| index(n, 1, "hello world")).collect();
        let items = router.bulk("/messages/_bulk", &lines).await.unwrap();
        assert_eq!(statuses(&items), BTreeMap::from([(201, 500)]), "{:?}", items.first());
        assert!((start..).zip(&items).all(|(n, item)| item.id == n.to_string()), "in the order asked");
    }
    oracle.extend((0..DOCUMENTS).map(|n| (format!("{}~{n}", tenant_of(n)), 1)));
    let own = format!("messages.t.{LARGE}.g1");
    let mut counts = BTreeMap::new();
    for cluster in &cell.clusters {
        let elastic = t.elastic(&cell.name, cluster);
        elastic.json(Method::POST, "/messages.*/_refresh", None).await.unwrap();
        for (index, _) in places_of(t, cluster).await {
            counts.insert(index.clone(), elastic.count(&index).await.unwrap());
        }
    }
    assert_eq!(counts.values().sum::<i64>(), i64::try_from(DOCUMENTS).unwrap(), "{counts:?}");
    assert_eq!(counts[&own], i64::try_from(DOCUMENTS / 5).unwrap(), "{counts:?}");
    assert!(counts.len() == 5 && counts.values().all(|count| *count > 0), "{counts:?}");
    let (done, bulks) = (
        router.counter("searchcell_router_operations_total", "outcome=\"done\"").await,
        router.counter("searchcell_router_bulks_total", "").await,
    );
    assert_eq!(done, u64::try_from(DOCUMENTS).unwrap());
    // Four requests to five indices.
    assert!(bulks >= 5 && bulks <= 20, "{bulks} bulks");
}

/// Index → cluster, of one cluster, of all placements.
pub async fn places_of(t: &Scenario, cluster: &str) -> BTreeMap<String, String> {
    let mut all = places(t, "pool").await;
    all.extend(places(t, "large").await);
    all.retain(|_, at| at.ends_with(&format!("-{cluster}")));
    all
}

/// Older and equal versions change nothing, whatever the order; a deletion holds against what comes late.
async fn versions(router: &Router, oracle: &mut BTreeMap<String, i64>) {
    let of = |n: usize| format!("{}~{n}", tenant_of(n));
    let lines: Vec<Value> = index(1, 3, "edited").into_iter().chain(index(1, 2, "late")).collect();
    let items = router.bulk("/messages/_bulk", &lines).await.unwrap();
    assert_eq!(statuses(&items), BTreeMap::from([(200, 1), (409, 1)]));
    let lines = [vec![delete(2, 5)], index(2, 4, "late").to_vec()].concat();
    let items = router.bulk("/messages/_bulk", &lines).await.unwrap();
    assert_eq!(statuses(&items), BTreeMap::from([(200, 1), (409, 1)]), "{items:?}");
    assert_eq!(items[1].error, "version_conflict_engine_exception");
    let elsewhere = json!({"delete": {"_index": "nowhere", "_id": "3", "routing": "7", "version": 9}});
    let items = router.bulk("/_bulk", &[elsewhere]).await.unwrap();
    assert_eq!((items[0].status, items[0].error.as_str()), (404, "index_not_found_exception"), "{items:?}");
    oracle.insert(of(1), 3);
    oracle.remove(&of(2));
}

/// Searches, counts and gets find what is the tenant's, and nothing else.
async fn only_ones_own(router: &Router, oracle: &mut BTreeMap<String, i64>) {
    let refresh = router.bulk("/messages/_bulk?refresh=true", &index(7, 2, "hello router")).await.unwrap();
    assert_eq!(statuses(&refresh), BTreeMap::from([(200, 1)]));
    oracle.insert(format!("{}~7", tenant_of(7)), 2);
    for tenant in [LARGE.to_owned(), tenant_of(7)] {
        let all = json!({"size": 1_000, "query": {"bool": {"should": [{"match_all": {}}], "minimum_should_match": 0}}});
        let (status, found) = search(router, &tenant, "_search", all).await;
        assert_eq!(status, 200, "{found}");
        let hits = found["hits"]["hits"].as_array().unwrap();
        let (_, counted) = search(router, &tenant, "_count", json!({})).await;
        assert_eq!(counted["count"].as_u64(), u64::try_from(hits.len()).ok(), "{tenant}");
        let expected = (0..DOCUMENTS).filter(|n| tenant_of(*n) == tenant && *n != 2).count();
        assert_eq!(hits.len(), expected, "{tenant}");
        for hit in hits {
            assert_eq!(hit["_source"]["guild_id"], json!(tenant));
            assert!(!hit["_id"].as_str().unwrap().contains('~'), "{hit}");
        }
        let by_content = json!({"query": {"match": {"content": "router"}}, "aggs": {"who": {"terms": {"field": "guild_id"}}}});
        let (_, found) = search(router, &tenant, "_search", by_content).await;
        let hits = usize::from(tenant != LARGE);
        assert_eq!(found["hits"]["total"]["value"], json!(hits), "{found}");
        assert_eq!(found["aggregations"]["who"]["buckets"].as_array().unwrap().len(), hits, "{found}");
    }
    let get =
        async |path: &str| router.front.request(Method::GET, path, "", Bytes::new(), LIMIT).await.unwrap();
    let own = get(&format!("/messages/_doc/7?routing={}", tenant_of(7))).await;
    let own: Value = serde_json::from_slice(&own.1).unwrap();
    assert_eq!((&own["found"], &own["_source"]["content"]), (&json!(true), &json!("hello router")), "{own}");
    for path in [
        format!("/messages/_doc/7?routing={LARGE}"),
        format!("/messages/_doc/{}~7?routing={LARGE}", tenant_of(7)),
        format!("/messages/_doc/{}%7E7?routing={}", tenant_of(7), tenant_of(8)),
        format!("/messages/_doc/..%2F{}~7?routing={}", tenant_of(7), tenant_of(8)),
    ] {
        assert_eq!(get(&path).await.0, 404, "{path}");
    }
    for escape in [
        json!({"runtime_mappings": {"guild_id": {"type": "keyword"}}}),
        json!({"aggs": {"all": {"global": {}}}}),
        json!({"aggs": {"all": {"significant_terms": {"field": "guild_id"}}}}),
        json!({"suggest": {"text": "hello", "s": {"term": {"field": "content"}}}}),
        json!({"query": {"terms": {"guild_id": {"index": "messages.p000.g1", "id": "x", "path": "guild_id"}}}}),
        json!({"query": {"more_like_this": {"like": [{"_id": "x"}]}}}),
        json!({"query": {"script": {"script": "true"}}}),
        json!({"pit": {"id": "x"}}),
    ] {
        let (status, answer) = search(router, LARGE, "_search", escape.clone()).await;
        assert_eq!(status, 400, "{escape}: {answer}");
    }
}

/// A document that the mapping refuses, in each position of a bulk.
async fn poison_harms_itself_alone(router: &Router, oracle: &mut BTreeMap<String, i64>) {
    for position in 0..5 {
        let first = 10_000 + position * 10;
        let mut lines = Vec::new();
        for n in first..first + 5 {
            let [action, mut document] = index(n, 1, "beside poison");
            if n == first + position {
                document["unknown"] = json!(true);
            } else {
                oracle.insert(format!("{}~{n}", tenant_of(n)), 1);
            }
            lines.extend([action, document]);
        }
        let items = router.bulk("/messages/_bulk", &lines).await.unwrap();
        assert_eq!(statuses(&items), BTreeMap::from([(201, 4), (400, 1)]), "{items:?}");
        assert_eq!(items[position].error, "strict_dynamic_mapping_exception");
    }
}

/// Writes to an index are blocked: its tenants are told so at once, the others are served, and it heals by itself.
async fn a_blocked_index_harms_itself_alone(
    t: &Scenario,
    router: &Router,
    oracle: &mut BTreeMap<String, i64>,
) {
    let large = format!("messages.t.{LARGE}.g1");
    let at = places(t, "large").await[&large].clone();
    let elastic = t.elastic("guilds", at.rsplit('-').next().unwrap());
    let block = async |elastic: &Elastic, blocked: bool| {
        let setting = json!({"index.blocks.write": blocked});
        elastic.json(Method::PUT, &format!("/{large}/_settings"), Some(&setting)).await.unwrap();
    };
    block(&elastic, true).await;
    let lines =
        |from: usize| (from..from + 100).flat_map(|n| index(n, 1, "while blocked")).collect::<Vec<_>>();
    let items = router.bulk("/messages/_bulk", &lines(20_000)).await.unwrap();
    let refused = |item: &&Item| item.status != 201;
    assert_eq!(statuses(&items)[&201], 80, "{:?}", statuses(&items));
    let told: Vec<&Item> = items.iter().filter(refused).collect();
    assert!(told.iter().all(|item| [403, 429].contains(&item.status)), "{told:?}");
    block(&elastic, false).await;
    wait_for("the router finds that it works again", LIMIT, async || {
        let items = router.bulk("/messages/_bulk", &index(20_000, 1, "while blocked")).await?;
        ensure(items[0].status == 201 || items[0].status == 409, || format!("{items:?}"))
    })
    .await;
    let items = router.bulk("/messages/_bulk", &lines(20_000)).await.unwrap();
    assert_eq!(statuses(&items), BTreeMap::from([(201, 19), (409, 81)]), "what was refused was not applied");
    oracle.extend((20_000..20_100).map(|n| (format!("{}~{n}", tenant_of(n)), 1)));
}

/// Without the operator and without an API server, for ten minutes, a router goes on with the table that it has; one
/// that is restarted meanwhile starts from the table that it has kept.
#[test]
fn the_router_goes_on_without_operator_and_api_server() {
    run("the_router_goes_on_without_operator_and_api_server", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let cell = prepare(t).await;
        let mounts = Mounts::new(t, &["messages"]).await;
        let router = Router::start(t, &mounts, &["messages"], &json!({})).await;
        router.bulk("/messages/_bulk", &index(1, 1, "before")).await.unwrap();
        operator.kill().await;
        if !nodes::control_plane(t.env, "kill", "kube-apiserver").await {
            return;
        }
        mounts.take_tables_away();
        let outcome = AssertUnwindSafe(ten_minutes(t, &mounts, router)).catch_unwind().await;
        assert!(nodes::control_plane(t.env, "start", "kube-apiserver").await);
        wait_for("the API server is back", LIMIT, async || {
            t.objects.list("searchcells", "").await.map(|_| ())
        })
        .await;
        let written = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let expected: BTreeMap<String, i64> =
            [1].into_iter().chain(written).map(|n| (format!("{}~{n}", tenant_of(n)), 1)).collect();
        same(&stored(t, &cell, "messages").await, &expected);
    });
}

/// Writes for ten minutes, with a restart of the router after five; the numbers of what was written.
async fn ten_minutes(t: &Scenario, mounts: &Mounts, mut router: Router) -> Range<usize> {
    let (began, first) = (Instant::now(), 100);
    let mut next = first;
    for half in [Duration::from_secs(300), Duration::from_secs(600)] {
        while began.elapsed() < half {
            let lines: Vec<Value> = (next..next + 50).flat_map(|n| index(n, 1, "nobody is there")).collect();
            let items = router.bulk("/messages/_bulk", &lines).await.unwrap();
            assert_eq!(statuses(&items), BTreeMap::from([(201, 50)]), "{items:?}");
            next += 50;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        router.terminate().await;
        router = Router::start(t, mounts, &["messages"], &json!({})).await;
    }
    say(format!("{} documents in {} s, with a restart between", next - first, began.elapsed().as_secs()));
    first..next
}
