//! Who reaches the nodes of a cluster, seen from real pods, where NetworkPolicies are enforced.

use std::time::Duration;

use searchcell_e2e::objects::{items, pod_ready, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, operator, run, say, shell, skipped, wait_for};
use serde_json::{Value, json};

const HTTP: u16 = 9200;
const TRANSPORT: u16 = 9300;

/// How a connection ended. A policy drops: who is kept out hears nothing, and is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Dropped,
}

/// Transport only among the nodes of a cluster; HTTP for the cell, for routers, for the operator and for labelled
/// namespaces; what somebody loosens or takes away comes back.
#[test]
fn only_those_who_should_reach_a_cluster() {
    run("only_those_who_should_reach_a_cluster", Level::Smoke, async |t| {
        if searchcell_e2e::audit::AuditLog::mark(t.env).await.is_none() {
            // Only the local cluster keeps one, and only that is known to enforce policies.
            return skipped(
                "only_those_who_should_reach_a_cluster: nobody is known to enforce policies here",
            );
        }
        let _operator = t.start_operator().await;
        let cell = Cell { clusters: vec!["a".to_owned(), "b".to_owned()], ..Cell::mini("cell") };
        t.apply(&cell.object()).await;
        let abroad = format!("{}-x", t.namespace);
        operator::install(&[namespace(&abroad)]).await;
        let router = ("searchcell.dev/router", "true");
        let operators = ("app.kubernetes.io/name", "searchcell-operator");
        for (home, name, label) in [
            (&t.namespace, "stranger", ("who", "stranger")),
            (&t.namespace, "router", router),
            (&t.namespace, "operator", operators),
            (&abroad, "stranger", ("who", "stranger")),
            (&abroad, "router", router),
            (&abroad, "operator", operators),
        ] {
            operator::install(&[client(home, name, label)]).await;
        }
        t.cell_ready(&cell).await;
        ready_in(t, &abroad).await;
        ready_in(t, &t.namespace).await;

        let here = t.namespace.as_str();
        let abroad = abroad.as_str();
        use Way::{Dropped, Open};
        for (home, name, http, transport) in [
            (here, "stranger", Dropped, Dropped),
            (here, "router", Open, Dropped),
            // The operator of this test says that it runs in this namespace.
            (here, "operator", Open, Open),
            // A node of another cluster of the cell, of another role.
            (here, "cell-b-master-a-0", Open, Dropped),
            (here, "cell-a-master-a-0", Open, Open),
            (abroad, "stranger", Dropped, Dropped),
            (abroad, "router", Dropped, Dropped),
            (abroad, "operator", Dropped, Dropped),
        ] {
            expect(t, home, name, HTTP, http).await;
            expect(t, home, name, TRANSPORT, transport).await;
        }

        // An administrator lets a namespace in, to HTTP alone.
        let label = json!({"metadata": {"labels": {format!("http-access.searchcell.dev/{here}"): "true"}}});
        t.objects.merge("namespaces", abroad, &label).await.unwrap();
        expect(t, abroad, "stranger", HTTP, Open).await;
        expect(t, abroad, "stranger", TRANSPORT, Dropped).await;

        let wanted = policy(t).await["spec"].clone();
        let all = json!({"spec": {"ingress": [{}]}});
        t.objects.merge("networkpolicies", "cell-a", &all).await.unwrap();
        comes_back(t, &wanted).await;
        t.objects.delete("networkpolicies", "cell-a").await.unwrap();
        comes_back(t, &wanted).await;
        expect(t, here, "stranger", HTTP, Dropped).await;

        // One that pretends to be the operator's would add to what the operator's lets in.
        let mut pretender = policy(t).await;
        pretender["metadata"] = json!({
            "name": "pretender", "namespace": here, "labels": pretender["metadata"]["labels"],
            "ownerReferences": pretender["metadata"]["ownerReferences"],
        });
        pretender["spec"]["ingress"] = json!([{}]);
        operator::install(&[pretender]).await;
        t.gone_one("networkpolicies", "pretender").await;
        t.cell_ready(&cell).await;
        let none = json!({"metadata": {"labels": {format!("http-access.searchcell.dev/{here}"): null}}});
        t.objects.merge("namespaces", abroad, &none).await.unwrap();
    });
}

async fn policy(t: &Scenario) -> Value {
    t.objects.expect("networkpolicies", "cell-a").await
}

async fn comes_back(t: &Scenario, wanted: &Value) {
    wait_for("the NetworkPolicy as it was", LIMIT, async || {
        let found = t.objects.get("networkpolicies", "cell-a").await?.ok_or("it is not there")?;
        ensure(found["spec"] == *wanted, || found["spec"].to_string())
    })
    .await;
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {
            "searchcell.dev/e2e": "true", "pod-security.kubernetes.io/enforce": "restricted",
        }},
    })
}

/// A pod that only waits; the image is one that is there anyway.
fn client(namespace: &str, name: &str, label: (&str, &str)) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {label.0: label.1, "client": "true"}},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "elasticsearch",
                "image": format!("docker.elastic.co/elasticsearch/elasticsearch:{}", searchcell_e2e::cells::VERSION),
                "command": ["bash", "-c", "while :; do sleep 5; done"],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

async fn ready_in(t: &Scenario, namespace: &str) {
    let objects = searchcell_e2e::objects::Objects::new(t.env.client.clone(), namespace);
    wait_for("the clients", LIMIT, async || {
        let pods = objects.list("pods", "client=true").await?;
        ensure(pods.len() == 3 && pods.iter().all(pod_ready), || format!("{} pods", pods.len()))
    })
    .await;
}

/// Tries from a pod until it is as it should be: policies take a moment to arrive at every node.
async fn expect(t: &Scenario, namespace: &str, pod: &str, port: u16, wanted: Way) {
    let nodes = t.objects.list("pods", "searchcell.dev/cell=cell,searchcell.dev/cluster=a").await.unwrap();
    let data =
        nodes.iter().find(|pod| text(pod, "/metadata/name") == "cell-a-data-a-0").expect("a data node");
    let address =
        items(data, "/status/podIPs").first().map(|ip| text(ip, "/ip").to_owned()).expect("its address");
    wait_for(&format!("{namespace}/{pod} to port {port}: {wanted:?}"), Duration::from_secs(60), async || {
        let way = connect(namespace, pod, &address, port).await?;
        ensure(way == wanted, || format!("it is {way:?}"))
    })
    .await;
    say(format!("{namespace}/{pod} to {port}: {wanted:?}"));
}

/// One TCP connection from inside a pod.
async fn connect(namespace: &str, pod: &str, address: &str, port: u16) -> Result<Way, String> {
    let script = format!(
        "(exec 3<>/dev/tcp/{address}/{port}) 2>/dev/null & p=$!
         for n in 1 2 3 4 5 6 7 8; do kill -0 $p 2>/dev/null || {{ wait $p && echo open || echo refused; exit 0; }}; sleep 0.25; done
         kill $p; echo dropped"
    );
    let arguments = ["exec", "-n", namespace, pod, "-c", "elasticsearch", "--", "bash", "-c", &script];
    let output = shell::kubectl(&arguments, None, Duration::from_secs(30)).await;
    match output.stdout.trim() {
        "open" => Ok(Way::Open),
        "dropped" => Ok(Way::Dropped),
        other => Err(format!("{other} {}", output.stderr.trim())),
    }
}
