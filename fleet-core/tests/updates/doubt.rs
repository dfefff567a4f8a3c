//! The journal and the world disagree: a backup of the journal was put back, or somebody started the new container while
//! fleet was dead. Nothing that runs is taken away, and no data is believed to be untouched.

use std::sync::{Arc, Mutex};

use fleet_core::crash::CrashPoints;
use fleet_core::engine::{Fleet, FleetOptions, Keep};
use fleet_core::ports::{NoProgress, SnapshotStore as _};
use fleet_core::testing::{
    FaultPlan, ForeignMove, MemoryStore, Migration, Move, ROWS, SCHEMA, Workload,
};
use fleet_core::update::{MAX_RECOVERIES, Outcome, UpdateReport};

use super::{World, assert_outcome, request};

/// Copies the journal when the update passes one of its places.
struct Backup {
    store: MemoryStore,
    at: &'static str,
    taken: Mutex<Option<MemoryStore>>,
}

impl CrashPoints for Backup {
    fn reached(&self, point: &str) -> bool {
        if point == self.at {
            *self.taken.lock().unwrap() = Some(self.store.copy());
        }
        false
    }
}

/// With another journal, and with crash points that the host's faults know.
fn with_journal(world: &World, store: &MemoryStore) -> World {
    let mut ports = world.fleet.ports().clone();
    ports.update.journal = Arc::new(store.clone());
    ports.events = Arc::new(store.clone());
    ports.update.crash = Arc::new(world.host.crash_points());
    World {
        host: world.host.clone(),
        store: store.clone(),
        fleet: Fleet::new(ports, FleetOptions::default()),
    }
}

/// An update to `app:2` that committed; then the journal is put back to what it was at a place.
fn put_back_to(at: &'static str) -> World {
    let mut world = World::with_web();
    world.publish("app:2", Workload::healthy("2"));
    let backup = Arc::new(Backup {
        store: world.store.clone(),
        at,
        taken: Mutex::default(),
    });
    let mut ports = world.fleet.ports().clone();
    ports.update.crash = backup.clone();
    world.fleet = Fleet::new(ports, FleetOptions::default());
    assert_outcome(&world.update("web", "app:2"), Outcome::Committed);
    let taken = backup.taken.lock().unwrap().take();
    with_journal(&world, &taken.expect("the place is passed"))
}

/// An update to a release that destroys the data and ends; fleet dies at a place.
fn died_at(point: &str) -> World {
    let ends = Workload {
        migration: Migration::Destroys,
        ..Workload::crasher("2")
    };
    died_over(ends, point)
}

/// An update to a release; fleet dies at a place.
fn died_over(release: Workload, point: &str) -> World {
    let world = World::with_web();
    world.publish("app:2", release);
    let world = with_journal(&world, &world.store.clone());
    world.host.set_faults(FaultPlan {
        die_at_point: Some(point.to_owned()),
        ..FaultPlan::default()
    });
    let wish = request("web", "app:2");
    let ended = world.host.drive(world.fleet.update(&wish, &NoProgress));
    assert!(ended.is_none(), "it died");
    world
}

fn somebody_starts(world: &World, infix: &str) {
    let containers = world.host.containers();
    let mut new = containers.iter().filter(|it| it.image == "app:2");
    let new = new.find(|it| it.name.contains(infix)).expect("it is there");
    let start = ForeignMove::Start(new.name.clone());
    world.host.happen(Move::Foreign(start));
}

/// A recovery that dies as well.
fn dies_again_at(world: &World, point: &str) {
    world.host.set_faults(FaultPlan {
        die_at_point: Some(point.to_owned()),
        ..FaultPlan::default()
    });
    let told = |_: &_, _: &_| ();
    let recovered = world.host.drive(world.fleet.recover(&NoProgress, &told));
    assert!(recovered.is_none(), "it died again");
}

fn recover(world: &World) -> (Option<Outcome>, String) {
    let told = |_: &_, _: &_| ();
    let recovered = world.host.drive(world.fleet.recover(&NoProgress, &told));
    let recovered = recovered.expect("nothing kills it").expect("it works");
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    (recovered[0].ended(), recovered[0].verdict.found.clone())
}

fn resolve(world: &World, keep: Keep) -> UpdateReport {
    let resolved = world.fleet.resolve("web", keep, "ann", &NoProgress);
    let resolved = world.host.drive(resolved).expect("nothing kills it");
    resolved.expect("it can be done")
}

fn snapshots(world: &World) -> usize {
    let store = world.host.snapshots();
    let listed = world.host.drive(store.list(None));
    let listed = listed.expect("nothing kills it").expect("the store works");
    listed.len()
}

fn schema(world: &World) -> Vec<u8> {
    world.host.files("web-data").expect("it is there")[SCHEMA].clone()
}

#[test]
fn a_journal_that_was_put_back_never_takes_what_runs() {
    for at in [
        "pull.after",
        "create_candidate.before",
        "create_candidate.after",
        "guard.after",
        "stop.before",
        "snapshot.before",
        "promote.after",
    ] {
        let world = put_back_to(at);
        let before = world.host.container("web").expect("it runs");
        let (ended, found) = recover(&world);
        let case = format!("{at}: {found}");
        assert_eq!(ended, Some(Outcome::Diverged), "{case}");
        let web = world.host.container("web").expect(&case);
        assert_eq!((&web.id, web.is_up()), (&before.id, true), "{case}");
        assert_eq!(snapshots(&world), 1, "{case}");

        assert_outcome(&resolve(&world, Keep::New), Outcome::Committed);
        let web = world.host.container("web").expect(&case);
        assert_eq!(web.started_at, before.started_at, "started again, {case}");
        assert_eq!(world.names(), ["web"], "{case}");
    }
}

#[test]
fn data_of_a_new_container_that_somebody_started_is_not_left_to_the_old_one() {
    for (point, infix) in [("promote.after", "web"), ("park.recorded", ".fleet-c-")] {
        let world = died_at(point);
        somebody_starts(&world, infix);
        assert_eq!(schema(&world), b"2", "{point}: it migrated");
        let (ended, found) = recover(&world);
        assert_eq!(ended, Some(Outcome::Diverged), "{point}: {found}");
        assert_eq!(snapshots(&world), 1, "{point}");

        assert_outcome(&resolve(&world, Keep::Old), Outcome::RolledBack);
        let web = world.host.container("web").expect("it is back");
        assert_eq!((web.image.as_str(), web.is_up()), ("app:1", true));
        let rows = world.host.files("web-data").expect("it is there");
        assert!(rows.contains_key(ROWS) && schema(&world) == b"1", "{point}");
        assert_eq!(world.names(), ["web"], "{point}");
    }
}

#[test]
fn the_same_on_the_way_back() {
    let world = died_at("promote.after");
    dies_again_at(&world, "start_old.before");
    somebody_starts(&world, ".fleet-f-");
    let (ended, found) = recover(&world);
    assert_eq!(ended, Some(Outcome::Diverged), "{found}");
    assert_outcome(&resolve(&world, Keep::Old), Outcome::RolledBack);
    assert_eq!(schema(&world), b"1");
}

/// The old container is back when fleet dies for the last time that is forgiven.
#[test]
fn a_recovery_that_gives_up_leaves_one_version_running() {
    let world = died_over(Workload::healthy("2"), "promote.after");
    for _ in 0..MAX_RECOVERIES {
        dies_again_at(&world, "gate_old.before");
    }
    somebody_starts(&world, ".fleet-f-");
    let (ended, found) = recover(&world);
    assert_eq!(ended, Some(Outcome::NeedsOperator), "{found}");
    let containers = world.host.containers().into_iter();
    let up = containers.filter(|it| it.is_up() && it.image.starts_with("app"));
    let up: Vec<_> = up.map(|it| (it.name, it.image)).collect();
    assert_eq!(up, [("web".to_owned(), "app:1".to_owned())]);
}

#[test]
fn where_no_snapshot_was_taken_a_person_may_still_go_back() {
    let world = died_at("stop.after");
    somebody_starts(&world, ".fleet-c-");
    let (ended, found) = recover(&world);
    assert_eq!(ended, Some(Outcome::Diverged), "{found}");
    let report = resolve(&world, Keep::Old);
    assert_outcome(&report, Outcome::RolledBack);
    let notes = report.notes.join("\n");
    assert!(notes.contains("no snapshot"), "{notes}");
    assert_eq!(world.names(), ["web"]);
}

#[test]
fn before_the_stop_the_new_container_is_withdrawn_and_the_old_one_serves_on() {
    let world = died_at("guard.after");
    let before = world.host.container("web").expect("it runs");
    somebody_starts(&world, ".fleet-c-");
    let (ended, found) = recover(&world);
    assert_eq!(ended, Some(Outcome::Failed), "{found}");
    let web = world.host.container("web").expect("it runs");
    assert_eq!((web.id, web.started_at), (before.id, before.started_at));
    assert_eq!(world.names(), ["web"]);
}

/// An update to a release that passes its gate, ends a while later, and does not come up again; fleet dies between the two.
#[test]
fn what_ended_after_its_gate_is_gated_again_before_the_commit() {
    for point in ["arm.before", "arm.after", "commit.before"] {
        let passes_and_ends = Workload {
            exits_after: Some((std::time::Duration::from_secs(20), 1)),
            migration: Migration::Destroys,
            ..Workload::healthy("2")
        };
        let world = died_over(passes_and_ends, point);
        world.host.pass(std::time::Duration::from_secs(60));
        world.host.changes("web", Workload::unhealthy("2"));
        let (ended, found) = recover(&world);
        assert_eq!(ended, Some(Outcome::RolledBack), "{point}: {found}");
        let web = world.host.container("web").expect("it is back");
        assert_eq!((web.image.as_str(), web.is_up()), ("app:1", true));
        assert_eq!(schema(&world), b"1", "{point}");
        assert_eq!(world.names(), ["web"], "{point}");
    }
}

#[test]
fn what_another_fleet_works_on_is_left_to_it() {
    let ours = World::with_web();
    ours.publish("app:2", Workload::healthy("2"));
    ours.publish("app:3", Workload::healthy("3"));
    let theirs = with_journal(&ours, &MemoryStore::new());
    for point in ["guard.before", "start.before", "arm.after"] {
        theirs.host.set_faults(FaultPlan {
            die_at_point: Some(point.to_owned()),
            ..FaultPlan::default()
        });
        let wish = request("web", "app:2");
        let died = theirs.host.drive(theirs.fleet.update(&wish, &NoProgress));
        assert!(died.is_none(), "{point}: it died");
        let before = ours.names();
        let refusal = ours.update("web", "app:3").refusal;
        let refusal = refusal.expect("it is refused");
        assert_eq!(refusal.code, "another_fleet", "{point}");
        assert_eq!(ours.names(), before, "{point}");
        recover(&theirs);
    }
    assert_outcome(&ours.update("web", "app:3"), Outcome::Committed);
}

#[test]
fn volumes_that_a_prune_took_with_the_old_container_get_their_data_back() {
    let world = died_at("park.recorded");
    let rows = world.host.files("web-data").expect("it is there")[ROWS].clone();
    let down_for = std::time::Duration::from_millis(500);
    // Somebody else's container keeps the image. The engine's death takes the guard, a prune takes what is stopped, and the volume with it.
    world.host.happen(Move::EngineKill { down_for });
    world.host.let_engine_return();
    let other = fleet_core::testing::instance("other").without_volumes();
    world.host.run(other);
    world.host.happen(Move::Prune);
    assert!(world.host.files("web-data").is_none(), "it is gone");
    let (ended, found) = recover(&world);
    assert_eq!(ended, Some(Outcome::RolledBack), "{found}");
    let now = world.host.files("web-data").expect("it is there");
    assert!(now[ROWS].starts_with(&rows), "the data is back");
    assert_eq!(world.names(), ["other", "web"]);
}
