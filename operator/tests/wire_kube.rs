//! The exact requests that the operator sends to the API server, and what it makes of the answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::client::Body;
use searchcell_core::names::ClusterKey;
use searchcell_core::step::{Kind, Object, Target};
use searchcell_crds::{SearchCell, SearchCellStatus};
use searchcell_operator::kube_io::client::KubeIo;
use searchcell_operator::kube_io::fanout::Caches;
use searchcell_operator::ports::{KubeApi, KubeError};
use serde_json::{Value, json};

#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    query: String,
    media: String,
    body: Value,
}

type Answers = Vec<(u16, Value)>;

/// Kubernetes that answers from a list, and what it was asked.
fn kubernetes(answers: Answers) -> (KubeIo, Arc<Mutex<Vec<Seen>>>) {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let log = Arc::clone(&seen);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let media = parts.headers.get(http::header::CONTENT_TYPE);
            log.lock().unwrap().push(Seen {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                media: media.map(|media| media.to_str().unwrap().to_owned()).unwrap_or_default(),
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            });
            let (status, body) = answers.lock().unwrap().next().expect("one request too many");
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, std::convert::Infallible>(response.unwrap())
        }
    });
    let client = kube::Client::new(service, "default");
    (KubeIo::new(client, Arc::new(Caches::default()), "system".to_owned(), Arc::new(|_, _| {})), seen)
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message});
    (code, body)
}

fn service() -> Object {
    let mut service = Service::default();
    service.metadata.name = Some("guilds-a".into());
    Object::Service(Box::new(service))
}

fn named(kind: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "guilds-a"}})
}

fn workload(kind: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "guilds-a"}})
}

fn target(kind: Kind, version: Option<&str>) -> Target {
    Target { kind, name: "guilds-a".into(), uid: "u1".into(), resource_version: version.map(str::to_owned) }
}

fn one(seen: &Arc<Mutex<Vec<Seen>>>) -> Seen {
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen[0].clone()
}

#[tokio::test]
async fn create_is_a_post() {
    let (kube, seen) = kubernetes(vec![(201, named("Service"))]);
    kube.create("ns", &service(), "cell-uid").await.unwrap();
    let request = one(&seen);
    assert_eq!((request.method, request.path.as_str()), (Method::POST, "/api/v1/namespaces/ns/services"));
    assert!(request.query.contains("fieldManager=searchcell-operator"));
    assert_eq!(request.body["kind"], "Service");
}

#[tokio::test]
async fn a_taken_name_is_ours_or_somebody_elses() {
    let taken = || failure(409, "AlreadyExists", "services \"guilds-a\" already exists");
    let owned = |uid: &str| {
        let owner = json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell", "name": "guilds",
            "uid": uid, "controller": true});
        let mut live = named("Service");
        live["metadata"]["ownerReferences"] = json!([owner]);
        (200, live)
    };
    let (kube, _) = kubernetes(vec![
        taken(),
        owned("cell-uid"),
        taken(),
        owned("other"),
        taken(),
        (200, named("Service")),
    ]);
    assert!(matches!(kube.create("ns", &service(), "cell-uid").await, Err(KubeError::Conflict(_))));
    for _ in 0..2 {
        let error = kube.create("ns", &service(), "cell-uid").await.unwrap_err();
        assert!(
            matches!(&error, KubeError::NotOurs { kind: "Service", name } if name == "guilds-a"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_template_is_replaced_as_a_whole_and_nothing_else_is() {
    let stored = |version: &str, uid: &str| {
        let mut live = workload("StatefulSet");
        live["metadata"] = json!({"name": "guilds-a", "uid": uid, "resourceVersion": version, "labels": {"theirs": "x"},
            "annotations": {"other": "stays", "searchcell.dev/input-hash": "old"}});
        live["spec"] = json!({"replicas": 7, "selector": {}, "serviceName": "s",
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"volumeMode": "Filesystem"}}],
            "template": {"metadata": {"labels": {"former": "gone"}}, "spec": {"containers": [{"name": "former"}]}}});
        (200, live)
    };
    let new: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "guilds-a", "annotations": {"searchcell.dev/input-hash": "new"}, "labels": {"ours": "y"}},
        "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": [{"name": "elasticsearch"}]}}}
    }))
    .unwrap();
    let new = Object::StatefulSet(Box::new(new));
    let (kube, seen) = kubernetes(vec![stored("5", "u1"), stored("6", "u1")]);
    kube.replace_template("ns", &new, &target(Kind::StatefulSet, Some("5"))).await.unwrap();
    let put = seen.lock().unwrap()[1].clone();
    assert_eq!(
        (put.method, put.path.as_str()),
        (Method::PUT, "/apis/apps/v1/namespaces/ns/statefulsets/guilds-a")
    );
    let (meta, spec) = (&put.body["metadata"], &put.body["spec"]);
    assert_eq!((&meta["uid"], &meta["resourceVersion"]), (&json!("u1"), &json!("5")));
    assert_eq!(meta["annotations"], json!({"other": "stays", "searchcell.dev/input-hash": "new"}));
    assert_eq!(meta["labels"], json!({"theirs": "x"}));
    assert_eq!((&spec["replicas"], &spec["template"]["metadata"]), (&json!(7), &Value::Null));
    assert_eq!(spec["template"]["spec"]["containers"], json!([{"name": "elasticsearch"}]));
    assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
    // Changed since, or another one of its name: nothing is written.
    for answer in [stored("6", "u1"), stored("5", "u2"), failure(404, "NotFound", "gone")] {
        let (kube, seen) = kubernetes(vec![answer]);
        let result = kube.replace_template("ns", &new, &target(Kind::StatefulSet, Some("5"))).await;
        assert!(matches!(result, Err(KubeError::Conflict(_))), "{result:?}");
        one(&seen);
    }
    let (kube, _) = kubernetes(Vec::new());
    let result = kube.replace_template("ns", &service(), &target(Kind::Service, None)).await;
    assert!(matches!(result, Err(KubeError::Refused(_))), "{result:?}");
}

#[tokio::test]
async fn apply_is_forced_and_carries_the_uid() {
    let (kube, seen) = kubernetes(vec![(200, named("Service"))]);
    kube.apply("ns", &service(), &target(Kind::Service, None)).await.unwrap();
    let request = one(&seen);
    assert_eq!(request.method, Method::PATCH);
    assert_eq!(request.path, "/api/v1/namespaces/ns/services/guilds-a");
    assert_eq!(request.media, "application/apply-patch+yaml");
    assert!(
        request.query.contains("force=true") && request.query.contains("fieldManager=searchcell-operator")
    );
    assert_eq!(request.body["metadata"]["uid"], "u1");
    assert_eq!((&request.body["apiVersion"], &request.body["kind"]), (&json!("v1"), &json!("Service")));
}

#[tokio::test]
async fn scale_touches_replicas_alone_under_both_preconditions() {
    let (kube, seen) = kubernetes(vec![(200, workload("StatefulSet"))]);
    kube.scale("ns", &target(Kind::StatefulSet, Some("7")), 3).await.unwrap();
    let request = one(&seen);
    assert_eq!(request.path, "/apis/apps/v1/namespaces/ns/statefulsets/guilds-a");
    assert_eq!(request.media, "application/merge-patch+json");
    assert_eq!(
        request.body,
        json!({"metadata": {"uid": "u1", "resourceVersion": "7"}, "spec": {"replicas": 3}})
    );
}

#[tokio::test]
async fn replicas_are_released_without_being_changed() {
    let mut live = workload("Deployment");
    live["metadata"]["uid"] = json!("u1");
    live["metadata"]["resourceVersion"] = json!("9");
    live["metadata"]["managedFields"] = json!([
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {"manager": "searchcell-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    ]);
    let (kube, seen) = kubernetes(vec![(200, live.clone()), (200, live)]);
    kube.release_replicas("ns", &target(Kind::Deployment, None)).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((&seen[0].method, &seen[1].method), (&Method::GET, &Method::PATCH));
    assert_eq!(seen[1].media, "application/json-patch+json");
    assert_eq!(
        seen[1].body,
        json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "9"},
            {"op": "remove", "path": "/metadata/managedFields/1/fieldsV1/f:spec/f:replicas"}
        ])
    );
}

#[tokio::test]
async fn nothing_is_released_twice_nor_of_another_object() {
    let mut live = workload("Deployment");
    live["metadata"]["uid"] = json!("u1");
    let (kube, _) = kubernetes(vec![(200, live.clone())]);
    kube.release_replicas("ns", &target(Kind::Deployment, None)).await.unwrap();
    live["metadata"]["uid"] = json!("u2");
    let (kube, _) = kubernetes(vec![(200, live)]);
    let error = kube.release_replicas("ns", &target(Kind::Deployment, None)).await.unwrap_err();
    assert!(matches!(error, KubeError::Conflict(_)), "{error}");
}

#[tokio::test]
async fn delete_has_preconditions_and_gone_is_success() {
    let (kube, seen) = kubernetes(vec![
        (200, json!({"kind": "Status", "status": "Success"})),
        failure(404, "NotFound", "gone"),
        failure(409, "Conflict", "the UID in the precondition does not match"),
    ]);
    let claim = target(Kind::PersistentVolumeClaim, Some("5"));
    kube.delete("ns", &claim).await.unwrap();
    kube.delete("ns", &claim).await.unwrap();
    assert!(matches!(kube.delete("ns", &claim).await, Err(KubeError::Conflict(_))));
    let request = seen.lock().unwrap()[0].clone();
    assert_eq!(request.method, Method::DELETE);
    assert_eq!(request.path, "/api/v1/namespaces/ns/persistentvolumeclaims/guilds-a");
    assert_eq!(request.body["preconditions"], json!({"uid": "u1", "resourceVersion": "5"}));
}

#[tokio::test]
async fn annotations_are_merged() {
    let (kube, seen) = kubernetes(vec![(200, named("PersistentVolumeClaim"))]);
    let annotations = BTreeMap::from([("searchcell.dev/cluster-uuid".to_owned(), "abc".to_owned())]);
    kube.annotate("ns", &target(Kind::PersistentVolumeClaim, None), &annotations).await.unwrap();
    let expected = json!({"metadata": {"uid": "u1", "annotations": {"searchcell.dev/cluster-uuid": "abc"}}});
    assert_eq!(one(&seen).body, expected);
}

fn cell() -> SearchCell {
    let mut cell = SearchCell::default();
    cell.metadata.name = Some("guilds".into());
    cell.metadata.namespace = Some("ns".into());
    cell.metadata.uid = Some("u1".into());
    cell.metadata.resource_version = Some("4".into());
    cell
}

fn answer_of(cell: &SearchCell) -> (u16, Value) {
    (200, serde_json::to_value(cell).unwrap())
}

#[tokio::test]
async fn status_is_replaced_under_the_resource_version() {
    let (kube, seen) = kubernetes(vec![answer_of(&cell()), failure(409, "Conflict", "modified")]);
    let status = SearchCellStatus { observed_generation: Some(3), ..SearchCellStatus::default() };
    kube.publish_cell_status(&cell(), &status).await.unwrap();
    let request = seen.lock().unwrap()[0].clone();
    assert_eq!(request.method, Method::PUT);
    assert_eq!(request.path, "/apis/searchcell.dev/v1alpha1/namespaces/ns/searchcells/guilds/status");
    assert_eq!(request.body["metadata"]["resourceVersion"], "4");
    assert_eq!(request.body["status"], json!({"observedGeneration": 3}));
    assert!(matches!(kube.publish_cell_status(&cell(), &status).await, Err(KubeError::Conflict(_))));
    let mut unknown = cell();
    unknown.metadata.resource_version = None;
    assert!(matches!(kube.publish_cell_status(&unknown, &status).await, Err(KubeError::Conflict(_))));
}

#[tokio::test]
async fn the_finalizer_comes_and_goes_and_others_stay() {
    let mut with = cell();
    with.metadata.finalizers = Some(vec!["other/one".into(), "searchcell.dev/cleanup".into()]);
    let (kube, seen) =
        kubernetes(vec![answer_of(&with), answer_of(&cell()), failure(404, "NotFound", "gone")]);
    let mut without = cell();
    without.metadata.finalizers = Some(vec!["other/one".into()]);
    kube.set_cell_finalizer(&without, true).await.unwrap();
    kube.set_cell_finalizer(&without, false).await.unwrap();
    kube.set_cell_finalizer(&with, false).await.unwrap();
    kube.set_cell_finalizer(&with, false).await.unwrap();
    let seen = seen.lock().unwrap();
    let expected = |finalizers: Value| json!({"metadata": {"uid": "u1", "resourceVersion": "4", "finalizers": finalizers}});
    assert_eq!(seen[0].body, expected(json!(["other/one", "searchcell.dev/cleanup"])));
    assert_eq!(seen[1].body, expected(json!(["other/one"])));
}

#[tokio::test]
async fn live_reads_ask_the_api_server() {
    let claims =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaimList", "metadata": {}, "items": []});
    let (kube, seen) = kubernetes(vec![failure(404, "NotFound", "none"), (200, claims)]);
    assert!(kube.search_cell_live("ns", "guilds").await.unwrap().is_none());
    assert!(kube.claims_live(&ClusterKey::new("ns", "guilds", "a")).await.unwrap().is_empty());
    let query = seen.lock().unwrap()[1].query.clone();
    assert!(
        query.contains("labelSelector=searchcell.dev%2Fcell%3Dguilds%2Csearchcell.dev%2Fcluster%3Da"),
        "{query}"
    );
    assert!(!query.contains("resourceVersion=0"), "{query}");
}

#[tokio::test]
async fn restarts_are_looked_for_where_the_operator_watches() {
    let unreadable = json!({"metadata": {"namespace": "ns", "name": "odd", "uid": "u"}, "spec": 7});
    let cell = json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
        "metadata": {"namespace": "ns", "name": "guilds", "uid": "v"},
        "spec": {"version": "9.5.3", "zones": [{"name": "a"}], "clusters": [{"name": "a"}],
            "nodes": {"master": {"count": 1, "storage": {"size": "1Gi"}}, "data": {"perZone": 1, "storage": {"size": "1Gi"}}}},
        "status": {"clusters": [{"name": "a", "phase": "Rolling", "operation":
            {"kind": "RestartNode", "nodes": ["n"], "uids": ["u"], "startedAt": "2026-01-01T00:00:00Z"}}]}});
    let list = |items: &[&Value]| {
        (
            200,
            json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCellList", "metadata": {}, "items": items}),
        )
    };
    let (kube, seen) = kubernetes(vec![list(&[&unreadable, &cell])]);
    let found = kube.disruptions_live().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(*found[0].cluster(), ClusterKey::new("ns", "guilds", "a"));
    assert_eq!(seen.lock().unwrap()[0].path, "/apis/searchcell.dev/v1alpha1/searchcells");

    let (kube, seen) = kubernetes(vec![list(&[&cell]), failure(503, "ServiceUnavailable", "later")]);
    let kube = kube.of_namespaces(&["ns".to_owned(), "other".to_owned()]);
    let why = kube.disruptions_live().await.unwrap_err();
    assert!(matches!(why, KubeError::Unreachable(_)), "part of the truth is none: {why}");
    let paths: Vec<String> = seen.lock().unwrap().iter().map(|seen| seen.path.clone()).collect();
    let of = |namespace: &str| format!("/apis/searchcell.dev/v1alpha1/namespaces/{namespace}/searchcells");
    assert_eq!(paths, [of("ns"), of("other")]);
}

#[tokio::test]
async fn failures_have_classes() {
    let map = || Object::ConfigMap(Box::<ConfigMap>::default());
    let (kube, _) = kubernetes(vec![
        failure(403, "Forbidden", "exceeded quota"),
        failure(422, "Invalid", "spec: invalid"),
        failure(503, "ServiceUnavailable", "later"),
        failure(429, "TooManyRequests", "later"),
    ]);
    for _ in 0..2 {
        let error = kube.apply("ns", &map(), &target(Kind::ConfigMap, None)).await.unwrap_err();
        assert!(matches!(error, KubeError::Refused(_)), "{error}");
    }
    for _ in 0..2 {
        let error = kube.apply("ns", &map(), &target(Kind::ConfigMap, None)).await.unwrap_err();
        assert!(matches!(error, KubeError::Unreachable(_)), "{error}");
    }
}

#[tokio::test]
async fn another_uid_is_a_conflict_however_it_is_said() {
    let message = "Service \"guilds-a\" is invalid: metadata.uid: Invalid value: \"u1\": field is immutable";
    let (code, mut invalid) = failure(422, "Invalid", message);
    invalid["details"] = json!({"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]});
    let (kube, _) =
        kubernetes(vec![(code, invalid.clone()), (code, invalid), failure(409, "Conflict", "uid mismatch")]);
    let service_target = target(Kind::Service, None);
    for _ in 0..2 {
        let error = kube.apply("ns", &service(), &service_target).await.unwrap_err();
        assert!(matches!(error, KubeError::Conflict(_)), "{error}");
    }
    let error = kube.scale("ns", &target(Kind::StatefulSet, Some("7")), 3).await.unwrap_err();
    assert!(matches!(error, KubeError::Conflict(_)), "{error}");
}

#[tokio::test]
async fn a_release_that_lost_the_race_looks_again() {
    let live = |version: &str| {
        let mut live = workload("Deployment");
        live["metadata"]["uid"] = json!("u1");
        live["metadata"]["resourceVersion"] = json!(version);
        live["metadata"]["managedFields"] = json!([
            {"manager": "searchcell-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        ]);
        (200, live)
    };
    let refused =
        || failure(422, "Invalid", "the server rejected our request due to an error in our request");
    let (kube, _) = kubernetes(vec![live("9"), refused(), live("10"), live("9"), refused(), live("9")]);
    let deployment = target(Kind::Deployment, None);
    let error = kube.release_replicas("ns", &deployment).await.unwrap_err();
    assert!(matches!(error, KubeError::Conflict(_)), "{error}");
    let error = kube.release_replicas("ns", &deployment).await.unwrap_err();
    assert!(matches!(error, KubeError::Refused(_)), "{error}");
}
