use serde_json::{Value, json};

use super::*;
use crate::inject::Refusal;

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": {"namespace": "search", "name": "indexer", "uid": "u1",
            "annotations": {"searchcell.dev/inject-router": "messages, audit", "searchcell.dev/routes-generation": "7"}},
        "spec": {
            "initContainers": [{"name": "searchcell-router"}], "containers": [{"name": "app"}],
            "volumes": [{"name": "searchcell-router-access", "projected": {"sources": [
                {"configMap": {"name": "guilds-http-ca-public", "items": [{"key": "ca.crt", "path": "guilds/ca.crt"}]}},
                {"secret": {"name": "guilds-router", "items": [{"key": "username", "path": "guilds/username"}]}},
            ]}}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.7"},
    });
    change(&mut pod);
    serde_json::from_value(pod).unwrap()
}

fn router(change: impl FnOnce(&mut Value)) -> RouterPod {
    RouterPod::of(&pod(change)).unwrap()
}

fn alone(pod: &mut Value) {
    pod["metadata"]["annotations"] = json!({});
    pod["spec"] = json!({"containers": [{"name": "router"}]});
}

fn published(generations: &[(&str, i64)]) -> BTreeMap<String, i64> {
    generations.iter().map(|(name, generation)| ((*name).to_owned(), *generation)).collect()
}

#[test]
fn a_pod_that_ends_is_none() {
    assert!(
        RouterPod::of(&pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")))
            .is_none()
    );
    for phase in ["Succeeded", "Failed"] {
        assert!(RouterPod::of(&pod(|pod| pod["status"]["phase"] = json!(phase))).is_none());
    }
    let waits = router(|pod| pod["status"] = json!({"phase": "Pending", "podIP": "10.0.0.7"}));
    assert_eq!(waits.address, None);
}

#[test]
fn a_kubelet_hears_of_a_new_table_of_its_router_once() {
    let own = router(|_| {});
    assert_eq!(own.news(&published(&[("messages", 7), ("other", 99)])), None);
    assert_eq!(own.news(&published(&[("messages", 7), ("audit", 8)])), Some(8));
    assert_eq!(own.news(&published(&[("messages", 6)])), None, "never back");
    assert_eq!(own.news(&BTreeMap::new()), None);
    let never =
        router(|pod| pod["metadata"]["annotations"] = json!({"searchcell.dev/inject-router": "messages"}));
    assert_eq!(never.news(&published(&[("messages", 1)])), Some(1));
    assert_eq!(router(alone).news(&published(&[("other", 99)])), Some(99), "by itself, it may have all");
}

#[test]
fn a_router_lacks_the_cells_that_its_collections_came_to_later() {
    let own = router(|_| {});
    let of = |cells: &[&str]| Collection {
        cells: cells.iter().map(|cell| (*cell).to_owned()).collect(),
        generation: None,
    };
    let mut known =
        BTreeMap::from([("messages".to_owned(), of(&["guilds"])), ("other".to_owned(), of(&["far"]))]);
    assert!(own.lacks(&known).is_empty());
    known.insert("audit".to_owned(), of(&["bfg", "guilds"]));
    let lacks = own.lacks(&known);
    assert_eq!(lacks.iter().collect::<Vec<_>>(), ["bfg"]);
    assert!(outdated(&lacks).contains("SearchCell bfg:"));
    assert!(router(alone).lacks(&known).is_empty(), "its files are its owner's");
}

#[test]
fn who_runs_without_is_told_why() {
    assert!(!router(|_| {}).is_without() && !router(alone).is_without());
    assert!(router(|pod| pod["spec"]["initContainers"] = json!([])).is_without());
    assert_eq!(missing(&Verdict::Present), None);
    assert_eq!(missing(&Verdict::NotAsked), None);
    let text = missing(&Verdict::Refused(Refusal::HostNetwork)).unwrap();
    assert!(text.contains("without a router: spec.hostNetwork"), "{text}");
    let text = missing(&Verdict::Inject(Vec::new())).unwrap();
    assert!(text.contains("Delete the pod"), "{text}");
}

#[test]
fn a_router_is_as_far_as_its_worst_collection() {
    let own = router(|_| {});
    let reading = |text: &str| serde_json::from_str::<Reading>(text).unwrap();
    let wanted = published(&[("messages", 10), ("audit", 20), ("other", 99)]);
    let both = |messages: (i64, i64), audit: (i64, i64)| {
        let of = |(applied, drained)| json!({"applied": applied, "drained": drained});
        reading(&json!({"collections": {"messages": of(messages), "audit": of(audit)}}).to_string())
    };
    assert_eq!(own.progress(&both((10, 10), (20, 20)), &wanted), Progress::Current);
    assert_eq!(
        own.progress(&both((11, 11), (20, 20)), &wanted),
        Progress::Current,
        "newer than what is cached"
    );
    assert_eq!(own.progress(&both((10, 9), (20, 20)), &wanted), Progress::Draining);
    assert_eq!(own.progress(&both((10, 9), (17, 17)), &wanted), Progress::Behind(3));
    let half = reading(r#"{"collections": {"messages": {"applied": 10, "drained": 10}}}"#);
    assert_eq!(own.progress(&half, &wanted), Progress::Behind(20));
    assert_eq!(router(alone).progress(&half, &wanted), Progress::Current);
}
