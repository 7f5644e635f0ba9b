//! Keystores of the simulated nodes: what the kubelet has brought, some time after it changed, and what each process
//! has loaded of that, when it started or when it was told to.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Secret};
use searchcell_core::domain::EsVersion;
use searchcell_core::security::keystore::{EntryFacts, Format, KeystoreFacts, SEED, fixed, used_by};
use searchcell_operator::ports::NodeReload;
use searchcell_operator::security::parse;
use searchcell_operator::security::sealed::Sealed;

use crate::objects::{K, Obj};
use crate::store::NAMESPACE;
use crate::world::World;

/// At rest every process has loaded what the user's Secret says.
pub const LOADED: &str = "keystore_is_loaded";
/// What only a restart loads reaches no node of a workload before its template does, not even one that comes back: a Secret
/// that a template names never has others.
pub const RESTART_ONLY: &str = "restart_only_entries_follow_templates";

/// The user's Secret.
pub const SECRET: &str = "s3";
/// An entry that a running node loads.
pub const RELOADED: &str = "s3.client.default.secret_key";
/// An entry that it does not.
pub const FIXED: &str = "xpack.watcher.encryption_key";

/// The kubelet's time, at most.
const BRING_MS: u64 = 95_000;

/// The keystore of one process.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// The Secret.
    secret: String,
    /// What lies in the pod's directory.
    file: KeystoreFacts,
    bring_at: Option<u64>,
    /// What the process has loaded.
    loaded: KeystoreFacts,
}

fn facts(world: &World, secret: &str) -> Option<KeystoreFacts> {
    parse::facts(&Sealed(world.store.get::<Secret>(secret)?.clone())).keystore
}

/// A pod starts when what it mounts is there.
pub fn can_start(world: &World, pod: &Pod) -> bool {
    used_by(&pod.metadata).is_none_or(|secret| facts(world, secret).is_some())
}

/// What a process that starts now has.
pub fn load(world: &mut World, pod: &Pod) -> Option<Mounted> {
    let secret = used_by(&pod.metadata)?.to_owned();
    let file = facts(world, &secret)?;
    let owner = pod.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).next()?;
    let entries = restart_only(&file);
    match world.restart_only.get(&owner) {
        // Another template named another Secret; nobody had this one then, and it may have been written over.
        Some((former, _)) if *former != secret => {
            world.restart_only.insert(owner, (secret.clone(), entries));
        }
        Some((_, first)) if *first != entries => {
            world.violated(RESTART_ONLY, format!("{:?} starts with other entries", pod.metadata.name));
        }
        Some(_) => {}
        None => {
            world.restart_only.insert(owner, (secret.clone(), entries));
        }
    }
    Some(Mounted { secret, loaded: file.clone(), file, bring_at: None })
}

fn restart_only(facts: &KeystoreFacts) -> BTreeMap<String, EntryFacts> {
    let version: EsVersion = "9.5.3".parse().unwrap();
    fixed(&facts.entries, version).map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

/// Kubelets bring new contents.
pub fn tick(world: &mut World) {
    let names: Vec<String> =
        (world.containers.values()).filter(|c| c.keystore.is_some()).map(|c| c.name.clone()).collect();
    for name in names {
        let Some(mounted) = world.containers.get(&name).and_then(|c| c.keystore.clone()) else { continue };
        let Some(live) = facts(world, &mounted.secret).filter(|live| *live != mounted.file) else { continue };
        let most = if world.calm { BRING_MS / 3 } else { BRING_MS };
        let due = match mounted.bring_at {
            None => Some(world.ms + world.rng.range(1_000, most)),
            due => due,
        };
        let Some(mounted) = world.containers.get_mut(&name).and_then(|c| c.keystore.as_mut()) else {
            continue;
        };
        mounted.bring_at = due;
        if due.is_some_and(|due| due <= world.ms) {
            (mounted.file, mounted.bring_at) = (live, None);
        }
    }
}

/// `POST _nodes/reload_secure_settings`: every member reads its file.
pub fn reload(world: &mut World, uuid: &str) -> BTreeMap<String, NodeReload> {
    let members: Vec<String> = world.elastic.clusters[uuid].members.keys().cloned().collect();
    let mut said = BTreeMap::new();
    for name in members {
        let Some(container) = world.containers.get_mut(&name) else { continue };
        let format = container.version.parse().map_or(Format::V7, Format::of);
        let Some(mounted) = container.keystore.as_mut() else { continue };
        mounted.loaded = mounted.file.clone();
        let digest = mounted.loaded.files.get(&format).cloned();
        said.insert(name, NodeReload { error: None, digest });
    }
    said
}

/// The user writes the Secret: the one entry, and the other one when it is another.
pub fn write(world: &mut World, reloaded: &str, restart_only: Option<&str>) {
    let ms = world.ms;
    let value = |text: &str| ByteString(text.as_bytes().to_vec());
    if world.store.get::<Secret>(SECRET).is_none() {
        let mut secret = Secret { data: Some(BTreeMap::new()), ..Secret::default() };
        secret.metadata.name = Some(SECRET.to_owned());
        secret.metadata.namespace = Some(NAMESPACE.to_owned());
        let data = secret.data.get_or_insert_default();
        data.insert(FIXED.to_owned(), value("first"));
        let _ = world.store.create(ms, "user", Obj::Secret(secret));
        world.restart_only_written += 1;
    }
    world.restart_only_written += usize::from(restart_only.is_some());
    world.store.update::<Secret>("user", SECRET, |secret| {
        let data = secret.data.get_or_insert_default();
        data.insert(RELOADED.to_owned(), value(reloaded));
        if let Some(text) = restart_only {
            data.insert(FIXED.to_owned(), value(text));
        }
    });
}

/// The user reads the message, and puts back what the nodes have.
pub fn put_back(world: &mut World) {
    let sets = world.store.all::<StatefulSet>().map(|set| &set.metadata);
    let workloads = sets.chain(world.store.all::<Deployment>().map(|deployment| &deployment.metadata));
    let Some(used) = workloads.filter_map(used_by).next().map(str::to_owned) else { return };
    let has = world.store.get::<Secret>(&used).and_then(|secret| secret.data.as_ref()?.get(FIXED).cloned());
    world.store.update::<Secret>("user", SECRET, |secret| {
        if let Some(has) = has {
            secret.data.get_or_insert_default().insert(FIXED.to_owned(), has);
        }
    });
}

/// The Secret is gone.
pub fn remove(world: &mut World) {
    let ms = world.ms;
    world.store.delete(ms, K::Secret, SECRET);
}

/// Who has not loaded what the Secret says.
pub fn unloaded(world: &World) -> Option<String> {
    let wanted = parse::secure_settings(&Sealed(world.store.get::<Secret>(SECRET)?.clone()));
    world.containers.values().find_map(|container| {
        let Some(mounted) = &container.keystore else { return Some(format!("{} has none", container.name)) };
        let mut has = mounted.loaded.entries.clone();
        has.remove(SEED);
        (has != wanted).then(|| format!("{} has others", container.name))
    })
}
