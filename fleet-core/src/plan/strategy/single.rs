//! One instance, then a person decides.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Batch, DEFAULT_RETRIES, Failure, FailureBudget, OnFailure, Progress, RolloutStrategy, WaveGate,
    default_on_failure,
};
use crate::plan::PlannedInstance;

/// One instance at a time; each one after the first waits until a person promotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Single {
    /// Failures that end the rollout; none: see [`FailureBudget::new`].
    pub abort_on: Option<NonZeroU32>,
    /// Attempts at an instance after the first.
    pub retries: u32,
    /// Beats the instance's own health timeout.
    pub health_timeout: Option<Duration>,
}

impl Default for Single {
    fn default() -> Self {
        Self {
            abort_on: None,
            retries: DEFAULT_RETRIES,
            health_timeout: None,
        }
    }
}

impl RolloutStrategy for Single {
    fn label(&self) -> &'static str {
        "single"
    }

    fn next_batch(&self, _remaining: &[PlannedInstance], so_far: &Progress) -> Batch {
        let gate = if so_far.wave == 0 {
            WaveGate::Open
        } else {
            WaveGate::Person
        };
        Batch::Take {
            size: NonZeroU32::MIN,
            gate,
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
