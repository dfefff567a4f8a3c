//! Somebody sets the clock while a rollout waits.

use super::*;

fn set_by_seconds(world: &World, by: i64) {
    let now = world.clock.now().as_millis();
    let set = crate::time::Timestamp::from_millis(now + by * 1000);
    world.clock.jump_to(set);
}

/// How many instances have the release so long after the clock was set in the pause of an hour, ten minutes into it.
#[track_caller]
fn check(set_by: i64, minutes: u64, expect: u32) {
    paused(async {
        let world = World::of(2);
        let id = world.start(request("2", rolling(1, 3600, 2))).await;
        let process = world.process();
        process.run_due().await.unwrap();
        world.clock.sleep(Duration::from_secs(600)).await;
        process.run_due().await.unwrap();
        set_by_seconds(&world, set_by);
        for _ in 0..minutes {
            world.clock.sleep(Duration::from_secs(60)).await;
            process.run_due().await.unwrap();
        }
        let committed = process.load(&id).await.unwrap().state.tally().committed;
        assert_eq!(committed, expect, "{set_by} s, {minutes} min later");
        let told = usize::from(set_by != 0);
        assert_eq!(world.count(&EventKind::AlertRaised), told, "{set_by}");
    });
}

#[test]
fn a_pause_between_waves_lasts_as_long_whatever_the_clock_says() {
    for set_by in [0, 2 * 3600, -2 * 3600] {
        check(set_by, 48, 1);
        check(set_by, 52, 2);
    }
}

/// Runs what is due every minute until a second instance has the release; how many minutes that took.
async fn minutes_until_two(world: &World, process: &Orchestrator, id: &RolloutId) -> u64 {
    let mut minutes = 0;
    while process.load(id).await.unwrap().state.tally().committed < 2 {
        assert!(minutes < 300, "it never goes on");
        world.clock.sleep(Duration::from_secs(60)).await;
        process.run_due().await.unwrap();
        minutes += 1;
    }
    minutes
}

#[test]
fn a_look_that_fails_does_not_hide_that_the_clock_was_set() {
    paused(async {
        let world = World::of(2);
        let id = world.start(request("2", rolling(1, 3600, 2))).await;
        let process = world.process();
        process.run_due().await.unwrap();
        set_by_seconds(&world, 2 * 3600);
        world.fleet.engine(false);
        process.run_due().await.unwrap_err();
        world.fleet.engine(true);
        process.run_due().await.unwrap();
        assert_eq!(minutes_until_two(&world, &process, &id).await, 60);
        assert_eq!(world.count(&EventKind::AlertRaised), 1);
    });
}

#[test]
fn a_pause_that_begins_after_the_clock_was_set_is_not_moved() {
    paused(async {
        let world = World::of(0);
        for (name, tenant) in [("a", "ta"), ("b", "tb")] {
            // It ends before the next look at all rollouts.
            let takes = Duration::from_secs(119);
            world.fleet.add_slow(candidate(name, tenant), takes);
        }
        let id = world.start(request("2", rolling(1, 3600, 2))).await;
        let process = world.process();
        let set = async {
            world.clock.sleep(Duration::from_secs(115)).await;
            set_by_seconds(&world, 2 * 3600);
        };
        futures::future::join(set, async { process.run_due().await.unwrap() }).await;
        // The pause, and the update after it.
        assert_eq!(minutes_until_two(&world, &process, &id).await, 60);
        assert_eq!(
            world.count(&EventKind::AlertRaised),
            0,
            "nothing was counted yet"
        );
    });
}
