//! Weekly windows, resolved to instants date by date.

use std::fmt;
use std::time::Duration;

use jiff::ToSpan as _;
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::interval::{Fit, Interval, Opening, fit, merged, opening};
use super::parse::{Span, Window, WindowError, window};
use crate::time::Timestamp;

/// Days before the instant on which a window that is still open may have begun (a window lasts a week at most).
const DAYS_BACK: i32 = 8;
/// Days after the instant in which the next opening is looked for. A weekly window may fall into a gap of the clock
/// once, so two weeks and a day hold an opening; the third week is for a calendar whose zone skips a day as well.
const DAYS_AHEAD: i32 = 22;
/// A window that stays open longer than this is reported as one that does not close.
const NEVER_CLOSES: Duration = Duration::from_secs(8 * 24 * 3600);

/// The union of weekly windows, at least one.
///
/// Civil start and civil end are resolved for each date: what falls into a gap moves to the first instant that exists,
/// in a fold the start is the earlier and the end the later one. So a window in a gap shrinks, down to nothing, and
/// none opens twice in a fold.
#[derive(Debug, Clone, PartialEq)]
pub struct WeeklyCalendar {
    texts: Vec<String>,
    windows: Vec<Window>,
}

impl WeeklyCalendar {
    /// Reads windows; each text may hold several, separated by `;`.
    ///
    /// # Errors
    /// A text is not a window, or there is none at all (which would mean "never": leave the setting out for "always").
    pub fn parse<S: AsRef<str>>(specs: &[S]) -> Result<Self, WindowError> {
        let texts: Vec<String> = specs
            .iter()
            .flat_map(|spec| spec.as_ref().split(';'))
            .map(|text| text.trim().to_owned())
            .collect();
        if texts.is_empty() {
            return Err(WindowError {
                expected: "at least one window (an empty list would mean never; leave it out for always)",
                found: "[]".to_owned(),
            });
        }
        let windows = texts
            .iter()
            .map(|text| window(text))
            .collect::<Result<_, _>>()?;
        Ok(Self { texts, windows })
    }

    /// Whether the instant lies in a window.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        self.windows.iter().any(|window| {
            let date = window.zone.to_datetime(now.jiff()).date();
            intervals(window, date, DAYS_BACK, 1).any(|interval| interval.contains(now))
        })
    }

    /// Open or closed, and until when.
    #[must_use]
    pub fn opening(&self, now: Timestamp) -> Opening {
        opening(&self.around(now), now, now.saturating_add(NEVER_CLOSES))
    }

    /// The first instant from `now` on at which a window is open; none if there is none in three weeks.
    #[must_use]
    pub fn next_open(&self, now: Timestamp) -> Option<Timestamp> {
        match self.opening(now) {
            Opening::Open { .. } => Some(now),
            Opening::Closed { opens_at } => opens_at,
        }
    }

    /// When the window that is open closes; none if none is open, or if it does not close within a week.
    #[must_use]
    pub fn closes_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self.opening(now) {
            Opening::Open { closes_at } => closes_at,
            Opening::Closed { .. } => None,
        }
    }

    /// Whether work that takes this long may begin now.
    #[must_use]
    pub fn fit(&self, now: Timestamp, estimate: Duration) -> Fit {
        fit(
            &self.around(now),
            now,
            now.saturating_add(NEVER_CLOSES),
            estimate,
        )
    }

    /// The stretches in which it is open, from the one open at `now` on, at most `count`, three weeks at most.
    #[must_use]
    pub fn openings(&self, now: Timestamp, count: usize) -> Vec<Interval> {
        self.around(now)
            .into_iter()
            .filter(|interval| now < interval.end)
            .take(count)
            .collect()
    }

    /// Dates within the next week on which a window falls into a gap of the clock and does not open, as people there
    /// write them.
    #[must_use]
    pub fn skipped(&self, now: Timestamp) -> Vec<String> {
        let mut dates = Vec::new();
        for window in &self.windows {
            let today = window.zone.to_datetime(now.jiff()).date();
            for (date, span) in dated_spans(window, today, 0, 7) {
                if resolve(&window.zone, date, span)
                    .is_some_and(|interval| interval.length().is_zero() && now <= interval.start)
                {
                    dates.push(date.to_string());
                }
            }
        }
        dates
    }

    /// What [`WeeklyCalendar::skipped`] finds, in words; none if it finds nothing.
    #[must_use]
    pub fn skipped_warning(&self, now: Timestamp) -> Option<String> {
        let dates = self.skipped(now);
        (!dates.is_empty()).then(|| {
            format!(
                "does not open on {}: the clock is put forward past it",
                dates.join(", ")
            )
        })
    }

    fn around(&self, now: Timestamp) -> Vec<Interval> {
        let all = self.windows.iter().flat_map(|window| {
            let date = window.zone.to_datetime(now.jiff()).date();
            intervals(window, date, DAYS_BACK, DAYS_AHEAD)
        });
        merged(all.collect())
    }
}

impl fmt::Display for WeeklyCalendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts.join("; "))
    }
}

fn dated_spans(
    window: &Window,
    date: Date,
    back: i32,
    ahead: i32,
) -> impl Iterator<Item = (Date, Span)> {
    (-back..=ahead)
        .filter_map(move |days| date.checked_add(days.days()).ok())
        .flat_map(move |date| {
            let weekday = date.weekday().to_monday_zero_offset();
            window
                .spans
                .iter()
                .filter(move |span| i32::from(span.day) == i32::from(weekday))
                .map(move |span| (date, *span))
        })
}

fn intervals(window: &Window, date: Date, back: i32, ahead: i32) -> impl Iterator<Item = Interval> {
    dated_spans(window, date, back, ahead)
        .filter_map(|(date, span)| resolve(&window.zone, date, span))
}

/// None at the ends of the calendar, where dates cannot be represented.
fn resolve(zone: &TimeZone, date: Date, span: Span) -> Option<Interval> {
    let end_date = date.checked_add(i32::from(span.days_over).days()).ok()?;
    Some(Interval {
        start: instant(zone, date, span.start, Fold::Earlier)?,
        end: instant(zone, end_date, span.end, Fold::Later)?,
    })
}

#[derive(Clone, Copy)]
enum Fold {
    Earlier,
    Later,
}

fn instant(zone: &TimeZone, date: Date, minute: u16, fold: Fold) -> Option<Timestamp> {
    let hour = i8::try_from(minute / 60).ok()?;
    let of_hour = i8::try_from(minute % 60).ok()?;
    let civil = date.to_datetime(Time::new(hour, of_hour, 0, 0).ok()?);
    let at = match (zone.to_ambiguous_timestamp(civil).offset(), fold) {
        (AmbiguousOffset::Unambiguous { offset }, _)
        | (AmbiguousOffset::Fold { before: offset, .. }, Fold::Earlier)
        | (AmbiguousOffset::Fold { after: offset, .. }, Fold::Later) => {
            offset.to_timestamp(civil).ok()?
        }
        // With the offset that holds after the gap the civil time lies before it: the next transition is its end.
        (AmbiguousOffset::Gap { after, .. }, _) => {
            let before_gap = after.to_timestamp(civil).ok()?;
            zone.following(before_gap).next()?.timestamp()
        }
    };
    Some(Timestamp::from_jiff(at))
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
