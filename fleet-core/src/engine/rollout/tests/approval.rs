//! A person says yes, says no, or says nothing.

use super::*;

const EXPIRES: Duration = Duration::from_secs(3600);

fn waits_for_approval(tag: &str) -> StartRequest {
    let mut request = request(tag, rolling(2, 0, 2));
    request.needs_approval = true;
    request.limits.approval_expires = Some(EXPIRES);
    request
}

async fn found_again(world: &World, tag: &str) -> Detected {
    let at_once = SupersedePolicy {
        quiet_period: Duration::ZERO,
        ..SupersedePolicy::default()
    };
    let (process, now) = (world.process(), world.clock.now());
    let found = process.detected(waits_for_approval(tag), None, now, at_once);
    found.await.unwrap()
}

async fn say(world: &World, id: &RolloutId, command: Command) -> Result<(), RolloutError> {
    world.process().command(id, &command, "ann").await.map(drop)
}

#[test]
fn what_was_denied_or_stopped_before_it_began_is_not_offered_again() {
    for stop in [
        Command::Deny {
            why: "not that one".to_owned(),
        },
        Command::Abort {
            why: "not that one".to_owned(),
            rollback: false,
        },
    ] {
        paused(async {
            let world = World::of(2);
            let id = world.start(waits_for_approval("a")).await;
            world.process().run_due().await.unwrap();
            assert_eq!(world.phase(&id).await, Phase::AwaitingApproval);
            say(&world, &id, stop).await.unwrap();
            assert!(matches!(world.phase(&id).await, Phase::Cancelled { .. }));
            let again = found_again(&world, "a").await;
            assert_eq!(again, Detected::Decided(Decision::KnownBad));
            // Another release is another question, and a person may change their mind.
            assert!(matches!(
                found_again(&world, "b").await,
                Detected::Started(Started::Opened(_))
            ));
            world.start(waits_for_approval("a")).await;
        });
    }
}

#[test]
fn without_an_answer_it_is_cancelled_when_its_time_is_over_and_not_before() {
    paused(async {
        let world = World::of(2);
        let id = world.start(waits_for_approval("a")).await;
        world.process().run_due().await.unwrap();
        let ends_at = world.clock.now().saturating_add(EXPIRES);
        let stored = world.process().load(&id).await.unwrap();
        assert_eq!(
            world.process().outlook(&stored).await.unwrap(),
            Outlook::NotNow {
                why: vec![format!("a person must approve it until {ends_at}")],
                until: Some(ends_at),
            }
        );
        world.clock.sleep(EXPIRES - Duration::from_millis(1)).await;
        world.process().run_due().await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::AwaitingApproval);

        world.clock.sleep(Duration::from_millis(1)).await;
        // Too late, also where nobody looked meanwhile.
        let late = say(&world, &id, Command::Approve).await.unwrap_err();
        assert!(late.to_string().contains("time for an approval"), "{late}");
        world.process().run_due().await.unwrap();
        let why = "nobody approved it within 1h".to_owned();
        assert_eq!(world.phase(&id).await, Phase::Cancelled { why });
        let again = found_again(&world, "a").await;
        assert_eq!(again, Detected::Decided(Decision::KnownBad));
    });
}

#[test]
fn once_approved_it_waits_as_long_as_its_windows_take() {
    paused(async {
        let world = World::of(2);
        let id = world.start(waits_for_approval("a")).await;
        world.process().run_due().await.unwrap();
        say(&world, &id, Command::Approve).await.unwrap();
        world.clock.sleep(EXPIRES * 2).await;
        world.process().run_due().await.unwrap();
        assert_eq!(world.phase(&id).await, Phase::Completed);
    });
}
