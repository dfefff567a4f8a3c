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

#[test]
fn a_newer_release_takes_the_place_of_an_approved_one_only_when_it_is_approved_itself() {
    for says_yes in [true, false] {
        paused(async {
            let world = World::of(3);
            let mut slow = waits_for_approval("a");
            slow.strategy = rolling(1, 600, 2);
            let old = world.start(slow).await;
            world.process().run_due().await.unwrap();
            say(&world, &old, Command::Approve).await.unwrap();
            world.process().run_due().await.unwrap();
            assert_eq!(world.fleet.begun(), 1);
            let Detected::Started(Started::Opened(newer)) = found_again(&world, "b").await else {
                panic!("expected a rollout");
            };
            let newer = newer.id();
            world.process().run_due().await.unwrap();
            assert_eq!(world.phase(&newer).await, Phase::AwaitingApproval);
            assert_eq!(world.phase(&old).await, Phase::Running);
            let answer = match says_yes {
                true => Command::Approve,
                false => Command::Deny { why: String::new() },
            };
            say(&world, &newer, answer).await.unwrap();
            for _ in 0..4 {
                world.process().run_due().await.unwrap();
                world.clock.sleep(Duration::from_secs(600)).await;
            }
            let tag = match says_yes {
                true => {
                    assert_eq!(world.phase(&old).await, Phase::Superseded { by: newer });
                    "b"
                }
                false => {
                    assert_eq!(world.phase(&old).await, Phase::Completed);
                    "a"
                }
            };
            assert!(world.runs_everywhere(tag, 3));
        });
    }
}

#[test]
fn a_newer_release_takes_the_place_of_one_that_nobody_approved_at_once() {
    paused(async {
        let world = World::of(3);
        let old = world.start(waits_for_approval("a")).await;
        world.process().run_due().await.unwrap();
        let newer = world.start(waits_for_approval("b")).await;
        world.process().run_due().await.unwrap();
        assert_eq!(world.phase(&old).await, Phase::Superseded { by: newer });
        assert_eq!(world.phase(&newer).await, Phase::AwaitingApproval);
        let late = say(&world, &old, Command::Approve).await;
        assert!(late.is_err(), "its approval is for nothing any more");
    });
}

#[test]
fn what_it_takes_back_goes_to_what_ran_when_it_came_and_not_when_it_was_planned() {
    paused(async {
        let world = World::of(3);
        let mut slow = request("a", rolling(1, 600, 2));
        slow.limits.max_concurrent = 1;
        let old = world.start(slow).await;
        world.process().run_due().await.unwrap();
        let mut all_but_one = waits_for_approval("b");
        all_but_one.strategy = rolling(2, 600, 2);
        let newer = world.start(all_but_one).await;
        // Meanwhile the old one brings its release to a second instance.
        world.clock.sleep(Duration::from_secs(600)).await;
        world.process().run_due().await.unwrap();
        assert_eq!(world.fleet.begun(), 2);
        let runs = || [0, 1, 2].map(|number| world.fleet.runs(&instance(&format!("i{number}"))));
        let before = runs();
        say(&world, &newer, Command::Approve).await.unwrap();
        world.process().run_due().await.unwrap();
        assert_eq!(world.phase(&old).await, Phase::Superseded { by: newer });
        assert_eq!(world.fleet.begun(), 4);
        let back = Command::Abort {
            why: "no".to_owned(),
            rollback: true,
        };
        say(&world, &newer, back).await.unwrap();
        world.process().run_due().await.unwrap();
        assert!(matches!(
            world.phase(&newer).await,
            Phase::RolledBack { .. }
        ));
        assert_eq!(runs(), before);
    });
}
