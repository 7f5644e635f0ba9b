//! Which changes between two passes are worth an event. At rest there are none. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use searchcell_core::step::{Action, Outcome, Plan};
use searchcell_crds::conditions::{DEGRADED, READY, SHARD_PRESSURE, STALLED, find, is_true};
use searchcell_crds::{ClusterPhase, ClusterStatus};

use crate::engine::{CellPass, PlacementPass};

/// Longest text of an event, in bytes.
const MAX_TEXT: usize = 1024;

/// An event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Something is not as it ought to be.
    pub warning: bool,
    /// CamelCase.
    pub reason: String,
    /// CamelCase: what the operator did or saw.
    pub action: &'static str,
    /// For a person.
    pub text: String,
}

/// A note whose text is not too long for an event.
pub(crate) fn note(warning: bool, reason: &str, action: &'static str, text: impl Into<String>) -> Note {
    let mut text = text.into();
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    Note { warning, reason: reason.to_owned(), action, text }
}

/// Events of a pass over a cell.
pub fn of_cell(pass: &CellPass<'_>) -> Vec<Note> {
    let mut notes = of_steps(pass.plan, pass.outcomes);
    let before = pass.snapshot.cell.status.as_ref();
    for cluster in &pass.status.clusters {
        let old = before.and_then(|status| status.clusters.iter().find(|old| old.name == cluster.name));
        notes.extend(of_cluster(old, cluster));
    }
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    notes.extend(of_conditions(before, &pass.status.conditions));
    notes
}

/// Events of a pass over a placement.
pub fn of_placement(pass: &PlacementPass<'_>) -> Vec<Note> {
    let mut notes = of_steps(pass.plan, pass.outcomes);
    let before = pass.snapshot.placement.status.as_ref();
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    notes.extend(of_conditions(before, &pass.status.conditions));
    notes
}

/// Steps that are milestones. Others are told by metrics and the log.
fn of_steps(plan: &Plan, outcomes: &[Outcome]) -> Vec<Note> {
    let done = plan.steps.iter().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Done));
    done.filter_map(|(step, _)| {
        let reason = match &step.action {
            Action::Bootstrap(_) => "Bootstrapping",
            Action::Scale { .. } => "Scaled",
            Action::RestartNode { .. } => "NodeRestarted",
            Action::RemoveWorkload { .. } => "WorkloadRemoved",
            Action::RemoveVolume { .. } => "VolumeDeleted",
            Action::PutMapping { .. } => "MappingsChanged",
            Action::PutIndexSettings { .. } => "IndexSettingsChanged",
            Action::DeleteIndex { .. } => "IndexDeleted",
            _ => return None,
        };
        Some(note(false, reason, step.action.name(), step.why.clone()))
    })
    .collect()
}

fn of_cluster(old: Option<&ClusterStatus>, now: &ClusterStatus) -> Option<Note> {
    let name = &now.name;
    if old.is_none_or(|old| old.uuid.is_none())
        && let Some(uuid) = &now.uuid
    {
        return Some(note(false, "ClusterFormed", "Observe", format!("cluster {name} has formed: {uuid}")));
    }
    // Before it was there, a cluster could not be lost.
    let old = old.filter(|old| old.uuid.is_some())?;
    if old.phase == now.phase {
        return None;
    }
    let well = |phase| matches!(phase, ClusterPhase::Ready | ClusterPhase::Rolling | ClusterPhase::Scaling);
    match now.phase {
        ClusterPhase::Unavailable => {
            Some(note(true, "ClusterUnavailable", "Observe", format!("cluster {name} does not serve")))
        }
        ClusterPhase::Degraded => Some(note(
            true,
            "ClusterDegraded",
            "Observe",
            format!("cluster {name} serves with less redundancy"),
        )),
        phase if well(phase) && !well(old.phase) => {
            Some(note(false, "ClusterRecovered", "Observe", format!("cluster {name} serves as asked for")))
        }
        _ => None,
    }
}

fn of_conditions(before: &[Condition], now: &[Condition]) -> Vec<Note> {
    let mut notes = Vec::new();
    let stalled = |conditions| find(conditions, STALLED).filter(|stalled| stalled.status == "True");
    // Another problem of the same kind is news, too: somebody tried to mend the first one.
    let says = |stalled: &Condition| (stalled.reason.clone(), stalled.message.clone());
    if let Some(stalled) = stalled(now).filter(|now| stalled(before).map(says) != Some(says(now))) {
        notes.push(note(true, &stalled.reason, "Validate", stalled.message.clone()));
    }
    if is_true(now, READY) != is_true(before, READY)
        && let Some(ready) = find(now, READY)
        && !before.is_empty()
    {
        let lost = !is_true(now, READY);
        let reason = if lost { ready.reason.as_str() } else { "Ready" };
        notes.push(note(lost, reason, "Observe", ready.message.clone()));
    }
    if is_true(now, DEGRADED)
        && !is_true(before, DEGRADED)
        && let Some(degraded) = find(now, DEGRADED)
    {
        notes.push(note(true, &degraded.reason, "Observe", degraded.message.clone()));
    }
    // Past another limit is news.
    if let Some(pressure) = find(now, SHARD_PRESSURE)
        && find(before, SHARD_PRESSURE).is_none_or(|before| before.reason != pressure.reason)
    {
        notes.push(note(true, &pressure.reason, "Measure", pressure.message.clone()));
    }
    notes
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use searchcell_crds::conditions::condition;
    use searchcell_crds::{ConditionStatus, Reason};

    use super::*;

    fn cluster(phase: ClusterPhase, uuid: Option<&str>) -> ClusterStatus {
        ClusterStatus { name: "a".into(), phase, uuid: uuid.map(str::to_owned), ..Default::default() }
    }

    fn reason(note: Option<Note>) -> Option<String> {
        note.map(|note| note.reason)
    }

    #[test]
    fn a_cluster_forms_is_lost_and_comes_back_and_is_quiet_at_rest() {
        let (forming, ready) =
            (cluster(ClusterPhase::Forming, None), cluster(ClusterPhase::Ready, Some("u")));
        let lost = cluster(ClusterPhase::Unavailable, Some("u"));
        assert_eq!(reason(of_cluster(None, &forming)), None);
        assert_eq!(reason(of_cluster(Some(&forming), &ready)).unwrap(), "ClusterFormed");
        assert_eq!(reason(of_cluster(Some(&ready), &ready)), None);
        assert_eq!(reason(of_cluster(Some(&ready), &lost)).unwrap(), "ClusterUnavailable");
        assert_eq!(reason(of_cluster(Some(&lost), &ready)).unwrap(), "ClusterRecovered");
        let rolling = cluster(ClusterPhase::Rolling, Some("u"));
        assert_eq!(reason(of_cluster(Some(&ready), &rolling)), None);
    }

    #[test]
    fn conditions_are_told_when_they_turn() {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let make = |type_, status, reason| condition(type_, status, reason, "why", Some(1), &now);
        let not_ready = [make(READY, ConditionStatus::False, Reason::Forming)];
        let ready = [make(READY, ConditionStatus::True, Reason::Serving)];
        let stalled = [
            make(READY, ConditionStatus::True, Reason::Serving),
            make(STALLED, ConditionStatus::True, Reason::InvalidSpec),
        ];
        let reasons = |before: &[Condition], now: &[Condition]| {
            of_conditions(before, now).into_iter().map(|note| note.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(&[], &not_ready), Vec::<String>::new());
        assert_eq!(reasons(&not_ready, &ready), ["Ready"]);
        assert_eq!(reasons(&ready, &ready), Vec::<String>::new());
        assert_eq!(reasons(&ready, &stalled), ["InvalidSpec"]);
        assert_eq!(reasons(&stalled, &stalled), Vec::<String>::new());
        let large = [make(SHARD_PRESSURE, ConditionStatus::True, Reason::ShardLarge)];
        let larger = [make(SHARD_PRESSURE, ConditionStatus::True, Reason::ShardVeryLarge)];
        assert_eq!(reasons(&[], &large), ["ShardLarge"]);
        assert_eq!(reasons(&large, &large), Vec::<String>::new());
        assert_eq!(reasons(&large, &larger), ["ShardVeryLarge"]);
        let mut other = stalled.clone();
        other[1].message = "another problem".to_owned();
        assert_eq!(reasons(&stalled, &other), ["InvalidSpec"]);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(note(false, "R", "A", "ä".repeat(2000)).text.len(), MAX_TEXT);
    }
}
