//! Snapshots by hand.

use std::time::Duration;

use fleet_core::engine::{FleetError, FleetOptions};
use fleet_core::ids::SnapshotId;
use fleet_core::ports::{Clock as _, ContainerRuntime as _, NoProgress, SnapshotStore as _};

use fleet_core::testing::{Fault, FaultPlan, ForeignMove, Move, Workload};
use fleet_core::update::Outcome;

use super::{World, assert_outcome};

/// One that is younger than every other.
fn create(world: &World) -> SnapshotId {
    let made = world.host.drive(async {
        world.host.clock().sleep(Duration::from_secs(1)).await;
        let made = world.fleet.snapshot_create("web", "ann", &NoProgress);
        made.await
    });
    let made = made.expect("nothing kills it");
    made.expect("the ports work").id
}

fn prune(world: &World) -> Vec<SnapshotId> {
    prune_beyond(world, Duration::ZERO, 0)
}

fn prune_beyond(world: &World, older_than: Duration, keep: usize) -> Vec<SnapshotId> {
    let pruned = world.fleet.snapshot_prune(older_than, keep, "ann");
    let pruned = world.host.drive(pruned).expect("nothing kills it");
    let removed = pruned.expect("the ports work");
    removed.into_iter().map(|info| info.id).collect()
}

fn left(world: &World) -> Vec<SnapshotId> {
    let store = world.host.snapshots();
    let listed = world.host.drive(store.list(None));
    let listed = listed.expect("nothing kills it");
    let listed = listed.expect("the store works");
    listed.into_iter().map(|info| info.id).collect()
}

#[test]
fn a_prune_never_takes_the_last_good_one_even_if_a_newer_one_is_damaged() {
    let world = World::with_web();
    let [first, second, third] = [(); 3].map(|()| create(&world));
    world.host.snapshots().damage(&third);
    assert_eq!(prune(&world), [first]);
    assert_eq!(prune(&world), []);
    assert_eq!(left(&world), [second, third]);
    // With a whole one on top the others may go.
    let fourth = create(&world);
    assert_eq!(prune(&world), [second, third]);
    assert_eq!(left(&world), [fourth]);
}

#[test]
fn a_prune_takes_what_is_beyond_both_age_and_count() {
    let world = World::with_web();
    let [first, second, third, fourth] = [(); 4].map(|()| create(&world));
    assert_eq!(prune_beyond(&world, Duration::ZERO, 3), [first]);
    assert_eq!(prune_beyond(&world, Duration::from_secs(3600), 1), []);
    assert_eq!(prune_beyond(&world, Duration::from_secs(2), 2), [second]);
    assert_eq!(left(&world), [third, fourth]);
    assert_eq!(prune_beyond(&world, Duration::ZERO, 1), [third]);
}

#[test]
fn a_commit_takes_what_is_too_old_however_few_there_are() {
    let options = FleetOptions {
        snapshot_max_age: Some(Duration::from_secs(3600)),
        ..FleetOptions::default()
    };
    let world = World::with(7, options).and_web();
    let update = |tag: &str| {
        world.publish(tag, Workload::healthy(tag));
        assert_outcome(&world.update("web", tag), Outcome::Committed);
    };
    update("app:2");
    update("app:3");
    assert_eq!(left(&world).len(), 2);
    let day = Duration::from_secs(24 * 3600);
    let slept = world.host.drive(world.host.clock().sleep(day));
    slept.expect("nothing kills it");
    update("app:4");
    assert_eq!(left(&world).len(), 1, "that of the last update");
}

#[test]
fn a_clock_that_was_set_back_does_not_cost_the_snapshot_just_taken() {
    let options = FleetOptions {
        keep_snapshots: 1,
        ..FleetOptions::default()
    };
    let world = World::with(7, options).and_web();
    let update = |tag: &str| {
        world.publish(tag, Workload::healthy(tag));
        assert_outcome(&world.update("web", tag), Outcome::Committed);
    };
    update("app:2");
    let first = left(&world);
    let two_days_back = Move::ClockJump {
        millis: -2 * 86_400_000,
    };
    world.host.happen(two_days_back);
    update("app:3");
    let second = left(&world);
    assert_eq!(second.len(), 1, "one is kept");
    assert_ne!(second, first, "that of the last update");
}

#[test]
fn a_prune_keeps_the_last_clean_one_whatever_was_taken_of_a_running_container_since() {
    let world = World::with_web();
    world.publish("app:2", Workload::healthy("2"));
    assert_outcome(&world.update("web", "app:2"), Outcome::Committed);
    let clean = left(&world);
    let [older, newer] = [(); 2].map(|()| create(&world));
    assert_eq!(prune(&world), [older]);
    assert_eq!(left(&world), [clean[0], newer]);
}

fn web(what: fn(String) -> ForeignMove) -> Move {
    Move::Foreign(what("web".to_owned()))
}

#[track_caller]
fn assert_refused(result: &Result<impl Sized, FleetError>, why: &str) {
    match result {
        Err(FleetError::Refused { reason, .. }) => assert!(reason.contains(why), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

#[test]
fn a_restore_looks_once_more_after_the_safety_snapshot() {
    let world = World::with_web();
    let id = create(&world);
    world.host.happen(web(ForeignMove::Stop));
    world.host.write_file("web-data", "since", b"x");
    let minutes = Fault::Slow(Duration::from_secs(180));
    world.host.set_faults(FaultPlan {
        at_op: [("copy the volumes", minutes)].into(),
        ..FaultPlan::default()
    });
    let result = world.host.drive(async {
        let restore = world.fleet.snapshot_restore(&id, "ann", &NoProgress);
        futures::pin_mut!(restore);
        loop {
            match futures::poll!(&mut restore) {
                std::task::Poll::Ready(result) => return result,
                std::task::Poll::Pending => {
                    if !world.host.snapshots().unfinished().is_empty() {
                        world.host.happen(web(ForeignMove::Start));
                    }
                }
            }
        }
    });
    assert_refused(&result.expect("nothing kills it"), "runs on its volumes");
    let files = world.host.files("web-data").expect("it is there");
    assert!(files.contains_key("since"), "untouched");
}

#[test]
fn a_restore_is_refused_under_a_process_that_the_engine_lost() {
    let lost = (0..16).filter(|luck| {
        let world = World::with_luck(*luck).and_web();
        let id = create(&world);
        world.host.happen(web(ForeignMove::Stop));
        world.host.happen(web(ForeignMove::Start));
        world.host.happen(Move::EngineKill {
            down_for: Duration::from_millis(500),
        });
        world.host.let_engine_return();
        let web = world.host.container("web").expect("it is there");
        let orphan = world.host.drive(world.host.engine().orphan(&web.id));
        let orphan = orphan.expect("nothing kills it").expect("it answers");
        if orphan.is_some() {
            let restore = world.fleet.snapshot_restore(&id, "ann", &NoProgress);
            let result = world.host.drive(restore).expect("nothing kills it");
            assert_refused(&result, "lives on without the engine");
        }
        orphan.is_some()
    });
    assert!(lost.count() > 0, "the engine lost nothing");
}

#[test]
fn a_restore_that_a_death_cut_off_is_known_until_one_ends() {
    let mut half_filled = 0;
    for site in 1..200 {
        let world = World::with_web();
        let id = create(&world);
        world.host.happen(web(ForeignMove::Stop));
        world.host.write_file("web-data", "since", b"x");
        let before = world.host.files("web-data");
        world.host.set_faults(FaultPlan::death(site));
        let restore = world.fleet.snapshot_restore(&id, "ann", &NoProgress);
        let died = world.host.drive(restore).is_none();
        world.host.set_faults(FaultPlan::default());
        let unfinished = || {
            let asked = world.host.drive(world.fleet.unfinished_restores());
            asked.expect("nothing kills it").expect("the store works")
        };
        if !died {
            assert_eq!(unfinished(), []);
            assert!(half_filled > 1, "the places are passed");
            return;
        }
        if world.host.files("web-data") != before {
            half_filled += 1;
            let known: Vec<_> = unfinished().iter().map(|it| it.snapshot).collect();
            assert_eq!(known, [id], "death at {site}");
        }
        let again = world.fleet.snapshot_restore(&id, "ann", &NoProgress);
        let again = world.host.drive(again).expect("nothing kills it");
        again.expect("it ends");
        assert_eq!(unfinished(), [], "death at {site}");
    }
    panic!("it does not end");
}
