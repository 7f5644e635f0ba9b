//! The plan of a cell, and the status that goes with it, from nothing to rest and through every change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod announce;
mod drain;
mod keystore;
mod leave;
mod preflight;
mod roll;
mod rollout;
mod world;
mod zone;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_core::names::{ANNOTATION_CLUSTER_UUID, ANNOTATION_HIGHEST_VERSION};
use searchcell_core::snapshot::Reading;
use searchcell_core::step::{Action, Kind, Object};
use searchcell_crds::conditions::{find, is_true};
use searchcell_crds::{ClusterPhase, Reason};
use serde_json::json;
use world::{UUID, World, cell_object, now};

fn reasons(world: &World) -> Vec<Reason> {
    world.plan().holds.iter().map(|hold| hold.reason).collect()
}

/// Budgets follow the state of the cluster by `Apply`; nothing else in these tests does.
fn without_budgets(actions: Vec<&'static str>) -> Vec<&'static str> {
    actions.into_iter().filter(|action| *action != "Apply").collect()
}

fn uuid(world: &World) -> Option<String> {
    world.snapshot.cell.status.as_ref()?.clusters.first()?.uuid.clone()
}

#[test]
fn a_new_cell_gets_its_finalizer_first() {
    let mut cell = cell_object();
    cell.metadata.finalizers = None;
    let plan = World::new(cell).plan();
    assert!(matches!(plan.steps.as_slice(), [step] if step.action == Action::AddFinalizer));
}

#[test]
fn the_bootstrap_map_comes_before_every_node() {
    let plan = World::new(cell_object()).plan();
    let names: Vec<&str> = plan.steps.iter().map(|step| step.action.name()).collect();
    assert_eq!(names.first(), Some(&"Bootstrap"));
    assert_eq!(names.iter().filter(|name| **name == "Create").count(), 1 + 3 + 3 + 6 + 1, "{names:?}");
    let Action::Bootstrap(map) = &plan.steps[0].action else { unreachable!() };
    let masters = map.data.as_ref().unwrap()["cluster.initial_master_nodes"].as_str();
    assert_eq!(masters, "guilds-a-master-a-0,guilds-a-master-b-0,guilds-a-master-c-0");
}

/// Objects are there, but for the ingest nodes, and nobody has ever answered.
fn forming() -> World {
    let mut world = World::new(cell_object());
    world.snapshot.restarts_nodes = true;
    world.settle();
    world.snapshot.objects.deployments.clear();
    world.snapshot.objects.pods.clear();
    world.controllers();
    world
}

#[test]
fn an_edit_while_a_cluster_forms_does_not_keep_it_from_the_nodes_that_can_be_asked() {
    let mut world = forming();
    world.edit(|cell| cell["spec"]["settings"] = json!({"indices.memory.index_buffer_size": "12%"}));
    for restarts in [true, false] {
        world.snapshot.restarts_nodes = restarts;
        let creates = world.plan().steps.into_iter().filter(
            |step| matches!(&step.action, Action::Create(object) if object.kind() == Kind::Deployment),
        );
        assert_eq!(creates.count(), 1, "operator that restarts nodes: {restarts}");
    }
}

#[test]
fn a_wrong_setting_of_a_new_cluster_is_put_right_by_the_spec() {
    let mut world = forming();
    for pod in &mut world.snapshot.objects.pods {
        pod.status = Some(
            serde_json::from_value(
                json!({"phase": "Running", "containerStatuses": [{"name": "elasticsearch", "image": "",
                "imageID": "", "ready": false, "restartCount": 3, "started": false,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            )
            .unwrap(),
        );
    }
    world.edit(|cell| cell["spec"]["settings"] = json!({"indices.memory.index_buffer_size": "12%"}));
    let names: Vec<&str> = world.plan().steps.iter().map(|step| step.action.name()).collect();
    assert!(names.contains(&"ReplaceTemplate"), "{names:?} {:?}", world.plan().holds);
}

#[test]
fn a_formed_cluster_is_recorded_everywhere_before_the_bootstrap_map_goes() {
    let mut world = World::new(cell_object());
    world.settle();
    assert_eq!(world.status().clusters[0].phase, ClusterPhase::Forming);
    world.form(UUID);
    let first = world.plan();
    assert!(
        !first.steps.iter().any(|step| step.action.name() == "Delete"),
        "status does not carry the UUID yet"
    );
    let actions = world.settle();
    let last_record = actions.iter().rposition(|name| *name == "AnnotateClaim").unwrap();
    let deletion = actions.iter().position(|name| *name == "Delete").unwrap();
    assert!(last_record < deletion, "{actions:?}");
    assert_eq!(uuid(&world).as_deref(), Some(UUID));
    assert!(world.snapshot.objects.config_maps.is_empty());
    for claim in &world.snapshot.objects.claims {
        let annotations = claim.metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations[ANNOTATION_CLUSTER_UUID], UUID);
        assert_eq!(annotations[ANNOTATION_HIGHEST_VERSION], "9.5.3");
    }
    assert!(world.has_wanted_settings());
}

#[test]
fn a_master_that_has_not_joined_does_not_keep_the_bootstrap_map() {
    let mut world = World::new(cell_object());
    world.settle();
    world.form(UUID);
    let Some(Reading::Known(facts)) = world.snapshot.elastic.get_mut("a") else { unreachable!() };
    facts.nodes.remove("guilds-a-master-c-0");
    world.settle();
    assert!(world.snapshot.objects.config_maps.is_empty());
}

#[test]
fn claims_on_their_way_out_are_no_identity_and_are_waited_for() {
    let mut world = World::formed();
    let mut claims = world.snapshot.objects.claims.clone();
    for claim in &mut claims {
        claim.metadata.deletion_timestamp = Some(Time(now()));
    }
    let mut again = World::new(cell_object());
    again.snapshot.objects.claims = claims;
    assert_eq!((again.plan().steps.len(), reasons(&again)), (0, vec![Reason::Progressing]));
    assert_eq!(again.status().clusters[0].uuid, None);
    again.snapshot.objects.claims.clear();
    assert!(again.plan().steps.iter().any(|step| step.action.name() == "Bootstrap"));
    world.settle();
}

#[test]
fn at_rest_nothing_is_planned_and_nothing_in_status_changes() {
    let world = World::formed();
    assert_eq!(world.plan().steps, []);
    let status = world.snapshot.cell.status.clone().unwrap();
    assert!(searchcell_core::status::same_cell_status(Some(&status), &world.status()));
    assert!(is_true(&status.conditions, "Ready") && !is_true(&status.conditions, "Degraded"));
    assert!(
        find(&status.conditions, "Reconciling").is_none() && find(&status.conditions, "Stalled").is_none()
    );
    assert_eq!((status.nodes_ready.as_deref(), status.clusters_ready.as_deref()), (Some("9/9"), Some("1/1")));
}

#[test]
fn a_wiped_status_finds_its_uuid_on_the_claims() {
    let mut world = World::formed();
    world.snapshot.cell.status = None;
    world.snapshot.elastic.clear();
    assert_eq!(without_budgets(world.settle()), Vec::<&str>::new());
    assert_eq!(uuid(&world).as_deref(), Some(UUID));
}

#[test]
fn a_restored_cell_with_one_master_volume_lost_does_not_bootstrap() {
    let mut world = World::formed();
    let claims = world.snapshot.objects.claims.clone();
    let mut restored = World::new(cell_object());
    restored.snapshot.objects.claims = claims;
    restored
        .snapshot
        .objects
        .claims
        .retain(|o| o.metadata.name.as_deref() != Some("data-guilds-a-master-b-0"));
    let actions = restored.settle();
    assert!(!actions.contains(&"Bootstrap"), "{actions:?}");
    assert!(actions.contains(&"Create"));
    let layout = restored
        .snapshot
        .objects
        .stateful_sets
        .iter()
        .filter(|o| o.metadata.name.as_ref().unwrap().contains("master"));
    assert_eq!(layout.count(), 3);
    world.settle();
}

#[test]
fn volumes_without_identity_that_are_older_than_the_cell_stop_everything() {
    let mut world = World::formed();
    let mut claims = world.snapshot.objects.claims.clone();
    for claim in &mut claims {
        claim.metadata.annotations = None;
        claim.metadata.creation_timestamp = Some(Time("2020-01-01T00:00:00Z".parse().unwrap()));
    }
    let mut restored = World::new(cell_object());
    restored.snapshot.objects.claims = claims;
    assert_eq!((restored.plan().steps.len(), reasons(&restored)), (0, vec![Reason::ForeignVolume]));
    assert!(is_true(&restored.status().conditions, "Stalled"));
    world.settle();
}

#[test]
fn masters_without_a_map_and_without_a_uuid_are_never_given_a_map_again() {
    let mut world = World::new(cell_object());
    world.settle();
    world.snapshot.objects.config_maps.clear();
    world.snapshot.cell.status = None;
    assert!(!world.plan().steps.iter().any(|step| step.action.name() == "Bootstrap"));
    assert_eq!(reasons(&world), [Reason::Forming]);
}

#[test]
fn another_uuid_than_the_recorded_one_freezes_the_cluster() {
    let mut world = World::formed();
    let Some(Reading::Known(facts)) = world.snapshot.elastic.get_mut("a") else { unreachable!() };
    facts.uuid = Some("another".into());
    facts.settings.clear();
    assert_eq!((world.plan().steps.len(), reasons(&world)), (0, vec![Reason::ForeignVolume]));
    assert!(!is_true(&world.status().conditions, "Ready"));
}

#[test]
fn an_unavailable_reading_changes_no_settings_and_deletes_no_map() {
    let mut world = World::new(cell_object());
    world.settle();
    world.form(UUID);
    world.snapshot.cell.status = Some(world.status());
    world.snapshot.elastic.insert("a".into(), Reading::Unavailable("no answer".into()));
    assert_eq!(world.plan().steps, []);
}

#[test]
fn a_change_of_inputs_is_held_and_touches_no_template() {
    let mut world = World::formed();
    world.edit(|cell| {
        cell["spec"]["nodes"]["data"]["settings"] = json!({"indices.memory.index_buffer_size": "20%"})
    });
    assert_eq!((world.plan().steps.len(), reasons(&world)), (0, vec![Reason::NotSupportedYet]));
    let status = world.status();
    assert!(is_true(&status.conditions, "Stalled") && is_true(&status.conditions, "Ready"));
    world.edit(|cell| cell["spec"]["nodes"]["data"]["settings"] = json!({}));
    assert_eq!(reasons(&world), []);
}

#[test]
fn a_lower_version_than_one_that_joined_is_forward_only() {
    let mut world = World::formed();
    world.edit(|cell| cell["spec"]["version"] = json!("9.1.0"));
    assert_eq!((world.plan().steps.len(), reasons(&world)), (0, vec![Reason::ForwardOnly]));
}

#[test]
fn data_nodes_grow_in_place() {
    let mut world = World::formed();
    world.edit(|cell| cell["spec"]["nodes"]["data"]["perZone"] = json!(2));
    let scales: Vec<&str> = world.plan().steps.iter().map(|step| step.action.name()).collect();
    assert_eq!(without_budgets(scales), ["Scale", "Scale", "Scale"]);
    world.settle();
    world.form(UUID);
    world.settle();
    assert_eq!(world.status().nodes_ready.as_deref(), Some("12/12"));
}

#[test]
fn volumes_grow_claims_first_and_do_not_shrink() {
    let mut world = World::formed();
    for claim in &mut world.snapshot.objects.claims {
        claim.spec = serde_json::from_value(json!({"resources": {"requests": {"storage": "1Gi"}}})).unwrap();
    }
    assert_eq!(world.plan().steps, []);
    world.edit(|cell| cell["spec"]["nodes"]["data"]["storage"]["size"] = json!("2Gi"));
    let expected = [vec!["GrowClaim"; 3], vec!["RecreateAroundPods"; 3]].concat();
    assert_eq!(world.settle(), expected);
    world.edit(|cell| cell["spec"]["nodes"]["data"]["storage"]["size"] = json!("2048Mi"));
    assert_eq!((world.plan().steps.len(), reasons(&world)), (0, vec![]));
    world.edit(|cell| cell["spec"]["nodes"]["data"]["storage"]["size"] = json!("1Gi"));
    assert_eq!((world.plan().steps.len(), reasons(&world)), (0, vec![Reason::NotSupportedYet]));
}

#[test]
fn a_second_cluster_leaves_the_first_alone() {
    let mut world = World::formed();
    world.edit(|cell| cell["spec"]["clusters"] = json!([{"name": "a"}, {"name": "b"}]));
    assert!(world.plan().steps.iter().all(|step| step.cluster.as_deref() == Some("b")));
}

#[test]
fn a_new_zone_restarts_nobody_and_joins_the_forced_values() {
    let mut world = World::formed();
    world.edit(|cell| {
        cell["spec"]["zones"] = json!([{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}])
    });
    // The budgets are shut while the new node has not joined.
    assert_eq!(without_budgets(world.settle()), ["Create", "PutSettings"]);
    assert!(world.has_wanted_settings());
}

#[test]
fn a_setting_that_leaves_the_spec_is_reset_and_others_stay() {
    let mut world = World::formed();
    world.edit(|cell| cell["spec"]["clusterSettings"] = json!({"cluster.max_shards_per_node": 2000}));
    world.settle();
    let Some(Reading::Known(facts)) = world.snapshot.elastic.get_mut("a") else { unreachable!() };
    assert_eq!(facts.settings["cluster.max_shards_per_node"], json!(2000));
    facts.settings.insert("search.max_buckets".into(), json!("5"));
    world.edit(|cell| cell["spec"]["clusterSettings"] = json!({}));
    world.settle();
    let facts = world.snapshot.elastic("a").unwrap();
    assert!(!facts.settings.contains_key("cluster.max_shards_per_node"));
    assert_eq!(facts.settings["search.max_buckets"], json!("5"));
}

#[test]
fn the_autoscaler_gets_the_number_without_a_write_to_it() {
    let mut world = World::formed();
    for deployment in &mut world.snapshot.objects.deployments {
        deployment.metadata.managed_fields =
            serde_json::from_value(json!([{"manager": "searchcell-operator",
            "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]))
            .unwrap();
    }
    world.edit(|cell| {
        cell["spec"]["nodes"]["ingest"].as_object_mut().unwrap().remove("replicas");
        cell["spec"]["nodes"]["ingest"]["autoscaling"] =
            json!({"minReplicas": 3, "maxReplicas": 6, "targetCPUUtilizationPercentage": 70});
    });
    let mut actions = world.settle();
    actions.sort_unstable();
    assert_eq!(actions, ["Create", "ReleaseReplicas"]);
    world.edit(|cell| {
        cell["spec"]["nodes"]["ingest"].as_object_mut().unwrap().remove("autoscaling");
        cell["spec"]["nodes"]["ingest"]["replicas"] = json!(4);
    });
    assert_eq!(world.settle(), ["Delete", "Scale"]);
}

#[test]
fn an_object_of_another_owner_is_reported_and_not_touched() {
    let mut world = World::new(cell_object());
    let plan = world.plan();
    let service = plan
        .steps
        .into_iter()
        .find(|step| matches!(&step.action, Action::Create(Object::Service(o)) if o.metadata.name.as_deref() == Some("guilds-a")))
        .unwrap();
    world.apply(service.action);
    world.snapshot.objects.services[0].metadata.owner_references = None;
    let plan = world.plan();
    assert_eq!(reasons(&world), [Reason::NameConflict]);
    assert!(!plan.steps.iter().any(|step| matches!(&step.action, Action::Create(Object::StatefulSet(_)))));
    assert!(is_true(&world.status().conditions, "Stalled"));
}

#[test]
fn nodes_come_after_their_network_policy() {
    let plan = World::new(cell_object()).plan();
    let position = |kind: Kind| {
        plan.steps
            .iter()
            .position(|step| matches!(&step.action, Action::Create(o) if o.kind() == kind))
            .unwrap()
    };
    assert!(position(Kind::NetworkPolicy) < position(Kind::StatefulSet).min(position(Kind::Deployment)));
}

#[test]
fn a_network_policy_that_was_loosened_or_deleted_comes_back() {
    let mut world = World::formed();
    let wanted = world.snapshot.objects.network_policies[0].spec.clone();
    let policies = &mut world.snapshot.objects.network_policies;
    policies[0].spec.as_mut().unwrap().ingress.as_mut().unwrap().push(Default::default());
    assert_eq!(world.settle(), ["Apply"]);
    assert_eq!(world.snapshot.objects.network_policies[0].spec, wanted);
    world.snapshot.objects.network_policies.clear();
    assert_eq!(world.settle(), ["Create"]);
}

#[test]
fn behind_somebody_elses_network_policy_no_node_is_made() {
    let mut world = World::new(cell_object());
    let policy = (world.plan().steps.into_iter())
        .find(|step| matches!(&step.action, Action::Create(Object::NetworkPolicy(_))))
        .unwrap();
    world.apply(policy.action);
    world.snapshot.objects.network_policies[0].metadata.owner_references = None;
    let names: Vec<&str> = world.plan().steps.iter().map(|step| step.action.name()).collect();
    assert_eq!((names, reasons(&world)), (vec!["Bootstrap"], vec![Reason::NameConflict]));
}

#[test]
fn the_network_policy_stays_until_the_cell_is_gone() {
    let mut world = World::formed();
    world.edit(|cell| {
        cell["spec"]["deletionPolicy"] = json!("Delete");
        cell["metadata"]["deletionTimestamp"] = json!(now().to_string());
    });
    let deleted = world.plan().steps;
    assert!(
        deleted.iter().any(
            |step| matches!(&step.action, Action::Delete { target } if target.kind == Kind::StatefulSet)
        )
    );
    assert!(
        !deleted.iter().any(
            |step| matches!(&step.action, Action::Delete { target } if target.kind == Kind::NetworkPolicy)
        )
    );
}

#[test]
fn a_suspended_cell_is_only_reported() {
    let mut world = World::formed();
    world.edit(|cell| {
        cell["spec"]["suspend"] = json!(true);
        cell["spec"]["nodes"]["data"]["perZone"] = json!(2);
    });
    assert_eq!((world.plan().steps.len(), reasons(&world)), (0, vec![Reason::Suspended]));
    assert!(is_true(&world.status().conditions, "Reconciling"));
}

#[test]
fn retain_keeps_the_volumes_and_delete_takes_them_after_the_nodes() {
    let mut world = World::formed();
    world.snapshot.cell.metadata.deletion_timestamp = Some(Time(now()));
    let names: Vec<&str> = world.plan().steps.iter().map(|step| step.action.name()).collect();
    assert_eq!(names, ["RemoveFinalizer"]);

    world.snapshot.cell.spec.deletion_policy = searchcell_crds::DeletionPolicy::Delete;
    let plan = world.plan();
    assert!(!plan.steps.iter().any(|step| step.action == Action::RemoveFinalizer));
    for step in plan.steps {
        world.apply(step.action);
    }
    assert_eq!(world.snapshot.objects.claims.len(), 6, "nodes go first");
    world.run_controllers();
    let names: Vec<&str> = world.plan().steps.iter().map(|step| step.action.name()).collect();
    assert_eq!(names, [vec!["Delete"; 6], vec!["RemoveFinalizer"]].concat());
}

#[test]
fn a_deletion_is_bounded_even_when_nodes_do_not_stop() {
    let mut world = World::formed();
    world.snapshot.cell.spec.deletion_policy = searchcell_crds::DeletionPolicy::Delete;
    world.snapshot.cell.metadata.deletion_timestamp = Some(Time("2026-11-21T11:50:00Z".parse().unwrap()));
    assert!(world.plan().steps.iter().any(|step| step.action == Action::RemoveFinalizer));
}

fn allowed(world: &World, name: &str) -> Option<String> {
    let budget = world.snapshot.objects.budgets.iter().find(|o| o.metadata.name.as_deref() == Some(name))?;
    Some(serde_json::to_value(budget.spec.as_ref()?.max_unavailable.as_ref()?).unwrap().to_string())
}

#[test]
fn masters_and_data_nodes_may_be_evicted_only_while_the_cluster_is_whole() {
    let mut world = World::new(cell_object());
    world.settle();
    let of = |world: &World| {
        ["master", "data", "ingest"].map(|role| allowed(world, &format!("guilds-a-{role}")).unwrap())
    };
    assert_eq!(of(&world), ["0", "0", "1"], "while it forms");
    world.form(UUID);
    world.settle();
    assert_eq!(of(&world), ["1", "1", "1"], "whole");
    let Some(Reading::Known(facts)) = world.snapshot.elastic.get_mut("a") else { unreachable!() };
    let index = searchcell_core::snapshot::IndexFacts { primaries: 1, replicas: 2, ..Default::default() };
    Arc::make_mut(&mut facts.indices).insert("messages".into(), index);
    world.settle();
    assert_eq!(of(&world), ["0", "0", "1"], "copies are missing");
    world.snapshot.elastic.insert("a".into(), Reading::Unavailable("no answer".into()));
    world.settle();
    assert_eq!(of(&world), ["0", "0", "1"], "nobody knows");
}

#[test]
fn a_budget_that_nobody_needs_any_more_goes() {
    let mut world = World::formed();
    let mut surplus = world.snapshot.objects.budgets[0].clone();
    surplus.metadata.name = Some("guilds-a-former".into());
    surplus.metadata.uid = Some("former".into());
    world.snapshot.objects.budgets.push(surplus);
    assert_eq!(world.settle(), ["Delete"]);
    assert!(allowed(&world, "guilds-a-former").is_none());
}

#[test]
fn a_pod_that_cannot_start_says_why() {
    let mut world = World::formed();
    let pod = world
        .snapshot
        .objects
        .pods
        .iter_mut()
        .find(|o| o.metadata.name.as_deref() == Some("guilds-a-data-b-0"))
        .unwrap();
    pod.status = serde_json::from_value(json!({"initContainerStatuses": [{
        "name": "configure", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 78, "message": "vm.max_map_count of this Kubernetes node is 65530"}},
    }]}))
    .unwrap();
    let status = world.status();
    let degraded = find(&status.conditions, "Degraded").unwrap();
    assert_eq!(degraded.reason, "MapCountTooLow", "{degraded:?}");
    assert!(degraded.message.contains("65530"), "{}", degraded.message);
}

#[test]
fn a_lost_zone_degrades_and_stays_ready() {
    let mut world = World::formed();
    for pod in &mut world.snapshot.objects.pods {
        if pod.metadata.labels.as_ref().unwrap().get("searchcell.dev/zone").map(String::as_str) == Some("b") {
            pod.status = None;
        }
    }
    let status = world.status();
    assert!(is_true(&status.conditions, "Ready"));
    assert_eq!(find(&status.conditions, "Degraded").unwrap().reason, "ZoneMissing");
    assert_eq!(status.clusters[0].phase, ClusterPhase::Degraded);
}
