//! Alerts of detection: a release is there, and somebody must know why it is not taken.

use crate::detect::{Finding, Hold, Verdict};
use crate::ports::Availability;
use crate::record::EventKind;

/// What a finding changes about the alerts of its instance: those that are over, then the one that is new.
pub(super) fn changed(
    finding: &Finding,
    earlier: Option<&Availability>,
) -> Vec<(EventKind, serde_json::Value)> {
    let was = |hold: &Hold| {
        let note = earlier.and_then(|earlier| earlier.note.as_deref());
        note == Some(hold.to_string().as_str())
    };
    let is = |hold: &Hold| finding.verdict == Verdict::Held(hold.clone());
    // Who could not be asked has not said that it is over.
    if matches!(finding.verdict, Verdict::Unknown(_)) {
        return Vec::new();
    }
    let same_digest = earlier.is_some_and(|earlier| earlier.digest == finding.digest);
    let mut events = Vec::new();
    for hold in Hold::ALERTS.iter().filter(|hold| was(hold)) {
        if !is(hold) || !same_digest {
            let digest = earlier.and_then(|earlier| earlier.digest.clone());
            let data = serde_json::json!({ "code": hold.code(), "digest": digest });
            events.push((EventKind::AlertResolved, data));
        }
    }
    for hold in Hold::ALERTS.iter().filter(|hold| is(hold)) {
        if !was(hold) || !same_digest {
            let data = serde_json::json!({
                "code": hold.code(),
                "reason": hold.to_string(),
                "image": finding.image,
                "digest": finding.digest,
            });
            events.push((EventKind::AlertRaised, data));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InstanceId, InstanceName};
    use crate::image::Digest;
    use crate::time::Timestamp;

    fn finding(content: &str, verdict: Verdict) -> Finding {
        Finding {
            instance: InstanceId::local(InstanceName::new("web").unwrap()),
            channel: crate::model::Channel::default(),
            image: Some("app:1".parse().unwrap()),
            digest: Some(Digest::of(content.as_bytes())),
            verdict,
            release: None,
            first_seen: Timestamp::UNIX_EPOCH,
            checked_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// Codes of what each finding changes after the one before it.
    #[track_caller]
    fn check(findings: &[(&str, Verdict)], expect: &[&str]) {
        let mut earlier = None;
        let mut found = Vec::new();
        for (content, verdict) in findings {
            let finding = finding(content, verdict.clone());
            for (kind, data) in changed(&finding, earlier.as_ref()) {
                found.push(format!(
                    "{} {}",
                    kind.label(),
                    data["code"].as_str().unwrap()
                ));
            }
            earlier = finding.availability();
        }
        assert_eq!(found, expect);
    }

    #[test]
    fn an_alert_is_raised_once_and_resolved_when_it_is_over() {
        let back = Verdict::Held(Hold::MovedBackwards);
        let bad = Verdict::Held(Hold::Quarantined);
        let raised = "alert.raised moved_backwards";
        let resolved = "alert.resolved moved_backwards";
        check(&[("a", back.clone()), ("a", back.clone())], &[raised]);
        check(
            &[
                ("a", back.clone()),
                ("b", Verdict::Offered),
                ("b", Verdict::UpToDate),
            ],
            &[raised, resolved],
        );
        check(
            &[("a", back.clone()), ("b", bad)],
            &[raised, resolved, "alert.raised known_bad"],
        );
        check(
            &[("a", back.clone()), ("b", back)],
            &[raised, resolved, raised],
        );
    }

    #[test]
    fn what_ends_by_itself_is_no_alert() {
        let young = Verdict::Held(Hold::TooYoung {
            ready_at: Timestamp::UNIX_EPOCH,
            min_age: std::time::Duration::from_secs(1),
        });
        check(&[("a", young), ("a", Verdict::Offered)], &[]);
    }

    #[test]
    fn silence_resolves_nothing() {
        let changes = changed(
            &finding("a", Verdict::Unknown("away".to_owned())),
            finding("a", Verdict::Held(Hold::Quarantined))
                .availability()
                .as_ref(),
        );
        assert_eq!(changes, []);
    }
}
