//! The plan of a placement, and the status that goes with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod candidates;
mod in_place;
mod pooled;
mod world;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_core::placement::{placement_status, plan_placement_deletion};
use searchcell_core::snapshot::{IndexCounts, IndexFacts, Reading, ShardState, Unassigned};
use searchcell_core::step::{Action, Plan};
use searchcell_crds::conditions::{find, is_true};
use searchcell_crds::{DeletionPolicy, IndexPlacementStatus, PlacementAssignment, Reason};
use serde_json::json;

use world::{World, cell, facts, now, pool};

#[test]
fn a_pool_is_created_evenly_and_then_nothing_is_left_to_do() {
    let mut world = World::new(pool(12), &["a", "b"]);
    assert_eq!(world.create(), 12);
    assert_eq!((world.facts("a").indices.len(), world.facts("b").indices.len()), (6, 6));
    assert_eq!(world.plan().steps, []);
    let status = world.status();
    assert!(is_true(&status.conditions, "Ready") && !is_true(&status.conditions, "Degraded"), "{status:#?}");
    assert_eq!(status.table_generation, Some(now().as_second()));
    world.0.table = None;
    let waiting = world.status();
    assert_eq!(find(&waiting.conditions, "Ready").unwrap().reason, "TableNotReady");
    assert_eq!(waiting.table_generation, status.table_generation, "a number that was told is remembered");
    assert_eq!(status.shards.unwrap().summary, "36/36");
    assert_eq!(
        status.clusters.iter().map(|c| (c.name.as_str(), c.indices)).collect::<Vec<_>>(),
        [("guilds-a", 6), ("guilds-b", 6)]
    );
}

#[test]
fn an_index_is_created_where_it_was_recorded_and_not_before() {
    let mut world = World::new(pool(4), &["a", "b"]);
    let decided = world.plan();
    assert_eq!((decided.steps.len(), decided.assign.len()), (0, 4), "decided, not created");
    let recorded = world.record();
    assert_eq!((recorded.steps.len(), recorded.assign.len()), (4, 0), "created, not decided again");
    let places: BTreeMap<String, String> = (recorded.steps.iter())
        .map(|step| {
            let Action::CreateIndex { name, .. } = &step.action else { panic!("{step:?}") };
            (name.clone(), step.cluster.clone().unwrap())
        })
        .collect();
    assert_eq!(places, decided.assign);
    // Whatever happens meanwhile.
    world.0.cell.as_mut().unwrap().spec.clusters[1].placement =
        Some(searchcell_crds::ClusterPlacement::Closed);
    world.indices("a").insert("other".into(), IndexFacts { primaries: 9, ..IndexFacts::default() });
    assert_eq!(world.plan().steps, recorded.steps);
    let pending = &world.0.placement.status.as_ref().unwrap().assignments[1];
    assert_eq!((pending.cluster.as_str(), pending.pending.len(), pending.indices.len()), ("guilds-b", 2, 0));
    world.create();
    let seen = &world.status().assignments[1];
    assert_eq!((seen.pending.len(), seen.indices.len()), (0, 2));
}

#[test]
fn a_place_on_a_cluster_that_left_the_cell_is_decided_anew() {
    let mut world = World::new(pool(2), &["a", "b"]);
    world.record();
    world.0.cell = Some(cell(&["a"]));
    world.0.elastic.insert("b".into(), Reading::Unavailable("no answer".into()));
    assert_eq!(world.reasons(), [Reason::CellNotReady], "it may have been created there");
    world.0.elastic.remove("b");
    let plan = world.plan();
    assert_eq!(plan.assign, BTreeMap::from([("messages.p001.g1".to_owned(), "a".to_owned())]));
}

#[test]
fn what_others_are_about_to_create_is_a_load() {
    let mut world = World::new(pool(2), &["a", "b"]);
    let mut other = pool(1);
    other.metadata.name = Some("direct".into());
    other.spec.collection = "direct".into();
    let pending = vec!["direct.p000.g1".to_owned()];
    let at = PlacementAssignment { cluster: "guilds-a".into(), pending, ..PlacementAssignment::default() };
    other.status = Some(IndexPlacementStatus { assignments: vec![at], ..IndexPlacementStatus::default() });
    world.0.siblings.push(other);
    assert_eq!(world.plan().assign["messages.p000.g1"], "b");
}

#[test]
fn a_full_disk_and_unknown_disks_take_nothing() {
    let mut world = World::new(pool(1), &["a"]);
    world.facts("a").disks.as_mut().unwrap().get_mut("data-b").unwrap().available = 1 << 30;
    assert_eq!((world.plan().assign.len(), world.reasons()), (0, vec![Reason::NoCapacity]));
    world.0.cell.as_mut().unwrap().spec.nodes.data.options.settings =
        serde_json::from_value(json!({"cluster.routing.allocation.disk.watermark.low": "1mb"})).unwrap();
    assert_eq!(world.plan().assign.len(), 1, "as the settings say");
    let disks = world.facts("a").disks.take();
    assert_eq!((world.plan().assign.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
    // Measured before the node of a zone had joined.
    world.facts("a").disks = disks;
    world.facts("a").disks.as_mut().unwrap().remove("data-b");
    assert_eq!((world.plan().assign.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
}

#[test]
fn an_empty_cluster_that_is_being_set_up_is_waited_for() {
    let mut world = World::new(pool(2), &["a", "b"]);
    world.facts("b").settings.clear();
    assert_eq!((world.plan().assign.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
    world.0.cell.as_mut().unwrap().spec.clusters[1].placement =
        Some(searchcell_crds::ClusterPlacement::Closed);
    assert_eq!(world.plan().assign.len(), 2);
}

#[test]
fn a_third_cluster_moves_nothing() {
    let mut world = World::new(pool(12), &["a", "b"]);
    world.create();
    world.0.cell = Some(cell(&["a", "b", "c"]));
    world.0.elastic.insert("c".into(), Reading::Known(facts("c")));
    assert_eq!(world.plan().steps, []);
}

#[test]
fn a_big_tenant_gets_as_many_shards_as_its_documents_need() {
    let mut placement = pool(1);
    placement.spec.pool = None;
    placement.spec.dedicated = serde_json::from_value(
        json!({"tenants": [{"id": "81384788765712384", "expectedDocuments": 3_500_000_000_i64}]}),
    )
    .unwrap();
    let mut world = World::new(placement, &["a"]);
    assert_eq!(world.create(), 1);
    let status = world.status();
    assert_eq!((status.shards.unwrap().copies, status.tenants[0].shards), (12, 4));
    assert!(world.facts("a").indices.contains_key("messages.t.81384788765712384.g1"));
}

#[test]
fn nothing_is_created_while_a_cluster_cannot_be_read() {
    let mut world = World::new(pool(2), &["a", "b"]);
    world.0.elastic.insert("b".into(), Reading::Unavailable("no answer".into()));
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
    world.0.elastic.remove("b");
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
}

#[test]
fn nothing_is_created_before_awareness_is_set_and_zones_have_nodes() {
    let mut world = World::new(pool(2), &["a"]);
    world.facts("a").settings.clear();
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
    *world.facts("a") = facts("a");
    world.facts("a").nodes.remove("data-c");
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
}

#[test]
fn nothing_is_created_while_nodes_change_their_version() {
    let mut world = World::new(pool(2), &["a"]);
    world.facts("a").nodes.get_mut("data-c").unwrap().version = "9.6.0".to_owned();
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::CellNotReady]));
    for node in world.facts("a").nodes.values_mut() {
        node.version = "9.6.0".to_owned();
    }
    assert_eq!(world.reasons(), Vec::<Reason>::new());
}

#[test]
fn nothing_new_lands_on_a_closed_cluster() {
    let mut world = World::new(pool(4), &["a", "b"]);
    let close = |world: &mut World, n: usize| {
        world.0.cell.as_mut().unwrap().spec.clusters[n].placement =
            Some(searchcell_crds::ClusterPlacement::Closed);
    };
    close(&mut world, 0);
    let plan = world.plan();
    assert!(plan.assign.len() == 4 && plan.assign.values().all(|cluster| cluster == "b"), "{plan:?}");
    close(&mut world, 1);
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::NoOpenCluster]));
}

#[test]
fn an_index_without_our_mark_is_not_adopted() {
    let mut world = World::new(pool(2), &["a"]);
    world
        .indices("a")
        .insert("messages.p000.g1".into(), IndexFacts { primaries: 1, ..IndexFacts::default() });
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::ForeignIndex]));
    assert!(is_true(&world.status().conditions, "Stalled"));
}

#[test]
fn another_size_of_the_pool_needs_a_migration_and_creates_nothing() {
    for indices in [3, 5] {
        let mut world = World::new(pool(4), &["a"]);
        world.create();
        world.0.placement.spec.pool.as_mut().unwrap().indices = indices;
        assert!(world.plan().steps.is_empty());
        assert!(world.reasons().contains(&Reason::NeedsMigration), "{:?}", world.plan().holds);
    }
}

#[test]
fn a_lost_copy_degrades_a_lost_primary_is_not_ready() {
    let mut world = World::new(pool(1), &["a"]);
    world.create();
    let unassign = |world: &mut World, n: usize| {
        let copy = &mut world.indices("a").get_mut("messages.p000.g1").unwrap().copies[n];
        (copy.state, copy.node) = (ShardState::Unassigned, None);
    };
    unassign(&mut world, 2);
    let status = world.status();
    assert!(is_true(&status.conditions, "Ready"));
    assert_eq!(find(&status.conditions, "Degraded").unwrap().reason, "CopiesUnassigned");
    assert_eq!(status.problems[0].reason, "CopiesUnassigned");
    let said = Unassigned {
        index: "messages.p000.g1".into(),
        explanation: "the disks are full".into(),
        ..Unassigned::default()
    };
    world.facts("a").unassigned = Some(said);
    let told = world.status();
    assert!(told.problems[0].message.ends_with("Elasticsearch says: the disks are full"), "{told:#?}");
    assert!(find(&told.conditions, "Degraded").unwrap().message.contains("the disks are full"));
    unassign(&mut world, 0);
    assert_eq!(find(&world.status().conditions, "Ready").unwrap().reason, "PrimariesUnassigned");
}

#[test]
fn an_index_that_vanished_is_reported_by_name() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    world.0.placement.status = Some(world.status());
    world.indices("a").remove("messages.p001.g1");
    let status = world.status();
    assert_eq!(find(&status.conditions, "Ready").unwrap().reason, "IndexMissing");
    assert_eq!(status.problems[0].index, "messages.p001.g1");
    // It is not made anew, however often one looks, until it is back; nor after the cluster was away for a while.
    world.0.placement.status = Some(status);
    let facts = world.0.elastic.insert("a".into(), Reading::Unavailable("no answer".into())).unwrap();
    world.0.placement.status = Some(world.status());
    world.0.elastic.insert("a".into(), facts);
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::IndexMissing]));
}

#[test]
fn an_index_is_missing_only_where_its_cluster_was_read() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    let lists = |world: &World| {
        let at = &world.status().assignments[0];
        (at.indices.len(), at.missing.len())
    };
    let read = world.0.elastic.remove("a").unwrap();
    assert_eq!(lists(&world), (2, 0), "not asked");
    let cell = world.0.cell.take();
    let status = placement_status(&world.0, Err(&[]), &Plan::default(), &[], now());
    assert_eq!((status.assignments[0].indices.len(), status.assignments[0].missing.len()), (2, 0), "no cell");
    (world.0.cell, world.0.elastic) = (cell, BTreeMap::from([("a".to_owned(), read)]));
    world.indices("a").clear();
    world.facts("a").uuid = None;
    assert_eq!(lists(&world), (2, 0), "its state is not recovered yet");
    world.facts("a").uuid = Some("uuid-a".into());
    assert_eq!(lists(&world), (0, 2));
}

#[test]
fn a_cell_that_goes_with_its_volumes_leaves_a_placement_that_starts_anew() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    world.0.placement.status = Some(world.status());
    let cell = world.0.cell.as_mut().unwrap();
    cell.metadata.deletion_timestamp = Some(Time(now()));
    cell.spec.deletion_policy = DeletionPolicy::Delete;
    world.0.elastic.insert("a".into(), Reading::Unavailable("no answer".into()));
    world.0.placement.status = Some(world.status());
    world.0.cell = Some(self::cell(&["a"]));
    world.0.elastic.insert("a".into(), Reading::Known(facts("a")));
    assert_eq!(world.create(), 2);
}

#[test]
fn what_cannot_be_read_is_reported_as_it_was() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    let before = world.status();
    world.0.placement.status = Some(before.clone());
    world.0.elastic.insert("a".into(), Reading::Unavailable("no answer".into()));
    let status = world.status();
    assert_eq!(
        (status.indices, &status.shards, &status.clusters),
        (Some(2), &before.shards, &before.clusters)
    );
    assert_eq!(find(&status.conditions, "Ready").unwrap().reason, "Unreachable");
    assert_eq!(find(&status.conditions, "Degraded").unwrap().reason, "ClusterUnavailable");
}

#[test]
fn what_was_wrong_with_indices_stays_told_while_they_cannot_be_read() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    let count = IndexCounts { documents: 1, largest_shard_documents: 1_200_000_000, largest_shard_bytes: 1 };
    world.facts("a").counts = Some(BTreeMap::from([("messages.p001.g1".to_owned(), count)]).into());
    let before = world.status();
    assert_eq!(before.problems.len(), 1, "{before:#?}");
    world.0.placement.status = Some(before.clone());
    world.0.elastic.insert("a".into(), Reading::Unavailable("no answer".into()));
    assert_eq!(world.status().problems, before.problems);
}

#[test]
fn deletion_leaves_or_takes_the_indices_and_is_bounded() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    let names = |world: &World| -> Vec<&'static str> {
        plan_placement_deletion(&world.0, now()).steps.iter().map(|step| step.action.name()).collect()
    };
    let since = |minutes: i64| Some(Time(now() - jiff::SignedDuration::from_mins(minutes)));
    world.0.placement.metadata.deletion_timestamp = since(0);
    assert_eq!(names(&world), ["RemoveFinalizer"]);
    world.0.placement.spec.deletion_policy = DeletionPolicy::Delete;
    assert_eq!(names(&world), Vec::<&str>::new(), "the table lets go of them first");
    world.0.table = None;
    assert_eq!(names(&world), ["DeleteIndex", "DeleteIndex"]);
    world.0.elastic.insert("a".into(), Reading::Unavailable("no answer".into()));
    assert_eq!(names(&world), Vec::<&str>::new());
    world.0.placement.metadata.deletion_timestamp = since(10);
    assert_eq!(names(&world), ["RemoveFinalizer"]);
    world.0.placement.metadata.deletion_timestamp = since(0);
    let cell = world.0.cell.as_mut().unwrap();
    (cell.metadata.deletion_timestamp, cell.spec.deletion_policy) = (since(0), DeletionPolicy::Delete);
    assert_eq!(names(&world), ["RemoveFinalizer"], "the volumes go, and the indices with them");
}

#[test]
fn shards_past_a_limit_are_told_by_condition_and_by_name() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    let measure = |world: &mut World, documents: i64| {
        let count = IndexCounts { documents, largest_shard_documents: documents, largest_shard_bytes: 1 };
        let counts = BTreeMap::from([
            ("messages.p000.g1".to_owned(), IndexCounts::default()),
            ("messages.p001.g1".to_owned(), count),
        ]);
        world.facts("a").counts = Some(counts.into());
        world.0.placement.status = Some(world.status());
        let status = world.status();
        let told = find(&status.conditions, "ShardPressure").map(|c| (c.reason.clone(), c.message.clone()));
        (told, status.problems.first().map(|p| (p.index.clone(), p.reason.clone())), world.0.large_shards())
    };
    assert_eq!(measure(&mut world, 199_000_000), (None, None, Some(vec![])));
    for (documents, reason) in [
        (200_000_000, Reason::ShardLarge),
        (1_000_000_000, Reason::ShardVeryLarge),
        (1_932_735_167, Reason::ShardAlmostFull),
        (2_147_483_519, Reason::ShardFull),
    ] {
        let (condition, problem, metric) = measure(&mut world, documents);
        let (told, message) = condition.unwrap();
        assert_eq!((told.as_str(), metric), (reason.as_str(), Some(vec![reason])));
        assert!(message.contains("messages.p001.g1"), "{message}");
        assert_eq!(problem.unwrap(), ("messages.p001.g1".to_owned(), reason.as_str().to_owned()));
    }
    // What cannot be measured now is as it was.
    let before = world.status();
    world.facts("a").counts = None;
    let blind = world.status();
    assert_eq!(world.0.large_shards(), None);
    assert_eq!(find(&blind.conditions, "ShardPressure"), find(&before.conditions, "ShardPressure"));
    assert_eq!((&blind.growth, blind.growth.len()), (&before.growth, 1));
    assert!(is_true(&blind.conditions, "Ready"), "it serves");
}
