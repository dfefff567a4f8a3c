//! Every minute of a week, and the days on which clocks jump.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn calendar(text: &str) -> WeeklyCalendar {
    WeeklyCalendar::parse(&[text]).unwrap()
}

/// The openings from an instant on, as `start/end` in UTC.
#[track_caller]
fn check(spec: &str, from: &str, expect: &[&str]) {
    let found: Vec<String> = calendar(spec)
        .openings(at(from), expect.len())
        .iter()
        .map(|interval| format!("{}/{}", interval.start, interval.end))
        .collect();
    assert_eq!(found, expect, "{spec} from {from}");
}

#[test]
fn all_minutes_of_a_week_agree_with_plain_arithmetic() {
    // 2026-01-05 is a Monday.
    let monday = at("2026-01-05T00:00:00Z");
    let specs: [(&str, &[(u32, u32)]); 6] = [
        (
            "Mon-Fri 02:00-05:00",
            &[
                (120, 300),
                (1560, 1740),
                (3000, 3180),
                (4440, 4620),
                (5880, 6060),
            ],
        ),
        ("Wed 22:00-04:00", &[(4200, 4560)]),
        ("Sun 22:00-04:00", &[(9960, 10_080), (0, 240)]),
        ("Fri 22:00-Mon 05:00", &[(7080, 10080), (0, 300)]),
        ("Tue 00:00-24:00", &[(1440, 2880)]),
        (
            "Mon 00:00-24:00; Mon 12:00-13:00; Tue 00:00-00:01",
            &[(0, 1441)],
        ),
    ];
    for (spec, open) in specs {
        let calendar = calendar(spec);
        for minute in 0..10_080u32 {
            let now = monday.saturating_add(Duration::from_secs(u64::from(minute) * 60));
            let expect = open
                .iter()
                .any(|&(start, end)| start <= minute && minute < end);
            assert_eq!(calendar.contains(now), expect, "{spec} at minute {minute}");
            let next = calendar.next_open(now).unwrap();
            assert_eq!(next == now, expect, "{spec} at minute {minute}");
            assert_eq!(
                matches!(calendar.opening(now), Opening::Open { .. }),
                expect
            );
            assert!(calendar.contains(next), "{spec} at minute {minute}");
        }
    }
}

#[test]
fn both_jumps_of_berlin() {
    // 2026-03-29: 02:00 CET is 03:00 CEST. 2026-10-25: 03:00 CEST is 02:00 CET.
    check(
        "Sun 02:00-05:00 Europe/Berlin",
        "2026-03-28T12:00:00Z",
        &["2026-03-29T01:00:00Z/2026-03-29T03:00:00Z"],
    );
    check(
        "Sun 02:00-03:00 Europe/Berlin",
        "2026-03-28T12:00:00Z",
        &["2026-04-05T00:00:00Z/2026-04-05T01:00:00Z"],
    );
    check(
        "Sun 01:00-02:30 Europe/Berlin",
        "2026-03-28T12:00:00Z",
        &["2026-03-29T00:00:00Z/2026-03-29T01:00:00Z"],
    );
    check(
        "Sun 02:00-02:30 Europe/Berlin",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:00:00Z/2026-10-25T01:30:00Z"],
    );
    check(
        "Sun 01:00-05:00 Europe/Berlin",
        "2026-10-24T12:00:00Z",
        &["2026-10-24T23:00:00Z/2026-10-25T04:00:00Z"],
    );
    assert_eq!(
        calendar("Sun 02:00-03:00 Europe/Berlin").skipped(at("2026-03-25T00:00:00Z")),
        ["2026-03-29"]
    );
    assert!(
        calendar("Sun 02:00-03:00 Europe/Berlin")
            .skipped(at("2026-04-01T00:00:00Z"))
            .is_empty()
    );
}

#[test]
fn a_window_that_the_clock_skips_is_told_a_week_before() {
    let night = calendar("Sun 02:00-03:00 Europe/Berlin");
    assert_eq!(
        night.skipped_warning(at("2026-03-22T12:00:00Z")).as_deref(),
        Some("does not open on 2026-03-29: the clock is put forward past it")
    );
    assert_eq!(night.skipped_warning(at("2026-03-29T12:00:00Z")), None);
    assert_eq!(night.skipped_warning(at("2026-10-24T12:00:00Z")), None);
}

#[test]
fn both_jumps_of_new_york() {
    check(
        "Sun 02:30-04:00 America/New_York",
        "2026-03-07T12:00:00Z",
        &["2026-03-08T07:00:00Z/2026-03-08T08:00:00Z"],
    );
    check(
        "Sun 01:00-01:30 America/New_York",
        "2026-10-31T12:00:00Z",
        &["2026-11-01T05:00:00Z/2026-11-01T06:30:00Z"],
    );
}

#[test]
fn half_hour_jumps_of_lord_howe() {
    // 2026-10-04: 02:00 +10:30 is 02:30 +11. 2026-04-05: 02:00 +11 is 01:30 +10:30.
    check(
        "Sun 02:00-04:00 Australia/Lord_Howe",
        "2026-10-03T00:00:00Z",
        &["2026-10-03T15:30:00Z/2026-10-03T17:00:00Z"],
    );
    check(
        "Sun 02:10-02:20 Australia/Lord_Howe",
        "2026-10-03T00:00:00Z",
        &["2026-10-10T15:10:00Z/2026-10-10T15:20:00Z"],
    );
    check(
        "Sun 01:30-02:00 Australia/Lord_Howe",
        "2026-04-04T00:00:00Z",
        &["2026-04-04T14:30:00Z/2026-04-04T15:30:00Z"],
    );
}

#[test]
fn the_day_that_apia_never_had() {
    // 2011-12-29 24:00 at -10 was 2011-12-31 00:00 at +14; the 30th, a Friday, did not exist.
    check(
        "Fri 02:00-05:00 Pacific/Apia",
        "2011-12-28T00:00:00Z",
        &["2012-01-05T12:00:00Z/2012-01-05T15:00:00Z"],
    );
    check(
        "Thu 22:00-Sat 02:00 Pacific/Apia",
        "2011-12-28T00:00:00Z",
        &["2011-12-30T08:00:00Z/2011-12-30T12:00:00Z"],
    );
    check(
        "Fri 22:00-02:00 Pacific/Apia",
        "2011-12-28T00:00:00Z",
        &["2011-12-30T10:00:00Z/2011-12-30T12:00:00Z"],
    );
    assert_eq!(
        calendar("Fri 02:00-05:00 Pacific/Apia").skipped(at("2011-12-28T00:00:00Z")),
        ["2011-12-30"]
    );
}

/// Minute by minute through a day that jumps: open exactly where the civil time lies in the window, except that a fold
/// is bridged.
#[test]
fn every_minute_of_the_days_that_jump() {
    for (zone, from) in [
        ("Europe/Berlin", "2026-03-28T00:00:00Z"),
        ("Europe/Berlin", "2026-10-24T00:00:00Z"),
        ("America/New_York", "2026-03-07T00:00:00Z"),
        ("America/New_York", "2026-10-31T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T00:00:00Z"),
        ("Pacific/Apia", "2011-12-29T00:00:00Z"),
    ] {
        let calendar = calendar(&format!("daily 01:45-02:15 {zone}"));
        let tz = calendar.windows[0].zone.clone();
        let mut opened_on = Vec::new();
        let mut was_open = false;
        for minute in 0..3 * 1440u64 {
            let now = at(from).saturating_add(Duration::from_secs(minute * 60));
            let civil = tz.to_datetime(now.jiff()).time();
            let inside =
                civil >= Time::constant(1, 45, 0, 0) && civil < Time::constant(2, 15, 0, 0);
            let open = calendar.contains(now);
            assert!(
                open || !inside,
                "{zone} {now}: civil {civil} lies in the window"
            );
            if open && !inside {
                let again = (1..=120u64).any(|later| {
                    let civil = tz
                        .to_datetime(now.saturating_add(Duration::from_secs(later * 60)).jiff())
                        .time();
                    civil >= Time::constant(1, 45, 0, 0) && civil < Time::constant(2, 15, 0, 0)
                });
                assert!(again, "{zone} {now}: open at {civil} outside a fold");
            }
            if open && !was_open {
                opened_on.push(tz.to_datetime(now.jiff()).date());
            }
            was_open = open;
        }
        let mut dates = opened_on.clone();
        dates.dedup();
        assert_eq!(dates, opened_on, "{zone} opened twice on one date");
        assert!(opened_on.len() >= 2, "{zone} opened on {opened_on:?}");
    }
}

#[test]
fn a_clock_that_jumps_is_answered_for_where_it_stands() {
    let calendar = calendar("Mon 02:00-03:00");
    let inside = at("2026-01-05T02:30:00Z");
    let hour = Duration::from_secs(3600);
    assert!(calendar.contains(inside));
    assert!(!calendar.contains(inside.saturating_add(hour)));
    assert!(!calendar.contains(inside.saturating_sub(hour)));
    assert!(calendar.contains(inside));
}

#[test]
fn always_open_never_closes_and_an_empty_list_is_refused() {
    let now = at("2026-01-05T02:30:00Z");
    assert_eq!(calendar("daily 00:00-24:00").closes_at(now), None);
    assert_eq!(
        calendar("daily 00:00-24:00").fit(now, Duration::from_secs(86_400)),
        Fit::Now
    );
    assert!(
        WeeklyCalendar::parse::<&str>(&[])
            .unwrap_err()
            .to_string()
            .contains("never")
    );
}

proptest::proptest! {
    #[test]
    fn what_opens_next_is_open_and_nothing_before_it(minutes in 0u64..60 * 24 * 365, zone in 0usize..4, start in 0u16..1440, len in 1u16..1440) {
        let zone = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"][zone];
        let end = (start + len) % 1440;
        let spec = format!("Wed,Sun {:02}:{:02}-{:02}:{:02} {zone}", start / 60, start % 60, end / 60, end % 60);
        let calendar = calendar(&spec);
        let now = at("2026-01-01T00:00:00Z").saturating_add(Duration::from_secs(minutes * 60));
        let next = calendar.next_open(now).unwrap();
        proptest::prop_assert!(next >= now);
        proptest::prop_assert!(calendar.contains(next), "{} {} {}", spec, now, next);
        proptest::prop_assert_eq!(next == now, calendar.contains(now));
        if next > now {
            let before = next.saturating_sub(Duration::from_secs(1));
            proptest::prop_assert!(!calendar.contains(before));
            let between = now.saturating_add(next.since(now) / 2);
            proptest::prop_assert!(between == next || !calendar.contains(between));
        }
        if let Some(close) = calendar.closes_at(next) {
            proptest::prop_assert!(!calendar.contains(close));
            proptest::prop_assert!(calendar.contains(close.saturating_sub(Duration::from_millis(1))));
        }
    }
}
