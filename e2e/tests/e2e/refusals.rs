//! What is refused, and that a refusal touches nothing.

use std::time::Duration;

use searchcell_e2e::audit::{AuditLog, Request};
use searchcell_e2e::cells::{merged, placement};
use searchcell_e2e::objects::{condition, number, text};
use searchcell_e2e::shell::kubectl;
use searchcell_e2e::{Cell, Level, Scenario, run, say};
use serde_json::{Value, json};

/// Rules of the schema: the API server says no, in words that name the field. (The complete list is tested against a
/// bare API server beside the types; here is one of each sort, on a cell that runs.)
fn refused_by_the_api_server() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"version": "latest"}), "version must be x.y.z"),
        (json!({"topologyKey": "kubernetes.io/hostname"}), "topologyKey is immutable"),
        (json!({"zones": [{"name": "b", "value": "zone-b"}]}), "zones must not lose one"),
        (json!({"zones": [{"name": "a", "value": "zone-b"}]}), "zones[].value is immutable"),
        (json!({"zones": []}), "spec.zones"),
        (json!({"clusters": [{"name": "a"}, {"name": "a"}]}), "Duplicate value"),
        (json!({"clusters": [{"name": "a"}, {"name": "data"}]}), "clusters[].name must not be"),
        (json!({"nodes": {"master": {"count": 2}}}), "nodes.master.count must be 1, 3 or 5"),
        (
            json!({"nodes": {"master": {"storage": {"size": "0Gi"}}}}),
            "storage.size must be a positive quantity",
        ),
        (
            json!({"nodes": {"data": {"storage": {"storageClassName": "sized"}}}}),
            "storageClassName is immutable",
        ),
        (json!({"nodes": {"data": {"heap": "700Mi"}}}), "heap must be less than"),
        (json!({"nodes": {"data": {"perZone": 0}}}), "spec.nodes.data.perZone"),
        (
            json!({"nodes": {"data": {"jvmOptions": ["-Xmx1g"]}}}),
            "jvmOptions must not set the size of the heap",
        ),
        (
            json!({"nodes": {"ingest": {"replicas": 1, "autoscaling": {"minReplicas": 1, "maxReplicas": 2, "targetCPUUtilizationPercentage": 50}}}}),
            "exactly one of replicas and autoscaling",
        ),
        (
            json!({"nodes": {"ingest": {"autoscaling": {"minReplicas": 1, "maxReplicas": 2, "targetCPUUtilizationPercentage": 50}}}}),
            "needs nodes.ingest.resources.requests.cpu",
        ),
        (json!({"rollout": {"canary": "z"}}), "rollout.canary must name a cluster"),
        (json!({"rollout": {"soak": "soon"}}), "rollout.soak must be a duration"),
        (json!({"nodes": {"data": null}}), "spec.nodes.data: Required value"),
    ]
}

/// Rules that only the operator can check: `Stalled`, with every problem and its path. Problems of several sorts are
/// an `InvalidSpec` together.
fn refused_by_the_operator() -> Vec<(Value, &'static str, Vec<&'static str>)> {
    vec![
        (
            json!({
                "settings": {"cluster.name": "mine", "node.attr.zone": "x"},
                "clusterSettings": {"cluster.routing.allocation.awareness.attributes": "rack"},
                "nodes": {"data": {"settings": {"path.data": "/tmp"}}},
                "secureSettings": [{"secretName": "cell-operator"}],
            }),
            "InvalidSpec",
            vec![
                "spec.settings[\"cluster.name\"]",
                "spec.settings[\"node.attr.zone\"]",
                "spec.clusterSettings[\"cluster.routing.allocation.awareness.attributes\"]",
                "spec.nodes.data.settings[\"path.data\"]",
                "spec.secureSettings[0].secretName",
            ],
        ),
        (
            json!({"nodes": {"data": {"podTemplate": {"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "x"}}}}}}),
            "ReservedPodField",
            vec!["spec.nodes.data.podTemplate", "nodeSelector"],
        ),
        // valid, but volumes do not shrink, and nodes do not go back
        (
            json!({"nodes": {"data": {"storage": {"size": "512Mi"}}}}),
            "NotSupportedYet",
            vec!["spec.nodes.data.storage"],
        ),
        (json!({"version": "9.5.2"}), "ForwardOnly", vec!["9.5.3"]),
        (json!({"version": "6.8.0"}), "UnsupportedVersion", vec!["spec.version"]),
    ]
}

/// Specs that the API server or the operator refuses: the running cluster stays exactly as it is.
#[test]
fn invalid_specs_are_refused_or_stalled_and_touch_nothing() {
    run("invalid_specs_are_refused_or_stalled_and_touch_nothing", Level::Smoke, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let workloads = t.workloads("").await;
        let pods = t.pods("").await;
        let settings = t.elastic("cell", "a").settings().await.unwrap();
        let log = AuditLog::mark(t.env).await;

        for (patch, message) in refused_by_the_api_server() {
            let refused = t.objects.merge("searchcells", "cell", &json!({"spec": patch})).await;
            match refused {
                Ok(_) => panic!("accepted: {patch}"),
                Err(error) => {
                    assert!(error.to_string().contains(message), "{patch} was refused with {error}")
                }
            }
        }
        say(format!("{} refused by the API server", refused_by_the_api_server().len()));

        for (patch, reason, named) in refused_by_the_operator() {
            let changed = merged(cell.object(), &json!({"spec": patch}));
            t.apply(&changed).await;
            let object = t.condition("searchcells", "cell", "Stalled", "True", reason).await;
            let (_, _, message) = condition(&object, "Stalled").unwrap();
            for part in named {
                assert!(message.contains(part), "{patch}: no word of {part} in: {message}");
            }
            let (ready, ..) = condition(&object, "Ready").unwrap();
            assert_eq!(ready, "True", "a cluster that runs goes on serving: {}", object["status"]);
            t.apply(&cell.object()).await;
            t.cell_ready(&cell).await;
        }

        assert_eq!(t.workloads("").await, workloads, "a refused spec changes no workload");
        assert_eq!(t.pods("").await, pods, "a refused spec restarts nothing");
        assert_eq!(t.elastic("cell", "a").settings().await.unwrap(), settings, "cluster settings stay");
        if let Some(log) = log {
            let touched: Vec<Request> = (log.writes_of(&operator.user).into_iter())
                .filter(|request| {
                    !["leases", "events", "searchcells/status"].contains(&request.resource.as_str())
                })
                .collect();
            assert!(touched.is_empty(), "the operator wrote more than status: {touched:#?}");
        }
    });
}

/// The API server takes free-form fields of any depth, and no reader does. One such object is passed over, with an event,
/// also by an operator that starts after it; the others go on.
#[test]
fn an_object_that_cannot_be_read_hides_no_other() {
    run("an_object_that_cannot_be_read_hides_no_other", Level::Smoke, async |t| {
        let limit = Duration::from_secs(60);
        let mut deep = json!(1);
        for _ in 0..500 {
            deep = json!({"a": deep});
        }
        let object =
            Cell { extra: json!({"settings": {"x": deep}}), ..Cell::mini("deep") }.object().to_string();
        // By kubectl alone: these tests cannot read it, either.
        let create = ["create", "-n", &t.namespace, "-f", "-"];
        kubectl(&create, Some(&object), limit).await.ok("kubectl create");
        let operator = t.start_operator().await;
        let cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let events = t.objects.list("events", "").await.unwrap();
        let told = events.iter().any(|event| {
            text(event, "/involvedObject/name") == "deep"
                && text(event, "/message").contains("cannot be read")
        });
        assert!(told, "{events:#?}");
        let delete = ["delete", "searchcell", "deep", "-n", &t.namespace, "--timeout=60s"];
        kubectl(&delete, None, limit).await.ok("kubectl delete");
        drop(operator);
    });
}

/// Placements that break rules that no single object can know.
#[test]
fn invalid_placements_are_stalled_and_create_nothing() {
    run("invalid_placements_are_stalled_and_create_nothing", Level::Smoke, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 2}}), 0)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let tenants = |id: &str| json!({"dedicated": {"tenants": [{"id": id, "expectedDocuments": 10}]}});
        t.apply(&placement("first", "cell", tenants("1"), 0)).await;
        t.placement_ready("first").await;

        stalled(t, placement("pool2", "cell", json!({"pool": {"indices": 2}}), 0), "PoolConflict", "pool")
            .await;
        stalled(t, placement("second", "cell", tenants("1"), 0), "TenantConflict", "first").await;
        // one data node cannot hold three copies
        stalled(t, placement("copies", "cell", tenants("2"), 2), "", "replicas").await;
        let mut other = placement("field", "cell", tenants("3"), 0);
        other["spec"]["tenant"]["field"] = json!("channel_id");
        stalled(t, other, "CollectionMismatch", "tenant").await;
        let mut settings = placement("settings", "cell", tenants("4"), 0);
        settings["spec"]["index"] = json!({"settings": {"index.number_of_shards": 7}});
        stalled(t, settings, "", "number_of_shards").await;
        let mut huge = placement("huge", "cell", tenants("5"), 0);
        huge["spec"]["dedicated"]["maxDocumentsPerShard"] = json!(1);
        huge["spec"]["dedicated"]["tenants"][0]["expectedDocuments"] = json!(9_000_000);
        assert!(t.objects.create(&huge).await.is_err(), "more than 1024 shards");

        let copies = t.elastic("cell", "a").copies("messages.").await.unwrap();
        let mut indices: Vec<&str> = copies.iter().map(|copy| copy.index.as_str()).collect();
        indices.dedup();
        assert_eq!(indices, ["messages.p000.g1", "messages.p001.g1", "messages.t.1.g1"]);
        // what was there first is not harmed by those that come later
        t.placement_ready("pool").await;
        t.placement_ready("first").await;
    });
}

async fn stalled(t: &Scenario, object: Value, reason: &str, named: &str) {
    let name = text(&object, "/metadata/name").to_owned();
    t.apply(&object).await;
    let object = t.condition("indexplacements", &name, "Stalled", "True", reason).await;
    let (_, _, message) = condition(&object, "Stalled").unwrap();
    assert!(message.contains(named), "{name}: no word of {named} in: {message}");
    let (ready, ..) = condition(&object, "Ready").unwrap();
    assert_ne!(ready, "True", "{name}: {}", object["status"]);
    t.objects.delete("indexplacements", &name).await.unwrap();
    t.gone_one("indexplacements", &name).await;
}

/// Objects of the names that a cluster needs, made by somebody else: reported by name, left as they are.
#[test]
fn somebody_elses_object_is_reported_not_adopted() {
    run("somebody_elses_object_is_reported_not_adopted", Level::Smoke, async |t| {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "cell-a", "labels": {"app": "somebody-elses"}},
            "spec": {"selector": {"app": "somebody-elses"}, "ports": [{"port": 80}]},
        });
        t.apply(&service).await;
        let before = t.objects.expect("services", "cell-a").await;
        let operator = t.start_operator().await;
        let cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        let object = t.condition("searchcells", "cell", "Stalled", "True", "NameConflict").await;
        let (_, _, message) = condition(&object, "Stalled").unwrap();
        assert!(message.contains("cell-a"), "{message}");
        let (ready, ..) = condition(&object, "Ready").unwrap();
        assert_ne!(ready, "True");
        // long enough for several passes
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = t.objects.expect("services", "cell-a").await;
        assert_eq!(after, before, "it is not ours, and stays as it is");
        assert_eq!(number(&object, "/status/observedGeneration"), 1);

        // out of the way, it goes on by itself: once the other object is gone
        t.objects.delete("services", "cell-a").await.unwrap();
        t.cell_ready(&cell).await;
        drop(operator);
    });
}
