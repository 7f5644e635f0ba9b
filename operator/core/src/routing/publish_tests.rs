//! When a table is published, with which number, and what it says.

use searchcell_crds::{IndexPlacementStatus, PlacementAssignment};
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn placement(name: &str, minute: u32, spec: serde_json::Value) -> IndexPlacement {
    let mut spec = spec;
    spec["collection"] = json!("messages");
    spec["tenant"] = json!({"field": "guild_id"});
    serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": name, "namespace": "search", "uid": format!("uid-{name}"),
                     "creationTimestamp": format!("2026-11-21T12:{minute:02}:00Z")},
        "spec": spec, "status": {"observedGeneration": 1},
    }))
    .unwrap()
}

fn assign(placement: &mut IndexPlacement, cluster: &str, change: impl FnOnce(&mut PlacementAssignment)) {
    let status = placement.status.get_or_insert_default();
    let list = &mut status.assignments;
    if !list.iter().any(|known| known.cluster == cluster) {
        list.push(PlacementAssignment { cluster: cluster.into(), ..PlacementAssignment::default() });
    }
    change(list.iter_mut().find(|known| known.cluster == cluster).unwrap());
}

/// A pool of four on two clusters, and a tenant of its own in another cell.
fn world() -> TableSnapshot {
    let mut pool = placement("pool", 0, json!({"cell": "guilds", "pool": {"indices": 4}}));
    for (n, cluster) in [(0, "guilds-a"), (1, "guilds-b"), (2, "guilds-a"), (3, "guilds-b")] {
        assign(&mut pool, cluster, |at| at.indices.push(format!("messages.p{n:03}.g1")));
    }
    let tenants = json!([{"id": "42", "expectedDocuments": 10}]);
    let mut bfg = placement("bfg", 1, json!({"cell": "bfg", "dedicated": {"tenants": tenants}}));
    assign(&mut bfg, "bfg-a", |at| at.indices.push("messages.t.42.g1".into()));
    let cell = |name: &str, mode: &str| -> (String, SearchCell) {
        let cell = json!({
            "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
            "metadata": {"name": name, "namespace": "search"},
            "spec": {"version": "9.5.3", "zones": [{"name": "a"}], "clusters": [{"name": "a"}], "security": {"mode": mode},
                     "nodes": {"master": {"count": 1, "storage": {"size": "1Gi"}}, "data": {"perZone": 1, "storage": {"size": "1Gi"}}}},
        });
        (name.into(), serde_json::from_value(cell).unwrap())
    };
    TableSnapshot {
        last: None,
        namespace: "search".into(),
        collection: "messages".into(),
        placements: vec![pool, bfg],
        cells: [cell("guilds", "Managed"), cell("bfg", "Disabled")].into(),
        published: None,
    }
}

/// Plans, and lets the API server take the write in.
fn publish(snapshot: &mut TableSnapshot, now: i64) -> Option<Table> {
    let plan = plan_table(snapshot, at(now));
    assert!(plan.holds.is_empty(), "{:?}", plan.holds);
    let object = match plan.steps.as_slice() {
        [] => return None,
        [Step { action: Action::Create(object), .. }] if snapshot.published.is_none() => object,
        [Step { action: Action::Apply { object, .. }, .. }] if snapshot.published.is_some() => object,
        other => panic!("{other:?}"),
    };
    let Object::ConfigMap(map) = object else { panic!("{object:?}") };
    let mut map = map.clone();
    (map.metadata.uid, map.metadata.resource_version) = (Some("uid-table".into()), Some(now.to_string()));
    let published = Published::read(&map);
    snapshot.published = Some(published.clone());
    published.table
}

fn read(table: &Table, tenant: &str) -> String {
    let index = table.lookup(tenant).and_then(|to| to.read).and_then(|at| table.index(at));
    index.map_or("nowhere".into(), |(index, cluster)| format!("{} on {}", index.name, cluster.name))
}

fn held(snapshot: &TableSnapshot) -> Reason {
    let plan = plan_table(snapshot, at(NOW + 99));
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    plan.holds[0].reason
}

#[test]
fn a_collection_over_two_cells_is_one_table() {
    let mut world = world();
    let table = publish(&mut world, NOW).unwrap();
    assert_eq!((table.generation, table.slots.len(), table.indices.len()), (NOW, 4, 5));
    assert_eq!(read(&table, "42"), "messages.t.42.g1 on bfg-a");
    // slot 6010 of 16384
    assert_eq!(read(&table, "81384788765712384"), "messages.p001.g1 on guilds-b");
    let secure = |name: &str| table.clusters.iter().find(|c| c.name == name).unwrap().ca_config_map.is_some();
    assert!(secure("guilds-a") && !secure("bfg-a"));
    let meta = &world.published.as_ref().unwrap().metadata;
    assert_eq!(meta.name.as_deref(), Some("routes-messages"));
    assert_eq!(label(meta, LABEL_COLLECTION), Some("messages"));
    assert_eq!(controller_of(&world), "uid-pool");
}

#[test]
fn a_number_that_was_told_to_nobody_but_clients_is_not_used_twice() {
    let mut world = world();
    let first = publish(&mut world, NOW).unwrap().generation;
    // Deleted before any status has its number, with other places since.
    (world.published, world.last) = (None, Some(first));
    assign(&mut world.placements[0], "guilds-a", |at| at.missing.push(at.indices.remove(0)));
    assert_eq!(publish(&mut world, NOW).unwrap().generation, first + 1);
    // It is no reason to publish what is published.
    world.last = Some(first + 7);
    assert_eq!(publish(&mut world, NOW), None);
}

#[test]
fn it_is_published_on_change_only_and_its_number_ascends() {
    let mut world = world();
    publish(&mut world, NOW);
    assert_eq!(publish(&mut world, NOW + 60), None, "nothing changed");
    world.placements.reverse();
    assert_eq!(publish(&mut world, NOW + 60), None, "the order says nothing");
    assign(&mut world.placements[1], "guilds-a", |at| at.missing.push(at.indices.remove(0)));
    assert_eq!(
        publish(&mut world, NOW - 5_000).unwrap().generation,
        NOW + 1,
        "also when the clock goes back"
    );
    assert_eq!(publish(&mut world, NOW + 60), None);
    // Deleted by hand: the placements remember the number.
    world.published = None;
    world.placements[0].status.as_mut().unwrap().table_generation = Some(NOW + 1);
    assert_eq!(publish(&mut world, NOW - 5_000).unwrap().generation, NOW + 2);
    // Deleted, and the statuses are older: the clock has gone on.
    world.published = None;
    assert_eq!(publish(&mut world, NOW + 60).unwrap().generation, NOW + 60);
}

#[test]
fn what_somebody_edits_is_published_again() {
    let mut world = world();
    publish(&mut world, NOW);
    let whole = world.published.clone().unwrap();
    let edits: [fn(&mut Published); 4] = [
        |live| live.digest[0] ^= 1,
        |live| live.table = None,
        |live| live.table.as_mut().unwrap().generation = 5,
        |live| live.table.as_mut().unwrap().generation += 1_000,
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let mut broken = whole.clone();
        edit(&mut broken);
        world.published = Some(broken);
        world.placements[0].status.as_mut().unwrap().table_generation = Some(NOW);
        let table = publish(&mut world, NOW + 1).unwrap();
        let expected = if n == 3 { NOW + 1_001 } else { NOW + 1 };
        assert_eq!(table.generation, expected, "edit {n}");
        assert_eq!(publish(&mut world, NOW + 9), None, "edit {n}");
    }
    // Labels and owners are put right, and the table keeps its number.
    world.published.as_mut().unwrap().metadata.owner_references = None;
    assert_eq!(publish(&mut world, NOW + 9).unwrap().generation, NOW + 1_001);
}

#[test]
fn it_names_only_what_has_been_seen() {
    let mut world = world();
    assign(&mut world.placements[0], "guilds-a", |at| at.pending.push(at.indices.remove(0)));
    assign(&mut world.placements[1], "bfg-a", |at| at.pending.push(at.indices.remove(0)));
    let table = publish(&mut world, NOW).unwrap();
    assert_eq!((table.slots.len(), table.indices.len()), (0, 0), "the pool is not whole yet");
    assert!(table.overrides["42"].to.is_nowhere());
    assign(&mut world.placements[0], "guilds-a", |at| at.indices.append(&mut at.pending));
    let table = publish(&mut world, NOW + 1).unwrap();
    assert_eq!((table.slots.len(), read(&table, "42")), (4, "nowhere".into()), "and not in the pool");
    assign(&mut world.placements[1], "bfg-a", |at| at.indices.append(&mut at.pending));
    assert_eq!(read(&publish(&mut world, NOW + 2).unwrap(), "42"), "messages.t.42.g1 on bfg-a");
    // Lost ones are nowhere, and all others stay where they are.
    assign(&mut world.placements[0], "guilds-b", |at| at.missing.push(at.indices.remove(0)));
    let table = publish(&mut world, NOW + 3).unwrap();
    assert_eq!((table.slots.len(), table.indices.len()), (4, 4));
    assert_eq!(read(&table, "81384788765712384"), "nowhere");
}

#[test]
fn a_status_that_is_lost_changes_no_table() {
    let mut world = world();
    publish(&mut world, NOW);
    for lost in [None, Some(IndexPlacementStatus { observed_generation: Some(-1), ..Default::default() })] {
        world.placements[0].status = lost;
        assert_eq!(held(&world), Reason::TableNotReady);
    }
    // Read again, but for a cluster that does not answer.
    let looked_at = || Some(IndexPlacementStatus { observed_generation: Some(1), ..Default::default() });
    world.placements[0].status = looked_at();
    assert_eq!(held(&world), Reason::TableNotReady);
    assign(&mut world.placements[0], "guilds-a", |at| at.indices.push("messages.p000.g1".into()));
    assert_eq!(held(&world), Reason::TableNotReady);
    *world.placements.first_mut().unwrap() = self::world().placements.remove(0);
    world.placements[1].status = looked_at();
    assert_eq!(publish(&mut world, NOW + 1), None, "the tenant is where it was");
}

#[test]
fn another_number_of_indices_in_the_spec_moves_no_tenant() {
    let mut world = world();
    publish(&mut world, NOW);
    world.placements[0].spec.pool.as_mut().unwrap().indices = 8;
    assert_eq!(publish(&mut world, NOW + 1), None);
}

#[test]
fn of_two_that_exclude_each_other_the_older_is_in_force() {
    let mut world = world();
    publish(&mut world, NOW);
    let younger = placement("younger", 30, json!({"cell": "guilds", "pool": {"indices": 2}}));
    world.placements.insert(0, younger);
    let table = publish(&mut world, NOW + 1).unwrap();
    assert_eq!((table.generation, table.slots.len()), (NOW, 4), "another owner, the same table");
}

#[test]
fn what_goes_leaves_the_table_first() {
    let mut world = world();
    publish(&mut world, NOW);
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW));
    world.placements[1].metadata.deletion_timestamp = Some(time.clone());
    let table = publish(&mut world, NOW + 1).unwrap();
    assert!(table.overrides.is_empty() && table.slots.len() == 4);
    world.placements[0].metadata.deletion_timestamp = Some(time);
    let table = publish(&mut world, NOW + 2).unwrap();
    assert!(table.indices.is_empty() && table.slots.is_empty());
    world.placements.clear();
    assert_eq!(publish(&mut world, NOW + 3), None, "it goes with its owners");
}

#[test]
fn what_stands_in_the_way_is_said() {
    let mut world = world();
    world.cells.get_mut("bfg").unwrap().spec.suspend = true;
    assert_eq!(held(&world), Reason::Suspended);
    world.cells.remove("bfg");
    assert_eq!(held(&world), Reason::CellNotFound);
    world = self::world();
    world.published = Some(Published::default());
    assert_eq!(held(&world), Reason::NameConflict, "somebody else's object");
}
