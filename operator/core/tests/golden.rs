//! The objects of a few scenarios, to the letter: `golden/<scenario>/input.yaml` → `objects.yaml`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p searchcell-core --test golden` writes them anew; read the difference before you
//! commit it, for it is what a user's objects will look like.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use searchcell_core::build;
use searchcell_core::domain::{IngestScale, ValidCell};
use searchcell_core::names::{ClusterKey, Role};
use searchcell_core::security::keystore::keystore_secret;
use searchcell_core::validate::{validate_cell, validate_placement};
use searchcell_crds::{IndexPlacement, SearchCell};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn scenario(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let input = std::fs::read_to_string(folder.join("input.yaml")).unwrap();
    let objects = objects(&input);
    let expected = folder.join("objects.yaml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&expected, &objects).unwrap();
    }
    let expected = std::fs::read_to_string(&expected).unwrap_or_default();
    if let Some((number, (new, old))) =
        objects.lines().zip(expected.lines()).enumerate().find(|(_, (new, old))| new != old)
    {
        panic!("{name}/objects.yaml:{}: expected {old:?}, built {new:?}; see UPDATE_GOLDEN", number + 1);
    }
    assert_eq!(objects.len(), expected.len(), "{name}/objects.yaml: one is longer; see UPDATE_GOLDEN");
}

fn read(input: &str) -> (Vec<SearchCell>, Vec<IndexPlacement>) {
    let mut cells = Vec::new();
    let mut placements = Vec::new();
    for document in serde_yaml::Deserializer::from_str(input) {
        let value = Value::deserialize(document).unwrap();
        match value["kind"].as_str() {
            Some("SearchCell") => cells.push(serde_json::from_value(value).unwrap()),
            Some("IndexPlacement") => placements.push(serde_json::from_value(value).unwrap()),
            _ => {}
        }
    }
    (cells, placements)
}

/// All objects of all clusters, and the bodies of all indices, as a stream of YAML documents.
fn objects(input: &str) -> String {
    let (cells, placements) = read(input);
    let mut documents = Vec::new();
    for cell in &cells {
        let mut valid = validate_cell(cell).unwrap();
        if let Some(keystore) = &mut valid.keystore {
            // As it is when the first nodes are made.
            keystore.from = Some(keystore_secret(&valid.name, 1));
        }
        for cluster in &valid.clusters {
            cluster_objects(&valid, &valid.key(&cluster.name), &mut documents);
        }
    }
    for placement in &placements {
        let cell = cells.iter().find(|cell| cell.metadata.name.as_ref() == Some(&placement.spec.cell));
        let valid = validate_placement(placement, cell, &placements).unwrap();
        for index in &valid.indices {
            let body = build::index_body(&valid, index, valid.replicas.unwrap_or(2));
            documents.push(json!({"index": index.name, "body": body}));
        }
    }
    let texts: Vec<String> =
        documents.iter().map(|document| serde_yaml::to_string(document).unwrap()).collect();
    texts.join("---\n")
}

fn cluster_objects(cell: &ValidCell, key: &ClusterKey, documents: &mut Vec<Value>) {
    fn add<T: Serialize>(documents: &mut Vec<Value>, object: T) {
        documents.push(serde_json::to_value(object).unwrap());
    }
    // One master in each zone until there are enough; where they go is the plan's decision.
    let mut masters = cell.master_count;
    let mut names = Vec::new();
    for zone in &cell.zones {
        if masters > 0 {
            masters -= 1;
            names.push(key.pod(Role::Master, &zone.name, 0));
        }
    }
    add(documents, build::bootstrap_config_map(cell, key, &names));
    add(documents, build::network_policy(cell, key, "searchcell-system"));
    for service in build::services(cell, key) {
        add(documents, service);
    }
    for budget in build::disruption_budgets(cell, key, true) {
        add(documents, budget);
    }
    for zone in cell.zones.iter().take(names.len()) {
        add(documents, build::stateful_set(cell, key, Role::Master, zone, 1));
    }
    for zone in &cell.zones {
        add(documents, build::stateful_set(cell, key, Role::Data, zone, cell.data_per_zone));
    }
    let replicas = match cell.ingest {
        Some((IngestScale::Fixed(replicas), _)) => Some(replicas),
        _ => None,
    };
    if let Some(deployment) = build::ingest_deployment(cell, key, replicas) {
        add(documents, deployment);
    }
    if let Some(autoscaler) = build::autoscaler(cell, key) {
        add(documents, autoscaler);
    }
}

#[test]
fn quickstart() {
    scenario("quickstart");
}

#[test]
fn autoscaled_ingest() {
    scenario("autoscaled-ingest");
}

#[test]
fn no_ingest_one_master() {
    scenario("no-ingest-one-master");
}

#[test]
fn seven_seventeen() {
    scenario("seven-seventeen");
}

#[test]
fn pod_template() {
    scenario("pod-template");
}

/// What the README tells people to apply is accepted.
#[test]
fn every_example_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let (cells, placements) = read(&std::fs::read_to_string(&file).unwrap());
        for cell in &cells {
            assert_eq!(validate_cell(cell).err().unwrap_or_default(), [], "{}", file.display());
        }
        for placement in &placements {
            let cell = cells.iter().find(|cell| cell.metadata.name.as_ref() == Some(&placement.spec.cell));
            assert_eq!(validate_placement(placement, cell, &placements).err(), None, "{}", file.display());
        }
        seen += cells.len();
    }
    assert!(seen > 0);
}
