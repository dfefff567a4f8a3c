//! Somebody sets the clock while a rollout waits.

use super::*;

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
        let now = world.clock.now().as_millis();
        world
            .clock
            .jump_to(crate::time::Timestamp::from_millis(now + set_by * 1000));
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
