//! Time that counts only while work is possible.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Longest stretch between two looks that counts. Looks come at least twice as often; a longer one means that the
/// process was down, the host slept or the clock jumped, and nobody worked.
const STEP_MAX: Duration = Duration::from_secs(60);

/// A stopwatch that survives restarts and ignores jumps of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Countdown {
    /// Time that counted, in milliseconds.
    pub elapsed_ms: u64,
    /// Since when it runs; none while it stands.
    pub running_since: Option<Timestamp>,
}

impl Countdown {
    /// Looks at the clock: adds what passed while it ran, and lets it run on or stand.
    #[must_use]
    pub fn looked(self, now: Timestamp, working: bool) -> Self {
        let passed = self
            .running_since
            .map_or(Duration::ZERO, |since| now.since(since));
        let counted = if passed > STEP_MAX {
            Duration::ZERO
        } else {
            passed
        };
        let counted = u64::try_from(counted.as_millis()).unwrap_or(0);
        Self {
            elapsed_ms: self.elapsed_ms.saturating_add(counted),
            running_since: working.then_some(now),
        }
    }

    /// Whether so much time counted.
    #[must_use]
    pub fn reached(self, limit: Duration) -> bool {
        Duration::from_millis(self.elapsed_ms) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_downtime_and_jumps_do_not_count() {
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let check = |looks: &[(i64, bool)], expect_secs: u64| {
            let end = looks
                .iter()
                .fold(Countdown::default(), |clock, &(secs, working)| {
                    clock.looked(at(secs), working)
                });
            assert_eq!(end.elapsed_ms, expect_secs * 1000, "{looks:?}");
        };
        check(&[(0, true), (30, true), (60, true)], 60);
        check(&[(0, true), (30, false), (7200, true), (7230, true)], 60);
        check(&[(0, true), (7200, true), (7230, true)], 30);
        check(&[(0, true), (-7200, true), (-7170, true)], 30);
        assert!(
            Countdown {
                elapsed_ms: 1000,
                running_since: None
            }
            .reached(Duration::from_secs(1))
        );
    }
}
