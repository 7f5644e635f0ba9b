//! What somebody does behind the operator's back, to indices and to the routing table: told within a minute; put right
//! where that loses nothing, and only told where it could.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use k8s_openapi::ByteString;
use searchcell_core::routing::{Table, encode};
use searchcell_e2e::cells::placement;
use searchcell_e2e::elastic::{Elastic, in_different_zones};
use searchcell_e2e::objects::{condition, conditions_line, items, number, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};

use crate::placements::{identity, places, table};

/// By then it is told.
const SOON: Duration = Duration::from_secs(60);
const NAMES: [&str; 4] = ["messages.p000.g1", "messages.p001.g1", "messages.p002.g1", "messages.p003.g1"];

/// Index name → UUID, documents, last sequence number.
type Identities = BTreeMap<&'static str, (String, i64, i64)>;

async fn identities(elastic: &Elastic, of: &[&'static str]) -> Identities {
    let mut identities = BTreeMap::new();
    for name in of {
        identities.insert(*name, identity(elastic, name).await.unwrap());
    }
    identities
}

/// Whether an event about the placement has this reason and these words.
async fn told(t: &Scenario, reason: &str, words: &[&str]) -> Result<(), String> {
    let events = t.objects.list("events", "").await?;
    let of_reason: Vec<&str> = (events.iter())
        .filter(|event| text(event, "/reason") == reason && text(event, "/involvedObject/name") == "pool")
        .map(|event| text(event, "/message"))
        .collect();
    let is_told = of_reason.iter().any(|message| words.iter().all(|word| message.contains(word)));
    ensure(is_told, || format!("no event {reason} with {words:?}: {of_reason:?}"))
}

#[test]
fn what_somebody_does_behind_the_operators_back_is_told_within_a_minute() {
    run("what_somebody_does_behind_the_operators_back_is_told_within_a_minute", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell::small("cell");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": NAMES.len()}}), 1)).await;
        t.placement_ready("pool").await;
        let elastic = t.elastic("cell", "a");
        let document = |n: usize| {
            let source = json!({"guild_id": "7", "content": "hello", "sent": n});
            (NAMES[n % NAMES.len()].to_owned(), format!("7~{n}"), Some("7".to_owned()), source)
        };
        elastic.bulk(&(0..100).map(document).collect::<Vec<_>>()).await.unwrap();
        let before = identities(&elastic, &NAMES).await;

        settings_are_put_right(t, &elastic).await;
        assert_eq!(identities(&elastic, &NAMES).await, before, "no document was touched");
        table_comes_back(t).await;

        // What could lose data: an index that is gone may come back from a snapshot, but not in the place of an empty one.
        let (lost, kept) = ("messages.p002.g1", ["messages.p000.g1", "messages.p001.g1", "messages.p003.g1"]);
        let (table_before, _) = table(t).await.unwrap();
        elastic.json(Method::DELETE, &format!("/{lost}"), None).await.unwrap();
        let object = wait_for("the index that somebody deleted is told", SOON, async || {
            let object = t.objects.get("indexplacements", "pool").await?.ok_or("no placement")?;
            for (kind, status) in [("Ready", "False"), ("Stalled", "True")] {
                let (is, reason, message) = condition(&object, kind).unwrap_or_default();
                let holds = is == status && reason == "IndexMissing" && message.contains(lost);
                ensure(holds, || conditions_line(&object))?;
            }
            told(t, "IndexMissing", &[lost]).await?;
            Ok(object)
        })
        .await;
        say(conditions_line(&object));
        let problems: Vec<(&str, &str)> = (items(&object, "/status/problems").iter())
            .map(|problem| (text(problem, "/index"), text(problem, "/reason")))
            .collect();
        assert_eq!(problems, [(lost, "IndexMissing")]);
        let missing = items(&object, "/status/assignments/0/missing");
        assert_eq!(missing, [json!(lost)], "{:#}", object["status"]);
        let after = wait_for("a table without it", SOON, async || {
            let (table, _) = table(t).await?;
            let names = table.indices.iter().any(|index| index.name == lost);
            ensure(!names && table.generation > table_before.generation, || format!("{:?}", table.indices))?;
            Ok(table)
        })
        .await;
        every_tenant_is_where_it_was(&table_before, &after, lost);

        operator.looks("placement", 1, 3).await;
        let gone = elastic.get(&format!("/{lost}")).await.unwrap_err();
        assert!(gone.contains("404"), "it was made anew: {gone}");
        let others: Identities = before.into_iter().filter(|(name, _)| kept.contains(name)).collect();
        assert_eq!(identities(&elastic, &kept).await, others);
        assert_eq!(places(t, "pool").await.len(), kept.len());
        assert_eq!(table(t).await.unwrap().0, after, "and nothing more is published");
    });
}

/// Tenants of the index that is lost are nowhere, and all others where they were.
fn every_tenant_is_where_it_was(before: &Table, after: &Table, lost: &str) {
    let read = |table: &Table, tenant: &str| {
        let to = table.lookup(tenant).and_then(|to| to.read).and_then(|at| table.index(at));
        to.map(|(index, _)| index.name.clone())
    };
    let mut nowhere = 0;
    for tenant in (0..1_000).map(|n: u64| (81_384_788_765_712_384 + n * 7_919_311).to_string()) {
        let then = read(before, &tenant).expect("a whole table");
        let expected = Some(then).filter(|name| name != lost);
        nowhere += usize::from(expected.is_none());
        assert_eq!(read(after, &tenant), expected, "{tenant}");
    }
    assert!((100..400).contains(&nowhere), "{nowhere} of 1000 tenants were on one of four indices");
}

/// Copies and allocation filters, each by itself: told by name, and put right.
async fn settings_are_put_right(t: &Scenario, elastic: &Elastic) {
    let filter = "index.routing.allocation";
    for (index, setting, by_somebody, right) in [
        (NAMES[0], "index.number_of_replicas".to_owned(), json!(0), json!("1")),
        (NAMES[1], "index.number_of_replicas".to_owned(), json!(2), json!("1")),
        (NAMES[2], format!("{filter}.require.disk"), json!("fast"), Value::Null),
        (NAMES[3], format!("{filter}.exclude._name"), json!("cell-a-data-*"), Value::Null),
        (NAMES[0], format!("{filter}.include._name"), json!("cell-a-data-a-0"), Value::Null),
    ] {
        let change = json!({ &setting: by_somebody });
        elastic.json(Method::PUT, &format!("/{index}/_settings"), Some(&change)).await.unwrap();
        wait_for(&format!("{setting} of {index} is told and put right"), SOON, async || {
            let live = elastic.get(&format!("/{index}/_settings?flat_settings=true")).await?;
            let is = &live[index]["settings"][&setting];
            ensure(*is == right, || format!("{setting} is {is}"))?;
            told(t, "IndexSettingsChanged", &[index, &setting]).await
        })
        .await;
    }
    wait_for("both copies of every index, each in a zone of its own", LIMIT, async || {
        in_different_zones(&elastic.copies("messages.").await?, 2)
    })
    .await;
    t.placement_ready("pool").await;
}

/// Instead of a table that reads well and is wrong, whatever its number, and instead of none: the right one, with a higher
/// number.
async fn table_comes_back(t: &Scenario) {
    let (first, _) = table(t).await.unwrap();
    let mut last = first.generation;
    for what in ["is wrong", "is wrong, far ahead", "is wrong, of long ago", "is gone"] {
        let generation = match what {
            "is wrong, far ahead" => last + 1_000_000,
            "is wrong, of long ago" => 1,
            _ => last,
        };
        let mut wrong = Table { generation, ..first.clone() };
        wrong.indices[0].name = "messages.p999.g1".to_owned();
        if what == "is gone" {
            t.objects.delete("configmaps", "routes-messages").await.unwrap();
        } else {
            let edited = json!({"binaryData": {"table.json.gz": ByteString(encode(&wrong).unwrap())}});
            t.objects.merge("configmaps", "routes-messages", &edited).await.unwrap();
        }
        let ahead = last.max(wrong.generation);
        let again = wait_for(&format!("the right table, when the published one {what}"), SOON, async || {
            let (table, _) = table(t).await?;
            ensure(table.generation > ahead, || format!("generation {}", table.generation))?;
            Ok(table)
        })
        .await;
        assert_eq!(Table { generation: first.generation, ..again.clone() }, first, "{what}");
        last = again.generation;
        // From then on the number is known, also when the table is gone.
        wait_for("the placement tells its number", LIMIT, async || {
            let object = t.objects.get("indexplacements", "pool").await?.ok_or("no placement")?;
            ensure(number(&object, "/status/tableGeneration") == last, || format!("{}", object["status"]))
        })
        .await;
    }
    t.placement_ready("pool").await;
}
