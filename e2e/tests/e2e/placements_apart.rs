//! A cluster that the operator cannot reach: what is on it stays where it is, in status and in the routing table, and
//! nothing is made elsewhere in its place.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use searchcell_e2e::cells::placement;
use searchcell_e2e::elastic::Elastic;
use searchcell_e2e::objects::{condition, conditions_line, items, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Operator, Scenario, run, say, wait_for};
use serde_json::{Value, json};

use crate::placements::{identity, on, places, table};

const INDICES: usize = 6;

/// Lets this computer, and with it the operator, through to one cluster of the cell, or to all (`None`).
async fn let_in(t: &Scenario, cluster: Option<&str>) {
    let labels = json!({"spec": {"podSelector": {"matchLabels": {"searchcell.dev/cluster": cluster}}}});
    t.objects.merge("networkpolicies", "e2e", &labels).await.unwrap();
}

/// Since when a condition is as it is.
fn since(object: &Value, kind: &str) -> Timestamp {
    let conditions = items(object, "/status/conditions");
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    let found = found.unwrap_or_else(|| panic!("no {kind}: {}", conditions_line(object)));
    text(found, "/lastTransitionTime").parse().unwrap()
}

/// Whether the placement says that it is cluster b that cannot be read.
async fn told(t: &Scenario) -> Result<Value, String> {
    let object = t.objects.get("indexplacements", "pool").await?.ok_or("no placement")?;
    for (kind, status, reason) in
        [("Ready", "False", "Unreachable"), ("Degraded", "True", "ClusterUnavailable")]
    {
        let (is, why, message) = condition(&object, kind).unwrap_or_default();
        let names = message.contains("cluster b") || message.ends_with(": b");
        ensure((is, why) == (status, reason) && names, || conditions_line(&object))?;
    }
    Ok(object)
}

async fn identities(
    elastic: &Elastic,
    places: &BTreeMap<String, String>,
    cluster: &str,
) -> Vec<(String, i64, i64)> {
    let mut identities = Vec::new();
    for (index, _) in places.iter().filter(|(_, at)| *at == cluster) {
        identities.push(identity(elastic, index).await.unwrap());
    }
    identities
}

/// The names of all indices that are not Elasticsearch's own.
async fn indices(elastic: &Elastic) -> Vec<String> {
    let all = elastic.get("/_settings/index.uuid?expand_wildcards=all").await.unwrap();
    let names = all.as_object().unwrap().keys().filter(|name| !name.starts_with('.'));
    names.cloned().collect()
}

#[test]
fn a_cluster_out_of_reach_moves_no_placement() {
    run("a_cluster_out_of_reach_moves_no_placement", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell { clusters: vec!["a".to_owned(), "b".to_owned()], ..Cell::mini("cell") };
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": INDICES}}), 0)).await;
        t.placement_ready("pool").await;
        let (a, b) = (t.elastic("cell", "a"), t.elastic("cell", "b"));
        let before = places(t, "pool").await;
        assert_eq!((on(&before, "cell-a"), on(&before, "cell-b")), (3, 3), "{before:?}");
        for (index, at) in &before {
            let document = |n: i64| {
                let source = json!({"guild_id": "7", "content": "hello", "sent": n});
                (index.clone(), format!("7~{n}"), Some("7".to_owned()), source)
            };
            let elastic = if at == "cell-a" { &a } else { &b };
            elastic.bulk(&(0..10).map(document).collect::<Vec<_>>()).await.unwrap();
        }
        let kept = [identities(&a, &before, "cell-a").await, identities(&b, &before, "cell-b").await];
        let (published, _) = table(t).await.unwrap();

        // A policy does not end connections that are there; restarts do. What comes up again is behind the cut.
        let cut = Timestamp::now();
        let_in(t, Some("a")).await;
        for pod in t.pods("searchcell.dev/cluster=b").await.keys() {
            t.objects.delete("pods", pod).await.unwrap();
        }
        let object = wait_for("the cluster out of reach is told", LIMIT, async || told(t).await).await;
        wait_for("b runs, and nobody here reaches it", LIMIT, async || {
            let pods = t.objects.list("pods", "searchcell.dev/cluster=b").await?;
            let ready = pods.iter().filter(|pod| searchcell_e2e::objects::pod_ready(pod)).count();
            ensure(ready == 2, || format!("{ready} pods of b are ready"))?;
            let limit = Duration::from_secs(3);
            let answer = b.request(http::Method::GET, "/", "", bytes::Bytes::new(), limit).await;
            ensure(answer.is_err(), || "b answers".to_owned())
        })
        .await;
        let began = since(&object, "Degraded");
        assert!(
            began >= cut.round(jiff::Unit::Second).unwrap() - jiff::SignedDuration::from_secs(1),
            "{began}"
        );
        assert!(began <= Timestamp::now(), "{began}");
        say(format!("cut at {cut}: {}", conditions_line(&object)));

        // Somebody asks for more meanwhile: it may be on b already, so it is nowhere.
        let tenants = json!({"dedicated": {"tenants": [{"id": "1", "expectedDocuments": 10}]}});
        t.apply(&placement("later", "cell", tenants, 0)).await;
        t.condition("indexplacements", "later", "Ready", "False", "CellNotReady").await;

        nothing_moves(t, &operator, &before, began).await;
        operator.kill().await;
        let operator = t.start_operator().await;
        t.leads(&operator).await;
        nothing_moves(t, &operator, &before, began).await;
        assert_eq!(table(t).await.unwrap().0, published, "nothing is published because of it");
        let mut of_a: Vec<String> =
            before.iter().filter(|(_, at)| *at == "cell-a").map(|(name, _)| name.clone()).collect();
        of_a.sort();
        assert_eq!(indices(&a).await, of_a, "nothing is made in the place of what is on b");
        assert_eq!(places(t, "later").await, BTreeMap::new());

        let_in(t, None).await;
        t.placement_ready("pool").await;
        t.placement_ready("later").await;
        t.cell_ready(&cell).await;
        assert_eq!(places(t, "pool").await, before);
        let again = [identities(&a, &before, "cell-a").await, identities(&b, &before, "cell-b").await];
        assert_eq!(again, kept, "the same indices with the same documents");
        let mut all = indices(&a).await;
        all.extend(indices(&b).await);
        assert_eq!(all.len(), INDICES + 1, "{all:?}");
    });
}

/// Looks a few times whether status says the same of where indices are, and of since when b is out of reach.
async fn nothing_moves(
    t: &Scenario,
    operator: &Operator,
    before: &BTreeMap<String, String>,
    began: Timestamp,
) {
    for _ in 0..3 {
        operator.looks("placement", 2, 1).await;
        let object = wait_for("b is still out of reach", LIMIT, async || told(t).await).await;
        assert_eq!(places(t, "pool").await, *before, "{}", conditions_line(&object));
        assert_eq!(since(&object, "Degraded"), began, "{}", conditions_line(&object));
        let moved = items(&object, "/status/assignments")
            .iter()
            .any(|at| !items(at, "/pending").is_empty() || !items(at, "/missing").is_empty());
        assert!(!moved, "{:#}", object["status"]["assignments"]);
    }
}
