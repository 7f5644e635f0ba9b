//! Placement: who lives where, recorded, kept, and published as a routing table.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use searchcell_core::routing::{Table, decode};
use searchcell_e2e::cells::{merged, placement};
use searchcell_e2e::elastic::{Elastic, in_different_zones};
use searchcell_e2e::objects::{condition, items, number, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};

/// Index name → cluster, as a placement's status has it.
pub async fn places(t: &Scenario, name: &str) -> BTreeMap<String, String> {
    let object = t.objects.expect("indexplacements", name).await;
    let mut places = BTreeMap::new();
    for at in items(&object, "/status/assignments") {
        for index in items(at, "/indices") {
            places.insert(index.as_str().unwrap().to_owned(), text(at, "/cluster").to_owned());
        }
    }
    places
}

pub fn on(places: &BTreeMap<String, String>, cluster: &str) -> usize {
    places.values().filter(|at| *at == cluster).count()
}

/// The table of the collection, with its bytes as they are published.
pub async fn table(t: &Scenario) -> Result<(Table, Vec<u8>), String> {
    let map = t.objects.get("configmaps", "routes-messages").await?.ok_or("no table")?;
    let bytes = serde_json::from_value::<k8s_openapi::ByteString>(map["binaryData"]["table.json.gz"].clone());
    let bytes = bytes.map_err(|error| error.to_string())?.0;
    Ok((decode(&bytes).map_err(|error| error.to_string())?, bytes))
}

/// A pool of twelve on two clusters is six and six; a third one moves nothing, and is preferred by what comes next; a
/// closed one gets nothing.
#[test]
fn indices_spread_over_clusters_and_stay_where_they_are() {
    run("indices_spread_over_clusters_and_stay_where_they_are", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell::small("cell");
        cell.clusters.push("b".to_owned());
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 12}}), 1)).await;
        t.placement_ready("pool").await;
        let before = places(t, "pool").await;
        assert_eq!((on(&before, "cell-a"), on(&before, "cell-b")), (6, 6), "{before:?}");

        cell.clusters.push("c".to_owned());
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let tenants = json!({"dedicated": {"tenants": [
            {"id": "1", "expectedDocuments": 10}, {"id": "2", "expectedDocuments": 10}, {"id": "3", "expectedDocuments": 10},
        ]}});
        t.apply(&placement("big", "cell", tenants, 1)).await;
        t.placement_ready("big").await;
        assert_eq!(places(t, "pool").await, before, "a new cluster moves nothing");
        let big = places(t, "big").await;
        assert_eq!(on(&big, "cell-c"), 3, "{big:?}");

        let mut closed = cell.object();
        closed["spec"]["clusters"][2]["placement"] = json!("Closed");
        t.apply(&closed).await;
        // The operator has seen it.
        t.cell_ready(&cell).await;
        let tenants = json!({"dedicated": {"tenants": [{"id": "4", "expectedDocuments": 10}]}});
        t.apply(&placement("later", "cell", tenants, 1)).await;
        t.placement_ready("later").await;
        let later = places(t, "later").await;
        assert_eq!(on(&later, "cell-c"), 0, "{later:?}");
        assert_eq!((places(t, "pool").await, places(t, "big").await), (before, big));
    });
}

/// A collection over two cells; a program that shares no code with the operator finds ten thousand tenants where the
/// operator does; a table that is edited or deleted comes back with a higher number.
#[test]
fn one_table_over_two_cells_comes_back_with_a_higher_number() {
    run("one_table_over_two_cells_comes_back_with_a_higher_number", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let (guilds, bfg) = (Cell::mini("guilds"), Cell::mini("bfg"));
        for cell in [&guilds, &bfg] {
            t.apply(&cell.object()).await;
        }
        for cell in [&guilds, &bfg] {
            t.cell_ready(cell).await;
        }
        t.apply(&placement("pool", "guilds", json!({"pool": {"indices": 12}}), 0)).await;
        t.placement_ready("pool").await;
        let big = json!({"dedicated": {"tenants": [{"id": "81384788765712384", "expectedDocuments": 2_500_000_000_i64}]}});
        t.apply(&placement("big", "bfg", big, 0)).await;
        t.placement_ready("big").await;

        let (first, bytes) = table(t).await.unwrap();
        let read = |tenant: &str| {
            let at = first.lookup(tenant).and_then(|to| to.read).and_then(|at| first.index(at));
            at.map_or("nowhere".to_owned(), |(index, cluster)| format!("{} {}", index.name, cluster.name))
        };
        assert_eq!(read("81384788765712384"), "messages.t.81384788765712384.g1 bfg-a");
        let file = t.folder.join("table.json.gz");
        std::fs::write(&file, &bytes).unwrap();
        let tenants: Vec<String> =
            (0..10_000_u64).map(|n| (81_384_788_765_712_384 + n * 7_919_311).to_string()).collect();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/slots.py");
        let mut python = Command::new("python3");
        let mut python = (python.arg(script).arg(&file).arg("/dev/stdin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: String = tenants.iter().map(|tenant| format!("\"{tenant}\"\n")).collect();
        let mut input = python.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
        let found = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
        writer.join().unwrap();
        let expected: Vec<String> = tenants.iter().map(|tenant| read(tenant)).collect();
        assert_eq!(found.lines().collect::<Vec<_>>(), expected);
        say(format!("{} tenants found by another program, too", expected.len()));

        let mut last = first.generation;
        let edited = json!({"binaryData": {"table.json.gz": null}});
        for what in ["edited", "deleted"] {
            match what {
                "edited" => drop(t.objects.merge("configmaps", "routes-messages", &edited).await.unwrap()),
                _ => t.objects.delete("configmaps", "routes-messages").await.unwrap(),
            }
            let again = wait_for(&format!("the table that was {what}"), LIMIT, async || {
                let (table, _) = table(t).await?;
                ensure(table.generation > last, || format!("generation {}", table.generation))?;
                Ok(table)
            })
            .await;
            assert_eq!(Table { generation: first.generation, ..again.clone() }, first, "{what}");
            last = again.generation;
            wait_for("the placement tells its number", LIMIT, async || {
                let object: Value = t.objects.expect("indexplacements", "pool").await;
                ensure(number(&object, "/status/tableGeneration") == last, || format!("{}", object["status"]))
            })
            .await;
        }
    });
}

/// What of an index would show that it was made anew, or that its documents were touched: UUID, documents, sequence
/// number of the last operation.
pub async fn identity(elastic: &Elastic, index: &str) -> Result<(String, i64, i64), String> {
    let settings = elastic.get(&format!("/{index}/_settings?flat_settings=true")).await?;
    let uuid = settings[index]["settings"]["index.uuid"].as_str().unwrap_or_default().to_owned();
    let stats = elastic.get(&format!("/{index}/_stats/docs?level=shards")).await?;
    let shards = items(&stats["indices"][index]["shards"], "/0");
    let last = shards.iter().map(|shard| number(shard, "/seq_no/max_seq_no")).max().unwrap_or(-1);
    Ok((uuid, elastic.count(index).await?, last))
}

/// Replicas 1 → 2 → 1, a new field, a new dynamic setting: applied to the indices that are there. What Elasticsearch or
/// the number of shards does not allow is held, with the reason. What somebody changes by hand is put right.
#[test]
fn indices_change_in_place_and_what_cannot_is_held() {
    run("indices_change_in_place_and_what_cannot_is_held", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell::small("cell");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let pool = |replicas: i32| placement("pool", "cell", json!({"pool": {"indices": 2}}), replicas);
        t.apply(&pool(1)).await;
        t.placement_ready("pool").await;
        let elastic = t.elastic("cell", "a");
        let index = "messages.p000.g1";
        let document = |n: i64| {
            let source = json!({"guild_id": "7", "content": "hello", "sent": n});
            (index.to_owned(), format!("7~{n}"), Some("7".to_owned()), source)
        };
        elastic.bulk(&(0..100).map(document).collect::<Vec<_>>()).await.unwrap();
        let before = identity(&elastic, index).await.unwrap();
        assert_eq!(before.1, 100);

        for copies in [3_usize, 2] {
            t.apply(&pool(i32::try_from(copies).unwrap() - 1)).await;
            wait_for(&format!("{copies} copies of each shard"), LIMIT, async || {
                in_different_zones(&elastic.copies("messages.").await?, copies)
            })
            .await;
            t.placement_ready("pool").await;
        }
        let index_options = json!({"spec": {"index": {
            "settings": {"refresh_interval": "7s"}, "mappings": {"properties": {"edited": {"type": "long"}}},
        }}});
        t.apply(&merged(pool(1), &index_options)).await;
        wait_for("the new field and the new setting", LIMIT, async || {
            for index in ["messages.p000.g1", "messages.p001.g1"] {
                let live = elastic.get(&format!("/{index}?flat_settings=true")).await?;
                let (field, interval) = (
                    &live[index]["mappings"]["properties"]["edited"]["type"],
                    &live[index]["settings"]["index.refresh_interval"],
                );
                ensure(field == "long" && interval == "7s", || format!("{index}: {field} {interval}"))?;
            }
            Ok(())
        })
        .await;
        t.placement_ready("pool").await;
        t.apply(&pool(1)).await;
        t.placement_ready("pool").await;

        // Not in place: refused by Elasticsearch, and known beforehand.
        let incompatible = json!({"mappings": {"properties": {"content": {"type": "keyword"}}}});
        let fixed = json!({"settings": {"codec": "best_compression"}});
        for (options, words) in
            [(incompatible, "cannot be changed from type [text] to [keyword]"), (fixed, "index.codec")]
        {
            t.apply(&merged(pool(1), &json!({"spec": {"index": options}}))).await;
            let object = t.condition("indexplacements", "pool", "Stalled", "True", "NeedsMigration").await;
            let (_, _, message) = condition(&object, "Stalled").unwrap();
            assert!(message.contains(words), "{message}");
            t.apply(&pool(1)).await;
            t.placement_ready("pool").await;
        }
        let tenant = |documents: i64| json!({"dedicated": {"maxDocumentsPerShard": 100, "tenants": [{"id": "9", "expectedDocuments": documents}]}});
        t.apply(&placement("big", "cell", tenant(200), 1)).await;
        t.placement_ready("big").await;
        t.apply(&placement("big", "cell", tenant(300), 1)).await;
        let object = t.condition("indexplacements", "big", "Stalled", "True", "NeedsMigration").await;
        assert!(
            condition(&object, "Stalled").unwrap().2.contains("2 primary shards"),
            "{}",
            object["status"]
        );
        assert_eq!(elastic.copies("messages.t.9.").await.unwrap().len(), 4, "nothing is touched");

        // Behind the operator's back.
        let meddled = json!({"index.number_of_replicas": 0, "index.routing.allocation.require.disk": "fast", "index.gc_deletes": "1s"});
        elastic.json(Method::PUT, &format!("/{index}/_settings"), Some(&meddled)).await.unwrap();
        wait_for("what somebody changed is put right", Duration::from_secs(60), async || {
            let live = elastic.get(&format!("/{index}/_settings?flat_settings=true")).await?;
            let settings = &live[index]["settings"];
            let is_right = settings["index.number_of_replicas"] == "1"
                && settings["index.gc_deletes"] == "1h"
                && settings.get("index.routing.allocation.require.disk").is_none();
            ensure(is_right, || settings.to_string())
        })
        .await;
        let told = async || {
            let events = t.objects.list("events", "").await?;
            let is_told = events.iter().any(|event| {
                text(event, "/reason") == "IndexSettingsChanged"
                    && text(event, "/message").contains("index.gc_deletes")
            });
            ensure(is_told, || "no event".to_owned())
        };
        wait_for("an event that says so", LIMIT, told).await;
        wait_for("both copies are back", LIMIT, async || {
            in_different_zones(&elastic.copies("messages.p").await?, 2)
        })
        .await;
        assert_eq!(identity(&elastic, index).await.unwrap(), before, "no document was touched");
    });
}
