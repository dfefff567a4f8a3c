//! Which channels are asked when.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use fleet_core::engine::rollout::Command;
use fleet_core::image::{Digest, ImageRef};
use fleet_core::model::{FleetSettings, GlobalMode, Platform, Release};
use fleet_core::plan::rollout::Phase;
use fleet_core::ports::PortError;
use fleet_core::testing::{Fault, FaultPlan, Move};

use super::*;

/// A freeze that never ends.
const FROZEN: (&str, &str) = (
    "freeze",
    "2000-01-01T00:00:00Z..2100-01-01T00:00:00Z for good",
);

fn with_settings(values: &[(&str, &str)]) -> FleetSettings {
    let values = values.iter();
    FleetSettings {
        values: values
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..FleetSettings::default()
    }
}

#[track_caller]
fn check_gaps(asked: &[f64], shortest: f64, longest: f64) {
    for pair in asked.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((shortest..=longest).contains(&gap), "{gap} s in {asked:?}");
    }
}

#[test]
fn each_channel_is_asked_in_its_own_interval_and_no_other_with_it() {
    let world = World::new().with_channels(&["canary", "staging", "stable"]);
    world.beside(world.pass(minutes(120)));
    let [canary, staging, stable] = ["canary", "staging", "stable"].map(|name| world.asked(name));
    // A tenth of jitter, and up to half a minute until a turn.
    check_gaps(&canary, 300.0, 361.0);
    check_gaps(&staging, 900.0, 1021.0);
    check_gaps(&stable, 1800.0, 2011.0);
    assert!((20..=24).contains(&canary.len()), "{canary:?}");
    assert!((7..=8).contains(&staging.len()), "{staging:?}");
    assert!(stable.len() == 4, "{stable:?}");
}

#[test]
fn what_is_found_waits_for_quiet_and_is_asked_for_once_more() {
    let world = quiet(minutes(5)).with_channels(&["stable"]);
    world.beside(async {
        world.pass(minutes(1)).await;
        world.publish("stable:1", "2");
        world
            .until("a new release", || world.count("update.available") == 1)
            .await;
        let found_after = world.host.clock().monotonic();
        assert!(found_after >= minutes(30));
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
        let waited = world.host.clock().monotonic() - found_after;
        assert!(waited >= minutes(5) && waited <= minutes(7), "{waited:?}");
    });
    // Two polls, and whether it is still there. The question of the update itself names the digest.
    let asked = world.asked("stable");
    assert_eq!(asked.len(), 3, "{asked:?}");
}

/// A world in which a release must have been the newest for so long.
fn quiet(quiet_period: Duration) -> World {
    let supersede = SupersedePolicy {
        quiet_period,
        ..SupersedePolicy::default()
    };
    World {
        supersede,
        ..World::new()
    }
}

#[test]
fn what_is_withdrawn_while_it_waits_is_not_rolled_out() {
    let world = quiet(minutes(5)).with_channels(&["stable"]);
    world.beside(async {
        world.pass(minutes(1)).await;
        world.publish("stable:1", "2");
        world
            .until("a new release", || world.count("update.available") == 1)
            .await;
        world.pass(minutes(2)).await;
        world.host.publish(image("stable:1"));
        world.pass(minutes(20)).await;
    });
    assert_eq!(world.count("rollout.planned"), 0, "{:?}", world.events());
    // Two polls, whether it is still there, and what is there instead.
    let asked = world.asked("stable");
    assert_eq!(asked.len(), 4, "{asked:?}");
}

#[test]
fn what_comes_while_another_waits_is_rolled_out_in_its_place_and_soon() {
    let world = quiet(minutes(5)).with_channels(&["stable"]);
    world.beside(async {
        world.pass(minutes(1)).await;
        world.publish("stable:1", "2");
        world
            .until("a new release", || world.count("update.available") == 1)
            .await;
        world.pass(minutes(2)).await;
        world.publish("stable:1", "3");
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
    });
    assert!(world.host.clock().monotonic() < minutes(45));
    assert_eq!(world.count("rollout.planned"), 1);
    let newest = image("stable:1").runs(Workload::healthy("3"));
    assert!(runs(&world, "stable", &world.host.load(newest)));
}

#[test]
fn a_poll_that_finds_it_withdrawn_drops_what_waits() {
    let world = quiet(minutes(60)).with_channels(&["canary"]);
    world.beside(async {
        world.pass(minutes(1)).await;
        world.publish("canary:1", "2");
        world
            .until("a new release", || world.count("update.available") == 1)
            .await;
        world.host.publish(image("canary:1"));
        world.pass(minutes(120)).await;
    });
    assert_eq!(world.count("rollout.planned"), 0, "{:?}", world.events());
    // The polls, and no other question.
    check_gaps(&world.asked("canary"), 300.0, 361.0);
}

#[test]
fn a_registry_that_cannot_say_whether_it_is_still_there_is_asked_again() {
    let world = quiet(minutes(5)).with_channels(&["stable"]);
    let down = FaultPlan {
        at_op: [(
            "ask the registry",
            Fault::Refuse(fleet_core::ports::PortErrorKind::Unreachable),
        )]
        .into(),
        ..FaultPlan::default()
    };
    world.publish("stable:1", "2");
    world.beside(async {
        world
            .until("a new release", || world.count("update.available") == 1)
            .await;
        world.host.set_faults(down);
        world.pass(minutes(8)).await;
        assert_eq!(world.count("rollout.planned"), 0);
        world.host.set_faults(FaultPlan::default());
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
    });
    assert!(world.host.clock().monotonic() < minutes(20));
}

#[test]
fn a_release_that_is_withdrawn_in_mid_rollout_is_taken_back() {
    let world = World::new();
    world.host.load(image("app:1"));
    for name in ["one", "two", "three"] {
        world.host.run(follower(name, "canary").image("app:1"));
    }
    world.beside(async {
        world.pass(minutes(1)).await;
        world.publish("app:1", "2");
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
        world.host.publish(image("app:1"));
        world
            .until("its end", || world.count("rollout.aborted") == 1)
            .await;
        world
            .until("the way back", || world.count("update.committed") == 2)
            .await;
        world.pass(minutes(20)).await;
    });
    // The one that had the release is back, and nobody else ever got it.
    assert_eq!(world.count("update.started"), 2, "{:?}", world.events());
    let old = world.host.load(image("app:1"));
    for name in ["one", "two", "three"] {
        assert!(runs(&world, name, &old), "{name}");
    }
}

fn runs(world: &World, name: &str, release: &Release) -> bool {
    let container = world.host.container(name).expect("it is there");
    let id = container.image_id.as_str();
    let of = [
        Some(&release.platform_digest),
        release.config_digest.as_ref(),
    ];
    of.into_iter().flatten().any(|digest| digest.as_str() == id)
}

#[test]
fn what_is_found_waits_for_a_person_where_the_settings_say_so() {
    let world = World::new().with_channels(&["canary"]);
    let process = world.process();
    world.with(&process, async {
        let settings = with_settings(&[("default.needs_approval", "true")]);
        world.set(&settings).await;
        world.publish("canary:1", "2");
        world
            .until("a rollout", || world.count("rollout.planned") == 1)
            .await;
        world.pass(minutes(30)).await;
        assert_eq!(world.count("update.started"), 0);
        let rollout = process.orchestrator.list(1).await.unwrap().remove(0);
        assert_eq!(rollout.state.phase, Phase::AwaitingApproval);
        // A newer release takes its place and must be approved itself.
        world.publish("canary:1", "3");
        world
            .until("a newer one", || world.count("rollout.planned") == 2)
            .await;
        let newer = process.orchestrator.list(1).await.unwrap().remove(0);
        let id = newer.plan.id();
        let approve = Command::Approve;
        process
            .orchestrator
            .command(&id, &approve, "ann")
            .await
            .unwrap();
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
        let old = process.orchestrator.load(&rollout.plan.id()).await.unwrap();
        assert_eq!(old.state.phase, Phase::Superseded { by: id });
    });
}

/// A registry that takes an hour for its first answer.
struct Slow {
    registry: Arc<dyn ReleaseSource>,
    clock: ManualClock,
    questions: Arc<AtomicU32>,
}

#[async_trait]
impl ReleaseSource for Slow {
    async fn digest(&self, image: &ImageRef) -> Result<Digest, PortError> {
        if self.questions.fetch_add(1, Ordering::Relaxed) == 0 {
            pass(&self.clock, minutes(60)).await;
        }
        self.registry.digest(image).await
    }

    async fn resolve(&self, image: &ImageRef, platform: &Platform) -> Result<Release, PortError> {
        self.registry.resolve(image, platform).await
    }

    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, PortError> {
        self.registry.tags(image).await
    }
}

#[test]
fn a_slow_registry_is_asked_once_and_missed_polls_do_not_pile_up() {
    let mut world = World::new().with_channels(&["canary"]);
    let questions = Arc::new(AtomicU32::new(0));
    world.releases = Arc::new(Slow {
        registry: world.releases.clone(),
        clock: world.host.clock(),
        questions: questions.clone(),
    });
    world.beside(async {
        world.pass(minutes(59)).await;
        assert_eq!(questions.load(Ordering::Relaxed), 1, "it is under way");
        world.pass(minutes(5)).await;
        // The one that was due by then, and no other for those that were missed.
        assert_eq!(questions.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_clock_that_is_set_by_days_brings_one_poll_and_no_more() {
    let world = World::new().with_channels(&["stable"]);
    world.beside(async {
        world.pass(minutes(1)).await;
        for (days, polls) in [(3, 2), (-3, 3)] {
            world.host.happen(Move::ClockJump {
                millis: days * 24 * 3_600_000,
            });
            world.pass(minutes(20)).await;
            assert_eq!(world.asked("stable").len(), polls, "{days} days");
        }
    });
}

#[test]
fn a_channel_that_comes_up_later_is_asked_soon() {
    let world = World::new();
    world.beside(async {
        world.pass(minutes(2)).await;
        world.host.load(image("late:1"));
        world.host.run(follower("late", "late"));
        world.pass(minutes(1)).await;
        assert_eq!(world.asked("late").len(), 1);
    });
}

#[test]
fn a_registry_that_is_down_changes_nothing_and_is_asked_again() {
    let world = World::new().with_channels(&["canary"]);
    let down = FaultPlan {
        at_op: [(
            "ask the registry",
            Fault::Refuse(fleet_core::ports::PortErrorKind::Unreachable),
        )]
        .into(),
        ..FaultPlan::default()
    };
    world.publish("canary:1", "2");
    world.host.set_faults(down);
    world.beside(async {
        world.pass(minutes(20)).await;
        assert_eq!(world.count("update.available"), 0);
        world.host.set_faults(FaultPlan::default());
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
    });
    let asked = world.asked("canary");
    assert!((4..=6).contains(&asked.len()), "{asked:?}");
}

/// A registry whose client has a defect: its first question ends in a panic.
struct Defective {
    registry: Arc<dyn ReleaseSource>,
    questions: AtomicU32,
}

#[async_trait]
impl ReleaseSource for Defective {
    async fn digest(&self, image: &ImageRef) -> Result<Digest, PortError> {
        assert!(
            self.questions.fetch_add(1, Ordering::Relaxed) > 0,
            "a defect"
        );
        self.registry.digest(image).await
    }

    async fn resolve(&self, image: &ImageRef, platform: &Platform) -> Result<Release, PortError> {
        self.registry.resolve(image, platform).await
    }

    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, PortError> {
        self.registry.tags(image).await
    }
}

#[test]
fn a_defect_ends_one_look_and_not_the_loop() {
    let mut world = World::new().with_channels(&["canary"]);
    world.releases = Arc::new(Defective {
        registry: world.releases.clone(),
        questions: AtomicU32::new(0),
    });
    world.publish("canary:1", "2");
    world.beside(async {
        world
            .until("an update", || world.count("update.committed") == 1)
            .await;
    });
    assert!(world.host.clock().monotonic() >= minutes(5));
}

#[test]
fn a_release_goes_to_the_instances_of_the_channel_whose_poll_found_it() {
    let world = World::new();
    world.host.load(image("app:1"));
    for channel in ["canary", "stable"] {
        world.host.run(instance_of(channel));
    }
    let (canary, stable) = (update_of("canary"), update_of("stable"));
    world.beside(async {
        world.pass(minutes(1)).await;
        world.publish("app:1", "2");
        world
            .until("an update of the one", || count(&world, &canary) == 1)
            .await;
        assert!(world.host.clock().monotonic() < minutes(8));
        world
            .until("an update of the other", || count(&world, &stable) == 1)
            .await;
        assert!(world.host.clock().monotonic() >= minutes(30));
    });
    assert_eq!(world.count("rollout.completed"), 2);
}

/// An instance of `app:1` that is called after its channel.
fn instance_of(channel: &str) -> InstanceBuilder {
    follower(channel, channel).image("app:1")
}

fn update_of(name: &str) -> String {
    format!("update.committed {name}")
}

fn count(world: &World, wanted: &str) -> usize {
    let events = world.store.events().into_iter();
    let told = events.map(|event| {
        let instance = event.event.instance.map(|it| it.to_string());
        format!(
            "{} {}",
            event.event.kind.label(),
            instance.unwrap_or_default()
        )
    });
    told.filter(|told| told == wanted).count()
}

#[test]
fn somebody_hears_of_an_instance_that_never_gets_its_turn() {
    let world = World::new().with_channels(&["stable"]);
    world.beside(async {
        // Nobody waits for what is rolled out by hand.
        let by_hand = FleetSettings {
            mode: GlobalMode::Manual,
            ..with_settings(&[("default.max_lag", "3h")])
        };
        world.set(&by_hand).await;
        world.publish("stable:1", "2");
        world.pass(minutes(240)).await;
        assert_eq!(world.count("alert.raised"), 0);

        let max_lag = ("default.max_lag", "6h");
        world.set(&with_settings(&[max_lag, FROZEN])).await;
        world.pass(minutes(90)).await;
        assert_eq!(world.count("alert.raised"), 0);
        // The next release on top does not begin it anew.
        world.publish("stable:1", "3");
        world.pass(minutes(90)).await;
        assert_eq!(world.count("alert.raised"), 1);
        assert_eq!(world.count("alert.resolved"), 0);

        world.set(&with_settings(&[max_lag])).await;
        world
            .until("the end of the alert", || {
                world.count("alert.resolved") == 1
            })
            .await;
        assert_eq!(world.count("alert.raised"), 1);
    });
}

#[test]
fn a_poll_in_the_middle_of_an_update_does_not_say_that_the_instance_caught_up() {
    let world = World::new();
    world.host.load(image("stable:1"));
    let slow = follower("stable", "stable").label("fleet.health.timeout", "2h");
    world.host.run(slow);
    world.beside(async {
        let max_lag = ("default.max_lag", "1h");
        world.set(&with_settings(&[max_lag, FROZEN])).await;
        let bad = image("stable:1").runs(Workload::unhealthy("2"));
        world.host.publish(bad);
        world
            .until("the alert", || world.count("alert.raised") == 1)
            .await;
        world.set(&with_settings(&[max_lag])).await;
        world
            .until("an update", || world.count("update.started") == 1)
            .await;
        let asked = world.asked("stable").len();
        world
            .until("the way back", || world.count("update.rolled_back") == 1)
            .await;
        assert!(world.asked("stable").len() >= asked + 3, "polls in between");
        assert_eq!(world.count("alert.resolved"), 0);
    });
}
