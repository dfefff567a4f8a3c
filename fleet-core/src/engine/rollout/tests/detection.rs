//! What detection finds while something else is rolled out, and what it finds again.

use super::*;
use crate::engine::offers::Reference;
use crate::plan::rollout::{HoldKind, RolloutState, WhenNewer};
use crate::testing::conformance::fixtures::rollout;

fn at_once(then: WhenNewer) -> SupersedePolicy {
    SupersedePolicy {
        then,
        quiet_period: Duration::ZERO,
        min_interval: Duration::ZERO,
    }
}

/// What detection makes of this content under a tag.
async fn detect(world: &World, tag: &str, content: &str, then: WhenNewer) -> Detected {
    let mut release = request(tag, rolling(1, 3600, 2));
    release.target.digest = Digest::of(content.as_bytes());
    let (process, now) = (world.process(), world.clock.now());
    let detected = process.detected(release, None, now, at_once(then));
    let detected = detected.await.unwrap();
    world.clock.sleep(Duration::from_secs(1)).await;
    detected
}

#[track_caller]
fn check_waits(detected: &Detected, rollout: RolloutId, reason: &str) {
    match detected {
        Detected::Decided(Decision::WaitFor { rollout: of, why }) => {
            assert_eq!((*of, *why), (rollout, reason));
        }
        other => panic!("expected a wait for {rollout}, found {other:?}"),
    }
}

#[track_caller]
fn check_opened(detected: &Detected) -> RolloutId {
    match detected {
        Detected::Started(Started::Opened(plan)) => plan.id(),
        other => panic!("expected a rollout, found {other:?}"),
    }
}

#[test]
fn what_ran_before_the_first_release_is_the_past_too() {
    paused(async {
        let world = World::of(2);
        let mut release = request("latest", rolling(2, 0, 2));
        release.target.digest = Digest::of(b"a");
        let id = world.start(release).await;
        world.process().run_due().await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::Completed);
        // The tag goes back to what ran when fleet came.
        let back = detect(&world, "latest", "old", WhenNewer::Replace).await;
        assert_eq!(back, Detected::Decided(Decision::MovedBack));
    });
}

#[test]
fn what_a_stopped_rollout_took_instances_away_from_is_the_past_too() {
    paused(async {
        let world = World::of(3);
        let id = check_opened(&detect(&world, "latest", "a", WhenNewer::Replace).await);
        world.process().run_due().await.unwrap();
        let abort = Command::Abort {
            why: "no".to_owned(),
            rollback: false,
        };
        world.process().command(&id, &abort, "ann").await.unwrap();
        let back = detect(&world, "latest", "old", WhenNewer::Replace).await;
        assert_eq!(back, Detected::Decided(Decision::MovedBack));
    });
}

#[test]
fn what_failed_is_known_however_much_else_was_rolled_out_since() {
    paused(async {
        let world = World::of(3);
        let id = check_opened(&detect(&world, "latest", "a", WhenNewer::Replace).await);
        let abort = Command::Abort {
            why: "no".to_owned(),
            rollback: false,
        };
        world.process().command(&id, &abort, "ann").await.unwrap();
        for number in 1..=120 {
            let (plan, state) = rollout(number, 1);
            assert_ne!(plan.request.target.image, image("latest").image);
            let phase = Phase::Completed;
            let over = RolloutState { phase, ..state };
            world.store.create(&plan, &over, Vec::new()).await.unwrap();
        }
        let again = detect(&world, "latest", "a", WhenNewer::Replace).await;
        assert_eq!(again, Detected::Decided(Decision::KnownBad));
    });
}

#[test]
fn a_paused_rollout_of_another_tag_is_not_replaced_silently() {
    paused(async {
        let world = World::of(3);
        let id = world.start(request("2", rolling(1, 3600, 2))).await;
        world.process().run_due().await.unwrap();
        let pause = Command::Pause {
            why: "lunch".to_owned(),
        };
        world.process().command(&id, &pause, "ann").await.unwrap();
        let found = detect(&world, "1", "a", WhenNewer::Replace).await;
        check_waits(&found, id, "a person paused it: abort it to make way");
        world.process().run_due().await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::Running);
        let resume = Command::Resume;
        world.process().command(&id, &resume, "ann").await.unwrap();
        check_opened(&detect(&world, "1", "a", WhenNewer::Replace).await);
    });
}

#[test]
fn a_rollout_of_another_tag_finishes_first_where_that_is_wished() {
    paused(async {
        let world = World::of(3);
        let id = check_opened(&detect(&world, "1.3", "a", WhenNewer::FinishFirst).await);
        world.process().run_due().await.unwrap();
        let found = detect(&world, "1.4", "b", WhenNewer::FinishFirst).await;
        check_waits(&found, id, "it finishes first");
        let found = detect(&world, "1.4", "b", WhenNewer::Ignore).await;
        check_waits(&found, id, "releases are not looked at while it runs");
    });
}

#[test]
fn tags_that_follow_each_other_do_not_starve_a_rollout() {
    paused(async {
        let world = World::of(3);
        for tag in ["1.1", "1.2", "1.3", "1.4"] {
            check_opened(&detect(&world, tag, tag, WhenNewer::Replace).await);
            let process = world.process();
            let cut = world.clock.sleep(Duration::from_secs(1));
            let _ = futures::future::select(Box::pin(process.run_due()), cut).await;
            world.fleet.recover();
        }
        let found = detect(&world, "1.5", "1.5", WhenNewer::Replace).await;
        assert!(
            matches!(found, Detected::Decided(Decision::WaitFor { .. })),
            "{found:?}"
        );
        let alerts = |kind: &EventKind| {
            let events = world.store.events().into_iter();
            let alerts = events.filter(|event| event.event.kind == *kind);
            let codes = alerts.map(|event| event.event.data["code"].clone());
            codes.collect::<Vec<_>>()
        };
        // Somebody is told, once, and told again when it is over.
        assert_eq!(alerts(&EventKind::AlertRaised), ["rollouts_starve"]);
        assert_eq!(alerts(&EventKind::AlertResolved), [""; 0]);
        let process = world.process();
        for _ in 0..3 {
            process.run_due().await.unwrap();
            world.clock.sleep(Duration::from_secs(3600)).await;
        }
        assert_eq!(alerts(&EventKind::AlertResolved), ["rollouts_starve"]);
    });
}

#[test]
fn what_is_being_rolled_out_is_the_same_whatever_waits_beside_it() {
    paused(async {
        let world = World::of(3);
        check_opened(&detect(&world, "latest", "a", WhenNewer::Replace).await);
        world.process().run_due().await.unwrap();
        let mut newer = request("latest", rolling(1, 3600, 2));
        newer.target.digest = Digest::of(b"b");
        newer.needs_approval = true;
        world.start(newer).await;
        let again = detect(&world, "latest", "a", WhenNewer::Replace).await;
        assert_eq!(again, Detected::Decided(Decision::Same));
    });
}

/// The rollouts that end because the tag points to this content now.
async fn withdrawn(world: &World, content: &str) -> Vec<RolloutId> {
    let there = [Reference {
        now_there: image("latest").image.pinned(Digest::of(content.as_bytes())),
        channel: crate::model::Channel::default(),
        local: false,
    }];
    let found = world.process().withdrawn(&there).await.unwrap();
    found.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn back_at_what_is_stable_ends_what_detection_opened_and_takes_it_back() {
    paused(async {
        let world = World::of(3);
        let id = check_opened(&detect(&world, "latest", "a", WhenNewer::Replace).await);
        world.process().run_due().await.unwrap();
        assert_eq!(world.fleet.begun(), 1);
        // Something newer, or older than what is stable, withdraws nothing.
        for content in ["a", "b", "older"] {
            assert_eq!(withdrawn(&world, content).await, []);
        }
        assert_eq!(withdrawn(&world, "old").await, [id]);
        let there = image("latest").image.pinned(Digest::of(b"old"));
        let process = world.process();
        process.take_back_withdrawn(&id, &there).await.unwrap();
        process.run_due().await.unwrap();
        assert!(matches!(world.phase(&id).await, Phase::RolledBack { .. }));
        assert!((0..3).all(|number| {
            world.fleet.runs(&instance(&format!("i{number}"))) == Some(Digest::of(b"old"))
        }));
    });
}

#[test]
fn what_has_not_begun_is_cancelled_when_its_release_is_withdrawn() {
    paused(async {
        let world = World::of(3);
        let id = check_opened(&detect(&world, "latest", "a", WhenNewer::Replace).await);
        assert_eq!(withdrawn(&world, "old").await, [id]);
        let there = image("latest").image.pinned(Digest::of(b"old"));
        let process = world.process();
        process.take_back_withdrawn(&id, &there).await.unwrap();
        assert!(matches!(world.phase(&id).await, Phase::Cancelled { .. }));
        assert_eq!(world.fleet.begun(), 0);
    });
}

#[test]
fn what_a_person_started_or_holds_is_not_taken_back_by_a_tag() {
    paused(async {
        let world = World::of(3);
        let id = check_opened(&detect(&world, "latest", "a", WhenNewer::Replace).await);
        world.process().run_due().await.unwrap();
        let pause = Command::Pause {
            why: "lunch".to_owned(),
        };
        let held = world.process().command(&id, &pause, "ann").await.unwrap();
        assert_eq!(held.state.holds[0].kind, HoldKind::UserPause);
        assert_eq!(withdrawn(&world, "old").await, []);

        let world = World::of(3);
        let mut older = request("latest", rolling(1, 3600, 2));
        older.target.digest = Digest::of(b"older");
        world.start(older).await;
        world.process().run_due().await.unwrap();
        assert_eq!(withdrawn(&world, "old").await, []);
    });
}
