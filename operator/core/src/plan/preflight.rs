//! What is looked at before the first node of a cluster changes its version, since there is no way back afterwards: leftovers of
//! other work, disks, snapshots, and what Elasticsearch itself says against the next major version. A user may answer for each by
//! name. What is not known holds, and so does what this build of Elasticsearch cannot be asked. Pure.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSet;
use searchcell_crds::{Reason, Waiver};

use super::drain::is_drain;
use super::roll::{ALLOCATION_ENABLE, PRIMARIES, Scope};
use super::settings::setting_text;
use crate::domain::EsVersion;
use crate::snapshot::{Asked, ElasticFacts, Shutdowns};
use crate::status::some_of;
use crate::step::{Absence, Hold};
use crate::watermark::Watermark;

/// How old the newest successful snapshot of an index may be.
const SNAPSHOT_MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// What is kept on or off nodes by settings of the cluster: kinds of filters below this prefix.
const ALLOCATION: &str = "cluster.routing.allocation.";
const FILTERS: [&str; 3] = ["exclude.", "include.", "require."];

/// The first thing that speaks against another version. `highest`: that any node has joined with.
pub(super) fn hindrance(scope: &Scope<'_>, highest: Option<EsVersion>) -> Option<Hold> {
    let (version, waived) = (scope.cell.version, &scope.cell.waived);
    let highest = highest.filter(|highest| *highest != version && !has_begun(scope))?;
    let checks: [(Waiver, Reason, Check); 4] = [
        (Waiver::NoLeftovers, Reason::NoLeftovers, leftovers),
        (Waiver::DiskFree, Reason::DiskFree, disks),
        (Waiver::RecentSnapshot, Reason::RecentSnapshot, snapshots),
        (Waiver::DeprecationsResolved, Reason::DeprecationsResolved, deprecations),
    ];
    // Deprecations are what the next major version does not have any more.
    let matters = |waiver: &Waiver| *waiver != Waiver::DeprecationsResolved || highest.major < version.major;
    let mut left =
        checks.into_iter().filter(|(waiver, ..)| matters(waiver) && !waived.contains(waiver)).peekable();
    left.peek()?;
    let (reason, message) = match scope.elastic {
        Some(facts) => left.find_map(|(_, reason, check)| Some((reason, check(scope, facts)?)))?,
        // Not even a node that runs nothing may start with it: there would be no way back for it.
        None => (
            Reason::Unreachable,
            format!("the cluster cannot be read: nobody knows what speaks against {version}"),
        ),
    };
    Some(Hold { cluster: Some(scope.key.cluster.clone()), reason, message })
}

type Check = fn(&Scope<'_>, &ElasticFacts) -> Option<String>;

/// Whether nodes have different versions, or the template of some has the new one already: what has begun comes to its end.
fn has_begun(scope: &Scope<'_>) -> bool {
    let nodes = scope.elastic.into_iter().flat_map(|facts| facts.nodes.values());
    let versions: BTreeSet<&str> = nodes.map(|node| node.version.as_str()).collect();
    let has_image = |set: &StatefulSet| {
        let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let mut containers = pod.into_iter().flat_map(|pod| &pod.containers);
        containers.any(|container| container.image.as_ref() == Some(&scope.cell.image))
    };
    versions.len() > 1 || scope.objects.stateful_sets.iter().any(has_image)
}

fn leftovers(scope: &Scope<'_>, facts: &ElasticFacts) -> Option<String> {
    if scope.recorded.is_some_and(is_drain) {
        // Its exclusions are the operator's own, and restarts wait for it anyway.
        return None;
    }
    if let Some(filter) = filter(facts) {
        return Some(format!("the setting {filter} keeps shards off nodes: reset it"));
    }
    let enabled = facts.settings.get(ALLOCATION_ENABLE).map(setting_text);
    if let Some(value) = enabled.filter(|value| !["all", PRIMARIES].contains(&value.as_str())) {
        return Some(format!(
            "the setting {ALLOCATION_ENABLE} is {value}, so that copies would not come back: reset it"
        ));
    }
    if !facts.no_votes.is_empty() {
        let nodes: Vec<String> = facts.no_votes.iter().cloned().collect();
        let undo = "DELETE _cluster/voting_config_exclusions takes that back";
        return Some(format!("masters are kept from voting: {}; {undo}", some_of(&nodes)));
    }
    foreign_shutdowns(facts).then(|| {
        "somebody else has announced that nodes go away: GET _nodes/shutdown says which; take that back"
            .to_owned()
    })
}

/// A setting of the cluster that keeps shards off nodes.
pub(super) fn filter(facts: &ElasticFacts) -> Option<&str> {
    let is_filter = |name: &&String| {
        let rest = name.strip_prefix(ALLOCATION);
        rest.is_some_and(|rest| FILTERS.iter().any(|kind| rest.starts_with(kind)))
    };
    facts.settings.keys().find(is_filter).map(String::as_str)
}

/// Whether somebody else has announced that nodes go away.
pub(super) fn foreign_shutdowns(facts: &ElasticFacts) -> bool {
    let Shutdowns::Known(records) = &facts.shutdowns else { return false };
    records.values().any(|record| !Absence::is_own(&record.reason))
}

fn disks(scope: &Scope<'_>, facts: &ElasticFacts) -> Option<String> {
    let watermark = Watermark::low(|name| scope.setting(facts, name));
    let data = || facts.nodes.iter().filter(|(_, node)| node.is_data()).map(|(name, _)| name);
    let disk = |name: &String| facts.disks.as_ref().and_then(|disks| disks.get(name));
    if data().any(|name| disk(name).is_none()) {
        return Some("it is not known yet how full the disks of data nodes are".to_owned());
    }
    let is_full = |name: &&String| {
        disk(name)
            .is_some_and(|disk| disk.total.saturating_sub(disk.available) > watermark.allowed(disk.total))
    };
    let full: Vec<String> = data().filter(is_full).cloned().collect();
    (!full.is_empty()).then(|| {
        format!(
            "disks are fuller than Elasticsearch's low watermark: {}; give them room first",
            some_of(&full)
        )
    })
}

fn snapshots(scope: &Scope<'_>, facts: &ElasticFacts) -> Option<String> {
    // What begins with a dot is Elasticsearch's own.
    let mut indices = facts.indices.keys().filter(|name| !name.starts_with('.')).peekable();
    indices.peek()?;
    let snapshots = match &facts.preflight.snapshots {
        Asked::Known(snapshots) => snapshots,
        Asked::Unknown => return Some("it is not known yet which snapshots there are".to_owned()),
        Asked::NotAvailable => {
            return Some(format!(
                "this build of Elasticsearch has no snapshots: {}",
                waive("RecentSnapshot")
            ));
        }
    };
    let is_recent =
        |name: &str| snapshots.get(name).is_some_and(|at| scope.now.duration_since(*at) <= SNAPSHOT_MAX_AGE);
    let without: Vec<String> = indices.filter(|name| !is_recent(name)).cloned().collect();
    (!without.is_empty()).then(|| {
        format!(
            "no successful snapshot of the last 24 hours has {}: take one, for there is no way back, or {}",
            some_of(&without),
            waive("RecentSnapshot")
        )
    })
}

fn deprecations(_: &Scope<'_>, facts: &ElasticFacts) -> Option<String> {
    match &facts.preflight.deprecations {
        Asked::Known(critical) if critical.is_empty() => None,
        Asked::Known(critical) => Some(format!(
            "Elasticsearch calls critical for the next major version: {}; GET _migration/deprecations has all of it",
            some_of(critical)
        )),
        Asked::Unknown => {
            Some("it is not known yet what Elasticsearch says against the next major version".to_owned())
        }
        Asked::NotAvailable => Some(format!(
            "this build of Elasticsearch cannot be asked what speaks against the next major version (it has no \
             _migration/deprecations): see its release notes, then {}",
            waive("DeprecationsResolved")
        )),
    }
}

fn waive(name: &str) -> String {
    format!("add {name} to spec.rollout.waive")
}
