//! Rollouts over the clusters of a cell: the canary, the brake, soaking, approvals; and other versions.

use jiff::SignedDuration;
use searchcell_core::plan::Disruption;
use searchcell_core::snapshot::{Reading, ShardState};
use searchcell_crds::{Reason, RolloutPhase, RolloutReason};
use serde_json::json;

use crate::roll::{at_rest, set_all};
use crate::world::World;

/// A cell of two clusters whose nodes are to restart, all the same.
fn two(rollout: serde_json::Value) -> World {
    let mut world = at_rest(|cell| {
        cell["spec"]["clusters"] = json!([{"name": "a"}, {"name": "b"}]);
        cell["spec"]["rollout"] = rollout;
    });
    set_all(&mut world, 1);
    world
}

/// Which clusters are touched by what is done, in order.
fn clusters_of(did: &[String]) -> Vec<&str> {
    let cluster = |step: &String| if step.contains("guilds-a-") { "a" } else { "b" };
    let mut clusters: Vec<&str> = did.iter().map(cluster).collect();
    clusters.dedup();
    clusters
}

/// One pass, and what Kubernetes does after it.
fn step(world: &mut World, seconds: i64) -> Vec<String> {
    let did = world.pass();
    world.controllers();
    world.now += SignedDuration::from_secs(seconds);
    did
}

#[test]
fn one_cluster_follows_the_other_as_the_spec_has_them() {
    assert_eq!(clusters_of(&two(json!({})).roll()), ["a", "b"]);
}

#[test]
fn the_canary_goes_first() {
    assert_eq!(clusters_of(&two(json!({"canary": "b"})).roll()), ["b", "a"]);
}

#[test]
fn with_room_for_two_both_go_at_once() {
    let mut world = two(json!({"maxUnavailableClusters": 2}));
    assert_eq!(clusters_of(&world.pass()), ["a", "b"]);
    // But not before the canary.
    let mut world = two(json!({"maxUnavailableClusters": 2, "canary": "b"}));
    assert_eq!(clusters_of(&world.pass()), ["b"]);
    assert_eq!(world.status().rollout.unwrap().phase, RolloutPhase::Canary);
}

/// Another cell, with a cluster of which this many of two nodes are updated, and whose next restart is recorded.
fn other_cell(name: &str, updated: i32, recorded: jiff::Timestamp) -> Vec<Disruption> {
    let other = json!({
        "metadata": {"namespace": "search", "name": name},
        "spec": {"version": "9.5.3", "zones": [{"name": "a"}], "clusters": [{"name": "a"}],
            "nodes": {"master": {"count": 1, "storage": {"size": "1Gi"}}, "data": {"perZone": 1, "storage": {"size": "1Gi"}}}},
        "status": {"rollout": {"id": "1", "phase": "Rolling", "reason": "SpecChange", "clustersDone": 0, "clustersTotal": 1},
            "clusters": [{"name": "a", "phase": "Rolling", "nodes": {"ready": 2, "total": 2, "updated": updated},
                "operation": {"kind": "RestartNode", "nodes": ["n"], "uids": ["u"], "startedAt": recorded.to_string()}}]},
    });
    Disruption::of_cell(&serde_json::from_value(other).unwrap())
}

#[test]
fn of_all_cells_few_clusters_change_at_a_time() {
    let mut world = two(json!({"maxUnavailableClusters": 2}));
    world.snapshot.most_disruptions = 2;
    let (now, soon) = (world.now, world.now + SignedDuration::from_secs(1));
    world.snapshot.disruptions = [other_cell("x", 1, now), other_cell("y", 0, now)].concat();
    world.now = soon;
    assert_eq!(world.pass(), Vec::<String>::new());
    assert_eq!(world.gates(), [Reason::AnotherCell; 2]);
    let plan = world.plan();
    let message = &plan.holds[0].message;
    assert!(message.contains("is 2: nodes of search/x-a, search/y-a restart first"), "{message}");
    assert_eq!(plan.wake_after.as_secs(), 10);
    assert!(plan.operations.values().all(Option::is_none));

    world.snapshot.disruptions.pop();
    assert_eq!(clusters_of(&world.pass()), ["a", "b"], "templates are no disruption");
    world.controllers();
    world.pass();
    // Both have recorded their first restart, as this operator knows; one of them is one too many.
    world.snapshot.disruptions.extend(Disruption::of_cell(&world.snapshot.cell));
    assert_eq!(world.snapshot.disruptions.len(), 3);
    assert_eq!(world.gates(), [Reason::AnotherCell]);
    let operations = world.plan().operations;
    assert!(operations["a"].is_some() && operations["b"].is_none(), "{operations:#?}");
}

/// Everything of the first cluster is done.
fn first_is_done(rollout: serde_json::Value) -> World {
    let mut world = two(rollout);
    for _ in 0..200 {
        step(&mut world, 2);
        if world.status().rollout.unwrap().clusters_done == 1 {
            return world;
        }
    }
    panic!("{:#?}", world.plan());
}

#[test]
fn the_second_waits_until_the_first_has_soaked() {
    let mut world = first_is_done(json!({"canary": "a", "soak": "90s"}));
    assert_eq!(step(&mut world, 0), Vec::<String>::new());
    assert_eq!(world.gates(), [Reason::Soaking]);
    assert_eq!(world.status().rollout.unwrap().phase, RolloutPhase::Canary);
    world.now += SignedDuration::from_secs(80);
    assert_eq!(world.gates(), [Reason::Soaking]);
    world.now += SignedDuration::from_secs(10);
    assert_eq!(clusters_of(&world.pass()), ["b"]);
    assert_eq!(world.status().rollout.unwrap().phase, RolloutPhase::Rolling);
}

#[test]
fn a_cluster_that_is_not_well_after_its_change_stops_the_others() {
    let mut world = first_is_done(json!({}));
    step(&mut world, 0);
    world.now += SignedDuration::from_secs(3_600);
    let lost = world.snapshot.elastic.insert("a".to_owned(), Reading::Unavailable("away".to_owned()));
    assert_eq!(world.gates(), [Reason::Regressed]);
    assert_eq!(world.status().rollout.unwrap().phase, RolloutPhase::Paused);
    world.snapshot.elastic.insert("a".to_owned(), lost.unwrap());
    world.index("red", &["guilds-a-data-a-0"]);
    let facts = world.facts();
    let index = std::sync::Arc::make_mut(&mut facts.indices).get_mut("red").unwrap();
    index.copies[0].state = ShardState::Unassigned;
    assert_eq!(world.gates(), [Reason::Regressed]);
    assert!(world.plan().holds[0].message.contains("red"), "{:?}", world.plan().holds);
}

#[test]
fn by_hand_nothing_restarts_before_it_is_approved() {
    let mut world = two(json!({"approval": "Manual"}));
    assert_eq!(world.pass(), Vec::<String>::new());
    let rollout = world.status().rollout.unwrap();
    assert_eq!(rollout.phase, RolloutPhase::AwaitingApproval);
    let gates = world.gates();
    assert!(gates.iter().all(|gate| *gate == Reason::AwaitingApproval) && gates.len() == 2, "{gates:?}");
    let approve = |world: &mut World, id: &str| {
        world.edit(|cell| cell["metadata"]["annotations"] = json!({"searchcell.dev/approve-rollout": id}));
    };
    approve(&mut world, "another");
    assert_eq!(world.pass(), Vec::<String>::new());
    approve(&mut world, &rollout.id);
    assert_eq!(clusters_of(&world.roll()), ["a", "b"]);
    // The approval is of this change, and of no other.
    set_all(&mut world, 2);
    assert_eq!(world.pass(), Vec::<String>::new());
    assert_eq!(world.status().rollout.unwrap().phase, RolloutPhase::AwaitingApproval);
}

#[test]
fn a_new_value_of_restarted_at_restarts_all_nodes() {
    let mut world = at_rest(|_| {});
    world.edit(|cell| cell["spec"]["rollout"] = json!({"restartedAt": "2026-11-21"}));
    world.pass();
    assert_eq!(world.status().rollout.unwrap().reason, RolloutReason::RestartRequested);
    let did = world.roll();
    assert_eq!(did.iter().filter(|step| step.starts_with("restart")).count(), 6, "{did:?}");
    assert_eq!(world.roll(), Vec::<String>::new());
}

/// There is nowhere else for its copies: who asks for one data node has asked for that.
#[test]
fn the_only_data_node_of_a_cluster_restarts() {
    let mut world = at_rest(|cell| {
        cell["spec"]["zones"] = json!([{"name": "a"}]);
        cell["spec"]["nodes"]["master"]["count"] = json!(1);
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
    });
    world.index("alone", &["guilds-a-data-a-0"]);
    set_all(&mut world, 1);
    let expected = ["template guilds-a-data-a", "restart guilds-a-data-a-0"];
    assert_eq!(world.roll()[..2], expected);
}

// --- versions -----------------------------------------------------------------------------------------

pub fn of_version(version: &str) -> World {
    let mut world = at_rest(|_| {});
    let set = |world: &mut World| {
        for node in world.facts().nodes.values_mut() {
            node.version = version.to_owned();
        }
    };
    set(&mut world);
    for claim in &mut world.snapshot.objects.claims {
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert("searchcell.dev/highest-version".to_owned(), version.to_owned());
    }
    world.edit(|cell| cell["spec"]["version"] = json!(version));
    // The templates are of that version, too.
    world.roll();
    set(&mut world);
    world.publish();
    world
}

pub fn ask_for(world: &mut World, version: &str) {
    world.edit(|cell| cell["spec"]["version"] = json!(version));
}

/// What is held, and that nothing is done.
pub fn held(world: &mut World) -> (Reason, String) {
    let holds = world.plan().holds;
    assert_eq!(holds.len(), 1, "{holds:#?}");
    assert_eq!(world.pass(), Vec::<String>::new());
    (holds[0].reason, holds[0].message.clone())
}

#[test]
fn a_later_version_rolls_and_status_says_from_where_to_where() {
    let mut world = of_version("9.5.2");
    ask_for(&mut world, "9.5.3");
    assert_eq!(world.pass(), ["template guilds-a-data-b"]);
    let rollout = world.status().rollout.unwrap();
    assert_eq!(rollout.reason, RolloutReason::VersionChange);
    assert_eq!(
        (rollout.from_version.as_deref(), rollout.to_version.as_deref()),
        (Some("9.5.2"), Some("9.5.3"))
    );
    let did = world.roll();
    assert_eq!(did.iter().filter(|step| step.starts_with("restart")).count(), 6, "{did:?}");
}

#[test]
fn a_step_that_elasticsearch_does_not_support_is_held_with_what_to_write() {
    let mut world = of_version("8.17.4");
    ask_for(&mut world, "9.5.3");
    let (reason, message) = held(&mut world);
    assert_eq!(reason, Reason::UnsupportedVersion);
    assert!(message.contains("the latest 8.19 first"), "{message}");
}

#[test]
fn a_version_that_never_joined_is_taken_back_and_one_that_has_is_not() {
    let mut world = of_version("9.5.2");
    ask_for(&mut world, "9.5.3");
    world.pass();
    ask_for(&mut world, "9.5.2");
    assert_eq!(world.pass(), ["template guilds-a-data-b"]);
    ask_for(&mut world, "9.5.3");
    world.facts().nodes.get_mut("guilds-a-data-b-0").unwrap().version = "9.5.3".to_owned();
    ask_for(&mut world, "9.5.2");
    assert_eq!(held(&mut world).0, Reason::ForwardOnly);
}

fn with_index_of(created: &str, settings: serde_json::Value) -> World {
    let mut world = of_version("8.19.21");
    world.index("old", &["guilds-a-data-a-0", "guilds-a-data-b-0"]);
    let facts = world.facts();
    let index = std::sync::Arc::make_mut(&mut facts.indices).get_mut("old").unwrap();
    index.settings = serde_json::from_value(settings).unwrap();
    index.settings.insert("index.version.created".to_owned(), json!(created));
    ask_for(&mut world, "9.5.3");
    world.edit(|cell| cell["spec"]["rollout"] = json!({"waive": ["RecentSnapshot", "DeprecationsResolved"]}));
    world
}

#[test]
fn an_index_that_the_next_major_does_not_open_is_named_before_any_pod_is_touched() {
    let (reason, message) = held(&mut with_index_of("7172999", json!({})));
    assert_eq!(reason, Reason::IndexTooOld);
    assert!(message.contains("old"), "{message}");
    // Blocked, but nobody has checked that no write is on its way.
    let (reason, _) = held(&mut with_index_of("7172999", json!({"index.blocks.write": "true"})));
    assert_eq!(reason, Reason::IndexTooOld);
    let verified = json!({"index.blocks.write": "true", "index.verified_read_only": "true"});
    assert_eq!(with_index_of("7172999", verified).gates(), []);
    assert_eq!(with_index_of("8536000", json!({})).gates(), []);
}

/// A version is corrected halfway: one node has it already, and what it holds has no other node to go to.
#[test]
fn nodes_of_the_lowest_version_go_first() {
    let mut world = of_version("9.5.2");
    // The elected master is in zone a.
    world.facts().nodes.get_mut("guilds-a-data-b-0").unwrap().version = "9.5.3".to_owned();
    world.index("new", &["guilds-a-data-b-0", "guilds-a-data-c-0"]);
    let indices = std::sync::Arc::make_mut(&mut world.facts().indices);
    let copy = &mut indices.get_mut("new").unwrap().copies[1];
    (copy.state, copy.node) = (ShardState::Unassigned, None);
    ask_for(&mut world, "9.5.4");
    assert_eq!(world.pass().last().unwrap(), "template guilds-a-data-c");
    world.controllers();
    world.pass();
    assert_eq!(world.pass().last().unwrap(), "restart guilds-a-data-c-0");
}

/// While versions differ a replica waits for nodes of the newer one: that is no reason to stop, and nothing else is.
#[test]
fn a_replica_that_only_its_version_keeps_waiting_holds_nothing() {
    let mut world = of_version("9.5.2");
    ask_for(&mut world, "9.5.3");
    for _ in 0..3 {
        step(&mut world, 2);
    }
    world.facts().nodes.get_mut("guilds-a-data-b-0").unwrap().version = "9.5.3".to_owned();
    world.index("new", &["guilds-a-data-b-0", "guilds-a-data-c-0"]);
    let lose = |world: &mut World| {
        let indices = std::sync::Arc::make_mut(&mut world.facts().indices);
        let copy = &mut indices.get_mut("new").unwrap().copies[1];
        (copy.state, copy.node) = (ShardState::Unassigned, None);
    };
    lose(&mut world);
    assert_eq!(world.gates(), []);
    // With a second node of the newer version it has a place to go.
    world.facts().nodes.get_mut("guilds-a-data-c-0").unwrap().version = "9.5.3".to_owned();
    assert_eq!(world.gates(), [Reason::ShardsSettled]);
    // And when all are of one version, whoever waits is waited for.
    for node in world.facts().nodes.values_mut() {
        node.version = "9.5.3".to_owned();
    }
    assert_eq!(world.gates(), [Reason::ShardsSettled]);
}
