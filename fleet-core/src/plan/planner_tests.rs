//! Plans: who is in, who is not and why, in which order and in which waves. Every plan goes through the checker.

#[path = "planner_order_tests.rs"]
mod order;

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::super::candidate::{Asked, InstanceState, PlannerSettings};
use super::super::check::check;
use super::super::order::Stickiness;
use super::super::strategy::{
    Immediate, RollingWave, Single, StrategyRegistry, StrategySpec, WaveSize,
};
use super::*;
use crate::ids::{InstanceId, InstanceName, RolloutId, TenantId};
use crate::image::Digest;
use crate::model::labels::LabelMode;
use crate::model::{Channel, FleetSettings, GlobalMode, Pause, TenantMode, UpdateConfig};

const NOW: &str = "2026-01-05T12:00:00Z";

struct World {
    candidates: Vec<Candidate>,
    tenants: BTreeMap<TenantId, UpdateConfig>,
    fleet: FleetSettings,
    settings: PlannerSettings,
    request: Request,
}

fn instance(name: &str) -> InstanceId {
    InstanceId::local(InstanceName::new(name).unwrap())
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn candidate(name: &str, tenant_name: &str) -> Candidate {
    Candidate {
        instance: instance(name),
        tenant: tenant(tenant_name),
        channel: Channel::default(),
        current: Some(Digest::of(b"old")),
        behind: Some(true),
        enabled: true,
        restricted_by: None,
        mode: Some(LabelMode::Auto),
        policy: None,
        window: None,
        pin: None,
        cohort: None,
        priority: 0,
        min_age: None,
        health_timeout: Duration::from_secs(120),
        state: InstanceState::Idle,
        healthy: true,
        quarantined: false,
        failed_before: false,
        own: false,
        group: None,
        estimate: None,
    }
}

fn request(strategy: StrategySpec) -> Request {
    let target: crate::image::ImageRef = "registry.example/app:2".parse().unwrap();
    Request {
        id: RolloutId::new(NOW.parse().unwrap(), [1; 10]),
        parent: None,
        attempt: 1,
        actor: "ann".to_owned(),
        asked: Asked::ByOperator {
            tenants: Vec::new(),
        },
        target: target.pinned(Digest::of(b"new")),
        released_at: None,
        strategy,
        limits: Limits::default(),
        override_window: false,
        retry_quarantined: false,
        needs_approval: false,
    }
}

impl World {
    fn of(candidates: Vec<Candidate>) -> Self {
        let settings = PlannerSettings {
            cohorts: vec!["canary".to_owned()],
            ..PlannerSettings::default()
        };
        Self {
            candidates,
            tenants: BTreeMap::new(),
            fleet: FleetSettings::default(),
            settings,
            request: request(StrategySpec::default()),
        }
    }

    fn one(change: impl FnOnce(&mut Candidate)) -> Self {
        let mut one = candidate("web", "acme");
        change(&mut one);
        Self::of(vec![one])
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    #[track_caller]
    fn plan(&self) -> RolloutPlan {
        let input = PlanInput {
            request: &self.request,
            candidates: &self.candidates,
            tenants: &self.tenants,
            fleet: &self.fleet,
            settings: &self.settings,
            now: NOW.parse().unwrap(),
        };
        let strategy = StrategyRegistry::default()
            .resolve(&self.request.strategy)
            .unwrap();
        let plan = plan(&input, strategy.as_ref()).unwrap();
        assert_eq!(check(&plan, &self.settings.salt), []);
        let stored = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<RolloutPlan>(&stored).unwrap(), plan);
        plan
    }

    /// Label of the reason for which the only instance is held, or `in`, with its schedule if it has one.
    #[track_caller]
    fn check(&self, expect: &str) {
        let plan = self.plan();
        let found = match (plan.members.first(), plan.held.first()) {
            (Some(member), None) => {
                match plan.schedules[member.schedule as usize].schedule().unwrap() {
                    super::super::window::Schedule::Always => "in".to_owned(),
                    schedule => format!("in, {schedule}"),
                }
            }
            (None, Some(held)) => held.why.to_string(),
            other => panic!("expected one instance, found {other:?}"),
        };
        assert_eq!(found, expect);
    }

    fn names(&self) -> Vec<String> {
        self.plan()
            .members
            .iter()
            .map(|member| member.instance.to_string())
            .collect()
    }
}

fn pause(fleet: &mut FleetSettings) {
    fleet.pause = Some(Pause {
        by: "ann".to_owned(),
        reason: "fair".to_owned(),
        since: NOW.parse().unwrap(),
    });
}

#[test]
fn each_reason_is_given() {
    World::one(|_| ()).check("in");
    World::one(|it| it.enabled = false).check("not_enabled");
    World::one(|it| it.restricted_by = Some("wud.watch=false".to_owned()))
        .check("restricted (label wud.watch=false)");
    World::one(|it| it.behind = Some(false)).check("not_behind");
    World::one(|it| it.current = Some(Digest::of(b"new"))).check("not_behind");
    World::one(|it| it.current = None).check("in");
    World::one(|it| it.pin = Some("1".to_owned())).check("pinned to 1");
    World::one(|it| it.pin = Some("2".to_owned())).check("in");
    World::one(|it| it.state = InstanceState::Updating).check("in");
    World::one(|it| it.state = InstanceState::NeedsOperator).check("needs_operator");
    World::one(|it| it.state = InstanceState::Diverged).check("diverged");
    World::one(|it| it.quarantined = true).check("quarantined");
    World::one(|it| it.quarantined = true)
        .with(|world| world.request.retry_quarantined = true)
        .check("in");
    World::one(|_| ())
        .with(|world| pause(&mut world.fleet))
        .check("paused by ann: fair");
    World::one(|_| ())
        .with(|world| world.fleet.mode = GlobalMode::Paused)
        .check("paused by settings: mode is paused");
    World::one(|it| it.mode = Some(LabelMode::Off)).check("off");
    World::one(|it| it.mode = None).check("notify_only");
    World::one(|it| it.mode = Some(LabelMode::Manual)).check("manual_mode");
    World::one(|_| ())
        .with(|world| world.fleet.mode = GlobalMode::Manual)
        .check("manual_mode");
    World::one(|it| it.min_age = Some(Duration::from_secs(60))).check("too_young, age not known");
    World::one(|it| it.min_age = Some(Duration::from_secs(3600)))
        .with(|world| world.request.released_at = Some("2026-01-05T11:30:00Z".parse().unwrap()))
        .check("too_young, old enough at 2026-01-05T12:30:00Z");
    let held = World::one(|it| it.window = Some("someday".to_owned()))
        .plan()
        .held;
    assert_eq!(held[0].why.label(), "invalid_setting");
}

#[test]
fn a_person_who_names_an_instance_or_a_tenant_beats_the_mode_but_not_a_pause() {
    let named = |world: &mut World| {
        world.request.asked = Asked::ForInstances {
            names: vec![InstanceName::new("web").unwrap()],
        }
    };
    let of_acme = |world: &mut World| {
        world.request.asked = Asked::ByOperator {
            tenants: vec![tenant("acme")],
        }
    };
    World::one(|it| it.mode = Some(LabelMode::Manual))
        .with(named)
        .check("in");
    World::one(|it| it.state = InstanceState::Updating)
        .with(named)
        .check("updating");
    World::one(|it| it.mode = Some(LabelMode::Manual))
        .with(of_acme)
        .check("in");
    World::one(|it| it.mode = None).with(of_acme).check("in");
    World::one(|it| it.mode = Some(LabelMode::Notify))
        .with(of_acme)
        .check("notify_only");
    World::one(|it| it.tenant = tenant("other"))
        .with(of_acme)
        .check("not_in_scope");
    for (channel, expect) in [("stable", "in"), ("canary", "not_in_scope")] {
        let channel = crate::model::Channel(channel.to_owned());
        let polled = |world: &mut World| {
            world.request.asked = Asked::ByDetection {
                channel: Some(channel),
            };
        };
        World::one(|_| ()).with(polled).check(expect);
    }
    World::one(|_| ())
        .with(named)
        .with(|world| pause(&mut world.fleet))
        .check("paused by ann: fair");
}

#[test]
fn windows_come_from_label_tenant_fleet_and_hours_serve_detection_only() {
    let config = |windows: &[&str]| UpdateConfig {
        mode: TenantMode::Auto,
        preferred_hour_utc: 4,
        windows: windows.iter().map(|&text| text.to_owned()).collect(),
    };
    let tenant_with = |windows: &'static [&'static str]| {
        move |world: &mut World| {
            world.tenants.insert(tenant("acme"), config(windows));
        }
    };
    let fleet_window = |world: &mut World| {
        world
            .fleet
            .values
            .insert("default.window".to_owned(), "Sat 01:00-02:00".to_owned());
        world.settings = PlannerSettings::read(&world.fleet).unwrap();
    };
    let detected = |world: &mut World| world.request.asked = Asked::ByDetection { channel: None };
    let labelled = |it: &mut Candidate| it.window = Some("Mon 02:00-05:00".to_owned());
    let tenants = tenant_with(&["Tue 02:00-05:00", "Wed 02:00-03:00"]);
    World::one(labelled)
        .with(tenants)
        .with(fleet_window)
        .check("in, Mon 02:00-05:00");
    World::one(|_| ())
        .with(tenants)
        .with(fleet_window)
        .check("in, Tue 02:00-05:00; Wed 02:00-03:00");
    World::one(|_| ())
        .with(tenant_with(&[]))
        .with(fleet_window)
        .check("in, Sat 01:00-02:00");
    World::one(|_| ()).with(tenant_with(&[])).check("in");
    World::one(|_| ())
        .with(tenant_with(&[]))
        .with(detected)
        .check("in, 04:00-05:00");
    World::one(labelled)
        .with(detected)
        .check("in, Mon 02:00-05:00");
    World::one(labelled)
        .with(|world| world.request.override_window = true)
        .check("in");
    let policy = |text: &'static str| {
        move |it: &mut Candidate| {
            it.mode = None;
            it.policy = Some(text.to_owned());
        }
    };
    World::one(policy("nightly"))
        .with(detected)
        .check("in, 03:00-04:00");
    World::one(policy("cron:30 4 * * *"))
        .with(detected)
        .check("in, cron:30 4 * * *");
    World::one(policy("on-push")).with(detected).check("in");
    // An hour that somebody chose beats the fleet's window.
    World::one(policy("nightly"))
        .with(detected)
        .with(fleet_window)
        .check("in, 03:00-04:00");
    World::one(|_| ())
        .with(tenant_with(&[]))
        .with(detected)
        .with(fleet_window)
        .check("in, 04:00-05:00");
    World::one(policy("on-push"))
        .with(detected)
        .with(fleet_window)
        .check("in, Sat 01:00-02:00");
    World::one(policy("nightly")).check("in");
    World::one(policy("manual"))
        .with(detected)
        .check("manual_mode");
    World::one(policy("manual"))
        .with(detected)
        .with(tenant_with(&[]))
        .check("in, 04:00-05:00");
}

#[test]
fn a_group_moves_together_or_not_at_all() {
    let mut world = World::of(
        ["vpn", "app", "other"]
            .map(|name| candidate(name, name))
            .to_vec(),
    );
    world.candidates[0].state = InstanceState::NeedsOperator;
    for member in &mut world.candidates[..2] {
        member.group = Some(InstanceName::new("vpn").unwrap());
    }
    let plan = world.plan();
    let held: Vec<String> = plan
        .held
        .iter()
        .map(|held| format!("{}: {}", held.instance, held.why))
        .collect();
    assert_eq!(held, ["app: group_blocked by vpn", "vpn: needs_operator"]);
    assert_eq!(plan.members.len(), 1);
}

#[test]
fn the_checker_finds_what_a_broken_planner_would_do() {
    let good = World::of(
        (0..8)
            .map(|number| candidate(&format!("web-{number}"), "acme"))
            .collect(),
    )
    .plan();
    let found = |change: &dyn Fn(&mut RolloutPlan)| {
        let mut plan = good.clone();
        change(&mut plan);
        check(&plan, "")
    };
    assert!(matches!(
        found(&|plan| plan.members.swap(0, 5))[..],
        [super::super::check::Violation::Order { .. }, ..]
    ));
    assert!(!found(&|plan| plan.waves[0].end = 1).is_empty());
    assert!(!found(&|plan| plan.waves[1].end = plan.waves[0].end).is_empty());
    assert!(!found(&|plan| plan.waves.truncate(1)).is_empty());
    assert!(!found(&|plan| plan.members[3].from = Some(plan.members[3].to)).is_empty());
    assert!(!found(&|plan| plan.members[3].to = 99).is_empty());
    assert!(!found(&|plan| plan.members[3].schedule = 99).is_empty());
    assert!(!found(&|plan| plan.members[3] = plan.members[4].clone()).is_empty());
    assert!(!found(&|plan| plan.members[0].own = true).is_empty());
    assert!(!found(&|plan| plan.schema = 2).is_empty());
}

#[test]
fn limits_that_mean_nothing_are_refused() {
    let mut world = World::one(|_| ());
    let mut refused = |change: &dyn Fn(&mut Limits), expect: &str| {
        world.request.limits = Limits::default();
        change(&mut world.request.limits);
        let input = PlanInput {
            request: &world.request,
            candidates: &world.candidates,
            tenants: &world.tenants,
            fleet: &world.fleet,
            settings: &world.settings,
            now: NOW.parse().unwrap(),
        };
        assert_eq!(
            plan(&input, &Immediate::default()).unwrap_err().to_string(),
            expect
        );
    };
    refused(
        &|limits| limits.max_concurrent = 0,
        "expected max_concurrent from 1 on, found 0",
    );
    refused(
        &|limits| limits.tenant_percent = 0,
        "expected tenant_percent from 1 to 100, found 0",
    );
    refused(
        &|limits| limits.host_percent = 101,
        "expected host_percent from 1 to 100, found 101",
    );
}

#[test]
fn a_rollback_takes_the_last_one_back_first_and_only_where_there_is_a_way() {
    let mut world = World::of(
        (0..4)
            .map(|number| candidate(&format!("web-{number}"), "acme"))
            .collect(),
    );
    world.candidates[2].current = None;
    let forward = world.plan();
    let back = plan_rollback(
        &forward,
        &[0, 1, 2, 3],
        &|_| None,
        request(StrategySpec::Immediate(Immediate::default())),
        NOW.parse().unwrap(),
    );
    assert_eq!(check(&back, ""), []);
    let names: Vec<&InstanceId> = back.members.iter().map(|member| &member.instance).collect();
    let expect: Vec<&InstanceId> = forward
        .members
        .iter()
        .rev()
        .map(|member| &member.instance)
        .filter(|it| it.name.as_str() != "web-2")
        .collect();
    assert_eq!(names, expect);
    assert_eq!(
        back.digests[back.members[0].to as usize],
        Digest::of(b"old")
    );
    assert_eq!(
        (back.held.len(), back.held[0].why.label()),
        (1, "no_way_back")
    );
    assert_eq!(back.budget.limit.get(), 1);
}

#[test]
fn a_rollback_goes_to_what_the_journal_knows_and_under_its_reference() {
    let forward = World::of(vec![candidate("web", "acme"), candidate("api", "acme")]).plan();
    let middle: ImageRef = "registry.example/app:middle".parse().unwrap();
    let middle = middle.pinned(Digest::of(b"middle"));
    let before = |instance: &InstanceId| (instance.name.as_str() == "web").then(|| middle.clone());
    let request = request(StrategySpec::Immediate(Immediate::default()));
    let now = NOW.parse().unwrap();
    let back = plan_rollback(&forward, &[0, 1], &before, request.clone(), now);
    assert_eq!(check(&back, ""), []);
    for member in &back.members {
        let expect = match member.instance.name.as_str() {
            "web" => middle.clone(),
            _ => forward.request.target.image.pinned(Digest::of(b"old")),
        };
        assert_eq!(back.image(member.reference, member.to), expect);
    }
    let again = plan_rollback_again(&back, &[1], request, now);
    assert_eq!(check(&again, ""), []);
    assert_eq!(again.members, [back.members[1].clone()]);
}

#[test]
fn those_of_a_group_that_get_the_release_go_in_one_update() {
    let of_group = |name: &str, group: &str| Candidate {
        group: Some(InstanceName::new(group).unwrap()),
        ..candidate(name, "acme")
    };
    let mut world = World::of(vec![
        of_group("worker", "db"),
        of_group("web", "db"),
        candidate("alone", "acme"),
        of_group("child", "parent"),
        of_group("parent", "parent"),
        Candidate {
            window: Some("Sun 02:00-03:00".to_owned()),
            ..of_group("cron", "parent")
        },
    ]);
    world.candidates[0].failed_before = true;
    let plan = world.plan();
    assert_eq!(check(&plan, ""), []);
    let mut members: Vec<Vec<&str>> = plan
        .members
        .iter()
        .map(|member| member.instances().map(|it| it.name.as_str()).collect())
        .collect();
    members.sort();
    // What has other hours goes when those come.
    assert_eq!(
        members,
        [
            vec!["alone"],
            vec!["cron"],
            vec!["parent", "child"],
            vec!["web", "worker"]
        ]
    );
    let place = plan.place_of(&world.candidates[0].instance).unwrap();
    assert_eq!(plan.members[place].instance.name.as_str(), "web");
    assert!(plan.members[place].failed_before);
}

fn strategies() -> impl Strategy<Value = StrategySpec> {
    prop_oneof![
        (1u64..=100)
            .prop_map(|p| StrategySpec::Rolling(RollingWave::new(WaveSize::percent(p).unwrap()))),
        (1u64..=200)
            .prop_map(|k| StrategySpec::Rolling(RollingWave::new(WaveSize::count(k).unwrap()))),
        Just(StrategySpec::Single(Single::default())),
        Just(StrategySpec::Immediate(Immediate::default())),
    ]
}

fn fleets() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        0usize..6,
        prop::option::weighted(0.2, Just("canary".to_owned())),
        0i32..2,
        any::<bool>(),
        prop::bool::weighted(0.1),
    );
    prop::collection::vec(one, 0..60).prop_map(|many| {
        many.into_iter()
            .enumerate()
            .map(
                |(number, (tenant, cohort, priority, failed_before, off))| Candidate {
                    cohort,
                    priority,
                    failed_before,
                    enabled: !off,
                    channel: Channel(format!("c{}", number % 3)),
                    ..candidate(&format!("web-{number}"), &format!("t{tenant}"))
                },
            )
            .collect()
    })
}

proptest! {
    #[test]
    fn waves_are_disjoint_cover_all_and_no_larger_than_asked_for(
        fleet in fleets(), strategy in strategies(), sticky in prop::sample::select(&Stickiness::ALL[..]),
    ) {
        let world = World::of(fleet).with(|world| {
            world.request.strategy = strategy;
            world.settings.stickiness = sticky;
        });
        let plan = world.plan();
        let mut seen = HashSet::new();
        for wave in 0..u32::try_from(plan.waves.len()).unwrap() {
            let range = plan.wave_range(wave);
            prop_assert!(!range.is_empty());
            for place in range {
                prop_assert!(seen.insert(place));
                prop_assert_eq!(plan.wave_of(place), wave);
            }
        }
        prop_assert_eq!(seen.len(), plan.members.len());
        prop_assert!(plan.waves.len() <= plan.members.len());
        prop_assert_eq!(plan.members.len() + plan.held.len(), world.candidates.len());
    }

    #[test]
    fn raising_the_percentage_only_adds(fleet in fleets(), low in 1u64..=100, high in 1u64..=100) {
        let (low, high) = (low.min(high), low.max(high));
        let first_wave = |percent| {
            let world = World::of(fleet.clone()).with(|world| {
                world.request.strategy = StrategySpec::Rolling(RollingWave::new(WaveSize::percent(percent).unwrap()));
            });
            let plan = world.plan();
            plan.members[plan.wave_range(0)].iter().map(|member| member.instance.clone()).collect::<HashSet<_>>()
        };
        if fleet.iter().any(|one| one.enabled) {
            prop_assert!(first_wave(low).is_subset(&first_wave(high)));
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(fleet in fleets(), seed in any::<u64>()) {
        let mut shuffled = fleet.clone();
        shuffled.sort_by_key(|one| seed.wrapping_mul(one.instance.name.as_str().len() as u64 + 31 * u64::from(one.instance.name.as_str().as_bytes()[one.instance.name.as_str().len() - 1])));
        let (a, b) = (World::of(fleet).plan(), World::of(shuffled).plan());
        let names = |plan: &RolloutPlan| plan.members.iter().map(|member| member.instance.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&a), names(&b));
    }
}
