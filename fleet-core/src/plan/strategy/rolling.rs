//! Waves of a percentage or a count.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Batch, DEFAULT_RETRIES, Failure, FailureBudget, OnFailure, Progress, RolloutStrategy,
    StrategyError, WaveGate, default_on_failure,
};
use crate::plan::PlannedInstance;

/// How large a wave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawSize", into = "RawSize")]
pub enum WaveSize {
    /// A share of all instances of the rollout, as they were when it was planned; rounded up, at least one. 1–100.
    Percent(u8),
    /// So many.
    Count(NonZeroU32),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawSize {
    Percent(u8),
    Count(u32),
}

impl TryFrom<RawSize> for WaveSize {
    type Error = StrategyError;

    fn try_from(raw: RawSize) -> Result<Self, Self::Error> {
        match raw {
            RawSize::Percent(percent) => Self::percent(percent.into()),
            RawSize::Count(count) => Self::count(count.into()),
        }
    }
}

impl From<WaveSize> for RawSize {
    fn from(size: WaveSize) -> Self {
        match size {
            WaveSize::Percent(percent) => Self::Percent(percent),
            WaveSize::Count(count) => Self::Count(count.get()),
        }
    }
}

impl WaveSize {
    /// A share of the fleet.
    ///
    /// # Errors
    /// It is 0 or above 100.
    pub fn percent(percent: u64) -> Result<Self, StrategyError> {
        u8::try_from(percent)
            .ok()
            .filter(|percent| (1..=100).contains(percent))
            .map(Self::Percent)
            .ok_or_else(|| StrategyError::new("a percentage from 1 to 100", percent))
    }

    /// A number of instances.
    ///
    /// # Errors
    /// It is 0 or above 4294967295.
    pub fn count(count: u64) -> Result<Self, StrategyError> {
        u32::try_from(count)
            .ok()
            .and_then(NonZeroU32::new)
            .map(Self::Count)
            .ok_or_else(|| StrategyError::new("a count from 1 on", count))
    }

    /// The size for a rollout over so many instances.
    #[must_use]
    pub fn of(self, total: u32) -> NonZeroU32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let rounded_up = (u64::from(percent) * u64::from(total)).div_ceil(100);
                u32::try_from(rounded_up)
                    .ok()
                    .and_then(NonZeroU32::new)
                    .unwrap_or(NonZeroU32::MIN)
            }
        }
    }
}

/// Waves of equal size, the last one smaller, with a pause in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollingWave {
    /// How large a wave is.
    pub size: WaveSize,
    /// Time between the end of a wave and the start of the next.
    pub pause: Duration,
    /// Failures that end the rollout; none: see [`FailureBudget::new`].
    pub abort_on: Option<NonZeroU32>,
    /// Attempts at an instance after the first.
    pub retries: u32,
    /// Beats the instances' own health timeout.
    pub health_timeout: Option<Duration>,
}

impl RollingWave {
    /// Waves of this size; the rest as by default: pause 5 min.
    #[must_use]
    pub fn new(size: WaveSize) -> Self {
        Self {
            size,
            pause: Duration::from_secs(300),
            abort_on: None,
            retries: DEFAULT_RETRIES,
            health_timeout: None,
        }
    }

    /// With another pause between waves.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Ends after so many failures.
    ///
    /// # Errors
    /// It is 0: a rollout that may not fail at all ends at the first failure, which is 1.
    pub fn with_abort_on(mut self, failures: u32) -> Result<Self, StrategyError> {
        self.abort_on = Some(super::spec::abort_on(failures)?);
        Ok(self)
    }
}

impl Default for RollingWave {
    /// 25 %, pause 5 min.
    fn default() -> Self {
        Self::new(WaveSize::Percent(25))
    }
}

impl RolloutStrategy for RollingWave {
    fn label(&self) -> &'static str {
        "rolling"
    }

    fn next_batch(&self, _remaining: &[PlannedInstance], so_far: &Progress) -> Batch {
        let gate = if so_far.wave == 0 || self.pause.is_zero() {
            WaveGate::Open
        } else {
            WaveGate::Pause {
                duration: self.pause,
            }
        };
        Batch::Take {
            size: self.size.of(so_far.total),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(percent: u64, total: u32, expect: u32) {
        assert_eq!(
            WaveSize::percent(percent).unwrap().of(total).get(),
            expect,
            "{percent} % of {total}"
        );
    }

    #[test]
    fn percentages_are_rounded_up_and_at_least_one() {
        check(25, 12, 3);
        check(25, 13, 4);
        check(1, 7, 1);
        check(1, 0, 1);
        check(100, 7, 7);
        check(33, 3, 1);
        check(34, 3, 2);
        check(100, u32::MAX, u32::MAX);
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused_when_written_and_when_read() {
        for bad in [0, 101, 256, u64::MAX] {
            assert!(WaveSize::percent(bad).is_err(), "{bad}");
        }
        assert!(WaveSize::count(0).is_err());
        assert!(RollingWave::default().with_abort_on(0).is_err());
        assert!(serde_json::from_str::<WaveSize>(r#"{"percent":0}"#).is_err());
        assert!(serde_json::from_str::<WaveSize>(r#"{"count":0}"#).is_err());
        assert_eq!(
            serde_json::from_str::<WaveSize>(r#"{"percent":25}"#).unwrap(),
            WaveSize::Percent(25)
        );
    }
}
