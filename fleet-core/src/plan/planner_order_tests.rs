//! In which order a plan takes its instances.

use super::*;

#[test]
fn cohort_priority_and_record_come_first_and_fleet_itself_last() {
    let mut world = World::of(
        ["a", "b", "c", "d", "e", "own"]
            .map(|name| candidate(name, name))
            .to_vec(),
    );
    world.candidates[5].own = true;
    world.candidates[5].cohort = Some("canary".to_owned());
    world.candidates[4].cohort = Some("canary".to_owned());
    world.candidates[3].priority = -1;
    world.candidates[0].failed_before = true;
    let names = world.names();
    assert_eq!(names[..2], ["e", "d"]);
    assert_eq!(names[4..], ["a", "own"]);
    let plan = world.plan();
    assert_eq!(plan.wave_range(plan.wave_of(5)).len(), 1);
}

#[test]
fn the_order_is_the_same_with_every_build_and_another_for_each_release() {
    let mut world = World::of(
        (0..8)
            .map(|number| candidate(&format!("web-{number}"), &format!("t{number}")))
            .collect(),
    );
    let first = world.names();
    assert_eq!(
        first,
        [
            "web-5", "web-4", "web-7", "web-6", "web-2", "web-0", "web-3", "web-1"
        ]
    );
    world.candidates.reverse();
    assert_eq!(world.names(), first);
    world.request.target.digest = Digest::of(b"newer");
    assert_ne!(world.names(), first);
    world.request.target.digest = Digest::of(b"new");
    world.settings.salt = "pepper".to_owned();
    assert_ne!(world.names(), first);
}

#[test]
fn the_order_lasts_as_long_as_the_setting_says() {
    let mut world = World::of(
        (0..12)
            .map(|number| candidate(&format!("web-{number}"), &format!("t{number}")))
            .collect(),
    );
    let mut names = |stickiness, digest: &[u8], channel: &str| {
        world.settings.stickiness = stickiness;
        world.request.target.digest = Digest::of(digest);
        for candidate in &mut world.candidates {
            candidate.channel = Channel(channel.to_owned());
        }
        world.names()
    };
    use Stickiness::{Fixed, PerChannel, PerRelease};
    for (stickiness, by_release, by_channel) in [
        (PerRelease, true, false),
        (PerChannel, false, true),
        (Fixed, false, false),
    ] {
        let first = names(stickiness, b"new", "stable");
        let differs = |other: Vec<String>| other != first;
        let newer = differs(names(stickiness, b"newer", "stable"));
        let moved = differs(names(stickiness, b"new", "canary"));
        assert_eq!((newer, moved), (by_release, by_channel), "{stickiness}");
    }
    let [release, channel, fixed] = Stickiness::ALL.map(|it| names(it, b"new", "stable"));
    assert!(release != channel && channel != fixed && fixed != release);
}

#[test]
fn tenants_take_turns() {
    let world = World::of(
        (0..12)
            .map(|number| {
                candidate(
                    &format!("web-{number}"),
                    ["big", "big", "big", "small"][number % 4],
                )
            })
            .collect(),
    );
    let plan = world.plan();
    let first_wave: HashSet<&str> = plan.members[..2]
        .iter()
        .map(|member| plan.tenant(member).as_str())
        .collect();
    assert_eq!(first_wave.len(), 2);
}
