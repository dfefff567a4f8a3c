//! What is new in a release, as far as it can be had.

use fleet_core::detect::{Hold, Verdict};
use fleet_core::notify::changelog::{CHANGELOG_BYTES_MAX, Changelog};
use fleet_core::record::EventKind;
use fleet_core::testing::{ImageBuilder, Workload, image};
use fleet_core::update::Outcome;
use serde_json::json;

use super::{World, assert_outcome, probed};

const PATH: &str = "/app/changelogs/latest.json";

fn release(tag: &str) -> ImageBuilder {
    image("app:1").runs(Workload::healthy(tag))
}

/// An instance that follows the engine's own tag, which points to another image by now.
fn offered(image: ImageBuilder) -> World {
    let world = World::new();
    world.host.load(release("1"));
    world.host.run(probed("web").label("fleet.source", "local"));
    world.host.load(image);
    world
        .host
        .drive(world.fleet.check("test"))
        .unwrap()
        .unwrap();
    world
}

#[track_caller]
fn news(world: &World) -> Option<Changelog> {
    world
        .host
        .drive(world.fleet.whats_new("web"))
        .unwrap()
        .unwrap()
}

fn changelog(version: &str) -> Vec<u8> {
    let sections = json!([{ "title": "New", "items": ["faster\u{1b}[31m"] }]);
    json!({ "version": version, "date": "2026-11-01", "sections": sections })
        .to_string()
        .into_bytes()
}

#[test]
fn the_file_of_the_image_tells_it_and_hostile_text_is_cleaned() {
    let world = offered(release("2").file(PATH, &changelog("2.0")));
    let found = news(&world).unwrap();
    assert_eq!(found.version, "2.0");
    assert_eq!(found.sections[0].items, ["faster [31m"]);
    let events = world.store.events();
    let available = events
        .iter()
        .find(|event| event.event.kind == EventKind::UpdateAvailable)
        .unwrap();
    assert_eq!(available.event.data["changelog"]["version"], "2.0");
}

#[test]
fn without_a_usable_file_the_labels_tell_it() {
    let label = "org.opencontainers.image.version";
    let too_large = vec![b' '; CHANGELOG_BYTES_MAX + 1];
    for image in [
        release("2"),
        release("2").file(PATH, b"<html>"),
        release("2").file(PATH, &too_large),
    ] {
        let world = offered(image.label(label, "2.1"));
        assert_eq!(news(&world).unwrap().version, "2.1");
    }
}

#[test]
fn a_release_that_says_nothing_and_one_that_is_not_offered_have_no_news() {
    assert_eq!(news(&offered(release("2"))), None);
    let current = offered(release("1").file(PATH, &changelog("1.0")));
    assert_eq!(news(&current), None);
}

#[test]
fn what_was_not_pulled_tells_by_its_annotations_alone() {
    let world = World::new();
    world.host.publish(release("1"));
    world.host.load(release("1"));
    world.host.run(probed("web"));
    let label = "org.opencontainers.image.version";
    let next = release("2")
        .label(label, "2.2")
        .file(PATH, &changelog("2.0"));
    world.host.publish(next);
    world
        .host
        .drive(world.fleet.check("test"))
        .unwrap()
        .unwrap();
    assert_eq!(news(&world).unwrap().version, "2.2");
}

#[test]
fn a_tag_that_goes_back_to_what_ran_before_fleet_came_is_not_offered() {
    let world = World::with_web();
    world.publish("app:1", Workload::healthy("2"));
    assert_outcome(&world.update("web", "app:1"), Outcome::Committed);
    world.host.publish(image("app:1"));
    let check = world.fleet.check("test");
    let findings = world.host.drive(check).expect("nothing kills it");
    let findings = findings.expect("the ports work");
    let verdicts: Vec<_> = findings.iter().map(|finding| &finding.verdict).collect();
    assert_eq!(verdicts, [&Verdict::Held(Hold::MovedBackwards)]);
}
