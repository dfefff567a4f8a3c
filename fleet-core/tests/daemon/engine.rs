//! The engine goes away and comes back.

use fleet_core::engine::TURN;
use fleet_core::engine::rollout::StartRequest;
use fleet_core::ids::InstanceName;
use fleet_core::plan::Asked;
use fleet_core::testing::{ForeignMove, Move};

use super::*;

#[test]
fn while_the_engine_is_away_nothing_is_asked_and_little_is_done() {
    let world = World::new().with_channels(&["canary"]);
    let process = world.process();
    world.with(&process, async {
        world.pass(minutes(1)).await;
        world.host.happen(Move::EngineKill {
            down_for: minutes(10),
        });
        let before = world.host.calls();
        world
            .until("the loss", || world.count("engine.lost") == 1)
            .await;
        assert!(!process.daemon.state().borrow().engine);
        world.pass(minutes(9)).await;
        let calls = world.host.calls() - before;
        assert!(calls < 9 * 60, "{calls} calls while it is away");
        assert_eq!(world.asked("canary").len(), 1);
        world
            .until("the return", || world.count("engine.back") == 1)
            .await;
        world.publish("canary:1", "2");
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
    });
    assert_eq!(world.count("engine.lost"), 1);
    assert_eq!(world.count("update.rolled_back"), 0);
    assert_eq!(world.names(), ["canary"]);
}

#[test]
fn what_happens_on_the_engine_is_seen_before_the_next_turn_is_due() {
    let world = World::new().with_channels(&["stable"]);
    world.beside(async {
        // In the middle between two turns, and long before the channels are looked for again.
        world.pass(minutes(10) + TURN / 2).await;
        world.host.load(image("late:1"));
        world.host.run(follower("late", "late"));
        world.pass(TURN / 3).await;
        assert_eq!(world.asked("late").len(), 1);
    });
}

#[test]
fn a_rollout_that_waits_for_room_in_a_tenant_goes_on_when_the_engine_starts_a_container() {
    let world = World::new();
    world.host.load(image("app:1"));
    for name in ["one", "two"] {
        let run = follower(name, "stable").image("app:1");
        world.host.run(run.label("fleet.tenant", "acme"));
    }
    let release = world
        .host
        .publish(image("app:2").runs(Workload::healthy("2")));
    let process = world.process();
    world.with(&process, async {
        world.pass(minutes(10)).await;
        // Half of two is one, and that one is down by somebody's hand.
        world
            .host
            .happen(Move::Foreign(ForeignMove::Stop("one".to_owned())));
        let mut request = StartRequest::new("ann", release.image);
        request.asked = Asked::ForInstances {
            names: vec![InstanceName::new("two").unwrap()],
        };
        process.orchestrator.start(request).await.unwrap();
        world.pass(minutes(3) + TURN / 2).await;
        assert_eq!(world.count("update.started"), 0, "{:?}", world.events());
        world
            .host
            .happen(Move::Foreign(ForeignMove::Start("one".to_owned())));
        world.pass(TURN / 3).await;
        assert_eq!(world.count("update.started"), 1);
    });
}

#[test]
fn an_update_that_loses_its_engine_for_long_is_finished_when_it_is_back() {
    let world = World::new().with_channels(&["canary"]);
    world.publish("canary:1", "2");
    world.beside(async {
        world
            .until("a parked container", || world.names().len() > 1)
            .await;
        world.host.happen(Move::EngineKill {
            down_for: minutes(30),
        });
        world
            .until("the return", || world.count("engine.back") == 1)
            .await;
        world
            .until("an end", || {
                world.names() == ["canary"]
                    && world.host.container("canary").is_some_and(|it| it.is_up())
            })
            .await;
    });
    assert_eq!(world.count("update.needs_operator"), 0);
}

#[test]
fn a_daemon_that_starts_while_the_engine_is_away_is_not_ready_before_it_has_recovered() {
    let world = World::new().with_channels(&["canary"]);
    world.publish("canary:1", "2");
    world.beside(world.until("a parked container", || world.names().len() > 1));
    let returns_at = world.host.clock().monotonic() + minutes(10);
    world.host.happen(Move::EngineKill {
        down_for: minutes(10),
    });
    let process = world.process();
    world.with(&process, async {
        world.pass(minutes(9)).await;
        assert!(!process.daemon.state().borrow().recovered);
        assert_eq!(world.count("engine.lost"), 1);
        assert_eq!(world.count("instance.recovered"), 0);
        world
            .until("a decision", || world.count("instance.recovered") == 1)
            .await;
        let took = world.host.clock().monotonic() - returns_at;
        assert!(took < Duration::from_secs(2), "{took:?}");
        world
            .until("readiness", || process.daemon.state().borrow().recovered)
            .await;
        assert_eq!(world.count("engine.back"), 1);
    });
}
