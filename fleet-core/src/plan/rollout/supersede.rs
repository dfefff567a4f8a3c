//! What a newer release means for the rollout that is going on.
//!
//! Decides about what detection finds. A rollout that a person starts is not asked about: it replaces what is going on.

use std::fmt;
use std::time::Duration;

use super::hold::HoldKind;
use super::state::{Phase, RolloutState};
use crate::ids::RolloutId;
use crate::image::Digest;
use crate::plan::RolloutPlan;
use crate::time::Timestamp;

/// How a channel treats a newer release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupersedePolicy {
    /// What happens to the rollout that is going on.
    pub then: WhenNewer,
    /// A release must have been the newest for so long.
    pub quiet_period: Duration,
    /// Time between the starts of two rollouts.
    pub min_interval: Duration,
}

/// What happens to a rollout when a newer release comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenNewer {
    /// It is replaced: nothing new starts, what is in flight ends.
    #[default]
    Replace,
    /// It finishes; the newest release comes next.
    FinishFirst,
    /// It finishes; what came meanwhile is looked at again afterwards, as any release.
    Ignore,
}

impl Default for SupersedePolicy {
    /// Replace, after five quiet minutes.
    fn default() -> Self {
        Self {
            then: WhenNewer::Replace,
            quiet_period: Duration::from_secs(300),
            min_interval: Duration::ZERO,
        }
    }
}

/// What is known of a channel when a release is found.
#[derive(Debug, Clone, Copy)]
pub struct Channel<'a> {
    /// The rollout that is not over, if there is one.
    pub current: Option<(&'a RolloutPlan, &'a RolloutState)>,
    /// Digests whose rollout failed or was stopped, denied ones included: never offered again by detection.
    pub known_bad: &'a [Digest],
    /// Digests of completed rollouts, newest first: the first is stable, the others are the past.
    pub completed: &'a [Digest],
    /// What instances ran before rollouts of the channel brought them a release: the past, too, also where no rollout
    /// had brought it.
    pub left: &'a [Digest],
    /// When the last rollout began.
    pub last_start: Option<Timestamp>,
}

/// What to do about a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Open a rollout.
    Open {
        /// The rollout whose place it takes.
        replaces: Option<RolloutId>,
    },
    /// The digest is what is being rolled out, or what is stable.
    Same,
    /// It failed before, or somebody said no.
    KnownBad,
    /// The channel moved back to an older release: a person is asked.
    MovedBack,
    /// Wait: for quiet, or for the least time between rollouts.
    WaitUntil(Timestamp),
    /// The rollout that is going on finishes first.
    WaitFor {
        /// That rollout.
        rollout: RolloutId,
        /// Why, for people.
        why: &'static str,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { replaces: None } => f.write_str("a rollout is opened"),
            Self::Open {
                replaces: Some(old),
            } => write!(f, "a rollout is opened in place of {old}"),
            Self::Same => f.write_str("nothing new: the release is being rolled out, or was"),
            Self::KnownBad => {
                f.write_str("not offered again: a rollout of the release was stopped")
            }
            Self::MovedBack => {
                f.write_str("the channel moved back to an older release: a person must start it")
            }
            Self::WaitUntil(at) => write!(f, "waits until {at} for something newer"),
            Self::WaitFor { rollout, why } => write!(f, "waits for {rollout}: {why}"),
        }
    }
}

/// Decides what a release that detection found means.
#[must_use]
pub fn decide(
    channel: &Channel<'_>,
    digest: &Digest,
    first_seen: Timestamp,
    policy: SupersedePolicy,
    now: Timestamp,
) -> Decision {
    let being_rolled_out =
        |(plan, _): &(&RolloutPlan, &RolloutState)| plan.request.target.digest == *digest;
    if channel.current.as_ref().is_some_and(being_rolled_out) {
        return Decision::Same;
    }
    if channel.current.is_none() && channel.completed.first() == Some(digest) {
        return Decision::Same;
    }
    if channel.known_bad.contains(digest) {
        return Decision::KnownBad;
    }
    if channel.completed.contains(digest) || channel.left.contains(digest) {
        return Decision::MovedBack;
    }
    let quiet_at = first_seen.saturating_add(policy.quiet_period);
    let next_at = channel.last_start.map_or(quiet_at, |start| {
        quiet_at.max(start.saturating_add(policy.min_interval))
    });
    if now < next_at {
        return Decision::WaitUntil(next_at);
    }
    match channel.current {
        None => Decision::Open { replaces: None },
        Some((plan, state)) => about_current(plan, state, policy.then),
    }
}

/// What a newer release means for a rollout that is going on.
pub(crate) fn about_current(plan: &RolloutPlan, state: &RolloutState, then: WhenNewer) -> Decision {
    let rollout = plan.id();
    let wait = |why| Decision::WaitFor { rollout, why };
    let replace = Decision::Open {
        replaces: Some(rollout),
    };
    if state.phase.is_waiting_to_begin() {
        return replace;
    }
    if state.phase != Phase::Running {
        return wait("it is ending");
    }
    if state
        .holds
        .iter()
        .any(|hold| hold.kind == HoldKind::UserPause)
    {
        return wait("a person paused it: abort it to make way");
    }
    let starving = state.wave == 0 && state.is_starving();
    match then {
        WhenNewer::Replace if starving => {
            wait("several before it never left their first wave: it finishes once")
        }
        WhenNewer::Replace => replace,
        WhenNewer::FinishFirst => wait("it finishes first"),
        WhenNewer::Ignore => wait("releases are not looked at while it runs"),
    }
}

#[cfg(test)]
#[path = "supersede_tests.rs"]
mod tests;
