//! Users of the file realm: who is in it, and how passwords rotate.

use searchcell_core::security::users::User;
use searchcell_core::snapshot::{ElasticFacts, Reading};
use searchcell_crds::{IndexPlacement, Reason};
use serde_json::json;

use crate::world::World;

fn names(world: &World) -> Vec<String> {
    let users = world.secret("guilds-users").users.clone().unwrap();
    users.users.into_iter().map(|(name, _)| name).collect()
}

fn read_as(world: &mut World, user: &str) {
    for cluster in ["a", "b"] {
        let facts = ElasticFacts { known_as: Some(user.to_owned()), ..ElasticFacts::default() };
        world.snapshot.elastic.insert(cluster.to_owned(), Reading::Known(facts));
    }
}

fn of(world: &World, role: &str) -> Vec<String> {
    let mut names = names(world);
    names.retain(|name| name.starts_with(&format!("searchcell-{role}-")));
    names
}

/// What a client that has mounted the Secret of a credential knows.
fn credential(world: &World, role: &str) -> (String, String) {
    let secret = world.secret(&format!("guilds-{role}")).credential.clone().unwrap();
    (secret.username, secret.hash.unwrap())
}

#[test]
fn everybody_is_in_the_file_twice_with_a_role() {
    let mut world = World::new();
    world.settle();
    let all: Vec<String> = ["operator", "router", "exporter", "admin"]
        .iter()
        .flat_map(|role| [1, 2].map(|slot| format!("searchcell-{role}-{slot}")))
        .collect();
    assert_eq!(names(&world), all);
    let users = world.secret("guilds-users").users.clone().unwrap();
    assert!(users.users_roles.contains("superuser:searchcell-admin-1,searchcell-admin-2\n"));
    assert!(users.users_roles.contains("searchcell_router:searchcell-router-1,searchcell-router-2\n"));
}

/// A file reaches nodes minutes after it changed: a router may write to a new placement from the first moment on.
#[test]
fn routers_are_confined_to_indices_of_placements_and_no_placement_changes_their_rights() {
    let mut world = World::new();
    world.settle();
    let placement: IndexPlacement = serde_json::from_value(json!({
        "metadata": {"name": "messages", "namespace": "search"},
        "spec": {"cell": "guilds", "collection": "messages", "tenant": {"field": "g"}, "pool": {"indices": 1}},
    }))
    .unwrap();
    world.snapshot.placements = vec![placement];
    assert!(world.pass().is_empty());
    let users = world.secret("guilds-users").users.clone().unwrap();
    let names = r#"{"names":["/[a-z][a-z0-9-]*\\.(p[0-9]+|t\\.[a-z0-9-]+)\\.g[0-9]+/"],"privileges":["read","write","indices:admin/refresh*"]}"#;
    let router = format!("searchcell_router:\n  cluster: [\"cluster:monitor/main\"]\n  indices: [{names}]\n");
    assert!(users.roles.contains(&router), "{}", users.roles);
}

#[test]
fn whoever_stands_by_takes_the_turn_and_another_one_stands_by_when_the_former_has_gone() {
    let mut world = World::new();
    world.settle();
    read_as(&mut world, "searchcell-operator-1");
    world.pass_time(121);
    let before = world.secret("guilds-users").users.clone().unwrap().users;
    world.delete("guilds-operator");
    assert_eq!(world.pass(), ["GenerateCredential guilds-operator"]);
    // Every node knows it already.
    assert!(before.contains(&credential(&world, "operator")));
    assert_eq!(world.pass(), ["RenewStandby guilds-standby", "RenderUsers guilds-users"]);
    assert_eq!(of(&world, "operator"), ["searchcell-operator-2", "searchcell-operator-1"]);
    assert!(!world.secret("guilds-standby").standby.contains_key("operator"));
    assert!(world.pass().is_empty());
    read_as(&mut world, "searchcell-operator-2");
    world.snapshot.elastic.insert("b".into(), Reading::Unavailable("it does not answer".into()));
    assert!(world.pass().is_empty());
    read_as(&mut world, "searchcell-operator-2");
    assert_eq!(world.pass(), ["RenewStandby guilds-standby", "RenderUsers guilds-users"]);
    assert_eq!(of(&world, "operator"), ["searchcell-operator-2"]);
    assert_eq!(world.pass(), ["RenderUsers guilds-users"]);
    assert_eq!(of(&world, "operator"), ["searchcell-operator-2", "searchcell-operator-1"]);
    let after = world.secret("guilds-users").users.clone().unwrap().users;
    assert!(after.iter().all(|user| user.0 != "searchcell-operator-1" || !before.contains(user)));
    // And back again.
    world.pass_time(121);
    world.delete("guilds-operator");
    world.settle();
    assert_eq!(of(&world, "operator"), ["searchcell-operator-1", "searchcell-operator-2"]);
}

#[test]
fn a_former_user_goes_after_a_grace() {
    for role in [User::Router, User::Exporter, User::Admin] {
        let mut world = World::new();
        world.settle();
        world.pass_time(121);
        let before = credential(&world, role.as_str());
        world.delete(&role.secret("guilds"));
        world.settle();
        let names = [2, 1].map(|slot| format!("searchcell-{}-{slot}", role.as_str()));
        assert_eq!(of(&world, role.as_str()), names);
        let plan = world.plan();
        assert_eq!(plan.wake_at.unwrap().duration_since(world.now).as_secs(), 900);
        world.pass_time(899);
        assert!(world.pass().is_empty());
        assert!(world.secret("guilds-users").users.clone().unwrap().users.contains(&before));
        world.pass_time(1);
        world.settle();
        assert_eq!(of(&world, role.as_str()), names);
        assert!(!world.secret("guilds-users").users.clone().unwrap().users.contains(&before));
    }
}

#[test]
fn nobody_takes_a_turn_before_nodes_know_them() {
    let mut world = World::new();
    world.settle();
    world.pass_time(60);
    world.delete("guilds-router");
    assert!(world.pass().is_empty());
    assert_eq!(world.plan().wake_at.unwrap().duration_since(world.now).as_secs(), 60);
    world.pass_time(60);
    assert_eq!(world.pass(), ["GenerateCredential guilds-router"]);
    assert_eq!(credential(&world, "router").0, "searchcell-router-2");
}

#[test]
fn who_stands_by_is_in_the_file_before_the_turn() {
    let mut world = World::new();
    // Until somebody stands by, and just before the file has them.
    while !world.snapshot.objects.secrets.iter().any(|secret| secret.name() == "guilds-standby") {
        world.pass();
    }
    assert_eq!(of(&world, "router"), ["searchcell-router-1"]);
    world.delete("guilds-router");
    world.settle();
    assert_eq!(of(&world, "router"), ["searchcell-router-1", "searchcell-router-2"]);
    world.pass_time(120);
    world.settle();
    assert_eq!(of(&world, "router"), ["searchcell-router-2", "searchcell-router-1"]);
}

#[test]
fn a_second_rotation_within_the_grace_waits_until_nodes_know_another_user() {
    let mut world = World::new();
    world.settle();
    world.pass_time(121);
    let first = credential(&world, "exporter");
    world.delete("guilds-exporter");
    world.settle();
    let second = credential(&world, "exporter");
    world.delete("guilds-exporter");
    world.settle();
    assert!(!world.snapshot.objects.secrets.iter().any(|secret| secret.name() == "guilds-exporter"));
    let in_file = world.secret("guilds-users").users.clone().unwrap().users;
    assert!(in_file.contains(&second) && !in_file.contains(&first));
    world.pass_time(120);
    world.settle();
    let third = credential(&world, "exporter");
    // A password that somebody wanted to be rid of does not come back.
    assert!(third.1 != first.1 && third.1 != second.1);
    assert!(in_file.contains(&third));
    assert_eq!(of(&world, "exporter"), ["searchcell-exporter-1", "searchcell-exporter-2"]);
}

#[test]
fn a_lost_secret_of_those_who_stand_by_is_made_anew() {
    let mut world = World::new();
    world.settle();
    let before = names(&world);
    world.delete("guilds-standby");
    world.settle();
    assert_eq!(names(&world), before, "who is known stays known");
    read_as(&mut world, "searchcell-operator-1");
    world.pass_time(900);
    world.settle();
    assert_eq!(names(&world), before);
    assert_eq!(world.secret("guilds-standby").standby.len(), 4);
}

#[test]
fn a_password_that_a_person_set_is_hashed_once() {
    let mut world = World::new();
    world.settle();
    let admin =
        world.snapshot.objects.secrets.iter_mut().find(|secret| secret.name() == "guilds-admin").unwrap();
    admin.credential.as_mut().unwrap().hash = None;
    assert_eq!(world.pass(), ["HashPassword guilds-admin"]);
    assert_eq!(world.pass(), ["RenderUsers guilds-users"]);
    assert!(world.pass().is_empty());
}

#[test]
fn a_credential_that_was_spoilt_is_reported_and_its_users_stay() {
    let mut world = World::new();
    world.settle();
    let admin =
        world.snapshot.objects.secrets.iter_mut().find(|secret| secret.name() == "guilds-admin").unwrap();
    admin.credential.as_mut().unwrap().username = "root:x:0".into();
    let plan = world.plan();
    assert!(plan.steps.is_empty());
    assert_eq!(plan.holds[0].reason, Reason::InvalidSecret);
    assert!(plan.holds[0].message.contains("guilds-admin"));
}
