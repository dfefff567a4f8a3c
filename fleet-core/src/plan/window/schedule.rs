//! What says when: windows, a preferred hour, a policy, and freezes, which beat them all.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use serde::{Deserialize, Serialize};

use super::calendar::WeeklyCalendar;
use super::interval::{Fit, Interval, Opening, fit, merged, opening};
use super::parse::WindowError;
use crate::time::Timestamp;

/// How long an occurrence of `cron:EXPR` stays open: as long as a preferred hour.
const CRON_OPEN: Duration = Duration::from_secs(3600);
/// Occurrences of a cron expression that are looked at ahead; with an expression that matches each minute they reach
/// four hours, longer than any update's estimate.
const CRON_AHEAD: usize = 240;
/// The hour of `nightly`, and of tenants that name none.
pub(crate) const NIGHTLY_HOUR_UTC: u8 = 3;

/// When updates may start.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// At any time.
    Always,
    /// In weekly windows.
    Weekly(WeeklyCalendar),
    /// For an hour from each match of a cron expression, UTC.
    Cron(Box<Cron>),
}

impl Schedule {
    /// The hour from `hour`:00 UTC, each day. Hours above 23 count as 23.
    #[must_use]
    pub fn preferred_hour(hour: u8) -> Self {
        let hour = hour.min(23);
        let text = format!("{hour:02}:00-{:02}:00", hour + 1);
        WeeklyCalendar::parse(&[text]).map_or(Self::Always, Self::Weekly)
    }

    /// Open or closed, and until when.
    #[must_use]
    pub fn opening(&self, now: Timestamp) -> Opening {
        match self {
            Self::Always => Opening::Open { closes_at: None },
            Self::Weekly(calendar) => calendar.opening(now),
            Self::Cron(cron) => opening(
                &occurrences(cron, now),
                now,
                Timestamp::from_millis(i64::MAX),
            ),
        }
    }

    /// Whether work that takes this long may begin now.
    #[must_use]
    pub fn fit(&self, now: Timestamp, estimate: Duration) -> Fit {
        match self {
            Self::Always => Fit::Now,
            Self::Weekly(calendar) => calendar.fit(now, estimate),
            Self::Cron(cron) => fit(
                &occurrences(cron, now),
                now,
                Timestamp::from_millis(i64::MAX),
                estimate,
            ),
        }
    }

    /// A warning for people when the change of the clock swallows a window within a week.
    #[must_use]
    pub fn skipped_warning(&self, now: Timestamp) -> Option<String> {
        match self {
            Self::Weekly(calendar) => calendar.skipped_warning(now),
            Self::Always | Self::Cron(_) => None,
        }
    }

    /// The next stretches in which it is open, at most `count`; none where it is always open.
    #[must_use]
    pub fn openings(&self, now: Timestamp, count: usize) -> Vec<Interval> {
        match self {
            Self::Always => Vec::new(),
            Self::Weekly(calendar) => calendar.openings(now, count),
            Self::Cron(cron) => occurrences(cron, now)
                .into_iter()
                .filter(|open| now < open.end)
                .take(count)
                .collect(),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Weekly(calendar) => calendar.fmt(f),
            Self::Cron(cron) => write!(f, "cron:{}", cron.as_str()),
        }
    }
}

/// `fleet.policy`: who decides, and when, for instances whose tenant has no config.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// As soon as something is found.
    OnPush,
    /// In the hour from 03:00 UTC.
    Nightly,
    /// When a person asks.
    Manual,
    /// For an hour from each match of a cron expression, UTC.
    Cron(Box<Cron>),
}

impl Policy {
    /// When automatic updates may start under it.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        match self {
            Self::OnPush | Self::Manual => Schedule::Always,
            Self::Nightly => Schedule::preferred_hour(NIGHTLY_HOUR_UTC),
            Self::Cron(cron) => Schedule::Cron(cron.clone()),
        }
    }
}

impl FromStr for Policy {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |expected| WindowError {
            expected,
            found: text.to_owned(),
        };
        match text.trim() {
            "on-push" => Ok(Self::OnPush),
            "nightly" => Ok(Self::Nightly),
            "manual" => Ok(Self::Manual),
            other => {
                let expression = other
                    .strip_prefix("cron:")
                    .ok_or_else(|| fail("a policy: on-push, nightly, manual or cron:EXPR"))?;
                Cron::from_str(expression.trim())
                    .map(|cron| Self::Cron(Box::new(cron)))
                    .map_err(|_| fail("a cron expression such as cron:30 3 * * 1-5 (minute hour day month weekday)"))
            }
        }
    }
}

/// A stretch of time in which no update starts, whatever the windows say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// First instant of it.
    pub from: Timestamp,
    /// First instant after it.
    pub until: Timestamp,
    /// Why, for people.
    pub reason: String,
}

impl Freeze {
    /// The last end among the freezes that hold at an instant, with its reason.
    #[must_use]
    pub fn in_force(freezes: &[Self], now: Timestamp) -> Option<&Self> {
        freezes
            .iter()
            .filter(|freeze| freeze.from <= now && now < freeze.until)
            .max_by_key(|freeze| freeze.until)
    }
}

impl FromStr for Freeze {
    type Err = WindowError;

    /// Reads `FROM..UNTIL [REASON]` with RFC 3339 instants.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || WindowError {
            expected: "a freeze such as 2026-12-20T00:00:00Z..2027-01-02T00:00:00Z holidays (the end after the start)",
            found: text.to_owned(),
        };
        let (span, reason) = text
            .trim()
            .split_once(' ')
            .unwrap_or((text.trim(), "freeze"));
        let (from, until) = span.split_once("..").ok_or_else(fail)?;
        let freeze = Self {
            from: from.parse().map_err(|_| fail())?,
            until: until.parse().map_err(|_| fail())?,
            reason: reason.trim().to_owned(),
        };
        if freeze.from < freeze.until {
            Ok(freeze)
        } else {
            Err(fail())
        }
    }
}

fn occurrences(cron: &Cron, now: Timestamp) -> Vec<Interval> {
    let from = now
        .saturating_sub(CRON_OPEN)
        .jiff()
        .to_zoned(jiff::tz::TimeZone::UTC);
    let open = cron.iter_after(from).take(CRON_AHEAD).map(|at| {
        let start = Timestamp::from_jiff(at.timestamp());
        Interval {
            start,
            end: start.saturating_add(CRON_OPEN),
        }
    });
    merged(open.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(schedule: &Schedule, now: &str, expect: Opening) {
        assert_eq!(schedule.opening(at(now)), expect, "{schedule} at {now}");
    }

    fn closed(opens_at: &str) -> Opening {
        Opening::Closed {
            opens_at: Some(at(opens_at)),
        }
    }

    fn open(closes_at: &str) -> Opening {
        Opening::Open {
            closes_at: Some(at(closes_at)),
        }
    }

    #[test]
    fn the_preferred_hour_is_an_hour_of_each_day() {
        let hour = Schedule::preferred_hour(3);
        check(
            &hour,
            "2026-01-05T02:59:59Z",
            closed("2026-01-05T03:00:00Z"),
        );
        check(&hour, "2026-01-05T03:00:00Z", open("2026-01-05T04:00:00Z"));
        check(
            &hour,
            "2026-01-05T04:00:00Z",
            closed("2026-01-06T03:00:00Z"),
        );
        check(
            &Schedule::preferred_hour(23),
            "2026-01-05T23:30:00Z",
            open("2026-01-06T00:00:00Z"),
        );
    }

    #[test]
    fn policies_open_when_they_say() {
        let policy = |text: &str| text.parse::<Policy>().unwrap().schedule();
        check(
            &policy("on-push"),
            "2026-01-05T12:00:00Z",
            Opening::Open { closes_at: None },
        );
        check(
            &policy("nightly"),
            "2026-01-05T12:00:00Z",
            closed("2026-01-06T03:00:00Z"),
        );
        let cron = policy("cron:30 4 * * 1-5");
        check(
            &cron,
            "2026-01-05T04:29:00Z",
            closed("2026-01-05T04:30:00Z"),
        );
        check(&cron, "2026-01-05T04:30:00Z", open("2026-01-05T05:30:00Z"));
        check(&cron, "2026-01-05T05:29:59Z", open("2026-01-05T05:30:00Z"));
        check(
            &cron,
            "2026-01-09T05:30:00Z",
            closed("2026-01-12T04:30:00Z"),
        );
        assert_eq!(
            policy("cron:* * * * *").fit(at("2026-01-05T04:30:00Z"), Duration::from_secs(7200)),
            Fit::Now
        );
    }

    #[test]
    fn bad_policies_and_freezes_say_what_was_expected() {
        for bad in ["", "often", "cron:", "cron:61 * * * *", "Nightly"] {
            assert!(
                bad.parse::<Policy>()
                    .unwrap_err()
                    .to_string()
                    .starts_with("expected a"),
                "{bad}"
            );
        }
        for bad in [
            "",
            "2026-12-20..2026-12-21",
            "2026-12-21T00:00:00Z..2026-12-20T00:00:00Z x",
        ] {
            assert!(bad.parse::<Freeze>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_freeze_in_force_counts() {
        let freezes = [
            "2026-12-20T00:00:00Z..2026-12-27T00:00:00Z short",
            "2026-12-24T00:00:00Z..2027-01-02T00:00:00Z holidays",
        ]
        .map(|text| text.parse::<Freeze>().unwrap());
        let reason =
            |now: &str| Freeze::in_force(&freezes, at(now)).map(|freeze| freeze.reason.as_str());
        assert_eq!(reason("2026-12-19T00:00:00Z"), None);
        assert_eq!(reason("2026-12-21T00:00:00Z"), Some("short"));
        assert_eq!(reason("2026-12-25T00:00:00Z"), Some("holidays"));
        assert_eq!(reason("2027-01-02T00:00:00Z"), None);
    }
}
