//! What moves together.

use fleet_core::testing::{Workload, image, instance};
use fleet_core::update::{Outcome, Step};

use super::{World, assert_outcome, probed};

fn app_and_db(app_2: Workload) -> World {
    let world = World::new();
    world.host.load(image("app:1"));
    world
        .host
        .load(image("db:1").runs(Workload::healthy("db1")));
    world.host.run(instance("db").image("db:1"));
    world
        .host
        .run(probed("app").label("fleet.depends_on", "db"));
    world.publish("app:2", app_2);
    world
}

#[test]
fn an_app_and_its_database_are_stopped_in_reverse_and_started_in_order() {
    let world = app_and_db(Workload::healthy("2"));
    let report = world.update("app", "app:2");
    assert_outcome(&report, Outcome::Committed);
    let order = |step: Step| -> Vec<String> {
        let steps = report.steps.iter().filter(|done| done.step == step);
        steps.map(|done| done.instance.to_string()).collect()
    };
    assert_eq!(order(Step::Stop), ["app", "db"]);
    assert_eq!(order(Step::Start), ["db", "app"]);
    assert_eq!(world.names(), ["app", "db"]);
    assert_eq!(
        world.host.container("db").map(|db| db.image),
        Some("db:1".to_owned())
    );
}

#[test]
fn when_the_app_fails_both_are_back_as_the_same_containers() {
    let world = app_and_db(Workload::destroyer("2"));
    let ids =
        |world: &World| ["app", "db"].map(|name| world.host.container(name).map(|found| found.id));
    let before = ids(&world);
    let report = world.update("app", "app:2");
    assert_outcome(&report, Outcome::RolledBack);
    assert_eq!(ids(&world), before);
    assert_eq!(world.names(), ["app", "db"]);
    assert_eq!(
        report
            .steps
            .iter()
            .filter(|done| done.step == Step::Restore)
            .count(),
        2
    );
}

#[test]
fn a_cycle_is_refused() {
    let world = World::new();
    world.host.load(image("app:1"));
    world.host.run(instance("a").label("fleet.depends_on", "b"));
    world.host.run(instance("b").label("fleet.depends_on", "a"));
    world.publish("app:2", Workload::healthy("2"));
    let report = world.update("a", "app:2");
    assert_outcome(&report, Outcome::Refused);
    assert_eq!(
        report.refusal.map(|refusal| refusal.code),
        Some("cycle".to_owned())
    );
}

#[test]
fn a_volume_shared_with_a_container_that_fleet_does_not_manage_is_refused() {
    let world = World::with_web();
    world.host.run(
        instance("backup")
            .volume("web-data", "/backup")
            .label("fleet.enable", "false"),
    );
    world.publish("app:2", Workload::healthy("2"));
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::Refused);
    assert!(
        report
            .reason
            .is_some_and(|reason| reason.contains("backup"))
    );
}
