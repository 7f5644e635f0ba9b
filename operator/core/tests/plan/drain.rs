//! Nodes that the spec does not ask for any more: emptied first, then removed, zone by zone; and what keeps them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use searchcell_core::plan::ALLOCATION_EXCLUDE;
use searchcell_core::snapshot::{ShardState, Shutdown, Shutdowns};
use searchcell_crds::{ClusterPhase, OperationKind, Reason};
use serde_json::{Value, json};

use crate::roll::{at_rest, set_all};
use crate::world::World;

fn per_zone(world: &mut World, nodes: i32) {
    world.edit(|cell| cell["spec"]["nodes"]["data"]["perZone"] = json!(nodes));
}

/// Two data nodes in each zone; one is asked for. An index has a copy on one of those that go.
fn too_many() -> World {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"]["data"]["perZone"] = json!(2);
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
    });
    world.index("three", &["guilds-a-data-a-1", "guilds-a-data-b-0", "guilds-a-data-c-0"]);
    per_zone(&mut world, 1);
    world
}

fn nodes(world: &World) -> Vec<String> {
    let status = world.snapshot.cell.status.as_ref().unwrap();
    status.clusters[0].operation.iter().flat_map(|operation| operation.nodes.clone()).collect()
}

fn excluded(world: &mut World) -> Option<Value> {
    world.facts().settings.get(ALLOCATION_EXCLUDE).cloned()
}

/// Elasticsearch moves what a node has.
fn moved(world: &mut World, from: &str, to: &str) {
    for index in Arc::make_mut(&mut world.facts().indices).values_mut() {
        for copy in index.copies.iter_mut().filter(|copy| copy.node.as_deref() == Some(from)) {
            copy.node = Some(to.to_owned());
        }
    }
}

/// Kubernetes ends the pods that a StatefulSet does not ask for, and they leave the cluster.
fn gone(world: &mut World, pod: &str) {
    world.snapshot.objects.pods.retain(|of| of.metadata.name.as_deref() != Some(pod));
    world.facts().nodes.remove(pod);
}

fn claim(world: &mut World, node: &str) {
    let value = json!({"metadata": {"name": format!("data-{node}"), "uid": format!("{node}-claim"),
        "labels": {"searchcell.dev/cluster": "a", "searchcell.dev/role": "data", "searchcell.dev/cell": "guilds"},
        "annotations": {"searchcell.dev/cluster-uuid": crate::world::UUID}}});
    let claim: PersistentVolumeClaim = serde_json::from_value(value).unwrap();
    world.snapshot.objects.claims.retain(|of| of.metadata.name != claim.metadata.name);
    world.snapshot.objects.claims.push(claim);
}

#[test]
fn a_node_is_recorded_emptied_removed_and_forgotten() {
    let mut world = too_many();
    assert_eq!(world.pass(), ["PutSettings"]);
    assert_eq!(nodes(&world), ["guilds-a-data-a-1"]);
    let status = world.status();
    assert_eq!(status.clusters[0].phase, ClusterPhase::Scaling);
    assert_eq!(status.rollout, None, "nothing restarts");
    assert_eq!(status.clusters[0].operation.as_ref().unwrap().kind, OperationKind::DrainNode);
    assert_eq!(excluded(&mut world), Some(json!("guilds-a-data-a-1")));
    assert_eq!(world.pass(), [""; 0]);
    assert_eq!(world.gates(), [Reason::Draining]);
    assert!(!world.plan().holds[0].message.contains("explain"));
    world.now += jiff::SignedDuration::from_mins(11);
    assert!(
        world.plan().holds[0].message.contains("_cluster/allocation/explain"),
        "{:?}",
        world.plan().holds
    );
    moved(&mut world, "guilds-a-data-a-1", "guilds-a-data-a-0");
    assert_eq!(world.pass(), ["Scale"]);
    // Its pod ends: it is waited for, and stays excluded.
    assert_eq!(world.pass(), [""; 0]);
    assert!(excluded(&mut world).is_some());
    gone(&mut world, "guilds-a-data-a-1");
    assert_eq!(world.pass(), ["PutSettings"]);
    assert_eq!((nodes(&world), excluded(&mut world)), (vec![], None));
    assert_eq!(world.pass(), ["PutSettings"]);
    assert_eq!(nodes(&world), ["guilds-a-data-b-1"]);
}

#[test]
fn everything_ends_with_what_is_asked_for_and_nothing_left_behind() {
    let mut world = too_many();
    for zone in ["a", "b", "c"] {
        let node = format!("guilds-a-data-{zone}-1");
        world.pass();
        moved(&mut world, &node, &format!("guilds-a-data-{zone}-0"));
        assert_eq!(world.pass(), ["Scale"], "{zone}");
        gone(&mut world, &node);
        world.pass();
    }
    assert_eq!((world.pass(), nodes(&world), excluded(&mut world)), (vec![], vec![], None));
    world.publish();
    assert_eq!(world.status().nodes_ready.as_deref(), Some("6/6"));
}

#[test]
fn the_spec_set_back_cancels_it() {
    let mut world = too_many();
    world.pass();
    per_zone(&mut world, 2);
    assert_eq!(world.pass(), ["PutSettings"]);
    assert_eq!((nodes(&world), excluded(&mut world)), (vec![], None));
    assert_eq!((world.pass(), world.gates()), (vec![], vec![]));
}

#[test]
fn a_node_with_a_copy_or_without_the_exclusion_stays() {
    let mut world = too_many();
    world.pass();
    moved(&mut world, "guilds-a-data-a-1", "guilds-a-data-a-0");
    // Somebody takes the exclusion away: it is set again first.
    world.facts().settings.remove(ALLOCATION_EXCLUDE);
    assert_eq!(world.pass(), ["PutSettings"]);
    // A copy elsewhere is on its way: it may be the one that left.
    Arc::make_mut(&mut world.facts().indices).get_mut("three").unwrap().copies[0].state =
        ShardState::Relocating;
    assert_eq!(world.pass(), [""; 0]);
    Arc::make_mut(&mut world.facts().indices).get_mut("three").unwrap().copies[0].state = ShardState::Started;
    // Nobody can be asked.
    let facts = world.facts().clone();
    world.snapshot.elastic.clear();
    assert_eq!(world.pass(), [""; 0]);
    assert_eq!(nodes(&world), ["guilds-a-data-a-1"], "it is not forgotten");
    world.snapshot.elastic.insert("a".to_owned(), searchcell_core::snapshot::Reading::Known(facts));
    assert_eq!(world.pass(), ["Scale"]);
}

#[test]
fn a_broken_node_that_is_to_go_does_not_keep_itself() {
    let mut world = too_many();
    moved(&mut world, "guilds-a-data-a-1", "guilds-a-data-a-0");
    world.facts().nodes.remove("guilds-a-data-a-1");
    let pods = &mut world.snapshot.objects.pods;
    pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some("guilds-a-data-a-1")).unwrap().status =
        None;
    world.pass();
    assert_eq!(world.pass(), ["Scale"]);
}

#[test]
fn nobody_goes_while_another_one_is_missing() {
    let mut world = too_many();
    world.facts().nodes.remove("guilds-a-data-b-0");
    assert_eq!((world.pass(), world.gates()), (vec![], vec![Reason::NodesMissing]));
}

#[test]
fn copies_and_disks_have_to_fit() {
    let mut world = at_rest(|cell| cell["spec"]["nodes"]["data"]["perZone"] = json!(2));
    let six = ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1"].map(|node| format!("guilds-a-data-{node}"));
    world.index("six", &six.each_ref().map(String::as_str));
    per_zone(&mut world, 1);
    assert_eq!((world.pass(), world.gates()), (vec![], vec![Reason::TooManyCopies]));
    let message = world.plan().holds[0].message.clone();
    assert!(message.contains("six") && message.contains("3 zones with 1 data nodes"), "{message}");

    let mut world = too_many();
    world.facts().disks.as_mut().unwrap().get_mut("guilds-a-data-a-1").unwrap().shards = 36;
    assert_eq!((world.pass(), world.gates()), (vec![], vec![Reason::NoCapacity]));
    world.facts().disks.as_mut().unwrap().get_mut("guilds-a-data-a-1").unwrap().shards = 35;
    assert_eq!(world.pass(), ["PutSettings"]);

    let mut world = too_many();
    world.facts().disks = None;
    assert_eq!((world.pass(), world.gates()), (vec![], vec![Reason::Draining]));
}

#[test]
fn somebody_elses_exclusion_is_not_written_over() {
    let mut world = too_many();
    world.facts().settings.insert(ALLOCATION_EXCLUDE.to_owned(), json!("mine"));
    assert_eq!((world.pass(), world.gates()), (vec![], vec![Reason::Draining]));
    assert_eq!(excluded(&mut world), Some(json!("mine")));
}

#[test]
fn volumes_go_as_the_policy_says_and_only_when_nothing_is_missing() {
    let drained = |policy: &str| {
        let mut world = too_many();
        world.edit(|cell| cell["spec"]["deletionPolicy"] = json!(policy));
        claim(&mut world, "guilds-a-data-a-1");
        world.pass();
        moved(&mut world, "guilds-a-data-a-1", "guilds-a-data-a-0");
        assert_eq!(world.pass(), ["Scale"]);
        gone(&mut world, "guilds-a-data-a-1");
        world
    };
    let names = |world: &World| -> Vec<String> {
        let claims = &world.snapshot.objects.claims;
        claims.iter().filter_map(|of| of.metadata.name.clone()).filter(|of| of.ends_with("a-1")).collect()
    };
    let mut world = drained("Retain");
    world.pass();
    assert_eq!(names(&world), ["data-guilds-a-data-a-1"]);

    let mut world = drained("Delete");
    Arc::make_mut(&mut world.facts().indices).get_mut("three").unwrap().copies[0].state =
        ShardState::Unassigned;
    assert_eq!(world.pass(), [""; 0]);
    Arc::make_mut(&mut world.facts().indices).get_mut("three").unwrap().copies[0].state = ShardState::Started;
    assert_eq!(world.pass(), ["Delete"]);
    assert_eq!(names(&world), [""; 0]);
    assert_eq!(world.pass(), ["PutSettings"]);
}

#[test]
fn restarts_and_drains_take_turns() {
    // Nodes restart first, and nobody is emptied meanwhile.
    let mut world = too_many();
    set_all(&mut world, 1);
    assert_eq!(world.pass(), ["template guilds-a-data-b"]);
    assert_eq!(nodes(&world), [""; 0]);
    // What is being emptied is emptied first.
    let mut world = too_many();
    world.pass();
    set_all(&mut world, 1);
    assert_eq!((world.pass(), nodes(&world)), (vec![], vec!["guilds-a-data-a-1".to_owned()]));
    moved(&mut world, "guilds-a-data-a-1", "guilds-a-data-a-0");
    assert_eq!(world.pass(), ["Scale"]);
    gone(&mut world, "guilds-a-data-a-1");
    assert_eq!(world.pass(), ["template guilds-a-data-b", "PutSettings"]);
}

#[test]
fn a_master_gives_up_its_vote_first() {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"]["master"]["count"] = json!(5);
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
    });
    world.facts().master = Some("guilds-a-master-b-1".to_owned());
    world.edit(|cell| cell["spec"]["nodes"]["master"]["count"] = json!(3));
    // Zones a and b have two; that of the elected master is the last.
    assert_eq!((world.pass(), nodes(&world)), (vec![], vec!["guilds-a-master-a-1".to_owned()]));
    assert_eq!(world.pass(), ["ExcludeVoter"]);
    assert_eq!(world.pass(), ["Scale"]);
    gone(&mut world, "guilds-a-master-a-1");
    assert_eq!(world.pass(), ["ClearVotingExclusions"]);
    assert_eq!((world.pass(), nodes(&world)), (vec![], vec!["guilds-a-master-b-1".to_owned()]));
    assert_eq!(world.pass(), ["ExcludeVoter"]);
    // Set back: it votes again.
    world.edit(|cell| cell["spec"]["nodes"]["master"]["count"] = json!(5));
    assert_eq!(world.pass()[..1], ["Scale"], "the other one comes back");
    assert!(world.facts().no_votes.is_empty());
    assert_eq!(nodes(&world), [""; 0]);
}

/// A zone retires just when the last master too many has gone: that one is needed again, with its volume.
#[test]
fn a_master_that_is_needed_again_keeps_its_volume_and_stays() {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"]["master"]["count"] = json!(5);
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
    });
    world.edit(|cell| cell["spec"]["nodes"]["master"]["count"] = json!(3));
    for _ in 0..2 {
        while !world.pass().contains(&"Scale".to_owned()) {}
        let node = nodes(&world)[0].clone();
        gone(&mut world, &node);
        claim(&mut world, &node);
    }
    world.edit(|cell| {
        cell["spec"]["deletionPolicy"] = json!("Delete");
        cell["spec"]["zones"][2]["state"] = json!("Retiring");
    });
    let mut did = Vec::new();
    for _ in 0..6 {
        did.extend(world.pass());
    }
    let scaled = did.iter().filter(|step| *step == "Scale").count();
    assert_eq!(scaled, 1, "it comes back and does not go again: {did:?}");
    assert!(!did.contains(&"Delete".to_owned()), "{did:?}");
}

#[test]
fn claims_of_masters_that_went_do_not_bring_them_back() {
    let mut world = at_rest(|cell| cell["spec"]["nodes"]["master"]["count"] = json!(3));
    claim(&mut world, "guilds-a-master-a-1");
    claim(&mut world, "guilds-a-master-a-2");
    assert_eq!((world.pass(), world.gates()), (vec![], vec![]));
}

#[test]
fn other_peoples_shutdown_records_are_left_alone() {
    let mut world = too_many();
    let record = Shutdown { kind: "REMOVE".into(), reason: "mine".into() };
    world.facts().shutdowns = Shutdowns::Known([("x".to_owned(), record)].into());
    assert_eq!(world.pass(), ["PutSettings"]);
    assert!(matches!(&world.facts().shutdowns, Shutdowns::Known(records) if records.len() == 1));
}

#[test]
fn a_zone_retires_data_first_then_its_master_then_its_workloads() {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
    });
    world.index("two", &["guilds-a-data-a-0", "guilds-a-data-c-0"]);
    world.facts().master = Some("guilds-a-master-a-0".to_owned());
    world.edit(|cell| cell["spec"]["zones"][2]["state"] = json!("Retiring"));
    // A third master elsewhere, and Elasticsearch does not count on the zone any more.
    assert_eq!(world.pass(), ["Scale", "PutSettings"]);
    let forced = "cluster.routing.allocation.awareness.force.zone.values";
    assert_eq!(world.facts().settings.get(forced), Some(&json!("a,b")));
    assert_eq!(nodes(&world), ["guilds-a-data-c-0"]);
    assert_eq!(world.status().clusters[0].operation.as_ref().unwrap().kind, OperationKind::DrainZone);
    world.controllers();
    world.form(crate::world::UUID);
    world.facts().voting.insert("guilds-a-master-a-1".to_owned());
    world.pass();
    moved(&mut world, "guilds-a-data-c-0", "guilds-a-data-b-0");
    assert_eq!(world.pass(), ["Scale"]);
    gone(&mut world, "guilds-a-data-c-0");
    world.pass();
    world.pass();
    assert_eq!(nodes(&world), ["guilds-a-master-c-0"]);
    assert_eq!(world.pass(), ["ExcludeVoter"]);
    assert_eq!(world.pass(), ["Scale"]);
    gone(&mut world, "guilds-a-master-c-0");
    world.pass();
    world.pass();
    let left: Vec<_> =
        world.snapshot.objects.stateful_sets.iter().filter_map(|set| set.metadata.name.clone()).collect();
    assert!(!left.iter().any(|name| name.ends_with("-c")), "{left:?}");
    assert_eq!(world.status().nodes_ready.as_deref(), Some("5/5"));
}

#[test]
fn a_zone_stays_while_copies_need_it() {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
    });
    world.index("three", &["guilds-a-data-a-0", "guilds-a-data-b-0", "guilds-a-data-c-0"]);
    world.edit(|cell| {
        cell["spec"]["zones"][2]["state"] = json!("Retiring");
        cell["spec"]["nodes"]["master"]["count"] = json!(1);
    });
    world.pass();
    assert!(world.gates().contains(&Reason::TooManyCopies), "{:?}", world.plan().holds);
}

#[test]
fn the_volume_of_a_master_that_comes_back_stays() {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"]["master"]["count"] = json!(5);
        cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest");
        cell["spec"]["deletionPolicy"] = json!("Delete");
    });
    world.edit(|cell| cell["spec"]["nodes"]["master"]["count"] = json!(3));
    world.pass();
    world.pass();
    assert_eq!(world.pass(), ["Scale"]);
    let node = nodes(&world)[0].clone();
    gone(&mut world, &node);
    claim(&mut world, &node);
    world.edit(|cell| cell["spec"]["nodes"]["master"]["count"] = json!(5));
    // Its StatefulSet asks for it again, and its pod is not there yet.
    let did = [world.pass(), world.pass()].concat();
    assert!(did.contains(&"Scale".to_owned()) && !did.contains(&"Delete".to_owned()), "{did:?}");
    let kept = format!("data-{node}");
    assert!(world.snapshot.objects.claims.iter().any(|claim| claim.metadata.name.as_ref() == Some(&kept)));
}
