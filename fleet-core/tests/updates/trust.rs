//! What the image policy and signatures let begin.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fleet_core::detect::{Hold, ImagePolicy, Verdict};
use fleet_core::engine::{Fleet, FleetError, FleetOptions};
use fleet_core::image::PinnedImage;
use fleet_core::ports::{ImageVerifier, PortError, PortErrorKind};
use fleet_core::testing::Workload;
use fleet_core::update::Outcome;

use super::{World, assert_outcome};

/// Says what it is told to say, and keeps what it was asked.
struct Said {
    answer: Option<PortErrorKind>,
    asked: Mutex<Vec<PinnedImage>>,
}

#[async_trait]
impl ImageVerifier for Said {
    async fn verify(&self, image: &PinnedImage) -> Result<(), PortError> {
        self.asked.lock().unwrap().push(image.clone());
        match self.answer {
            None => Ok(()),
            Some(kind) => Err(PortError::new("verify the signature", kind, "as told")),
        }
    }
}

fn policy(rules: &[&str]) -> FleetOptions {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    FleetOptions {
        image_policy: Some(ImagePolicy::new(rules)),
        ..FleetOptions::default()
    }
}

fn with_policy(rules: &[&str]) -> World {
    let mut world = World::with_web();
    world.publish("app:2", Workload::healthy("2"));
    world.fleet = Fleet::new(world.fleet.ports().clone(), policy(rules));
    world
}

fn with_verifier(answer: Option<PortErrorKind>) -> (World, Arc<Said>) {
    let mut world = World::with_web();
    world.publish("app:2", Workload::healthy("2"));
    let said = Arc::new(Said {
        answer,
        asked: Mutex::default(),
    });
    let mut ports = world.fleet.ports().clone();
    ports.verifier = Some(said.clone());
    world.fleet = Fleet::new(ports, FleetOptions::default());
    (world, said)
}

#[track_caller]
fn assert_refused(world: &World, code: &str, for_now: bool) {
    let before = world.host.container("web").map(|web| web.started_at);
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::Refused);
    let refusal = report.refusal.expect("refused with a reason");
    assert_eq!((refusal.code.as_str(), refusal.for_now), (code, for_now));
    assert_eq!(
        world.host.container("web").map(|web| web.started_at),
        before
    );
    assert_eq!(world.names(), ["web"]);
}

#[test]
fn what_the_policy_names_is_updated() {
    let world = with_policy(&["app"]);
    assert_outcome(&world.update("web", "app:2"), Outcome::Committed);
}

#[test]
fn what_the_policy_does_not_name_is_neither_offered_nor_begun_nor_pinned() {
    let world = with_policy(&["ghcr.io/org/**"]);
    // The running image is not named either; the target is what is told first.
    assert_refused(&world, "image_not_allowed", false);
    let findings = world
        .host
        .drive(world.fleet.check("test"))
        .unwrap()
        .unwrap();
    let verdicts: Vec<_> = findings.iter().map(|finding| &finding.verdict).collect();
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Held(Hold::NotAllowed) | Verdict::UpToDate)),
        "{verdicts:?}"
    );
    let image = "app:2".parse().unwrap();
    let pinned = world.host.drive(world.fleet.pin(&image)).unwrap();
    assert!(
        matches!(pinned, Err(FleetError::Refused { .. })),
        "{pinned:?}"
    );
}

#[test]
fn an_update_whose_way_back_is_not_allowed_does_not_begin() {
    let world = with_policy(&["other/app"]);
    world.publish("other/app:2", Workload::healthy("2"));
    let report = world.update("web", "other/app:2");
    assert_outcome(&report, Outcome::Refused);
    assert_eq!(report.refusal.unwrap().code, "rollback_not_allowed");
}

#[test]
fn only_a_signature_that_holds_lets_an_update_begin() {
    let (world, said) = with_verifier(None);
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::Committed);
    let asked = said.asked.lock().unwrap();
    let digests: Vec<_> = asked.iter().map(|image| image.digest.to_string()).collect();
    assert_eq!(
        digests,
        [report.to_digest.unwrap()],
        "verified by the digest that was started"
    );
}

#[test]
fn a_missing_signature_is_refused_for_good_and_a_missing_answer_for_now() {
    assert_refused(
        &with_verifier(Some(PortErrorKind::Denied)).0,
        "unsigned",
        false,
    );
    for kind in [
        PortErrorKind::Timeout,
        PortErrorKind::Failed,
        PortErrorKind::Unreachable,
    ] {
        assert_refused(&with_verifier(Some(kind)).0, "signature_unknown", true);
    }
}
