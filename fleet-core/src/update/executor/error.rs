//! Why a run, or a step of it, stopped.

use super::{Cause, Fault};
use crate::ports::{JournalError, PortError, PortErrorKind};

/// Why a run stopped before the update had an outcome. The update stays open; recovery goes on with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// The journal failed: nothing more was done.
    #[error("the update stopped where it was, because the journal could not be written")]
    Journal(#[from] JournalError),
    /// The engine stayed away for too long.
    #[error(
        "the engine went away in step {step} and did not come back in time; `fleet recover` goes on"
    )]
    EngineAway {
        /// The step in which it was lost.
        step: super::Step,
        /// The last error.
        #[source]
        source: PortError,
    },
    /// Clean-up after the outcome failed; the outcome stands, and recovery tries again.
    #[error(
        "the update is over, but cleaning up after it failed: {reason}; `fleet recover` tries again"
    )]
    CleanUp {
        /// What failed.
        reason: String,
    },
    /// The process is to end; the update stopped between two steps.
    #[error(
        "fleet was told to stop before step {before}; the next start, or `fleet recover`, goes on"
    )]
    Stopped {
        /// The step that was not begun.
        before: super::Step,
    },
    /// A crash point asked for it (tests only).
    #[error("died at crash point {0}")]
    Crashed(String),
}

/// Why a step stopped.
#[derive(Debug)]
pub(super) enum StepError {
    /// It failed for good: forward steps turn the update back, steps of the way back need a person.
    Failed(Cause),
    /// The outcome is not known: look again once the engine answers.
    Unknown(PortError),
    /// Somebody else changed the containers: touch nothing more.
    Diverged(String),
    /// Only a person can go on.
    Stuck(String),
    /// The run itself must end.
    Abort(SagaError),
}

impl From<SagaError> for StepError {
    fn from(error: SagaError) -> Self {
        Self::Abort(error)
    }
}

impl From<PortError> for StepError {
    /// A port's error is the host's or the engine's fault unless the step knows better.
    fn from(error: PortError) -> Self {
        if error.outcome_unknown() {
            Self::Unknown(error)
        } else {
            Self::Failed(Cause::new(Fault::Infrastructure, chain(&error)))
        }
    }
}

/// A port's error where the engine's refusal is the release's fault, for instance a program that does not exist.
pub(super) fn blame_release_if_invalid(error: PortError) -> StepError {
    if error.kind() == PortErrorKind::Invalid {
        StepError::Failed(Cause::new(Fault::Release, chain(&error)))
    } else {
        error.into()
    }
}

/// An error with everything that caused it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
