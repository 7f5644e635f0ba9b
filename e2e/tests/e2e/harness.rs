//! What the other tests stand on: an Elasticsearch made by hand, seen through the same helpers.

use std::time::Duration;

use searchcell_e2e::audit::AuditLog;
use searchcell_e2e::elastic::in_different_zones;
use searchcell_e2e::objects::pod_ready;
use searchcell_e2e::probe::{Load, Probe};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Level, run, skipped, wait_for};
use serde_json::json;

/// A node by hand: documents, shards by zone, probes that notice an outage, the audit log.
#[test]
fn harness_sees_what_happens() {
    run("harness_sees_what_happens", Level::Full, async |t| {
        let log = AuditLog::mark(t.env).await;
        let labels = json!({"app": "bare"});
        let setting = |name: &str, value: &str| json!({"name": name, "value": value});
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "bare-a"},
            "spec": {"selector": labels, "ports": [{"port": 9200}]},
        });
        t.apply(&service).await;
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "bare"},
            "spec": {
                "serviceName": "bare-a", "replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "nodeSelector": {"topology.kubernetes.io/zone": "zone-b"},
                    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "runAsNonRoot": true,
                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                    "containers": [{
                        "name": "elasticsearch",
                        "image": "docker.elastic.co/elasticsearch/elasticsearch:9.5.3",
                        "env": [
                            setting("discovery.type", "single-node"), setting("node.attr.zone", "b"),
                            setting("xpack.security.enabled", "false"), setting("network.host", "0.0.0.0"),
                            setting("node.store.allow_mmap", "false"), setting("ES_JAVA_OPTS", "-Xms128m -Xmx128m"),
                        ],
                        "readinessProbe": {"tcpSocket": {"port": 9200}, "periodSeconds": 1},
                        "resources": {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}},
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [{"name": "data", "mountPath": "/usr/share/elasticsearch/data"}],
                    }],
                }},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                }}],
            },
        });
        t.apply(&set).await;
        let elastic = t.elastic("bare", "a");
        let uuid = wait_for("a bare Elasticsearch", LIMIT, async || elastic.uuid().await).await;

        let create = json!({"settings": {"number_of_shards": 2, "number_of_replicas": 0}});
        elastic.json(http::Method::PUT, "/some", Some(&create)).await.unwrap();
        elastic.bulk(&[("some".to_owned(), "1".to_owned(), None, json!({"content": "x"}))]).await.unwrap();
        assert_eq!(elastic.count("some").await, Ok(1));
        let copies = elastic.copies("some").await.unwrap();
        assert_eq!(copies.len(), 2, "{copies:?}");
        in_different_zones(&copies, 1).unwrap();
        in_different_zones(&copies, 2).unwrap_err();
        assert_eq!(elastic.nodes().await.unwrap()["bare-0"].zone, "b");

        let load = Load::start(&elastic, 2);
        let (writer, reader) =
            (Probe::writer(elastic.clone(), "some"), Probe::reader(elastic.clone(), "some"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let quiet = writer.seen();
        assert!(quiet.ok > 10 && quiet.failed == 0, "{quiet:?}");
        assert!(reader.seen().ok > 10, "{:?}", reader.seen());
        assert!(!load.report().starts_with("0 "), "{}", load.report());
        drop(load);

        if t.node("off", 2).await {
            wait_for("the probes' complaints", LIMIT, async || {
                ensure(writer.seen().failed > 0, || format!("{:?}", writer.seen()))
            })
            .await;
            assert!(t.node("on", 2).await);
            wait_for("the pod back", LIMIT, async || {
                let pod = t.objects.get("pods", "bare-0").await?.ok_or("no pod")?;
                ensure(pod_ready(&pod), || pod["status"]["phase"].to_string())
            })
            .await;
            wait_for("Elasticsearch back", LIMIT, async || elastic.count("some").await).await;
            assert_eq!(elastic.uuid().await.unwrap(), uuid);
        }
        writer.stop().await;
        reader.stop().await;

        match log {
            None => skipped("harness_sees_what_happens: this cluster keeps no audit log"),
            Some(log) => {
                let user = searchcell_e2e::shell::kubectl(
                    &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"],
                    None,
                    Duration::from_secs(20),
                )
                .await;
                let writes = log.writes_of(user.ok("kubectl auth whoami").trim());
                let applied = writes
                    .iter()
                    .find(|request| request.resource == "statefulsets" && request.name == "bare");
                assert_eq!(applied.map(|request| request.verb.as_str()), Some("patch"), "{writes:#?}");
            }
        }
    });
}
