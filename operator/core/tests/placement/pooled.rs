//! Tenants that ask for an index of their own while the pool may have documents of theirs.

use searchcell_core::placement::to_count;
use searchcell_core::snapshot::Reading;
use searchcell_crds::conditions::find;
use searchcell_crds::{IndexPlacementStatus, PlacementAssignment, Reason};
use serde_json::json;

use super::world::{World, pool};

const TENANT: &str = "42";

/// A pool of two in another cell, published, and a placement with two dedicated tenants.
fn dedicating() -> World {
    let mut pooled = World::new(pool(2), &["a"]);
    pooled.create();
    let mut placement = pool(1);
    placement.metadata.name = Some("big".into());
    placement.spec.pool = None;
    placement.spec.dedicated = serde_json::from_value(json!({"tenants": [
        {"id": TENANT, "expectedDocuments": 10}, {"id": "77", "expectedDocuments": 10},
    ]}))
    .unwrap();
    let mut world = World::new(placement, &["a"]);
    let mut sibling = pooled.0.placement.clone();
    // As if the pool were in another cell, which is not the one that is read here.
    for at in &mut sibling.status.as_mut().unwrap().assignments {
        at.cluster = "pools-a".into();
    }
    sibling.spec.cell = "pools".into();
    world.0.siblings.push(sibling);
    world.0.table = pooled.0.table.clone();
    world
}

fn counted(world: &mut World, documents: &[(&str, u64)]) {
    world.0.pooled =
        documents.iter().map(|(tenant, count)| ((*tenant).to_owned(), Reading::Known(*count))).collect();
}

fn pending(world: &World) -> Vec<String> {
    let status = world.0.placement.status.as_ref().unwrap();
    status.assignments.iter().flat_map(|PlacementAssignment { pending, .. }| pending.clone()).collect()
}

#[test]
fn what_is_not_counted_is_not_assumed() {
    let world = dedicating();
    assert_eq!(world.reasons(), [Reason::CellNotReady; 2]);
    assert!(world.plan().assign.is_empty() && world.plan().steps.is_empty());
    let asked = to_count(&world.0, &world.valid());
    let indices: Vec<(&str, &str)> =
        asked.iter().map(|count| (count.index.as_str(), count.cluster.cell.as_str())).collect();
    assert!(indices.iter().all(|(name, cell)| name.starts_with("messages.p00") && *cell == "pools"));
    assert_eq!(asked.iter().map(|count| count.tenants.len()).sum::<usize>(), 2);
    assert!(asked.iter().all(|count| !count.is_last));
}

#[test]
fn documents_in_the_pool_need_a_migration_and_keep_nobody_else_waiting() {
    let mut world = dedicating();
    counted(&mut world, &[(TENANT, 3), ("77", 0)]);
    assert_eq!(world.reasons(), [Reason::NeedsMigration]);
    assert!(world.plan().holds[0].message.contains("tenant 42 has documents in the pool"));
    assert_eq!(world.plan().assign.keys().collect::<Vec<_>>(), ["messages.t.77.g1"]);

    // The other one gets its index.
    world.record();
    world.publish();
    assert!(to_count(&world.0, &world.valid()).iter().any(|count| count.is_last));
    let plan = world.plan();
    assert_eq!(plan.steps.len(), 1, "{plan:?}");
    let status = world.status();
    let stalled = find(&status.conditions, "Stalled").unwrap();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "NeedsMigration"));

    // The tenant whose documents were deleted gets it, too.
    counted(&mut world, &[(TENANT, 0), ("77", 0)]);
    assert_eq!(world.plan().assign.keys().collect::<Vec<_>>(), ["messages.t.42.g1"]);
}

#[test]
fn an_index_waits_until_the_table_takes_its_tenant_out_of_the_pool() {
    let mut world = dedicating();
    counted(&mut world, &[(TENANT, 0), ("77", 0)]);
    world.record();
    assert_eq!(pending(&world).len(), 2);
    assert_eq!(world.reasons(), [Reason::TableNotReady; 2], "the table still sends them to the pool");
    assert!(world.plan().steps.is_empty());
    let published_before = world.0.table.take();
    assert_eq!(world.reasons(), [Reason::TableNotReady; 2], "a client may have a table that is gone");
    world.0.table = published_before;

    world.publish();
    let table = world.0.table.as_ref().unwrap().table.as_ref().unwrap();
    assert!(table.lookup(TENANT).unwrap().is_nowhere());
    assert_eq!((world.reasons(), world.plan().steps.len()), (vec![], 2));

    // Something came meanwhile: it goes back to the pool, and so does its tenant.
    counted(&mut world, &[(TENANT, 1), ("77", 0)]);
    assert_eq!((world.reasons(), world.plan().steps.len()), (vec![Reason::NeedsMigration], 1));
    world.0.placement.status = Some(world.status());
    assert_eq!(pending(&world), ["messages.t.77.g1"]);
    world.publish();
    let table = world.0.table.as_ref().unwrap().table.as_ref().unwrap();
    assert!(!table.lookup(TENANT).unwrap().is_nowhere());
}

#[test]
fn ready_is_said_of_what_is_there() {
    let mut world = dedicating();
    counted(&mut world, &[(TENANT, 3), ("77", 3)]);
    let ready = |status: &IndexPlacementStatus| {
        let ready = find(&status.conditions, "Ready").unwrap();
        (ready.status.clone(), ready.reason.clone())
    };
    assert_eq!(ready(&world.status()), ("False".into(), "NeedsMigration".into()));
    counted(&mut world, &[(TENANT, 3), ("77", 0)]);
    world.record();
    world.publish();
    world.create();
    world.publish();
    assert_eq!(ready(&world.status()), ("True".into(), "Serving".into()));
}

#[test]
fn where_there_is_no_pool_nothing_is_counted() {
    let mut world = dedicating();
    world.0.siblings.clear();
    world.0.table = None;
    assert!(to_count(&world.0, &world.valid()).is_empty());
    assert_eq!((world.reasons(), world.plan().assign.len()), (vec![], 2));
}

#[test]
fn an_index_of_the_pool_that_is_gone_may_come_back_with_documents() {
    let mut world = dedicating();
    counted(&mut world, &[(TENANT, 0), ("77", 0)]);
    let status = world.0.siblings[0].status.as_mut().unwrap();
    for at in &mut status.assignments {
        at.missing = std::mem::take(&mut at.indices);
    }
    assert!(to_count(&world.0, &world.valid()).is_empty());
    assert_eq!(world.reasons(), [Reason::CellNotReady; 2]);
}
