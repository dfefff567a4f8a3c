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
    pub(super) fn set_since(self, before: Self) -> Option<i64> {
        let ran = self.running.saturating_sub(before.running).as_millis();
        let ran = i64::try_from(ran).unwrap_or(i64::MAX);
        let passed = self.wall.as_millis() - before.wall.as_millis();
        let by = passed.saturating_sub(ran);
        (by.unsigned_abs() > DRIFT_MAX_MS).then_some(by)
    }

    /// The one that was read later; `other`, if that cannot be told.
    fn later(self, other: Self) -> Self {
        if other.running >= self.running {
            other
        } else {
            self
        }
    }
}

/// What the clocks showed when each rollout that is not over was written or looked at last. A rollout of which that failed
/// has not heard of a jump yet, and hears of it the next time.
#[derive(Debug, Default)]
pub(super) struct ClocksSeen(Mutex<HashMap<RolloutId, Heard>>);

/// What a rollout has heard of.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    clocks: Option<Clocks>,
    /// What it has heard of if it has this generation: whoever reads it may do so before its writer knows that it was
    /// written, and its writer may never learn.
    about_to: Option<(u64, Clocks)>,
}

impl Heard {
    fn at(&self, generation: u64) -> Option<Clocks> {
        let written = self.about_to.filter(|(next, _)| generation >= *next);
        match (self.clocks, written) {
            (Some(clocks), Some((_, next))) => Some(clocks.later(next)),
            (clocks, next) => clocks.or(next.map(|(_, clocks)| clocks)),
        }
    }
}

impl ClocksSeen {
    /// By how many milliseconds the wall clock was set since this state of a rollout was written or looked at last. Nothing
    /// is known of the time before it was seen first.
    pub(super) fn set_since(&self, stored: &StoredRollout, now: Clocks) -> Option<i64> {
        let mut all = self.lock();
        let heard = all.entry(stored.plan.id()).or_default();
        let before = heard.at(stored.generation);
        now.set_since(before.unwrap_or_else(|| *heard.clocks.insert(now)))
    }

    /// A rollout is about to be written in this generation.
    pub(super) fn about_to_write(&self, rollout: RolloutId, generation: u64, clocks: Clocks) {
        let mut all = self.lock();
        all.entry(rollout).or_default().about_to = Some((generation, clocks));
    }

    /// A rollout was written, or looked at.
    pub(super) fn keep(&self, rollout: RolloutId, clocks: Clocks) {
        let mut all = self.lock();
        let heard = all.entry(rollout).or_default();
        // Somebody else may have been slower to begin and quicker to end.
        heard.clocks = Some(heard.clocks.map_or(clocks, |known| known.later(clocks)));
    }

    /// Forgets the rollouts that are over.
    pub(super) fn forget_others(&self, active: &[StoredRollout]) {
        self.lock()
            .retain(|id, _| active.iter().any(|stored| stored.plan.id() == *id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RolloutId, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance::fixtures::rollout;

    fn clocks(running: u64, wall: i64) -> Clocks {
        Clocks {
            wall: Timestamp::from_millis(wall * 1000),
            running: Duration::from_secs(running),
        }
    }

    fn stored(generation: u64) -> StoredRollout {
        let (plan, state) = rollout(1, 3);
        StoredRollout {
            plan,
            state,
            generation,
        }
    }

    const JUMP: i64 = 8 * 3600;

    #[test]
    fn a_jump_is_heard_of_until_it_is_written() {
        let seen = ClocksSeen::default();
        assert_eq!(seen.set_since(&stored(1), clocks(10, 1010)), None);
        let after = clocks(20, 1020 + JUMP);
        for _ in 0..2 {
            assert_eq!(seen.set_since(&stored(1), after), Some(JUMP * 1000));
        }
        seen.keep(stored(1).plan.id(), after);
        assert_eq!(seen.set_since(&stored(2), clocks(30, 1030 + JUMP)), None);
    }

    #[test]
    fn who_began_before_a_jump_and_ended_after_it_does_not_bring_it_back() {
        let seen = ClocksSeen::default();
        let id = stored(1).plan.id();
        seen.keep(id, clocks(20, 1020 + JUMP));
        seen.keep(id, clocks(10, 1010));
        seen.about_to_write(id, 2, clocks(10, 1010));
        assert_eq!(seen.set_since(&stored(2), clocks(30, 1030 + JUMP)), None);
    }

    #[test]
    fn what_was_written_has_heard_of_it_though_nobody_knows_that_it_was_written() {
        let seen = ClocksSeen::default();
        let id = stored(1).plan.id();
        seen.keep(id, clocks(10, 1010));
        seen.about_to_write(id, 2, clocks(20, 1020 + JUMP));
        let later = clocks(30, 1030 + JUMP);
        assert_eq!(seen.set_since(&stored(1), later), Some(JUMP * 1000));
        assert_eq!(seen.set_since(&stored(2), later), None);
    }
}
