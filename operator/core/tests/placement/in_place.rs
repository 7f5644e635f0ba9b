//! What of existing indices is changed in place, what is put right, and what is held.

use std::collections::BTreeMap;

use searchcell_core::build::index_inputs;
use searchcell_core::snapshot::IndexFacts;
use searchcell_core::step::Action;
use searchcell_crds::Reason;
use searchcell_crds::conditions::is_true;
use serde_json::{Value, json};

use crate::world::{World, pool};

#[test]
fn replicas_fields_and_dynamic_settings_change_in_place_in_one_request_for_each_cluster() {
    let mut world = World::new(pool(4), &["a", "b"]);
    world.create();
    world.0.placement.spec.replicas = Some(1);
    let steps = world.plan().steps;
    assert_eq!(steps.len(), 2, "{steps:#?}");
    let Action::PutIndexSettings { indices, settings } = &steps[0].action else { panic!("{steps:#?}") };
    assert_eq!((steps[0].cluster.as_deref(), indices.len()), (Some("a"), 2));
    assert_eq!(*settings, BTreeMap::from([("index.number_of_replicas".to_owned(), Some(json!(1)))]));
    world.apply();
    assert_eq!(world.plan().steps, []);

    world.0.placement.spec.index = serde_json::from_value(json!({
        "mappings": {"properties": {"x": {"type": "keyword"}}}, "settings": {"refresh_interval": "5s"},
    }))
    .unwrap();
    let steps = world.plan().steps;
    let names: Vec<&str> = steps.iter().map(|step| step.action.name()).collect();
    assert_eq!(names, ["PutMapping", "PutMapping", "PutIndexSettings", "PutIndexSettings"]);
    let Action::PutMapping { body, .. } = &steps[0].action else { panic!("{steps:#?}") };
    assert_eq!(body["properties"]["x"]["type"], "keyword");
    assert_eq!(body["_meta"]["searchcell"]["inputs"], json!(index_inputs(&world.valid())));
    // The operator dies before the settings are changed.
    world.apply_only("PutMapping");
    assert!(world.plan().steps.iter().all(|step| step.action.name() == "PutIndexSettings"));
    world.apply();
    assert_eq!(world.plan().steps, []);

    // What is not asked for any more goes back to its default; a field that is there stays.
    world.0.placement.spec.index = None;
    world.apply();
    assert!(!world.facts("a").indices["messages.p000.g1"].settings.contains_key("index.refresh_interval"));
    assert_eq!(world.plan().steps, []);
    world.0.placement.spec.replicas = None;
    assert_eq!(world.plan().steps.len(), 2, "as it was made");
    world.0.cell.as_mut().unwrap().spec.suspend = true;
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::Suspended]));
}

#[test]
fn what_somebody_changed_is_put_right_and_what_is_elasticsearchs_is_left() {
    let mut world = World::new(pool(1), &["a"]);
    world.create();
    let index = |world: &mut World| world.indices("a").get_mut("messages.p000.g1").unwrap().clone();
    let good = index(&mut world);
    let put = |world: &mut World, change: fn(&mut IndexFacts)| {
        let mut changed = good.clone();
        change(&mut changed);
        world.indices("a").insert("messages.p000.g1".into(), changed);
        let steps = world.plan().steps;
        steps.first().map(|step| match &step.action {
            Action::PutIndexSettings { settings, .. } => settings.clone(),
            other => panic!("{other:?}"),
        })
    };
    let only = |name: &str, value: Option<Value>| Some(BTreeMap::from([(name.to_owned(), value)]));
    assert_eq!(put(&mut world, |index| index.replicas = 0), only("index.number_of_replicas", Some(json!(2))));
    let filter = "index.routing.allocation.require._name";
    let filtered = put(&mut world, |index| {
        index.settings.insert("index.routing.allocation.require._name".into(), json!("x"));
    });
    assert_eq!(filtered, only(filter, None));
    let shorter = put(&mut world, |index| {
        index.settings.insert("index.gc_deletes".into(), json!("1s"));
    });
    assert_eq!(shorter, only("index.gc_deletes", Some(json!("1h"))));
    let others = put(&mut world, |index| {
        index
            .settings
            .insert("index.routing.allocation.include._tier_preference".into(), json!("data_content"));
        index.settings.insert("index.blocks.read_only_allow_delete".into(), json!("true"));
        index.settings.insert("index.lifecycle.name".into(), json!("somebody's"));
    });
    assert_eq!(others, None);
}

#[test]
fn what_is_fixed_when_an_index_is_made_is_held_and_nothing_is_touched() {
    for settings in [json!({"codec": "best_compression"}), json!({"analysis.analyzer.a.type": "simple"})] {
        let mut world = World::new(pool(2), &["a"]);
        world.create();
        // Not even what could be changed.
        world.0.placement.spec.replicas = Some(1);
        world.0.placement.spec.index = serde_json::from_value(json!({"settings": settings})).unwrap();
        assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::NeedsMigration]));
        assert!(is_true(&world.status().conditions, "Stalled"));
        world.0.placement.spec.index = None;
        assert_eq!((world.plan().steps.len(), world.reasons()), (1, vec![]));
    }
    let mut placement = pool(1);
    placement.spec.index =
        serde_json::from_value(json!({"settings": {"codec": "best_compression"}})).unwrap();
    let mut world = World::new(placement, &["a"]);
    world.create();
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![]), "as it was made");
    world.0.placement.spec.index = None;
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::NeedsMigration]));
}

#[test]
fn many_indices_are_changed_in_a_few_requests_with_paths_that_are_short_enough() {
    let mut world = World::new(pool(300), &["a"]);
    while world.create() > 0 {}
    world.0.placement.spec.replicas = Some(1);
    let steps = world.plan().steps;
    let lengths = steps.iter().map(|step| match &step.action {
        Action::PutIndexSettings { indices, .. } => indices.join(",").len(),
        other => panic!("{other:?}"),
    });
    let lengths: Vec<usize> = lengths.collect();
    assert!(lengths.iter().all(|length| *length < 3_500) && lengths.len() == 2, "{lengths:?}");
}
