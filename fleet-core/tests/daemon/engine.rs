//! The engine goes away and comes back.

use fleet_core::testing::Move;

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
