//! Instants and durations. The core never reads a clock: every instant is handed in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant on the wall clock, in UTC, with nanoseconds. Serialised as RFC 3339.
///
/// Wall time is for people and for windows; it never orders events (sequence numbers do).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(jiff::Timestamp);

/// A text that is not an RFC 3339 instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an instant such as 2026-01-31T03:00:00Z, found {found:?}")]
pub struct TimestampError {
    /// The text as given.
    pub found: String,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(jiff::Timestamp::UNIX_EPOCH);

    /// The instant `millis` milliseconds after (before, if negative) the Unix epoch, clamped to what can be
    /// represented (years -9999 to 9999).
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(at) => Self(at),
            Err(_) if millis < 0 => Self(jiff::Timestamp::MIN),
            Err(_) => Self(jiff::Timestamp::MAX),
        }
    }

    /// Milliseconds since the Unix epoch, rounded towards zero.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Seconds since the Unix epoch, rounded towards zero.
    #[must_use]
    pub fn as_secs(self) -> i64 {
        self.0.as_second()
    }

    /// This instant moved forward, clamped to the last representable one.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
        self.0
            .saturating_add(by)
            .map(Self)
            .unwrap_or(Self(jiff::Timestamp::MAX))
    }

    /// This instant moved back, clamped to the first representable one.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
        self.0
            .saturating_sub(by)
            .map(Self)
            .unwrap_or(Self(jiff::Timestamp::MIN))
    }

    /// The time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0.duration_since(earlier.0)).unwrap_or(Duration::ZERO)
    }

    /// This instant as seen by `jiff`, for calendar arithmetic inside the crate.
    pub(crate) fn jiff(self) -> jiff::Timestamp {
        self.0
    }

    /// Wraps an instant of `jiff`.
    pub(crate) fn from_jiff(at: jiff::Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| TimestampError {
            found: text.to_owned(),
        })
    }
}

/// Reads a duration such as `10s`, `5m`, `1h30m`, `250ms`, `14d`. A day has 24 hours.
///
/// # Errors
/// A message that says what was expected and found.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as 10s, 5m, 1h30m or 14d, found {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: jiff::Span = text.parse().map_err(|_| expected())?;
    let days_of_24_hours = jiff::SpanRelativeTo::days_are_24_hours();
    let span = span.to_duration(days_of_24_hours).map_err(|_| expected())?;
    Duration::try_from(span).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_up_to_days() {
        let seconds = |text| parse_duration(text).map(|found| found.as_secs());
        for (text, expect) in [
            ("0", 0),
            ("1h30m", 5400),
            ("14d", 1_209_600),
            ("1d12h", 129_600),
        ] {
            assert_eq!(seconds(text), Ok(expect), "{text}");
        }
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "-1d", "1mo", "2y", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
