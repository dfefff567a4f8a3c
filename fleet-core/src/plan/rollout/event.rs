//! What can happen to a rollout, and what becomes known by it.

use serde::{Deserialize, Serialize};

use super::hold::{Hold, HoldKind};
use super::state::Ending;
use crate::ids::{RolloutId, UpdateId};
use crate::plan::strategy::FailureKind;
use crate::time::Timestamp;

/// Something that happens to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutEvent {
    /// The daemon takes it up.
    TakenUp,
    /// A person approves it.
    Approved {
        /// Who.
        by: String,
    },
    /// A person says no.
    Denied {
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Its first moment has come.
    Started,
    /// What stood before the wave is over.
    WaveOpened,
    /// An update of a member is ordered.
    Claimed {
        /// The member.
        place: usize,
        /// The update's id.
        update: UpdateId,
    },
    /// An order never became an update.
    Unclaimed {
        /// The member.
        place: usize,
        /// The order.
        update: UpdateId,
    },
    /// The update of a member ended.
    Ended {
        /// The member.
        place: usize,
        /// The update.
        update: UpdateId,
        /// How.
        end: UpdateEnd,
        /// What the strategy makes of it, where it did not succeed.
        follow: Follow,
    },
    /// A hold is set.
    Held(Hold),
    /// Holds of a kind are lifted.
    Unheld {
        /// Which kind.
        kind: HoldKind,
        /// By whom.
        by: String,
    },
    /// A person lets it go on past a gate, a failed wave or a deadline, or ends a pause between waves early.
    Promoted {
        /// Who.
        by: String,
    },
    /// An instance is taken out: by a person, or because it is not to be updated any more.
    Excluded {
        /// The member.
        place: usize,
        /// Who.
        by: String,
        /// Why, unless that a person said so is all there is to say.
        why: Option<String>,
    },
    /// It is stopped.
    Aborted {
        /// By whom.
        by: String,
        /// Why.
        why: String,
        /// Whether what was committed goes back.
        rollback: bool,
    },
    /// A newer rollout takes its place.
    Superseded {
        /// The newer one.
        by: RolloutId,
    },
    /// The rollback of it has an id.
    RollbackBegun {
        /// That id.
        child: RolloutId,
    },
    /// The rollback of it ended.
    RollbackEnded {
        /// Whether everything went back.
        complete: bool,
        /// The members that went back.
        taken_back: Vec<usize>,
    },
    /// Time passed.
    Looked {
        /// Whether work was possible.
        working: bool,
    },
    /// The wall clock was set, or the host slept.
    ClockSet {
        /// Forward by so many milliseconds, negative for back.
        by_millis: i64,
    },
}

impl RolloutEvent {
    /// The event's name, for messages.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TakenUp => "take up",
            Self::Approved { .. } => "approve",
            Self::Denied { .. } => "deny",
            Self::Started => "start",
            Self::WaveOpened => "open a wave",
            Self::Claimed { .. } => "claim",
            Self::Unclaimed { .. } => "unclaim",
            Self::Ended { .. } => "end an update",
            Self::Held(_) => "pause",
            Self::Unheld { .. } => "resume",
            Self::Promoted { .. } => "promote",
            Self::Excluded { .. } => "exclude",
            Self::Aborted { .. } => "abort",
            Self::Superseded { .. } => "supersede",
            Self::RollbackBegun { .. } => "begin the rollback",
            Self::RollbackEnded { .. } => "end the rollback",
            Self::Looked { .. } => "look",
            Self::ClockSet { .. } => "set the clock of",
        }
    }
}

/// How the update of a member ended, in a rollout's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum UpdateEnd {
    /// The release runs.
    Committed,
    /// The release ran already.
    Unchanged,
    /// It did not succeed.
    Unsuccessful {
        /// How: rolled back, failed before the stop, or a person is asked.
        how: Ending,
        /// Whose fault.
        kind: FailureKind,
        /// Why.
        why: String,
    },
    /// Not admitted for good.
    Refused {
        /// Why.
        why: String,
    },
    /// Its snapshot does not fit on the disk: nothing was touched, and nobody else's would be likely to fit.
    NoSpace {
        /// What was needed and found.
        why: String,
    },
    /// Not now: to be tried again, without counting as an attempt.
    Deferred {
        /// Not before.
        until: Timestamp,
        /// Why.
        why: String,
    },
}

/// What the strategy makes of an update that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Follow {
    /// Nothing: the member is over.
    #[default]
    Nothing,
    /// The member is tried once more.
    Retry {
        /// Not before.
        not_before: Timestamp,
    },
    /// The rollout is stopped.
    Abort,
}

/// Something that became known, in the order in which it did. The event log is made of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It waits for a person's approval.
    AwaitsApproval,
    /// A person approved.
    Approved {
        /// Who.
        by: String,
    },
    /// It began.
    Started,
    /// A wave began.
    WaveOpened {
        /// Which, from 0.
        wave: u32,
    },
    /// A wave passed.
    WavePassed {
        /// Which, from 0.
        wave: u32,
    },
    /// It is held.
    Held(Hold),
    /// It is no longer held by this.
    Unheld {
        /// What was lifted.
        hold: Hold,
        /// By whom.
        by: String,
    },
    /// An instance was taken out.
    Excluded {
        /// The member.
        place: usize,
        /// By whom.
        by: String,
        /// Why, where there is more to say than that somebody wanted it.
        why: Option<String>,
    },
    /// It was stopped, or ended before it began.
    Aborted {
        /// By whom.
        by: String,
        /// Why.
        why: String,
    },
    /// A newer one takes its place.
    Superseded {
        /// The newer one.
        by: RolloutId,
    },
    /// The wall clock was set while it waited: it waits as long as it would have.
    ClockSet {
        /// Forward by so many milliseconds, negative for back.
        by_millis: i64,
    },
    /// It ended, with this state's label.
    Finished(&'static str),
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {event} a rollout that is {state}: expected {expected}")]
pub struct IllegalTransition {
    /// The event.
    pub event: &'static str,
    /// Label of the state.
    pub state: &'static str,
    /// What would have been accepted.
    pub expected: String,
}
