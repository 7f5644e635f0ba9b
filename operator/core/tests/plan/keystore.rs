//! Keystores: made before the nodes, kept up to date with what running nodes can load, told to them once; the rest waits.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSet;
use searchcell_core::names::ANNOTATION_KEYSTORE;
use searchcell_core::security::keystore::{
    EntryDigest, EntryFacts, Format, KeystoreFacts, MOST_BYTES, Record, SEED, SecureSource,
};
use searchcell_core::security::order::{KeystoreOrder, Order};
use searchcell_core::snapshot::{CellSnapshot, annotation};
use searchcell_core::step::{Action, Reload};
use searchcell_crds::Reason;
use serde_json::json;

use crate::roll::prepared;
use crate::world::{UUID, World, cell_object};

const ACCESS: &str = "s3.client.default.access_key";
const SECRET: &str = "s3.client.default.secret_key";
const FIXED: &str = "xpack.watcher.encryption_key";
const FIRST: &str = "guilds-keystore-1";

fn entry(value: &str) -> EntryFacts {
    EntryFacts { length: value.len(), digest: EntryDigest::new(value.to_owned()) }
}

/// What the effect would write.
pub fn carried_out(order: &KeystoreOrder, snapshot: &CellSnapshot, number: u64) -> KeystoreFacts {
    let live = snapshot.objects.secrets.iter().find(|s| s.metadata.name == order.metadata.name);
    assert_eq!(live.is_some(), order.replaces.is_some());
    let mut entries = BTreeMap::from([(SEED.to_owned(), entry("seed"))]);
    for name in &order.keep {
        entries.insert(name.clone(), live.unwrap().keystore.as_ref().unwrap().entries[name].clone());
    }
    for (name, wanted) in &order.take {
        let SecureSource::Read(source) = &snapshot.secure_settings[&wanted.secret] else { panic!() };
        assert_eq!(source[name], wanted.entry);
        entries.insert(name.clone(), wanted.entry.clone());
    }
    let files = Format::ALL.map(|format| (format, format!("{number:016}-{}", format.number())));
    KeystoreFacts { entries, files: files.into() }
}

impl World {
    fn source(&mut self, secret: &str, entries: &[(&str, &str)]) {
        let entries = entries.iter().map(|(name, value)| ((*name).to_owned(), entry(value))).collect();
        self.snapshot.secure_settings.insert(secret.to_owned(), SecureSource::Read(entries));
    }

    fn keystore(&self, name: &str) -> &KeystoreFacts {
        let secret = self.snapshot.objects.secrets.iter().find(|secret| secret.name() == name);
        secret.unwrap_or_else(|| panic!("{name}")).keystore.as_ref().unwrap()
    }

    fn has(&self, name: &str, entry_name: &str, value: &str) -> bool {
        self.keystore(name).entries.get(entry_name) == Some(&entry(value))
    }

    fn after(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn reload(&self) -> Option<Reload> {
        let mut reloads = self.plan().steps.into_iter().filter_map(|step| match step.action {
            Action::ReloadKeystore(reload) => Some(*reload),
            _ => None,
        });
        let first = reloads.next();
        assert_eq!(reloads.next(), None);
        first
    }

    /// Writes down what nodes said.
    fn said(&mut self, reload: &Reload, waiting: &[&str], refused: &[(&str, &str)]) {
        let record = Record {
            revision: reload.revision.clone(),
            at: self.now,
            tries: reload.tries + 1,
            waiting: waiting.iter().map(|node| (*node).to_owned()).collect(),
            refused: refused.iter().map(|(node, why)| ((*node).to_owned(), (*why).to_owned())).collect(),
        };
        let secrets = &mut self.snapshot.objects.secrets;
        let secret = secrets.iter_mut().find(|secret| secret.name() == reload.target.name).unwrap();
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(Record::annotation("a"), record.text());
    }

    fn hold(&self) -> (Reason, String) {
        let holds = self.plan().holds;
        let hold = holds.first().unwrap_or_else(|| panic!("no hold"));
        (hold.reason, hold.message.clone())
    }
}

fn with_settings(names: &[&str]) -> World {
    let mut world = World::new(cell_object());
    set_settings(&mut world, names);
    world
}

fn set_settings(world: &mut World, names: &[&str]) {
    let list: Vec<_> = names.iter().map(|name| json!({"secretName": name})).collect();
    world.edit(|cell| cell["spec"]["secureSettings"] = json!(list));
}

/// A cluster with a keystore of one entry that a node loads while it runs, and one that it does not.
fn running() -> World {
    let mut world = with_settings(&["s3"]);
    world.source("s3", &[(ACCESS, "one"), (FIXED, "fixed")]);
    world.settle();
    world.form(UUID);
    world.settle();
    world
}

/// The same, when the entry that a running node loads has changed and kubelets have brought it.
fn brought() -> World {
    let mut world = running();
    world.after(600);
    world.source("s3", &[(ACCESS, "two"), (FIXED, "fixed")]);
    world.settle();
    world.after(120);
    world
}

#[test]
fn the_keystore_is_there_before_the_nodes_and_nothing_is_told_to_them() {
    let mut world = with_settings(&["s3", "more"]);
    world.source("s3", &[(ACCESS, "one")]);
    world.source("more", &[(SECRET, "two")]);
    let plan = world.plan();
    assert_eq!(plan.steps[0].action.name(), "RenderKeystore");
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| matches!(&step.action, Action::Create(o) if o.kind().as_str() == "StatefulSet"))
    );
    world.settle();
    assert!(world.has(FIRST, ACCESS, "one") && world.has(FIRST, SECRET, "two"));
    for set in &world.snapshot.objects.stateful_sets {
        assert_eq!(annotation(&set.metadata, ANNOTATION_KEYSTORE), Some(FIRST));
        let template = set.spec.as_ref().unwrap().template.clone();
        assert_eq!(annotation(&template.metadata.unwrap(), ANNOTATION_KEYSTORE), Some(FIRST));
        let volumes = template.spec.unwrap().volumes.unwrap();
        let keystore = volumes.iter().find(|volume| volume.name == "searchcell-keystore").unwrap();
        let items = keystore.secret.as_ref().unwrap().items.as_ref().unwrap();
        assert_eq!((items[0].key.as_str(), items.len()), ("elasticsearch.keystore.v7", 1));
    }
    world.form(UUID);
    world.settle();
    world.after(600);
    let plan = world.plan();
    assert!(plan.steps.is_empty() && plan.holds.is_empty(), "{plan:#?}");
}

#[test]
fn what_a_running_node_loads_is_brought_and_told_once() {
    let mut world = running();
    world.after(600);
    world.source("s3", &[(ACCESS, "two"), (FIXED, "fixed")]);
    assert_eq!(world.settle(), ["RenderKeystore"]);
    assert!(world.has(FIRST, ACCESS, "two") && world.has(FIRST, FIXED, "fixed"));
    // Kubelets have their time first.
    assert_eq!((world.reload(), world.hold().0), (None, Reason::LoadingKeystore));
    assert!(world.plan().wake_after.as_secs() <= 120);
    world.after(119);
    assert_eq!(world.reload(), None);
    world.after(1);
    let reload = world.reload().unwrap();
    assert_eq!((reload.target.name.as_str(), reload.tries, reload.nodes.len()), (FIRST, 0, 9));
    let file = &world.keystore(FIRST).files[&Format::V7];
    assert!(reload.nodes.values().all(|expected| expected == file));
    world.said(&reload, &[], &[]);
    for _ in 0..2 {
        let plan = world.plan();
        assert!(plan.steps.is_empty() && plan.holds.is_empty(), "{plan:#?}");
        world.after(7200);
    }
    // An entry that goes is a change like another.
    world.source("s3", &[(FIXED, "fixed")]);
    assert_eq!(world.settle(), ["RenderKeystore"]);
    assert!(!world.keystore(FIRST).entries.contains_key(ACCESS));
    world.after(120);
    assert!(world.reload().is_some());
}

#[test]
fn a_node_that_starts_later_has_it_and_is_not_asked() {
    let mut world = brought();
    let reload = world.reload().unwrap();
    world.said(&reload, &["guilds-a-ingest-0"], &[]);
    let mut another = world.snapshot.objects.pods[0].clone();
    another.metadata.name = Some("guilds-a-ingest-7".into());
    world.snapshot.objects.pods.push(another);
    world.after(60);
    assert_eq!(world.reload().unwrap().nodes.keys().collect::<Vec<_>>(), ["guilds-a-ingest-0"]);
    world.snapshot.objects.pods.retain(|pod| pod.metadata.name.as_deref() != Some("guilds-a-ingest-0"));
    assert_eq!(world.reload(), None);
    assert!(world.plan().holds.is_empty(), "who is gone is not waited for");
}

#[test]
fn a_clock_that_goes_back_stops_nothing() {
    let mut world = running();
    world.after(7200);
    world.source("s3", &[(ACCESS, "two"), (FIXED, "fixed")]);
    world.settle();
    world.after(-3600);
    assert!(world.reload().is_some());
}

#[test]
fn what_a_node_says_is_told_and_not_asked_for_all_the_time() {
    let mut world = brought();
    let node = "guilds-a-data-a-0";
    let reload = world.reload().unwrap();
    world.said(
        &reload,
        &["guilds-a-data-b-0"],
        &[(node, "unknown secure setting [s3.client.default.access_key]")],
    );
    let (reason, message) = world.hold();
    assert_eq!(reason, Reason::KeystoreRefused);
    assert!(message.contains(node) && message.contains("unknown secure setting"), "{message}");
    assert!(world.status().conditions.iter().any(|condition| condition.type_ == "Stalled"));
    assert_eq!(world.reload(), None);
    world.after(60);
    let reload = world.reload().unwrap();
    let left: BTreeSet<&str> = reload.nodes.keys().map(String::as_str).collect();
    assert_eq!((reload.tries, left), (1, BTreeSet::from([node, "guilds-a-data-b-0"])));
    // Only one has not got its file: nobody has to do anything.
    world.said(&reload, &["guilds-a-data-b-0"], &[]);
    assert_eq!(world.hold().0, Reason::LoadingKeystore);
    world.after(119);
    assert_eq!(world.reload(), None);
    world.after(1);
    let reload = world.reload().unwrap();
    world.said(&reload, &["guilds-a-data-b-0"], &[]);
    // A corrected Secret is another try, at once when kubelets have brought it.
    world.source("s3", &[(ACCESS, "three"), (FIXED, "fixed")]);
    assert_eq!(world.settle(), ["RenderKeystore"]);
    world.after(120);
    assert_eq!(world.reload().unwrap().tries, 0);
}

#[test]
fn who_is_no_member_is_waited_for_without_asking() {
    let mut world = brought();
    let node = "guilds-a-data-a-0";
    let reload = world.reload().unwrap();
    world.said(&reload, &[node], &[]);
    let mut facts = world.snapshot.elastic("a").unwrap().clone();
    let gone = facts.nodes.remove(node).unwrap();
    world.snapshot.elastic.insert("a".into(), searchcell_core::snapshot::Reading::Known(facts.clone()));
    world.after(86_400);
    assert_eq!((world.reload(), world.hold().0), (None, Reason::LoadingKeystore));
    facts.nodes.insert(node.into(), gone);
    world.snapshot.elastic.insert("a".into(), searchcell_core::snapshot::Reading::Known(facts));
    assert_eq!(world.reload().unwrap().nodes.keys().collect::<Vec<_>>(), [node]);
    world.snapshot.elastic.clear();
    assert!(!world.plan().steps.iter().any(|step| matches!(step.action, Action::ReloadKeystore(_))));
}

#[test]
fn what_only_a_restart_loads_waits_and_the_rest_goes_on() {
    let mut world = running();
    world.after(600);
    world.source("s3", &[(ACCESS, "one"), (FIXED, "other")]);
    assert_eq!(world.settle(), ["RenderKeystore"]);
    let (reason, message) = world.hold();
    assert_eq!(reason, Reason::NotSupportedYet);
    assert!(
        message.contains(FIXED) && message.contains("rolling restart") && !message.contains(ACCESS),
        "{message}"
    );
    assert!(world.has(FIRST, FIXED, "fixed") && world.has("guilds-keystore-2", FIXED, "other"));
    // A new key for the bucket reaches the nodes all the same.
    world.source("s3", &[(ACCESS, "two"), (FIXED, "other")]);
    assert_eq!(world.settle(), ["RenderKeystore", "RenderKeystore"]);
    assert!(world.has(FIRST, ACCESS, "two") && world.has(FIRST, FIXED, "fixed"));
    // A cluster that is new has it all; what nobody uses is written over.
    world.source("s3", &[(ACCESS, "two"), (FIXED, "third")]);
    assert_eq!(world.settle(), ["RenderKeystore"]);
    world.edit(|cell| cell["spec"]["clusters"] = json!([{"name": "a"}, {"name": "b"}]));
    world.settle();
    let of_b = world
        .snapshot
        .objects
        .stateful_sets
        .iter()
        .filter(|set| set.metadata.name.as_ref().unwrap().starts_with("guilds-b"));
    assert!(
        of_b.clone().count() == 6
            && of_b
                .into_iter()
                .all(|set| annotation(&set.metadata, ANNOTATION_KEYSTORE) == Some("guilds-keystore-2"))
    );
    assert!(world.has("guilds-keystore-2", FIXED, "third"));
    // Put back, and cluster a is as it ought to be; now b is not.
    world.source("s3", &[(ACCESS, "two"), (FIXED, "fixed")]);
    world.settle();
    let holds = world.plan().holds;
    assert!(
        holds
            .iter()
            .all(|hold| hold.cluster.as_deref() != Some("a") || hold.reason == Reason::LoadingKeystore),
        "{holds:#?}"
    );
}

/// Steps of one pass that make nodes anew, or get ready for it.
fn roll_steps(world: &mut World) -> Vec<String> {
    let did = world.pass();
    world.controllers();
    world.now += SignedDuration::from_secs(40);
    did.into_iter().filter(|step| !step.contains("Reload")).collect()
}

/// A cell at rest with a keystore, whose operator restarts nodes.
fn restarting() -> World {
    prepared(
        |cell| cell["spec"]["secureSettings"] = json!([{"secretName": "s3"}]),
        |world| world.source("s3", &[(ACCESS, "one"), (FIXED, "fixed")]),
    )
}

#[test]
fn what_only_a_restart_loads_comes_with_one() {
    let mut world = restarting();
    assert_eq!(world.roll(), Vec::<String>::new());
    world.source("s3", &[(ACCESS, "one"), (FIXED, "other")]);
    // No template names a Secret that is not there.
    assert_eq!(world.gates(), [Reason::LoadingKeystore]);
    assert_eq!(roll_steps(&mut world), ["RenderKeystore"]);
    assert_eq!(roll_steps(&mut world), ["template guilds-a-data-b"]);
    // Nobody can say for a while what is wanted, in the middle of it: nothing goes on, and nothing goes back.
    let known =
        world.snapshot.secure_settings.insert("s3".to_owned(), SecureSource::Unavailable("later".to_owned()));
    for _ in 0..4 {
        assert_eq!(roll_steps(&mut world), Vec::<String>::new());
    }
    world.snapshot.secure_settings.insert("s3".to_owned(), known.unwrap());
    let did = world.roll();
    assert_eq!(did.iter().filter(|step| step.starts_with("restart")).count(), 6, "{did:#?}");
    assert_eq!(world.status().rollout.unwrap().reason, searchcell_crds::RolloutReason::SecretChange);
    let sets = &world.snapshot.objects.stateful_sets;
    let used = |set: &StatefulSet| annotation(&set.metadata, ANNOTATION_KEYSTORE).map(str::to_owned);
    assert!(sets.iter().all(|set| used(set).as_deref() == Some("guilds-keystore-2")));
    assert!(world.has(FIRST, FIXED, "fixed") && world.has("guilds-keystore-2", FIXED, "other"));
}

#[test]
fn a_keystore_comes_and_goes_with_restarts() {
    let mut world = restarting();
    set_settings(&mut world, &[]);
    let did = world.roll();
    assert_eq!(did.iter().filter(|step| step.starts_with("restart")).count(), 6, "{did:#?}");
    set_settings(&mut world, &["s3"]);
    let did = world.roll();
    assert_eq!(did.iter().filter(|step| step.starts_with("restart")).count(), 6, "{did:#?}");
    assert_eq!(world.status().rollout.unwrap().phase, searchcell_crds::RolloutPhase::Complete);
}

#[test]
fn a_first_keystore_and_a_last_one_wait_for_a_restart() {
    let mut world = World::formed();
    set_settings(&mut world, &["s3"]);
    world.source("s3", &[(ACCESS, "one")]);
    world.settle();
    let (reason, message) = world.hold();
    assert!(reason == Reason::NotSupportedYet && message.contains("first keystore"), "{message}");
    set_settings(&mut world, &[]);
    world.settle();
    assert!(world.plan().holds.is_empty());

    let mut world = running();
    set_settings(&mut world, &[]);
    let (reason, message) = world.hold();
    assert!(reason == Reason::NotSupportedYet && message.contains("is gone"), "{message}");
    assert!(world.plan().steps.is_empty());
    // Another list of the same entries is no change.
    set_settings(&mut world, &["moved"]);
    world.source("moved", &[(ACCESS, "one"), (FIXED, "fixed")]);
    assert!(world.plan().steps.is_empty() && world.plan().holds.is_empty());
}

#[test]
fn other_changes_are_told_as_before() {
    let mut world = running();
    world.edit(|cell| cell["spec"]["settings"] = json!({"node.store.allow_mmap": false}));
    assert!(world.hold().1.contains("earlier spec"));
}

#[test]
fn what_is_wrong_with_a_secret_is_named_and_nodes_keep_what_they_have() {
    type Spoil = fn(&mut World);
    let large = "x".repeat(MOST_BYTES);
    let too_large = move |world: &mut World| world.source("s3", &[(ACCESS, large.as_str())]);
    let cases: [(&str, Spoil); 5] = [
        ("Secret s3 does not exist", |world| {
            world.snapshot.secure_settings.insert("s3".into(), SecureSource::Missing);
        }),
        ("the key \"README\" is not the name of a secure setting", |world| {
            world.source("s3", &[("README", "x")])
        }),
        ("the key \"keystore.seed\" belongs to the operator", |world| {
            world.source("s3", &[("keystore.seed", "x")])
        }),
        ("the key \"xpack.security.http.ssl.secure_key_passphrase\" belongs", |world| {
            world.source("s3", &[("xpack.security.http.ssl.secure_key_passphrase", "x")]);
        }),
        ("is in Secret more too", |world| world.source("s3", &[(ACCESS, "x"), (SECRET, "y")])),
    ];
    for (text, spoil) in cases {
        let mut world = with_settings(&["more", "s3"]);
        world.source("s3", &[(ACCESS, "one")]);
        world.source("more", &[(SECRET, "two")]);
        world.settle();
        let objects = world.snapshot.objects.clone();
        spoil(&mut world);
        let (reason, message) = world.hold();
        assert_eq!(reason, Reason::InvalidSecureSettings, "{message}");
        assert!(message.contains(text) && message.contains("spec.secureSettings[s3]"), "{message}");
        assert!(message.contains("keep what they have"), "{message}");
        assert!(
            world
                .plan()
                .steps
                .iter()
                .all(|step| step.action.name() == "Bootstrap" || step.action.name() == "Create")
        );
        assert_eq!(world.snapshot.objects.secrets.len(), objects.secrets.len());
        // The same before there are nodes: none starts.
        let mut world = with_settings(&["more", "s3"]);
        world.source("more", &[(SECRET, "two")]);
        spoil(&mut world);
        world.settle();
        assert!(
            world.snapshot.objects.stateful_sets.is_empty() && world.snapshot.objects.deployments.is_empty()
        );
        assert!(world.hold().1.contains("no node gets a keystore"));
    }
    let mut world = with_settings(&["s3"]);
    too_large(&mut world);
    let (reason, message) = world.hold();
    assert!(reason == Reason::InvalidSecureSettings && message.contains("128 KiB"), "{message}");
    world
        .snapshot
        .secure_settings
        .insert("s3".into(), SecureSource::Unavailable("the API server cannot be reached".into()));
    assert_eq!(world.hold().0, Reason::KubernetesError);
}

#[test]
fn the_operators_secret_comes_back_under_its_name() {
    let mut world = running();
    world.after(600);
    world.snapshot.objects.secrets.clear();
    assert_eq!(world.settle(), ["RenderKeystore"]);
    assert!(world.has(FIRST, ACCESS, "one") && world.has(FIRST, FIXED, "fixed"));
    assert!(world.plan().holds.iter().all(|hold| hold.reason == Reason::LoadingKeystore));
    // Nodes that had the former one load this one.
    world.after(120);
    assert!(world.reload().is_some());
}

#[test]
fn somebody_elses_secret_is_not_adopted() {
    let mut world = with_settings(&["s3"]);
    world.source("s3", &[(ACCESS, "one")]);
    let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some(FIRST.into()),
        ..Default::default()
    };
    let foreign = searchcell_core::security::SecretFacts { metadata, ..Default::default() };
    world.snapshot.objects.secrets.push(foreign);
    assert_eq!(world.hold().0, Reason::NameConflict);
    assert!(world.snapshot.objects.stateful_sets.is_empty());
}

#[test]
fn an_order_tells_names_and_no_values() {
    let mut world = with_settings(&["s3"]);
    world.source("s3", &[(ACCESS, "hunter2")]);
    let plan = world.plan();
    assert!(matches!(&plan.steps[0].action, Action::Secure(order) if matches!(**order, Order::Keystore(_))));
    assert!(!format!("{plan:?} {:?}", world.snapshot).contains("hunter2"));
}
