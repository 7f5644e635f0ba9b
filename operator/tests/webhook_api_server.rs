//! The operator's program and its webhook before a real API server, with the shipped manifests and no other rights: which
//! pods get a router, and which are left alone. Effects: starts and ends etcd, kube-apiserver and the operator on
//! loopback, where SEARCHCELL_APISERVER_BIN_DIR names a folder with etcd, kube-apiserver and kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../crds/tests/support/server.rs"]
#[allow(dead_code)]
mod server;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Server, VARIABLE, binaries};

const JSON: &str = "application/json";
const LIMIT: Duration = Duration::from_secs(180);
const IMAGE: &str = "registry.example/searchcell-operator:1.0.0";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/searchcell-system/deployments/searchcell-operator";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/searchcell-operator";
const SECRET: &str = "/api/v1/namespaces/searchcell-system/secrets/searchcell-operator-webhook";

/// One server for all: it takes seconds to start, and the parts follow each other.
#[test]
fn pods_get_routers_from_a_real_api_server() {
    let Some(binaries) = binaries() else {
        writeln!(std::io::stderr(), "SKIPPED: API-server tests: {VARIABLE} is not set").unwrap();
        return;
    };
    let server = Server::start_without(binaries, &[]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    server.apply(&root.join("crds/searchcells.searchcell.dev.yaml"));
    server.apply(&root.join("crds/indexplacements.searchcell.dev.yaml"));
    server.kubectl_ok(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"]);
    server.kubectl_ok(&["apply", "--server-side", "-k", root.join("manifests/base").to_str().unwrap()]);
    let port = free_port();
    // The operator is no pod here: the API server reaches it otherwise, and everything else is as it is shipped.
    let calls = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/service"},
        {"op": "add", "path": "/webhooks/0/clientConfig/url", "value": format!("https://127.0.0.1:{port}/inject-router")}]);
    patch(&server, HOOKS, "application/json-patch+json", &calls);
    for (name, labels) in
        [("search", json!({"searchcell.dev/router-injection": "enabled"})), ("other", json!({}))]
    {
        create(&server, "/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}}));
        let account = json!({"metadata": {"name": "default"}});
        create(&server, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account);
        let placement = json!({
            "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement", "metadata": {"name": "pool"},
            "spec": {"cell": "guilds", "collection": "messages", "tenant": {"field": "guild"}, "pool": {"indices": 1}},
        });
        create(
            &server,
            &format!("/apis/searchcell.dev/v1alpha1/namespaces/{name}/indexplacements"),
            &placement,
        );
    }

    the_operators_pod(&server);
    let operator = Operator::start(&server, port);
    until("the API server trusts the webhook", || (!bundle(&server).is_empty()).then_some(()));
    until("a pod with a router", || injected(&server, "search", "first").then_some(()));
    a_pod_is_as_it_should_be(&server);
    what_is_not_asked_for_is_left_alone(&server);
    a_wrong_annotation_is_a_warning(&server);
    pods_without_routers_are_told(&server);
    a_new_table_is_announced(&server);
    routers_are_read(&server, &operator);
    a_new_authority_needs_no_restart(&server);
    what_somebody_writes_over_is_put_right(&server);

    operator.terminate();
    let (status, pod) = pods(&server, "search", &asking("without", "messages"));
    assert_eq!(status, 201, "the webhook is down, and the pod starts: {pod}");
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
}

/// Nobody makes pods of Deployments here. Its image is that of the routers.
fn the_operators_pod(server: &Server) {
    let (_, deployment) = server.request("GET", DEPLOYMENT, JSON, None);
    let mut pod = deployment["spec"]["template"].clone();
    pod["metadata"]["name"] = json!("operator");
    pod["spec"]["containers"][0]["image"] = json!(IMAGE);
    create(server, "/api/v1/namespaces/searchcell-system/pods", &pod);
}

fn a_pod_is_as_it_should_be(server: &Server) {
    server.kubectl_ok(&["label", "namespace", "search", "pod-security.kubernetes.io/enforce=restricted"]);
    let mut wanted = asking("restricted", "messages");
    wanted["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    wanted["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsUser": 1000});
    wanted["spec"]["initContainers"] = json!([wanted["spec"]["containers"][0].clone()]);
    wanted["spec"]["initContainers"][0]["name"] = json!("before");
    let (status, pod) = pods(server, "search", &wanted);
    assert_eq!(status, 201, "Pod Security admits it: {pod}");
    assert_eq!(pod["metadata"]["labels"]["searchcell.dev/router"], "true");
    let containers = pod["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<&Value> = containers.iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["searchcell-router", "before"]);
    let router = &containers[0];
    assert_eq!((&router["image"], &router["restartPolicy"]), (&json!(IMAGE), &json!("Always")));
    // Kubernetes mounts a token into every container that has nothing there.
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let at = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap().clone();
        mounts.iter().find(|mount| mount["mountPath"] == token).unwrap()["name"].as_str().unwrap().to_owned()
    };
    assert!(at(&containers[1]).starts_with("kube-api-access-"), "or this shows nothing");
    assert_eq!(at(router), "searchcell-router-no-token");
    server.kubectl_ok(&["label", "namespace", "search", "pod-security.kubernetes.io/enforce-"]);
}

fn what_is_not_asked_for_is_left_alone(server: &Server) {
    let mut silent = asking("silent", "messages");
    silent["metadata"]["annotations"] = json!({"other": "annotation"});
    for (namespace, pod) in [("other", asking("no-opt-in", "messages")), ("search", silent)] {
        let (status, pod) = pods(server, namespace, &pod);
        assert_eq!(status, 201, "{pod}");
        assert!(pod["spec"]["initContainers"].is_null() && pod["metadata"]["labels"].is_null(), "{pod}");
    }
}

fn a_wrong_annotation_is_a_warning(server: &Server) {
    let file = server_folder().join("wrong.json");
    fs::write(&file, asking("wrong", "mesages").to_string()).unwrap();
    let output = server.kubectl(&["create", "-n", "search", "-f", file.to_str().unwrap()]);
    fs::remove_file(&file).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no IndexPlacement of this namespace has collection \"mesages\""), "{said}");
    let (_, pod) = server.request("GET", "/api/v1/namespaces/search/pods/wrong", JSON, None);
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
}

/// No kubelet runs here: the test says what one would.
fn runs(server: &Server, namespace: &str, name: &str, address: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    patch(server, &path, "application/merge-patch+json", &status);
}

fn pods_without_routers_are_told(server: &Server) {
    runs(server, "search", "wrong", "10.1.0.1");
    runs(server, "other", "no-opt-in", "10.1.0.2");
    runs(server, "search", "silent", "10.1.0.3");
    for (namespace, name, words) in [
        ("search", "wrong", "collection \"mesages\""),
        ("other", "no-opt-in", "searchcell.dev/router-injection=enabled"),
    ] {
        let text = until("the event RouterMissing", || {
            events(server, namespace, "RouterMissing").into_iter().find(|(about, _)| about == name)
        });
        assert!(text.1.contains(words), "{text:?}");
    }
    let told = events(server, "search", "RouterMissing");
    assert!(told.iter().all(|(about, _)| about == "wrong"), "{told:?}");
}

/// Pods and texts of the events of a reason.
fn events(server: &Server, namespace: &str, reason: &str) -> Vec<(String, String)> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let (_, list) = server.request("GET", &path, JSON, None);
    let events = list["items"].as_array().unwrap().iter().filter(|event| event["reason"] == reason);
    let text = |event: &Value, path: &str| event.pointer(path).unwrap().as_str().unwrap().to_owned();
    events.map(|event| (text(event, "/regarding/name"), text(event, "/note"))).collect()
}

fn a_new_table_is_announced(server: &Server) {
    let told = |name: &str| {
        let (_, pod) = server.request("GET", &format!("/api/v1/namespaces/search/pods/{name}"), JSON, None);
        pod["metadata"]["annotations"]["searchcell.dev/routes-generation"].as_str().map(str::to_owned)
    };
    let mut by_itself = asking("by-itself", "messages");
    by_itself["metadata"] = json!({"name": "by-itself", "labels": {"searchcell.dev/router": "true"}});
    let (status, pod) = pods(server, "search", &by_itself);
    assert_eq!(status, 201, "{pod}");
    publish(server, "audit");
    until("a kubelet that hears of it", || {
        (told("by-itself").as_deref() >= Some("1700000001")).then_some(())
    });
    let newer = json!({"metadata": {"annotations": {"searchcell.dev/table-generation": "9700000002"}}});
    let path = "/api/v1/namespaces/search/configmaps/routes-audit";
    patch(server, path, "application/merge-patch+json", &newer);
    until("a kubelet that hears of the next", || {
        (told("by-itself").as_deref() == Some("9700000002")).then_some(())
    });
    assert_ne!(told("first").as_deref(), Some("9700000002"), "it is no table of this one");
}

/// A table, as far as kubelets are concerned.
fn publish(server: &Server, collection: &str) {
    let map = json!({"metadata": {
        "name": format!("routes-{collection}"), "annotations": {"searchcell.dev/table-generation": "1700000001"},
        "labels": {"app.kubernetes.io/managed-by": "searchcell-operator", "searchcell.dev/collection": collection},
    }});
    create(server, "/api/v1/namespaces/search/configmaps", &map);
}

fn routers_are_read(server: &Server, operator: &Operator) {
    // An address of this test alone: the port is that of all routers.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{low}.7", high.max(1));
    let listener = TcpListener::bind((address.as_str(), 8081)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            let body = match &head[..length] {
                asked if asked.starts_with(b"GET /generation HTTP/1.1\r\n") => {
                    r#"{"collections": {"messages": {"applied": 9800000000, "drained": 1}}}"#
                }
                asked if asked.starts_with(b"GET /debug/hot HTTP/1.1\r\n") => {
                    r#"{"tenants": [{"collection": "messages", "tenant": "813", "documentsPerSecond": 6000.0,
                        "bytesPerSecond": 3072000.0, "hot": true}]}"#
                }
                other => panic!("{}", String::from_utf8_lossy(other)),
            };
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    publish(server, "messages");
    // Nobody listens at that of the other.
    runs(server, "search", "first", &address);
    runs(server, "search", "by-itself", &address.replace(".7", ".8"));
    let lines = [
        "searchcell_routers{state=\"draining\"} 1",
        "searchcell_routers{state=\"unread\"} 1",
        "searchcell_routers_missing 2",
    ];
    until("routers that were read", || {
        let metrics = operator.metrics();
        lines.iter().all(|line| metrics.contains(line)).then_some(())
    });
    let told = until("the event HotTenant", || events(server, "search", "HotTenant").into_iter().next());
    assert_eq!(told.0, "pool", "the placement of the collection");
    assert!(told.1.contains("\"813\"") && told.1.contains("6000 documents/s and 2.9 MiB/s"), "{told:?}");
}

/// Who deletes the Secret asks for everything anew.
fn a_new_authority_needs_no_restart(server: &Server) {
    let before = bundle(server);
    let (status, answer) = server.request("DELETE", SECRET, JSON, None);
    assert_eq!(status, 200, "{answer}");
    until("another authority", || (![before.as_str(), ""].contains(&bundle(server).as_str())).then_some(()));
    let mut number = 0;
    until("a pod with a router again", || {
        number += 1;
        injected(server, "search", &format!("again-{number}")).then_some(())
    });
}

fn what_somebody_writes_over_is_put_right(server: &Server) {
    let before = bundle(server);
    let other = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    patch(server, HOOKS, "application/json-patch+json", &other);
    until("the authority as it was", || (bundle(server) == before).then_some(()));
    // Whoever applies the manifest, server-side, neither owns the field nor takes it away.
    let owners = server.kubectl_ok(&[
        "get",
        "mutatingwebhookconfiguration",
        "searchcell-operator",
        "--show-managed-fields",
        "-o",
        "json",
    ]);
    let owners: Value = serde_json::from_str(&owners).unwrap();
    let managers: Vec<&Value> = (owners["metadata"]["managedFields"].as_array().unwrap().iter())
        .filter(|entry| entry["fieldsV1"].to_string().contains("f:caBundle"))
        .map(|entry| &entry["manager"])
        .collect();
    assert_eq!(managers, ["searchcell-operator"]);
}

/// The operator's program, as the account of the manifests.
struct Operator {
    child: Child,
    metrics: u16,
}

impl Operator {
    fn start(server: &Server, port: u16) -> Self {
        let token = server.kubectl_ok(&["create", "token", "searchcell-operator", "-n", "searchcell-system"]);
        let address = ["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"];
        let config = server_folder().join("operator-kubeconfig");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: o, clusters: [{{name: o, cluster: {{server: '{}', insecure-skip-tls-verify: true}}}}], users: [{{name: o, user: {{token: '{}'}}}}], contexts: [{{name: o, context: {{cluster: o, user: o}}}}]}}",
            server.kubectl_ok(&address).trim(),
            token.trim(),
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(server_folder().join("operator.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_searchcell"));
        command
            .env("KUBECONFIG", &config)
            .env("POD_NAMESPACE", "searchcell-system")
            .env("POD_NAME", "operator");
        let metrics = free_port();
        command
            .args([format!("--metrics-address=127.0.0.1:{metrics}"), "--webhook-host=127.0.0.1".to_owned()]);
        command.arg(format!("--webhook-address=127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap(), metrics }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics)).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "{}", operator_log());
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", operator_log());
        }
    }
}

fn operator_log() -> String {
    fs::read_to_string(server_folder().join("operator.log")).unwrap_or_default()
}

/// The folder of the server, which goes with it.
fn server_folder() -> PathBuf {
    std::env::temp_dir().join(format!("searchcell-apiserver-{}", std::process::id()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn asking(name: &str, collections: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"searchcell.dev/inject-router": collections}},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:1"}]},
    })
}

fn pods(server: &Server, namespace: &str, pod: &Value) -> (u16, Value) {
    server.request("POST", &format!("/api/v1/namespaces/{namespace}/pods"), JSON, Some(pod))
}

/// Whether a pod that asks for a router gets it now; a pod that did not is deleted, so that it can be tried again.
fn injected(server: &Server, namespace: &str, name: &str) -> bool {
    let (status, pod) = pods(server, namespace, &asking(name, "messages"));
    assert_eq!(status, 201, "{pod}");
    let has = pod["spec"]["initContainers"][0]["name"] == "searchcell-router";
    if !has {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0");
        assert_eq!(server.request("DELETE", &path, JSON, None).0, 200);
    }
    has
}

fn bundle(server: &Server) -> String {
    let (_, hooks) = server.request("GET", HOOKS, JSON, None);
    hooks["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()
}

fn create(server: &Server, path: &str, object: &Value) {
    let (status, answer) = server.request("POST", path, JSON, Some(object));
    assert_eq!(status, 201, "{answer}");
}

fn patch(server: &Server, path: &str, media: &str, patch: &Value) {
    let (status, answer) = server.request_as("PATCH", path, JSON, media, Some(patch));
    assert_eq!(status, 200, "{answer}");
}

/// Waits until there is an answer.
fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let mut look = look;
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}\n{}", operator_log());
        std::thread::sleep(Duration::from_millis(300));
    }
}
