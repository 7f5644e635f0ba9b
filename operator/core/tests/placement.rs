//! The plan of a placement, and the status that goes with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_core::build::index_inputs;
use searchcell_core::domain::ValidPlacement;
use searchcell_core::names::{FINALIZER, OWNED_SETTINGS};
use searchcell_core::placement::{
    PlacementSnapshot, placement_status, plan_placement, plan_placement_deletion,
};
use searchcell_core::routing::{Published, TableSnapshot, plan_table};
use searchcell_core::snapshot::{
    ElasticFacts, ElasticNode, IndexFacts, NodeDisk, OwnershipMark, Reading, ShardCopy, ShardState,
};
use searchcell_core::step::{Action, Object, Outcome, Plan};
use searchcell_core::validate::validate_placement;
use searchcell_crds::conditions::{find, is_true};
use searchcell_crds::{
    DeletionPolicy, IndexPlacement, IndexPlacementStatus, PlacementAssignment, Reason, SearchCell,
};
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn cell(clusters: &[&str]) -> SearchCell {
    let list = |make: fn(&str) -> Value| clusters.iter().map(|name| make(name)).collect::<Vec<Value>>();
    serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
        "metadata": {"name": "guilds", "namespace": "search"},
        "spec": {
            "version": "9.5.3", "zones": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "clusters": list(|name| json!({"name": name})),
            "nodes": {"master": {"count": 3, "storage": {"size": "1Gi"}}, "data": {"perZone": 1, "storage": {"size": "1Gi"}}},
            "security": {"mode": "Disabled"},
        },
        "status": {"clusters": list(|name| json!({"name": name, "uuid": format!("uuid-{name}"), "phase": "Ready"}))},
    }))
    .unwrap()
}

fn pool(indices: i32) -> IndexPlacement {
    serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": "messages", "namespace": "search", "uid": "u", "generation": 1, "finalizers": [FINALIZER]},
        "spec": {"cell": "guilds", "collection": "messages", "tenant": {"field": "guild_id"}, "pool": {"indices": indices}},
    }))
    .unwrap()
}

fn facts(cluster: &str) -> ElasticFacts {
    let node = |zone: &str| {
        let node = ElasticNode {
            version: "9.5.3".into(),
            roles: vec!["data".into()],
            zone: Some(zone.into()),
            id: zone.into(),
        };
        (format!("data-{zone}"), node)
    };
    ElasticFacts {
        uuid: Some(format!("uuid-{cluster}")),
        master: Some("m".into()),
        nodes: ["a", "b", "c"].into_iter().map(node).collect(),
        settings: BTreeMap::from([
            ("cluster.routing.allocation.awareness.attributes".into(), json!("zone")),
            (OWNED_SETTINGS.into(), json!("x")),
        ]),
        counts: Some(BTreeMap::new()),
        disks: Some(
            ["a", "b", "c"]
                .into_iter()
                .map(|zone| (format!("data-{zone}"), NodeDisk { total: 1 << 40, available: 1 << 39 }))
                .collect(),
        ),
        ..ElasticFacts::default()
    }
}

struct World(PlacementSnapshot);

impl World {
    fn new(placement: IndexPlacement, clusters: &[&str]) -> Self {
        let elastic = clusters.iter().map(|name| ((*name).to_owned(), Reading::Known(facts(name)))).collect();
        let cell = Some(cell(clusters));
        World(PlacementSnapshot { placement, cell, siblings: vec![], table: None, elastic })
    }

    fn valid(&self) -> ValidPlacement {
        validate_placement(&self.0.placement, self.0.cell.as_ref(), &self.0.siblings).unwrap()
    }

    fn plan(&self) -> Plan {
        plan_placement(&self.valid(), &self.0, now())
    }

    fn facts(&mut self, cluster: &str) -> &mut ElasticFacts {
        match self.0.elastic.get_mut(cluster).unwrap() {
            Reading::Known(facts) => facts,
            Reading::Unavailable(why) => panic!("{why}"),
        }
    }

    fn status(&self) -> IndexPlacementStatus {
        let plan = self.plan();
        placement_status(&self.0, Ok(&self.valid()), &plan, &vec![Outcome::Done; plan.steps.len()], now())
    }

    /// Records what the plan decides, as the end of a pass does.
    fn record(&mut self) -> Plan {
        self.0.placement.status = Some(self.status());
        self.plan()
    }

    /// Decides, records and creates what the placement asks for, with a started copy in each zone.
    fn create(&mut self) -> usize {
        let plan = self.record();
        for step in &plan.steps {
            let Action::CreateIndex { name, body } = &step.action else { panic!("{step:?}") };
            let number = |key: &str| i32::try_from(body["settings"][key].as_i64().unwrap()).unwrap();
            let (primaries, replicas) =
                (number("index.number_of_shards"), number("index.number_of_replicas"));
            let mark: OwnershipMark =
                serde_json::from_value(body["mappings"]["_meta"]["searchcell"].clone()).unwrap();
            let copies = (0..primaries).flat_map(|shard| {
                ["a", "b", "c"].into_iter().take(replicas as usize + 1).enumerate().map(move |(n, zone)| {
                    ShardCopy {
                        shard,
                        primary: n == 0,
                        state: ShardState::Started,
                        node: Some(format!("data-{zone}")),
                        new_since: None,
                    }
                })
            });
            let index = IndexFacts {
                uuid: name.clone(),
                primaries,
                replicas,
                mark: Some(mark),
                copies: copies.collect(),
            };
            self.facts(step.cluster.as_deref().unwrap()).indices.insert(name.clone(), index);
        }
        self.publish();
        plan.steps.len()
    }

    /// Publishes the table, as its own pass does.
    fn publish(&mut self) {
        self.0.placement.status = Some(self.status());
        let snapshot = TableSnapshot {
            namespace: "search".into(),
            collection: "messages".into(),
            placements: vec![self.0.placement.clone()],
            cells: self.0.cell.iter().map(|cell| ("guilds".to_owned(), cell.clone())).collect(),
            published: self.0.table.as_deref().cloned(),
        };
        for step in plan_table(&snapshot, now()).steps {
            let (Action::Create(Object::ConfigMap(map))
            | Action::Apply { object: Object::ConfigMap(map), .. }) = step.action
            else {
                panic!("not a table")
            };
            self.0.table = Some(Arc::new(Published::read(&map)));
        }
        self.0.placement.status = Some(self.status());
    }

    fn reasons(&self) -> Vec<Reason> {
        self.plan().holds.iter().map(|hold| hold.reason).collect()
    }
}

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
    world.facts("a").indices.insert("other".into(), IndexFacts { primaries: 9, ..IndexFacts::default() });
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
    world.facts("a").disks = None;
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
        .facts("a")
        .indices
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
fn changed_mappings_and_replicas_are_held() {
    let mut world = World::new(pool(1), &["a"]);
    world.create();
    let before = index_inputs(&world.valid());
    world.0.placement.spec.index =
        serde_json::from_value(json!({"mappings": {"properties": {"x": {"type": "keyword"}}}})).unwrap();
    assert_ne!(before, index_inputs(&world.valid()));
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::NotSupportedYet]));
    world.0.placement.spec.index = None;
    world.0.placement.spec.replicas = Some(0);
    assert_eq!((world.plan().steps.len(), world.reasons()), (0, vec![Reason::NotSupportedYet]));
}

#[test]
fn a_lost_copy_degrades_a_lost_primary_is_not_ready() {
    let mut world = World::new(pool(1), &["a"]);
    world.create();
    let unassign = |world: &mut World, n: usize| {
        let copy = &mut world.facts("a").indices.get_mut("messages.p000.g1").unwrap().copies[n];
        (copy.state, copy.node) = (ShardState::Unassigned, None);
    };
    unassign(&mut world, 2);
    let status = world.status();
    assert!(is_true(&status.conditions, "Ready"));
    assert_eq!(find(&status.conditions, "Degraded").unwrap().reason, "CopiesUnassigned");
    assert_eq!(status.problems[0].reason, "CopiesUnassigned");
    unassign(&mut world, 0);
    assert_eq!(find(&world.status().conditions, "Ready").unwrap().reason, "PrimariesUnassigned");
}

#[test]
fn an_index_that_vanished_is_reported_by_name() {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    world.0.placement.status = Some(world.status());
    world.facts("a").indices.remove("messages.p001.g1");
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
    world.facts("a").indices.clear();
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
