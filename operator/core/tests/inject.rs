//! Pods with a router, to the letter: `golden/inject/<pod>.yaml` → `<pod>.patched.yaml`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p searchcell-core --test inject` writes them anew; read the difference before you commit
//! it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use searchcell_core::inject::{Collection, Verdict, inject};
use serde_json::{Value, json};

const IMAGE: &str = "registry.example/searchcell-operator:1.0.0";

fn collections() -> BTreeMap<String, Collection> {
    let of = |cells: &[&str], generation| Collection {
        cells: cells.iter().map(|cell| (*cell).to_owned()).collect(),
        generation,
    };
    BTreeMap::from([
        ("messages".to_owned(), of(&["guild-messages", "bfg"], Some(1_795_212_345))),
        ("audit".to_owned(), of(&["guild-messages"], None)),
    ])
}

/// The pod as the API server makes it of the patch.
fn patched(pod: &Value) -> Value {
    let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
    let Verdict::Inject(operations) = inject(&typed, &collections(), IMAGE) else {
        panic!("nothing is injected")
    };
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn golden(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inject");
    let pod = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    let pod: Value = serde_yaml::from_str(&pod).unwrap();
    let patched = patched(&pod);
    let text = serde_yaml::to_string(&patched).unwrap();
    let expected = folder.join(format!("{name}.patched.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&expected, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&expected).unwrap_or_default(), text, "{name}; see UPDATE_GOLDEN");
    // What was there is there, and where it was among its own.
    for list in ["containers", "volumes", "initContainers"] {
        let before = pod["spec"][list].as_array().cloned().unwrap_or_default();
        let mut rest = patched["spec"][list].as_array().unwrap().iter();
        for item in &before {
            assert!(rest.any(|now| now == item), "{list}: {item}");
        }
    }
    let again: Pod = serde_json::from_value(patched.clone()).unwrap();
    assert_eq!(inject(&again, &collections(), IMAGE), Verdict::Present, "once");
    patched
}

#[test]
fn a_pod_of_a_deployment() {
    let pod = golden("deployment");
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "searchcell-router", "it starts before all others");
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mounts = pod["spec"]["initContainers"][0]["volumeMounts"].as_array().unwrap();
    let there =
        mounts.iter().find(|mount| mount["mountPath"] == token).expect("or Kubernetes mounts a token");
    assert_eq!(there["name"], "searchcell-router-no-token");
}

#[test]
fn the_least_of_a_pod() {
    golden("bare");
}
