//! Stage 4: what happened?
//!
//! Events are facts for people, in the order of their sequence numbers. Recovery never reads them.

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, RolloutId, TenantId, UpdateId};
use crate::time::Timestamp;

/// A fact that is about to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// What, for instance `update.committed`.
    pub kind: EventKind,
    /// Who caused it: a user name, `fleet`, or a rollout's id.
    pub actor: String,
    /// The tenant it concerns.
    pub tenant: Option<TenantId>,
    /// The instance it concerns.
    pub instance: Option<InstanceId>,
    /// The rollout it belongs to.
    pub rollout: Option<RolloutId>,
    /// The update it belongs to.
    pub update: Option<UpdateId>,
    /// What else is known. Never a secret.
    pub data: serde_json::Value,
}

/// A stored fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the log; orders events, the clock does not.
    pub sequence: u64,
    /// The fact.
    #[serde(flatten)]
    pub event: NewEvent,
}

impl NewEvent {
    /// A fact without relations.
    #[must_use]
    pub fn new(at: Timestamp, kind: EventKind, actor: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            actor: actor.into(),
            tenant: None,
            instance: None,
            rollout: None,
            update: None,
            data: serde_json::Value::Null,
        }
    }

    /// A config was changed: of a tenant, or of the whole fleet. `data` is `{"old": …, "new": …}`.
    #[must_use]
    pub fn config_changed(
        at: Timestamp,
        actor: impl Into<String>,
        tenant: Option<TenantId>,
        old: &impl Serialize,
        new: &impl Serialize,
    ) -> Self {
        Self {
            tenant,
            data: serde_json::json!({ "old": json_of(old), "new": json_of(new) }),
            ..Self::new(at, EventKind::ConfigChanged, actor)
        }
    }
}

/// Configs are plain data, which always has a JSON form.
fn json_of(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What kinds of events there are. The labels are fixed: scripts match on them.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $name,)*
            /// Written by a newer fleet.
            Unknown(String),
        }

        impl EventKind {
            /// Every known kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The label, for instance `update.committed`.
            #[must_use]
            pub fn label(&self) -> &str {
                match self {
                    $(Self::$name => $label,)*
                    Self::Unknown(label) => label,
                }
            }
        }

        impl From<String> for EventKind {
            fn from(label: String) -> Self {
                match label.as_str() {
                    $($label => Self::$name,)*
                    _ => Self::Unknown(label),
                }
            }
        }

        impl From<EventKind> for String {
            fn from(kind: EventKind) -> Self {
                kind.label().to_owned()
            }
        }
    };
}

event_kinds! {
    /// A registry offers something that an instance does not run.
    UpdateAvailable = "update.available",
    /// A rollout's plan was fixed.
    RolloutPlanned = "rollout.planned",
    /// A rollout began.
    RolloutStarted = "rollout.started",
    /// A wave of a rollout began.
    RolloutWaveOpened = "rollout.wave_opened",
    /// A wave of a rollout passed.
    RolloutWavePassed = "rollout.wave_passed",
    /// A rollout was held.
    RolloutPaused = "rollout.paused",
    /// A hold of a rollout was lifted.
    RolloutResumed = "rollout.resumed",
    /// A newer release took a rollout's place.
    RolloutSuperseded = "rollout.superseded",
    /// A rollout was stopped.
    RolloutAborted = "rollout.aborted",
    /// A rollout ended.
    RolloutCompleted = "rollout.completed",
    /// An update began.
    UpdateStarted = "update.started",
    /// A step of an update was done.
    UpdateStep = "update.step",
    /// An update committed.
    UpdateCommitted = "update.committed",
    /// An update was rolled back.
    UpdateRolledBack = "update.rolled_back",
    /// An update needs a person.
    UpdateNeedsOperator = "update.needs_operator",
    /// An update was refused or failed before anything was touched.
    UpdateRefused = "update.refused",
    /// Somebody else changed an instance in the middle of an update.
    InstanceDiverged = "instance.diverged",
    /// A person ended what needed one, or recovery finished an update.
    InstanceRecovered = "instance.recovered",
    /// A snapshot was made.
    SnapshotCreated = "snapshot.created",
    /// A snapshot is about to be put back by hand. Without a `snapshot.restored` after it, its volumes may be half filled.
    SnapshotRestoring = "snapshot.restoring",
    /// A snapshot was put back.
    SnapshotRestored = "snapshot.restored",
    /// A snapshot was removed.
    SnapshotDeleted = "snapshot.deleted",
    /// A config was changed; old, new and actor are in it.
    ConfigChanged = "config.changed",
    /// The engine went away.
    EngineLost = "engine.lost",
    /// The engine is back.
    EngineBack = "engine.back",
    /// Something needs attention.
    AlertRaised = "alert.raised",
    /// It no longer does.
    AlertResolved = "alert.resolved",
}
