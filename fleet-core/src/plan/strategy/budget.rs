//! How many failures end a rollout.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Failures that end a rollout unless it was told otherwise.
const DEFAULT_LIMIT: u32 = 3;
/// Share of the fleet that may fail before a rollout ends, if that is more: at a base rate of 2 % a fixed 3 would end
/// every third good rollout over 100 instances.
const DEFAULT_LIMIT_PERCENT: u64 = 5;
/// A first wave of so many instances at most is a canary.
const CANARY_SIZE_MAX: u32 = 5;

/// A hard bound on failures: the rollout stops at this many distinct instances that finally failed, and never starts
/// an update that could exceed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureBudget {
    /// Failures that end the rollout.
    pub limit: NonZeroU32,
    /// Failures that end it in the canary wave; none where the limit was chosen by a person.
    pub canary: Option<NonZeroU32>,
}

impl FailureBudget {
    /// The budget for so many instances: the number chosen, else the larger of 3 and 5 %, and 1 in a canary wave.
    #[must_use]
    pub fn new(chosen: Option<NonZeroU32>, total: u32) -> Self {
        if let Some(limit) = chosen {
            return Self {
                limit,
                canary: None,
            };
        }
        let share = u64::from(total) * DEFAULT_LIMIT_PERCENT / 100;
        let limit = u32::try_from(share).unwrap_or(u32::MAX).max(DEFAULT_LIMIT);
        Self {
            limit: NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN),
            canary: Some(NonZeroU32::MIN),
        }
    }

    /// What holds in a wave, given its number, its size and how many waves there are.
    #[must_use]
    pub fn in_wave(&self, wave: u32, size: u32, waves: u32) -> u32 {
        match self.canary {
            Some(canary) if wave == 0 && waves > 1 && size <= CANARY_SIZE_MAX => canary.get(),
            _ => self.limit.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_follows_the_fleet_and_is_strict_with_canaries() {
        let budget = |total| FailureBudget::new(None, total);
        assert_eq!(budget(1).limit.get(), 3);
        assert_eq!(budget(79).limit.get(), 3);
        assert_eq!(budget(100).limit.get(), 5);
        assert_eq!(budget(12).in_wave(0, 3, 4), 1);
        assert_eq!(budget(12).in_wave(1, 3, 4), 3);
        assert_eq!(budget(24).in_wave(0, 6, 4), 3);
        assert_eq!(budget(3).in_wave(0, 3, 1), 3);
        let chosen = FailureBudget::new(NonZeroU32::new(2), 100);
        assert_eq!((chosen.in_wave(0, 1, 4), chosen.in_wave(2, 50, 4)), (2, 2));
    }
}
