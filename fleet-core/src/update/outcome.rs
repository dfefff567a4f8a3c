//! How an update ends, and why it turns back.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new release runs.
    Committed,
    /// The old release runs again, with the data of the moment of stop.
    RolledBack,
    /// Frozen, a person is asked.
    NeedsOperator,
    /// Frozen: somebody else changed the containers in the middle.
    Diverged,
    /// Not admitted.
    Refused,
    /// Failed before the old container was stopped.
    Failed,
    /// The new image is what already runs.
    Unchanged,
}

impl Outcome {
    /// The word in output. A diverged update needs a person as well; the instance's state tells them apart.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::NeedsOperator | Self::Diverged => "needs_operator",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unchanged => "unchanged",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The release: its digest is quarantined for the instance.
    Release,
    /// The host, the engine, the registry or fleet's own death: never quarantines.
    Infrastructure,
    /// Somebody changed something in the middle.
    Foreign,
    /// A person or a setting said no.
    Refusal,
    /// Temporarily not allowed (a hook said "not now", a pause).
    NotNow,
}

/// Why an update turned back or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Whose fault.
    pub fault: Fault,
    /// What happened, for people, with what to do where something can be done.
    pub reason: String,
}

impl Cause {
    /// A cause.
    #[must_use]
    pub fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self {
            fault,
            reason: reason.into(),
        }
    }
}
