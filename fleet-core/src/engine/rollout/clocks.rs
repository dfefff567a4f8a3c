//! A wall clock that is set, and a host that slept: what a rollout counts from an instant must hear of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ids::RolloutId;
use crate::ports::{Clock, StoredRollout};
use crate::time::Timestamp;

/// A wall clock that is further from where it would be by itself was set.
const DRIFT_MAX_MS: u64 = 60_000;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) wall: Timestamp,
    running: Duration,
}

impl Clocks {
    pub(super) fn of(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.now(),
            running: clock.monotonic(),
        }
    }

    /// By how many milliseconds the wall clock was set since `before`, if by more than it may drift.
    fn set_since(self, before: Self) -> Option<i64> {
        let ran = self.running.saturating_sub(before.running).as_millis();
        let ran = i64::try_from(ran).unwrap_or(i64::MAX);
        let passed = self.wall.as_millis() - before.wall.as_millis();
        let by = passed.saturating_sub(ran);
        (by.unsigned_abs() > DRIFT_MAX_MS).then_some(by)
    }
}

/// What the clocks showed when each rollout that is not over was written or looked at last. A rollout of which that failed
/// has not heard of a jump yet, and hears of it the next time.
#[derive(Debug, Default)]
pub(super) struct ClocksSeen(Mutex<HashMap<RolloutId, Clocks>>);

impl ClocksSeen {
    /// By how many milliseconds the wall clock was set since a rollout was written or looked at last.
    pub(super) fn set_since(&self, rollout: &RolloutId, now: Clocks) -> Option<i64> {
        let before = self.lock().get(rollout).copied();
        now.set_since(before?)
    }

    pub(super) fn keep(&self, rollout: RolloutId, clocks: Clocks) {
        self.lock().insert(rollout, clocks);
    }

    /// Forgets the rollouts that are over.
    pub(super) fn forget_others(&self, active: &[StoredRollout]) {
        self.lock()
            .retain(|id, _| active.iter().any(|stored| stored.plan.id() == *id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RolloutId, Clocks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
