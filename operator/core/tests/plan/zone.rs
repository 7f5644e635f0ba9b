//! All data nodes of a zone in one step: when copies and capacity allow it, and why not, when they do not.

use std::sync::Arc;

use searchcell_core::snapshot::{ShardState, Shutdown, Shutdowns};
use searchcell_crds::{Operation, OperationKind, Reason};
use serde_json::json;

use crate::roll::{at_rest, set_all};
use crate::world::World;

/// Two data nodes in each zone, an index with a copy in each, and the template of the first zone written.
fn about_to_restart() -> World {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"]["data"]["perZone"] = json!(2);
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
    });
    world.facts().master = Some("guilds-a-master-a-0".to_owned());
    world.index("three", &["guilds-a-data-a-0", "guilds-a-data-b-0", "guilds-a-data-c-0"]);
    set_all(&mut world, 1);
    world.pass();
    world.controllers();
    world
}

fn next(world: &mut World) -> Operation {
    world.status().clusters[0].operation.clone().unwrap_or_else(|| panic!("{:#?}", world.plan()))
}

/// The step is one node, and its message has these words.
fn one_by_one(world: &mut World, words: &str) {
    let operation = next(world);
    assert_eq!((operation.kind, operation.nodes.len()), (OperationKind::RestartNode, 1));
    let message = operation.message.unwrap();
    assert!(message.contains(words), "{message}");
}

#[test]
fn a_zone_restarts_in_one_step() {
    let mut world = about_to_restart();
    let operation = next(&mut world);
    assert_eq!(operation.kind, OperationKind::RestartZone);
    assert_eq!(operation.zone.as_deref(), Some("b"));
    assert_eq!(operation.nodes, ["guilds-a-data-b-0", "guilds-a-data-b-1"]);
    assert_eq!(operation.message, None);
    world.pass();
    assert_eq!(world.pass(), ["restart guilds-a-data-b-0", "restart guilds-a-data-b-1"]);
}

#[test]
fn zone_after_zone_and_masters_one_by_one() {
    let mut world = about_to_restart();
    let did = world.roll();
    let restarts: Vec<&str> = did.iter().filter_map(|step| step.strip_prefix("restart guilds-a-")).collect();
    assert_eq!(
        restarts,
        [
            "data-b-0",
            "data-b-1",
            "data-c-0",
            "data-c-1",
            "data-a-0",
            "data-a-1",
            "master-b-0",
            "master-c-0",
            "master-a-0"
        ]
    );
}

#[test]
fn nodes_that_are_to_restart_one_by_one_do() {
    let mut world = about_to_restart();
    world.edit(|cell| cell["spec"]["rollout"] = json!({"unit": "Node"}));
    let operation = next(&mut world);
    assert_eq!((operation.kind, operation.message), (OperationKind::RestartNode, None));
}

#[test]
fn nodes_that_are_to_restart_together_wait_until_they_may() {
    let mut world = about_to_restart();
    world.edit(|cell| cell["spec"]["rollout"] = json!({"unit": "Zone"}));
    assert_eq!(next(&mut world).kind, OperationKind::RestartZone);
    world.index("two", &["guilds-a-data-a-0", "guilds-a-data-b-0"]);
    assert_eq!(world.gates(), [Reason::ZoneNotSpared]);
    assert_eq!(world.status().clusters[0].operation, None);
}

#[test]
fn with_one_replica_they_restart_one_by_one_and_the_reason_is_told() {
    let mut world = about_to_restart();
    world.index("two", &["guilds-a-data-a-0", "guilds-a-data-b-0"]);
    one_by_one(&mut world, "shards of two have fewer than 2 started copies in other zones");
}

/// As `.security-7` has it: there are never more than two copies.
#[test]
fn an_index_that_elasticsearch_gives_one_replica_needs_one_copy_elsewhere() {
    let mut world = about_to_restart();
    world.index("two", &["guilds-a-data-a-0", "guilds-a-data-b-0"]);
    let expand = |world: &mut World, range: &str| {
        let index = Arc::make_mut(&mut world.facts().indices).get_mut("two").unwrap();
        index.settings.insert("index.auto_expand_replicas".to_owned(), json!(range));
    };
    expand(&mut world, "0-1");
    assert_eq!(next(&mut world).kind, OperationKind::RestartZone);
    for range in ["0-all", "0-5", "false"] {
        expand(&mut world, range);
        one_by_one(&mut world, "two");
    }
}

#[test]
fn copies_in_the_same_zone_and_copies_that_are_not_started_do_not_count() {
    let mut world = about_to_restart();
    world.index("same", &["guilds-a-data-a-0", "guilds-a-data-b-0", "guilds-a-data-b-1"]);
    one_by_one(&mut world, "same");
    let mut world = about_to_restart();
    // One that is new is waited for by nobody, and is no copy.
    let facts = world.facts();
    let index = Arc::make_mut(&mut facts.indices).get_mut("three").unwrap();
    index.copies[2].state = ShardState::Unassigned;
    index.copies[2].node = None;
    index.copies[2].new_since = Some(jiff::Timestamp::UNIX_EPOCH);
    one_by_one(&mut world, "three");
}

#[test]
fn those_that_stay_have_to_carry_what_the_others_leave() {
    let mut world = about_to_restart();
    for load in world.facts().loads.as_mut().unwrap().values_mut() {
        load.cpu_percent = 56;
    }
    assert_eq!(next(&mut world).kind, OperationKind::RestartZone, "56 % of six are 84 % of four");
    for load in world.facts().loads.as_mut().unwrap().values_mut() {
        load.cpu_percent = 57;
    }
    one_by_one(&mut world, "85 % of their CPU");
    let mut world = about_to_restart();
    world.facts().loads.as_mut().unwrap().get_mut("guilds-a-data-c-1").unwrap().heap_percent = 86;
    one_by_one(&mut world, "guilds-a-data-c-1 uses more than 85 % of its heap");
    let mut world = about_to_restart();
    world.facts().disks.as_mut().unwrap().get_mut("guilds-a-data-c-1").unwrap().available = 14;
    one_by_one(&mut world, "disk of guilds-a-data-c-1 is fuller than");
    let mut world = about_to_restart();
    world.facts().loads = None;
    one_by_one(&mut world, "not known how busy");
}

#[test]
fn masters_that_do_not_vote_and_leftovers_of_others_stand_in_the_way() {
    let mut world = about_to_restart();
    world.facts().voting.remove("guilds-a-master-c-0");
    one_by_one(&mut world, "voting configuration");
    let mut world = about_to_restart();
    world.facts().settings.insert("cluster.routing.allocation.exclude._name".to_owned(), json!("x"));
    one_by_one(&mut world, "cluster.routing.allocation.exclude._name");
    let mut world = about_to_restart();
    let Shutdowns::Known(records) = &mut world.facts().shutdowns else { panic!() };
    records.insert("x".to_owned(), Shutdown { kind: "REMOVE".into(), reason: "theirs".into() });
    one_by_one(&mut world, "somebody else");
}

/// One of two pods could be deleted, and the other could not: the second waits until the first is back.
#[test]
fn what_was_done_in_part_is_finished_and_decided_anew() {
    let mut world = about_to_restart();
    world.pass();
    world.snapshot.objects.pods.retain(|pod| pod.metadata.name.as_deref() != Some("guilds-a-data-b-0"));
    assert_eq!(world.pass(), Vec::<String>::new());
    assert!(world.plan().holds[0].message.contains("guilds-a-data-b-0 restarts"), "{:?}", world.plan().holds);
    world.controllers();
    assert_eq!(next(&mut world).nodes, ["guilds-a-data-b-1"]);
}
