//! The invariants of rest: what the world must look like some time after the last fault and the last edit.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use searchcell_core::build;
use searchcell_core::names::{ANNOTATION_CLUSTER_UUID, ClusterKey, FIELD_MANAGER, LABEL_CLUSTER};
use searchcell_core::plan::{ALLOCATION_ENABLE, setting_text, wanted_settings};
use searchcell_core::security::users::{User, standby_secret, users_secret};
use searchcell_core::snapshot::{ShardState, annotation, label};
use searchcell_core::validate::{validate_cell, validate_placement};
use searchcell_crds::{IndexPlacement, SearchCell};
use serde_json::Value;

use crate::acts::CELL;
use crate::elastic::Cluster;
use crate::keystore;
use crate::objects::K;
use crate::removal;
use crate::rolling;
use crate::scaling;
use crate::scenario::Expect;
use crate::shards::Index;
use crate::store::{NAMESPACE, OPERATOR_NAMESPACE};
use crate::tenants;
use crate::world::World;

/// After the last fault the cell comes to serve in full.
pub const CONVERGES: &str = "converges";
/// At rest the operator calls nobody to write anything.
pub const REST_IS_SILENT: &str = "rest_is_silent";
/// At rest every claim of a member carries the cluster's UUID.
pub const IDENTITY_ON_CLAIMS: &str = "identity_is_on_claims";
/// At rest there is no bootstrap map.
pub const NO_MAP_AT_REST: &str = "no_bootstrap_map_at_rest";
/// At rest, with an autoscaler, the operator does not own `spec.replicas`.
pub const REPLICAS_RELEASED: &str = "replicas_are_released";
/// At rest every cluster has its NetworkPolicy as it ought to be, whoever changed it.
pub const POLICY_AT_REST: &str = "network_policy_is_as_desired";
/// Copies of a shard are in distinct zones.
pub const COPIES_APART: &str = "copies_are_in_distinct_zones";
/// Existing indices have the copies, settings and mappings that the spec asks for, whoever changed them.
pub const INDICES_AS_ASKED: &str = "indices_are_as_asked";
/// Cluster settings are what the spec asks for.
pub const SETTINGS: &str = "settings_are_as_desired";
/// Finalizers go, also when Elasticsearch is down.
pub const FINALIZERS_GO: &str = "finalizers_go";
/// What cannot go on says so.
pub const HOLDS_ARE_TOLD: &str = "holds_are_told";

type Unsettled = Option<(&'static str, String)>;

/// What keeps the world from being as it ought to be, if anything does.
pub fn unsettled(world: &World, expect: Expect) -> Unsettled {
    let leaving = (world.store.all::<SearchCell>().map(|cell| &cell.metadata))
        .chain(world.store.all::<IndexPlacement>().map(|placement| &placement.metadata))
        .find(|meta| meta.deletion_timestamp.is_some());
    if let Some(meta) = leaving {
        return Some((FINALIZERS_GO, format!("{:?} is still there", meta.name)));
    }
    let cell = world.store.get::<SearchCell>(CELL);
    match (expect, cell) {
        (Expect::Gone, None) => K::ALL
            .iter()
            .filter(|kind| **kind != K::Claim)
            .flat_map(|kind| world.store.objects(*kind))
            .next()
            .map(|(name, _)| (FINALIZERS_GO, format!("{name} is still there"))),
        (Expect::Gone, Some(_)) => Some((FINALIZERS_GO, "the cell is still there".to_owned())),
        (_, None) => Some((CONVERGES, "there is no cell".to_owned())),
        (Expect::Ready, Some(cell)) => cell_is_whole(world, cell).or_else(|| match doubled(world) {
            Some(index) => told(world, &index),
            None => placements_are_whole(world, cell),
        }),
        (Expect::Held, Some(cell)) => held(cell).and_then(|_| cell_is_whole(world, cell)),
    }
}

fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn is_true(conditions: &[Condition], type_: &str) -> bool {
    condition(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Safe, and not silent about it.
fn held(cell: &SearchCell) -> Unsettled {
    let Some(status) = &cell.status else { return Some((HOLDS_ARE_TOLD, "no status".to_owned())) };
    if status.observed_generation != cell.metadata.generation {
        return Some((HOLDS_ARE_TOLD, format!("generation {:?} is not observed", cell.metadata.generation)));
    }
    let all = &status.conditions;
    let waits = is_true(all, "Stalled")
        || is_true(all, "Reconciling")
        || !is_true(all, "Ready")
        || is_true(all, "Degraded");
    (!waits).then(|| (HOLDS_ARE_TOLD, format!("the conditions tell of no trouble: {all:?}")))
}

fn clear(name: &str, generation: Option<i64>, observed: Option<i64>, all: &[Condition]) -> Unsettled {
    let told = || {
        all.iter()
            .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
            .collect::<Vec<_>>()
    };
    if observed != generation {
        return Some((CONVERGES, format!("{name}: {observed:?} is observed, {generation:?} is the spec's")));
    }
    let fine = is_true(all, "Ready")
        && !is_true(all, "Stalled")
        && !is_true(all, "Reconciling")
        && !is_true(all, "Degraded");
    (!fine).then(|| (CONVERGES, format!("{name}: {:?}", told())))
}

fn cell_is_whole(world: &World, cell: &SearchCell) -> Unsettled {
    let Ok(valid) = validate_cell(cell) else { return Some((CONVERGES, "the spec is invalid".to_owned())) };
    let mut secrets = User::ALL.map(|user| user.secret(CELL)).to_vec();
    secrets.extend([users_secret(CELL), standby_secret(CELL)]);
    let missing = secrets.into_iter().find(|name| world.store.get::<Secret>(name).is_none());
    if let Some(missing) = missing.filter(|_| valid.is_secure) {
        return Some((CONVERGES, format!("there is no Secret {missing}")));
    }
    for cluster in &valid.clusters {
        let key = valid.key(&cluster.name);
        let identity = format!("{CELL}/{}", cluster.name);
        let living: Vec<&Cluster> =
            world.elastic.of_identity(&identity).filter(|cluster| cluster.master.is_some()).collect();
        let [live] = living.as_slice() else {
            return Some((CONVERGES, format!("{identity}: {} clusters with a master", living.len())));
        };
        let recorded = (cell.status.iter().flat_map(|status| &status.clusters))
            .find(|entry| entry.name == cluster.name)
            .and_then(|entry| entry.uuid.clone());
        if recorded.as_ref() != Some(&live.uuid) {
            return Some((CONVERGES, format!("{identity}: status has {recorded:?}, {} runs", live.uuid)));
        }
        let wanted = build::network_policy(&valid, &key, OPERATOR_NAMESPACE);
        let policy = world.store.get::<NetworkPolicy>(&key.network_policy());
        if policy.is_none_or(|policy| policy.spec != wanted.spec) {
            return Some((POLICY_AT_REST, format!("{:?}", policy.map(|policy| &policy.spec))));
        }
        if let Some(unsettled) = objects_are_whole(world, cell, &key, live) {
            return Some(unsettled);
        }
        if let Some(unsettled) = rolling::unsettled(world, cell, &valid, &key) {
            return Some(unsettled);
        }
        if let Some(records) = live.shutdowns.as_ref().filter(|records| !records.is_empty()) {
            return Some((rolling::NOTHING_LEFT, format!("{identity}: {records:?}")));
        }
        if let Some(left) = scaling::unsettled(live) {
            return Some(left);
        }
        if let Some(value) = live.settings.get(ALLOCATION_ENABLE) {
            return Some((rolling::NOTHING_LEFT, format!("{identity}: {ALLOCATION_ENABLE} is {value}")));
        }
        for (name, value) in wanted_settings(&valid) {
            if live.settings.get(&name).map(setting_text) != Some(setting_text(&value)) {
                let is = live.settings.get(&name);
                return Some((SETTINGS, format!("{identity}: {name} is {is:?}, wanted is {value}")));
            }
        }
    }
    if valid.keystore.is_some()
        && let Some(who) = keystore::unloaded(world)
    {
        return Some((keystore::LOADED, who));
    }
    match removal::unsettled(world, cell) {
        Err(unsettled) => return Some(unsettled),
        Ok(true) => return None,
        Ok(false) => {}
    }
    let status = cell.status.as_ref()?;
    clear(CELL, cell.metadata.generation, status.observed_generation, &status.conditions)
}

fn objects_are_whole(world: &World, cell: &SearchCell, key: &ClusterKey, live: &Cluster) -> Unsettled {
    if world.store.get::<ConfigMap>(&key.bootstrap_config_map()).is_some() {
        return Some((NO_MAP_AT_REST, key.bootstrap_config_map()));
    }
    for claim in world.store.all::<PersistentVolumeClaim>() {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let is_member = name.strip_prefix("data-").is_some_and(|pod| live.members.contains_key(pod));
        let ours = label(&claim.metadata, LABEL_CLUSTER) == Some(&key.cluster);
        let on_claim = annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID);
        if ours && is_member && on_claim != Some(&live.uuid) {
            return Some((IDENTITY_ON_CLAIMS, format!("{name} carries {on_claim:?}, not {}", live.uuid)));
        }
    }
    let spec = &cell.spec;
    let deployment = world.store.get::<Deployment>(&key.ingest());
    let replicas = deployment.and_then(|deployment| deployment.spec.as_ref()?.replicas).unwrap_or(0);
    let wanted =
        spec.nodes.master.count + spec.nodes.data.per_zone * spec.active_zones().count() as i32 + replicas;
    let members = live.members.len() as i32;
    if members != wanted {
        return Some((CONVERGES, format!("{}: {members} nodes, wanted are {wanted}", key.name())));
    }
    if let Some(ingest) = &spec.nodes.ingest {
        if let Some(fixed) = ingest.replicas
            && replicas != fixed
        {
            return Some((CONVERGES, format!("{}: {replicas} ingest nodes, wanted are {fixed}", key.name())));
        }
        let uid = deployment.and_then(|deployment| deployment.metadata.uid.clone()).unwrap_or_default();
        let owners = world.store.owners_of(&uid, &["spec", "replicas"]);
        if ingest.autoscaling.is_some() && owners.iter().any(|owner| owner == FIELD_MANAGER) {
            return Some((REPLICAS_RELEASED, format!("{} is still owned by us", key.ingest())));
        }
    } else if deployment.is_some() {
        return Some((CONVERGES, format!("{} is there, and nobody asks for it", key.ingest())));
    }
    None
}

/// An index that two operators made at the same moment, each on another cluster.
fn doubled(world: &World) -> Option<String> {
    let clusters = || world.elastic.clusters.values().filter(|cluster| cluster.master.is_some());
    let marked = |cluster: &Cluster, name: &String| {
        cluster
            .indices
            .get(name)
            .is_some_and(|index| index.mark.as_ref().is_some_and(|mark| mark.namespace == NAMESPACE))
    };
    let on = |name: &String| clusters().filter(|cluster| marked(cluster, name)).count();
    clusters().flat_map(|cluster| cluster.indices.keys()).find(|name| on(name) > 1).cloned()
}

/// A person has to choose, and is told which index it is about.
fn told(world: &World, index: &str) -> Unsettled {
    let says = |placement: &IndexPlacement| {
        let all = placement.status.iter().flat_map(|status| &status.conditions);
        all.into_iter().any(|c| c.type_ == "Stalled" && c.status == "True" && c.message.contains(index))
    };
    let is_told = world.store.all::<IndexPlacement>().any(says);
    (!is_told).then(|| (HOLDS_ARE_TOLD, format!("nobody says that {index} is on two clusters")))
}

fn placements_are_whole(world: &World, cell: &SearchCell) -> Unsettled {
    for placement in world.store.all::<IndexPlacement>() {
        let name = placement.metadata.name.clone().unwrap_or_default();
        let Some(status) = &placement.status else {
            return Some((CONVERGES, format!("{name} has no status")));
        };
        if removal::is_on_removed(cell, placement) {
            if !is_true(&status.conditions, "Stalled") {
                return Some((
                    HOLDS_ARE_TOLD,
                    format!("{name}: nobody says that its indices are on a former cluster"),
                ));
            }
            continue;
        }
        let staying = tenants::staying(world, placement);
        if !staying.is_empty() {
            if let Some(unsettled) = stays_told(&name, placement, &staying) {
                return Some(unsettled);
            }
        } else if let Some(unclear) =
            clear(&name, placement.metadata.generation, status.observed_generation, &status.conditions)
        {
            return Some(unclear);
        }
        let wanted = match (&placement.spec.pool, &placement.spec.dedicated) {
            (Some(pool), _) => pool.indices as usize,
            (_, dedicated) => dedicated.as_ref().map_or(0, |dedicated| dedicated.tenants.len()),
        };
        let ours = (world.elastic.clusters.values())
            .filter(|cluster| cluster.identity.starts_with(&format!("{CELL}/")) && cluster.master.is_some())
            .flat_map(|cluster| cluster.indices.iter().map(move |(index, facts)| (cluster, index, facts)))
            .filter(|(_, _, facts)| {
                facts.mark.as_ref().is_some_and(|mark| mark.placement == name && mark.namespace == NAMESPACE)
            });
        let mut found = BTreeSet::new();
        for (cluster, index, facts) in ours {
            found.insert(index.clone());
            if let Some(differs) = differs(world, cell, placement, facts) {
                return Some((INDICES_AS_ASKED, format!("{index} on {}: {differs}", cluster.identity)));
            }
            for shard in 0..facts.primaries {
                let copies: Vec<_> = facts.copies.iter().filter(|copy| copy.shard == shard).collect();
                if let Some(copy) = copies.iter().find(|copy| copy.state != ShardState::Started) {
                    return Some((CONVERGES, format!("{index}/{shard} on {}: {copy:?}", cluster.identity)));
                }
                let zones: BTreeSet<_> = (copies.iter())
                    .filter_map(|copy| cluster.members.get(&copy.node.as_ref()?.0)?.zone.clone())
                    .collect();
                if zones.len() < copies.len().min(cell.spec.active_zones().count()) {
                    return Some((
                        COPIES_APART,
                        format!("{index}/{shard}: {} copies in {zones:?}", copies.len()),
                    ));
                }
            }
        }
        let wanted = wanted - staying.len();
        if found.len() != wanted {
            return Some((CONVERGES, format!("{name}: {} indices, wanted are {wanted}", found.len())));
        }
    }
    None
}

/// Of tenants that stay in the pool a person is told.
fn stays_told(name: &str, placement: &IndexPlacement, staying: &[String]) -> Unsettled {
    let status = placement.status.as_ref()?;
    let stalled = condition(&status.conditions, "Stalled").filter(|stalled| stalled.status == "True");
    let told = |id: &String| stalled.is_some_and(|stalled| stalled.message.contains(id.as_str()));
    let is_told = status.observed_generation == placement.metadata.generation && staying.iter().all(told);
    (!is_told).then(|| (HOLDS_ARE_TOLD, format!("{name}: {staying:?} stay, told is {stalled:?}")))
}

/// What of an index is not as its placement asks.
fn differs(world: &World, cell: &SearchCell, placement: &IndexPlacement, index: &Index) -> Option<String> {
    let siblings: Vec<IndexPlacement> = world.store.all::<IndexPlacement>().cloned().collect();
    let valid = validate_placement(placement, Some(cell), &siblings).ok()?;
    let mark = index.mark.as_ref()?;
    if valid.replicas.or(mark.replicas) != Some(index.replicas) {
        return Some(format!("{} replicas, asked for are {:?}", index.replicas, valid.replicas));
    }
    if mark.inputs != build::index_inputs(&valid) {
        return Some("its mappings are not those of the spec".to_owned());
    }
    let wanted = build::index_settings(&valid);
    let texts = |settings: &BTreeMap<String, Value>| -> BTreeMap<String, String> {
        settings.iter().map(|(name, value)| (name.clone(), setting_text(value))).collect()
    };
    (texts(&wanted) != texts(&index.settings))
        .then(|| format!("{:?}, asked for are {wanted:?}", index.settings))
}
