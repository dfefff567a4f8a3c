//! Somebody replaces the container in the middle of an update, as compose does: theirs is not touched, whatever the
//! moment, and however the update ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_core::crash::CrashPoints;
use fleet_core::engine::{Fleet, FleetOptions};
use fleet_core::model::Container;
use fleet_core::ports::{ContainerRuntime, NoProgress};
use fleet_core::testing::{FakeHost, ForeignMove, Move, Workload};
use fleet_core::update::Outcome;

use super::{World, assert_outcome, request};

/// Stands at every place that an update passes, and at one of them puts a container of its own under the name.
struct Stranger {
    host: FakeHost,
    strikes_at: Option<usize>,
    passed: Mutex<Vec<String>>,
    theirs: Mutex<Option<Container>>,
}

impl CrashPoints for Stranger {
    fn reached(&self, point: &str) -> bool {
        let mut passed = self.passed.lock().unwrap();
        if self.strikes_at == Some(passed.len()) {
            let replace = ForeignMove::Recreate("web".to_owned());
            let before = self.host.container("web").map(|web| web.id);
            self.host.happen(Move::Foreign(replace));
            // Between two names there is nobody to replace.
            let after = self.host.container("web");
            *self.theirs.lock().unwrap() = after.filter(|web| Some(&web.id) != before.as_ref());
        }
        passed.push(point.to_owned());
        false
    }
}

/// Updates with a stranger at one of the places; gives the places, and whether it found somebody to replace.
fn update(release: &Workload, strikes_at: Option<usize>) -> (Vec<String>, bool) {
    let mut world = World::with_web();
    world.publish("app:2", release.clone());
    let stranger = Arc::new(Stranger {
        host: world.host.clone(),
        strikes_at,
        passed: Mutex::default(),
        theirs: Mutex::default(),
    });
    let mut ports = world.fleet.ports().clone();
    ports.update.crash = stranger.clone();
    world.fleet = Fleet::new(ports, FleetOptions::default());
    let reports = {
        let wish = request("web", "app:2");
        let run = world.fleet.update(&wish, &NoProgress);
        world.host.drive(run).expect("nothing kills it")
    };
    let places = stranger.passed.lock().unwrap().clone();
    let theirs = stranger.theirs.lock().unwrap().clone();
    if let (Some(place), Some(theirs)) = (strikes_at, &theirs) {
        let case = format!("at {}: {reports:?}", places[place]);
        let now = world.host.containers();
        let now = now.iter().find(|container| container.id == theirs.id);
        let now = now.unwrap_or_else(|| panic!("removed {case}"));
        assert!(now.is_up(), "stopped {case}");
        assert_eq!(now.name, "web", "renamed {case}");
        assert_eq!(now.started_at, theirs.started_at, "started again {case}");
        assert_eq!(now.restart_policy, theirs.restart_policy, "changed {case}");
    }
    (places, theirs.is_some())
}

#[track_caller]
fn check(release: &Workload) {
    let (places, _) = update(release, None);
    assert!(places.len() > 30, "{places:?}");
    let replaced = (0..places.len()).filter(|place| update(release, Some(*place)).1);
    let replaced = replaced.count();
    assert!(replaced > places.len() / 2, "{replaced} of {places:?}");
}

#[test]
fn a_prune_of_what_was_stopped_does_not_keep_an_update_from_going_back() {
    let world = World::with_web();
    world.publish("app:2", Workload::destroyer("2"));
    let wish = request("web", "app:2");
    let mut pruned = false;
    let run = async {
        let update = world.fleet.update(&wish, &NoProgress);
        futures::pin_mut!(update);
        loop {
            match futures::poll!(&mut update) {
                std::task::Poll::Ready(result) => return result,
                std::task::Poll::Pending => {
                    let containers = world.host.containers();
                    let failed = containers.iter().any(|container| {
                        container.image == "app:2"
                            && container.started_at.is_some()
                            && !container.is_up()
                    });
                    if failed && !pruned {
                        pruned = true;
                        world.host.happen(Move::Prune);
                    }
                }
            }
        }
    };
    let reports = world.host.drive(run).expect("nothing kills it");
    let reports = reports.expect("the ports work");
    assert!(pruned, "{reports:#?}");
    assert_outcome(&reports[0], Outcome::RolledBack);
    let web = world.host.container("web").expect("it is back");
    assert_eq!((web.image.as_str(), web.is_up()), ("app:1", true));
    assert_eq!(world.names(), ["web"]);
}

#[test]
fn what_a_stranger_put_under_the_name_is_theirs_while_an_update_commits() {
    check(&Workload::healthy("2"));
}

#[test]
fn what_a_stranger_put_under_the_name_is_theirs_while_an_update_goes_back() {
    check(&Workload::destroyer("2"));
}

/// Makes the parked container again and lets it run, and kills the engine a moment later.
struct Vandal {
    host: FakeHost,
    kills_at: &'static str,
    theirs: Mutex<Option<Container>>,
    killed: AtomicBool,
}

impl CrashPoints for Vandal {
    fn reached(&self, point: &str) -> bool {
        if point == "promote.before" {
            let containers = self.host.containers();
            let mut names = containers.iter().map(|container| &container.name);
            let name = names.find(|name| name.contains(".fleet-p-"));
            let name = name.expect("the old container is parked");
            let again = ForeignMove::Recreate(name.clone());
            self.host.happen(Move::Foreign(again));
            *self.theirs.lock().unwrap() = self.host.container(name);
        }
        if point == self.kills_at && !self.killed.swap(true, Ordering::Relaxed) {
            let down_for = Duration::from_millis(500);
            self.host.happen(Move::EngineKill { down_for });
        }
        false
    }
}

/// Gives whether the engine lost sight of the process.
fn update_with_vandal(kills_at: &'static str, luck: u64) -> bool {
    let mut world = World::with_luck(luck).and_web();
    world.publish("app:2", Workload::crasher("2"));
    let vandal = Arc::new(Vandal {
        host: world.host.clone(),
        kills_at,
        theirs: Mutex::default(),
        killed: AtomicBool::new(false),
    });
    let mut ports = world.fleet.ports().clone();
    ports.update.crash = vandal.clone();
    world.fleet = Fleet::new(ports, FleetOptions::default());
    let report = world.update("web", "app:2");
    let theirs = vandal.theirs.lock().unwrap().take().expect("it was made");
    let engine = world.host.engine();
    let orphan = world.host.drive(engine.orphan(&theirs.id));
    let orphan = orphan.expect("nothing kills it").expect("it answers");
    if orphan.is_some() {
        assert_outcome(&report, Outcome::NeedsOperator);
        let reason = report.reason.unwrap_or_default();
        let lives_on = "lives on without the engine";
        let says_why = reason.contains(lives_on) && reason.contains(theirs.id.short());
        assert!(says_why, "{kills_at}: {reason}");
    }
    orphan.is_some()
}

#[test]
fn no_data_is_put_back_under_a_process_that_the_engine_lost() {
    for kills_at in [
        "gate.after",
        "stop_new.after",
        "evidence.before",
        "set_aside.before",
        "set_aside.after",
        "restore.before",
    ] {
        let lost = (0..8).filter(|luck| update_with_vandal(kills_at, *luck));
        let lost = lost.count();
        assert!(lost > 0, "the engine lost nothing at {kills_at}");
    }
}
