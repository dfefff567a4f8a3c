//! Every place to die, every second place after it, every call that fails: for a commit and for a rollback.

use std::time::Duration;

use fleet_core::model::RestartPolicy;
use fleet_core::ports::PortErrorKind;
use fleet_core::testing::{
    Beside, Ending, Fault, FaultPlan, Life, Move, Scenario, Violation, Workload, World,
};
use fleet_core::update::Outcome;

use crate::parallel::each;

/// More places than any story has; an enumeration that gets here does not end.
const ENDLESS: u64 = 5_000;

fn scenarios() -> [(&'static str, Scenario); 4] {
    let group = |scenario: Scenario, new: Workload| Scenario {
        beside: vec![beside("db", None, true), beside("cache", Some(new), false)],
        ..scenario
    };
    [
        ("commit", Scenario::good()),
        ("rollback", Scenario::bad()),
        (
            "commit of a group",
            group(Scenario::good(), Workload::healthy("2")),
        ),
        // The last to be started is the bad one.
        (
            "rollback of a group",
            group(Scenario::good(), Workload::destroyer("2")),
        ),
    ]
}

fn beside(name: &'static str, new: Option<Workload>, first: bool) -> Beside {
    Beside {
        name,
        new,
        running: true,
        policy: RestartPolicy::Always,
        volumes: 1,
        first,
    }
}

/// Tells a story and demands that it ends well; says how.
#[track_caller]
fn well(
    name: &str,
    scenario: &Scenario,
    story: impl Fn(&mut World) -> Result<Ending, Violation>,
) -> Ending {
    let mut world = World::new(1, scenario);
    match story(&mut world) {
        Ok(ending) => ending,
        Err(violation) => {
            let mut again = World::new(1, scenario);
            again.host().keep_trace();
            let _ = story(&mut again);
            let trace = again.host().trace().lines().join("\n");
            panic!("{name}: {violation}\n{trace}")
        }
    }
}

#[track_caller]
fn nobody_is_asked(name: &str, ending: &Ending) {
    let asked = matches!(
        ending.outcome,
        Some(Outcome::NeedsOperator | Outcome::Diverged)
    );
    assert!(!asked, "{name}: a person is asked: {}", ending.reason);
}

/// Places to die of the process that `prepare` leads to.
fn places(scenario: &Scenario, prepare: impl Fn(&mut World)) -> u64 {
    let mut world = World::new(1, scenario);
    prepare(&mut world);
    world.host().sites()
}

#[test]
fn a_death_at_every_place_ends_well() {
    for (kind, scenario) in scenarios() {
        let places = places(&scenario, |world| {
            world.begin(FaultPlan::default()).expect("no violation");
        });
        let all: Vec<u64> = (1..=places).collect();
        each(&all, |site| {
            let name = format!("{kind}, death at place {site}");
            let ending = well(&name, &scenario, |world| {
                assert_eq!(world.begin(FaultPlan::death(*site))?, Life::Died);
                world.finish()
            });
            nobody_is_asked(&name, &ending);
        });
        println!("{kind}: died at each of {places} places");
    }
}

/// Every pair of places is told where that is fast: of one instance in an optimised build, of all with
/// `FLEET_PAIRS=all`. Else one in so many, a number that no loop of the engine shares.
fn stride(scenario: &Scenario) -> usize {
    let all = std::env::var("FLEET_PAIRS").is_ok_and(|pairs| pairs == "all");
    let one = scenario.beside.is_empty();
    match (all, one, cfg!(debug_assertions)) {
        (true, ..) | (_, true, false) => 1,
        (_, false, false) | (_, true, true) => 37,
        (_, false, true) => 101,
    }
}

#[test]
fn a_second_death_at_every_place_of_the_recovery_ends_well() {
    for (kind, scenario) in scenarios() {
        let first = places(&scenario, |world| {
            world.begin(FaultPlan::default()).expect("no violation");
        });
        let mut pairs = Vec::new();
        for first in (1..=first).step_by(some_of(&scenario)) {
            let second = places(&scenario, |world| {
                world.begin(FaultPlan::death(first)).expect("no violation");
                world.recover(FaultPlan::default()).expect("no violation");
            });
            pairs.extend((1..=second).map(|second| (first, second)));
        }
        let told: Vec<_> = pairs.iter().step_by(stride(&scenario)).collect();
        each(&told, |(first, second)| {
            let name = format!("{kind}, deaths at places {first} and {second}");
            let ending = well(&name, &scenario, |world| {
                assert_eq!(world.begin(FaultPlan::death(*first))?, Life::Died);
                assert_eq!(world.recover(FaultPlan::death(*second))?, Life::Died);
                world.finish()
            });
            nobody_is_asked(&name, &ending);
        });
        println!(
            "{kind}: died at {} of {} pairs of places",
            told.len(),
            pairs.len()
        );
    }
}

/// What happens to the host between a death and the recovery.
fn between() -> Vec<(&'static str, Vec<Move>)> {
    let down_for = Duration::from_secs(1);
    let (restart, kill) = (
        Move::EngineRestart { down_for },
        Move::EngineKill { down_for },
    );
    let days = 86_400_000;
    vec![
        ("engine restart", vec![restart.clone()]),
        ("engine kill", vec![kill]),
        ("prune", vec![Move::Prune]),
        ("clock forward", vec![Move::ClockJump { millis: 2 * days }]),
        ("clock back", vec![Move::ClockJump { millis: -2 * days }]),
        ("reboot", vec![Move::Reboot { down_for }]),
        ("restart, then prune", vec![restart, Move::Prune]),
    ]
}

#[test]
fn a_death_at_every_place_with_a_blow_to_the_host_ends_well() {
    for (kind, scenario) in scenarios() {
        let places = places(&scenario, |world| {
            world.begin(FaultPlan::default()).expect("no violation");
        });
        let mut all = Vec::new();
        for blow in between() {
            let sites = (1..=places).step_by(some_of(&scenario));
            all.extend(sites.map(|site| (site, blow.clone())));
        }
        each(&all, |(site, (blow, moves))| {
            let name = format!("{kind}, death at place {site}, {blow}");
            well(&name, &scenario, |world| {
                assert_eq!(world.begin(FaultPlan::death(*site))?, Life::Died);
                for what in moves {
                    world.host().happen(what.clone());
                    world.host().pass(Duration::from_secs(2));
                }
                world.finish()
            });
        });
        println!("{kind}: {} deaths with a blow to the host", all.len());
    }
}

/// Some of the pairs with each blow: one in so many, by what the build can do.
#[test]
fn two_deaths_with_a_blow_to_the_host_between_end_well() {
    let stride = if cfg!(debug_assertions) { 1_009 } else { 23 };
    for (kind, scenario) in scenarios() {
        let first = places(&scenario, |world| {
            world.begin(FaultPlan::default()).expect("no violation");
        });
        // Further places than a recovery has are no deaths: then the first one was the only one.
        let pairs = (1..=first).flat_map(|site| (1..=first).map(move |second| (site, second)));
        let mut all = Vec::new();
        for blow in between() {
            let some = pairs.clone().step_by(stride * some_of(&scenario));
            all.extend(some.map(|pair| (pair, blow.clone())));
        }
        each(&all, |((site, second), (blow, moves))| {
            let name = format!("{kind}, deaths at places {site} and {second}, {blow} between");
            well(&name, &scenario, |world| {
                assert_eq!(world.begin(FaultPlan::death(*site))?, Life::Died);
                for what in moves {
                    world.host().happen(what.clone());
                    world.host().pass(Duration::from_secs(2));
                }
                world.recover(FaultPlan::death(*second))?;
                world.finish()
            });
        });
        println!("{kind}: {} pairs of deaths with a blow between", all.len());
    }
}

#[test]
fn a_blow_to_the_host_before_every_call_ends_well() {
    for (kind, scenario) in scenarios() {
        for (blow, moves) in between() {
            let told = until_not_reached(&scenario, |call| {
                let name = format!("{kind}, {blow} before call {call}");
                let plan = FaultPlan {
                    moves: [(call, moves.clone())].into(),
                    ..FaultPlan::default()
                };
                one_fault(&name, &scenario, plan, call)
            });
            println!("{kind}: {blow} before each of {told} calls");
        }
    }
}

/// No call fails then, and nothing but the engine's events tells of it.
#[test]
fn an_engine_restart_within_one_slow_answer_asks_nobody() {
    let down_for = Duration::from_millis(500);
    for (kind, scenario) in scenarios() {
        let told = until_not_reached(&scenario, |call| {
            let name = format!("{kind}, engine restart within call {call}");
            let plan = FaultPlan {
                moves: [(call, vec![Move::EngineRestart { down_for }])].into(),
                ..FaultPlan::once(call, Fault::Slow(Duration::from_secs(9)))
            };
            let reached = std::cell::Cell::new(true);
            let ending = well(&name, &scenario, |world| {
                world.begin(plan.clone())?;
                reached.set(world.host().calls() >= call);
                world.finish()
            });
            nobody_is_asked(&name, &ending);
            reached.get()
        });
        println!("{kind}: engine restart within each of {told} calls");
    }
}

#[test]
fn every_call_that_fails_ends_well() {
    let faults = [
        Fault::Refuse(PortErrorKind::Failed),
        Fault::Refuse(PortErrorKind::NoSpace),
        Fault::Refuse(PortErrorKind::Unreachable),
        Fault::Lose(PortErrorKind::Unreachable),
        Fault::Lose(PortErrorKind::Timeout),
        Fault::Slow(Duration::from_secs(90)),
    ];
    for (kind, scenario) in scenarios() {
        for fault in &faults {
            let told = until_not_reached(&scenario, |call| {
                let name = format!("{kind}, {fault:?} at call {call}");
                let plan = FaultPlan::once(call, fault.clone());
                one_fault(&name, &scenario, plan, call)
            });
            println!("{kind}: {fault:?} at each of {told} calls");
        }
    }
}

/// Tells a story with one fault at a call; says whether the process got that far.
fn one_fault(name: &str, scenario: &Scenario, plan: FaultPlan, call: u64) -> bool {
    let reached = std::cell::Cell::new(true);
    let ending = well(name, scenario, |world| {
        world.begin(plan.clone())?;
        reached.set(world.host().calls() >= call);
        world.finish()
    });
    // On the way back a single refusal may need a person; on the way forward never.
    if scenario.release_is_good() && plan.moves.is_empty() {
        nobody_is_asked(name, &ending);
    }
    reached.get()
}

/// N = 1, 2, 3 … until a run completes without the fault; says how many were told with it. Of groups, whose stories are
/// long, only some where the build is not optimised.
fn until_not_reached(scenario: &Scenario, tell: impl Fn(u64) -> bool) -> usize {
    let calls = (1..ENDLESS).step_by(some_of(scenario));
    for (told, call) in calls.enumerate() {
        if !tell(call) {
            return told;
        }
    }
    panic!("a story of {ENDLESS} calls does not end");
}

/// One in so many, a number that no loop of the engine shares.
fn some_of(scenario: &Scenario) -> usize {
    let few = cfg!(debug_assertions) && !scenario.beside.is_empty();
    if few { 23 } else { 1 }
}
