//! Restarts: in which order, one at a time, and what each of them waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{DeploymentStatus, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_core::names::{ANNOTATION_INPUT_HASH, LABEL_REVISION, Role};
use searchcell_core::snapshot::{
    ElasticFacts, IndexFacts, NodeDisk, NodeLoad, Reading, ShardCopy, ShardState, Shutdowns, annotation,
    label,
};
use searchcell_core::step::Action;
use searchcell_crds::{ClusterPhase, Reason, RolloutPhase};
use serde_json::{Value, json};

use crate::world::{UUID, World, cell_object};

/// A cell at rest whose operator restarts nodes.
pub fn at_rest(change: impl FnOnce(&mut Value)) -> World {
    prepared(change, |_| {})
}

/// The same, of a world that was prepared before there were nodes.
pub fn prepared(change: impl FnOnce(&mut Value), prepare: impl FnOnce(&mut World)) -> World {
    let mut object = serde_json::to_value(cell_object()).unwrap();
    change(&mut object);
    let mut world = World::new(serde_json::from_value(object).unwrap());
    prepare(&mut world);
    world.settle();
    world.form(UUID);
    world.settle();
    world.snapshot.restarts_nodes = true;
    for reading in world.snapshot.elastic.values_mut() {
        let Reading::Known(facts) = reading else { continue };
        facts.shutdowns = Shutdowns::Known(BTreeMap::new());
        facts.voting = facts.nodes.values().map(|node| node.id.clone()).collect();
        let (load, disk) = (
            NodeLoad { cpu_percent: 20, heap_percent: 50 },
            NodeDisk { total: 100, available: 50, shards: 10 },
        );
        facts.loads = Some(facts.nodes.keys().map(|name| (name.clone(), load)).collect());
        facts.disks = Some(facts.nodes.keys().map(|name| (name.clone(), disk)).collect());
    }
    world.snapshot.objects.pods.clear();
    world.controllers();
    world.now += SignedDuration::from_secs(3_600);
    world.publish();
    world
}

impl World {
    /// What the StatefulSet and Deployment controllers do, revisions included. Pods that are there stay.
    pub fn controllers(&mut self) {
        let now = self.now;
        let objects = &mut self.snapshot.objects;
        for set in &mut objects.stateful_sets {
            let name = set.metadata.name.clone().unwrap();
            let newest = format!("{name}-{}", annotation(&set.metadata, ANNOTATION_INPUT_HASH).unwrap());
            set.status = Some(StatefulSetStatus {
                observed_generation: set.metadata.generation,
                update_revision: Some(newest.clone()),
                ..StatefulSetStatus::default()
            });
            for ordinal in 0..set.spec.as_ref().unwrap().replicas.unwrap() {
                let pod = format!("{name}-{ordinal}");
                if !objects.pods.iter().any(|other| other.metadata.name.as_deref() == Some(&pod)) {
                    objects.pods.push(new_pod(&pod, set, &newest, now));
                }
            }
        }
        for deployment in &mut objects.deployments {
            let replicas = deployment.spec.as_ref().unwrap().replicas;
            deployment.status = Some(DeploymentStatus {
                observed_generation: deployment.metadata.generation,
                replicas,
                updated_replicas: replicas,
                available_replicas: replicas,
                ready_replicas: replicas,
                ..DeploymentStatus::default()
            });
            let meta = &deployment.metadata;
            for number in 0..replicas.unwrap() {
                let pod = format!("{}-{number}", meta.name.as_deref().unwrap());
                if !objects.pods.iter().any(|other| other.metadata.name.as_deref() == Some(&pod)) {
                    let value = json!({"metadata": {"name": pod, "labels": meta.labels, "uid": format!("{pod}-uid")},
                        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
                    objects.pods.push(serde_json::from_value(value).unwrap());
                }
            }
        }
    }

    pub fn publish(&mut self) {
        self.snapshot.cell.status = Some(self.status());
    }

    pub fn facts(&mut self) -> &mut ElasticFacts {
        let Some(Reading::Known(facts)) = self.snapshot.elastic.get_mut("a") else { panic!() };
        facts
    }

    /// One pass: what it does, in words.
    pub fn pass(&mut self) -> Vec<String> {
        let plan = self.plan();
        let status = self.status();
        let mut did = Vec::new();
        for step in plan.steps {
            match &step.action {
                Action::ReplaceTemplate { object, .. } => did.push(format!("template {}", object.name())),
                Action::RestartNode { target } => did.push(format!("restart {}", target.name)),
                Action::AnnounceRestart { .. } | Action::WithdrawRestart { .. } => {}
                Action::Apply { .. } => {}
                other => did.push(other.name().to_owned()),
            }
            self.apply(step.action);
        }
        self.snapshot.cell.status = Some(status);
        did
    }

    pub fn gates(&self) -> Vec<Reason> {
        self.plan().holds.iter().map(|hold| hold.reason).collect()
    }

    /// A document's index with three copies, one in each zone.
    pub fn index(&mut self, name: &str, nodes: &[&str]) {
        let copy = |(number, node): (usize, &&str)| ShardCopy {
            shard: 0,
            primary: number == 0,
            state: ShardState::Started,
            node: Some((*node).to_owned()),
            new_since: None,
        };
        let copies = nodes.iter().enumerate().map(copy).collect();
        let replicas = i32::try_from(nodes.len()).unwrap() - 1;
        let index = IndexFacts { primaries: 1, replicas, copies, ..IndexFacts::default() };
        Arc::make_mut(&mut self.facts().indices).insert(name.to_owned(), index);
    }

    /// Passes, each after what Kubernetes does and some time, until nothing is done for a while.
    pub fn roll(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        let mut idle = 0;
        while idle < 4 {
            let did = self.pass();
            idle = if did.is_empty() && self.status().clusters[0].operation.is_none() { idle + 1 } else { 0 };
            all.extend(did);
            self.controllers();
            self.now += SignedDuration::from_secs(40);
            assert!(all.len() < 100, "{all:#?}");
        }
        all
    }
}

fn new_pod(name: &str, set: &StatefulSet, revision: &str, now: jiff::Timestamp) -> Pod {
    let mut labels = set.metadata.labels.clone().unwrap_or_default();
    labels.insert(LABEL_REVISION.to_owned(), revision.to_owned());
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels, "uid": format!("{name}-{revision}-{now}"), "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.metadata.name, "uid": set.metadata.uid, "controller": true}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "elasticsearch", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
                "state": {"running": {}}}]},
    }))
    .unwrap();
    pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_transition_time = Some(Time(now));
    pod
}

pub fn set_all(world: &mut World, value: i64) {
    world.edit(|cell| cell["spec"]["settings"] = json!({"indices.query.bool.max_clause_count": value}));
}

#[test]
fn without_a_change_nothing_restarts() {
    let mut world = at_rest(|_| {});
    assert_eq!(world.roll(), Vec::<String>::new());
    assert_eq!(world.status().rollout, None);
    assert_eq!(world.status().clusters[0].nodes.as_ref().unwrap().updated, 9);
}

#[test]
fn data_nodes_zone_by_zone_then_ingest_nodes_then_masters_the_elected_one_last() {
    let mut world = at_rest(|cell| {
        cell["spec"]["nodes"]["data"]["perZone"] = json!(2);
        cell["spec"]["rollout"] = json!({"unit": "Node"});
    });
    world.facts().master = Some("guilds-a-master-b-0".to_owned());
    set_all(&mut world, 2048);
    let did = world.roll();
    let zone = |role: &str, zone: &str, count: usize| {
        let set = format!("guilds-a-{role}-{zone}");
        let pods = (0..count).rev().map(|n| format!("restart {set}-{n}")).collect::<Vec<_>>();
        [vec![format!("template {set}")], pods].concat()
    };
    let expected = [
        zone("data", "a", 2),
        zone("data", "c", 2),
        zone("data", "b", 2),
        vec!["template guilds-a-ingest".to_owned()],
        zone("master", "a", 1),
        zone("master", "c", 1),
        zone("master", "b", 1),
    ];
    assert_eq!(did, expected.concat());
    let rollout = world.status().rollout.unwrap();
    assert_eq!((rollout.phase, rollout.clusters_done), (RolloutPhase::Complete, 1));
    assert_eq!(world.status().clusters[0].nodes.as_ref().unwrap().updated, 12);
}

#[test]
fn only_the_role_that_changed_restarts() {
    let mut world = at_rest(|_| {});
    world.edit(|cell| cell["spec"]["nodes"]["master"]["settings"] = json!({"search.max_buckets": 9}));
    let did = world.roll();
    assert_eq!(did.len(), 6);
    assert!(did.iter().all(|step| step.contains(Role::Master.as_str())), "{did:?}");
}

#[test]
fn what_is_to_be_restarted_is_recorded_first() {
    let mut world = at_rest(|_| {});
    set_all(&mut world, 1);
    assert_eq!(world.pass(), ["template guilds-a-data-b"], "the elected master is in zone a");
    world.controllers();
    assert_eq!(world.pass(), Vec::<String>::new());
    let operation = world.snapshot.cell.status.as_ref().unwrap().clusters[0].operation.clone().unwrap();
    assert_eq!(operation.nodes, ["guilds-a-data-b-0"]);
    assert_eq!(world.status().clusters[0].phase, ClusterPhase::Rolling);
    assert_eq!(world.pass(), ["restart guilds-a-data-b-0"]);
    assert_eq!(world.gates(), [Reason::RollingOut]);
    world.controllers();
    assert_eq!(world.pass(), ["template guilds-a-data-c"], "it is back: the next one follows");
    assert_eq!(world.snapshot.cell.status.as_ref().unwrap().clusters[0].operation, None);
}

/// A cell that is about to restart its next data node, if nothing is in the way.
pub fn about_to_restart() -> World {
    let mut world = at_rest(|_| {});
    set_all(&mut world, 1);
    world.pass();
    world.controllers();
    world
}

fn is_held(world: &mut World, gate: Reason) {
    assert_eq!(world.gates(), [gate], "{:#?}", world.plan().holds);
    assert_eq!(world.pass(), Vec::<String>::new());
    assert_eq!(world.status().clusters[0].operation, None);
}

#[test]
fn an_unavailable_reading_satisfies_no_gate() {
    let mut world = about_to_restart();
    world.snapshot.elastic.insert("a".into(), Reading::Unavailable("away".into()));
    is_held(&mut world, Reason::Unreachable);
}

/// Without ingest nodes in the spec, data nodes restart to take over; the ingest nodes go when all have, and Services lead there.
#[test]
fn ingest_nodes_go_when_data_nodes_have_taken_over() {
    let mut world = at_rest(|_| {});
    world.edit(|cell| drop(cell["spec"]["nodes"].as_object_mut().unwrap().remove("ingest")));
    let did = world.roll();
    let place = |what: &str| did.iter().rposition(|step| step.contains(what));
    let deletions: Vec<usize> = (0..did.len()).filter(|at| did[*at] == "Delete").collect();
    let (first, last) = (deletions[0], *deletions.last().unwrap());
    // Its budget goes at once, the Deployment at the end.
    assert!(first == 0 && last > place("restart guilds-a-data-").unwrap(), "{did:#?}");
    assert_eq!(did.iter().filter(|step| step.starts_with("restart guilds-a-data-")).count(), 3, "{did:#?}");
    assert_eq!(place("restart guilds-a-master"), None, "{did:#?}");
    assert!(world.snapshot.objects.deployments.is_empty() && world.snapshot.objects.autoscalers.is_empty());
    assert!(world.plan().steps.is_empty() && world.plan().holds.is_empty());
}

#[test]
fn without_a_master_nothing_restarts() {
    let mut world = about_to_restart();
    world.facts().master = None;
    is_held(&mut world, Reason::NoMaster);
}

#[test]
fn everybody_else_is_there() {
    let mut world = about_to_restart();
    world.facts().nodes.remove("guilds-a-master-c-0");
    is_held(&mut world, Reason::NodesMissing);
    let mut world = about_to_restart();
    let pods = &mut world.snapshot.objects.pods;
    pods.iter_mut()
        .find(|pod| label(&pod.metadata, "searchcell.dev/role") == Some("ingest"))
        .unwrap()
        .status = None;
    is_held(&mut world, Reason::NodesMissing);
}

#[test]
fn shards_have_settled() {
    let nodes = ["guilds-a-data-a-0", "guilds-a-data-b-0", "guilds-a-data-c-0"];
    for state in [ShardState::Initializing, ShardState::Relocating, ShardState::Unassigned] {
        let mut world = about_to_restart();
        world.index("messages", &nodes);
        assert_eq!(world.gates(), []);
        let now = world.now;
        let copy = |world: &mut World, new_since| {
            let index = Arc::make_mut(&mut world.facts().indices);
            let copy = &mut index.get_mut("messages").unwrap().copies[2];
            (copy.state, copy.new_since) = (state, new_since);
        };
        copy(&mut world, None);
        is_held(&mut world, Reason::ShardsSettled);
        // A copy that never was anywhere is nobody's loss.
        copy(&mut world, Some(now));
        assert_eq!(world.gates().is_empty(), state == ShardState::Unassigned);
    }
}

#[test]
fn each_shard_has_another_started_copy() {
    let mut world = about_to_restart();
    world.index("alone", &["guilds-a-data-b-0"]);
    is_held(&mut world, Reason::CopiesElsewhere);
    assert!(world.plan().holds[0].message.contains("alone"));
    let mut world = about_to_restart();
    world.index("elsewhere", &["guilds-a-data-c-0"]);
    assert_eq!(world.gates(), []);
}

#[test]
fn what_changed_since_it_was_recorded_stops_it() {
    let mut world = about_to_restart();
    world.pass();
    assert!(world.status().clusters[0].operation.is_some());
    world.facts().nodes.remove("guilds-a-data-c-0");
    assert_eq!(world.pass(), Vec::<String>::new());
    assert_eq!(world.gates(), [Reason::NodesMissing]);
    assert_eq!(world.status().clusters[0].operation, None);
}

#[test]
fn a_spec_that_is_set_back_restarts_no_more_than_it_has_to() {
    let mut world = about_to_restart();
    world.pass();
    world.edit(|cell| drop(cell["spec"].as_object_mut().unwrap().remove("settings")));
    assert_eq!(world.roll(), ["template guilds-a-data-b"]);
}

#[test]
fn a_node_that_does_not_come_back_stops_everything_and_a_better_spec_repairs_it() {
    let mut world = about_to_restart();
    world.pass();
    world.pass();
    world.controllers();
    let name = "guilds-a-data-b-0";
    world.facts().nodes.remove(name);
    let pod = |world: &mut World| -> usize {
        world.snapshot.objects.pods.iter().position(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap()
    };
    let at = pod(&mut world);
    let status = json!({"phase": "Running", "containerStatuses": [{"name": "elasticsearch", "ready": false, "restartCount": 3,
        "image": "i", "imageID": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
    world.snapshot.objects.pods[at].status = Some(serde_json::from_value(status).unwrap());
    for _ in 0..5 {
        assert_eq!(world.pass(), Vec::<String>::new());
        world.now += SignedDuration::from_secs(600);
    }
    assert!(world.gates().contains(&Reason::NodesMissing), "{:?}", world.gates());
    // Nothing is known of its health, and still it is repaired.
    world.snapshot.elastic.insert("a".into(), Reading::Unavailable("away".into()));
    set_all(&mut world, 2);
    assert_eq!(world.pass(), ["template guilds-a-data-b"]);
    world.controllers();
    assert_eq!(world.pass(), Vec::<String>::new());
    assert_eq!(world.pass(), ["restart guilds-a-data-b-0"]);
}

#[test]
fn one_cluster_after_the_other() {
    let mut world = at_rest(|cell| cell["spec"]["clusters"] = json!([{"name": "b"}, {"name": "a"}]));
    set_all(&mut world, 1);
    let did = world.roll();
    let first_of_a = did.iter().position(|step| step.contains("guilds-a-")).unwrap();
    let last_of_b = did.iter().rposition(|step| step.contains("guilds-b-")).unwrap();
    assert!(last_of_b < first_of_a, "{did:#?}");
    assert_eq!(did.len(), 2 * 13);
}
