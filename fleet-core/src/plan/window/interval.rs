//! Half-open intervals of time, and what they say about an instant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A stretch of time `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
}

impl Interval {
    /// Whether the instant lies inside.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// How long it is; zero if it ends before it starts.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.end.since(self.start)
    }
}

/// What a schedule says about an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Opening {
    /// Open.
    Open {
        /// When it closes; none if it does not within the next week.
        closes_at: Option<Timestamp>,
    },
    /// Closed.
    Closed {
        /// When it opens; none if it does not in the time looked at.
        opens_at: Option<Timestamp>,
    },
}

/// Whether an update that takes an estimated time may begin at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It may begin.
    Now,
    /// No window is open.
    Closed {
        /// When one opens, if any does.
        opens_at: Option<Timestamp>,
    },
    /// A window is open, but closes before the update would be over.
    TooShort {
        /// When the open one closes.
        closes_at: Timestamp,
        /// When the next one that is long enough opens, if any does.
        opens_at: Option<Timestamp>,
    },
}

/// Sorts, drops the empty ones and joins those that touch or overlap.
pub(super) fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.retain(|interval| interval.start < interval.end);
    intervals.sort_unstable();
    let mut joined: Vec<Interval> = Vec::with_capacity(intervals.len());
    for interval in intervals {
        match joined.last_mut() {
            Some(last) if interval.start <= last.end => last.end = last.end.max(interval.end),
            _ => joined.push(interval),
        }
    }
    joined
}

/// What these intervals (joined and in order) say about an instant. An end past `horizon` counts as none.
pub(super) fn opening(joined: &[Interval], at: Timestamp, horizon: Timestamp) -> Opening {
    match joined.iter().find(|interval| at < interval.end) {
        Some(interval) if interval.contains(at) => Opening::Open {
            closes_at: (interval.end < horizon).then_some(interval.end),
        },
        Some(interval) => Opening::Closed {
            opens_at: Some(interval.start),
        },
        None => Opening::Closed { opens_at: None },
    }
}

/// Whether work of this length may begin.
pub(super) fn fit(
    joined: &[Interval],
    at: Timestamp,
    horizon: Timestamp,
    estimate: Duration,
) -> Fit {
    let later = || {
        joined
            .iter()
            .find(|interval| interval.start > at && interval.length() >= estimate)
            .map(|interval| interval.start)
    };
    match opening(joined, at, horizon) {
        Opening::Closed { .. } => Fit::Closed { opens_at: later() },
        Opening::Open { closes_at: None } => Fit::Now,
        Opening::Open {
            closes_at: Some(end),
        } if at.saturating_add(estimate) <= end => Fit::Now,
        Opening::Open {
            closes_at: Some(closes_at),
        } => Fit::TooShort {
            closes_at,
            opens_at: later(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        Interval {
            start: Timestamp::from_millis(start),
            end: Timestamp::from_millis(end),
        }
    }

    #[test]
    fn what_touches_is_joined_and_what_is_empty_vanishes() {
        let joined = merged(vec![
            interval(30, 40),
            interval(10, 20),
            interval(5, 5),
            interval(20, 25),
            interval(12, 14),
        ]);
        assert_eq!(joined, [interval(10, 25), interval(30, 40)]);
    }

    #[test]
    fn work_begins_only_where_it_ends_in_time() {
        let joined = [interval(0, 10), interval(20, 60)];
        let far = Timestamp::from_millis(1000);
        let check = |at: i64, millis: u64, expect: Fit| {
            let estimate = Duration::from_millis(millis);
            assert_eq!(
                fit(&joined, Timestamp::from_millis(at), far, estimate),
                expect,
                "at {at} for {millis}"
            );
        };
        check(0, 10, Fit::Now);
        check(
            1,
            10,
            Fit::TooShort {
                closes_at: Timestamp::from_millis(10),
                opens_at: Some(Timestamp::from_millis(20)),
            },
        );
        check(
            1,
            50,
            Fit::TooShort {
                closes_at: Timestamp::from_millis(10),
                opens_at: None,
            },
        );
        check(
            10,
            5,
            Fit::Closed {
                opens_at: Some(Timestamp::from_millis(20)),
            },
        );
        check(60, 1, Fit::Closed { opens_at: None });
    }
}
