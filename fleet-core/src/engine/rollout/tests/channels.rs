//! What the poll of one channel finds is for the instances of that channel.

use super::*;
use crate::model::Channel;

fn channel(name: &str) -> Channel {
    Channel(name.to_owned())
}

/// Two instances that follow `canary`, and two that follow `stable`.
fn two_and_two() -> World {
    let world = World::of(0);
    for (number, name) in ["canary", "canary", "stable", "stable"].iter().enumerate() {
        world.fleet.add(Candidate {
            channel: channel(name),
            ..candidate(&format!("i{number}"), &format!("t{number}"))
        });
    }
    world
}

fn at_once() -> SupersedePolicy {
    SupersedePolicy {
        quiet_period: Duration::ZERO,
        ..SupersedePolicy::default()
    }
}

/// What the poll of a channel makes of `latest` with this content.
async fn detect(world: &World, name: &str, content: &str, strategy: &StrategySpec) -> Detected {
    let mut release = request("latest", strategy.clone());
    release.target.digest = Digest::of(content.as_bytes());
    let (process, now) = (world.process(), world.clock.now());
    let detected = process.detected(release, Some(channel(name)), now, at_once());
    let detected = detected.await.unwrap();
    world.clock.sleep(Duration::from_secs(1)).await;
    detected
}

#[track_caller]
fn check_opened(detected: &Detected, expect: &[&str]) -> RolloutId {
    let Detected::Started(Started::Opened(plan)) = detected else {
        panic!("expected a rollout, found {detected:?}");
    };
    let mut names: Vec<_> = plan
        .members
        .iter()
        .map(|member| member.instance.name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, expect);
    plan.id()
}

#[test]
fn a_release_is_rolled_out_in_the_channel_whose_poll_found_it_and_in_no_other() {
    paused(async {
        let (world, all) = (two_and_two(), rolling(2, 0, 2));
        let runs = |number: usize| world.fleet.runs(&instance(&format!("i{number}")));
        check_opened(&detect(&world, "canary", "a", &all).await, &["i0", "i1"]);
        world.process().run_due().await.unwrap();
        let (old, new) = (Some(Digest::of(b"old")), Some(Digest::of(b"a")));
        assert_eq!(
            [0, 1, 2, 3].map(runs),
            [&new, &new, &old, &old].map(Clone::clone)
        );

        check_opened(&detect(&world, "stable", "a", &all).await, &["i2", "i3"]);
        world.process().run_due().await.unwrap();
        assert_eq!([2, 3].map(runs), [&new, &new].map(Clone::clone));
        for name in ["canary", "stable"] {
            let again = detect(&world, name, "a", &all).await;
            assert_eq!(again, Detected::Decided(Decision::Same), "{name}");
        }
    });
}

#[test]
fn what_was_stopped_in_one_channel_is_not_offered_in_another() {
    paused(async {
        let (world, all) = (two_and_two(), rolling(1, 0, 1));
        world.fleet.release(Digest::of(b"a"), Nature::Bad);
        let id = check_opened(&detect(&world, "canary", "a", &all).await, &["i0", "i1"]);
        world.process().run_due().await.unwrap();
        assert!(matches!(world.phase(&id).await, Phase::Aborted { .. }));
        let stable = detect(&world, "stable", "a", &all).await;
        assert_eq!(stable, Detected::Decided(Decision::KnownBad));
    });
}

#[test]
fn a_newer_release_makes_way_in_its_own_channel_only() {
    paused(async {
        let (world, slow) = (two_and_two(), rolling(1, 3600, 2));
        let canary = check_opened(&detect(&world, "canary", "a", &slow).await, &["i0", "i1"]);
        let stable = check_opened(&detect(&world, "stable", "a", &slow).await, &["i2", "i3"]);
        let newer = check_opened(&detect(&world, "canary", "b", &slow).await, &["i0", "i1"]);
        let replaces = |stored: StoredRollout| stored.state.replaces;
        let replaced = world.process().load(&newer).await.unwrap();
        assert_eq!(replaces(replaced), [canary]);
        assert_eq!(
            replaces(world.process().load(&stable).await.unwrap()),
            Vec::<RolloutId>::new()
        );
    });
}

#[test]
fn an_instance_that_changes_its_channel_stays_in_the_rollout_that_has_it() {
    paused(async {
        let (world, slow) = (two_and_two(), rolling(1, 3600, 2));
        check_opened(&detect(&world, "canary", "a", &slow).await, &["i0", "i1"]);
        world.fleet.change(&instance("i1"), |moved| {
            moved.channel = channel("stable");
        });
        check_opened(&detect(&world, "stable", "a", &slow).await, &["i2", "i3"]);
    });
}

#[test]
fn a_rollout_that_a_person_starts_is_about_every_channel() {
    paused(async {
        let (world, all) = (two_and_two(), rolling(4, 0, 2));
        let mut release = request("latest", all.clone());
        release.target.digest = Digest::of(b"a");
        let id = world.start(release).await;
        assert_eq!(world.process().load(&id).await.unwrap().plan.total(), 4);
        world.process().run_due().await.unwrap();
        for name in ["canary", "stable"] {
            let found = detect(&world, name, "a", &all).await;
            assert_eq!(found, Detected::Decided(Decision::Same), "{name}");
        }
    });
}
