//! How long an instance has been behind, and the alert when that is too long: nobody looks at a fleet in which all is said
//! to be well, and a window that is too small for its updates never opens a question by itself.

use std::time::Duration;

use crate::detect::{Finding, Hold, Verdict};
use crate::ids::ImageId;
use crate::model::FleetSettings;
use crate::model::labels::LabelMode;
use crate::plan::strategy::StrategyError;
use crate::ports::Lag;
use crate::record::EventKind;
use crate::time::parse_duration;

/// The setting.
const KEY: &str = "default.max_lag";
/// How it is switched off.
const OFF: &str = "off";
/// Its default: longer than any week of windows.
const MAX_LAG: Duration = Duration::from_secs(14 * 24 * 3600);

/// How long an instance that is updated by itself may be behind before an alert says so: `default.max_lag`, by default 14
/// days; none if it is `off`.
///
/// # Errors
/// The setting is neither a duration nor `off`.
pub fn max_lag(settings: &FleetSettings) -> Result<Option<Duration>, StrategyError> {
    match settings.values.get(KEY).map(|text| text.trim()) {
        None => Ok(Some(MAX_LAG)),
        Some(OFF) => Ok(None),
        Some(text) => {
            let known = parse_duration(text).ok().filter(|lag| !lag.is_zero());
            let expected = format!("a duration such as 14d, or {OFF}, for {KEY}");
            known
                .map(Some)
                .ok_or_else(|| StrategyError::new(expected, text))
        }
    }
}

/// How long this instance may be behind; none where it is not updated by itself. How old a release must be before it is
/// taken comes on top.
pub(super) fn allowed(
    max_lag: Option<Duration>,
    mode: LabelMode,
    min_age: Option<Duration>,
) -> Option<Duration> {
    let max_lag = max_lag.filter(|_| mode == LabelMode::Auto)?;
    Some(max_lag.saturating_add(min_age.unwrap_or_default()))
}

/// What a finding makes of the lag of an instance that runs this image.
pub(super) fn lag(finding: &Finding, earlier: Option<&Lag>, runs: &ImageId) -> Option<Lag> {
    let same = earlier.filter(|lag| lag.runs == *runs).map(|lag| Lag {
        // The clock may have been set back since.
        since: lag.since.min(finding.checked_at),
        ..lag.clone()
    });
    match finding.verdict {
        Verdict::UpToDate => None,
        // Who could not be asked has not said that anything changed.
        Verdict::Unknown(_) => same,
        Verdict::Offered | Verdict::Held(_) => Some(same.unwrap_or_else(|| Lag {
            runs: runs.clone(),
            since: finding.checked_at,
            told: false,
        })),
    }
}

/// Notes in `lag` whether an alert tells of it, and says what changed about that. `allowed`: see [`allowed`].
pub(super) fn told(
    finding: &Finding,
    earlier: Option<&Lag>,
    lag: Option<&mut Lag>,
    allowed: Option<Duration>,
) -> Option<(EventKind, serde_json::Value)> {
    let resolved = || {
        let data = serde_json::json!({ "code": "max_lag" });
        (EventKind::AlertResolved, data)
    };
    let was_told = earlier.is_some_and(|earlier| earlier.told);
    // It caught up, or runs something else.
    let Some(lag) = lag.filter(|lag| !was_told || lag.told) else {
        return was_told.then(resolved);
    };
    if matches!(finding.verdict, Verdict::Unknown(_)) {
        return None;
    }
    // A hold that a person must deal with has an alert of its own.
    let waits = matches!(
        finding.verdict,
        Verdict::Offered | Verdict::Held(Hold::TooYoung { .. })
    );
    let behind = finding.checked_at.since(lag.since);
    let too_long = waits && allowed.is_some_and(|allowed| behind >= allowed);
    match (lag.told, too_long) {
        (true, false) => {
            lag.told = false;
            Some(resolved())
        }
        (false, true) => {
            lag.told = true;
            let (name, since) = (&finding.instance.name, lag.since);
            let see = format!("`fleet explain {name}`, `fleet plan` and `fleet rollout list`");
            let data = serde_json::json!({
                "code": "max_lag",
                "reason": format!("behind since {since}: see {see}"),
                "behind_since": since,
                "image": finding.image,
                "digest": finding.digest,
            });
            Some((EventKind::AlertRaised, data))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InstanceId, InstanceName};
    use crate::image::Digest;
    use crate::model::Channel;
    use crate::time::Timestamp;

    const WEEK: Option<Duration> = Some(Duration::from_secs(7 * 24 * 3600));

    /// What is told in the course of these days: day, the image that runs, what is found, how long it may be behind.
    #[track_caller]
    fn check(days: &[(i64, char, Verdict, Option<Duration>)], expect: &[(i64, &str)]) {
        let mut earlier: Option<Lag> = None;
        let mut found = Vec::new();
        for (day, runs, verdict, allowed) in days {
            let at = Timestamp::from_millis(day * 24 * 3_600_000);
            let finding = Finding {
                instance: InstanceId::local(InstanceName::new("web").unwrap()),
                channel: Channel::default(),
                image: Some("app:1".parse().unwrap()),
                digest: Some(Digest::of(b"new")),
                verdict: verdict.clone(),
                release: None,
                first_seen: at,
                checked_at: at,
            };
            let runs = format!("sha256:{}", runs.to_string().repeat(64));
            let mut now = lag(&finding, earlier.as_ref(), &ImageId::new(runs).unwrap());
            let told = told(&finding, earlier.as_ref(), now.as_mut(), *allowed);
            found.extend(told.map(|(kind, _)| (*day, kind.label().to_owned())));
            earlier = now;
        }
        let found: Vec<_> = found
            .iter()
            .map(|(day, kind)| (*day, kind.as_str()))
            .collect();
        assert_eq!(found, expect);
    }

    use Verdict::{Offered, UpToDate};

    #[test]
    fn an_alert_is_raised_once_and_resolved_when_it_runs_something_else() {
        let raised = (8, "alert.raised");
        check(
            &[
                (0, 'a', UpToDate, WEEK),
                (1, 'a', Offered, WEEK),
                (7, 'a', Offered, WEEK),
                (8, 'a', Offered, WEEK),
                (9, 'a', Offered, WEEK),
                (10, 'b', UpToDate, WEEK),
                (11, 'b', UpToDate, WEEK),
            ],
            &[raised, (10, "alert.resolved")],
        );
        // The next release was there before anybody saw that it had caught up.
        check(
            &[
                (1, 'a', Offered, WEEK),
                (8, 'a', Offered, WEEK),
                (10, 'b', Offered, WEEK),
                (16, 'b', Offered, WEEK),
                (17, 'b', Offered, WEEK),
            ],
            &[raised, (10, "alert.resolved"), (17, "alert.raised")],
        );
    }

    #[test]
    fn silence_neither_ends_nor_begins_it() {
        let away = Verdict::Unknown("the registry is away".to_owned());
        check(
            &[
                (0, 'a', away.clone(), WEEK),
                (1, 'a', Offered, WEEK),
                (5, 'a', away.clone(), WEEK),
                (8, 'a', Offered, WEEK),
                (9, 'a', away, WEEK),
                (10, 'a', Offered, WEEK),
            ],
            &[(8, "alert.raised")],
        );
    }

    #[test]
    fn what_somebody_chose_or_hears_of_otherwise_is_not_told() {
        let bad = Verdict::Held(Hold::Quarantined);
        check(&[(0, 'a', bad.clone(), WEEK), (9, 'a', bad, WEEK)], &[]);
        check(&[(0, 'a', Offered, None), (99, 'a', Offered, None)], &[]);
        // The setting is lowered.
        check(
            &[(0, 'a', Offered, None), (9, 'a', Offered, WEEK)],
            &[(9, "alert.raised")],
        );
        // A stream of releases of which none gets old enough.
        let young = Verdict::Held(Hold::TooYoung {
            ready_at: Timestamp::UNIX_EPOCH,
            min_age: Duration::from_secs(1),
        });
        check(
            &[(0, 'a', young.clone(), WEEK), (9, 'a', young, WEEK)],
            &[(9, "alert.raised")],
        );
    }

    #[test]
    fn what_is_no_longer_too_long_is_resolved() {
        check(
            &[
                (0, 'a', Offered, WEEK),
                (7, 'a', Offered, WEEK),
                (8, 'a', Offered, None),
                (9, 'a', Offered, WEEK),
                (10, 'a', Verdict::Held(Hold::Quarantined), WEEK),
            ],
            &[
                (7, "alert.raised"),
                (8, "alert.resolved"),
                (9, "alert.raised"),
                (10, "alert.resolved"),
            ],
        );
    }

    #[test]
    fn a_clock_that_was_set_back_silences_nothing() {
        let days = [(5000, 'a', Offered, WEEK), (10, 'a', Offered, WEEK)];
        check(
            &[days.as_slice(), &[(17, 'a', Offered, WEEK)]].concat(),
            &[(17, "alert.raised")],
        );
    }

    #[test]
    fn who_waits_for_releases_to_grow_old_may_be_behind_for_longer() {
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(allowed(WEEK, LabelMode::Auto, None), WEEK);
        assert_eq!(
            allowed(WEEK, LabelMode::Auto, Some(14 * day)),
            Some(21 * day)
        );
        assert_eq!(allowed(WEEK, LabelMode::Manual, None), None);
        assert_eq!(allowed(None, LabelMode::Auto, Some(day)), None);
    }

    #[test]
    fn the_setting_is_a_duration_or_off() {
        let read = |value: &str| {
            let mut settings = FleetSettings::default();
            settings.values.insert(KEY.to_owned(), value.to_owned());
            max_lag(&settings).map_err(|error| error.to_string())
        };
        assert_eq!(max_lag(&FleetSettings::default()), Ok(Some(MAX_LAG)));
        assert_eq!(read("7d"), Ok(WEEK));
        assert_eq!(read(" off "), Ok(None));
        for bad in ["0s", "never", "-1d", ""] {
            let error = read(bad).unwrap_err();
            assert!(error.contains("14d, or off"), "{bad}: {error}");
        }
    }
}
