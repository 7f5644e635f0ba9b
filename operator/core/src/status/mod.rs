//! What is said about an object: the only place where conditions are decided. Pure.
//!
//! `cell` writes the status of a SearchCell; that of an IndexPlacement lies beside its plan and uses the same
//! pieces. A status that differs in nothing but transition times is not published.

mod cell;
mod rollout;
mod trouble;
mod wanted;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use searchcell_crds::conditions::{self, RECONCILING, STALLED, condition};
use searchcell_crds::{ConditionStatus, IndexPlacementStatus, Reason, SearchCellStatus};

pub use cell::cell_status;

use crate::step::{Hold, Outcome, Plan};
use crate::validate::Problem;

/// True when publishing `new` over `old` would change nothing but transition times.
pub fn same_cell_status(old: Option<&SearchCellStatus>, new: &SearchCellStatus) -> bool {
    old.is_some_and(|old| {
        conditions::same(&old.conditions, &new.conditions)
            && SearchCellStatus { conditions: Vec::new(), ..old.clone() }
                == SearchCellStatus { conditions: Vec::new(), ..new.clone() }
    })
}

/// True when publishing `new` over `old` would change nothing but transition times.
pub fn same_placement_status(old: Option<&IndexPlacementStatus>, new: &IndexPlacementStatus) -> bool {
    old.is_some_and(|old| {
        conditions::same(&old.conditions, &new.conditions)
            && IndexPlacementStatus { conditions: Vec::new(), ..old.clone() }
                == IndexPlacementStatus { conditions: Vec::new(), ..new.clone() }
    })
}

/// True when nothing moves on before a person does something; else it waits for the cluster.
pub fn waits_for_a_person(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InvalidSpec
            | Reason::NotSupportedYet
            | Reason::NeedsMigration
            | Reason::UnsupportedVersion
            | Reason::ForwardOnly
            | Reason::IndexTooOld
            | Reason::ReservedSetting
            | Reason::ReservedPodField
            | Reason::NotEmpty
            | Reason::NameConflict
            | Reason::PoolConflict
            | Reason::TenantConflict
            | Reason::CollectionMismatch
            | Reason::TooManyCopies
            | Reason::UnevenCopies
            | Reason::ShardTooLarge
            | Reason::TableTooLarge
            | Reason::ForeignIndex
            | Reason::ForeignVolume
            | Reason::IndexMissing
            | Reason::StorageClassFixed
            | Reason::NoOpenCluster
            | Reason::NoCapacity
            | Reason::InvalidCertificate
            | Reason::InvalidSecret
            | Reason::InvalidSecureSettings
            | Reason::KeystoreRefused
            | Reason::CellNotFound
    )
}

/// Builds the conditions of one object in one pass.
pub(crate) struct Conditions {
    generation: Option<i64>,
    now: Time,
    built: Vec<Condition>,
}

impl Conditions {
    pub(crate) fn new(generation: Option<i64>, now: Timestamp) -> Self {
        Self { generation, now: Time(now), built: Vec::new() }
    }

    pub(crate) fn set(&mut self, type_: &str, status: bool, reason: Reason, message: impl Into<String>) {
        let status = ConditionStatus::from(status);
        self.built.push(condition(type_, status, reason, message, self.generation, &self.now));
    }

    pub(crate) fn finish(self, previous: &[Condition]) -> Vec<Condition> {
        conditions::merge(previous, self.built)
    }

    /// `Stalled` from what waits for a person, `Reconciling` from everything else that is not at rest. `under_way`
    /// is what is happening by itself, if anything is.
    pub(crate) fn progress(
        &mut self,
        problems: &[Problem],
        plan: &Plan,
        outcomes: &[Outcome],
        under_way: Option<(Reason, String)>,
    ) {
        let (stalled, waiting): (Vec<&Hold>, Vec<&Hold>) =
            plan.holds.iter().partition(|hold| waits_for_a_person(hold.reason));
        let failed: Vec<(Reason, &str)> = (outcomes.iter())
            .filter_map(|outcome| match outcome {
                Outcome::Failed { reason, message } => Some((*reason, message.as_str())),
                Outcome::Done | Outcome::Skipped => None,
            })
            .collect();
        let (refused, failing): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|(reason, _)| waits_for_a_person(*reason));

        if let Some(first) = problems.first() {
            self.set(STALLED, true, headline(first.reason, problems), problem_list(problems));
        } else if !stalled.is_empty() || !refused.is_empty() {
            let first =
                stalled.first().map(|hold| hold.reason).or(refused.first().map(|(reason, _)| *reason));
            let texts = stalled
                .iter()
                .map(|hold| text_of(hold))
                .chain(refused.iter().map(|(_, text)| (*text).to_owned()));
            self.set(STALLED, true, first.unwrap_or(Reason::Held), join(texts));
        }

        if let Some((reason, _)) = failing.first() {
            self.set(RECONCILING, true, *reason, join(failing.iter().map(|(_, text)| (*text).to_owned())));
        } else if let Some(first) = waiting.first() {
            self.set(RECONCILING, true, first.reason, join(waiting.iter().map(|hold| text_of(hold))));
        } else if let Some((reason, message)) = under_way {
            self.set(RECONCILING, true, reason, message);
        } else if !plan.steps.is_empty() {
            self.set(RECONCILING, true, Reason::Progressing, "objects are being created or changed");
        }
    }
}

fn text_of(hold: &Hold) -> String {
    match &hold.cluster {
        Some(cluster) if !hold.message.contains(cluster.as_str()) => {
            format!("cluster {cluster}: {}", hold.message)
        }
        _ => hold.message.clone(),
    }
}

/// One text of several: no duplicates, the order of the input.
pub(crate) fn join(texts: impl Iterator<Item = String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen.join("; ")
}

/// The reason that stands for several problems: the common one, else that the spec is invalid.
fn headline(first: Reason, problems: &[Problem]) -> Reason {
    if problems.iter().all(|problem| problem.reason == first) { first } else { Reason::InvalidSpec }
}

/// All problems with their paths.
fn problem_list(problems: &[Problem]) -> String {
    join(problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)))
}

/// Documents to two significant digits: exact figures are metrics, and would change status all the time.
pub fn two_significant_digits(value: i64) -> i64 {
    let mut scale = 1_i64;
    while value / scale >= 100 {
        scale = scale.saturating_mul(10);
    }
    value / scale * scale
}

/// Up to three names, and how many more.
pub(crate) fn some_of(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    match names.len().checked_sub(shown.len()) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_rounded_down_to_two_digits() {
        let rounded: Vec<i64> = [0, 7, 99, 100, 129, 1_871_234_567].map(two_significant_digits).into();
        assert_eq!(rounded, [0, 7, 99, 100, 120, 1_800_000_000]);
    }

    #[test]
    fn every_reason_that_waits_for_the_spec_is_stalled() {
        for reason in
            ["InvalidSpec", "NotSupportedYet", "NeedsMigration", "UnsupportedVersion", "ForwardOnly"]
        {
            let reason = Reason::all().iter().find(|candidate| candidate.as_str() == reason).unwrap();
            assert!(waits_for_a_person(*reason), "{reason:?}");
        }
        for reason in [Reason::Suspended, Reason::AwaitingApproval, Reason::Forming, Reason::CellNotReady] {
            assert!(!waits_for_a_person(reason), "{reason:?}");
        }
    }
}
