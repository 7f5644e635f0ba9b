//! What Elasticsearch is told of restarts: before a pod goes, and never longer than until its node is back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_core::plan::{ALLOCATION_ENABLE, plan_invalid_cell};
use searchcell_core::snapshot::{IndexFacts, Shutdown, Shutdowns};
use searchcell_core::step::{Absence, Action, Plan};
use searchcell_crds::Reason;
use serde_json::json;

use crate::roll::{about_to_restart, at_rest, set_all};
use crate::world::{World, now};

const NODE: &str = "guilds-a-data-b-0";

/// Names of all steps of the next pass, which is made; budgets follow what is there.
fn pass(world: &mut World) -> Vec<&'static str> {
    let plan = world.plan();
    let status = world.status();
    let names = plan.steps.iter().map(|step| step.action.name()).filter(|name| *name != "Apply").collect();
    for step in plan.steps {
        world.apply(step.action);
    }
    world.snapshot.cell.status = Some(status);
    names
}

fn record(reason: &str) -> Shutdown {
    Shutdown { kind: "RESTART".to_owned(), reason: reason.to_owned() }
}

fn records(world: &mut World) -> &mut BTreeMap<String, Shutdown> {
    let Shutdowns::Known(records) = &mut world.facts().shutdowns else { panic!() };
    records
}

/// The node has restarted: its process runs, and its record keeps it from being ready.
fn back_with_its_record() -> World {
    let mut world = about_to_restart();
    pass(&mut world);
    assert_eq!(pass(&mut world), ["AnnounceRestart", "RestartNode"]);
    world.controllers();
    let pods = &mut world.snapshot.objects.pods;
    let pod = pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(NODE)).unwrap();
    let status = pod.status.as_mut().unwrap();
    status.conditions.as_mut().unwrap()[0].status = "False".to_owned();
    status.container_statuses.as_mut().unwrap()[0].started = Some(true);
    world
}

#[test]
fn a_node_that_is_back_serves_again_though_the_spec_is_invalid_or_has_lost_its_cluster() {
    let mut world = back_with_its_record();
    let names = |plan: Plan| plan.steps.iter().map(|step| step.action.name()).collect::<Vec<_>>();
    let invalid =
        |world: &World| names(plan_invalid_cell(&world.snapshot, world.now, Duration::from_secs(60)));
    assert_eq!(invalid(&world), ["WithdrawRestart"]);
    world.snapshot.cell.spec.suspend = true;
    assert!(invalid(&world).is_empty(), "suspended is suspended");
    world.snapshot.cell.spec.suspend = false;

    // Its cluster has left the spec, and stays since it is not empty.
    Arc::make_mut(&mut world.facts().indices).insert("by-hand".to_owned(), IndexFacts::default());
    world.edit(|cell| cell["spec"]["clusters"] = json!([{"name": "z"}]));
    let of_a = world.plan().steps.into_iter().filter(|step| step.cluster.as_deref() == Some("a"));
    let of_a: Vec<&str> = of_a.map(|step| step.action.name()).collect();
    assert_eq!(of_a, ["WithdrawRestart"]);
}

#[test]
fn the_only_data_node_is_not_announced() {
    let mut world = at_rest(|cell| {
        cell["spec"]["zones"] = json!([{"name": "a"}]);
        cell["spec"]["nodes"]["master"]["count"] = json!(1);
        cell["spec"]["nodes"]["ingest"] = json!(null);
    });
    set_all(&mut world, 1);
    world.pass();
    world.controllers();
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "recorded");
    assert_eq!(pass(&mut world), ["RestartNode"]);
}

#[test]
fn a_data_node_is_announced_before_its_pod_goes_and_taken_back_when_it_has_returned() {
    let mut world = about_to_restart();
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "recorded");
    assert_eq!(pass(&mut world), ["AnnounceRestart", "RestartNode"]);
    // Its pod is gone, then it is there and not a member yet.
    assert_eq!(pass(&mut world), Vec::<&str>::new());
    let member = world.facts().nodes.remove(NODE).unwrap();
    assert_eq!(pass(&mut world), Vec::<&str>::new());
    world.controllers();
    assert_eq!(pass(&mut world), Vec::<&str>::new());
    // A member, and not ready: its record closes the port of readiness.
    world.facts().nodes.insert(NODE.to_owned(), member);
    let pods = &mut world.snapshot.objects.pods;
    let pod = pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(NODE)).unwrap();
    let status = pod.status.as_mut().unwrap();
    status.conditions.as_mut().unwrap()[0].status = "False".to_owned();
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "its container has not started");
    let pods = &mut world.snapshot.objects.pods;
    let pod = pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(NODE)).unwrap();
    let status = pod.status.as_mut().unwrap();
    status.container_statuses.as_mut().unwrap()[0].started = Some(true);
    assert_eq!(pass(&mut world), ["WithdrawRestart"]);
    assert!(records(&mut world).is_empty());
    assert_eq!(world.gates(), [Reason::RollingOut], "it is not ready yet");
}

#[test]
fn what_is_not_known_lets_no_node_restart() {
    let mut world = about_to_restart();
    pass(&mut world);
    world.facts().shutdowns = Shutdowns::Unknown;
    assert_eq!(world.gates(), [Reason::Unreachable]);
    assert!(!world.plan().steps.iter().any(|step| matches!(step.action, Action::RestartNode { .. })));
}

#[test]
fn masters_have_no_shards_to_announce() {
    let mut world = at_rest(|_| {});
    world.edit(|cell| cell["spec"]["nodes"]["master"]["settings"] = json!({"search.max_buckets": 9}));
    let mut all = Vec::new();
    for _ in 0..4 {
        all.extend(pass(&mut world));
        world.controllers();
    }
    assert!(all.contains(&"RestartNode") && !all.contains(&"AnnounceRestart"), "{all:?}");
}

#[test]
fn records_of_others_are_left_alone_and_own_ones_of_nobody_are_not() {
    let mut world = at_rest(|_| {});
    records(&mut world).insert(NODE.to_owned(), record("somebody else's"));
    assert_eq!(pass(&mut world), Vec::<&str>::new());
    records(&mut world).insert(NODE.to_owned(), record(Absence::Restart.reason()));
    assert_eq!(pass(&mut world), ["WithdrawRestart"]);
    records(&mut world).insert("nobody".to_owned(), record(Absence::Restart.reason()));
    assert_eq!(pass(&mut world), ["WithdrawRestart"]);
}

/// A change that is held in the middle does not keep a node that is back from being ready.
#[test]
fn what_has_begun_comes_to_its_end_although_the_rest_is_held() {
    let mut world = about_to_restart();
    pass(&mut world);
    pass(&mut world);
    world.controllers();
    let pods = &mut world.snapshot.objects.pods;
    let pod = pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(NODE)).unwrap();
    pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].started = Some(true);
    world.edit(|cell| cell["spec"]["nodes"]["data"]["storage"] = json!({"size": "512Mi"}));
    assert_eq!(pass(&mut world), ["WithdrawRestart"]);
}

fn pod<'a>(world: &'a mut World, name: &str) -> &'a mut Pod {
    let pods = &mut world.snapshot.objects.pods;
    pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap()
}

/// Somebody deletes the pod of a node.
fn evict(world: &mut World, name: &str) {
    pod(world, name).metadata.deletion_timestamp = Some(Time(now()));
}

#[test]
fn a_data_node_that_somebody_evicts_is_announced_until_it_has_returned() {
    let mut world = at_rest(|_| {});
    evict(&mut world, NODE);
    assert_eq!(pass(&mut world), ["AnnounceRestart"]);
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "it is stopping");
    world.snapshot.objects.pods.retain(|pod| pod.metadata.name.as_deref() != Some(NODE));
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "it is gone, and a member still");
    let member = world.facts().nodes.remove(NODE).unwrap();
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "nobody says whose record it is");
    world.controllers();
    pod(&mut world, NODE).status.as_mut().unwrap().conditions = None;
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "it comes back");
    world.facts().nodes.insert(NODE.to_owned(), member);
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "its process is not the one that is a member");
    pod(&mut world, NODE).status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].started =
        Some(true);
    assert_eq!(pass(&mut world), ["WithdrawRestart"]);
    assert!(records(&mut world).is_empty());
}

#[test]
fn who_does_not_come_back_and_who_has_no_shards_is_not_announced() {
    let mut world = at_rest(|_| {});
    evict(&mut world, "guilds-a-master-b-0");
    assert_eq!(pass(&mut world), Vec::<&str>::new(), "a master");
    let mut world = at_rest(|_| {});
    let sets = &mut world.snapshot.objects.stateful_sets;
    let set = sets.iter_mut().find(|set| set.metadata.name.as_deref() == Some("guilds-a-data-b")).unwrap();
    set.spec.as_mut().unwrap().replicas = Some(0);
    evict(&mut world, NODE);
    assert!(!pass(&mut world).contains(&"AnnounceRestart"), "one node too many");
}

#[test]
fn while_it_is_not_known_what_was_announced_nothing_is() {
    let mut world = at_rest(|_| {});
    evict(&mut world, NODE);
    for shutdowns in [Shutdowns::Unknown, Shutdowns::NotAvailable] {
        world.facts().shutdowns = shutdowns;
        assert_eq!(pass(&mut world), Vec::<&str>::new());
    }
}

fn without_api() -> World {
    let mut world = at_rest(|_| {});
    world.facts().shutdowns = Shutdowns::NotAvailable;
    set_all(&mut world, 1);
    pass(&mut world);
    world.controllers();
    world
}

#[test]
fn without_the_api_only_primaries_are_placed_until_the_node_is_back() {
    let mut world = without_api();
    assert_eq!(pass(&mut world), ["PutSettings"], "recorded, and set");
    assert_eq!(world.facts().settings[ALLOCATION_ENABLE], json!("primaries"));
    assert_eq!(pass(&mut world), ["RestartNode"]);
    assert_eq!(pass(&mut world), Vec::<&str>::new());
    world.controllers();
    let did = pass(&mut world);
    assert!(did.contains(&"PutSettings"), "{did:?}");
    assert!(!world.facts().settings.contains_key(ALLOCATION_ENABLE));
    assert!(world.has_wanted_settings());
}

#[test]
fn without_the_api_and_without_the_setting_no_node_restarts() {
    let mut world = without_api();
    pass(&mut world);
    world.facts().settings.remove(ALLOCATION_ENABLE);
    assert_eq!(world.gates(), [Reason::RollingOut]);
    assert_eq!(pass(&mut world), ["PutSettings"]);
}
