//! The text of a window: `Mon-Fri 02:00-05:00 Europe/Berlin`, `22:00-04:00`, `Fri 22:00-Mon 05:00 UTC`.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Why a text is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct WindowError {
    /// What would have been accepted.
    pub expected: &'static str,
    /// The text as given.
    pub found: String,
}

const FORM: &str = "a window such as \"Mon-Fri 02:00-05:00 Europe/Berlin\", \"22:00-04:00\" or \
                    \"Fri 22:00-Mon 05:00\" (UTC without a zone)";
const TIME: &str = "a time of day from 00:00 to 23:59 (an end may be 24:00)";
const EMPTY: &str = "an end that differs from the start (a whole day is 00:00-24:00)";
const ZONE: &str = "a time zone of the IANA database such as Europe/Berlin, or UTC";

const MINUTES_PER_DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// One opening in each week, in civil time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Day on which it opens, 0 is Monday.
    pub(super) day: u8,
    /// Minute of that day at which it opens, 0–1439.
    pub(super) start: u16,
    /// Days after `day` on which it closes, 0–7.
    pub(super) days_over: u8,
    /// Minute of that day at which it closes, 0–1439.
    pub(super) end: u16,
}

/// One window as parsed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    pub(super) spans: Vec<Span>,
    pub(super) zone: TimeZone,
}

/// Reads one window.
pub(super) fn window(text: &str) -> Result<Window, WindowError> {
    let fail = |expected| WindowError {
        expected,
        found: text.to_owned(),
    };
    let compact = text.replace(" - ", "-").replace(", ", ",");
    let words: Vec<&str> = compact.split_whitespace().collect();
    let (spans, rest) = match words.as_slice() {
        [times, rest @ ..] if times.contains(':') => {
            (same_day_spans(&[0, 1, 2, 3, 4, 5, 6], times), rest)
        }
        [day, start, end, rest @ ..] if end.contains(':') => (long_span(day, start, end), rest),
        [days, times, rest @ ..] => match days_of(days) {
            Some(days) => (same_day_spans(&days, times), rest),
            None => return Err(fail(FORM)),
        },
        _ => return Err(fail(FORM)),
    };
    let spans = spans.map_err(fail)?;
    let zone = match rest {
        [] => TimeZone::UTC,
        [name] if name.eq_ignore_ascii_case("utc") => TimeZone::UTC,
        // The bundled database: what a window means must not depend on files of the host.
        [name] => TimeZoneDatabase::bundled()
            .get(name)
            .map_err(|_| fail(ZONE))?,
        _ => return Err(fail(FORM)),
    };
    Ok(Window { spans, zone })
}

fn same_day_spans(days: &[u8], times: &str) -> Result<Vec<Span>, &'static str> {
    let (start, end) = times.split_once('-').ok_or(FORM)?;
    let (start, end) = (start_minute(start)?, end_minute(end)?);
    if start == end || (start, end) == (0, 0) {
        return Err(EMPTY);
    }
    Ok(days
        .iter()
        .map(|&day| span(day, start, u8::from(end < start), end))
        .collect())
}

fn long_span(day: &str, start_and_day: &str, end: &str) -> Result<Vec<Span>, &'static str> {
    let (start, end_day) = start_and_day.split_once('-').ok_or(FORM)?;
    let (day, end_day) = (day_of(day).ok_or(FORM)?, day_of(end_day).ok_or(FORM)?);
    let (start, end) = (start_minute(start)?, end_minute(end)?);
    let days_over = (end_day + 7 - day) % 7;
    if days_over == 0 && start == end {
        return Err(EMPTY);
    }
    let days_over = if days_over == 0 && end < start {
        7
    } else {
        days_over
    };
    Ok(vec![span(day, start, days_over, end)])
}

/// Writes 24:00 as 00:00 of the next day.
fn span(day: u8, start: u16, days_over: u8, end: u16) -> Span {
    Span {
        day,
        start,
        days_over: days_over + u8::from(end == MINUTES_PER_DAY),
        end: end % MINUTES_PER_DAY,
    }
}

fn start_minute(text: &str) -> Result<u16, &'static str> {
    end_minute(text).and_then(|minute| {
        if minute < MINUTES_PER_DAY {
            Ok(minute)
        } else {
            Err(TIME)
        }
    })
}

fn end_minute(text: &str) -> Result<u16, &'static str> {
    let (hour, minute) = text.split_once(':').ok_or(TIME)?;
    let number = |text: &str| -> Option<u16> {
        let plain = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    match (number(hour), number(minute)) {
        (Some(24), Some(0)) => Ok(MINUTES_PER_DAY),
        (Some(hour @ 0..=23), Some(of_hour @ 0..=59)) if minute.len() == 2 => {
            Ok(hour * 60 + of_hour)
        }
        _ => Err(TIME),
    }
}

/// `Mon`, `Mon-Fri`, `Sat-Mon`, `Mon,Wed,Fri`, `daily`.
fn days_of(text: &str) -> Option<Vec<u8>> {
    if text.eq_ignore_ascii_case("daily") || text == "*" {
        return Some((0..7).collect());
    }
    let mut found = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day_of(first)?, day_of(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            found[usize::from((first + step) % 7)] = true;
        }
    }
    Some((0..7).filter(|&day| found[usize::from(day)]).collect())
}

fn day_of(text: &str) -> Option<u8> {
    let text = text.to_ascii_lowercase();
    let full = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    (0..7u8).find(|&day| DAYS[usize::from(day)] == text || full[usize::from(day)] == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[(u8, u16, u8, u16)]) {
        let spans: Vec<_> = window(text)
            .unwrap()
            .spans
            .iter()
            .map(|span| (span.day, span.start, span.days_over, span.end))
            .collect();
        assert_eq!(spans, expect, "{text}");
    }

    #[test]
    fn windows_are_read() {
        check("Mon 02:00-05:00", &[(0, 120, 0, 300)]);
        check("monday 2:00-05:00 UTC", &[(0, 120, 0, 300)]);
        check(
            "Sat-Mon 02:00 - 05:00 Europe/Berlin",
            &[(0, 120, 0, 300), (5, 120, 0, 300), (6, 120, 0, 300)],
        );
        check(
            "Mon,Wed 22:00-04:00",
            &[(0, 1320, 1, 240), (2, 1320, 1, 240)],
        );
        check("Sun 20:00-24:00", &[(6, 1200, 1, 0)]);
        check("Fri 22:00-Mon 05:00", &[(4, 1320, 3, 300)]);
        check("Mon 05:00-Mon 04:00", &[(0, 300, 7, 240)]);
        assert_eq!(window("02:00-03:00").unwrap().spans.len(), 7);
        assert_eq!(window("daily 00:00-24:00").unwrap().spans.len(), 7);
    }

    #[test]
    fn bad_windows_say_what_was_expected() {
        for bad in [
            "",
            "Mon",
            "Mon 02:00",
            "Mon 25:00-26:00",
            "Mon 02:00-02:00",
            "Mon 24:00-25:00",
            "Mon 2-3",
            "Mon 02:00-05:00 Europe/Atlantis",
            "Mon 02:00-05:00 UTC extra",
            "Moon 02:00-05:00",
            "Mon 02:60-03:00",
            "Mon 02:00-Mon 02:00",
            "Mon- 02:00-03:00",
            "02:00+03:00",
            "Mon 00:0-05:00",
        ] {
            let error = window(bad).unwrap_err();
            assert!(
                error.to_string().starts_with("expected a"),
                "{bad}: {error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = window(&text);
        }

        #[test]
        fn near_misses_do_not_make_the_reader_panic(text in "[MonTueFri0-9:, -]{0,24}( Europe/Berlin)?") {
            let _ = window(&text);
        }
    }
}
