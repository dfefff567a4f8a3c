//! Why a call of the façade failed.

use crate::ports::{JournalError, PortError};
use crate::update::SagaError;

/// Why a call of [`super::Fleet`] failed. What is only refused is no error but part of the answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// No container of that name is managed.
    #[error("there is no instance {name}{}", hint(.nearest.as_deref()))]
    UnknownInstance {
        /// The name as given.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// No snapshot of that id.
    #[error("there is no snapshot {0}; `fleet snapshot list` shows what there is")]
    UnknownSnapshot(crate::ids::SnapshotId),
    /// The instance needs no person.
    #[error("instance {0} needs no decision: no update of it is frozen")]
    NotFrozen(String),
    /// Another task of this process works on the instance.
    #[error("something else works on instance {0}; try again when it has ended")]
    Busy(String),
    /// It cannot be done now or as it is.
    #[error("{reason}; {remedy}")]
    Refused {
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The outside failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] JournalError),
    /// A rollout could not be driven.
    #[error(transparent)]
    Rollout(#[from] super::rollout::RolloutError),
    /// An update stopped before it had an outcome.
    #[error(transparent)]
    Saga(#[from] SagaError),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}
