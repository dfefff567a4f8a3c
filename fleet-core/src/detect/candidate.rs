//! From what was found to what follows: up to date, offered, or held, and why.

use std::time::Duration;

use super::finding::{Hold, Verdict};
use super::known::Known;
use super::subject::{Followed, Subject};
use super::tags::is_older;
use crate::image::ImageRef;
use crate::model::Release;
use crate::time::Timestamp;

/// What follows for one instance from a release that would run another image than it runs.
///
/// The order of the holds is that of their weight: what a person forbade, what failed, what goes back, what is young.
pub(super) fn verdict(
    subject: &Subject,
    followed: &Followed,
    release: &Release,
    known: &Known,
    first_seen: Timestamp,
    now: Timestamp,
) -> Verdict {
    if !known.allows(&followed.image) {
        return Verdict::Held(Hold::NotAllowed);
    }
    if known.is_quarantined(&subject.instance, &release.image.digest) {
        return Verdict::Held(Hold::Quarantined);
    }
    if !followed.asked_for && goes_back(subject, &followed.image, release, known) {
        return Verdict::Held(Hold::MovedBackwards);
    }
    let born = born(release, first_seen, now);
    match subject
        .min_age
        .and_then(|min_age| too_young(born, min_age, now))
    {
        Some(hold) => Verdict::Held(hold),
        None => Verdict::Offered,
    }
}

fn goes_back(subject: &Subject, image: &ImageRef, release: &Release, known: &Known) -> bool {
    let digests = [
        Some(&release.image.digest),
        Some(&release.platform_digest),
        release.config_digest.as_ref(),
    ];
    let ran = digests
        .into_iter()
        .flatten()
        .any(|digest| known.ran_formerly(&subject.instance, digest));
    let from = known
        .deployed(&subject.instance)
        .and_then(|deployed| deployed.image.tag());
    let older = from
        .zip(image.tag())
        .is_some_and(|(from, to)| is_older(from, to));
    ran || older
}

/// When the release came into the world: when the registry says that it was pushed, else when fleet saw it first. A
/// push in the future is no statement.
fn born(release: &Release, first_seen: Timestamp, now: Timestamp) -> Timestamp {
    release
        .pushed_at
        .filter(|pushed| *pushed <= now)
        .unwrap_or(first_seen)
}

fn too_young(born: Timestamp, min_age: Duration, now: Timestamp) -> Option<Hold> {
    (now.since(born) < min_age).then(|| Hold::TooYoung {
        ready_at: born.saturating_add(min_age),
        min_age,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::detect::subject::tests::{digest, id, subject};
    use crate::detect::{ImagePolicy, ImageRule};
    use crate::ports::{Deployed, Quarantined};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn now() -> Timestamp {
        at("2026-01-31T12:00:00Z")
    }

    fn release(name: &str) -> Release {
        Release {
            image: image().pinned(digest(name)),
            platform_digest: digest(&format!("{name} manifest")),
            config_digest: Some(digest(&format!("{name} config"))),
            local: None,
            pushed_at: None,
            size_bytes: 0,
            annotations: BTreeMap::new(),
        }
    }

    fn image() -> ImageRef {
        "r.io/app:1.2.0".parse().unwrap()
    }

    fn deployed(subject: &Subject, image: &str, name: &str) -> Deployed {
        Deployed {
            instance: subject.instance.clone(),
            image: image.parse().unwrap(),
            digest: digest(name),
            image_id: id(&format!("{name} config")),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[track_caller]
    fn check(
        subject: &Subject,
        known: &Known,
        release: &Release,
        asked_for: bool,
        expect: Verdict,
    ) {
        let followed = Followed {
            image: release.image.image.clone(),
            asked_for,
        };
        let first_seen = at("2026-01-31T11:00:00Z");
        assert_eq!(
            verdict(subject, &followed, release, known, first_seen, now()),
            expect
        );
    }

    #[test]
    fn nothing_known_is_an_offer() {
        let subject = subject("web", "r.io/app:1.2.0", "0 config");
        check(
            &subject,
            &Known::new(),
            &release("1"),
            false,
            Verdict::Offered,
        );
    }

    #[test]
    fn the_policy_and_the_quarantine_hold_even_what_was_asked_for() {
        let subject = subject("web", "r.io/app:1.2.0", "0 config");
        let rule: ImageRule = "r.io/app-evil".parse().unwrap();
        let known = Known::new().with_policy(Some(ImagePolicy::new(vec![rule])));
        check(
            &subject,
            &known,
            &release("1"),
            true,
            Verdict::Held(Hold::NotAllowed),
        );
        let failed = |instance| Quarantined {
            instance,
            digest: digest("1"),
            reason: "unhealthy".to_owned(),
            at: now(),
        };
        let known = Known::new().with_quarantined([failed(subject.instance.clone())]);
        check(
            &subject,
            &known,
            &release("1"),
            true,
            Verdict::Held(Hold::Quarantined),
        );
        check(&subject, &known, &release("2"), false, Verdict::Offered);
        let other = super::super::subject::tests::subject("db", "r.io/app:1.2.0", "0 config");
        check(&other, &known, &release("1"), false, Verdict::Offered);
    }

    #[test]
    fn a_tag_that_moves_back_is_held_unless_a_person_asked() {
        let subject = subject("web", "r.io/app:1.2.0", "2 config");
        let held = Verdict::Held(Hold::MovedBackwards);
        for kind in ["1", "1 manifest", "1 config"] {
            let known = Known::new()
                .with_deployed([deployed(&subject, "r.io/app:1.2.0", "2")])
                .with_former(&subject.instance, [digest(kind)]);
            check(&subject, &known, &release("1"), false, held.clone());
            check(&subject, &known, &release("1"), true, Verdict::Offered);
            check(&subject, &known, &release("3"), false, Verdict::Offered);
        }
    }

    #[test]
    fn an_older_version_is_never_offered_unless_a_person_asked() {
        let subject = subject("web", "r.io/app:1.2.0", "2 config");
        let known = Known::new().with_deployed([deployed(&subject, "r.io/app:1.3.0", "2")]);
        check(
            &subject,
            &known,
            &release("1"),
            false,
            Verdict::Held(Hold::MovedBackwards),
        );
        check(&subject, &known, &release("1"), true, Verdict::Offered);
    }

    #[test]
    fn age_counts_from_the_push_else_from_the_first_sight() {
        let mut subject = subject("web", "r.io/app:1.2.0", "0 config");
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let young = |ready_at: &str, min_age| {
            Verdict::Held(Hold::TooYoung {
                ready_at: at(ready_at),
                min_age,
            })
        };
        let mut release = release("1");
        subject.min_age = Some(hours(1));
        check(&subject, &Known::new(), &release, false, Verdict::Offered);
        subject.min_age = Some(hours(2));
        let expect = young("2026-01-31T13:00:00Z", hours(2));
        check(&subject, &Known::new(), &release, false, expect.clone());
        release.pushed_at = Some(at("2026-01-31T09:00:00Z"));
        check(&subject, &Known::new(), &release, false, Verdict::Offered);
        release.pushed_at = Some(at("2026-02-01T09:00:00Z"));
        check(&subject, &Known::new(), &release, false, expect);
    }
}
