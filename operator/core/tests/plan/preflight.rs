//! What is looked at before nodes change their version, and who answers for what is waived.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use searchcell_core::snapshot::{Asked, NodeDisk, Reading, Shutdown, Shutdowns};
use searchcell_crds::Reason;
use serde_json::json;

use crate::rollout::{ask_for, held, of_version};
use crate::world::World;

const INDEX: &str = "messages.p000.g1";

/// Another version is asked for, of a cluster with an index that was saved a moment ago.
fn asked_for(from: &str, to: &str) -> World {
    let mut world = of_version(from);
    world.index(INDEX, &["guilds-a-data-a-0", "guilds-a-data-b-0"]);
    world.index(".security-7", &["guilds-a-data-a-0", "guilds-a-data-b-0"]);
    let now = world.now;
    saved(&mut world, Some(now));
    world.facts().preflight.deprecations = Asked::Known(Vec::new());
    ask_for(&mut world, to);
    world
}

fn saved(world: &mut World, at: Option<Timestamp>) {
    let snapshots: BTreeMap<String, Timestamp> = at.map(|at| (INDEX.to_owned(), at)).into_iter().collect();
    world.facts().preflight.snapshots = Asked::Known(snapshots);
}

fn waive(world: &mut World, what: &[&str]) {
    world.edit(|cell| cell["spec"]["rollout"] = json!({"waive": what}));
}

fn goes_on(world: &mut World) {
    assert_eq!(world.pass(), ["template guilds-a-data-b"]);
}

#[test]
fn with_a_fresh_snapshot_and_nothing_left_over_nodes_change() {
    goes_on(&mut asked_for("9.5.2", "9.5.3"));
}

#[test]
fn without_a_fresh_snapshot_of_every_index_no_node_is_touched() {
    let mut world = asked_for("9.5.2", "9.5.3");
    let long_ago = world.now - SignedDuration::from_hours(25);
    for at in [None, Some(long_ago)] {
        saved(&mut world, at);
        let (reason, message) = held(&mut world);
        assert_eq!(reason, Reason::RecentSnapshot);
        assert!(message.contains(INDEX) && message.contains("spec.rollout.waive"), "{message}");
        assert!(!message.contains(".security"), "Elasticsearch's own index: {message}");
    }
    world.facts().preflight.snapshots = Asked::Unknown;
    assert!(held(&mut world).1.contains("not known yet"));
    world.facts().preflight.snapshots = Asked::NotAvailable;
    assert_eq!(held(&mut world).0, Reason::RecentSnapshot);
    waive(&mut world, &["RecentSnapshot"]);
    goes_on(&mut world);
}

#[test]
fn a_setting_needs_no_snapshot_and_so_does_a_cluster_without_indices() {
    let mut world = of_version("9.5.2");
    ask_for(&mut world, "9.5.3");
    goes_on(&mut world);
    let mut world = asked_for("9.5.2", "9.5.2");
    saved(&mut world, None);
    world.edit(|cell| cell["spec"]["settings"] = json!({"indices.query.bool.max_clause_count": 7}));
    goes_on(&mut world);
}

/// A pod that runs nothing gets what is asked for whatever the health of its cluster is, but no other version.
#[test]
fn while_the_cluster_cannot_be_read_nothing_starts_with_another_version() {
    let mut world = asked_for("9.5.2", "9.5.3");
    let pod = world
        .snapshot
        .objects
        .pods
        .iter_mut()
        .find(|pod| pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("guilds-a-master")));
    pod.unwrap().status = None;
    world.snapshot.elastic.insert("a".to_owned(), Reading::Unavailable("no".to_owned()));
    let (reason, message) = held(&mut world);
    assert_eq!(reason, Reason::Unreachable, "{message}");
    waive(&mut world, &["NoLeftovers", "DiskFree", "RecentSnapshot"]);
    assert!(
        world.pass().iter().any(|step| step.starts_with("template guilds-a-master")),
        "its user answers for it"
    );
}

#[test]
fn what_has_begun_comes_to_its_end() {
    let mut world = asked_for("9.5.2", "9.5.3");
    goes_on(&mut world);
    saved(&mut world, None);
    assert!(!world.gates().contains(&Reason::RecentSnapshot), "the first template is written");
    let mut world = asked_for("9.5.2", "9.5.4");
    world.facts().nodes.get_mut("guilds-a-data-b-0").unwrap().version = "9.5.3".to_owned();
    saved(&mut world, None);
    assert!(!world.gates().contains(&Reason::RecentSnapshot), "a node has gone ahead");
}

#[test]
fn what_elasticsearch_calls_critical_holds_a_next_major_and_no_minor() {
    let mut world = asked_for("8.19.21", "9.5.3");
    goes_on(&mut asked_for("8.19.21", "9.5.3"));
    world.facts().preflight.deprecations = Asked::Known(vec!["messages.p000.g1: an old analyzer".to_owned()]);
    let (reason, message) = held(&mut world);
    assert_eq!(reason, Reason::DeprecationsResolved);
    assert!(message.contains("an old analyzer"), "{message}");
    world.facts().preflight.deprecations = Asked::NotAvailable;
    assert!(held(&mut world).1.contains("add DeprecationsResolved to spec.rollout.waive"));
    world.facts().preflight.deprecations = Asked::Unknown;
    assert!(held(&mut world).1.contains("not known yet"));
    waive(&mut world, &["DeprecationsResolved"]);
    goes_on(&mut world);
    let mut world = asked_for("9.5.2", "9.5.3");
    world.facts().preflight.deprecations = Asked::NotAvailable;
    goes_on(&mut world);
}

#[test]
fn what_is_left_of_something_else_is_named() {
    let filter = "cluster.routing.allocation.exclude._name";
    let mut world = asked_for("9.5.2", "9.5.3");
    for (name, value) in [(filter, "x"), ("cluster.routing.allocation.enable", "none")] {
        world.facts().settings.insert(name.to_owned(), json!(value));
        let (reason, message) = held(&mut world);
        assert_eq!(reason, Reason::NoLeftovers);
        assert!(message.contains(name), "{message}");
        world.facts().settings.remove(name);
    }
    world.facts().no_votes.insert("guilds-a-master-a-0".to_owned());
    assert!(world.plan().holds.iter().any(|hold| hold.message.contains("guilds-a-master-a-0")));
    world.facts().no_votes.clear();
    let foreign = Shutdown { kind: "REMOVE".into(), reason: "somebody".into() };
    world.facts().shutdowns = Shutdowns::Known([("n".to_owned(), foreign)].into());
    assert!(held(&mut world).1.contains("_nodes/shutdown"));
    waive(&mut world, &["NoLeftovers"]);
    goes_on(&mut world);
}

#[test]
fn a_full_disk_would_not_take_its_copies_back() {
    let mut world = asked_for("9.5.2", "9.5.3");
    let disks = world.facts().disks.clone();
    let full = NodeDisk { total: 100, available: 5, ..NodeDisk::default() };
    world.facts().disks.as_mut().unwrap().insert("guilds-a-data-c-0".to_owned(), full);
    let (reason, message) = held(&mut world);
    assert_eq!(reason, Reason::DiskFree);
    assert!(message.contains("guilds-a-data-c-0"), "{message}");
    world.facts().disks = None;
    assert!(held(&mut world).1.contains("not known yet"));
    waive(&mut world, &["DiskFree"]);
    goes_on(&mut world);
    world.facts().disks = disks;
}

#[test]
fn an_index_without_replicas_restarts_with_its_node_where_its_user_says_so() {
    let with_index = |nodes: &[&str]| {
        let mut world = of_version("9.5.3");
        world.index(INDEX, nodes);
        world.edit(|cell| cell["spec"]["settings"] = json!({"indices.query.bool.max_clause_count": 7}));
        world.pass();
        world.controllers();
        world
    };
    let mut world = with_index(&["guilds-a-data-b-0"]);
    assert_eq!(world.gates(), [Reason::CopiesElsewhere]);
    waive(&mut world, &["CopiesElsewhere"]);
    assert_eq!(world.gates(), []);
    assert_eq!(world.roll().iter().filter(|step| step.starts_with("restart")).count(), 6);
    // One that should have another copy, and has none, is another matter.
    let mut world = with_index(&["guilds-a-data-b-0", "guilds-a-data-c-0"]);
    waive(&mut world, &["CopiesElsewhere"]);
    let index = std::sync::Arc::make_mut(&mut world.facts().indices).get_mut(INDEX).unwrap();
    index.copies.truncate(1);
    assert_eq!(world.gates(), [Reason::CopiesElsewhere]);
}
