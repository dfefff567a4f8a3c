//! What the snapshots of a plan need on the disk.

use serde::{Deserialize, Serialize};

use super::rollout_plan::RolloutPlan;
use crate::model::SnapshotEstimate;

/// What the snapshots of a plan need at most, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskNeed {
    /// Bytes of all its snapshots. Older ones that are removed meanwhile are not taken off.
    pub needed_bytes: u64,
    /// Bytes of those that are taken at the same time, in the wave that needs most.
    pub at_once_bytes: u64,
    /// Bytes free where snapshots are kept.
    pub free_bytes: u64,
    /// Bytes of these that must stay free.
    pub reserve_bytes: u64,
}

impl DiskNeed {
    /// What a plan needs whose members, in their order, need so many bytes each. `space` is what a snapshot of nothing
    /// would be told.
    #[must_use]
    pub fn of(plan: &RolloutPlan, members: &[u64], space: SnapshotEstimate) -> Self {
        let waves = 0..u32::try_from(plan.waves.len()).unwrap_or(u32::MAX);
        let waves = waves.map(|wave| members.get(plan.wave_range(wave)).unwrap_or_default());
        Self {
            needed_bytes: sum(members),
            at_once_bytes: at_once(waves, plan.request.limits.max_concurrent),
            free_bytes: space.free_bytes,
            reserve_bytes: space.reserve_bytes,
        }
    }

    /// Whether all of it fits and the reserve stays.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.leaves_reserve(self.needed_bytes)
    }

    /// Whether those that are taken at the same time fit, with nothing of the others kept.
    #[must_use]
    pub fn fits_at_once(&self) -> bool {
        self.leaves_reserve(self.at_once_bytes)
    }

    fn leaves_reserve(&self, bytes: u64) -> bool {
        bytes.saturating_add(self.reserve_bytes) <= self.free_bytes
    }
}

/// Who goes together with whom depends on how long each takes: the largest of a wave are taken to meet.
fn at_once<'a>(waves: impl Iterator<Item = &'a [u64]>, at_a_time: u32) -> u64 {
    let at_a_time = at_a_time.max(1) as usize;
    let largest = waves.map(|wave| {
        let mut wave = wave.to_vec();
        wave.sort_unstable_by(|a, b| b.cmp(a));
        sum(wave.iter().take(at_a_time))
    });
    largest.max().unwrap_or(0)
}

fn sum<'a>(bytes: impl IntoIterator<Item = &'a u64>) -> u64 {
    bytes
        .into_iter()
        .fold(0, |sum, more| sum.saturating_add(*more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_at_once(waves: &[&[u64]], at_a_time: u32, expect: u64) {
        assert_eq!(at_once(waves.iter().copied(), at_a_time), expect);
    }

    #[test]
    fn the_largest_of_a_wave_are_taken_to_meet() {
        check_at_once(&[&[1, 2, 4], &[8, 16]], 2, 24);
        check_at_once(&[&[9, 9, 9], &[1, 1, 20]], 2, 21);
        check_at_once(&[&[9, 9, 9], &[1, 1, 20]], 9, 27);
        check_at_once(&[&[0, 0]], 5, 0);
        check_at_once(&[], 5, 0);
        check_at_once(&[&[u64::MAX, 1]], 2, u64::MAX);
    }

    #[track_caller]
    fn check_fits(needed_bytes: u64, at_once_bytes: u64, all: bool, at_once: bool) {
        let need = DiskNeed {
            needed_bytes,
            at_once_bytes,
            free_bytes: 100,
            reserve_bytes: 10,
        };
        assert_eq!((need.fits(), need.fits_at_once()), (all, at_once));
    }

    #[test]
    fn the_reserve_is_not_for_snapshots() {
        check_fits(90, 30, true, true);
        check_fits(91, 90, false, true);
        check_fits(91, 91, false, false);
    }
}
