//! What must be true at every moment, whatever happens: each has a name, and a broken one ends the schedule.
//! `settled` has those that are asked when the world has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use searchcell_core::names::{
    ANNOTATION_CLUSTER_UUID, ClusterKey, LABEL_CELL, LABEL_CLUSTER, LABEL_COLLECTION, LABEL_ROLE,
};
use searchcell_core::snapshot::{annotation, label};
use searchcell_crds::{DeletionPolicy, IndexPlacement, SearchCell, SearchCellSpec, SearchCellStatus};

use crate::backups;
use crate::calls::Pass;
use crate::objects::{K, Obj};
use crate::placed::{self, LastTable};
use crate::removal;
use crate::rolling;
use crate::scaling;
use crate::store::NAMESPACE;
use crate::world::World;

/// At most one UUID per cluster identity, as long as any volume remembers one.
pub const ONE_CLUSTER: &str = "one_cluster_per_identity";
/// The bootstrap map never comes back once a UUID is recorded.
pub const MAP_STAYS_GONE: &str = "bootstrap_map_stays_gone";
/// Cell and claims are read from the API server itself before a bootstrap.
pub const CHECKED_LIVE: &str = "bootstrap_is_checked_live";
/// The bootstrap map goes only after the UUID is in status, on a master's claim, and on those of all masters that the
/// operator has seen in the cluster. Masters that have not joined have nothing to mark: they join without the map. Nobody
/// bootstraps from the volume of a data node; at rest it is marked, too.
pub const RECORDED_FIRST: &str = "identity_is_recorded_first";
/// A recorded UUID is never replaced, neither in status nor on a claim.
pub const UUID_IS_FINAL: &str = "recorded_uuid_is_final";
/// Nothing of a cluster that is there to stay is deleted or gets smaller, but what the spec does not ask for.
pub const NOTHING_UNASKED: &str = "nothing_goes_unasked";
/// What somebody else owns is neither changed nor deleted.
pub const FOREIGN: &str = "foreign_objects_untouched";
/// No claim is deleted under Retain, nor one of a cluster that is there to stay.
pub const VOLUMES_RETAINED: &str = "volumes_are_retained";
/// A template changes only when the user's inputs did.
pub const TEMPLATES_FROZEN: &str = "templates_are_frozen";
/// The ingest nodes are never fewer than the spec's minimum.
pub const INGEST_MINIMUM: &str = "ingest_never_below_minimum";
/// `observedGeneration` is never ahead, on status and on every condition.
pub const GENERATIONS: &str = "generations_are_observed";
/// Nothing is done to Elasticsearch because of a reading that failed.
pub const READINGS_KNOWN: &str = "no_action_on_unavailable";
/// While suspended nothing but status is written.
pub const SUSPENDED: &str = "suspended_is_idle";
/// A cluster that left the spec keeps its nodes while a placement has indices on it.
pub const REMOVAL_WAITS: &str = "removal_waits_for_placements";
/// Effects land on the very object that was observed.
pub const ACTS_ON_WHAT_IT_SAW: &str = "acts_on_what_it_saw";
/// A cluster gets nodes only behind its NetworkPolicy.
pub const FENCED: &str = "nodes_are_fenced";
/// Ready is not claimed of a cluster that is without a master for minutes.
pub const READY_IS_EARNED: &str = "ready_is_earned";

/// How long a fact may be unknown to a process whose caches lag.
const LAG_MS: u64 = 90_000;
/// How long the status may go on saying Ready when nothing keeps the operator from looking.
const BLIND_MS: u64 = 240_000;

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub message: String,
    pub ms: u64,
}

/// What the invariants remember.
#[derive(Debug, Default)]
pub struct History {
    recorded: BTreeMap<(String, String), String>,
    specs: BTreeMap<String, Vec<(u64, Arc<SearchCell>)>>,
    placed: BTreeMap<(String, String), u64>,
    /// When somebody has taken the status of the cell away.
    pub wiped: Option<u64>,
    masterless: BTreeMap<String, u64>,
    /// The table that was published last, by object.
    pub tables: BTreeMap<String, LastTable>,
    /// Clusters (`<cell>-<cluster>`) that an index was ever recorded to belong to.
    pub places: BTreeMap<String, BTreeSet<String>>,
    /// UIDs of objects that are not the operator's.
    pub foreign: BTreeSet<String>,
    /// Names of NetworkPolicies that somebody has taken away.
    pub opened: BTreeSet<String>,
    /// Nodes that an operator has restarted and that are not back, and what else restarts need to remember.
    pub rolling: rolling::Memory,
    /// Since when nothing keeps the operator from seeing and writing; absent: something does.
    pub undisturbed_since: Option<u64>,
}

impl History {
    /// The revisions of a cell that a lagging process may still believe in.
    pub fn recent(&self, ms: u64, cell: &str) -> impl Iterator<Item = &Arc<SearchCell>> {
        let all = self.specs.get(cell).map(Vec::as_slice).unwrap_or_default();
        let first = all.iter().rposition(|(since, _)| *since + LAG_MS <= ms).unwrap_or(0);
        all[first..].iter().map(|(_, cell)| cell)
    }
}

/// An operator's change of an object: `None` before a creation, `None` after a deletion.
pub fn on_change(world: &mut World, pass: &Pass, old: Option<&Arc<Obj>>, new: Option<&Arc<Obj>>) {
    let Some(object) = new.or(old) else { return };
    let name = object.meta().name.clone().unwrap_or_default();
    if pass.suspended {
        world.violated(SUSPENDED, format!("{} {name} was written", object.kind()));
    }
    if let Some(uid) = old.and_then(|old| old.meta().uid.as_ref())
        && world.history.foreign.contains(uid)
    {
        world.violated(FOREIGN, format!("{} {name} belongs to somebody else", object.kind()));
    }
    if old.is_none() && matches!(object.kind(), K::StatefulSet | K::Deployment) {
        fenced(world, object.meta());
    }
    if let (Some(old), None) = (old, new) {
        went(world, old);
    }
    match (old.map(Arc::as_ref), new.map(Arc::as_ref)) {
        (_, Some(Obj::ConfigMap(map))) if label(&map.metadata, LABEL_COLLECTION).is_some() => {
            placed::published(world, map);
        }
        (None, Some(Obj::ConfigMap(map))) => bootstrapped(world, pass, &map.metadata),
        (Some(Obj::ConfigMap(map)), None) => unbootstrapped(world, pass, &map.metadata),
        (Some(Obj::Claim(claim)), None) => claim_deleted(world, claim),
        (Some(Obj::Claim(before)), Some(Obj::Claim(after))) => {
            let uuid = |claim: &PersistentVolumeClaim| {
                annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).map(str::to_owned)
            };
            if uuid(before).is_some() && uuid(before) != uuid(after) {
                world.violated(
                    UUID_IS_FINAL,
                    format!("claim {name}: {:?} -> {:?}", uuid(before), uuid(after)),
                );
            }
        }
        (Some(Obj::StatefulSet(set)), None) if scaling::is_of_former_zone(world, set) => {}
        (Some(Obj::StatefulSet(set)), None) => workload_deleted(world, &set.metadata),
        (Some(Obj::StatefulSet(a)), Some(Obj::StatefulSet(b))) => {
            let replicas = |set: &StatefulSet| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            if replicas(b) < replicas(a) {
                scaling::on_shrink(world, a, b);
            }
            if a.spec.as_ref().map(|spec| &spec.template) != b.spec.as_ref().map(|spec| &spec.template) {
                template_changed(world, &b.metadata);
                backups::on_template(world, a, b);
            }
        }
        (before, Some(Obj::Deployment(after))) => {
            if let Some(Obj::Deployment(before)) = before
                && before.spec.as_ref().map(|spec| &spec.template)
                    != after.spec.as_ref().map(|spec| &spec.template)
            {
                template_changed(world, &after.metadata);
            }
            ingest_scaled(world, after);
        }
        _ => {}
    }
}

fn cell_and_cluster(meta: &ObjectMeta) -> (String, String) {
    let of = |key| label(meta, key).unwrap_or_default().to_owned();
    (of(LABEL_CELL), of(LABEL_CLUSTER))
}

/// An owner that is gone takes its policy with it, and what a late process makes for it.
fn fenced(world: &mut World, meta: &ObjectMeta) {
    let (cell, cluster) = cell_and_cluster(meta);
    let policy = ClusterKey::new(NAMESPACE, &cell, &cluster).network_policy();
    let owner = meta.owner_references.iter().flatten().next().map(|owner| owner.uid.clone());
    let is_live = owner.is_some_and(|uid| world.store.is_live(&uid));
    let taken_away = world.history.opened.contains(&policy);
    if is_live && !taken_away && world.store.object(K::Policy, &policy).is_none() {
        world.violated(FENCED, format!("{:?} was made without NetworkPolicy {policy}", meta.name));
    }
}

fn is_bootstrap_map(meta: &ObjectMeta) -> bool {
    meta.name.as_deref().is_some_and(|name| name.ends_with("-bootstrap"))
}

fn claims<'a>(
    world: &'a World,
    cell: &'a str,
    cluster: &'a str,
) -> impl Iterator<Item = &'a PersistentVolumeClaim> {
    world.store.all::<PersistentVolumeClaim>().filter(move |claim| {
        label(&claim.metadata, LABEL_CELL) == Some(cell)
            && label(&claim.metadata, LABEL_CLUSTER) == Some(cluster)
    })
}

fn recorded_in_status(world: &World, cell: &str, cluster: &str) -> Option<String> {
    let status = world.store.get::<SearchCell>(cell)?.status.as_ref()?;
    status.clusters.iter().find(|entry| entry.name == cluster)?.uuid.clone()
}

fn bootstrapped(world: &mut World, pass: &Pass, meta: &ObjectMeta) {
    if !is_bootstrap_map(meta) {
        return;
    }
    let (cell, cluster) = cell_and_cluster(meta);
    let recorded = recorded_in_status(world, &cell, &cluster).or_else(|| {
        claims(world, &cell, &cluster)
            .find_map(|c| annotation(&c.metadata, ANNOTATION_CLUSTER_UUID).map(str::to_owned))
    });
    if let Some(uuid) = recorded {
        world.violated(
            MAP_STAYS_GONE,
            format!("{cell}/{cluster} was bootstrapped although {uuid} is recorded"),
        );
    }
    if !pass.cell_read_live || !pass.claims_read_live.contains(&cluster) {
        world.violated(CHECKED_LIVE, format!("{cell}/{cluster} was bootstrapped from caches"));
    }
}

fn unbootstrapped(world: &mut World, pass: &Pass, meta: &ObjectMeta) {
    let (cell, cluster) = cell_and_cluster(meta);
    let stays = world.store.get::<SearchCell>(&cell).is_some_and(|found| {
        found.metadata.deletion_timestamp.is_none()
            && meta
                .owner_references
                .iter()
                .flatten()
                .any(|owner| Some(&owner.uid) == found.metadata.uid.as_ref())
    });
    let leaves = (world.history.recent(world.ms, &cell))
        .any(|cell| !cell.spec.clusters.iter().any(|c| c.name == cluster));
    if !is_bootstrap_map(meta) || !stays || leaves {
        return;
    }
    let recorded = recorded_in_status(world, &cell, &cluster).or_else(|| {
        let uid = world.store.get::<SearchCell>(&cell)?.metadata.uid.clone()?;
        world.history.recorded.get(&(uid, cluster.clone())).cloned()
    });
    let on_claims = claims(world, &cell, &cluster)
        .filter(|claim| label(&claim.metadata, LABEL_ROLE) == Some("master"))
        .any(|claim| annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).is_some());
    let bare: Vec<&String> = claims(world, &cell, &cluster)
        .filter(|claim| annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).is_none())
        .filter_map(|claim| {
            let known = (claim.metadata.name.clone()?, claim.metadata.uid.clone()?);
            pass.claims_of_masters.get(&known).map(|(name, _)| name)
        })
        .collect();
    if recorded.is_none() || !on_claims || !bare.is_empty() {
        world.violated(
            RECORDED_FIRST,
            format!(
                "{cell}/{cluster}: status {recorded:?}, on a master's claim: {on_claims}, not on {bare:?}"
            ),
        );
    }
}

/// The operator deleted something: claims and bootstrap maps have invariants of their own.
fn went(world: &mut World, gone: &Obj) {
    let meta = gone.meta();
    let (cell, cluster) = cell_and_cluster(meta);
    let is_of_living_cell = world.store.get::<SearchCell>(&cell).is_some_and(|found| {
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        owners.iter().any(|owner| Some(&owner.uid) == found.metadata.uid.as_ref())
    });
    let name = meta.name.clone().unwrap_or_default();
    let is_asked_for = |spec: &SearchCell| {
        let ingest = spec.spec.nodes.ingest.as_ref();
        let autoscaled = ingest.is_some_and(|ingest| ingest.autoscaling.is_some());
        let is_of_ingest = gone.kind() == K::Deployment || name.ends_with("-ingest");
        spec.metadata.deletion_timestamp.is_none()
            && spec.spec.clusters.iter().any(|named| named.name == cluster)
            && (gone.kind() != K::Autoscaler || autoscaled)
            && (!is_of_ingest || ingest.is_some())
            && (gone.kind() != K::Budget || !guards_one_node(&spec.spec, &name))
    };
    let is_former = matches!(gone, Obj::StatefulSet(set) if scaling::is_of_former_zone(world, set));
    let is_other = matches!(gone.kind(), K::Claim | K::ConfigMap) || is_former;
    if !is_other && is_of_living_cell && world.history.recent(world.ms, &cell).all(|cell| is_asked_for(cell))
    {
        world.violated(NOTHING_UNASKED, format!("{} {name} was deleted", gone.kind()));
    }
}

/// A budget over a single node is only in the way.
fn guards_one_node(spec: &SearchCellSpec, budget: &str) -> bool {
    let data = spec.nodes.data.per_zone * spec.active_zones().count() as i32;
    (budget.ends_with("-data") && data < 2) || (budget.ends_with("-master") && spec.nodes.master.count < 2)
}

fn claim_deleted(world: &mut World, claim: &PersistentVolumeClaim) {
    let meta = &claim.metadata;
    let (cell, cluster) = cell_and_cluster(meta);
    if removal::on_volume_deleted(world, &cell, &cluster) {
        return;
    }
    let deletes = |cell: &Arc<SearchCell>| cell.spec.deletion_policy == DeletionPolicy::Delete;
    let stays = |cell: &Arc<SearchCell>| {
        cell.metadata.deletion_timestamp.is_none() && cell.spec.clusters.iter().any(|c| c.name == cluster)
    };
    if world.history.recent(world.ms, &cell).all(&stays)
        && world.history.recent(world.ms, &cell).any(&deletes)
        && scaling::may_delete(world, claim)
    {
        return;
    }
    let allowed = world.history.recent(world.ms, &cell).any(|cell| {
        let leaves = cell.metadata.deletion_timestamp.is_some()
            || !cell.spec.clusters.iter().any(|c| c.name == cluster);
        leaves && cell.spec.deletion_policy == DeletionPolicy::Delete
    });
    if !allowed {
        let name = meta.name.clone().unwrap_or_default();
        world.violated(VOLUMES_RETAINED, format!("claim {name} was deleted"));
    }
}

/// What a change of the template needs: the inputs of any role.
fn inputs(cell: &SearchCell) -> String {
    let spec = &cell.spec;
    let role = |options: &searchcell_crds::NodeOptions| serde_json::to_string(options).unwrap();
    let ingest = spec.nodes.ingest.as_ref().map(|nodes| role(&nodes.options));
    format!(
        "{} {:?} {:?} {} {} {ingest:?} {:?}",
        spec.version,
        spec.image,
        spec.settings,
        role(&spec.nodes.master.options),
        role(&spec.nodes.data.options),
        spec.zones
    )
}

fn template_changed(world: &mut World, meta: &ObjectMeta) {
    let (cell, _) = cell_and_cluster(meta);
    let all: BTreeSet<String> =
        world.history.specs.get(&cell).into_iter().flatten().map(|(_, cell)| inputs(cell)).collect();
    if all.len() < 2 && world.restart_only_written < 2 {
        let name = meta.name.clone().unwrap_or_default();
        world.violated(TEMPLATES_FROZEN, format!("the template of {name} changed, the inputs did not"));
    }
}

fn ingest_scaled(world: &mut World, deployment: &Deployment) {
    let (cell, _) = cell_and_cluster(&deployment.metadata);
    let minimum = |cell: &Arc<SearchCell>| {
        let ingest = cell.spec.nodes.ingest.as_ref()?;
        ingest.autoscaling.as_ref().map(|scaling| scaling.min_replicas).or(ingest.replicas)
    };
    let Some(least) = world.history.recent(world.ms, &cell).filter_map(minimum).min() else { return };
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if replicas < least {
        let name = deployment.metadata.name.clone().unwrap_or_default();
        world.violated(
            INGEST_MINIMUM,
            format!("{name} has {replicas} replicas, the spec asks for at least {least}"),
        );
    }
}

fn workload_deleted(world: &mut World, meta: &ObjectMeta) {
    let (cell, cluster) = cell_and_cluster(meta);
    let Some(live) = world.store.get::<SearchCell>(&cell) else { return };
    if live.metadata.deletion_timestamp.is_some() {
        return;
    }
    let since = world.history.placed.get(&(cell.clone(), cluster.clone())).copied();
    removal::on_workload_deleted(world, &cell, &cluster);
    if since.is_some_and(|since| since + LAG_MS < world.ms) {
        world.violated(
            REMOVAL_WAITS,
            format!("nodes of {cell}/{cluster} were deleted under a placement's indices"),
        );
    }
}

/// A cluster is about to form.
pub fn on_formation(world: &mut World, identity: &str, uuid: &str) {
    let Some((cell, cluster)) = identity.split_once('/') else { return };
    let on_disks: BTreeSet<String> = claims(world, cell, cluster)
        .filter_map(|claim| world.volumes.get(claim.spec.as_ref()?.volume_name.as_ref()?))
        .filter_map(|volume| volume.cluster_uuid.clone())
        .collect();
    let recorded = recorded_in_status(world, cell, cluster);
    if !on_disks.is_empty() || recorded.is_some() {
        world.violated(
            ONE_CLUSTER,
            format!(
                "{identity} forms again as {uuid}: {on_disks:?} is on its volumes, {recorded:?} in status"
            ),
        );
    }
}

pub fn on_cell_status(world: &mut World, name: &str, status: &SearchCellStatus) {
    let Some(cell) = world.store.get::<SearchCell>(name).cloned() else { return };
    generations(world, &cell.metadata, status.observed_generation, &status.conditions);
    let uid = cell.metadata.uid.clone().unwrap_or_default();
    let in_spec = |name: &String| cell.spec.clusters.iter().any(|cluster| cluster.name == *name);
    for entry in status.clusters.iter().filter(|entry| in_spec(&entry.name)) {
        let key = (uid.clone(), entry.name.clone());
        match (&entry.uuid, world.history.recorded.get(&key).cloned()) {
            (Some(new), None) => {
                world.history.recorded.insert(key, new.clone());
            }
            (new, Some(old))
                if new.as_ref() != Some(&old) && (new.is_some() || cell_knows(&cell, &entry.name)) =>
            {
                world.violated(UUID_IS_FINAL, format!("status of {name}/{}: {old} -> {new:?}", entry.name));
            }
            _ => {}
        }
    }
}

/// True when the stored status has a UUID: after a wipe it may be missing for a while.
fn cell_knows(cell: &SearchCell, cluster: &str) -> bool {
    cell.status
        .iter()
        .flat_map(|status| &status.clusters)
        .any(|entry| entry.name == cluster && entry.uuid.is_some())
}

/// That `observedGeneration` is never ahead.
pub fn generations(world: &mut World, meta: &ObjectMeta, observed: Option<i64>, conditions: &[Condition]) {
    let generation = meta.generation.unwrap_or(0);
    let observed = observed.unwrap_or(-1);
    let name = meta.name.clone().unwrap_or_default();
    if observed > generation {
        world.violated(GENERATIONS, format!("{name}: {observed} is observed, {generation} is the spec's"));
    }
    for condition in conditions {
        if condition.observed_generation.is_none_or(|of| of > observed) {
            let of = condition.observed_generation;
            world.violated(
                GENERATIONS,
                format!("{name}: {} is of {of:?}, status of {observed}", condition.type_),
            );
        }
    }
}

pub fn on_elastic_write(
    world: &mut World,
    pass: &Pass,
    key: &ClusterKey,
    what: &str,
    readings: &BTreeMap<String, bool>,
) {
    let identity = format!("{}/{}", key.cell, key.cluster);
    if pass.suspended {
        world.violated(SUSPENDED, format!("{identity}: {what}"));
    }
    if readings.get(&identity) != Some(&true) {
        world.violated(READINGS_KNOWN, format!("{identity}: {what}, though its last reading failed"));
    }
    if what.starts_with("create index") {
        // An index that is missing here may be on the cluster that could not be read.
        let unread = world.history.recent(world.ms, &key.cell).last().and_then(|cell| {
            let unknown = |name: &String| readings.get(&format!("{}/{name}", key.cell)) != Some(&true);
            let old = world.history.recent(world.ms, &key.cell).next()?;
            let in_both = |name: &String| old.spec.clusters.iter().any(|cluster| cluster.name == *name);
            cell.spec
                .clusters
                .iter()
                .map(|cluster| cluster.name.clone())
                .find(|name| unknown(name) && in_both(name))
        });
        if let Some(unread) = unread {
            world.violated(READINGS_KNOWN, format!("{identity}: {what}, though {unread} could not be read"));
        }
    }
}

/// What time alone can break.
pub fn on_tick(world: &mut World) {
    let ms = world.ms;
    let cells: Vec<Arc<Obj>> = world.store.objects(K::Cell).map(|(_, object)| object.clone()).collect();
    for object in &cells {
        let Obj::Cell(cell) = object.as_ref() else { continue };
        let name = cell.metadata.name.clone().unwrap_or_default();
        let known = world.history.specs.entry(name.clone()).or_default();
        let key = |cell: &SearchCell| (cell.metadata.uid.clone(), cell.metadata.generation);
        if known.last().is_none_or(|(_, last)| key(last) != key(cell)) {
            known.push((ms, Arc::new(cell.clone())));
            // A cluster that left the spec may come back as another one.
            let stays = |name: &String| cell.spec.clusters.iter().any(|cluster| cluster.name == *name);
            let uid = cell.metadata.uid.clone().unwrap_or_default();
            world.history.recorded.retain(|(of, cluster), _| *of != uid || stays(cluster));
        }
        earned(world, cell, &name);
    }
    backups::tick(world);
    rolling::on_tick(world);
    let placed: BTreeSet<(String, String)> = (world.store.all::<IndexPlacement>())
        .flat_map(|placement| {
            let cell = placement.spec.cell.clone();
            let clusters =
                placement.status.iter().flat_map(|status| &status.clusters).filter(|entry| entry.indices > 0);
            clusters.filter_map(move |entry| {
                let cluster = entry.name.strip_prefix(&format!("{cell}-"))?.to_owned();
                Some((cell.clone(), cluster))
            })
        })
        .collect();
    world.history.placed.retain(|key, _| placed.contains(key));
    for key in placed {
        world.history.placed.entry(key).or_insert(ms);
    }
}

fn earned(world: &mut World, cell: &SearchCell, name: &str) {
    let ready = (cell.status.iter().flat_map(|status| &status.conditions))
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    for cluster in &cell.spec.clusters {
        let identity = format!("{name}/{}", cluster.name);
        let served = world.elastic.of_identity(&identity).any(|cluster| cluster.master.is_some());
        if served {
            world.history.masterless.remove(&identity);
            continue;
        }
        let since = *world.history.masterless.entry(identity.clone()).or_insert(world.ms);
        let since = world.history.undisturbed_since.map(|undisturbed| undisturbed.max(since));
        if ready && since.is_some_and(|since| since + BLIND_MS < world.ms) {
            world.violated(
                READY_IS_EARNED,
                format!("{name} is Ready, {identity} has had no master for minutes"),
            );
        }
    }
}
