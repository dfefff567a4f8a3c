//! Updates that need a person, and what a person may decide.

use fleet_core::engine::{FleetError, InstanceState, Keep};
use fleet_core::ports::{NoProgress, SnapshotStore};
use fleet_core::testing::{Move, Workload};
use fleet_core::update::Outcome;

use super::{World, assert_outcome};

/// A rollback whose snapshot is damaged: the data cannot be put back.
fn frozen() -> World {
    let world = World::with_web();
    world.publish("app:2", Workload::destroyer("2"));
    let damage = world.host.snapshots();
    let wish = super::request("web", "app:2");
    let run = async {
        let update = world.fleet.update(&wish, &NoProgress);
        futures::pin_mut!(update);
        loop {
            match futures::poll!(&mut update) {
                std::task::Poll::Ready(result) => return result,
                std::task::Poll::Pending => {
                    for snapshot in damage.list(None).await.expect("the store works") {
                        damage.damage(&snapshot.id);
                    }
                }
            }
        }
    };
    let reports = world
        .host
        .drive(run)
        .expect("nothing kills it")
        .expect("the ports work");
    assert_outcome(&reports[0], Outcome::NeedsOperator);
    world
}

fn resolve(world: &World, keep: Keep) -> Result<fleet_core::update::UpdateReport, FleetError> {
    world
        .host
        .drive(world.fleet.resolve("web", keep, "ann", &NoProgress))
        .expect("nothing kills it")
}

#[test]
fn a_damaged_snapshot_freezes_the_instance_and_starts_nothing() {
    let world = frozen();
    let views = world
        .host
        .drive(world.fleet.instances())
        .expect("nothing kills it")
        .expect("the ports work");
    // No container has its name now; it is shown all the same.
    let shown: Vec<_> = views
        .iter()
        .map(|view| (view.name.as_str(), view.state, view.running))
        .collect();
    assert_eq!(shown, [("web", InstanceState::NeedsOperator, false)]);
    assert!(
        world
            .host
            .containers()
            .iter()
            .all(|container| !container.is_up() || container.name.starts_with("fleet-"))
    );
}

#[test]
fn a_person_may_keep_the_new_release() {
    let world = frozen();
    let report = resolve(&world, Keep::New).expect("it is there");
    assert_outcome(&report, Outcome::Committed);
    let web = world.host.container("web").expect("it has its name");
    assert_eq!((web.image.as_str(), web.is_up()), ("app:2", true));
    assert_eq!(world.names(), ["web"]);
}

#[test]
fn going_back_is_tried_again_and_still_needs_a_person_while_the_snapshot_is_damaged() {
    let world = frozen();
    let report = resolve(&world, Keep::Old).expect("it runs");
    assert_outcome(&report, Outcome::NeedsOperator);
}

#[test]
fn what_is_not_frozen_cannot_be_resolved() {
    let world = World::with_web();
    assert!(matches!(
        resolve(&world, Keep::Old),
        Err(FleetError::NotFrozen(_))
    ));
}

#[test]
fn a_prune_does_not_confuse_what_is_idle() {
    let world = World::with_web();
    world.host.happen(Move::Prune);
    assert_eq!(world.names(), ["web"]);
}
