//! Plans taking nodes away that the spec does not ask for: data nodes are emptied by Elasticsearch first, masters lose their vote,
//! and only then the StatefulSet shrinks. One zone at a time, recorded in status before it begins; what Elasticsearch is told
//! is desired state, computed afresh from that record, so that nothing is left behind and a changed spec cancels it. Pure.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_crds::{DeletionPolicy, Operation, OperationKind, Reason};
use serde_json::Value;

use super::Draft;
use super::roll::{Scope, gates};
use super::settings::{is_owned, setting_text};
use crate::drift;
use crate::names::Role;
use crate::snapshot::{ElasticFacts, IndexFacts, ShardState, is_owned_by, role_and_zone};
use crate::status::some_of;
use crate::step::{Action, Kind};
use crate::watermark::Watermark;

/// Nodes of these names keep no shards.
pub const ALLOCATION_EXCLUDE: &str = "cluster.routing.allocation.exclude._name";

/// Shards that have not moved for so long need a person, if none is on its way.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// Nodes of one StatefulSet that the spec does not ask for.
struct Surplus<'a> {
    role: Role,
    zone: String,
    set: &'a StatefulSet,
    /// Nodes of it that stay.
    keep: i32,
    /// Those that go, sorted.
    nodes: Vec<String>,
}

/// True for an operation of this file.
pub fn is_drain(operation: &Operation) -> bool {
    matches!(operation.kind, OperationKind::DrainNode | OperationKind::DrainZone)
}

/// Plans the next step of taking nodes away; true: that is what the cluster does, and nothing else begins.
pub(super) fn plan_drain(scope: &Scope<'_>, may_begin: bool, draft: &mut Draft) -> bool {
    let surplus = surplus(scope);
    if let Some(recorded) = scope.recorded.filter(|recorded| is_drain(recorded)) {
        draft.operation = Some(None);
        if let Some(wait) = go_on(scope, &surplus, recorded, draft) {
            draft.operation = Some(Some(recorded.clone()));
            draft.hold(&scope.key.cluster, Reason::Draining, wait);
            return true;
        }
        return false;
    }
    let (Some(next), None, true) = (surplus.first(), scope.recorded, may_begin) else { return false };
    if let Err((reason, message)) = may_go(scope, next) {
        draft.hold(&scope.key.cluster, reason, message);
        return false;
    }
    let uid = |node: &String| {
        let pod = scope.objects.pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(node));
        pod.and_then(|pod| pod.metadata.uid.clone()).unwrap_or_default()
    };
    draft.operation = Some(Some(Operation {
        kind: if next.keep == 0 { OperationKind::DrainZone } else { OperationKind::DrainNode },
        zone: Some(next.zone.clone()),
        uids: next.nodes.iter().map(uid).collect(),
        nodes: next.nodes.clone(),
        message: None,
        started_at: Time(scope.now),
    }));
    true
}

/// StatefulSets of zones that are to have no nodes, and have none.
pub(super) fn prune_empty(scope: &Scope<'_>, draft: &mut Draft) {
    let all = sets(scope, Role::Data).chain(sets(scope, Role::Master));
    for (set, zone) in all.filter(|(set, zone)| !scope.cell.is_active(zone) && replicas(set) == 0) {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let is_left = scope.objects.pods.iter().any(|pod| is_owned_by(&pod.metadata, uid));
        if !is_left && set.metadata.deletion_timestamp.is_none() {
            let target = drift::exact_target(Kind::StatefulSet, &set.metadata);
            let why = format!("zone {zone} is to have no nodes, and has none");
            draft.step(&scope.key.cluster, why, Action::Delete { target });
        }
    }
}

/// What is waited for; `None`: it is over, or the spec asks for these nodes again.
fn go_on(
    scope: &Scope<'_>,
    surplus: &[Surplus<'_>],
    recorded: &Operation,
    draft: &mut Draft,
) -> Option<String> {
    let names = some_of(&recorded.nodes);
    let of_record = surplus.iter().find(|of| of.nodes.iter().any(|node| recorded.nodes.contains(node)));
    let Some(of_record) = of_record else {
        let is_there = |node: &String| {
            let claim = format!("data-{node}");
            scope.objects.claims.iter().any(|of| of.metadata.name.as_ref() == Some(&claim))
        };
        let comes_back = |node: &String| exists(scope, node) || is_asked_for(scope, recorded, node);
        let goes =
            scope.cell.deletion_policy == DeletionPolicy::Delete && !recorded.nodes.iter().any(comes_back);
        let is_left = goes && recorded.nodes.iter().any(is_there);
        if is_left && scope.elastic.is_some_and(|facts| gates::serves_all(facts).is_ok()) {
            delete_claims(scope, recorded, draft);
        }
        return is_left.then(|| format!("volumes of {names} are being deleted, as spec.deletionPolicy says"));
    };
    // Others of them go by now, or not all: that is decided anew.
    let stay = recorded.nodes.iter().any(|node| !of_record.nodes.contains(node) && exists(scope, node));
    if stay || of_record.nodes.iter().any(|node| !recorded.nodes.contains(node)) {
        return None;
    }
    if replicas(of_record.set) <= of_record.keep {
        return Some(format!("{names} is removed: waiting until it is gone"));
    }
    if let Some(wait) = what_is_left(scope, recorded, of_record, draft) {
        return Some(wait);
    }
    if let Err((_, message)) = gates::others(scope, &of_record.nodes) {
        return Some(format!("{names} holds nothing any more; it stays for now: {message}"));
    }
    let target = drift::exact_target(Kind::StatefulSet, &of_record.set.metadata);
    let why = format!("{names} holds nothing any more, and the spec does not ask for it");
    draft.step(&scope.key.cluster, why, Action::Scale { target, replicas: of_record.keep });
    Some(format!("{names} is removed: waiting until it is gone"))
}

/// What nodes still have that others are to have first.
fn what_is_left(
    scope: &Scope<'_>,
    recorded: &Operation,
    of: &Surplus<'_>,
    draft: &mut Draft,
) -> Option<String> {
    let names = some_of(&of.nodes);
    let Some(facts) = scope.elastic else {
        return Some(format!("the cluster cannot be read: {names} stays"));
    };
    if of.role == Role::Master {
        for name in of.nodes.iter().filter(|name| !facts.no_votes.contains(*name)) {
            if facts.nodes.contains_key(name) {
                let why = format!("{name} is to go: the cluster is not to count on its vote");
                draft.step(&scope.key.cluster, why, Action::ExcludeVoter { name: name.clone() });
                return Some(format!("{name} gives up its vote"));
            }
        }
        let votes =
            |name: &&String| facts.nodes.get(*name).is_some_and(|node| facts.voting.contains(&node.id));
        return of.nodes.iter().find(votes).map(|name| format!("{name} gives up its vote"));
    }
    let excluded = facts.settings.get(ALLOCATION_EXCLUDE).map(setting_text).unwrap_or_default();
    let excluded: BTreeSet<&str> = excluded.split(',').collect();
    let wait = format!("{names}: waiting until Elasticsearch has moved its shards to other nodes");
    if of.nodes.iter().any(|node| !excluded.contains(node.as_str())) {
        return Some(wait);
    }
    let holds = |index: &IndexFacts| {
        index.copies.iter().any(|copy| copy.node.as_ref().is_some_and(|node| of.nodes.contains(node)))
    };
    let moves = facts
        .indices
        .values()
        .flat_map(|index| &index.copies)
        .any(|copy| copy.state == ShardState::Relocating);
    let is_stuck = !moves && scope.now.duration_since(recorded.started_at.0) > PATIENCE;
    let wait =
        if is_stuck { format!("{wait}; none moves: GET _cluster/allocation/explain says why") } else { wait };
    facts.indices.values().any(holds).then_some(wait)
}

/// Volumes of nodes that are gone, whose shards all have as many copies elsewhere as they had.
fn delete_claims(scope: &Scope<'_>, recorded: &Operation, draft: &mut Draft) {
    for node in &recorded.nodes {
        let name = format!("data-{node}");
        let claim = scope.objects.claims.iter().find(|claim| claim.metadata.name.as_ref() == Some(&name));
        if let Some(claim) = claim.filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
            let target = drift::target(Kind::PersistentVolumeClaim, &claim.metadata);
            let why = "its node is gone, and spec.deletionPolicy is Delete";
            draft.step(&scope.key.cluster, why, Action::Delete { target });
        }
    }
}

/// Whether the spec asks for a node again that it once did not ask for.
fn is_asked_for(scope: &Scope<'_>, recorded: &Operation, node: &str) -> bool {
    let zone = recorded.zone.as_deref().unwrap_or_default();
    let ordinal = |role: Role| -> Option<i32> {
        node.strip_prefix(&format!("{}-", scope.key.stateful_set(role, zone)))?.parse().ok()
    };
    let has =
        |role: Role, ordinal: i32| sets(scope, role).any(|(set, of)| of == zone && ordinal < replicas(set));
    match (ordinal(Role::Data), ordinal(Role::Master)) {
        (Some(ordinal), _) => {
            has(Role::Data, ordinal) || (scope.cell.is_active(zone) && ordinal < scope.cell.data_per_zone)
        }
        (_, Some(ordinal)) => {
            has(Role::Master, ordinal) || masters_that_stay(scope) < scope.cell.master_count
        }
        _ => true,
    }
}

/// A pod, or a member.
fn exists(scope: &Scope<'_>, node: &str) -> bool {
    scope.objects.pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(node))
        || scope.elastic.is_some_and(|facts| facts.nodes.contains_key(node))
}

/// All nodes that the spec does not ask for, data nodes first, in the order in which they go.
fn surplus<'a>(scope: &Scope<'a>) -> Vec<Surplus<'a>> {
    let mut found: Vec<Surplus<'a>> = Vec::new();
    for (set, zone) in sets(scope, Role::Data) {
        let keep = if scope.cell.is_active(zone) { scope.cell.data_per_zone } else { 0 };
        found.extend(beyond(scope, set, Role::Data, zone, keep));
    }
    found.sort_by(|a, b| a.zone.cmp(&b.zone));
    found.extend(surplus_master(scope));
    found
}

/// One master, while there are too many: of the zone that has most of them, an elected one last.
fn surplus_master<'a>(scope: &Scope<'a>) -> Option<Surplus<'a>> {
    let masters: Vec<(&StatefulSet, &str)> = sets(scope, Role::Master).collect();
    // One that is on its way out already.
    let going = masters.iter().find_map(|(set, zone)| beyond(scope, set, Role::Master, zone, replicas(set)));
    if going.is_some() {
        return going;
    }
    if masters.iter().map(|(set, _)| replicas(set)).sum::<i32>() <= scope.cell.master_count {
        return None;
    }
    let of_record = |set: &StatefulSet, zone: &str| {
        let next = scope.key.pod(Role::Master, zone, replicas(set) - 1);
        scope.recorded.is_some_and(|recorded| is_drain(recorded) && recorded.nodes.contains(&next))
    };
    let elected = scope.elastic.and_then(|facts| facts.master.as_deref());
    let leads = |set: &StatefulSet, zone: &str| {
        Some(scope.key.pod(Role::Master, zone, replicas(set) - 1).as_str()) == elected
    };
    // While a zone is emptied, the others have none too many.
    let may_go =
        |zone: &str| !scope.cell.is_active(zone) || masters_that_stay(scope) > scope.cell.master_count;
    let (set, zone) = masters
        .into_iter()
        .filter(|(set, zone)| replicas(set) > 0 && may_go(zone))
        .max_by_key(|(set, zone)| {
            let is_retired = !scope.cell.is_active(zone);
            (of_record(set, zone), is_retired, replicas(set), !leads(set, zone), (*zone).to_owned())
        })?;
    beyond(scope, set, Role::Master, zone, replicas(set) - 1)
}

/// Masters that zones have which are not being emptied.
fn masters_that_stay(scope: &Scope<'_>) -> i32 {
    let of_active = sets(scope, Role::Master).filter(|(_, zone)| scope.cell.is_active(zone));
    of_active.map(|(set, _)| replicas(set)).sum()
}

/// StatefulSets of a role, with their zones.
fn sets<'a>(scope: &Scope<'a>, role: Role) -> impl Iterator<Item = (&'a StatefulSet, &'a str)> {
    let uid = scope.cell.uid.as_str();
    let ours = scope.objects.stateful_sets.iter().filter(move |set| is_owned_by(&set.metadata, uid));
    ours.filter_map(move |set| match role_and_zone(&set.metadata) {
        (Some(of), Some(zone)) if of == role.as_str() => Some((set, zone)),
        _ => None,
    })
}

fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Nodes of a StatefulSet from an ordinal on: as it asks for them, or still there.
fn beyond<'a>(
    scope: &Scope<'a>,
    set: &'a StatefulSet,
    role: Role,
    zone: &str,
    keep: i32,
) -> Option<Surplus<'a>> {
    let prefix = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    let there = (scope.objects.pods.iter()).filter_map(|pod| pod.metadata.name.as_deref());
    let members = scope.elastic.into_iter().flat_map(|facts| facts.nodes.keys().map(String::as_str));
    let there = there.chain(members).filter_map(|node| node.strip_prefix(&prefix)?.parse().ok());
    let ordinals: BTreeSet<i32> =
        (keep..replicas(set)).chain(there).filter(|ordinal| *ordinal >= keep).collect();
    if ordinals.is_empty() {
        return None;
    }
    let nodes = ordinals.into_iter().map(|ordinal| scope.key.pod(role, zone, ordinal)).collect();
    Some(Surplus { role, zone: zone.to_owned(), set, keep, nodes })
}

/// What has to hold before nodes begin to go.
fn may_go(scope: &Scope<'_>, of: &Surplus<'_>) -> Result<(), (Reason, String)> {
    let facts = gates::others(scope, &of.nodes)?;
    if of.role == Role::Master {
        return Ok(());
    }
    if facts.settings.contains_key(ALLOCATION_EXCLUDE) && !is_owned(facts, ALLOCATION_EXCLUDE) {
        let message =
            format!("somebody else has set {ALLOCATION_EXCLUDE}: reset it, so that nodes can be emptied");
        return Err((Reason::Draining, message));
    }
    copies_fit(scope, facts)?;
    disks_fit(scope, facts, of)
}

/// Every index has to find as many nodes as it has copies, in each zone that Elasticsearch counts on.
fn copies_fit(scope: &Scope<'_>, facts: &ElasticFacts) -> Result<(), (Reason, String)> {
    let zones = scope.cell.zones.len();
    let per_zone = usize::try_from(scope.cell.data_per_zone).unwrap_or_default();
    let all_zones: BTreeSet<&str> = facts.nodes.values().filter_map(|node| node.zone.as_deref()).collect();
    // Elasticsearch goes by the zones of all nodes, those that are to go included.
    let counted = all_zones.len().max(zones).max(1);
    let has_no_room = |index: &IndexFacts| {
        let copies = usize::try_from(index.replicas.saturating_add(1)).unwrap_or_default();
        let in_zone = copies.div_ceil(counted).min(per_zone);
        index.most_replicas().is_none() && copies > in_zone.saturating_mul(zones)
    };
    let full = facts.indices.iter().filter(|(_, index)| has_no_room(index));
    let full: Vec<String> = full.map(|(name, _)| name.clone()).collect();
    if full.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{zones} zones with {per_zone} data nodes each have no room for all copies of {}: set spec.replicas of their placements \
         lower, or keep the nodes",
        some_of(&full)
    );
    Err((Reason::TooManyCopies, message))
}

/// The nodes that stay in the zone take what the others leave.
fn disks_fit(scope: &Scope<'_>, facts: &ElasticFacts, of: &Surplus<'_>) -> Result<(), (Reason, String)> {
    let unknown = || (Reason::Draining, "it is not known yet how full the nodes are".to_owned());
    let disks = facts.disks.as_ref().ok_or_else(unknown)?;
    let goes = |name: &String| of.nodes.contains(name);
    let moved: i64 = disks.iter().filter(|(name, _)| goes(name)).map(|(_, disk)| disk.shards).sum();
    let takes = |zone: Option<&str>| {
        if of.keep > 0 {
            zone == Some(of.zone.as_str())
        } else {
            zone.is_some_and(|zone| scope.cell.is_active(zone))
        }
    };
    let stay = facts
        .nodes
        .iter()
        .filter(|(name, node)| node.is_data() && !goes(name) && takes(node.zone.as_deref()));
    let watermark = Watermark::low(|name| scope.setting(facts, name));
    let mut room: i64 = 0;
    for (name, _) in stay {
        let disk = disks.get(name).ok_or_else(unknown)?;
        let used = disk.total.saturating_sub(disk.available);
        room = room.saturating_add(watermark.allowed(disk.total).saturating_sub(used).max(0));
    }
    if moved <= room {
        return Ok(());
    }
    let message = format!(
        "the data nodes that stay have no room below the low watermark of their disks for the shards of {}: grow their volumes, \
         or keep the nodes",
        some_of(&of.nodes)
    );
    Err((Reason::NoCapacity, message))
}

/// The setting that goes with an operation.
pub(super) fn wanted_exclusion(operation: Option<&Operation>) -> Option<(String, Value)> {
    let operation = operation.filter(|operation| is_drain(operation))?;
    let is_data = |node: &&String| node.contains("-data-");
    let nodes: Vec<&str> = operation.nodes.iter().filter(is_data).map(String::as_str).collect();
    (!nodes.is_empty()).then(|| (ALLOCATION_EXCLUDE.to_owned(), Value::from(nodes.join(","))))
}

/// Masters that Elasticsearch does not count on, and that do not go any more: their exclusion ends.
pub(super) fn restore_votes(scope: &Scope<'_>, operation: Option<&Operation>, draft: &mut Draft) {
    let Some(facts) = scope.elastic else { return };
    let is_ours = |name: &String| name.starts_with(&format!("{}-{}-", scope.key.name(), Role::Master));
    let goes = |name: &String| operation.is_some_and(|of| is_drain(of) && of.nodes.contains(name));
    if !facts.no_votes.is_empty() && facts.no_votes.iter().all(|name| is_ours(name) && !goes(name)) {
        let why = "no master goes away any more";
        draft.step(&scope.key.cluster, why, Action::ClearVotingExclusions);
    }
}
