//! Certificates that a user supplies: what is wrong with them is said, and what is good reaches nodes by overlap.

use std::collections::BTreeSet;

use searchcell_core::security::{CertificateFacts, Layer, SecretFacts, Supplied};
use searchcell_crds::Reason;
use serde_json::json;

use crate::world::{DAY, World, put_pair};

fn names() -> BTreeSet<String> {
    BTreeSet::from(["*.search.svc".to_owned()])
}

fn good(world: &mut World) -> SecretFacts {
    let authority = world.certificate(3650 * DAY, None, BTreeSet::new());
    let leaf = world.certificate(90 * DAY, Some(&authority), names());
    secret(authority, leaf)
}

fn secret(authority: CertificateFacts, leaf: CertificateFacts) -> SecretFacts {
    let mut secret = SecretFacts::default();
    secret.certificates.insert("ca.crt".into(), vec![authority].into());
    put_pair(&mut secret, "tls", leaf);
    secret
}

fn supply(world: &mut World, layer: Layer, facts: SecretFacts) {
    world.snapshot.supplied.insert(layer, Supplied::Read { facts: Box::new(facts), untrusted: None });
}

fn managed_by_user(world: &mut World, layer: Layer) {
    world.edit(|cell| {
        cell["spec"]["security"] = json!({"certificates": {layer.as_str(): {"secretName": "mine"}}})
    });
}

#[test]
fn what_is_wrong_is_named_and_nodes_keep_what_they_have() {
    type Spoil = fn(&mut World, &mut SecretFacts);
    let cases: [(&str, Spoil); 7] = [
        ("no certificate in tls.crt", |_, s| drop(s.certificates.remove("tls.crt"))),
        ("no private key in tls.key", |_, s| drop(s.keys.remove("tls.key"))),
        ("does not belong to tls.crt", |_, s| drop(s.keys.insert("tls.key".into(), "other".into()))),
        ("has no ca.crt", |_, s| drop(s.certificates.remove("ca.crt"))),
        ("has expired", |world, s| {
            let leaf = world.certificate(0, None, names());
            put_pair(s, "tls", leaf);
        }),
        ("guilds-b-http.search.svc", |world, s| {
            let leaf = world.certificate(DAY, None, ["guilds-a.search.svc".to_owned()].into());
            put_pair(s, "tls", leaf);
        }),
        ("not valid yet", |world, s| {
            let mut leaf = world.certificate(9 * DAY, None, names());
            leaf.not_before = world.now + jiff::SignedDuration::from_secs(DAY);
            put_pair(s, "tls", leaf);
        }),
    ];
    for (text, spoil) in cases {
        let mut world = World::new();
        world.settle();
        world.run_pods();
        managed_by_user(&mut world, Layer::Http);
        let mut facts = good(&mut world);
        spoil(&mut world, &mut facts);
        supply(&mut world, Layer::Http, facts);
        let plan = world.plan();
        assert!(plan.steps.is_empty(), "{text}: {:?}", plan.steps);
        assert_eq!(plan.holds[0].reason, Reason::InvalidCertificate);
        let message = &plan.holds[0].message;
        assert!(message.contains(text) && message.contains("Secret mine"), "{message}");
        assert!(message.contains("nodes keep what they have"));
    }
}

#[test]
fn an_authority_that_does_not_vouch_and_a_secret_that_is_gone() {
    let mut world = World::new();
    managed_by_user(&mut world, Layer::Transport);
    let facts = Box::new(good(&mut world));
    let untrusted = Some("the issuer of tls.crt is not in it".to_owned());
    world.snapshot.supplied.insert(Layer::Transport, Supplied::Read { facts, untrusted });
    assert!(world.plan().holds[0].message.contains("does not vouch for"));
    world.snapshot.supplied.insert(Layer::Transport, Supplied::Missing);
    let message = &world.plan().holds[0].message;
    assert!(message.contains("does not exist") && message.contains("no node starts"), "{message}");
    world.snapshot.supplied.insert(Layer::Transport, Supplied::Unavailable("no answer".into()));
    assert_eq!(world.plan().holds[0].reason, Reason::KubernetesError);
}

#[test]
fn a_new_cell_begins_with_what_is_supplied() {
    let mut world = World::new();
    managed_by_user(&mut world, Layer::Transport);
    let facts = good(&mut world);
    let leaf = facts.pair("tls").unwrap().clone();
    supply(&mut world, Layer::Transport, facts);
    world.settle();
    let found = world.secret("guilds-a-data-a-certificates").pair("guilds-a-data-a-0.transport").unwrap();
    assert_eq!(found.fingerprint, leaf.fingerprint);
    assert!(!world.snapshot.objects.secrets.iter().any(|secret| secret.name().ends_with("transport-ca")));
    assert!(world.plan().holds.is_empty());
}

#[test]
fn another_authority_is_trusted_first_and_the_former_goes_last() {
    let mut world = World::new();
    world.settle();
    world.run_pods();
    managed_by_user(&mut world, Layer::Transport);
    let facts = good(&mut world);
    let leaf = facts.pair("tls").unwrap().clone();
    supply(&mut world, Layer::Transport, facts);
    let node = |world: &World| {
        let secret = world.secret("guilds-a-data-a-certificates");
        let shown = secret.pair("guilds-a-data-a-0.transport").unwrap().fingerprint == leaf.fingerprint;
        (secret.certificates("transport-ca.crt").len(), shown)
    };
    world.pass();
    assert_eq!(node(&world), (2, false));
    assert!(world.pass().is_empty());
    assert!(world.plan().holds.iter().any(|hold| hold.reason == Reason::RotatingCertificates));
    world.serve(None);
    world.pass();
    assert_eq!(node(&world), (2, true));
    world.serve(Some("guilds-a-master-b-0"));
    world.pass();
    assert_eq!(node(&world), (2, true));
    world.serve(None);
    world.pass();
    assert_eq!(node(&world), (1, true));
    world.serve(None);
    world.settle();
    assert!(world.plan().holds.is_empty(), "{:?}", world.plan().holds);
}

/// On HTTP, nobody can ask clients whom they trust: they are given time, and only then nodes show what is new. The way
/// back to the operator's authority is the same.
#[test]
fn clients_have_time_to_load_another_authority_there_and_back() {
    let mut world = World::new();
    world.settle();
    world.run_pods();
    let node = |world: &World| {
        let secret = world.secret("guilds-a-data-a-certificates");
        let leaf = secret.pair("guilds-a-data-a-0.http").unwrap().fingerprint.clone();
        (secret.certificates("http-ca.crt").len(), leaf)
    };
    let published = |world: &World| {
        let maps = &world.snapshot.objects.config_maps;
        let map =
            maps.iter().find(|map| map.metadata.name.as_deref() == Some("guilds-http-ca-public")).unwrap();
        map.data.as_ref().unwrap()["ca.crt"].lines().count()
    };
    let own = node(&world).1;
    let facts = good(&mut world);
    let theirs = facts.pair("tls").unwrap().fingerprint.clone();
    supply(&mut world, Layer::Http, facts);
    for (is_theirs, before) in [(true, own.clone()), (false, theirs)] {
        if is_theirs {
            managed_by_user(&mut world, Layer::Http);
        } else {
            world.edit(|cell| cell["spec"]["security"] = json!({}));
        }
        world.pass();
        world.serve(None);
        world.settle();
        assert_eq!((node(&world), published(&world)), ((2, before.clone()), 2), "both are trusted");
        let wake = world.plan().wake_at.unwrap().duration_since(world.now).as_secs();
        assert_eq!(wake, 600);
        world.pass_time(599);
        assert!(world.pass().is_empty());
        world.pass_time(1);
        world.pass();
        let (trusted, leaf) = node(&world);
        assert!(trusted == 2 && leaf != before);
        world.serve(Some("guilds-b-data-a-0"));
        world.settle();
        assert_eq!(published(&world), 2, "a node shows the former one");
        world.serve(None);
        world.settle();
        assert_eq!((node(&world).0, published(&world)), (1, 1));
        assert!(world.plan().holds.is_empty(), "{:?}", world.plan().holds);
    }
}
