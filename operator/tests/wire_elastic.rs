//! The exact requests that the operator sends to Elasticsearch, and what it makes of answers in the shapes of 7.17,
//! 8.19 and 9, of errors and of bodies that break off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use searchcell_core::names::ClusterKey;
use searchcell_core::snapshot::{Asked, NodeDisk, NodeLoad, ShardState, Shutdowns};
use searchcell_core::step::Absence;
use searchcell_operator::elastic::client::ElasticHttp;
use searchcell_operator::ports::{SearchApi, SearchError};
use searchcell_operator::security::access::AllPlain;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[derive(Clone, Debug)]
struct Seen {
    line: String,
    body: String,
}

enum Answer {
    Json(u16, Value),
    Raw(&'static str),
}

/// An HTTP server that answers from a list, one connection at a time, and what it was asked.
async fn server(answers: Vec<Answer>) -> (ElasticHttp, Arc<Mutex<Vec<Seen>>>) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            let (head, length) = loop {
                let mut chunk = [0; 4096];
                let count = stream.read(&mut chunk).await.unwrap();
                read.extend_from_slice(&chunk[..count]);
                let text = String::from_utf8_lossy(&read).into_owned();
                if let Some(end) = text.find("\r\n\r\n") {
                    let length = text.to_lowercase().lines().find_map(|line| {
                        line.strip_prefix("content-length: ")
                            .and_then(|length| length.trim().parse::<usize>().ok())
                    });
                    if read.len() >= end + 4 + length.unwrap_or(0) {
                        break (text, end + 4);
                    }
                }
                assert!(count > 0);
            };
            log.lock().unwrap().push(Seen {
                line: head.lines().next().unwrap().to_owned(),
                body: head[length..].to_owned(),
            });
            let text = match answer {
                Answer::Raw(text) => text.to_owned(),
                Answer::Json(status, body) => {
                    let body = body.to_string();
                    format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    )
                }
            };
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    let locate = Box::new(move |_: &ClusterKey, scheme: &str| format!("{scheme}://{address}"));
    (ElasticHttp::with_locate(locate, Arc::new(AllPlain), Arc::new(|_, _| {})).unwrap(), seen)
}

fn key() -> ClusterKey {
    ClusterKey::new("ns", "guilds", "a")
}

fn error(status: u16, kind: &str, reason: &str) -> Answer {
    let cause = json!({"type": kind, "reason": reason});
    Answer::Json(
        status,
        json!({"error": {"root_cause": [cause], "type": kind, "reason": reason}, "status": status}),
    )
}

fn small(uuid: &str) -> Value {
    json!({"cluster_uuid": uuid, "version": 12, "state_uuid": "s", "master_node": "n1",
        "nodes": {"n1": {"name": "guilds-a-master-a-0"}, "n2": {"name": "guilds-a-data-a-0"}}})
}

#[tokio::test]
async fn the_summary_is_one_small_request() {
    let (elastic, seen) =
        server(vec![Answer::Json(200, small("abc")), Answer::Json(200, small("_na_"))]).await;
    let summary = elastic.summary(&key()).await.unwrap();
    assert_eq!(summary.uuid.as_deref(), Some("abc"));
    assert_eq!(summary.master.as_deref(), Some("guilds-a-master-a-0"));
    assert_eq!((summary.state_version, summary.state_uuid.as_str()), (12, "s"));
    assert_eq!(
        elastic.summary(&key()).await.unwrap().uuid,
        None,
        "a cluster that has not formed has no UUID"
    );
    let line = seen.lock().unwrap()[0].line.clone();
    assert!(line.starts_with("GET /_cluster/state/version,master_node,nodes?"), "{line}");
    assert!(line.contains("filter_path=cluster_uuid,version,state_uuid,master_node,nodes.*.name"), "{line}");
}

/// Metadata and routing table as all releases have them; the nodes differ.
fn state(nodes: Value) -> Value {
    let mark = json!({"namespace": "ns", "collection": "messages", "placement": "guilds", "generation": 1});
    json!({
        "nodes": nodes,
        "metadata": {"indices": {
            "messages.p000.g1": {
                "settings": {"index": {"uuid": "i1", "number_of_shards": "1", "number_of_replicas": "2",
                    "routing": {"allocation": {"require": {"_name": "x"}}}}},
                "mappings": {"_doc": {"_meta": {"searchcell": mark}}}
            },
            "other": {"settings": {"index.uuid": "i2", "index.number_of_shards": 1, "index.number_of_replicas": 0}}
        }},
        "routing_table": {"indices": {"messages.p000.g1": {"shards": {"0": [
            {"state": "UNASSIGNED", "primary": false, "node": null},
            {"state": "RELOCATING", "primary": false, "node": "n2"},
            {"state": "STARTED", "primary": true, "node": "n1"}
        ]}}}}
    })
}

#[tokio::test]
async fn details_of_8_and_9_take_two_requests() {
    let nodes = json!({
        "n1": {"name": "one", "version": "9.5.3", "roles": ["data"], "attributes": {"zone": "a"}},
        "n2": {"name": "two", "version": "8.19.21", "roles": ["data"], "attributes": {"zone": "b"}}
    });
    let settings = json!({"persistent": {"cluster.routing.allocation.awareness.attributes": "zone"}});
    let (elastic, seen) = server(vec![Answer::Json(200, state(nodes)), Answer::Json(200, settings)]).await;
    let details = elastic.details(&key()).await.unwrap();
    assert_eq!(
        (details.nodes["one"].version.as_str(), details.nodes["two"].zone.as_deref()),
        ("9.5.3", Some("b"))
    );
    assert_eq!(details.settings["cluster.routing.allocation.awareness.attributes"], "zone");
    let index = &details.indices["messages.p000.g1"];
    assert_eq!((index.uuid.as_str(), index.primaries, index.replicas), ("i1", 1, 2));
    assert_eq!(index.mark.as_ref().unwrap().placement, "guilds");
    let copies: Vec<_> =
        index.copies.iter().map(|copy| (copy.primary, copy.state, copy.node.as_deref())).collect();
    assert_eq!(
        copies,
        [
            (true, ShardState::Started, Some("one")),
            (false, ShardState::Unassigned, None),
            (false, ShardState::Relocating, Some("two"))
        ]
    );
    assert_eq!(index.settings["index.routing.allocation.require._name"], "x");
    let other = &details.indices["other"];
    assert_eq!((other.uuid.as_str(), other.primaries, other.mark.is_none()), ("i2", 1, true));
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn details_of_7_ask_for_versions_and_a_silent_node_stays() {
    let nodes = json!({
        "n1": {"name": "one", "attributes": {"zone": "a"}, "roles": ["data"]},
        "n2": {"name": "two", "attributes": {"zone": "b"}, "roles": ["data"]}
    });
    let info = json!({"nodes": {"n1": {"name": "one", "version": "7.17.29", "roles": ["data"]}}});
    let answers =
        vec![Answer::Json(200, state(nodes)), Answer::Json(200, info), Answer::Json(200, json!({}))];
    let (elastic, seen) = server(answers).await;
    let details = elastic.details(&key()).await.unwrap();
    assert_eq!(
        (details.nodes["one"].version.as_str(), details.nodes["two"].version.as_str()),
        ("7.17.29", "")
    );
    assert!(details.settings.is_empty());
    assert!(seen.lock().unwrap()[1].line.starts_with("GET /_nodes/http?"));
}

#[tokio::test]
async fn sizes_are_those_of_primaries_and_of_disks() {
    let copy = |primary: bool, count: i64| json!({"routing": {"primary": primary, "node": "id"}, "docs": {"count": count, "deleted": 1}, "store": {"size_in_bytes": 10 * count}});
    let stats =
        json!({"indices": {"m": {"shards": {"0": [copy(true, 5), copy(false, 5)], "1": [copy(true, 7)]}}}});
    let total = json!({"total_in_bytes": 100, "available_in_bytes": 40});
    let disks = json!({"nodes": {"id": {"name": "data-a-0", "fs": {"total": total}, "process": {"cpu": {"percent": 7}},
        "jvm": {"mem": {"heap_max_in_bytes": 1000, "pools": {"old": {"used_in_bytes": 404}}}}}, "other": {"name": "x", "fs": {}, "process": {"cpu": {"percent": -1}}}}});
    let (elastic, seen) = server(vec![Answer::Json(200, stats), Answer::Json(200, disks)]).await;
    let sizes = elastic.sizes(&key()).await.unwrap();
    let m = &sizes.counts["m"];
    assert_eq!((m.documents, m.largest_shard_documents, m.largest_shard_bytes), (12, 8, 70));
    assert_eq!(
        (sizes.disks.len(), sizes.disks["data-a-0"]),
        (1, NodeDisk { total: 100, available: 40, shards: 170 })
    );
    let load = NodeLoad { cpu_percent: 7, heap_percent: 40 };
    assert_eq!(sizes.loads, BTreeMap::from([("data-a-0".to_owned(), load)]));
    assert!(seen.lock().unwrap()[1].line.starts_with("GET /_nodes/stats/fs,process,jvm?"));
}

#[tokio::test]
async fn a_master_loses_its_vote_by_name_and_all_get_theirs_back() {
    let ok = || Answer::Json(200, json!({}));
    let (elastic, seen) = server(vec![ok(), ok()]).await;
    elastic.exclude_voter(&key(), "guilds-a-master-b-1").await.unwrap();
    elastic.clear_voting_exclusions(&key()).await.unwrap();
    let lines: Vec<String> = seen.lock().unwrap().iter().map(|request| request.line.clone()).collect();
    assert!(
        lines[0].starts_with("POST /_cluster/voting_config_exclusions?node_names=guilds-a-master-b-1&"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("DELETE /_cluster/voting_config_exclusions?wait_for_removal=false"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn settings_are_set_and_reset() {
    let (elastic, seen) = server(vec![Answer::Json(200, json!({"acknowledged": true}))]).await;
    let settings = BTreeMap::from([("a".to_owned(), Some(json!("x"))), ("b".to_owned(), None)]);
    elastic.put_settings(&key(), &settings).await.unwrap();
    let request = seen.lock().unwrap()[0].clone();
    assert!(request.line.starts_with("PUT /_cluster/settings?"), "{}", request.line);
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body, json!({"persistent": {"a": "x", "b": null}}));
}

#[tokio::test]
async fn an_index_is_created_without_waiting_and_once() {
    let exists = "index [messages.p000.g1/i1] already exists";
    let (elastic, seen) = server(vec![
        Answer::Json(200, json!({"acknowledged": true, "shards_acknowledged": false, "index": "x"})),
        error(400, "resource_already_exists_exception", exists),
        error(400, "illegal_argument_exception", "unknown setting [index.nope]"),
    ])
    .await;
    let create = async || elastic.create_index(&key(), "messages.p000.g1", &json!({"settings": {}})).await;
    create().await.unwrap();
    assert!(matches!(create().await, Err(SearchError::IndexExists(name)) if name == "messages.p000.g1"));
    let Err(SearchError::Refused(reason)) = create().await else { panic!() };
    assert_eq!(reason, "unknown setting [index.nope]");
    let line = seen.lock().unwrap()[0].line.clone();
    assert!(line.starts_with("PUT /messages.p000.g1?wait_for_active_shards=0"), "{line}");
}

#[tokio::test]
async fn indices_are_changed_in_place_all_or_none_and_a_refusal_has_elasticsearchs_reason() {
    let conflict = "mapper [x] cannot be changed from type [keyword] to [text]";
    let done = || Answer::Json(200, json!({"acknowledged": true}));
    let (elastic, seen) = server(vec![
        done(),
        error(400, "illegal_argument_exception", conflict),
        done(),
        error(503, "process_cluster_event_timeout_exception", "failed to process"),
    ])
    .await;
    let names = ["m.p000.g1".to_owned(), "m.p001.g1".to_owned()];
    let body = json!({"properties": {"x": {"type": "text"}}});
    elastic.put_mapping(&key(), &names, &body).await.unwrap();
    let Err(SearchError::NotInPlace(reason)) = elastic.put_mapping(&key(), &names, &body).await else {
        panic!()
    };
    assert_eq!(reason, conflict);
    let settings = BTreeMap::from([
        ("index.number_of_replicas".to_owned(), Some(json!(2))),
        ("index.refresh_interval".to_owned(), None),
    ]);
    elastic.put_index_settings(&key(), &names, &settings).await.unwrap();
    let failed = elastic.put_index_settings(&key(), &names, &settings).await;
    assert!(matches!(failed, Err(SearchError::Unreachable(_))));
    let seen = seen.lock().unwrap();
    assert!(seen[0].line.starts_with("PUT /m.p000.g1,m.p001.g1/_mapping?"), "{}", seen[0].line);
    assert!(seen[2].line.starts_with("PUT /m.p000.g1,m.p001.g1/_settings?"), "{}", seen[2].line);
    let body: Value = serde_json::from_str(&seen[2].body).unwrap();
    assert_eq!(body, json!({"index.number_of_replicas": 2, "index.refresh_interval": null}));
}

#[tokio::test]
async fn a_copy_without_a_node_is_explained_in_elasticsearchs_words() {
    let decider = |name: &str, text: &str| json!({"decider": name, "decision": "NO", "explanation": text});
    let node = |deciders: Vec<Value>| json!({"node_name": "x", "deciders": deciders});
    let same = || decider("same_shard", "a copy of this shard is already allocated to this node");
    let full = decider("disk_threshold", "the node is above the low watermark");
    let answer = json!({
        "current_state": "unassigned",
        "allocate_explanation": "Elasticsearch isn't allowed to allocate this shard to any of the nodes.",
        "node_allocation_decisions": [node(vec![same()]), node(vec![full.clone()]), node(vec![full])],
    });
    let (elastic, seen) =
        server(vec![Answer::Json(200, answer), Answer::Json(200, json!({"current_state": "started"}))]).await;
    let told = elastic.explain(&key(), "m", 0, false).await.unwrap().unwrap();
    assert_eq!(told.deciders.iter().collect::<Vec<_>>(), ["disk_threshold", "same_shard"]);
    assert_eq!(
        told.explanation,
        "Elasticsearch isn't allowed to allocate this shard to any of the nodes.; the node is above the low watermark"
    );
    assert_eq!(elastic.explain(&key(), "m", 0, false).await.unwrap(), None);
    let request = seen.lock().unwrap()[0].clone();
    assert!(request.line.starts_with("POST /_cluster/allocation/explain?"), "{}", request.line);
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body, json!({"index": "m", "shard": 0, "primary": false}));
}

#[tokio::test]
async fn an_index_is_deleted_only_when_it_is_still_the_same() {
    let settings = |uuid: &str| Answer::Json(200, json!({"m": {"settings": {"index.uuid": uuid}}}));
    let (elastic, seen) = server(vec![
        settings("i1"),
        Answer::Json(200, json!({"acknowledged": true})),
        settings("i2"),
        error(404, "index_not_found_exception", "no such index [m]"),
    ])
    .await;
    for _ in 0..3 {
        elastic.delete_index(&key(), "m", "i1").await.unwrap();
    }
    let lines: Vec<String> = seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines.iter().filter(|line| line.starts_with("DELETE /m?")).count(), 1, "{lines:?}");
}

#[tokio::test]
async fn errors_keep_elasticsearchs_own_words() {
    let (elastic, _) = server(vec![
        error(503, "master_not_discovered_exception", "no master"),
        error(429, "circuit_breaking_exception", "[parent] Data too large"),
        error(403, "security_exception", "action is unauthorized"),
        Answer::Json(405, json!({"error": "Incorrect HTTP method for uri", "status": 405})),
        Answer::Raw("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>"),
    ])
    .await;
    let mut errors = Vec::new();
    for _ in 0..5 {
        errors.push(elastic.summary(&key()).await.unwrap_err());
    }
    assert!(matches!(&errors[0], SearchError::Unreachable(reason) if reason == "no master"));
    assert!(matches!(&errors[1], SearchError::Unreachable(reason) if reason.contains("too large")));
    assert!(matches!(&errors[2], SearchError::Refused(reason) if reason == "action is unauthorized"));
    assert!(matches!(&errors[3], SearchError::NotAvailable(reason) if reason.starts_with("Incorrect")));
    assert!(matches!(&errors[4], SearchError::Unreachable(reason) if reason == "HTTP status 502"));
}

#[tokio::test]
async fn broken_answers_are_no_answers() {
    let (elastic, _) = server(vec![
        Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{\"cluster_uu"),
        Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"),
        Answer::Json(200, json!({"cluster_uuid": "abc"})),
        Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\nconnection: close\r\n\r\n{"),
    ])
    .await;
    let mut errors = Vec::new();
    for _ in 0..4 {
        errors.push(elastic.summary(&key()).await.unwrap_err());
    }
    assert!(errors[..3].iter().all(|error| matches!(error, SearchError::Unreachable(_))), "{errors:?}");
    assert!(matches!(&errors[3], SearchError::Refused(reason) if reason.contains("too big")));
    let nobody = Box::new(|_: &ClusterKey, _: &str| "http://127.0.0.1:1".to_owned());
    let elastic = ElasticHttp::with_locate(nobody, Arc::new(AllPlain), Arc::new(|_, _| {})).unwrap();
    assert_eq!(elastic.summary(&key()).await.unwrap_err().to_string(), "it refuses the connection");
}

#[tokio::test]
async fn a_reload_is_one_request_and_each_node_speaks_for_itself() {
    let body = json!({
        "_nodes": {"total": 3, "successful": 3, "failed": 0}, "cluster_name": "guilds-a",
        "nodes": {
            "n1": {"name": "one", "secure_setting_names": ["keystore.seed"], "keystore_path": "/x",
                "keystore_digest": "abc", "keystore_last_modified_time": "2026-11-21T12:00:00Z"},
            "n2": {"name": "two"},
            "n3": {"name": "three", "reload_exception": {"type": "illegal_argument_exception",
                "reason": "it cannot be read", "caused_by": {"type": "x", "reason": "unknown secure setting [a.b]"}}}
        }
    });
    let refused = error(403, "security_exception", "action [x] is unauthorized");
    let (elastic, seen) = server(vec![Answer::Json(200, body), refused]).await;
    let said = elastic.reload_keystore(&key()).await.unwrap();
    assert_eq!((said["one"].digest.as_deref(), said["one"].error.as_ref()), (Some("abc"), None));
    assert_eq!((&said["two"].digest, &said["two"].error), (&None, &None));
    let why = said["three"].error.as_deref().unwrap();
    assert_eq!(why, "it cannot be read: unknown secure setting [a.b]");
    let error = elastic.reload_keystore(&key()).await.unwrap_err();
    assert!(matches!(error, SearchError::Refused(_)), "{error:?}");
    let line = seen.lock().unwrap()[0].line.clone();
    assert!(line.starts_with("POST /_nodes/reload_secure_settings?timeout=20s"), "{line}");
}

#[tokio::test]
async fn restarts_are_announced_and_taken_back_and_a_build_without_that_is_told_apart() {
    let record = json!({"node_id": "n1", "type": "RESTART", "reason": Absence::Restart.reason(), "status": "COMPLETE"});
    let missing = json!({"error": {"type": "resource_not_found_exception", "reason": "node [n1] is not currently shutting down"},
        "status": 404});
    let nobody =
        json!({"_nodes": {"total": 0, "successful": 0, "failed": 0}, "cluster_name": "c", "nodes": {}});
    let (elastic, seen) = server(vec![
        Answer::Json(200, json!({"acknowledged": true})),
        Answer::Json(200, json!({"nodes": [record]})),
        Answer::Json(200, json!({"acknowledged": true})),
        Answer::Json(404, missing),
        Answer::Json(200, nobody),
        Answer::Json(
            405,
            json!({"error": "Incorrect HTTP method for uri [/_nodes/shutdown]", "status": 405}),
        ),
        error(503, "master_not_discovered_exception", "no master"),
        Answer::Json(200, json!({"acknowledged": true})),
    ])
    .await;
    elastic.announce_restart(&key(), "n1", Absence::Restart).await.unwrap();
    let Shutdowns::Known(records) = elastic.shutdowns(&key()).await.unwrap() else { panic!() };
    assert_eq!(
        (records["n1"].kind.as_str(), records["n1"].reason.as_str()),
        ("RESTART", Absence::Restart.reason())
    );
    elastic.withdraw_restart(&key(), "n1").await.unwrap();
    elastic.withdraw_restart(&key(), "n1").await.expect("somebody else was faster");
    assert_eq!(elastic.shutdowns(&key()).await.unwrap(), Shutdowns::NotAvailable);
    assert_eq!(elastic.shutdowns(&key()).await.unwrap(), Shutdowns::NotAvailable);
    assert!(elastic.shutdowns(&key()).await.is_err(), "an error is no absence");
    elastic.announce_restart(&key(), "n1", Absence::Eviction).await.unwrap();

    let seen = seen.lock().unwrap();
    let lines: Vec<&str> = seen.iter().map(|request| request.line.rsplit_once(' ').unwrap().0).collect();
    let (all, of_node) = ("GET /_nodes/shutdown", "/_nodes/n1/shutdown");
    let (put, delete) = (format!("PUT {of_node}"), format!("DELETE {of_node}"));
    assert_eq!(lines, [&put, all, &delete, &delete, all, all, all, &put]);
    let body = |n: usize| serde_json::from_str::<Value>(&seen[n].body).unwrap();
    let record = |absence: Absence, delay| json!({"type": "restart", "reason": absence.reason(), "allocation_delay": delay});
    assert_eq!(body(0), record(Absence::Restart, "15m"));
    assert_eq!(body(7), record(Absence::Eviction, "5m"), "it may find no place");
}

#[tokio::test]
async fn before_an_upgrade_deprecations_and_snapshots_are_asked_for() {
    let critical =
        json!({"level": "critical", "message": "an old analyzer", "url": "https://x", "details": "y"});
    let snapshot = json!({"state": "SUCCESS", "indices": ["messages.p000.g1"], "end_time_in_millis": 1_700_000_000_000_i64});
    let missing = json!({"error": "no handler found for uri [/_migration/deprecations] and method [GET]", "status": 400});
    let (elastic, seen) = server(vec![
        Answer::Json(200, json!({"cluster_settings": [], "index_settings": {"old": [critical]}})),
        Answer::Json(200, json!({"snapshots": [snapshot]})),
        Answer::Json(400, missing),
        error(503, "master_not_discovered_exception", "no master"),
    ])
    .await;
    let told = elastic.deprecations(&key()).await.unwrap();
    assert_eq!(told, Asked::Known(vec!["old: an old analyzer".to_owned()]));
    let Asked::Known(snapshots) = elastic.snapshots(&key()).await.unwrap() else { panic!() };
    assert_eq!(snapshots["messages.p000.g1"].as_second(), 1_700_000_000);
    assert_eq!(elastic.deprecations(&key()).await.unwrap(), Asked::NotAvailable);
    assert!(elastic.snapshots(&key()).await.is_err(), "an error is no absence");
    let seen = seen.lock().unwrap();
    assert!(seen[0].line.starts_with("GET /_migration/deprecations "), "{}", seen[0].line);
    assert!(
        seen[1].line.starts_with("GET /_snapshot/_all/_all?ignore_unavailable=true&"),
        "{}",
        seen[1].line
    );
    assert_eq!(seen[1].line.split(' ').count(), 3, "one line: {}", seen[1].line);
}

#[tokio::test]
async fn documents_of_tenants_are_counted_and_none_is_asked_for() {
    let answer = |buckets: Value| json!({"timed_out": false, "_shards": {"failed": 0}, "aggregations": {"tenants": {"buckets": buckets}}});
    let (elastic, seen) = server(vec![
        Answer::Json(200, json!({"_shards": {"failed": 0}})),
        Answer::Json(200, answer(json!({"0": {"doc_count": 3}, "1": {"doc_count": 0}}))),
        Answer::Json(200, json!({"_shards": {"failed": 1}})),
        Answer::Json(200, answer(json!([{"key": 42, "doc_count": 7}]))),
    ])
    .await;
    let tenants = ["42".to_owned(), "a b".to_owned()];
    let count = async || elastic.documents_of(&key(), "messages.p000.g1", &tenants, true).await;
    let expected = [("42".to_owned(), 3), ("a b".to_owned(), 0)];
    assert_eq!(count().await.unwrap(), BTreeMap::from(expected));
    assert!(matches!(count().await, Err(SearchError::Unreachable(_))), "a copy was not refreshed");
    let largest = elastic.largest_tenants(&key(), "messages.p000.g1", "guild_id").await.unwrap();
    assert_eq!(largest, [("42".to_owned(), 7)]);

    let seen = seen.lock().unwrap();
    let paths: Vec<&str> =
        seen.iter().map(|request| request.line.split(['?', ' ']).nth(1).unwrap()).collect();
    let (refresh, search) = ("/messages.p000.g1/_refresh", "/messages.p000.g1/_search");
    assert_eq!(paths, [refresh, search, refresh, search]);
    assert!(seen[1].line.contains("allow_partial_search_results=false"), "{}", seen[1].line);
    for request in [&seen[1], &seen[3]] {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(body["size"], 0, "{body}");
    }
    let body: Value = serde_json::from_str(&seen[1].body).unwrap();
    assert_eq!(body["query"], json!({"terms": {"_routing": tenants}}));
}
