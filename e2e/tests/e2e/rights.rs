//! What the operator is granted is what it uses, and what people are granted is what they were promised.

use std::collections::BTreeSet;
use std::time::Duration;

use searchcell_e2e::audit::AuditLog;
use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{annotation, number, text};
use searchcell_e2e::rights::{Right, granted, refused, used};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Ingest, Level, Scenario, operator, run, say, shell, skipped, wait_for};
use serde_json::json;

/// Granted for what this test cannot bring about, each with the reason. Everything else has to be used.
const RARE: [(&str, &str, &str, &str); 2] = [
    (
        "searchcell.dev",
        "searchcells/finalizers",
        "update",
        "asked for by the admission plugin OwnerReferencesPermissionEnforcement; never a request of its own",
    ),
    ("events.k8s.io", "events", "patch", "an event that is told again within six minutes becomes a series"),
];

/// Drives the operator over every path and compares its rights with the audit log: none is too many, none is missing.
#[test]
fn rights_are_those_that_are_used() {
    run("rights_are_those_that_are_used", Level::Full, async |t| {
        let Some(log) = AuditLog::mark(t.env).await else {
            return skipped("rights_are_those_that_are_used: this cluster keeps no audit log");
        };
        let operator = t.start_operator().await;
        taken_names(t).await;
        grow_and_change_hands(t).await;
        for plural in ["indexplacements", "searchcells"] {
            for object in t.objects.list(plural, "").await.unwrap() {
                t.objects.delete(plural, text(&object, "/metadata/name")).await.unwrap();
            }
            t.gone(plural, "").await;
        }
        t.gone("persistentvolumeclaims", "").await;

        // A watch is in the log when it has ended.
        let user = operator.user.clone();
        operator.terminate().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let requests = log.requests_of(&user);
        let used = used(&requests);
        let lines: Vec<String> = used.iter().map(|(right, count)| format!("{count:>6} {right}")).collect();
        say(format!("used:\n{}", lines.join("\n")));
        assert_eq!(refused(&requests), Vec::<String>::new(), "refused");
        let granted = granted(&t.namespaced);
        let rare: BTreeSet<Right> =
            RARE.iter().map(|(group, resource, verb, _)| Right::new(group, resource, verb)).collect();
        let stale: Vec<&Right> = rare.difference(&granted).collect();
        assert!(stale.is_empty(), "in the table of rare rights and not granted any more: {stale:?}");
        let excess: Vec<String> = (granted.iter())
            .filter(|right| !used.contains_key(right) && !rare.contains(right))
            .map(Right::to_string)
            .collect();
        assert!(excess.is_empty(), "granted and not used: {excess:#?}");
        let elsewhere =
            requests.iter().find(|request| !request.resource.is_empty() && request.namespace != t.namespace);
        assert!(elsewhere.is_none(), "outside of its namespace: {elsewhere:?}");
    });
}

/// A name that is taken is looked at, by `get`: a cell for each kind. None of them ever gets a node that runs.
async fn taken_names(t: &Scenario) {
    let meta = |name: &str| json!({"name": name, "labels": {"app": "somebody-elses"}});
    let selector = json!({"matchLabels": {"app": "somebody-elses"}});
    let taken = [
        ("map", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("map-a-bootstrap")})),
        ("secret", json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("secret-a-transport-ca")})),
        (
            "policy",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta("policy-a"),
                "spec": {"podSelector": selector}}),
        ),
        (
            "service",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("service-a"),
                "spec": {"selector": {"app": "somebody-elses"}, "ports": [{"port": 80}]}}),
        ),
        (
            "budget",
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta("budget-a-data"),
                "spec": {"maxUnavailable": 1, "selector": selector}}),
        ),
        (
            "scaler",
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta("scaler-a-ingest"),
                "spec": {"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}}}),
        ),
    ];
    for (name, object) in &taken {
        t.apply(object).await;
        let cell = Cell {
            ingest: Ingest::Auto(1, 2, 80),
            per_zone: 2,
            extra: json!({"image": "searchcell.dev/there-is-no-such-image:9.5.3"}),
            ..Cell::mini(name)
        };
        t.apply(&cell.object()).await;
    }
    for (name, object) in &taken {
        t.condition("searchcells", name, "Stalled", "True", "NameConflict").await;
        t.objects.delete("searchcells", name).await.unwrap();
        t.gone_one("searchcells", name).await;
        let plural = searchcell_e2e::objects::plural_of(text(object, "/kind"));
        t.objects.delete(plural, text(object, "/metadata/name")).await.unwrap();
    }
}

/// Form, drift, autoscale and back, grow nodes (and their certificates) and volumes, place.
async fn grow_and_change_hands(t: &Scenario) {
    let mut cell = Cell { ingest: Ingest::Fixed(1), ..Cell::mini("cell") };
    t.apply(&cell.object()).await;
    t.apply(&placement("pool", "cell", json!({"pool": {"indices": 1}}), 0)).await;
    t.cell_ready(&cell).await;
    t.placement_ready("pool").await;

    a_router_hears_of_a_table(t).await;

    let other = json!({"spec": {"ports": [{"name": "http", "port": 9200, "targetPort": 1}]}});
    t.objects.merge("services", "cell-a", &other).await.unwrap();
    t.objects.merge("networkpolicies", "cell-a", &json!({"spec": {"ingress": [{}]}})).await.unwrap();
    let policy = t.objects.expect("networkpolicies", "cell-a").await;
    let beside = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "beside", "namespace": t.namespace, "labels": policy["metadata"]["labels"],
            "ownerReferences": policy["metadata"]["ownerReferences"]},
        "spec": {"podSelector": {}},
    });
    operator::install(&[beside]).await;
    t.gone_one("networkpolicies", "beside").await;
    wait_for("the Service as it was", LIMIT, async || {
        let service = t.objects.get("services", "cell-a").await?.ok_or("no Service")?;
        ensure(text(&service, "/spec/ports/0/targetPort") == "http", || service["spec"].to_string())
    })
    .await;

    // A rotation changes it in the same way.
    let trust = t.objects.expect("configmaps", "cell-http-ca-public").await["data"].clone();
    t.objects.merge("configmaps", "cell-http-ca-public", &json!({"data": {"ca.crt": "mine"}})).await.unwrap();
    wait_for("whom clients trust, as it was", LIMIT, async || {
        let map = t.objects.get("configmaps", "cell-http-ca-public").await?.ok_or("no ConfigMap")?;
        ensure(map["data"] == trust, || map["data"].to_string())
    })
    .await;

    for most in [2, 3] {
        cell.ingest = Ingest::Auto(1, most, 80);
        t.apply(&cell.object()).await;
        wait_for("the autoscaler", LIMIT, async || {
            let scaler =
                t.objects.get("horizontalpodautoscalers", "cell-a-ingest").await?.ok_or("no autoscaler")?;
            ensure(number(&scaler, "/spec/maxReplicas") == i64::from(most), || scaler["spec"].to_string())
        })
        .await;
    }
    cell.ingest = Ingest::Fixed(2);
    t.apply(&cell.object()).await;
    t.gone_one("horizontalpodautoscalers", "cell-a-ingest").await;

    cell.per_zone = 2;
    cell.extra = json!({"nodes": {"data": {"storage": {"size": "2Gi"}}}});
    t.apply(&cell.object()).await;
    t.cell_ready(&cell).await;
    wait_for("a budget that allows one", LIMIT, async || {
        let budget = t.objects.get("poddisruptionbudgets", "cell-a-data").await?.ok_or("no budget")?;
        ensure(number(&budget, "/spec/maxUnavailable") == 1, || budget["spec"].to_string())
    })
    .await;
    // So that its deletion is the operator's: with the cell goes what is there.
    cell.ingest = Ingest::Auto(1, 2, 80);
    t.apply(&cell.object()).await;
    wait_for("the autoscaler again", LIMIT, async || {
        t.objects.get("horizontalpodautoscalers", "cell-a-ingest").await?.ok_or("no autoscaler".to_owned())
    })
    .await;
}

/// A pod with the label of routers, which need not run.
async fn a_router_hears_of_a_table(t: &Scenario) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "router", "namespace": t.namespace, "labels": {"searchcell.dev/router": "true"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "router", "image": "searchcell.dev/there-is-no-such-image:1",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    t.apply(&pod).await;
    wait_for("a kubelet that hears of the table", LIMIT, async || {
        let map = t.objects.get("configmaps", "routes-messages").await?.ok_or("no table")?;
        let pod = t.objects.get("pods", "router").await?.ok_or("no pod")?;
        let (there, told) = (
            annotation(&map, "searchcell.dev/table-generation"),
            annotation(&pod, "searchcell.dev/routes-generation"),
        );
        ensure(!there.is_empty() && there == told, || format!("{there:?} is there, it heard of {told:?}"))
    })
    .await;
    t.objects.delete("pods", "router").await.unwrap();
}

/// The namespaced overlay, as the administrator of a namespace installs it: a cell forms, and nothing outside of the
/// namespace is asked for.
#[test]
fn the_namespaced_overlay_works_from_its_image() {
    run("the_namespaced_overlay_works_from_its_image", Level::Full, async |t| {
        let limit = Duration::from_secs(3600);
        let script = t.env.repository.join("e2e/operator");
        let archive = shell::run(&script, &["image"], None, limit).await.unwrap().ok("e2e/operator image");
        let loaded =
            shell::run(t.env.cluster_script(), &["load", archive.trim()], None, limit).await.unwrap();
        if loaded.code == 3 {
            return skipped("the_namespaced_overlay_works_from_its_image: images cannot be loaded here");
        }
        loaded.ok("cluster load");
        let log = AuditLog::mark(t.env).await;
        let mut objects = operator::moved_to(&t.namespace, &t.namespaced);
        for object in &mut objects {
            assert!(!text(object, "/kind").starts_with("Cluster"), "{object:#}");
            if text(object, "/kind") == "Deployment" {
                object["spec"]["template"]["spec"]["containers"][0]["image"] =
                    json!("searchcell.dev/operator:e2e");
            }
        }
        operator::install(&objects).await;
        let cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 2}}), 0)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        for (plural, name) in [("indexplacements", "pool"), ("searchcells", "cell")] {
            t.objects.delete(plural, name).await.unwrap();
            t.gone_one(plural, name).await;
        }
        t.keep_log_of_deployed(&t.namespace).await;
        t.objects.delete("deployments", operator::OPERATOR).await.unwrap();
        if let Some(log) = log {
            let requests = log.requests_of(&operator::user_in(&t.namespace));
            assert!(requests.len() > 20, "{requests:#?}");
            let elsewhere = requests
                .iter()
                .find(|request| !request.resource.is_empty() && request.namespace != t.namespace);
            assert!(elsewhere.is_none(), "outside of its namespace: {elsewhere:?}");
        }
    });
}

/// Who has Kubernetes' own roles view or edit in a namespace sees or changes the two kinds there, and nobody their status.
#[test]
fn view_and_edit_cover_the_two_kinds() {
    run("view_and_edit_cover_the_two_kinds", Level::Smoke, async |t| {
        for role in ["view", "edit"] {
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": format!("e2e-{role}"), "namespace": t.namespace},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("e2e-{role}")}],
            });
            operator::install(&[binding]).await;
        }
        for kind in ["searchcells.searchcell.dev", "indexplacements.searchcell.dev"] {
            for (user, verb, subresource, may) in [
                ("e2e-view", "get", "", true),
                ("e2e-view", "watch", "", true),
                ("e2e-view", "get", "status", true),
                ("e2e-view", "create", "", false),
                ("e2e-view", "patch", "", false),
                ("e2e-edit", "list", "", true),
                ("e2e-edit", "create", "", true),
                ("e2e-edit", "patch", "", true),
                ("e2e-edit", "delete", "", true),
                ("e2e-edit", "update", "status", false),
                ("e2e-edit", "patch", "status", false),
                ("e2e-nobody", "get", "", false),
            ] {
                let answer = if may { "yes" } else { "no" };
                wait_for(&format!("{user} {verb} {kind} {subresource}: {answer}"), LIMIT, async || {
                    let subresource = format!("--subresource={subresource}");
                    let arguments =
                        ["auth", "can-i", verb, kind, &subresource, "-n", &t.namespace, "--as", user];
                    let said = shell::kubectl(&arguments, None, Duration::from_secs(20)).await.stdout;
                    ensure(said.trim() == answer, || said.trim().to_owned())
                })
                .await;
            }
        }
    });
}
