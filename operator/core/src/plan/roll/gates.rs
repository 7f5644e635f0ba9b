//! What has to hold before a node restarts. An unavailable reading satisfies no gate. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::{Reason, Waiver};

use super::Scope;
use super::order::Shut;
use crate::domain::EsVersion;
use crate::names::{LABEL_ROLE, Role};
use crate::security::gate::disruption_may_start;
use crate::snapshot::{
    CellObjects, ElasticFacts, ElasticNode, IndexFacts, ShardCopy, ShardState, is_ready, label,
};
use crate::status::some_of;
use crate::step::Hold;

/// Who belongs to a cluster, and what it says of itself.
pub(super) struct Members<'a> {
    pub(super) objects: &'a CellObjects,
    pub(super) elastic: Option<&'a ElasticFacts>,
}

fn shut<T>(reason: Reason, message: impl Into<String>) -> Result<T, Shut> {
    Err((reason, message.into()))
}

/// What has to hold of the cluster.
pub(super) fn cluster(scope: &Scope<'_>) -> Result<(), Hold> {
    disruption_may_start(scope.key, &scope.objects.secrets)?;
    let members = Members { objects: scope.objects, elastic: scope.elastic };
    let is_settled = || {
        let facts = known(&members)?;
        all_joined(&members, facts, &[])?;
        shards_settled(facts)
    };
    is_settled().map_err(|shut| scope.hold(shut))
}

/// What has to hold of the cluster but for nodes that are to go.
pub(in crate::plan) fn others<'a>(scope: &Scope<'a>, leaving: &[String]) -> Result<&'a ElasticFacts, Shut> {
    disruption_may_start(scope.key, &scope.objects.secrets).map_err(|hold| (hold.reason, hold.message))?;
    let members = Members { objects: scope.objects, elastic: scope.elastic };
    let facts = known(&members)?;
    all_joined(&members, facts, leaving)?;
    serves_all(facts)?;
    Ok(facts)
}

/// Every copy that was started somewhere is, and stays where it is.
pub(in crate::plan) fn serves_all(facts: &ElasticFacts) -> Result<(), Shut> {
    shards_settled(facts)?;
    primaries_started(facts)
}

/// What is wrong with a cluster: it does not serve all that it has, or not with all nodes.
pub(super) fn trouble(members: &Members<'_>) -> Option<String> {
    let is_well = || {
        let facts = known(members)?;
        all_joined(members, facts, &[])?;
        primaries_started(facts)
    };
    is_well().err().map(|(_, message)| message)
}

fn known<'a>(members: &Members<'a>) -> Result<&'a ElasticFacts, Shut> {
    let Some(facts) = members.elastic else {
        return shut(Reason::Unreachable, "the cluster cannot be read: no node is taken away");
    };
    if facts.master.is_none() {
        return shut(Reason::NoMaster, "there is no elected master: no node is taken away");
    }
    Ok(facts)
}

/// Everybody who ought to be there is ready, and a member.
fn all_joined(members: &Members<'_>, facts: &ElasticFacts, but: &[String]) -> Result<(), Shut> {
    let pods = &members.objects.pods;
    let is_there = |name: &str| {
        let is_ready = |pod: &Pod| pod.metadata.name.as_deref() == Some(name) && is_ready(pod);
        facts.nodes.contains_key(name) && pods.iter().any(is_ready)
    };
    let mut missing: Vec<String> = Vec::new();
    for set in &members.objects.stateful_sets {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        missing.extend((0..replicas).map(|n| format!("{name}-{n}")).filter(|name| !is_there(name)));
    }
    for deployment in &members.objects.deployments {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let of_role = |pod: &&Pod| label(&pod.metadata, LABEL_ROLE) == Some(Role::Ingest.as_str());
        let joined = pods.iter().filter(of_role).filter_map(|pod| pod.metadata.name.as_deref());
        if i32::try_from(joined.filter(|name| is_there(name)).count()).is_ok_and(|there| there < wanted) {
            missing.push(format!("nodes of {}", deployment.metadata.name.as_deref().unwrap_or_default()));
        }
    }
    missing.retain(|name| !but.contains(name));
    missing.sort();
    if missing.is_empty() {
        return Ok(());
    }
    let names = some_of(&missing);
    shut(Reason::NodesMissing, format!("waiting until all nodes are ready, and members: {names}"))
}

/// Nothing is being made or moved, and what a restart took is back. Copies that never were anywhere are waited for by nobody.
fn shards_settled(facts: &ElasticFacts) -> Result<(), Shut> {
    let moves = |index: &IndexFacts, copy: &ShardCopy| match copy.state {
        ShardState::Initializing | ShardState::Relocating => true,
        ShardState::Unassigned => copy.new_since.is_none() && !is_too_new(facts, index, copy),
        ShardState::Started => false,
    };
    let moving = |index: &IndexFacts| index.copies.iter().any(|copy| moves(index, copy));
    let moving = facts.indices.iter().filter(|(_, index)| moving(index));
    let moving: Vec<String> = moving.map(|(name, _)| name.clone()).collect();
    if moving.is_empty() {
        return Ok(());
    }
    shut(Reason::ShardsSettled, format!("copies of shards are being made or moved: {}", some_of(&moving)))
}

/// A replica that waits for nodes of a newer version: while versions differ, none may have one whose primary is on a newer
/// node, and the newer ones have a copy, or are in zones that have as many as they may.
fn is_too_new(facts: &ElasticFacts, index: &IndexFacts, copy: &ShardCopy) -> bool {
    let version = |node: &ElasticNode| node.version.parse::<EsVersion>().ok();
    let data = || facts.nodes.iter().filter(|(_, node)| node.is_data());
    let of_shard = || index.copies.iter().filter(|other| other.shard == copy.shard);
    let primary = of_shard().find(|other| other.primary && other.state.is_started());
    let primary = primary.and_then(|primary| facts.nodes.get(primary.node.as_deref()?)).and_then(version);
    let (Some(primary), false) = (primary, copy.primary) else { return false };
    if data().filter_map(|(_, node)| version(node)).all(|version| version >= primary) {
        return false;
    }
    let zones: BTreeSet<&str> = data().filter_map(|(_, node)| node.zone.as_deref()).collect();
    let most = of_shard().count().div_ceil(zones.len().max(1));
    let holds = |name: &str| of_shard().any(|other| other.node.as_deref() == Some(name));
    let is_full = |zone: Option<&str>| {
        data().filter(|(name, node)| node.zone.as_deref() == zone && holds(name)).count() >= most
    };
    let takes = |(name, node): (&String, &ElasticNode)| {
        version(node).is_some_and(|version| version >= primary)
            && !holds(name)
            && !is_full(node.zone.as_deref())
    };
    !data().any(takes)
}

fn primaries_started(facts: &ElasticFacts) -> Result<(), Shut> {
    let is_red = |copy: &ShardCopy| copy.primary && !copy.state.is_started() && copy.new_since.is_none();
    let red = facts.indices.iter().filter(|(_, index)| index.copies.iter().any(is_red));
    let red: Vec<String> = red.map(|(name, _)| name.clone()).collect();
    if red.is_empty() {
        return Ok(());
    }
    shut(Reason::PrimariesUnassigned, format!("shards have no started primary: {}", some_of(&red)))
}

/// What has to hold of the nodes that restart: each of their shards has another started copy elsewhere. Where the spec asks
/// for one data node alone, there is no other: it restarts, and is away meanwhile.
pub(super) fn nodes(scope: &Scope<'_>, pods: &[&Pod]) -> Result<(), Hold> {
    if scope.cell.zones.len() == 1 && scope.cell.data_per_zone == 1 {
        return Ok(());
    }
    let members = Members { objects: scope.objects, elastic: scope.elastic };
    let facts = known(&members).map_err(|shut| scope.hold(shut))?;
    let names: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    let mut alone: Vec<String> = Vec::new();
    for (index, held) in facts.indices.iter() {
        let is_here = |copy: &&ShardCopy| {
            copy.node.as_deref().is_some_and(|node| names.contains(&node)) && copy.state.is_started()
        };
        let elsewhere = |shard: i32| {
            held.copies.iter().any(|copy| {
                let node = copy.node.as_deref();
                copy.shard == shard
                    && copy.state.is_started()
                    && node.is_some_and(|node| !names.contains(&node) && facts.nodes.contains_key(node))
            })
        };
        // Of one without replicas there is nothing to wait for, and its user may know that.
        let is_waived = held.replicas == 0 && scope.cell.waived.contains(&Waiver::CopiesElsewhere);
        if !is_waived && held.copies.iter().filter(is_here).any(|copy| !elsewhere(copy.shard)) {
            alone.push(index.clone());
        }
    }
    if alone.is_empty() {
        return Ok(());
    }
    let (which, name) = (some_of(&alone), names.join(", "));
    let message = format!(
        "{name} has the only started copy of shards of {which}: set spec.replicas, or wait for their copies"
    );
    Err(scope.hold((Reason::CopiesElsewhere, message)))
}
