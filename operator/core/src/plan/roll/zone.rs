//! Whether all data nodes of a zone restart together: every shard that they have is started twice elsewhere, and those that stay can
//! carry what they leave. Else they restart one by one, and the reason is told. Pure.

use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::{Reason, RolloutUnit};

use super::nodes::Work;
use super::order::Shut;
use super::{Scope, name};
use crate::names::Role;
use crate::plan::preflight;
use crate::snapshot::{ElasticFacts, ElasticNode, IndexFacts};
use crate::status::some_of;
use crate::watermark::Watermark;

/// Started copies of a shard outside of a zone whose nodes restart together: one more may be lost meanwhile.
const COPIES_ELSEWHERE: usize = 2;
/// Percent of CPU that the nodes that stay may have when they do the work of all.
const MOST_CPU: f64 = 85.0;
/// Percent of heap that a node that stays may use.
const MOST_HEAP: u8 = 85;

/// The pods that restart in the next step, and why it is only one; `Err`: they wait until they may together.
pub(super) fn together<'a>(
    scope: &Scope<'_>,
    work: &Work<'a>,
) -> Result<(Vec<&'a Pod>, Option<String>), Shut> {
    let one = work.pods.iter().copied().take(1).collect();
    if scope.cell.unit == RolloutUnit::Node || work.role != Role::Data || work.pods.len() < 2 {
        return Ok((one, None));
    }
    match (hindrance(scope, &work.pods), scope.cell.unit) {
        (None, _) => {
            let mut pods = work.pods.clone();
            pods.sort_by_key(|pod| name(pod));
            Ok((pods, None))
        }
        (Some(why), RolloutUnit::Zone) => {
            Err((Reason::ZoneNotSpared, format!("spec.rollout.unit is Zone: {why}")))
        }
        (Some(why), _) => Ok((one, Some(format!("one by one: {why}")))),
    }
}

/// Why these nodes of a zone may not be away at the same time.
pub(super) fn hindrance(scope: &Scope<'_>, pods: &[&Pod]) -> Option<String> {
    let facts = scope.elastic?;
    let leaving: Vec<&str> = pods.iter().map(|pod| name(pod)).collect();
    copies(facts, &leaving)
        .or_else(|| masters(scope, facts))
        .or_else(|| leftovers(facts))
        .or_else(|| capacity(scope, facts, &leaving))
}

fn copies(facts: &ElasticFacts, leaving: &[&str]) -> Option<String> {
    let zone_of = |node: &str| facts.nodes.get(node).and_then(|node| node.zone.as_deref());
    let zones: Vec<Option<&str>> = leaving.iter().map(|node| zone_of(node)).collect();
    let is_short = |index: &IndexFacts| {
        let here = index
            .copies
            .iter()
            .filter(|copy| copy.node.as_deref().is_some_and(|node| leaving.contains(&node)));
        here.into_iter().any(|copy| {
            let elsewhere = index.copies.iter().filter(|other| {
                other.shard == copy.shard
                    && other.state.is_started()
                    && other
                        .node
                        .as_deref()
                        .is_some_and(|node| facts.nodes.contains_key(node) && !zones.contains(&zone_of(node)))
            });
            elsewhere.count() < copies_elsewhere(index)
        })
    };
    let short = facts.indices.iter().filter(|(_, index)| is_short(index));
    let short: Vec<String> = short.map(|(name, _)| name.clone()).collect();
    (!short.is_empty()).then(|| {
        format!(
            "shards of {} have fewer than {COPIES_ELSEWHERE} started copies in other zones",
            some_of(&short)
        )
    })
}

/// Elasticsearch itself gives some of its own indices one replica, whatever anybody asks for: of these, one copy elsewhere is all
/// that there can be.
fn copies_elsewhere(index: &IndexFacts) -> usize {
    index.most_replicas().map_or(COPIES_ELSEWHERE, |most| most.clamp(1, COPIES_ELSEWHERE))
}

fn masters(scope: &Scope<'_>, facts: &ElasticFacts) -> Option<String> {
    let masters = facts.nodes.values().filter(|node| node.roles.iter().any(|role| role == "master"));
    let voting = masters.filter(|node| facts.voting.contains(&node.id)).count();
    let is_whole = i32::try_from(voting).is_ok_and(|voting| voting >= scope.cell.master_count);
    (!is_whole).then(|| "not all masters are in the voting configuration".to_owned())
}

/// Somebody else keeps shards off nodes.
fn leftovers(facts: &ElasticFacts) -> Option<String> {
    if let Some(filter) = preflight::filter(facts) {
        return Some(format!("the setting {filter} keeps shards off nodes"));
    }
    let is_foreign = preflight::foreign_shutdowns(facts);
    is_foreign.then(|| "somebody else has announced that nodes go away".to_owned())
}

fn capacity(scope: &Scope<'_>, facts: &ElasticFacts, leaving: &[&str]) -> Option<String> {
    let unknown = || Some("it is not known how busy the nodes are".to_owned());
    let Some(loads) = &facts.loads else { return unknown() };
    let data: Vec<(&String, &ElasticNode)> = facts.nodes.iter().filter(|(_, node)| node.is_data()).collect();
    let staying: Vec<&String> =
        data.iter().map(|(name, _)| *name).filter(|name| !leaving.contains(&name.as_str())).collect();
    if data.iter().any(|(name, _)| !loads.contains_key(*name)) || staying.is_empty() {
        return unknown();
    }
    let all: f64 =
        data.iter().filter_map(|(name, _)| loads.get(*name)).map(|load| f64::from(load.cpu_percent)).sum();
    let count = u32::try_from(staying.len()).map_or(f64::MAX, f64::from);
    if all / count > MOST_CPU {
        return Some(format!("the nodes that stay would need more than {MOST_CPU:.0} % of their CPU"));
    }
    let watermark = Watermark::low(|name| scope.setting(facts, name));
    let busy = |name: &&&String| loads.get(**name).is_none_or(|load| load.heap_percent > MOST_HEAP);
    if let Some(name) = staying.iter().find(busy) {
        return Some(format!("{name} uses more than {MOST_HEAP} % of its heap"));
    }
    let is_full = |name: &&&String| {
        let disk = facts.disks.as_ref().and_then(|disks| disks.get(**name));
        disk.is_none_or(|disk| disk.total.saturating_sub(disk.available) > watermark.allowed(disk.total))
    };
    staying
        .iter()
        .find(is_full)
        .map(|name| format!("the disk of {name} is fuller than Elasticsearch's low watermark"))
}
