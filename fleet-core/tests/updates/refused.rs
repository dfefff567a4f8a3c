//! What is refused before anything is touched.

use fleet_core::model::{FleetSettings, GlobalMode, Pause, TenantMode, UpdateConfig};
use fleet_core::ports::{NoProgress, SettingsStore, UpdateConfigRepository};
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

fn set(world: &World, settings: &FleetSettings) {
    let set = world
        .store
        .set_settings(settings, "ann", Timestamp::UNIX_EPOCH);
    world
        .host
        .drive(set)
        .expect("nothing kills it")
        .expect("memory works");
}

fn set_value(world: &World, key: &str, value: &str) {
    let settings = FleetSettings {
        values: [(key.to_owned(), value.to_owned())].into(),
        ..FleetSettings::default()
    };
    set(world, &settings);
}

/// Codes of what `explain` says would be refused.
fn explained(world: &World) -> Vec<String> {
    let explain = world.fleet.explain("web");
    let found = world.host.drive(explain).expect("nothing kills it");
    let refusals = found.expect("the ports work").refusals;
    refusals.into_iter().map(|refusal| refusal.code).collect()
}

/// What `explain` says of a setting, and where it has it from.
#[track_caller]
fn check_setting(world: &World, setting: &str, expect: &str) {
    let explain = world.fleet.explain("web");
    let found = world.host.drive(explain).expect("nothing kills it");
    let mut rows = found.expect("the ports work").settings.into_iter();
    let row = rows.find(|row| row.setting == setting);
    let row = row.map(|row| format!("{} ({})", row.value, row.source));
    assert_eq!(row.as_deref(), Some(expect), "{setting}");
}

#[test]
fn explain_says_when_it_would_be_updated_and_who_says_so() {
    let saturday = |world: &World| set_value(world, "default.window", "Sat 01:00-02:00");
    let plain = with(instance("web"));
    check_setting(&plain, "window", "always (default)");
    check_setting(&plain, "mode", "notify (default)");
    saturday(&plain);
    check_setting(&plain, "window", "Sat 01:00-02:00 (config)");
    let nightly = with(instance("web").label("fleet.policy", "nightly"));
    saturday(&nightly);
    check_setting(&nightly, "window", "nightly (label)");
    check_setting(&nightly, "policy", "nightly (label)");
    check_setting(&nightly, "mode", "auto (label)");
    let settings = FleetSettings {
        mode: GlobalMode::Manual,
        ..FleetSettings::default()
    };
    set(&nightly, &settings);
    check_setting(&nightly, "mode", "manual (config)");
    let config = UpdateConfig {
        mode: TenantMode::Auto,
        preferred_hour_utc: 5,
        windows: Vec::new(),
    };
    let tenant = "web".parse().expect("a tenant");
    let now = Timestamp::UNIX_EPOCH;
    let upsert = nightly.store.upsert(&tenant, &config, "ann", now);
    let upserted = nightly.host.drive(upsert).expect("nothing kills it");
    upserted.expect("memory works");
    set(&nightly, &FleetSettings::default());
    check_setting(&nightly, "window", "from 05:00 UTC (tenant)");
    check_setting(&nightly, "mode", "auto (tenant)");
    check_setting(
        &nightly,
        "policy",
        "nightly (does not count: its tenant has a config) (label)",
    );
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
    set(&world, &settings);
    let report = check(&world, "paused");
    assert!(
        report
            .reason
            .is_some_and(|reason| reason.contains("ann") && reason.contains("holiday"))
    );
}

#[test]
fn a_mode_of_paused_is_a_pause() {
    let world = with(instance("web"));
    let settings = FleetSettings {
        mode: GlobalMode::Paused,
        ..FleetSettings::default()
    };
    set(&world, &settings);
    let report = check(&world, "paused");
    assert!(report.refusal.is_some_and(|refusal| refusal.for_now));
    assert_eq!(explained(&world), ["paused"]);
}

#[test]
fn in_a_freeze_nothing_begins_whatever_is_overridden() {
    let world = with(instance("web"));
    set_value(
        &world,
        "freeze",
        "2000-01-01T00:00:00Z..2999-01-01T00:00:00Z ages",
    );
    let report = check(&world, "frozen");
    assert!(report.refusal.is_some_and(|refusal| refusal.for_now));
    assert!(report.reason.is_some_and(|reason| reason.contains("ages")));
    assert_eq!(explained(&world), ["frozen"]);
    let mut wish = request("web", "app:2");
    wish.override_window = true;
    assert_outcome(&world.update_with(&wish), Outcome::Refused);
    set_value(
        &world,
        "freeze",
        "2000-01-01T00:00:00Z..2000-01-02T00:00:00Z over",
    );
    assert_outcome(&world.update("web", "app:2"), Outcome::Committed);
}

#[test]
fn the_windows_of_the_fleet_hold_what_has_none_of_its_own() {
    let sunday = |world: &World| set_value(world, "default.window", "Sun 02:00-02:01");
    let world = with(instance("web").label("fleet.policy", "nightly"));
    sunday(&world);
    check(&world, "outside_window");
    assert_eq!(explained(&world), ["outside_window"]);
    let mut wish = request("web", "app:2");
    wish.override_window = true;
    assert_outcome(&world.update_with(&wish), Outcome::Committed);
    let always = "Mon-Sun 00:00-24:00";
    let world = with(instance("web").label("fleet.window", always));
    sunday(&world);
    assert_outcome(&world.update("web", "app:2"), Outcome::Committed);
}

#[test]
fn a_setting_that_cannot_be_read_does_not_count_as_none() {
    let world = with(instance("web"));
    set_value(&world, "freeze", "for a while");
    check(&world, "bad_setting");
    assert_eq!(explained(&world), ["bad_setting"]);
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
