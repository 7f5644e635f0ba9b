//! Clusters that left the spec: what keeps them, how they go, and what becomes of their volumes.

use std::sync::Arc;

use jiff::SignedDuration;
use searchcell_core::names::ClusterKey;
use searchcell_core::plan::{kept_indices, may_delete_volumes, may_remove, placed_on};
use searchcell_core::snapshot::{ElasticFacts, IndexFacts, Reading, label};
use searchcell_core::step::{Action, Kind};
use searchcell_crds::conditions::is_true;
use searchcell_crds::{ClusterPhase, DeletionPolicy, IndexPlacement, OperationKind, Reason};
use serde_json::json;

use crate::world::{UUID, World, cell_object};

fn clusters(world: &mut World, names: &[&str]) {
    let names: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    world.edit(|cell| cell["spec"]["clusters"] = json!(names));
}

/// Two clusters at rest, of which b has just left the spec.
fn leaving() -> World {
    let mut world = World::new(cell_object());
    clusters(&mut world, &["a", "b"]);
    world.settle();
    world.form(UUID);
    world.settle();
    clusters(&mut world, &["a"]);
    world
}

fn facts(world: &mut World) -> &mut ElasticFacts {
    match world.snapshot.elastic.get_mut("b") {
        Some(Reading::Known(facts)) => facts,
        _ => unreachable!(),
    }
}

fn operation(world: &World) -> Option<OperationKind> {
    let status = world.snapshot.cell.status.as_ref()?;
    status.clusters.iter().find(|of| of.name == "b")?.operation.as_ref().map(|of| of.kind)
}

fn hold(world: &World) -> Option<(Reason, String)> {
    let holds = world.plan().holds.into_iter();
    holds.filter(|hold| hold.cluster.as_deref() == Some("b")).map(|hold| (hold.reason, hold.message)).next()
}

fn kinds_left(world: &World) -> Vec<&'static str> {
    let objects = world.snapshot.objects.of_cluster("b");
    let of_b = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        label(meta, "searchcell.dev/cluster") == Some("b")
    };
    let all = [
        ("sets", objects.stateful_sets.len()),
        ("deployments", objects.deployments.len()),
        ("services", objects.services.len()),
        ("budgets", objects.budgets.len()),
        ("policies", objects.network_policies.len()),
        ("maps", objects.config_maps.iter().filter(|map| of_b(&map.metadata)).count()),
        ("claims", objects.claims.len()),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).map(|(kind, _)| kind).collect()
}

/// One pass: names of its actions.
fn pass(world: &mut World) -> Vec<&'static str> {
    let steps = world.plan().steps;
    let names = steps.iter().map(|step| step.action.name()).collect();
    for step in steps {
        world.apply(step.action);
    }
    world.run_controllers();
    world.snapshot.cell.status = Some(world.status());
    names
}

fn later(world: &mut World, seconds: i64) {
    world.now += SignedDuration::from_secs(seconds);
}

#[test]
fn an_empty_cluster_is_recorded_looked_at_again_and_goes_with_all_but_its_volumes() {
    let mut world = leaving();
    assert!(world.settle().is_empty(), "nothing is done before it is recorded");
    assert_eq!(operation(&world), Some(OperationKind::RemoveCluster));
    assert_eq!(hold(&world).unwrap().0, Reason::Removing);
    later(&mut world, 59);
    assert!(world.settle().is_empty(), "nor before a minute has passed");
    later(&mut world, 1);
    let steps = world.plan().steps;
    assert!(steps.iter().all(|step| step.cluster.as_deref() == Some("b")));
    let asks: Vec<bool> = (steps.iter())
        .map(|step| match &step.action {
            Action::RemoveWorkload { asks, .. } => *asks,
            other => panic!("{}", other.name()),
        })
        .collect();
    assert_eq!(
        asks,
        [true, false, false, false, false, false, false],
        "the first asks, and the others rest on it"
    );
    assert!(
        matches!(&steps[6].action, Action::RemoveWorkload { target, .. } if target.kind == Kind::Deployment)
    );
    world.settle();
    world.settle();
    assert_eq!(kinds_left(&world), ["claims"]);
    let status = world.snapshot.cell.status.as_ref().unwrap();
    assert_eq!(status.clusters.iter().map(|of| of.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(is_true(&status.conditions, "Ready") && !is_true(&status.conditions, "Reconciling"));
    assert!(world.plan().steps.is_empty());
}

#[test]
fn while_it_goes_nobody_misses_it() {
    let mut world = leaving();
    world.settle();
    later(&mut world, 60);
    for step in world.plan().steps {
        world.apply(step.action);
    }
    let status = world.status();
    let of_b = status.clusters.iter().find(|of| of.name == "b").unwrap();
    assert_eq!(of_b.phase, ClusterPhase::Deleting);
    assert_eq!(status.clusters_ready.as_deref(), Some("1/1"));
    assert!(is_true(&status.conditions, "Ready") && !is_true(&status.conditions, "Degraded"));
    assert!(is_true(&status.conditions, "Reconciling"));
}

#[test]
fn with_delete_its_volumes_go_when_that_is_recorded_those_of_masters_last() {
    let mut world = leaving();
    world.snapshot.cell.spec.deletion_policy = DeletionPolicy::Delete;
    world.settle();
    later(&mut world, 60);
    pass(&mut world);
    assert_eq!(operation(&world), Some(OperationKind::DeleteVolumes));
    assert!(may_delete_volumes(&world.snapshot.cell, "b") && !may_delete_volumes(&world.snapshot.cell, "a"));
    let volumes = |world: &World| {
        let steps = world.plan().steps.into_iter();
        steps
            .map(|step| match step.action {
                Action::RemoveVolume { target } if target.kind == Kind::PersistentVolumeClaim => target.name,
                other => panic!("{}", other.name()),
            })
            .collect::<Vec<_>>()
    };
    let first = volumes(&world);
    assert!(first.len() == 3 && first.iter().all(|name| name.contains("-data-")), "{first:?}");
    for step in world.plan().steps {
        world.apply(step.action);
    }
    let then = volumes(&world);
    assert!(then.len() == 3 && then.iter().all(|name| name.contains("-master-")), "{then:?}");
    world.settle();
    world.settle();
    assert!(kinds_left(&world).is_empty(), "{:?}", kinds_left(&world));
    assert_eq!(operation(&world), None);
}

#[test]
fn put_back_before_its_volumes_go_it_is_the_same_cluster() {
    let mut world = leaving();
    world.settle();
    later(&mut world, 60);
    world.settle();
    clusters(&mut world, &["a", "b"]);
    world.settle();
    assert_eq!(world.snapshot.objects.of_cluster("b").stateful_sets.len(), 6);
    assert!(world.snapshot.objects.of_cluster("b").config_maps.is_empty(), "it never bootstraps again");
    let status = world.snapshot.cell.status.as_ref().unwrap();
    let of_b = status.clusters.iter().find(|of| of.name == "b").unwrap();
    assert_eq!((of_b.uuid.as_deref(), of_b.operation.as_ref()), (Some(UUID), None));
}

#[test]
fn put_back_while_its_volumes_go_it_forms_anew_when_all_have_gone() {
    let mut world = leaving();
    world.snapshot.cell.spec.deletion_policy = DeletionPolicy::Delete;
    world.settle();
    later(&mut world, 60);
    pass(&mut world);
    clusters(&mut world, &["a", "b"]);
    let names: Vec<_> = world.plan().steps.iter().map(|step| step.action.name()).collect();
    assert_eq!(names, ["RemoveVolume"; 3]);
    world.snapshot.elastic.insert("b".into(), Reading::Unavailable("no answer".into()));
    let mut actions = world.settle();
    actions.extend(world.settle());
    assert!(actions.contains(&"Bootstrap"), "{actions:?}");
    let bootstrap = actions.iter().position(|name| *name == "Bootstrap").unwrap();
    let last = actions.iter().rposition(|name| *name == "RemoveVolume").unwrap();
    assert!(last < bootstrap);
}

#[test]
fn a_cluster_that_has_anything_to_lose_stays_and_says_what() {
    let mut world = leaving();
    let index = IndexFacts { primaries: 1, ..IndexFacts::default() };
    Arc::make_mut(&mut facts(&mut world).indices).insert("by-hand".into(), index);
    world.settle();
    let (reason, message) = hold(&world).unwrap();
    assert!(reason == Reason::NotEmpty && message.contains("by-hand"), "{message}");
    assert_eq!(operation(&world), None);
    assert!(is_true(&world.status().conditions, "Stalled"));
    assert_eq!(world.status().clusters.len(), 2, "it goes on being reported");
    // What lands there in the minute after it was found empty calls it off.
    Arc::make_mut(&mut facts(&mut world).indices).clear();
    world.settle();
    assert_eq!(operation(&world), Some(OperationKind::RemoveCluster));
    Arc::make_mut(&mut facts(&mut world).indices).insert("by-hand".into(), IndexFacts::default());
    later(&mut world, 60);
    assert!(world.settle().is_empty());
    assert_eq!(operation(&world), None);
}

#[test]
fn a_placement_that_names_it_keeps_it() {
    let placement: IndexPlacement = serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": "messages", "namespace": "search"},
        "spec": {"cell": "guilds", "collection": "messages", "tenant": {"field": "guild_id"}, "pool": {"indices": 1}},
        "status": {"assignments": [{"cluster": "guilds-b", "pending": ["messages-pool-0-g1"]}]},
    }))
    .unwrap();
    let mut world = leaving();
    world.snapshot.placements.push(placement.clone());
    let (reason, message) = hold(&world).unwrap();
    assert!(reason == Reason::NotEmpty && message.contains("messages"), "{message}");
    let key = |cell: &str, cluster: &str| ClusterKey::new("search", cell, cluster);
    assert_eq!(placed_on([&placement], &key("guilds", "b")), ["messages"]);
    assert!(placed_on([&placement], &key("guilds", "a")).is_empty());
    assert!(placed_on([&placement], &key("other", "b")).is_empty());
}

#[test]
fn a_cluster_that_cannot_be_asked_stays() {
    let mut world = leaving();
    world.snapshot.elastic.insert("b".into(), Reading::Unavailable("no answer".into()));
    assert!(world.settle().is_empty());
    assert_eq!((hold(&world).unwrap().0, operation(&world)), (Reason::Unreachable, None));
    let mut world = leaving();
    world.settle();
    facts(&mut world).master = None;
    later(&mut world, 60);
    assert!(world.settle().is_empty());
    assert_eq!(operation(&world), None);
}

#[test]
fn a_cluster_that_never_formed_goes_without_being_asked() {
    let mut world = World::new(cell_object());
    clusters(&mut world, &["a", "b"]);
    world.settle();
    for pod in &mut world.snapshot.objects.pods {
        pod.status = None;
    }
    clusters(&mut world, &["a"]);
    let phase = world.status().clusters.into_iter().find(|of| of.name == "b").unwrap().phase;
    assert_eq!(phase, ClusterPhase::Deleting);
    world.snapshot.cell.status = Some(world.status());
    later(&mut world, 60);
    let asks = world.plan().steps.into_iter().filter_map(|step| match step.action {
        Action::RemoveWorkload { asks, .. } => Some(asks),
        _ => None,
    });
    assert_eq!(asks.collect::<Vec<_>>(), [false; 7]);
    // One whose nodes have found a master may hold something.
    let mut world = World::new(cell_object());
    clusters(&mut world, &["a", "b"]);
    world.settle();
    clusters(&mut world, &["a"]);
    assert_eq!((hold(&world).unwrap().0, operation(&world)), (Reason::Unreachable, None));
}

#[test]
fn a_cluster_that_has_lost_nodes_by_our_own_hand_goes_on_without_being_asked() {
    let mut world = leaving();
    world.settle();
    later(&mut world, 60);
    let first = world.plan().steps.into_iter().next();
    world.apply(first.unwrap().action);
    world.snapshot.elastic.insert("b".into(), Reading::Unavailable("no answer".into()));
    let steps = world.plan().steps;
    assert!(!steps.is_empty());
    assert!(steps.iter().all(|step| matches!(step.action, Action::RemoveWorkload { asks: false, .. })));
}

#[test]
fn what_the_api_server_has_decides() {
    let mut world = leaving();
    let refusal = |world: &World| may_remove(&world.snapshot.cell, "b").unwrap_err();
    assert!(refusal(&world).contains("does not record"));
    world.settle();
    assert_eq!(may_remove(&world.snapshot.cell, "b"), Ok(()));
    world.snapshot.cell.spec.suspend = true;
    assert!(refusal(&world).contains("suspended"));
    world.snapshot.cell.spec.suspend = false;
    clusters(&mut world, &["a", "b"]);
    assert!(refusal(&world).contains("in the spec again"));
}

#[test]
fn indices_of_elasticsearch_itself_are_missed_by_nobody() {
    let own = [
        ".security-7",
        ".ds-.logs-elasticsearch.deprecation-default-2026.11.24-000001",
        ".ds-ilm-history-7-2026.11.24-000001",
    ];
    let kept = ["messages", ".ds-logs-app-default-2026.11.24-000001", "a.b"];
    let all: Vec<String> = own.iter().chain(&kept).map(|name| (*name).to_owned()).collect();
    assert_eq!(kept_indices(&all), kept);
}
