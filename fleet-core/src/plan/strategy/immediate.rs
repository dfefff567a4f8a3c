//! Everything in one wave.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Batch, DEFAULT_RETRIES, Failure, FailureBudget, OnFailure, Progress, RolloutStrategy, WaveGate,
    default_on_failure,
};
use crate::plan::PlannedInstance;

/// One wave with everything in it. Concurrency and budgets bound it as they bound every other strategy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Immediate {
    /// Failures that end the rollout; none: see [`FailureBudget::new`].
    pub abort_on: Option<NonZeroU32>,
    /// Attempts at an instance after the first.
    pub retries: u32,
    /// Beats the instances' own health timeout.
    pub health_timeout: Option<Duration>,
}

impl Default for Immediate {
    fn default() -> Self {
        Self {
            abort_on: None,
            retries: DEFAULT_RETRIES,
            health_timeout: None,
        }
    }
}

impl RolloutStrategy for Immediate {
    fn label(&self) -> &'static str {
        "immediate"
    }

    fn next_batch(&self, remaining: &[PlannedInstance], _so_far: &Progress) -> Batch {
        let all = u32::try_from(remaining.len()).unwrap_or(u32::MAX);
        Batch::Take {
            size: NonZeroU32::new(all).unwrap_or(NonZeroU32::MIN),
            gate: WaveGate::Open,
        }
    }

    fn failure_budget(&self, total: u32) -> FailureBudget {
        FailureBudget::new(self.abort_on, total)
    }

    fn on_failure(&self, failure: &Failure<'_>) -> OnFailure {
        default_on_failure(failure, self.retries)
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn health_timeout(&self) -> Option<Duration> {
        self.health_timeout
    }
}
