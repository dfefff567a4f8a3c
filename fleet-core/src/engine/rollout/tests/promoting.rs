//! A person lets a rollout go on.

use super::*;

#[test]
fn a_promotion_under_a_pause_holds_when_the_pause_is_over() {
    for strategy in [rolling(1, 3600, 2), StrategySpec::named("single")] {
        paused(async {
            let world = World::of(2);
            let id = world.start(request("2", strategy.clone())).await;
            let process = world.process();
            process.run_due().await.unwrap();
            let pause = Command::Pause {
                why: "lunch".to_owned(),
            };
            for command in [&pause, &Command::Promote, &Command::Promote] {
                process.command(&id, command, "ann").await.unwrap();
            }
            process.run_due().await.unwrap();
            let committed = || async { process.load(&id).await.unwrap().state.tally().committed };
            assert_eq!(committed().await, 1, "paused");
            process.command(&id, &Command::Resume, "ann").await.unwrap();
            process.run_due().await.unwrap();
            assert_eq!(committed().await, 2, "{}", strategy.label());
        });
    }
}
