//! Secure settings reach nodes without a restart where Elasticsearch can load them, and with one where it cannot.

use std::time::Instant;

use http::Method;
use searchcell_e2e::objects::{annotation, condition, items, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};

use crate::rolling::rolled;

/// Known by every distribution since 8.14; nothing connects to that cluster.
const ENTRY: &str = "cluster.remote.other.credentials";
/// Only a restart would load it; unknown to the core of Elasticsearch, which does not start with it then.
const FIXED: &str = "xpack.watcher.encryption_key";
const LOADED: &str = "searchcell.dev/keystore-loaded-a";

fn secret(entries: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "remote"}, "stringData": entries})
}

/// What each node says when it is told to load its keystore: names of entries.
async fn entries(t: &Scenario) -> Vec<Vec<String>> {
    let path = "/_nodes/reload_secure_settings";
    let said = t.elastic("cell", "a").json(Method::POST, path, None).await.expect("an answer");
    let names = |node: &Value| {
        assert!(node.get("reload_exception").is_none(), "{node}");
        let names = items(node, "/secure_setting_names").iter().filter_map(Value::as_str);
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    };
    said["nodes"].as_object().into_iter().flatten().map(|(_, node)| names(node)).collect()
}

/// An entry is there when nodes start; another value reaches them without a restart, and they are told once. What only a
/// restart loads comes with one; what cannot be used is named, and nodes keep what they have.
#[test]
fn secure_settings_reach_running_nodes() {
    run("secure_settings_reach_running_nodes", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell =
            Cell { extra: json!({"secureSettings": [{"secretName": "remote"}]}), ..Cell::mini("cell") };
        // without the Secret no node starts, and the cell says why
        t.apply(&cell.object()).await;
        t.condition("searchcells", "cell", "Stalled", "True", "InvalidSecureSettings").await;
        assert!(t.workloads("searchcell.dev/cell=cell").await.is_empty());
        t.apply(&secret(&json!({ENTRY: "the-first-secret-value"}))).await;
        t.cell_ready(&cell).await;
        let pods = t.pods("searchcell.dev/cell=cell").await;
        for names in entries(t).await {
            assert_eq!(names, [ENTRY, "keystore.seed"]);
        }
        let keystore = t.objects.expect("secrets", "cell-keystore-1").await;
        assert_eq!(annotation(&keystore, LOADED), "", "nodes started with it");

        t.apply(&secret(&json!({ENTRY: "another-secret-value"}))).await;
        wait_for("every node has loaded the other value", LIMIT, async || {
            let keystore = t.objects.get("secrets", "cell-keystore-1").await?.ok_or("it is gone")?;
            let record: Value = serde_json::from_str(annotation(&keystore, LOADED))
                .map_err(|_| "nobody was told yet".to_owned())?;
            // this version says which file it has read
            ensure(record.get("waiting").is_none() && record.get("refused").is_none(), || record.to_string())
        })
        .await;
        let object = t.cell_ready(&cell).await;
        assert!(!object.to_string().contains("-value"), "{object:#}");

        // only a restart loads it, and this distribution does not know it: the first node that has it does not start, and no
        // other one follows; taken out, that node comes back
        t.apply(&secret(&json!({ENTRY: "another-secret-value", FIXED: "the-key-value"}))).await;
        wait_for("the first node does not start", LIMIT, async || {
            let object = t.objects.expect("searchcells", "cell").await;
            let (_, _, message) = condition(&object, "Degraded").ok_or("no Degraded")?;
            ensure(message.contains("cell-a-data-a-0 cannot start"), || message.to_owned())
        })
        .await;
        let (master, began) = (t.pods("searchcell.dev/role=master").await, Instant::now());
        assert!(master.iter().all(|(name, uid)| pods.get(name) == Some(uid)), "{master:?}");
        t.objects.merge("secrets", "remote", &json!({"data": {FIXED: null}})).await.unwrap();
        rolled(t, &cell, began).await;
        let object = t.cell_ready(&cell).await;
        assert_eq!(text(&object, "/status/rollout/reason"), "SecretChange");
        assert_eq!(t.pods("searchcell.dev/role=master").await, master, "a master has restarted");

        // without the list nodes restart without a keystore, and with it again with one
        for (list, names) in [
            (json!([]), vec!["keystore.seed"]),
            (json!([{"secretName": "remote"}]), vec![ENTRY, "keystore.seed"]),
        ] {
            let (before, began) = (t.pods("searchcell.dev/cell=cell").await, Instant::now());
            cell.extra = json!({"secureSettings": list});
            t.apply(&cell.object()).await;
            let took = rolled(t, &cell, began).await;
            t.cell_ready(&cell).await;
            let after = t.pods("searchcell.dev/cell=cell").await;
            say(format!("{} nodes have restarted after {:.0} s", after.len(), took.as_secs_f64()));
            assert!(after.iter().all(|(name, uid)| before.get(name) != Some(uid)), "{before:?}, {after:?}");
            for found in entries(t).await {
                assert_eq!(found, names);
            }
        }
        let restarted = t.pods("searchcell.dev/cell=cell").await;
        // what cannot be an entry is named; taken out, all is as before
        t.objects.merge("secrets", "remote", &json!({"stringData": {"README": "no-value"}})).await.unwrap();
        let stalled = t.condition("searchcells", "cell", "Stalled", "True", "InvalidSecureSettings").await;
        let (_, _, message) = condition(&stalled, "Stalled").unwrap();
        assert!(message.contains("README") && message.contains("Secret remote"), "{message}");
        t.objects.merge("secrets", "remote", &json!({"data": {"README": null}})).await.unwrap();
        t.cell_ready(&cell).await;
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, restarted, "a pod has restarted again");
        for event in t.objects.list("events", "").await.unwrap() {
            assert!(!event.to_string().contains("-value"), "{event}");
        }
    });
}
