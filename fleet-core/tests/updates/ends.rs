//! How an update ends.

use std::time::Duration;

use fleet_core::model::RestartPolicy;
use fleet_core::testing::{Boot, StopManner, Wellness, Workload, image, instance};
use fleet_core::update::{Outcome, Step};

use super::{World, assert_outcome, probed};

#[test]
fn a_healthy_release_is_committed_and_leaves_nothing_behind() {
    let world = World::with_web();
    let release = world.publish("app:2", Workload::healthy("2"));
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::Committed);
    let web = world.host.container("web").expect("it has its name");
    assert!(web.is_up());
    assert_eq!(web.restart_policy, RestartPolicy::Always);
    assert_eq!(web.image, "app:2");
    assert_eq!(world.names(), ["web"]);
    assert_eq!(
        report.to_digest.as_deref(),
        Some(release.image.digest.as_str())
    );
    assert!(
        report
            .downtime
            .is_some_and(|downtime| downtime > Duration::ZERO)
    );
    assert!(
        world
            .host
            .tags()
            .keys()
            .all(|tag| !tag.starts_with("fleet-keep")),
        "{:?}",
        world.host.tags()
    );
    assert_eq!(world.host.tags()["app:2"], web.image_id);
    let steps: Vec<_> = report.steps.iter().map(|step| step.step).collect();
    assert!(
        steps.contains(&Step::Snapshot) && !steps.contains(&Step::Restore),
        "{steps:?}"
    );
    assert_eq!(
        world.events().last().map(String::as_str),
        Some("update.step")
    );
    assert!(world.events().contains(&"update.committed".to_owned()));
}

#[test]
fn a_release_that_destroys_data_is_rolled_back_to_the_same_container_and_data() {
    let world = World::with_web();
    let before = world.host.container("web").expect("it runs");
    world.publish("app:2", Workload::destroyer("2"));
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::RolledBack);
    let web = world.host.container("web").expect("it has its name");
    assert_eq!(
        (web.id, web.restart_policy),
        (before.id, RestartPolicy::Always)
    );
    assert_eq!(world.names(), ["web"]);
    let files = world.host.files("web-data").expect("the volume is there");
    assert!(!files["rows"].is_empty());
    assert_eq!(files["schema"], b"1");
    assert!(
        report
            .reason
            .is_some_and(|reason| reason.contains("not healthy"))
    );
}

#[test]
fn a_release_that_ends_at_once_is_rolled_back_without_waiting_for_the_timeout() {
    let world = World::with_web();
    world.publish("app:2", Workload::crasher("2"));
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::RolledBack);
    assert!(
        report.duration < Duration::from_secs(60),
        "{:?}",
        report.duration
    );
}

#[test]
fn a_program_that_does_not_exist_goes_back_without_a_restore() {
    let world = World::with_web();
    world.publish(
        "app:2",
        Workload {
            boot: Boot::NoSuchBinary,
            ..Workload::healthy("2")
        },
    );
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::RolledBack);
    assert!(
        report.steps.iter().all(|step| step.step != Step::Restore),
        "the volumes were never written to"
    );
}

#[test]
fn a_slow_starter_is_waited_for() {
    let world = World::with_web();
    world.publish(
        "app:2",
        Workload {
            health: Wellness::After(Duration::from_secs(40)),
            ..Workload::healthy("2")
        },
    );
    world.host.run(probed("slow"));
    assert_outcome(&world.update("slow", "app:2"), Outcome::Committed);
}

#[test]
fn a_container_that_ignores_its_stop_signal_is_killed_after_its_grace() {
    let world = World::new();
    world.host.load(image("app:1").runs(Workload {
        stop: StopManner::Ignores,
        ..Workload::healthy("1")
    }));
    world.host.run(instance("web").stop_timeout(3));
    world.publish("app:2", Workload::healthy("2"));
    world.publish("app:3", Workload::healthy("3"));
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::Committed);
    // It is told, once and of the one that was killed.
    assert!(
        report.notes.iter().any(|note| note.contains("137")),
        "{report:#?}"
    );
    let report = world.update("web", "app:3");
    assert_outcome(&report, Outcome::Committed);
    assert_eq!(report.notes, Vec::<String>::new());
}

#[test]
fn a_stopped_instance_stays_stopped() {
    let world = World::new();
    world.host.load(image("app:1"));
    world.host.run(instance("web").stopped());
    world.publish("app:2", Workload::healthy("2"));
    let report = world.update("web", "app:2");
    assert_outcome(&report, Outcome::Committed);
    let web = world.host.container("web").expect("it has its name");
    assert_eq!((web.is_up(), web.image.as_str()), (false, "app:2"));
    assert_eq!(web.restart_policy, RestartPolicy::Always);
}

#[test]
fn the_image_that_already_runs_is_unchanged_and_nothing_is_restarted() {
    let world = World::with_web();
    let before = world.host.container("web").expect("it runs");
    let report = world.update("web", "app:1");
    assert_outcome(&report, Outcome::Unchanged);
    let web = world.host.container("web").expect("it runs");
    assert_eq!((web.id, web.started_at), (before.id, before.started_at));
    assert_eq!(world.names(), ["web"]);
}

#[test]
fn several_stop_at_the_first_that_is_not_updated() {
    let world = World::with_web();
    world.host.run(probed("web2"));
    world.publish("app:2", Workload::unhealthy("2"));
    let reports = world.all_updates(&super::request("web,web2", "app:2"));
    let outcomes: Vec<_> = reports.iter().map(|report| report.outcome).collect();
    assert_eq!(
        outcomes,
        [Some(Outcome::RolledBack), Some(Outcome::Refused)]
    );
}
