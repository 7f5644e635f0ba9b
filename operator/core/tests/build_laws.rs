//! Laws of `build` over random specs that validation accepts.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use searchcell_core::build;
use searchcell_core::domain::ValidCell;
use searchcell_core::names::{MAX_STATEFUL_SET_NAME, Role};
use searchcell_core::validate::validate_cell;
use searchcell_crds::SearchCell;
use serde_json::{Value, json};

fn read(spec: &Value) -> Option<ValidCell> {
    let cell: SearchCell = serde_json::from_value(spec.clone()).ok()?;
    validate_cell(&cell).ok()
}

prop_compose! {
    /// Specs of all sizes and names, most of them valid, some with names that are too long.
    fn specs()(
        name in "[a-z]([-a-z0-9]{0,20}[a-z0-9])?",
        zones in prop::collection::btree_set("[a-z0-9]([-a-z0-9]{0,14}[a-z0-9])?", 1..=6),
        clusters in prop::collection::btree_set("[a-z][a-z0-9]{0,14}", 1..=3),
        version in prop::sample::select(vec!["7.17.29", "8.1.0", "8.19.21", "9.5.3"]),
        masters in prop::sample::select(vec![1, 3, 5]),
        per_zone in 1..5,
        ingest in prop::option::of(prop::option::of(1..9)),
        memory in 1..64_u32,
        heap in prop::option::of(Just("512Mi")),
        mmap in any::<Option<bool>>(),
        priority in prop::option::of("[a-z]{1,8}"),
    ) -> Value {
        let options = |mut role: Value| {
            role["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"memory": format!("{memory}Gi")}});
            if let Some(heap) = &heap {
                role["heap"] = json!(heap);
            }
            if let Some(priority) = &priority {
                role["podTemplate"] = json!({"spec": {"priorityClassName": priority}});
            }
            role
        };
        let named = |names: &std::collections::BTreeSet<String>| -> Vec<Value> {
            names.iter().map(|name| json!({"name": name})).collect()
        };
        let mut nodes = json!({
            "master": options(json!({"count": masters, "storage": {"size": "10Gi"}})),
            "data": options(json!({"perZone": per_zone, "storage": {"size": "10Gi"}})),
        });
        match ingest {
            None => {}
            Some(Some(replicas)) => nodes["ingest"] = options(json!({"replicas": replicas})),
            Some(None) => nodes["ingest"] = options(json!({"autoscaling":
                {"minReplicas": 1, "maxReplicas": 4, "targetCPUUtilizationPercentage": 70}})),
        }
        let settings = mmap.map_or(json!({}), |mmap| json!({"node": {"store": {"allow_mmap": mmap}}}));
        json!({
            "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
            "metadata": {"name": name, "namespace": "search", "uid": "u"},
            "spec": {"version": version, "zones": named(&zones), "clusters": named(&clusters), "nodes": nodes,
                "settings": settings, "security": {"mode": "Disabled"}},
        })
    }
}

/// All objects of a cell as JSON, with the metadata of each.
fn all(cell: &ValidCell) -> Vec<(ObjectMeta, Value)> {
    fn add<T: serde::Serialize>(all: &mut Vec<(ObjectMeta, Value)>, objects: Vec<T>) {
        for object in objects {
            let value = serde_json::to_value(object).unwrap();
            all.push((serde_json::from_value(value["metadata"].clone()).unwrap(), value));
        }
    }
    let mut objects = Vec::new();
    for cluster in &cell.clusters {
        let key = cell.key(&cluster.name);
        add(&mut objects, vec![build::network_policy(cell, &key, "searchcell-system")]);
        add(&mut objects, build::services(cell, &key));
        add(&mut objects, build::disruption_budgets(cell, &key, true));
        add(&mut objects, vec![build::bootstrap_config_map(cell, &key, &["n".to_owned()])]);
        for zone in &cell.zones {
            add(&mut objects, vec![build::stateful_set(cell, &key, Role::Master, zone, 1)]);
            add(&mut objects, vec![build::stateful_set(cell, &key, Role::Data, zone, cell.data_per_zone)]);
        }
        add(&mut objects, build::ingest_deployment(cell, &key, Some(2)).into_iter().collect());
        add(&mut objects, build::autoscaler(cell, &key).into_iter().collect());
    }
    objects
}

fn hashes(cell: &ValidCell) -> Vec<String> {
    let per_zone = |role| cell.zones.iter().map(move |zone| build::input_hash(cell, role, Some(zone)));
    let mut hashes: Vec<String> = per_zone(Role::Master).chain(per_zone(Role::Data)).collect();
    hashes.push(build::input_hash(cell, Role::Ingest, None));
    hashes
}

fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(text.chars().next())
        && edge(text.chars().last())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_same_spec_gives_the_same_objects(spec in specs()) {
        let Some(cell) = read(&spec) else { return Ok(()) };
        prop_assert_eq!(all(&cell), all(&read(&spec).unwrap()));
        // The order of zones means nothing.
        let mut turned = spec.clone();
        turned["spec"]["zones"].as_array_mut().unwrap().reverse();
        prop_assert_eq!(all(&cell), all(&read(&turned).unwrap()));
    }

    #[test]
    fn names_and_labels_fit(spec in specs()) {
        let Some(cell) = read(&spec) else { return Ok(()) };
        for (metadata, value) in all(&cell) {
            let name = metadata.name.unwrap();
            let most = if value["kind"] == "StatefulSet" { MAX_STATEFUL_SET_NAME } else { 63 };
            prop_assert!(name.len() <= most, "{}", name);
            for (key, text) in metadata.labels.unwrap() {
                prop_assert!(is_label_value(&text), "{}: {}", key, text);
            }
            let owner = &metadata.owner_references.unwrap()[0];
            prop_assert_eq!(owner.controller, Some(true));
        }
    }

    #[test]
    fn names_are_unique(spec in specs()) {
        let Some(cell) = read(&spec) else { return Ok(()) };
        let mut names: Vec<String> = all(&cell).into_iter()
            .map(|(metadata, value)| format!("{} {}", metadata.name.unwrap(), value["kind"]))
            .collect();
        let before = names.len();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), before);
    }

    #[test]
    fn the_selector_of_a_workload_selects_its_pods(spec in specs()) {
        let Some(cell) = read(&spec) else { return Ok(()) };
        for (_, value) in all(&cell).iter().filter(|(_, value)| value["spec"]["template"].is_object()) {
            let labels = &value["spec"]["template"]["metadata"]["labels"];
            for (key, text) in value["spec"]["selector"]["matchLabels"].as_object().unwrap() {
                prop_assert_eq!(&labels[key], text);
            }
        }
    }

    #[test]
    fn an_empty_pod_template_changes_nothing(spec in specs()) {
        let mut bare = spec.clone();
        let mut empty = spec;
        for role in ["master", "data", "ingest"] {
            if bare["spec"]["nodes"].get(role).is_some() {
                bare["spec"]["nodes"][role].as_object_mut().unwrap().remove("podTemplate");
                empty["spec"]["nodes"][role]["podTemplate"] = json!({"metadata": {}, "spec": {"containers": []}});
            }
        }
        let (Some(bare), Some(empty)) = (read(&bare), read(&empty)) else { return Ok(()) };
        let without_hash = |cell| -> Vec<Value> {
            let strip = |(_, mut value): (_, Value)| {
                value["metadata"]["annotations"] = json!(null);
                let of_template = value.pointer_mut("/spec/template/metadata/annotations");
                if let Some(annotations) = of_template.and_then(Value::as_object_mut) {
                    annotations.remove("searchcell.dev/input-hash");
                }
                value
            };
            all(cell).into_iter().map(strip).collect()
        };
        prop_assert_eq!(without_hash(&bare), without_hash(&empty));
    }

    /// Every input of a template changes the hash, and the hash tells one change from another.
    #[test]
    fn a_change_of_an_input_changes_the_hash(spec in specs(), change in 0..9_usize) {
        let mut changed = spec.clone();
        let data = &mut changed["spec"]["nodes"]["data"];
        match change {
            0 => data["heap"] = json!("600Mi"),
            1 => data["jvmOptions"] = json!(["-XX:+UseZGC"]),
            2 => data["settings"] = json!({"indices.queries.cache.size": "5%"}),
            3 => data["podTemplate"] = json!({"spec": {"schedulerName": "other"}}),
            4 => data["resources"]["limits"]["memory"] = json!("100Gi"),
            5 => data["resources"]["requests"]["cpu"] = json!("7"),
            6 => changed["spec"]["image"] = json!("other:1"),
            7 => changed["spec"]["topologyKey"] = json!("example.com/rack"),
            _ => changed["spec"]["version"] = json!("9.9.9"),
        }
        let (Some(before), Some(after)) = (read(&spec), read(&changed)) else { return Ok(()) };
        let of = |cell: &ValidCell| build::input_hash(cell, Role::Data, Some(&cell.zones[0]));
        prop_assert_ne!(of(&before), of(&after));
        if change < 6 {
            // Of the data nodes alone.
            let of = |cell: &ValidCell| build::input_hash(cell, Role::Master, Some(&cell.zones[0]));
            prop_assert_eq!(of(&before), of(&after));
        }
    }

    /// What needs no restart changes no hash, and neither does another way to write the same.
    #[test]
    fn nothing_else_changes_the_hash(spec in specs(), change in 0..9_usize) {
        let mut changed = spec.clone();
        let fields = &mut changed["spec"];
        match change {
            0 => fields["nodes"]["data"]["perZone"] = json!(7),
            1 => fields["nodes"]["data"]["storage"]["size"] = json!("11Gi"),
            2 => fields["nodes"]["data"]["resources"]["requests"]["cpu"] = json!("1000m"),
            3 => fields["clusterSettings"] = json!({"cluster.max_shards_per_node": 2000}),
            4 => fields["suspend"] = json!(true),
            5 => fields["deletionPolicy"] = json!("Delete"),
            6 => fields["clusters"][0]["placement"] = json!("Closed"),
            7 => fields["nodes"]["master"]["count"] = json!(5),
            _ => {
                if let Some(mmap) = fields["settings"]["node"]["store"]["allow_mmap"].as_bool() {
                    fields["settings"] = json!({"node.store.allow_mmap": mmap});
                }
            }
        }
        let (Some(before), Some(after)) = (read(&spec), read(&changed)) else { return Ok(()) };
        prop_assert_eq!(hashes(&before), hashes(&after));
    }

    /// A new zone restarts nobody.
    #[test]
    fn a_new_zone_changes_no_hash(spec in specs()) {
        let mut changed = spec.clone();
        changed["spec"]["zones"].as_array_mut().unwrap().push(json!({"name": "zz-0"}));
        let (Some(before), Some(after)) = (read(&spec), read(&changed)) else { return Ok(()) };
        let after = hashes(&after);
        prop_assert!(hashes(&before).iter().all(|hash| after.contains(hash)));
    }
}

/// The laws say something only when most random specs are accepted.
#[test]
fn most_random_specs_are_valid() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let valid =
        (0..100).filter(|_| read(&specs().new_tree(&mut runner).unwrap().current()).is_some()).count();
    assert!((50..100).contains(&valid), "{valid} of 100");
}

/// The longest names that are accepted, and one character more.
#[test]
fn the_longest_names_fit_exactly() {
    let spec = |name: usize| {
        json!({
            "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
            "metadata": {"name": "n".repeat(name), "namespace": "search", "uid": "u"},
            "spec": {
                "version": "9.5.3", "security": {"mode": "Disabled"},
                "zones": [{"name": "z".repeat(20)}], "clusters": [{"name": "c".repeat(15)}],
                "nodes": {"master": {"count": 1, "storage": {"size": "1Gi"}},
                    "data": {"perZone": 1, "storage": {"size": "1Gi"}}},
            },
        })
    };
    let cell = read(&spec(8)).unwrap();
    let key = cell.key(&cell.clusters[0].name);
    assert_eq!(key.stateful_set(Role::Master, &cell.zones[0].name).len(), MAX_STATEFUL_SET_NAME);
    assert!(read(&spec(9)).is_none());
}
