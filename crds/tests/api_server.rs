//! The definitions in a real API server: every case of the tables, and what kubectl shows. Effects: starts and ends
//! etcd and kube-apiserver on loopback where SEARCHCELL_APISERVER_BIN_DIR names a folder that holds them and kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::Write as _;

use serde_json::{Value, json};
use support::server::{Server, VARIABLE, binaries};

const API: &str = "/apis/searchcell.dev/v1alpha1/namespaces/default";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// One server for all: it takes seconds to start, and the parts follow each other.
#[test]
fn definitions_hold_in_a_real_api_server() {
    let Some(binaries) = binaries() else {
        // Written past the capture of the test harness, so that a skipped run is seen.
        writeln!(std::io::stderr(), "SKIPPED: API-server tests: {VARIABLE} is not set").unwrap();
        return;
    };
    let server = Server::start(binaries);
    server.apply(&support::root().join("crds/searchcells.searchcell.dev.yaml"));
    server.apply(&support::root().join("crds/indexplacements.searchcell.dev.yaml"));
    server.kubectl_ok(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"]);
    let definitions =
        server.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", JSON, None).1;
    for definition in definitions["items"].as_array().unwrap() {
        let conditions = definition["status"]["conditions"].as_array().unwrap();
        let complaint = conditions.iter().find(|condition| condition["type"] == "NonStructuralSchema");
        assert_eq!(complaint, None);
    }

    every_case_is_as_the_table_says(&server);
    examples_are_accepted(&server);
    a_new_object_reads_as_in_progress(&server);
    defaults_are_filled_in(&server);
    columns_are_as_promised(&server);
    names_and_categories_work(&server);
    explanations_read_well(&server);
    unknown_fields_are_refused(&server);
    a_status_replaces_its_default(&server);
}

fn plural(kind: &str) -> &'static str {
    if kind == "SearchCell" { "searchcells" } else { "indexplacements" }
}

fn every_case_is_as_the_table_says(server: &Server) {
    let mut failures = Vec::new();
    let mut count = 0;
    for (kind, table, _) in support::tables() {
        let list = format!("{API}/{}", plural(kind));
        for case in &table.cases {
            count += 1;
            let mut fail = |what: String| failures.push(format!("{kind}, {}: {what}", case.name));
            let object = case.object(&table.base);
            let one = format!("{list}/{}", object["metadata"]["name"].as_str().unwrap());
            let (mut status, mut answer) = server.request("POST", &list, JSON, Some(&object));
            let created = status == 201;
            if let Some(mut next) = case.update(&object) {
                if !created {
                    fail(format!("the object to start with is refused: {}", answer["message"]));
                    continue;
                }
                next["metadata"]["resourceVersion"] = answer["metadata"]["resourceVersion"].clone();
                (status, answer) = server.request("PUT", &one, JSON, Some(&next));
            }
            match &case.rejects {
                None if status >= 300 => fail(format!("refused: {}", answer["message"])),
                Some(_) if status < 300 => fail("accepted".to_owned()),
                Some(words) if status != 422 || !answer["message"].as_str().unwrap().contains(words) => {
                    fail(format!("{status}, other words: {}", answer["message"]));
                }
                _ => {}
            }
            if created {
                let (gone, answer) = server.request("DELETE", &one, JSON, None);
                assert_eq!(gone, 200, "{answer}");
            }
        }
    }
    println!("{count} cases");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn examples_are_accepted(server: &Server) {
    server.apply(&support::root().join("manifests/examples"));
}

fn a_new_object_reads_as_in_progress(server: &Server) {
    for resource in ["searchcells", "indexplacements"] {
        let (_, object) = server.request("GET", &format!("{API}/{resource}/guild-messages"), JSON, None);
        assert_eq!(object["status"]["observedGeneration"], -1);
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let short: Vec<_> = conditions
            .iter()
            .map(|condition| (&condition["type"], &condition["status"], &condition["reason"]))
            .collect();
        assert_eq!(
            json!(short),
            json!([["Ready", "Unknown", "Pending"], ["Reconciling", "True", "Pending"]])
        );
        let target = format!("{resource}/guild-messages");
        let waited = server.kubectl(&["wait", "--for=condition=Ready", "--timeout=1s", &target]);
        assert!(!waited.status.success());
        assert!(String::from_utf8_lossy(&waited.stderr).contains("timed out"));
    }
}

fn defaults_are_filled_in(server: &Server) {
    let (_, cell) = server.request("GET", &format!("{API}/searchcells/autoscaled"), JSON, None);
    let spec = &cell["spec"];
    assert_eq!(spec["topologyKey"], "topology.kubernetes.io/zone");
    assert_eq!(
        spec["rollout"],
        json!({"unit": "Auto", "maxUnavailableClusters": 1, "soak": "60s", "approval": "Automatic"})
    );
    assert_eq!((&spec["deletionPolicy"], &spec["suspend"]), (&json!("Retain"), &json!(false)));
    let (_, placement) = server.request("GET", &format!("{API}/indexplacements/bfg"), JSON, None);
    let spec = &placement["spec"];
    assert_eq!(spec["tenant"], json!({"field": "guild_id", "fanOut": false, "idScope": "Tenant"}));
    assert_eq!(spec["dedicated"]["maxDocumentsPerShard"], 1_000_000_000);
    assert_eq!(spec["deletionPolicy"], "Retain");
}

fn columns_are_as_promised(server: &Server) {
    for (resource, narrow) in [
        ("searchcells", ["Name", "Ready", "Version", "Clusters", "Nodes", "Rollout", "Age"]),
        ("indexplacements", ["Name", "Ready", "Cell", "Collection", "Indices", "Shards", "Age"]),
    ] {
        let (_, table) = server.request("GET", &format!("{API}/{resource}"), TABLE, None);
        let columns = |priority: i64| -> Vec<&str> {
            let all = table["columnDefinitions"].as_array().unwrap();
            let of = all.iter().filter(|column| column["priority"] == priority);
            of.map(|column| column["name"].as_str().unwrap()).collect()
        };
        assert_eq!(columns(0), narrow);
        assert_eq!(columns(1), ["Reason", "Message"]);
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(cells[1], "Unknown");
        assert_eq!(cells[cells.len() - 2], "Pending");
    }
}

fn names_and_categories_work(server: &Server) {
    let both = server.kubectl_ok(&["get", "search", "-o", "name"]);
    assert!(
        both.contains("searchcell.searchcell.dev/bfg") && both.contains("indexplacement.searchcell.dev/bfg")
    );
    for (short, long) in [
        ("cell", "searchcell"),
        ("searchcell", "searchcell"),
        ("placement", "indexplacement"),
        ("ipl", "indexplacement"),
    ] {
        let found = server.kubectl_ok(&["get", short, "bfg", "-o", "name"]);
        assert_eq!(found.trim(), format!("{long}.searchcell.dev/bfg"));
    }
    for one in ["searchcell/bfg", "searchcells/bfg", "indexplacement/bfg"] {
        server.kubectl_ok(&["get", one]);
    }
}

fn explanations_read_well(server: &Server) {
    for (path, words) in [
        ("searchcell", "A cell: a named group"),
        ("searchcell.spec", "version"),
        ("searchcell.spec.rollout", "How changes that restart nodes are carried out"),
        ("searchcell.spec.rollout.soak", "Default: 60s"),
        ("searchcell.spec.zones.state", "Retiring"),
        ("searchcell.spec.nodes.data.storage.size", "never shrinks"),
        ("placement.spec.tenant", "The key whose documents stay together"),
        ("placement.spec.dedicated.tenants.shards", "rounded up"),
        ("placement.status.conditions.reason", "in one word"),
    ] {
        let text = server.kubectl_ok(&["explain", path]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{path}: {text}");
    }
}

fn unknown_fields_are_refused(server: &Server) {
    let mut object = support::table("search_cell.yaml").base;
    object["spec"]["nodes"]["data"]["perzone"] = json!(1);
    let path = format!("{API}/searchcells?fieldValidation=Strict&dryRun=All");
    let (status, answer) = server.request("POST", &path, JSON, Some(&object));
    assert_eq!(status, 400);
    assert!(
        answer["message"].as_str().unwrap().contains("unknown field \"spec.nodes.data.perzone\""),
        "{answer}"
    );
}

/// A merge patch of the status replaces the default list of conditions; a server-side apply would keep its entries.
fn a_status_replaces_its_default(server: &Server) {
    let path = format!("{API}/searchcells/bfg/status");
    let condition = json!({"type": "Ready", "status": "True", "reason": "Serving", "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2026-11-21T00:00:00Z"});
    let status = json!({"observedGeneration": 1, "conditions": [condition], "clustersReady": "1/1"});
    let patch: Value = json!({"status": status});
    let (code, answer) =
        server.request_as("PATCH", &path, JSON, "application/merge-patch+json", Some(&patch));
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["status"], status);
    server.kubectl_ok(&["wait", "--for=condition=Ready", "--timeout=1s", "cell/bfg"]);
    // Written by server-side apply, the defaults that nobody owns stay beside what is applied.
    let path = format!("{API}/searchcells/autoscaled/status?fieldManager=test&force=true");
    let patch = json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell", "metadata": {"name": "autoscaled"}, "status": status});
    let (code, answer) =
        server.request_as("PATCH", &path, JSON, "application/apply-patch+yaml", Some(&patch));
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["status"]["conditions"].as_array().unwrap().len(), 2);
}
