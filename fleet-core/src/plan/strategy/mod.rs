//! How a rollout proceeds: in which batches, with which pauses, and what a failure means.
//!
//! [`RolloutStrategy`] is asked twice. The planner asks it, on the assumption that all goes well, until nothing remains,
//! and fixes the waves. The orchestrator asks again before it opens each wave, with what really happened: the members of
//! the wave stay those of the plan, but the strategy may stop the rollout or ask for a person. A strategy holds no state
//! of its own: what it needs to know is handed in, so that a restart forgets nothing.
//!
//! | strategy | waves |
//! |---|---|
//! | [`RollingWave`] | a percentage or a count of all, with a pause in between |
//! | [`Single`] | one instance, then a person decides about the next |
//! | [`Immediate`] | all in one |

mod budget;
mod immediate;
mod rolling;
mod single;
mod spec;

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use budget::FailureBudget;
pub use immediate::Immediate;
pub use rolling::{RollingWave, WaveSize};
pub use single::Single;
pub use spec::{StrategyError, StrategyRegistry, StrategySpec};

use super::PlannedInstance;
use crate::ids::InstanceId;

/// Longest pause between two attempts at one instance.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Attempts after the first at an instance whose update failed for reasons of the infrastructure.
pub const DEFAULT_RETRIES: u32 = 3;

/// Decides how a rollout proceeds. Object-safe, so that embedders bring their own.
///
/// # Guarantees that hold whatever a strategy says
/// The plan's concurrency limit, disruption budget and failure budget bound what is started: never more than
/// [`FailureBudget::limit`] instances fail. An instance is attempted at most `1 + retries()` times, not counting attempts
/// that the infrastructure ended before the instance was stopped: after those it waits, and is not given up for a day.
pub trait RolloutStrategy: fmt::Debug + Send + Sync {
    /// Its name in output and in the store.
    fn label(&self) -> &str;

    /// The next batch of those that remain, which are in the order of the rollout and never empty.
    fn next_batch(&self, remaining: &[PlannedInstance], so_far: &Progress) -> Batch;

    /// How many failures end a rollout over so many instances.
    fn failure_budget(&self, total: u32) -> FailureBudget;

    /// What follows when an update did not succeed.
    fn on_failure(&self, failure: &Failure<'_>) -> OnFailure;

    /// Attempts at one instance after the first.
    fn retries(&self) -> u32 {
        DEFAULT_RETRIES
    }

    /// Beats the instances' own health timeout; none leaves it.
    fn health_timeout(&self) -> Option<Duration> {
        None
    }
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Instances in the rollout when it was planned. Never shrinks.
    pub total: u32,
    /// Number of the wave that is asked for, from 0.
    pub wave: u32,
    /// Instances that run the release.
    pub committed: u32,
    /// Distinct instances that finally failed.
    pub failed: u32,
    /// Instances that ended without success for other reasons: infrastructure, refused, excluded.
    pub skipped: u32,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// So many of those that remain (all, if they are fewer).
    Take {
        /// How many.
        size: NonZeroU32,
        /// What must be over before they begin.
        gate: WaveGate,
    },
    /// Nothing more: the rollout is stopped.
    Stop {
        /// Why, for people.
        why: String,
    },
}

/// What stands before a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum WaveGate {
    /// Nothing.
    #[default]
    Open,
    /// A pause after the last update of the wave before.
    Pause {
        /// How long.
        duration: Duration,
    },
    /// A person, who promotes.
    Person,
}

/// An update that did not succeed.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// Which attempt at it this was, from 1.
    pub attempt: u32,
    /// Whose fault it was.
    pub kind: FailureKind,
    /// The instance was out of service: another try takes it down again.
    pub stopped: bool,
    /// Distinct instances that finally failed, this one included if it counts.
    pub failures: u32,
    /// Failures that end the rollout.
    pub budget: u32,
    /// Why, for people.
    pub reason: &'a str,
}

/// Whose fault an unsuccessful update was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The release's: it counts against the budget.
    Release,
    /// Registry, engine, host, fleet itself: it does not count.
    Infrastructure,
    /// It could not be undone, or somebody interfered: a person is asked. It counts.
    NeedsPerson,
}

impl FailureKind {
    /// Whether it counts against the failure budget.
    #[must_use]
    pub fn counts(self) -> bool {
        self != Self::Infrastructure
    }
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The rollout is stopped.
    Abort,
    /// The instance is given up, the rollout goes on.
    Skip,
    /// The instance is tried once more.
    Retry {
        /// Number of the attempt to come, from 2.
        attempt: u32,
        /// Not before so much time has passed.
        after: Duration,
    },
}

/// What the built-in strategies do: retry what the infrastructure broke, abort when the budget is spent.
fn default_on_failure(failure: &Failure<'_>, retries: u32) -> OnFailure {
    if failure.kind == FailureKind::Infrastructure && failure.attempt <= retries {
        let pause = Duration::from_secs(1 << failure.attempt.min(6)).min(RETRY_PAUSE_MAX);
        OnFailure::Retry {
            attempt: failure.attempt + 1,
            after: pause,
        }
    } else if failure.kind.counts() && failure.failures >= failure.budget {
        OnFailure::Abort
    } else {
        OnFailure::Skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceName;

    #[track_caller]
    fn check(kind: FailureKind, attempt: u32, failures: u32, expect: OnFailure) {
        let instance = InstanceId::local(InstanceName::new("web").unwrap());
        let failure = Failure {
            instance: &instance,
            attempt,
            kind,
            stopped: kind.counts(),
            failures,
            budget: 3,
            reason: "",
        };
        for strategy in [
            &RollingWave::default() as &dyn RolloutStrategy,
            &Single::default(),
            &Immediate::default(),
        ] {
            assert_eq!(strategy.on_failure(&failure), expect, "{strategy:?}");
        }
    }

    #[test]
    fn infrastructure_is_retried_and_releases_spend_the_budget() {
        let retry = |attempt, secs| OnFailure::Retry {
            attempt,
            after: Duration::from_secs(secs),
        };
        check(FailureKind::Infrastructure, 1, 0, retry(2, 2));
        check(FailureKind::Infrastructure, 3, 2, retry(4, 8));
        check(FailureKind::Infrastructure, 4, 3, OnFailure::Skip);
        check(FailureKind::Release, 1, 2, OnFailure::Skip);
        check(FailureKind::Release, 1, 3, OnFailure::Abort);
        check(FailureKind::NeedsPerson, 1, 3, OnFailure::Abort);
    }
}
