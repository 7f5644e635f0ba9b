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

#[test]
fn everybody_is_in_the_file_with_a_role() {
    let mut world = World::new();
    world.settle();
    let all = ["searchcell-operator-1", "searchcell-router-1", "searchcell-exporter-1", "searchcell-admin"];
    assert_eq!(names(&world), all);
    let users = world.secret("guilds-users").users.clone().unwrap();
    assert!(users.users_roles.contains("superuser:searchcell-admin\n"));
    assert!(users.users_roles.contains("searchcell_router:searchcell-router-1\n"));
    // Without placements, a router has nothing to route to.
    assert!(
        users.roles.contains("searchcell_router:\n  cluster: [\"cluster:monitor/main\"]\n  indices: []\n")
    );
}

#[test]
fn routers_are_confined_to_the_placements_of_the_cell() {
    let mut world = World::new();
    world.settle();
    let placement = |collection: &str| -> IndexPlacement {
        serde_json::from_value(json!({
            "metadata": {"name": collection, "namespace": "search"},
            "spec": {"cell": "guilds", "collection": collection, "tenant": {"field": "g"}, "pool": {"indices": 1}},
        }))
        .unwrap()
    };
    // The last one is older than the schema, and tries to get more.
    world.snapshot.placements = vec![placement("messages"), placement("x*\"]}, {\"names\": [\"*")];
    assert_eq!(world.pass(), ["RenderUsers guilds-users"]);
    let users = world.secret("guilds-users").users.clone().unwrap();
    assert!(users.roles.contains(r#"{"names":["messages.p*","messages.t.*"],"privileges":["read","write","indices:admin/refresh*"]}"#), "{}", users.roles);
    assert!(!users.roles.contains("x*"));
    assert!(world.pass().is_empty());
}

#[test]
fn the_operators_former_user_goes_when_every_cluster_knows_the_new_one() {
    let mut world = World::new();
    world.settle();
    read_as(&mut world, "searchcell-operator-1");
    world.delete("guilds-operator");
    assert_eq!(world.pass(), ["GenerateCredential guilds-operator"]);
    assert_eq!(world.pass(), ["RenderUsers guilds-users"]);
    assert_eq!(names(&world)[..2], ["searchcell-operator-2", "searchcell-operator-1"]);
    assert!(world.pass().is_empty());
    read_as(&mut world, "searchcell-operator-2");
    world.snapshot.elastic.insert("b".into(), Reading::Unavailable("it does not answer".into()));
    assert!(world.pass().is_empty());
    read_as(&mut world, "searchcell-operator-2");
    assert_eq!(world.pass(), ["RenderUsers guilds-users"]);
    assert_eq!(names(&world)[..2], ["searchcell-operator-2", "searchcell-router-1"]);
    // And back again.
    world.delete("guilds-operator");
    world.settle();
    assert_eq!(names(&world)[..2], ["searchcell-operator-1", "searchcell-operator-2"]);
}

#[test]
fn a_routers_former_user_goes_after_a_grace() {
    let mut world = World::new();
    world.settle();
    world.delete(&User::Router.secret("guilds"));
    world.settle();
    assert_eq!(names(&world)[1..3], ["searchcell-router-2", "searchcell-router-1"]);
    let plan = world.plan();
    assert_eq!(plan.wake_at.unwrap().duration_since(world.now).as_secs(), 900);
    world.pass_time(899);
    assert!(world.pass().is_empty());
    world.pass_time(1);
    assert_eq!(world.pass(), ["RenderUsers guilds-users"]);
    assert_eq!(names(&world)[1..3], ["searchcell-router-2", "searchcell-exporter-1"]);
}

#[test]
fn a_second_rotation_within_the_grace_takes_the_older_users_place() {
    let mut world = World::new();
    world.settle();
    world.delete("guilds-exporter");
    world.settle();
    world.delete("guilds-exporter");
    world.settle();
    assert_eq!(names(&world)[2..4], ["searchcell-exporter-1", "searchcell-exporter-2"]);
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
