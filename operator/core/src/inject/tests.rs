use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use searchcell_crds::IndexPlacement;
use serde_json::{Value, json};

use super::*;

const IMAGE: &str = "registry.example/operator:1.0.0";

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn asking(annotation: &str, spec: Value) -> Pod {
    let mut whole = json!({"containers": [{"name": "app"}]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    pod(json!({"metadata": {"annotations": {ANNOTATION_INJECT_ROUTER: annotation}}, "spec": whole}))
}

fn known() -> BTreeMap<String, Collection> {
    let of = |cells: &[&str], generation| Collection {
        cells: cells.iter().map(|cell| (*cell).to_owned()).collect(),
        generation,
    };
    BTreeMap::from([
        ("messages".to_owned(), of(&["guilds", "bfg"], Some(1_795_212_345))),
        ("audit".to_owned(), of(&["guilds"], None)),
    ])
}

fn refusal(pod: &Pod) -> Refusal {
    match inject(pod, &known(), IMAGE) {
        Verdict::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_that_does_not_ask_or_has_one_is_left_alone() {
    let silent = pod(json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}}));
    assert_eq!(inject(&silent, &known(), IMAGE), Verdict::NotAsked);
    for place in ["initContainers", "containers"] {
        let has = asking("messages", json!({place: [{"name": ROUTER_CONTAINER}]}));
        assert_eq!(inject(&has, &known(), IMAGE), Verdict::Present, "{place}");
    }
    let has = asking("nothing-of-this", json!({"initContainers": [{"name": ROUTER_CONTAINER}]}));
    assert_eq!(inject(&has, &known(), IMAGE), Verdict::Present);
}

#[test]
fn each_refusal_names_the_field_and_what_to_do() {
    let with = |spec| asking("messages", spec);
    let port = |port: i32| json!([{"name": "app", "ports": [{"containerPort": port}]}]);
    let budget = |text: &str| {
        let mut pod = with(json!({}));
        let annotations = pod.metadata.annotations.as_mut().unwrap();
        annotations.insert(ANNOTATION_ROUTER_BUDGET.to_owned(), text.to_owned());
        pod
    };
    let many: Vec<String> = (0..65).map(|number| format!("c{number}")).collect();
    for (pod, words) in [
        (asking("", json!({})), "no collection is named"),
        (asking(" , ,", json!({})), "no collection is named"),
        (asking(&many.join(","), json!({})), "65 collections"),
        (
            asking("messages,mesages", json!({})),
            "no IndexPlacement of this namespace has collection \"mesages\"",
        ),
        (with(json!({"hostNetwork": true})), "spec.hostNetwork"),
        (with(json!({"os": {"name": "windows"}})), "spec.os.name"),
        (with(json!({"containers": port(9200)})), "container \"app\" has port 9200"),
        (with(json!({"initContainers": port(8081)})), "container \"app\" has port 8081"),
        (
            with(json!({"volumes": [{"name": "searchcell-router-state"}]})),
            "volume \"searchcell-router-state\"",
        ),
        (budget("15Mi"), "searchcell.dev/router-budget: \"15Mi\" is not a size from 16Mi to 16Gi"),
        (budget("17Gi"), "\"17Gi\""),
        (budget("4194304Gi"), "\"4194304Gi\""),
        (budget("1000"), "\"1000\""),
        (budget(""), "\"\""),
    ] {
        let text = refusal(&pod).to_string();
        assert!(text.contains(words), "{text}");
        // Longer warnings are cut by the API server.
        assert!(text.len() <= 256, "{}: {text}", text.len());
    }
    let long = refusal(&asking(&"é".repeat(10_000), json!({}))).to_string();
    assert!(long.len() <= 300, "{long}");
    let udp = json!([{"name": "app", "ports": [{"containerPort": 9200, "protocol": "UDP"}]}]);
    assert!(matches!(inject(&with(json!({"containers": udp})), &known(), IMAGE), Verdict::Inject(_)));
}

#[test]
fn budget_and_limits_belong_together() {
    for (text, budget, request, limit) in [
        (None, "256Mi", "100Mi", "384Mi"),
        (Some("16Mi"), "16Mi", "8Mi", "144Mi"),
        (Some("2Gi"), "2048Mi", "100Mi", "2176Mi"),
    ] {
        let mut pod = asking("messages", json!({"terminationGracePeriodSeconds": 12}));
        if let Some(text) = text {
            let annotations = pod.metadata.annotations.as_mut().unwrap();
            annotations.insert(ANNOTATION_ROUTER_BUDGET.to_owned(), text.to_owned());
        }
        let spec = pod.spec.clone().unwrap();
        let sidecar = wanted(&pod, &spec, &known()).unwrap();
        let configuration = sidecar.configuration();
        assert_eq!(configuration["limits"], json!({"budget": budget, "maxRequest": request, "grace": "7s"}));
        let limits = sidecar.container(IMAGE).resources.unwrap().limits.unwrap();
        assert_eq!(limits["memory"].0, limit);
    }
}

#[test]
fn collections_are_those_of_placements_that_stay() {
    let placement = |cell: &str, collection: &str, going: bool| -> IndexPlacement {
        let mut placement = IndexPlacement::default();
        placement.spec.cell = cell.to_owned();
        placement.spec.collection = collection.to_owned();
        placement.metadata.deletion_timestamp =
            going.then(|| serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        placement
    };
    let placements = [
        placement("guilds", "messages", false),
        placement("bfg", "messages", false),
        placement("old", "messages", true),
        placement("old", "gone", true),
    ];
    let table = json!({
        "schemaVersion": 1, "generation": 7, "namespace": "search", "collection": "messages",
        "tenant": {"field": "guild", "fanOut": false, "idScope": "Tenant"}, "versioning": "None",
        "hash": {"algorithm": "xxh3-64", "seed": crate::routing::SEED, "slots": crate::routing::SLOTS},
        "clusters": [{"name": "former-a", "cell": "former", "endpoint": "", "nodes": ""}], "indices": [],
    });
    let data =
        BTreeMap::from([(crate::names::TABLE_KEY.to_owned(), ByteString(table.to_string().into_bytes()))]);
    let published = Published::read(&ConfigMap { binary_data: Some(data), ..ConfigMap::default() });
    let published = std::sync::Arc::new(published);
    assert!(published.table.is_some());
    let found = collections(&placements, |name| (name == "messages").then(|| published.clone()));
    assert_eq!(found.len(), 1, "{found:?}");
    let messages = &found["messages"];
    assert_eq!(messages.generation, Some(7));
    assert_eq!(messages.cells.iter().map(String::as_str).collect::<Vec<_>>(), ["bfg", "former", "guilds"]);
}
