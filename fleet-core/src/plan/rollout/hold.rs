//! Why a rollout starts nothing at the moment, and who may change that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A reason, with an owner, why a rollout does not proceed. It stops starts; it never stops what is in flight, the
/// watch over failures, or a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Which kind, and so who may lift it.
    pub kind: HoldKind,
    /// Who set it: a user name, or `fleet`.
    pub by: String,
    /// Why, for people.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
}

/// What kinds of holds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HoldKind {
    /// A person paused this rollout; a person resumes it. Resuming the fleet does not.
    UserPause,
    /// The whole fleet is held; follows the fleet's setting.
    GlobalPause,
    /// The next wave waits for a person, who promotes.
    ManualGate,
    /// Too few instances of a wave succeeded; a person promotes or aborts.
    WaveFailed,
    /// The infrastructure failed too often in a row; lifted when it answers again.
    InfraErrors,
    /// A snapshot does not fit on the disk; lifted when it does.
    DiskSpace,
    /// A wave took longer than it may; a person promotes or aborts.
    Deadline,
}

impl HoldKind {
    /// The stable name, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UserPause => "user_pause",
            Self::GlobalPause => "global_pause",
            Self::ManualGate => "manual_gate",
            Self::WaveFailed => "wave_failed",
            Self::InfraErrors => "infra_errors",
            Self::DiskSpace => "disk_space",
            Self::Deadline => "deadline",
        }
    }

    /// Whether promoting lifts it.
    #[must_use]
    pub fn lifted_by_promotion(self) -> bool {
        matches!(self, Self::ManualGate | Self::WaveFailed | Self::Deadline)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}: {}", self.kind.label(), self.by, self.why)
    }
}
