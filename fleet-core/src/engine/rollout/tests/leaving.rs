//! Instances that are not to be updated any more, and those that a rollout must not give up.

use super::*;
use crate::model::{GlobalMode, TenantMode, UpdateConfig};

fn waves_of_one(tag: &str) -> StartRequest {
    let mut request = request(tag, rolling(1, 600, 2));
    request.asked = crate::plan::Asked::ByDetection { channel: None };
    request
}

async fn ends_of(world: &World, id: &RolloutId) -> Vec<&'static str> {
    let stored = world.process().load(id).await.unwrap();
    let members = stored.plan.members.iter().zip(&stored.state.members);
    let mut members: Vec<_> = members
        .map(|(planned, member)| (planned.instance.name.as_str(), member.label()))
        .collect();
    members.sort_unstable();
    members.into_iter().map(|(_, label)| label).collect()
}

/// After the first wave something changes about the third instance.
async fn after_one_wave(world: &World, id: &RolloutId) -> InstanceId {
    world.process().run_due().await.unwrap();
    assert_eq!(world.fleet.begun(), 1);
    let plan = world.process().load(id).await.unwrap().plan;
    plan.members[2].instance.clone()
}

#[test]
fn a_tenant_that_becomes_manual_in_mid_rollout_is_left_alone() {
    paused(async {
        let world = World::of(3);
        let id = world.start(waves_of_one("2")).await;
        let last = after_one_wave(&world, &id).await;
        let tenant = last.name.as_str().replace('i', "t");
        let config = UpdateConfig {
            mode: TenantMode::Manual,
            ..UpdateConfig::default()
        };
        world
            .fleet
            .tenant(crate::ids::TenantId::new(tenant).unwrap(), config);
        world.process().wait(&id).await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::Completed);
        assert_eq!(world.fleet.runs(&last), Some(Digest::of(b"old")));
        assert_eq!(world.fleet.begun(), 2);
    });
}

#[test]
fn what_a_person_asked_for_by_name_goes_on_whatever_the_mode() {
    paused(async {
        let world = World::of(3);
        let mut request = waves_of_one("2");
        request.asked = crate::plan::Asked::ForInstances {
            names: (0..3)
                .map(|number| instance(&format!("i{number}")).name)
                .collect(),
        };
        let id = world.start(request).await;
        after_one_wave(&world, &id).await;
        world
            .fleet
            .settings(|settings| settings.mode = GlobalMode::Manual);
        world.process().wait(&id).await.unwrap();
        assert!(world.runs_everywhere("2", 3));
    });
}

#[test]
fn an_instance_that_is_removed_leaves_and_counts_against_nothing() {
    paused(async {
        let world = World::of(3);
        let id = world.start(waves_of_one("2")).await;
        let last = after_one_wave(&world, &id).await;
        world.fleet.remove(&last);
        world.process().wait(&id).await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::Completed);
        let mut ends = ends_of(&world, &id).await;
        ends.sort_unstable();
        assert_eq!(ends, ["committed", "committed", "excluded"]);
    });
}

#[test]
fn a_first_wave_of_which_nobody_is_left_is_passed_over() {
    paused(async {
        let world = World::of(3);
        let id = world.start(waves_of_one("2")).await;
        let plan = world.process().load(&id).await.unwrap().plan;
        let first = plan.members[0].instance.clone();
        let command = Command::Exclude { instance: first };
        world.process().command(&id, &command, "ann").await.unwrap();
        let waited = world.process().wait(&id).await.unwrap();
        assert_eq!(waited.outlook, Outlook::Over);
        assert_eq!(world.fleet.begun(), 2);
    });
}

#[test]
fn nobody_is_given_up_because_the_registry_was_away_for_an_hour() {
    paused(async {
        let world = World::of(1);
        world.fleet.registry(false);
        let id = world.start(waves_of_one("2")).await;
        let away_until = world.clock.now().saturating_add(Duration::from_secs(3600));
        let process = world.process();
        while world.clock.now() < away_until {
            process.run_due().await.unwrap();
            world.clock.sleep(Duration::from_secs(30)).await;
        }
        // Not all the time either.
        assert!(world.fleet.begun() < 20, "{}", world.fleet.begun());
        assert_eq!(world.phase(&id).await, Phase::Running);
        world.fleet.registry(true);
        for _ in 0..30 {
            process.run_due().await.unwrap();
            world.clock.sleep(Duration::from_secs(30)).await;
        }
        assert_eq!(world.phase(&id).await, Phase::Completed);
    });
}

#[test]
fn a_disk_without_space_is_looked_at_now_and_then() {
    paused(async {
        let world = World::of(2);
        world.fleet.lacks_space(&instance("i0"), true);
        let mut request = request("2", rolling(2, 0, 2));
        request.limits.max_concurrent = 1;
        let id = world.start(request).await;
        let process = world.process();
        for _ in 0..20 {
            process.run_due().await.unwrap();
            world.clock.sleep(Duration::from_secs(30)).await;
        }
        // The other one had room, and this one was tried at most once a minute.
        assert_eq!(world.fleet.runs(&instance("i1")), Some(image("2").digest));
        let held = world.count(&EventKind::RolloutPaused);
        assert!((1..=11).contains(&held), "held {held} times");
        world.fleet.lacks_space(&instance("i0"), false);
        world.clock.sleep(Duration::from_secs(60)).await;
        process.run_due().await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::Completed);
    });
}

#[test]
fn a_pause_of_the_fleet_does_not_keep_a_rollout_from_being_taken_back() {
    paused(async {
        let world = World::of(3);
        let id = world.start(waves_of_one("2")).await;
        after_one_wave(&world, &id).await;
        world.fleet.settings(|settings| {
            settings.pause = Some(crate::model::Pause {
                by: "ann".to_owned(),
                reason: "something is wrong".to_owned(),
                since: world.clock.now(),
            });
        });
        let command = Command::Abort {
            why: "back".to_owned(),
            rollback: true,
        };
        world.process().command(&id, &command, "ann").await.unwrap();
        world.process().run_due().await.unwrap();
        assert!(matches!(world.phase(&id).await, Phase::RolledBack { .. }));
        for number in 0..3 {
            let runs = world.fleet.runs(&instance(&format!("i{number}")));
            assert_eq!(runs, Some(Digest::of(b"old")));
        }
    });
}
