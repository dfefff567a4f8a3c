//! What is refused before anything is touched.

use fleet_core::model::{FleetSettings, Pause};
use fleet_core::ports::{NoProgress, SettingsStore};
use fleet_core::testing::{Workload, image, instance};
use fleet_core::time::Timestamp;
use fleet_core::update::{Outcome, UpdateReport};

use super::{World, assert_outcome, request};

/// Updates `web`, and checks that it was refused with this code and not touched.
#[track_caller]
fn check(world: &World, code: &str) -> UpdateReport {
    let before = world.host.container("web");
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::Refused);
    assert_eq!(
        report.refusal.as_ref().map(|refusal| refusal.code.as_str()),
        Some(code),
        "{report:#?}"
    );
    let now = world.host.container("web");
    assert_eq!(
        now.as_ref().map(|web| web.started_at),
        before.as_ref().map(|web| web.started_at)
    );
    assert_eq!(world.names(), ["web"]);
    report
}

fn with(container: fleet_core::testing::InstanceBuilder) -> World {
    let world = World::new();
    world.host.load(image("app:1"));
    world.host.run(container);
    world.publish("app:2", Workload::healthy("2"));
    world
}

#[test]
fn what_cannot_be_put_back_is_refused_with_the_remedy() {
    check(&with(instance("web").auto_remove()), "auto_remove");
    check(
        &with(instance("web").label("fleet.enable", "false")),
        "not_managed",
    );
    check(
        &with(instance("web").label("com.docker.swarm.task.id", "x")),
        "swarm_task",
    );
    check(&with(instance("web").label("fleet.pin", "1")), "pinned");
    let report = check(
        &with(instance("web").writable_layer("/srv/db.sqlite")),
        "writable_layer",
    );
    assert!(
        report
            .reason
            .is_some_and(|reason| reason.contains("/srv/db.sqlite") && reason.contains("discard"))
    );
}

#[test]
fn what_compose_put_into_a_container_is_not_lost_even_where_its_layer_may_be() {
    let report = check(
        &with(
            instance("web")
                .inline_file("/run/secrets/key")
                .writable_layer("/var/cache/x")
                .label("fleet.writable_layer", "discard"),
        ),
        "compose_inline",
    );
    let reason = report.reason.unwrap_or_default();
    assert!(
        reason.contains("/run/secrets/key") && reason.contains("`file:`"),
        "{reason}"
    );
}

#[test]
fn the_writable_layer_may_be_discarded_when_the_label_says_so() {
    let world = with(
        instance("web")
            .writable_layer("/tmp/x")
            .label("fleet.writable_layer", "discard"),
    );
    assert_outcome(&world.update("web", "app:2"), Outcome::Committed);
}

#[test]
fn outside_of_a_configured_window_it_waits_unless_overridden() {
    // The fake clock begins on a Thursday.
    let world = with(instance("web").label("fleet.window", "Sun 02:00-02:01"));
    let report = check(&world, "outside_window");
    assert!(report.refusal.is_some_and(|refusal| refusal.for_now));
    let mut wish = request("web", "app:2");
    wish.override_window = true;
    assert_outcome(&world.update_with(&wish), Outcome::Committed);
}

#[test]
fn under_a_pause_nothing_begins() {
    let world = with(instance("web"));
    let pause = Pause {
        by: "ann".to_owned(),
        reason: "holiday".to_owned(),
        since: Timestamp::UNIX_EPOCH,
    };
    let settings = FleetSettings {
        pause: Some(pause),
        ..FleetSettings::default()
    };
    let set = world
        .store
        .set_settings(&settings, "ann", Timestamp::UNIX_EPOCH);
    world
        .host
        .drive(set)
        .expect("nothing kills it")
        .expect("memory works");
    let report = check(&world, "paused");
    assert!(
        report
            .reason
            .is_some_and(|reason| reason.contains("ann") && reason.contains("holiday"))
    );
}

#[test]
fn a_digest_that_failed_is_not_tried_again_until_somebody_says_so() {
    let world = World::with_web();
    world.publish("app:2", Workload::unhealthy("2"));
    assert_outcome(&world.update("web", "app:2"), Outcome::RolledBack);
    check(&world, "quarantined");
    let mut wish = request("web", "app:2");
    wish.retry = true;
    assert_outcome(&world.update_with(&wish), Outcome::RolledBack);
}

#[test]
fn a_reference_that_does_not_exist_fails_without_touching_anything() {
    let world = World::with_web();
    let before = world.host.container("web").expect("it runs");
    let report = world.update("web", "app:none");
    assert_outcome(&report, Outcome::Failed);
    assert_eq!(
        world.host.container("web").map(|web| web.started_at),
        Some(before.started_at)
    );
}

#[test]
fn an_unknown_name_is_an_error_that_names_the_nearest() {
    let world = World::with_web();
    let wish = request("wep", "app:2");
    let run = world.fleet.update(&wish, &NoProgress);
    let error = world
        .host
        .drive(run)
        .expect("nothing kills it")
        .expect_err("there is no such instance");
    assert_eq!(
        error.to_string(),
        "there is no instance wep; did you mean web?"
    );
}
