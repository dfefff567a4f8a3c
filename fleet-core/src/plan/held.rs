//! Why an instance is not updated, or not now.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::InstanceId;
use crate::time::Timestamp;

/// Why an instance is not in a plan, or why one that is in it does not begin yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[non_exhaustive]
pub enum Held {
    /// The rollout is not about it: another tenant, or not among those named.
    NotInScope,
    /// `fleet.enable` is not `true`.
    NotEnabled,
    /// A label of another updater says no.
    Restricted {
        /// The label.
        by: Box<str>,
    },
    /// It runs the release.
    NotBehind,
    /// `fleet.pin` keeps it elsewhere.
    Pinned {
        /// What it is pinned to.
        to: Box<str>,
    },
    /// An update of it is going on.
    Updating,
    /// An update ended in a way that needs a person: `fleet resolve`.
    NeedsOperator,
    /// Somebody else changed it in the middle of an update: `fleet resolve`.
    Diverged,
    /// The release failed on it before; `--retry` takes it once more.
    Quarantined,
    /// The whole fleet is held.
    Paused {
        /// By whom.
        by: Box<str>,
        /// Why.
        why: Box<str>,
    },
    /// `fleet.mode=off`.
    Off,
    /// Updates are announced, never done.
    NotifyOnly,
    /// It is updated when a person asks.
    ManualMode,
    /// The release is younger than `fleet.min_age`.
    TooYoung {
        /// When it is old enough; none if its age is not known.
        ready_at: Option<Timestamp>,
    },
    /// A setting of it cannot be read, and going on without it could do more than was asked for.
    InvalidSetting {
        /// What was expected and found.
        message: Box<str>,
    },
    /// Something that must move together with it is held.
    GroupBlocked {
        /// What is held.
        by: InstanceId,
    },
    /// It runs something to which there is no way back that fleet knows.
    NoWayBack,
    /// No update starts now, whatever the windows say.
    Frozen {
        /// When that ends.
        until: Timestamp,
        /// Why.
        why: Box<str>,
    },
    /// Its windows are closed.
    OutsideWindow {
        /// When one opens; none if none does in three weeks.
        opens_at: Option<Timestamp>,
    },
    /// A window is open, but closes before an update would be over.
    WindowTooShort {
        /// When it closes.
        closes_at: Timestamp,
        /// When one that is long enough opens, if one does.
        opens_at: Option<Timestamp>,
    },
    /// The update asked to be tried later (a hook said "not now").
    Deferred {
        /// Not before.
        until: Timestamp,
    },
    /// Too many of its tenant or host are down already.
    DisruptionBudget,
    /// As many updates are going on as may.
    Concurrency,
    /// As many updates are going on as the failure budget leaves.
    FailureBudget,
}

impl Held {
    /// The stable name, as in JSON.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotInScope => "not_in_scope",
            Self::NotEnabled => "not_enabled",
            Self::Restricted { .. } => "restricted",
            Self::NotBehind => "not_behind",
            Self::Pinned { .. } => "pinned",
            Self::Updating => "updating",
            Self::NeedsOperator => "needs_operator",
            Self::Diverged => "diverged",
            Self::Quarantined => "quarantined",
            Self::Paused { .. } => "paused",
            Self::Off => "off",
            Self::NotifyOnly => "notify_only",
            Self::ManualMode => "manual_mode",
            Self::TooYoung { .. } => "too_young",
            Self::InvalidSetting { .. } => "invalid_setting",
            Self::GroupBlocked { .. } => "group_blocked",
            Self::NoWayBack => "no_way_back",
            Self::Frozen { .. } => "frozen",
            Self::OutsideWindow { .. } => "outside_window",
            Self::WindowTooShort { .. } => "window_too_short",
            Self::Deferred { .. } => "deferred",
            Self::DisruptionBudget => "disruption_budget",
            Self::Concurrency => "concurrency",
            Self::FailureBudget => "failure_budget",
        }
    }

    /// Whether time alone ends it: such an instance is in the plan and waits.
    #[must_use]
    pub fn passes_with_time(&self) -> bool {
        matches!(
            self,
            Self::Frozen { .. }
                | Self::OutsideWindow { .. }
                | Self::WindowTooShort { .. }
                | Self::Deferred { .. }
        )
    }

    /// When it ends, if time alone ends it and that is known.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self {
            Self::Frozen { until, .. } | Self::Deferred { until } => Some(*until),
            Self::OutsideWindow { opens_at } | Self::WindowTooShort { opens_at, .. } => *opens_at,
            Self::TooYoung { ready_at } => *ready_at,
            _ => None,
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        match self {
            Self::Restricted { by } => write!(f, " (label {by})"),
            Self::Pinned { to } => write!(f, " to {to}"),
            Self::Paused { by, why } => write!(f, " by {by}: {why}"),
            Self::TooYoung { ready_at: Some(at) } => write!(f, ", old enough at {at}"),
            Self::TooYoung { ready_at: None } => f.write_str(", age not known"),
            Self::InvalidSetting { message } => write!(f, ": {message}"),
            Self::GroupBlocked { by } => write!(f, " by {by}"),
            Self::Frozen { until, why } => write!(f, " until {until}: {why}"),
            Self::OutsideWindow { opens_at: Some(at) } => write!(f, ", opens at {at}"),
            Self::OutsideWindow { opens_at: None } => f.write_str(", does not open in three weeks"),
            Self::WindowTooShort {
                closes_at,
                opens_at,
            } => {
                write!(f, ", closes at {closes_at}")?;
                opens_at.map_or(Ok(()), |at| write!(f, ", next at {at}"))
            }
            Self::Deferred { until } => write!(f, " until {until}"),
            _ => Ok(()),
        }
    }
}
