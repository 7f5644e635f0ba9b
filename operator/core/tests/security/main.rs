//! Certificates and users as decisions: made once, renewed in time, rotated by overlap, and nothing at rest.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod supplied;
mod users;
mod world;

use searchcell_core::names::ClusterKey;
use searchcell_core::plan::{plan_cell, plan_invalid_cell};
use searchcell_core::security::{
    ANNOTATION_ROTATE, Authority, Layer, Stage, disruption_may_start, rotation_in_flight,
};
use searchcell_core::snapshot::Reading;
use searchcell_core::step::{Action, Object};
use searchcell_crds::{ClusterStatus, Operation, OperationKind, Reason, SearchCellStatus};
use world::{DAY, World, annotate};

fn stage(world: &World, name: &str) -> Stage {
    Authority::of(world.secret(name)).stage()
}

fn running() -> World {
    let mut world = World::new();
    world.settle();
    world.run_pods();
    world
}

#[test]
fn everything_is_made_once_and_nothing_at_rest() {
    let mut world = World::new();
    let first = world.pass();
    assert!(first.contains(&"RenewAuthority guilds-http-ca".to_owned()), "{first:?}");
    assert!(first.contains(&"RenewAuthority guilds-a-transport-ca".to_owned()));
    assert!(first.contains(&"RenewAuthority guilds-b-transport-ca".to_owned()));
    assert!(first.contains(&"GenerateCredential guilds-admin".to_owned()));
    world.settle();
    // Two clusters of two roles in three zones and a Deployment, three authorities, four credentials, those who stand by, the realm.
    assert_eq!(world.snapshot.objects.secrets.len(), 2 * 7 + 3 + 4 + 2);
    let data = world.secret("guilds-b-data-c-certificates");
    let leaf = data.pair("guilds-b-data-c-0.http").unwrap();
    for name in [
        "localhost",
        "guilds-b-data-c-0",
        "guilds-b.search.svc",
        "guilds-b-http.search.svc.cluster.local",
        "guilds-b-data-c-0.guilds-b-transport.search.svc",
    ] {
        assert!(leaf.names.contains(name), "{name}");
    }
    assert!(world.secret("guilds-a-ingest-certificates").pair("ingest.transport").is_some());
    world.run_pods();
    let plan = world.plan();
    assert!(plan.steps.is_empty() && plan.holds.is_empty() && !plan.rotates, "{plan:#?}");
    assert_eq!(plan.wake_at.unwrap().duration_since(world.now).as_secs(), 54 * DAY);
}

#[test]
fn certificates_are_renewed_before_two_thirds_of_their_life() {
    let mut world = running();
    let before = world.secret("guilds-a-data-a-certificates").pair("guilds-a-data-a-0.http").unwrap().clone();
    world.pass_time(53 * DAY);
    assert!(world.pass().is_empty());
    world.pass_time(2 * DAY);
    assert_eq!(world.pass().len(), 14);
    let after = world.secret("guilds-a-data-a-certificates").pair("guilds-a-data-a-0.http").unwrap().clone();
    assert!(after.fingerprint != before.fingerprint && after.signer == before.signer);
    assert!(world.plan().steps.is_empty());
}

#[test]
fn an_invalid_spec_does_not_let_certificates_expire() {
    let mut world = running();
    world.pass_time(55 * DAY);
    world.edit(|cell| cell["spec"]["version"] = "what".into());
    let every = std::time::Duration::from_secs(60);
    assert_eq!(plan_invalid_cell(&world.snapshot, world.now, every).steps.len(), 14);
    world.edit(|cell| cell["spec"]["suspend"] = true.into());
    assert!(plan_invalid_cell(&world.snapshot, world.now, every).steps.is_empty());
}

/// Every stage waits for what it has to wait for, and each step is one write.
#[test]
fn an_authority_of_a_transport_layer_is_rotated_by_overlap() {
    let mut world = running();
    let name = "guilds-a-transport-ca";
    let secret = world.snapshot.objects.secrets.iter_mut().find(|secret| secret.name() == name).unwrap();
    annotate(secret, ANNOTATION_ROTATE, "1".into());
    assert_eq!(world.pass(), [format!("RenewAuthority {name}")]);
    assert_eq!(stage(&world, name), Stage::Overlap);

    // Both are trusted, by every Secret and then by every node; none of another cluster is touched.
    let steps = world.pass();
    assert_eq!(steps.len(), 7, "{steps:?}");
    assert!(steps.iter().all(|step| step.starts_with("IssueCertificates guilds-a-")));
    assert_eq!(world.secret("guilds-a-data-a-certificates").certificates("transport-ca.crt").len(), 2);
    assert_eq!(world.pass(), Vec::<String>::new());
    world.serve(Some("guilds-a-data-b-0"));
    assert_eq!(world.pass(), Vec::<String>::new());
    assert!(world.plan().holds[0].message.contains("guilds-a-data-b-0"));
    assert_eq!(world.plan().holds[0].reason, Reason::RotatingCertificates);
    world.serve(None);
    assert_eq!(world.pass(), [format!("RenewAuthority {name}")]);
    assert_eq!(stage(&world, name), Stage::Reissue);

    // New certificates; both are trusted until every node shows its own.
    world.serve(None);
    assert_eq!(world.pass().len(), 7);
    assert_eq!(world.pass(), Vec::<String>::new());
    world.serve(Some("guilds-a-ingest-k2"));
    assert_eq!(world.pass(), Vec::<String>::new());
    assert_eq!(world.secret("guilds-a-data-a-certificates").certificates("transport-ca.crt").len(), 2);
    world.serve(None);
    assert_eq!(world.pass(), [format!("RenewAuthority {name}")]);
    assert_eq!(stage(&world, name), Stage::Steady);
    assert_eq!(world.pass().len(), 7);
    assert_eq!(world.secret("guilds-a-data-a-certificates").certificates("transport-ca.crt").len(), 1);
    assert!(world.pass().is_empty() && world.plan().holds.is_empty());
}

#[test]
fn clients_of_http_have_time_to_load_a_new_authority() {
    let mut world = running();
    let name = "guilds-http-ca";
    world.pass_time(2200 * DAY);
    world.settle();
    assert_eq!(stage(&world, name), Stage::Overlap);
    let map = world.snapshot.objects.config_maps[0].data.clone().unwrap();
    assert_eq!(map["ca.crt"].lines().count(), 2);
    world.pass_time(599);
    world.serve(None);
    assert_eq!(stage(&world, name), Stage::Overlap);
    assert!(world.plan().wake_at.unwrap() <= world.now + jiff::SignedDuration::from_secs(1));
    world.pass_time(1);
    for _ in 0..12 {
        world.serve(None);
        world.pass();
    }
    assert_eq!(stage(&world, name), Stage::Steady);
    assert_eq!(world.snapshot.objects.config_maps[0].data.clone().unwrap()["ca.crt"].lines().count(), 1);
}

#[test]
fn a_deleted_authority_comes_back_trusted_beside_what_nodes_have() {
    let mut world = running();
    let name = "guilds-a-transport-ca";
    let former = world.secret(name).pair("ca").unwrap().clone();
    world.delete(name);
    world.pass();
    assert_eq!(stage(&world, name), Stage::Overlap);
    world.pass();
    let trust = world.secret("guilds-a-master-a-certificates").certificates("transport-ca.crt").to_vec();
    assert!(trust.len() == 2 && trust.contains(&former));
    // Nobody can sign for the former, so nothing is issued before everybody trusts the new one.
    let leaf = world.secret("guilds-a-master-a-certificates").pair("guilds-a-master-a-0.transport").unwrap();
    assert!(leaf.is_signed_by(&former));
    for _ in 0..12 {
        world.serve(None);
        world.pass();
    }
    assert_eq!(stage(&world, name), Stage::Steady);
    assert!(world.secret(name).pair("ca").unwrap().fingerprint != former.fingerprint);
    assert!(world.plan().steps.is_empty());
}

#[test]
fn a_rotation_and_a_disruption_exclude_each_other() {
    let mut world = running();
    let key = ClusterKey::new("search", "guilds", "a");
    assert_eq!(disruption_may_start(&key, &world.snapshot.objects.secrets), Ok(()));
    let operation = Operation {
        kind: OperationKind::RestartNode,
        zone: None,
        nodes: Vec::new(),
        uids: Vec::new(),
        message: None,
        started_at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now),
    };
    let cluster = ClusterStatus { name: "a".into(), operation: Some(operation), ..ClusterStatus::default() };
    world.snapshot.cell.status =
        Some(SearchCellStatus { clusters: vec![cluster], ..SearchCellStatus::default() });
    for secret in &mut world.snapshot.objects.secrets {
        if secret.name().ends_with("-ca") {
            annotate(secret, ANNOTATION_ROTATE, "now".into());
        }
    }
    // The authority of HTTP is the whole cell's; that of the other cluster's transport is not concerned.
    assert_eq!(world.pass(), ["RenewAuthority guilds-b-transport-ca"]);
    assert_eq!(rotation_in_flight(&key, &world.snapshot.objects.secrets), None);
    world.snapshot.cell.status = None;
    world.pass();
    assert_eq!(rotation_in_flight(&key, &world.snapshot.objects.secrets), Some(Layer::Transport));
    let hold = disruption_may_start(&key, &world.snapshot.objects.secrets).unwrap_err();
    assert_eq!(hold.reason, Reason::RotatingCertificates);
}

#[test]
fn a_node_that_cannot_be_asked_proves_nothing() {
    let mut world = running();
    world.delete("guilds-a-transport-ca");
    world.pass();
    world.pass();
    world.serve(None);
    let uid = "pod-guilds-a-data-a-0".to_owned();
    world.snapshot.served.insert(uid, Reading::Unavailable("port 9300 does not answer".into()));
    assert_eq!(world.pass(), Vec::<String>::new());
}

#[test]
fn a_secret_of_somebody_else_is_reported_and_left_alone() {
    let mut world = World::new();
    world.settle();
    let secret = world
        .snapshot
        .objects
        .secrets
        .iter_mut()
        .find(|secret| secret.name() == "guilds-a-data-a-certificates");
    secret.unwrap().metadata.owner_references = None;
    world.pass_time(60 * DAY);
    let plan = world.plan();
    assert!(plan.holds.iter().any(|hold| hold.reason == Reason::NameConflict));
    assert_eq!(plan.steps.len(), 13);
}

/// A cell that is made again under its name: whom clients trust is still what the former one said, until the garbage
/// collector comes to it. No node shows them a certificate that they cannot know.
#[test]
fn no_node_starts_before_clients_can_know_whom_to_trust() {
    let mut world = World::new();
    world.settle();
    let workloads = |world: &World| {
        let plan = plan_cell(&world.valid(), &world.snapshot, world.now);
        plan.steps.iter().filter(|step| matches!(step.action, Action::Create(Object::StatefulSet(_)))).count()
    };
    assert_eq!(workloads(&world), 2 * (3 + 3));
    let maps = &mut world.snapshot.objects.config_maps;
    let map =
        maps.iter_mut().find(|map| map.metadata.name.as_deref() == Some("guilds-http-ca-public")).unwrap();
    map.metadata.owner_references.as_mut().unwrap()[0].uid = "of-the-former-cell".to_owned();
    assert_eq!(workloads(&world), 0);
    world.snapshot.objects.config_maps.clear();
    assert_eq!(workloads(&world), 0);
    world.settle();
    assert_eq!(workloads(&world), 2 * (3 + 3));
}
