//! Gives missing indices a place, and creates those whose place is recorded. Pure.

use std::collections::BTreeMap;

use searchcell_crds::{ClusterPhase, Reason, SearchCell};

use super::PlacementSnapshot;
use super::fleet::{being_set_up, fleet};
use super::plan::{hold, step, wanted_replicas};
use super::record::recorded;
use super::solver::{Fleet, Obstacle, Readiness, solve};
use crate::build;
use crate::domain::{ValidIndex, ValidPlacement};
use crate::plan::WAKE_WHILE_BUSY;
use crate::snapshot::Reading;
use crate::status::some_of;
use crate::step::{Action, Hold, Plan};

/// Indices created in one pass over one placement.
const MOST_CREATIONS: usize = 64;

/// Plans for what is missing. An index whose place is recorded is created there, and nowhere else; for the others the
/// solver finds one, which is recorded at the end of this pass and used in a later one. So whoever creates an index
/// has read where it belongs, and of two operators that decide at the same time one fails to record what it decided.
pub(super) fn place(
    placement: &ValidPlacement,
    snapshot: &PlacementSnapshot,
    cell: &SearchCell,
    missing: &[&ValidIndex],
    plan: &mut Plan,
) {
    plan.wake_after = WAKE_WHILE_BUSY;
    if let Some(waiting) = unread(snapshot, cell) {
        plan.holds.push(waiting);
        return;
    }
    let replicas = wanted_replicas(placement, snapshot, cell);
    let fleet = fleet(placement, snapshot, cell, replicas.saturating_add(1));
    let solution = solve(&fleet);
    let record = recorded(snapshot);
    let prefix = format!("{}-", placement.cell);
    let mut obstacles: BTreeMap<String, (Obstacle, Vec<String>)> = BTreeMap::new();
    let mut undecided = BTreeMap::new();
    for index in missing {
        let name = index.name.as_str();
        let to = match (solution.unplaced.get(name), solution.assignment.get(name)) {
            (None, Some(to)) => to.cluster.as_str(),
            (obstacle, _) => {
                let obstacle = obstacle.cloned().unwrap_or_default();
                let known = obstacles.entry(obstacle.to_string()).or_insert((obstacle, Vec::new()));
                known.1.push(name.to_owned());
                continue;
            }
        };
        let is_recorded = record.get(name).and_then(|at| at.cluster.strip_prefix(&prefix)) == Some(to);
        if !is_recorded {
            undecided.insert(name.to_owned(), to.to_owned());
        } else if let Some(why) = why_not_ready(&fleet, placement, to) {
            let message = format!("index {name} belongs to cluster {to}, which cannot take it: {why}");
            plan.holds.push(hold(Some(to), Reason::CellNotReady, message));
        } else if plan.steps.len() < MOST_CREATIONS {
            let body = build::index_body(placement, index, replicas);
            let action = Action::CreateIndex { name: name.to_owned(), body };
            plan.steps.push(step(Some(to), "the placement asks for it, and its place is recorded", action));
        }
    }
    match being_set_up(&fleet).filter(|_| !undecided.is_empty()) {
        None => plan.assign = undecided,
        Some((cluster, why)) => {
            let message = format!(
                "cluster {cluster} cannot take new indices: {why}; without it all would land on the others: wait, or set its \
                 placement to Closed"
            );
            plan.holds.push(hold(Some(cluster), Reason::CellNotReady, message));
        }
    }
    plan.holds.extend(obstacles.into_iter().map(|(text, (obstacle, names))| {
        hold(
            None,
            obstacle.reason(),
            format!("no place for {}: {text}{}", some_of(&names), advice(&obstacle)),
        )
    }));
    plan.holds.sort();
}

fn advice(obstacle: &Obstacle) -> &'static str {
    match obstacle.reason() {
        Reason::NoOpenCluster => ": set the placement of one to Open, or add a cluster",
        Reason::NoCapacity => ": add a cluster or nodes, or raise the limits",
        _ => "",
    }
}

fn why_not_ready<'a>(fleet: &'a Fleet, placement: &ValidPlacement, cluster: &str) -> Option<&'a str> {
    let mut clusters = fleet.clusters.iter();
    let (_, found) = clusters.find(|(id, _)| id.cell == placement.cell && id.cluster == cluster)?;
    match &found.readiness {
        Readiness::Ready => None,
        Readiness::Unreachable(why) | Readiness::Unprepared(why) => Some(why),
    }
}

/// What is not known and has to be. An index that is missing where one looked may be on a cluster that was not read:
/// without it, nothing is decided and nothing is created.
fn unread(snapshot: &PlacementSnapshot, cell: &SearchCell) -> Option<Hold> {
    for cluster in &cell.spec.clusters {
        let waiting = |message: String| Some(hold(Some(&cluster.name), Reason::CellNotReady, message));
        let facts = match snapshot.elastic.get(&cluster.name) {
            Some(Reading::Known(facts)) => facts,
            Some(Reading::Unavailable(why)) => {
                return waiting(format!("cluster {} cannot be read: {why}", cluster.name));
            }
            None => return waiting(format!("cluster {} has not been read yet", cluster.name)),
        };
        let recorded =
            cell.status.iter().flat_map(|status| &status.clusters).find(|status| status.name == cluster.name);
        let is_formed = recorded.is_some_and(|status| {
            status.uuid.is_some()
                && status.uuid == facts.uuid
                && !matches!(status.phase, ClusterPhase::Pending | ClusterPhase::Forming)
        });
        if !is_formed {
            return waiting(format!("cluster {} is still forming", cluster.name));
        }
    }
    // A cluster that left the spec while an index was being created there.
    let record = recorded(snapshot);
    let (name, why) = snapshot.elastic.iter().find_map(|(name, reading)| match reading {
        Reading::Unavailable(why) => {
            let full = format!("{}-{name}", snapshot.placement.spec.cell);
            record.values().any(|at| at.cluster == full && !at.seen).then_some((name, why))
        }
        Reading::Known(_) => None,
    })?;
    let message = format!("cluster {name} has left the cell, may have indices, and cannot be read: {why}");
    Some(hold(Some(name), Reason::CellNotReady, message))
}
