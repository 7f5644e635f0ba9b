//! What status says of restarts over the whole cell. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::{ClusterStatus, Reason, RolloutPhase, RolloutReason, RolloutStatus};

use super::cell::lowest_version;
use super::waits_for_a_person;
use crate::build;
use crate::domain::ValidCell;
use crate::names::{ANNOTATION_KEYSTORE, ANNOTATION_RESTARTED_AT, LABEL_ROLE};
use crate::plan::is_restart;
use crate::snapshot::{CellSnapshot, annotation, label};

/// The change that restarts nodes now, or the last one. `behind`: clusters of which not all nodes run what the spec asks for.
pub(super) fn rollout(
    cell: &ValidCell,
    snapshot: &CellSnapshot,
    clusters: &[&ClusterStatus],
    behind: &BTreeSet<&str>,
    previous: Option<RolloutStatus>,
) -> Option<RolloutStatus> {
    if !snapshot.restarts_nodes {
        return previous;
    }
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let total = count(cell.clusters.len());
    let is_done = |name: &str| {
        let restarts = |of: &ClusterStatus| of.operation.as_ref().is_some_and(is_restart);
        let operates = clusters.iter().any(|of| of.name == name && restarts(of));
        !operates && !behind.contains(name)
    };
    let done = count(cell.clusters.iter().filter(|cluster| is_done(&cluster.name)).count());
    if done == total {
        let complete = |before| RolloutStatus {
            phase: RolloutPhase::Complete,
            clusters_done: total,
            clusters_total: total,
            ..before
        };
        return previous.map(complete);
    }
    let id = build::cell_hash(cell);
    // What it began with stays while it is the same one.
    let begun = previous.filter(|previous| previous.id == id && previous.phase != RolloutPhase::Complete);
    let (reason, from) = begun.map_or_else(
        || (reason(cell, snapshot), lowest_version(snapshot).map(|version| version.to_string())),
        |begun| (begun.reason, begun.from_version),
    );
    let is_version = reason == RolloutReason::VersionChange;
    Some(RolloutStatus {
        id,
        phase: phase(cell, clusters, is_done),
        reason,
        from_version: from.filter(|_| is_version),
        to_version: is_version.then(|| cell.version.to_string()),
        clusters_done: done,
        clusters_total: total,
    })
}

fn phase(cell: &ValidCell, clusters: &[&ClusterStatus], is_done: impl Fn(&str) -> bool) -> RolloutPhase {
    let holds = || clusters.iter().flat_map(|of| &of.holds);
    let is_held = |by: Reason| holds().any(|hold| hold.gate == by.as_str());
    let waits_for_a_person =
        || Reason::all().iter().any(|reason| waits_for_a_person(*reason) && is_held(*reason));
    if is_held(Reason::AwaitingApproval) {
        return RolloutPhase::AwaitingApproval;
    }
    if cell.suspend || is_held(Reason::Regressed) || waits_for_a_person() {
        return RolloutPhase::Paused;
    }
    let is_canary = |canary: &String| !is_done(canary) || is_held(Reason::Soaking);
    if cell.canary.as_ref().is_some_and(is_canary) { RolloutPhase::Canary } else { RolloutPhase::Rolling }
}

/// What asks for the restarts: what nodes were made with tells it.
fn reason(cell: &ValidCell, snapshot: &CellSnapshot) -> RolloutReason {
    let of_node = |pod: &&Pod| label(&pod.metadata, LABEL_ROLE).is_some();
    let differs = |name: &str, wanted: Option<&str>| {
        snapshot.objects.pods.iter().filter(of_node).any(|pod| annotation(&pod.metadata, name) != wanted)
    };
    if lowest_version(snapshot).is_some_and(|lowest| lowest != cell.version) {
        return RolloutReason::VersionChange;
    }
    if differs(ANNOTATION_RESTARTED_AT, cell.restarted_at.as_deref()) {
        return RolloutReason::RestartRequested;
    }
    if differs(ANNOTATION_KEYSTORE, cell.keystore.as_ref().and_then(|keystore| keystore.from.as_deref())) {
        return RolloutReason::SecretChange;
    }
    RolloutReason::SpecChange
}
