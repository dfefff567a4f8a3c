//! What is known of a rollout at one moment: what the store keeps.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::countdown::Countdown;
use super::hold::Hold;
use crate::ids::{RolloutId, UpdateId};
use crate::plan::RolloutPlan;
use crate::plan::strategy::Progress;
use crate::time::Timestamp;

/// So many rollouts may be replaced in a row without leaving their first wave; the next one finishes.
const REPLACED_IN_A_ROW_MAX: u32 = 3;

/// The state of a rollout. Changes only through [`super::next`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutState {
    /// Version of this format.
    pub schema: u32,
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// Why it starts nothing; empty means go.
    pub holds: Vec<Hold>,
    /// The wave it is at, from 0; the number of waves once the last one passed.
    pub wave: u32,
    /// Whether that wave is open.
    pub wave_phase: WavePhase,
    /// When the last wave passed: pauses run from here. Moves with the wall clock where that is set.
    pub passed_at: Option<Timestamp>,
    /// A person let the wave at hand begin while something else held it: it opens as soon as nothing does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub promoted: bool,
    /// What each member is doing, in the order of the plan.
    pub members: Vec<MemberState>,
    /// Updates in a row that the infrastructure broke.
    pub infra_in_a_row: u32,
    /// Working time of the open wave.
    pub worked: Countdown,
    /// The rollouts whose place it takes.
    pub replaces: Vec<RolloutId>,
    /// How many rollouts before it were replaced in a row without leaving their first wave.
    pub replaced_in_a_row: u32,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Phase {
    /// Fixed, not yet looked at.
    Planned,
    /// A person must approve.
    AwaitingApproval,
    /// Waits for its turn or for the first window.
    Scheduled,
    /// At least one wave is left.
    Running,
    /// A newer one takes its place: nothing starts, what is in flight ends.
    Superseding {
        /// The newer one.
        by: RolloutId,
    },
    /// Stopped: nothing starts, what is in flight ends.
    Aborting {
        /// Whether what was committed goes back.
        rollback: bool,
        /// Why.
        why: String,
    },
    /// A rollout of its own takes back what was committed.
    RollingBack {
        /// That rollout.
        child: RolloutId,
    },
    /// Over; every instance is as it should be.
    Completed,
    /// Over; some instances did not get the release.
    CompletedWithFailures,
    /// Stopped; what was committed stays.
    Aborted {
        /// Why.
        why: String,
    },
    /// Stopped, and everything went back.
    RolledBack {
        /// The rollout that took it back.
        child: RolloutId,
    },
    /// Stopped, and not everything could go back: a person is asked.
    RollbackIncomplete {
        /// The rollout that tried.
        child: RolloutId,
    },
    /// A newer one took its place.
    Superseded {
        /// The newer one.
        by: RolloutId,
    },
    /// Ended before it began.
    Cancelled {
        /// Why.
        why: String,
    },
}

impl Phase {
    /// The stable name, as in JSON.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Superseding { .. } => "superseding",
            Self::Aborting { .. } => "aborting",
            Self::RollingBack { .. } => "rolling_back",
            Self::Completed => "completed",
            Self::CompletedWithFailures => "completed_with_failures",
            Self::Aborted { .. } => "aborted",
            Self::RolledBack { .. } => "rolled_back",
            Self::RollbackIncomplete { .. } => "rollback_incomplete",
            Self::Superseded { .. } => "superseded",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Whether nothing changes any more.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Completed
                | Self::CompletedWithFailures
                | Self::Aborted { .. }
                | Self::RolledBack { .. }
                | Self::RollbackIncomplete { .. }
                | Self::Superseded { .. }
                | Self::Cancelled { .. }
        )
    }

    /// Whether it has not begun.
    #[must_use]
    pub fn is_waiting_to_begin(&self) -> bool {
        matches!(
            self,
            Self::Planned | Self::AwaitingApproval | Self::Scheduled
        )
    }
}

/// Whether the wave at hand is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WavePhase {
    /// What stands before it is not over.
    Pending,
    /// Its members may begin.
    Open,
}

/// What one member is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum MemberState {
    /// It has not begun, or is to be tried again.
    Queued {
        /// Attempts so far.
        attempts: u32,
        /// Not before this instant.
        not_before: Option<Timestamp>,
        /// What became of the last attempt, if there was one.
        last: Option<String>,
        /// An attempt failed in a way that counts: whatever becomes of the member counts, unless it gets the release.
        #[serde(default, skip_serializing_if = "is_false")]
        failed: bool,
    },
    /// Its update was ordered. Whether it began is in the journal, under this id.
    Claimed {
        /// The update.
        update: UpdateId,
        /// Which attempt it is, from 1.
        attempt: u32,
        /// Since when.
        since: Timestamp,
        /// An earlier attempt failed in a way that counts.
        #[serde(default, skip_serializing_if = "is_false")]
        failed: bool,
    },
    /// Over for this rollout.
    Ended {
        /// How.
        how: Ending,
        /// Whether it counts against the failure budget.
        counts: bool,
        /// Attempts made.
        attempts: u32,
        /// Why, where there is something to say.
        why: Option<String>,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks
fn is_false(flag: &bool) -> bool {
    !flag
}

/// How a member ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The release runs.
    Committed,
    /// The release ran already.
    Unchanged,
    /// The old release runs again.
    RolledBack,
    /// A person is asked.
    NeedsOperator,
    /// Not updated, the old container was never stopped.
    Failed,
    /// Not admitted for good.
    Refused,
    /// Taken out by a person.
    Excluded,
    /// The rollout ended before its turn.
    Cancelled,
}

impl Ending {
    /// The stable name, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Unchanged => "unchanged",
            Self::RolledBack => "rolled_back",
            Self::NeedsOperator => "needs_operator",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Excluded => "excluded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the instance runs the release.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Committed | Self::Unchanged)
    }

    /// Whether `retry-failed` takes it up.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RolledBack | Self::Failed)
    }
}

impl MemberState {
    /// A member that has not begun.
    pub(super) const QUEUED: Self = Self::Queued {
        attempts: 0,
        not_before: None,
        last: None,
        failed: false,
    };

    /// How it ended, if it did.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Ended { how, .. } => Some(*how),
            Self::Queued { .. } | Self::Claimed { .. } => None,
        }
    }

    /// Whether an attempt failed in a way that counts, and the member is not over.
    #[must_use]
    pub fn failed_before(&self) -> bool {
        matches!(
            self,
            Self::Queued { failed: true, .. } | Self::Claimed { failed: true, .. }
        )
    }

    /// The stable name, as in JSON.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Claimed { .. } => "updating",
            Self::Ended { how, .. } => how.label(),
        }
    }

    fn counts(&self) -> bool {
        matches!(self, Self::Ended { counts: true, .. })
    }
}

/// Members counted by what they are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// All.
    pub total: u32,
    /// Not begun.
    pub queued: u32,
    /// Being updated.
    pub in_flight: u32,
    /// Run the release by now.
    pub committed: u32,
    /// Back on the old one.
    pub rolled_back: u32,
    /// A person is asked.
    pub needs_operator: u32,
    /// Ended otherwise: refused, failed before the stop, excluded, cancelled.
    pub other: u32,
    /// Counted against the failure budget.
    pub failures: u32,
}

impl Tally {
    fn of<'a>(members: impl Iterator<Item = &'a MemberState>) -> Self {
        let mut tally = Self::default();
        for member in members {
            tally.total += 1;
            tally.failures += u32::from(member.counts());
            match member {
                MemberState::Queued { .. } => tally.queued += 1,
                MemberState::Claimed { .. } => tally.in_flight += 1,
                MemberState::Ended { how, .. } => match how {
                    Ending::Committed | Ending::Unchanged => tally.committed += 1,
                    Ending::RolledBack => tally.rolled_back += 1,
                    Ending::NeedsOperator => tally.needs_operator += 1,
                    Ending::Failed | Ending::Refused | Ending::Excluded | Ending::Cancelled => {
                        tally.other += 1
                    }
                },
            }
        }
        tally
    }

    /// Whether all have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.queued == 0 && self.in_flight == 0
    }
}

/// One wave as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveState {
    /// Number, from 1.
    pub number: u32,
    /// `pending`, `soaking`, `open`, `settling`, `passed`, `skipped`, `failed` or `cancelled`.
    pub state: Cow<'static, str>,
    /// Its members.
    #[serde(flatten)]
    pub tally: Tally,
}

impl RolloutState {
    /// The version of the format that this code writes.
    pub const SCHEMA: u32 = 1;

    /// A rollout before its first moment.
    #[must_use]
    pub fn new(plan: &RolloutPlan) -> Self {
        Self {
            schema: Self::SCHEMA,
            phase: Phase::Planned,
            holds: Vec::new(),
            wave: 0,
            wave_phase: WavePhase::Pending,
            passed_at: None,
            promoted: false,
            members: vec![MemberState::QUEUED; plan.members.len()],
            infra_in_a_row: 0,
            worked: Countdown::default(),
            replaces: Vec::new(),
            replaced_in_a_row: 0,
        }
    }

    /// Whether rollouts of its instances were replaced so often before the first wave ended that this one is not, in its
    /// first wave.
    #[must_use]
    pub fn is_starving(&self) -> bool {
        self.replaced_in_a_row >= REPLACED_IN_A_ROW_MAX
    }

    /// All members counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally::of(self.members.iter())
    }

    /// The members of one wave counted.
    #[must_use]
    pub fn wave_tally(&self, plan: &RolloutPlan, wave: u32) -> Tally {
        Tally::of(self.members[plan.wave_range(wave)].iter())
    }

    /// Failures that end the rollout while it is at its present wave.
    #[must_use]
    pub fn failure_limit(&self, plan: &RolloutPlan) -> u32 {
        let waves = u32::try_from(plan.waves.len()).unwrap_or(u32::MAX);
        let size = u32::try_from(plan.wave_range(self.wave).len()).unwrap_or(u32::MAX);
        plan.budget.in_wave(self.wave, size, waves)
    }

    /// What a strategy is told.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let tally = self.tally();
        Progress {
            total: tally.total,
            wave: self.wave,
            committed: tally.committed,
            failed: tally.failures,
            skipped: tally.rolled_back + tally.needs_operator + tally.other - tally.failures,
        }
    }

    /// The members in flight: their places and updates.
    pub fn claims(&self) -> impl Iterator<Item = (usize, UpdateId)> + '_ {
        self.members
            .iter()
            .enumerate()
            .filter_map(|(place, member)| match member {
                MemberState::Claimed { update, .. } => Some((place, *update)),
                _ => None,
            })
    }

    /// The waves as people see them.
    #[must_use]
    pub fn waves(&self, plan: &RolloutPlan) -> Vec<WaveState> {
        (0..u32::try_from(plan.waves.len()).unwrap_or(u32::MAX))
            .map(|wave| {
                let tally = self.wave_tally(plan, wave);
                WaveState {
                    number: wave + 1,
                    state: self.wave_label(wave, &tally).into(),
                    tally,
                }
            })
            .collect()
    }

    fn wave_label(&self, wave: u32, tally: &Tally) -> &'static str {
        let stopped = matches!(
            self.phase,
            Phase::Aborted { .. }
                | Phase::Aborting { .. }
                | Phase::RollingBack { .. }
                | Phase::RolledBack { .. }
                | Phase::RollbackIncomplete { .. }
        );
        if wave < self.wave {
            if tally.other == tally.total {
                return "skipped";
            }
            let unsuccessful = tally.committed == 0 && tally.rolled_back + tally.needs_operator > 0;
            if unsuccessful { "failed" } else { "passed" }
        } else if wave == self.wave && self.wave_phase == WavePhase::Open {
            if stopped || tally.is_over() {
                "failed"
            } else if tally.queued == 0 {
                "settling"
            } else {
                "open"
            }
        } else if self.phase.is_terminal() || stopped {
            "cancelled"
        } else if wave == self.wave && self.passed_at.is_some() {
            "soaking"
        } else {
            "pending"
        }
    }
}
