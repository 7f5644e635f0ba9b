//! Routers beside applications: a real pod that asks for one gets it, before the application starts and until after it has
//! ended, and keeps it through a table that rolls; who has not opted in is left alone; without the webhook, pods start.

use std::time::Duration;

use searchcell_e2e::cells::{VERSION, placement};
use searchcell_e2e::objects::{annotation, items, label, pod_ready, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, operator, run, say, shell, skipped, wait_for};
use serde_json::{Value, json};

/// Where the API server of the local cluster reaches a process of the tests (e2e/cluster/README.md).
const HOST: &str = "10.77.0.1";
const NAME: &str = "inject-router-e2e";
const BULK: &str = r#"{"index":{"_id":"1"}}
{"guild_id":"7","content":"hello"}
"#;

#[test]
fn a_pod_that_asks_gets_a_router() {
    run("a_pod_that_asks_gets_a_router", Level::Full, async |t| {
        if searchcell_e2e::audit::AuditLog::mark(t.env).await.is_none() {
            // Only the local cluster keeps one, and only there an API server can call a process of the tests.
            return skipped("a_pod_that_asks_gets_a_router: this API server cannot call the tests");
        }
        let limit = Duration::from_secs(3600);
        let script = t.env.repository.join("e2e/operator");
        let archive = shell::run(&script, &["image"], None, limit).await.unwrap().ok("e2e/operator image");
        shell::run(t.env.cluster_script(), &["load", archive.trim()], None, limit).await.unwrap().ok("load");

        install_webhook(t).await;
        let operator = t.start_operator_with(&flags()).await;
        let cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        let pool = placement("pool", "cell", json!({"pool": {"indices": 1}}), 0);
        t.apply(&pool).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;

        // Not opted in: untouched, and told so.
        let early = t.apply(&application(t, "early", "messages")).await;
        assert!(items(&early, "/spec/initContainers").is_empty(), "{early:#}");
        ready(t, "early").await;
        told(t, "early", "searchcell.dev/router-injection=enabled").await;

        let opt_in = json!({"metadata": {"labels": {"searchcell.dev/router-injection": "enabled"}}});
        t.objects.merge("namespaces", &t.namespace, &opt_in).await.unwrap();
        trusted().await;
        let pod = t.apply(&application(t, "indexer", "messages")).await;
        assert_eq!(text(&pod, "/spec/initContainers/0/name"), "searchcell-router", "{pod:#}");
        assert_eq!(label(&pod, "searchcell.dev/router"), "true");
        let pod = ready(t, "indexer").await;
        let started = |list: &str, name: &str| {
            let states = items(&pod, list).iter();
            let state = states.filter(|state| text(state, "/name") == name).collect::<Vec<_>>();
            text(state[0], "/state/running/startedAt").to_owned()
        };
        let (router, app) = (
            started("/status/initContainerStatuses", "searchcell-router"),
            started("/status/containerStatuses", "app"),
        );
        assert!(
            !router.is_empty() && router <= app,
            "the router started at {router}, the application at {app}"
        );

        // It writes, with the files that the pod mounts and no token.
        say("writing through the router");
        wait_for("a document through the router", LIMIT, async || {
            let answer = ask(&t.namespace, "indexer", "POST", "/messages/_bulk?refresh=true", BULK).await?;
            ensure(answer.contains("\"errors\":false"), || answer)
        })
        .await;
        let answer = ask(&t.namespace, "indexer", "GET", "/messages/_search?routing=7", "").await.unwrap();
        assert!(answer.contains("hello"), "{answer}");

        the_table_rolls(t).await;
        wrong_annotations_start(t).await;

        // Without the webhook, pods start.
        operator.terminate().await;
        let pod = t.apply(&application(t, "late", "messages")).await;
        assert!(items(&pod, "/spec/initContainers").is_empty(), "{pod:#}");
        ready(t, "late").await;
        let operator = t.start_operator_with(&flags()).await;
        t.leads(&operator).await;
        told(t, "late", "Delete the pod").await;

        stops_after_its_application(t).await;
        uninstall_webhook().await;
    });
}

/// The shipped manifests: two routers, a Service, and pods of the namespace that write through it while one of them goes.
#[test]
fn routers_run_as_a_deployment() {
    run("routers_run_as_a_deployment", Level::Full, async |t| {
        let limit = Duration::from_secs(3600);
        let script = t.env.repository.join("e2e/operator");
        let built = shell::run(&script, &["image"], None, limit).await.unwrap().ok("e2e/operator image");
        let loaded = shell::run(t.env.cluster_script(), &["load", built.trim()], None, limit).await.unwrap();
        if loaded.code == 3 {
            return skipped("routers_run_as_a_deployment: images cannot be loaded here");
        }
        loaded.ok("load");
        let operator = t.start_operator().await;
        let cell = Cell::mini("guild-messages");
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "guild-messages", json!({"pool": {"indices": 2}}), 0)).await;
        for mut object in operator::overlay(t.env, "manifests/router").await {
            object["metadata"]["namespace"] = json!(t.namespace);
            if text(&object, "/kind") == "Deployment" {
                object["spec"]["template"]["spec"]["containers"][0]["image"] =
                    json!("searchcell.dev/operator:e2e");
            }
            t.apply(&object).await;
        }
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        t.apply(&application(t, "client", "")).await;
        ready(t, "client").await;
        wait_for("two routers", LIMIT, async || {
            let deployment = t.objects.get("deployments", "searchcell-router").await?.ok_or("none")?;
            let available = deployment["status"]["availableReplicas"].as_i64().unwrap_or_default();
            ensure(available >= 2, || format!("{available} are available"))
        })
        .await;

        let write = async |n: usize| {
            let body =
                format!("{{\"index\":{{\"_id\":\"{n}\"}}}}\n{{\"guild_id\":\"7\",\"content\":\"hello\"}}\n");
            let answer =
                ask_at(&t.namespace, "client", "searchcell-router", "POST", "/messages/_bulk", &body).await?;
            ensure(answer.contains("\"status\":201"), || answer)
        };
        wait_for("a document through the Service", LIMIT, async || write(0).await).await;
        let routers = t.pods("app.kubernetes.io/name=searchcell-router").await;
        let first = routers.keys().next().unwrap();
        t.objects.delete("pods", first).await.unwrap();
        // Every one of them, while a router takes its leave: it takes requests until everybody knows that it is going.
        for n in 1..=40 {
            write(n).await.unwrap();
        }
        t.gone_one("pods", first).await;
        let elastic = t.elastic("guild-messages", "a");
        elastic.json(http::Method::POST, "/messages.*/_refresh", None).await.unwrap();
        assert_eq!(elastic.count("messages.*").await, Ok(41));
        drop(operator);
    });
}

fn flags() -> [&'static str; 4] {
    [
        "--webhook-address=0.0.0.0:9443",
        "--webhook-host=10.77.0.1",
        "--webhook-configuration=inject-router-e2e",
        "--router-image=searchcell.dev/operator:e2e",
    ]
}

/// The shipped webhook, called where this test's operator is, for this test's namespace alone.
async fn install_webhook(t: &Scenario) {
    uninstall_webhook().await;
    let shipped = operator::manifests(t.env, "default").await;
    let of = |kind: &str, name: &str| -> Value {
        let is_it = |object: &&Value| text(object, "/kind") == kind && text(object, "/metadata/name") == name;
        shipped.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name} is shipped")).clone()
    };
    let mut hooks = of("MutatingWebhookConfiguration", operator::OPERATOR);
    hooks["metadata"]["name"] = json!(NAME);
    hooks["webhooks"][0]["clientConfig"] = json!({"url": format!("https://{HOST}:9443/inject-router")});
    hooks["webhooks"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] =
        json!(t.namespace);
    let mut role = of("ClusterRole", "searchcell-operator-webhook");
    role["metadata"]["name"] = json!(NAME);
    role["rules"][0]["resourceNames"] = json!([NAME]);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": operator::OPERATOR, "namespace": t.namespace}],
    });
    operator::install(&[hooks, role, binding]).await;
}

/// Also what a run that failed has left: these are of no namespace.
async fn uninstall_webhook() {
    for kind in ["mutatingwebhookconfiguration", "clusterrolebinding", "clusterrole"] {
        let arguments = ["delete", kind, NAME, "--ignore-not-found"];
        shell::kubectl(&arguments, None, Duration::from_secs(60)).await.ok("kubectl delete");
    }
}

/// Waits until the API server trusts the webhook: before that, it admits pods as they are.
async fn trusted() {
    wait_for("the API server that trusts the webhook", LIMIT, async || {
        let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        let arguments = ["get", "mutatingwebhookconfiguration", NAME, "-o", path];
        let said = shell::kubectl(&arguments, None, Duration::from_secs(20)).await.stdout;
        ensure(!said.is_empty(), || "it has no caBundle".to_owned())
    })
    .await;
}

/// A pod that only waits, and says when it is told to end; the image is one that is there anyway.
fn application(t: &Scenario, name: &str, collections: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": t.namespace, "labels": {"app": name},
            "annotations": {"searchcell.dev/inject-router": collections}},
        "spec": {
            "terminationGracePeriodSeconds": 20,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "app",
                "image": format!("docker.elastic.co/elasticsearch/elasticsearch:{VERSION}"),
                // At its end, what it has not said yet still goes out by the router.
                "command": ["bash", "-c", "last() { exec 3<>/dev/tcp/127.0.0.1/9200 && echo router-is-there; exit 0; }; trap last TERM; while :; do sleep 1; done"],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

async fn ready(t: &Scenario, name: &str) -> Value {
    wait_for(&format!("pod {name}"), LIMIT, async || {
        let pod = t.objects.get("pods", name).await?.ok_or("no pod")?;
        ensure(pod_ready(&pod), || pod["status"].to_string())?;
        Ok(pod)
    })
    .await
}

async fn told(t: &Scenario, name: &str, words: &str) {
    wait_for(&format!("RouterMissing about {name}"), LIMIT, async || {
        let events = t.objects.list("events", "").await?;
        let about = |event: &&Value| {
            text(event, "/reason") == "RouterMissing" && text(event, "/involvedObject/name") == name
        };
        let event = events.iter().find(about).ok_or("no such event")?;
        ensure(text(event, "/message").contains(words), || event.to_string())
    })
    .await;
}

/// One request from inside the pod, without a client: the image has none that fits.
async fn ask(namespace: &str, pod: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
    ask_at(namespace, pod, "127.0.0.1", method, path, body).await
}

async fn ask_at(
    namespace: &str,
    pod: &str,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String, String> {
    let script = format!("exec 3<>/dev/tcp/{host}/9200 && printf '%s' \"$0\" >&3 && timeout 30 cat <&3");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let arguments = ["exec", "-n", namespace, pod, "-c", "app", "--", "bash", "-c", &script, &request];
    let output = shell::kubectl(&arguments, None, Duration::from_secs(60)).await;
    if output.code == 0 { Ok(output.stdout) } else { Err(output.stderr) }
}

/// Another table: the kubelet hears of it at once, and the router goes on with it.
async fn the_table_rolls(t: &Scenario) {
    let generation = async || {
        let map = t.objects.expect("configmaps", "routes-messages").await;
        annotation(&map, "searchcell.dev/table-generation").to_owned()
    };
    let before = generation().await;
    let tenants = json!({"dedicated": {"tenants": [{"id": "81", "expectedDocuments": 10}]}});
    t.apply(&placement("big", "cell", tenants, 0)).await;
    t.placement_ready("big").await;
    let after = generation().await;
    assert_ne!(before, after);
    wait_for("the next table in the router", Duration::from_secs(45), async || {
        let pod = t.objects.get("pods", "indexer").await?.ok_or("no pod")?;
        let told = annotation(&pod, "searchcell.dev/routes-generation").to_owned();
        ensure(told == after, || format!("its kubelet was told of {told}, and {after} is there"))?;
        let script = "exec 3<>/dev/tcp/127.0.0.1/8081; printf 'GET /generation HTTP/1.1\\r\\nHost: r\\r\\nConnection: close\\r\\n\\r\\n' >&3; timeout 10 cat <&3";
        let arguments = ["exec", "-n", &t.namespace, "indexer", "-c", "app", "--", "bash", "-c", script];
        let said = shell::kubectl(&arguments, None, Duration::from_secs(30)).await.stdout;
        ensure(said.contains(&format!("\"applied\":{after}")), || said)
    })
    .await;
    let pod = t.objects.expect("pods", "indexer").await;
    let restarts =
        items(&pod, "/status/initContainerStatuses").iter().map(|state| state["restartCount"].clone());
    assert_eq!(restarts.collect::<Vec<_>>(), [json!(0)]);
}

/// What cannot be is said, and the pod starts.
async fn wrong_annotations_start(t: &Scenario) {
    let pod = t.apply(&application(t, "wrong", "mesages")).await;
    assert!(items(&pod, "/spec/initContainers").is_empty(), "{pod:#}");
    ready(t, "wrong").await;
    told(t, "wrong", "collection \"mesages\"").await;
}

/// The application's last words go out by the router, which ends after it.
async fn stops_after_its_application(t: &Scenario) {
    let follow = ["logs", "-n", &t.namespace, "indexer", "-c", "app", "--follow"];
    let (log, deleted) = tokio::join!(shell::kubectl(&follow, None, Duration::from_secs(90)), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        t.objects.delete("pods", "indexer").await
    });
    deleted.unwrap();
    assert!(log.stdout.contains("router-is-there"), "{} {}", log.stdout, log.stderr);
    t.gone_one("pods", "indexer").await;
}
