//! What a failed call means: its reason in conditions and events, and its class, which decides when it is tried
//! again. No effects.

use searchcell_core::step::Outcome;
use searchcell_crds::Reason;

use crate::ports::{KubeError, SearchError};
use crate::security::forge::ForgeError;

/// How a failure is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// What was observed is out of date: look again soon, tell nobody.
    Conflict,
    /// May pass by itself: try again, ever more slowly.
    Transient,
    /// Waits for a person: try again slowly.
    UserFixable,
    /// The process cannot go on.
    Fatal,
}

/// What every error of the effects answers.
pub trait Failure: std::error::Error {
    /// Reason from the closed list.
    fn reason(&self) -> Reason;
    /// When it is worth trying again.
    fn class(&self) -> Class;
}

impl Failure for KubeError {
    fn reason(&self) -> Reason {
        match self {
            KubeError::NotOurs { .. } => Reason::NameConflict,
            KubeError::FixedSize(_) => Reason::StorageClassFixed,
            KubeError::Conflict(_) | KubeError::Refused(_) | KubeError::Unreachable(_) => {
                Reason::KubernetesError
            }
        }
    }

    fn class(&self) -> Class {
        match self {
            KubeError::Conflict(_) => Class::Conflict,
            KubeError::NotOurs { .. } | KubeError::FixedSize(_) | KubeError::Refused(_) => Class::UserFixable,
            KubeError::Unreachable(_) => Class::Transient,
        }
    }
}

impl Failure for SearchError {
    fn reason(&self) -> Reason {
        match self {
            SearchError::NotInPlace(_) => Reason::NeedsMigration,
            SearchError::Unreachable(_)
            | SearchError::Refused(_)
            | SearchError::IndexExists(_)
            | SearchError::NotAvailable(_) => Reason::ElasticsearchError,
        }
    }

    fn class(&self) -> Class {
        match self {
            SearchError::Unreachable(_) => Class::Transient,
            SearchError::Refused(_) | SearchError::NotInPlace(_) | SearchError::NotAvailable(_) => {
                Class::UserFixable
            }
            SearchError::IndexExists(_) => Class::Conflict,
        }
    }
}

/// Why a step was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StepError {
    /// Kubernetes.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// Elasticsearch.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Keys, certificates, hashes.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The plan asks for something that cannot be done as it stands, for example a step of Elasticsearch that
    /// names no cluster.
    #[error("{0}")]
    Misplanned(&'static str),
    /// The lease is not ours (any more): nothing was tried.
    #[error("leadership was lost")]
    NotLeading,
}

impl Failure for StepError {
    fn reason(&self) -> Reason {
        match self {
            StepError::Kube(error) => error.reason(),
            StepError::Search(error) => error.reason(),
            StepError::Forge(_) | StepError::Misplanned(_) | StepError::NotLeading => Reason::KubernetesError,
        }
    }

    fn class(&self) -> Class {
        match self {
            StepError::Kube(error) => error.class(),
            StepError::Search(error) => error.class(),
            StepError::Forge(ForgeError::Randomness | ForgeError::Hash | ForgeError::Keystore) => {
                Class::Transient
            }
            StepError::Forge(_) | StepError::Misplanned(_) => Class::UserFixable,
            StepError::NotLeading => Class::Conflict,
        }
    }
}

impl StepError {
    /// What status says of the step: nothing, when it merely has to look again.
    pub fn outcome(&self) -> Outcome {
        match self.class() {
            Class::Conflict => Outcome::Skipped,
            Class::Transient | Class::UserFixable | Class::Fatal => {
                Outcome::Failed { reason: self.reason(), message: self.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_no_failure_for_the_user() {
        let error = StepError::from(KubeError::Conflict("changed".into()));
        assert_eq!((error.class(), error.outcome()), (Class::Conflict, Outcome::Skipped));
    }

    #[test]
    fn an_object_of_somebody_else_is_reported_with_its_name() {
        let error = StepError::from(KubeError::NotOurs { kind: "Service", name: "guilds-a".into() });
        let Outcome::Failed { reason, message } = error.outcome() else { panic!("{error}") };
        assert_eq!(reason, Reason::NameConflict);
        assert!(message.contains("Service guilds-a"));
    }
}
