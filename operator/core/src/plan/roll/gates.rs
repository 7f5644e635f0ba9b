//! What has to hold before a node restarts. An unavailable reading satisfies no gate. Pure.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::Reason;

use super::Scope;
use crate::names::{LABEL_ROLE, Role};
use crate::security::gate::disruption_may_start;
use crate::snapshot::{ElasticFacts, ShardCopy, ShardState, is_ready, label};
use crate::status::some_of;
use crate::step::Hold;

fn shut<T>(scope: &Scope<'_>, reason: Reason, message: impl Into<String>) -> Result<T, Hold> {
    Err(Hold { cluster: Some(scope.key.cluster.clone()), reason, message: message.into() })
}

/// What has to hold of the cluster.
pub(super) fn cluster(scope: &Scope<'_>) -> Result<(), Hold> {
    if let Some(other) = scope.before {
        return shut(scope, Reason::AnotherCluster, format!("nodes of cluster {other} restart first"));
    }
    disruption_may_start(scope.key, &scope.objects.secrets)?;
    let facts = known(scope)?;
    all_joined(scope, facts)?;
    shards_settled(scope, facts)?;
    soaked(scope)
}

fn known<'a>(scope: &Scope<'a>) -> Result<&'a ElasticFacts, Hold> {
    let Some(facts) = scope.elastic else {
        return shut(scope, Reason::Unreachable, "nodes restart only while the cluster can be read");
    };
    if facts.master.is_none() {
        return shut(scope, Reason::NoMaster, "nodes restart only while there is an elected master");
    }
    Ok(facts)
}

/// Everybody who ought to be there is ready, and a member.
fn all_joined(scope: &Scope<'_>, facts: &ElasticFacts) -> Result<(), Hold> {
    let is_there = |name: &str| {
        let is_ready = |pod: &Pod| pod.metadata.name.as_deref() == Some(name) && is_ready(pod);
        facts.nodes.contains_key(name) && scope.objects.pods.iter().any(is_ready)
    };
    let mut missing: Vec<String> = Vec::new();
    for set in &scope.objects.stateful_sets {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        missing.extend((0..replicas).map(|n| format!("{name}-{n}")).filter(|name| !is_there(name)));
    }
    for deployment in &scope.objects.deployments {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let of_role = |pod: &&Pod| label(&pod.metadata, LABEL_ROLE) == Some(Role::Ingest.as_str());
        let joined = scope.objects.pods.iter().filter(of_role).filter_map(|pod| pod.metadata.name.as_deref());
        if i32::try_from(joined.filter(|name| is_there(name)).count()).is_ok_and(|there| there < wanted) {
            missing.push(format!("nodes of {}", deployment.metadata.name.as_deref().unwrap_or_default()));
        }
    }
    missing.sort();
    if missing.is_empty() {
        return Ok(());
    }
    let names = some_of(&missing);
    shut(
        scope,
        Reason::NodesMissing,
        format!("a node restarts only while all others are members: waiting for {names}"),
    )
}

/// Nothing is being made or moved, and what a restart took is back. Copies that never were anywhere are waited for by nobody.
fn shards_settled(scope: &Scope<'_>, facts: &ElasticFacts) -> Result<(), Hold> {
    let moves = |copy: &ShardCopy| match copy.state {
        ShardState::Initializing | ShardState::Relocating => true,
        ShardState::Unassigned => copy.new_since.is_none(),
        ShardState::Started => false,
    };
    let moving = facts.indices.iter().filter(|(_, index)| index.copies.iter().any(moves));
    let moving: Vec<String> = moving.map(|(name, _)| name.clone()).collect();
    if moving.is_empty() {
        return Ok(());
    }
    shut(
        scope,
        Reason::ShardsSettled,
        format!("copies of shards are being made or moved: {}", some_of(&moving)),
    )
}

/// Everything has been as it is for the time that the spec asks for.
fn soaked(scope: &Scope<'_>) -> Result<(), Hold> {
    let since = scope.objects.pods.iter().filter_map(ready_since).max();
    let soak = SignedDuration::try_from(scope.cell.soak).unwrap_or(SignedDuration::MAX);
    let settled = since.is_none_or(|since| scope.now.duration_since(since) >= soak);
    if settled {
        return Ok(());
    }
    shut(
        scope,
        Reason::Soaking,
        "the cluster stays settled for spec.rollout.soak before the next node restarts",
    )
}

fn ready_since(pod: &Pod) -> Option<jiff::Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready =
        conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// What has to hold of the node: each of its shards has another started copy.
pub(super) fn node(scope: &Scope<'_>, pod: &Pod) -> Result<(), Hold> {
    let facts = known(scope)?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut alone: Vec<String> = Vec::new();
    for (index, held) in facts.indices.iter() {
        let is_here = |copy: &&ShardCopy| copy.node.as_deref() == Some(name) && copy.state.is_started();
        let elsewhere = |shard: i32| {
            held.copies.iter().any(|copy| {
                let node = copy.node.as_deref();
                copy.shard == shard
                    && copy.state.is_started()
                    && node.is_some_and(|node| node != name && facts.nodes.contains_key(node))
            })
        };
        if held.copies.iter().filter(is_here).any(|copy| !elsewhere(copy.shard)) {
            alone.push(index.clone());
        }
    }
    if alone.is_empty() {
        return Ok(());
    }
    let which = some_of(&alone);
    shut(
        scope,
        Reason::CopiesElsewhere,
        format!(
            "{name} has the only started copy of shards of {which}: set spec.replicas, or wait for their copies"
        ),
    )
}
