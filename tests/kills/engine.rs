//! Blows to the engine in the middle of updates, on private engines: killed, restarted, the power gone, everything pruned.

use std::fmt;
use std::process::Command;
use std::thread;

use fleet_core::update::{Direction, Step};
use fleet_testkit::PrivateEngine;

use crate::lane::{Lane, Release};
use crate::told::{Blows, Told, recover, slowest_decision};
use crate::{long, seed, steps};

/// What happens to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// It is killed and started again.
    Kill,
    /// It is asked to end and started again.
    Restart,
    /// Every process of it, of its containers and of fleet is killed; the engine comes up first.
    PowerOff,
}

/// One story: in which step what happens.
#[derive(Debug, Clone, Copy)]
struct Case {
    step: Step,
    place: &'static str,
    blow: Blow,
    /// fleet dies too.
    fleet_dies: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blow, .. } = self;
        let fleet = if self.fleet_dies { "dies" } else { "lives" };
        write!(
            f,
            "{blow:?} of the engine at {}, fleet {fleet}",
            self.point()
        )
    }
}

impl Case {
    fn point(&self) -> String {
        format!("{}.{}", self.step, self.place)
    }

    fn release(&self) -> Release {
        release(self.step)
    }
}

/// The release that an update must go to in order to pass a step.
fn release(step: Step) -> Release {
    match step.direction() {
        Direction::Forward => Release::Good,
        Direction::Back => Release::Bad,
    }
}

/// All that can happen; in a short run every step once, with another blow from run to run.
fn cases() -> Vec<Case> {
    let ways = [
        (Blow::Kill, true),
        (Blow::Restart, true),
        (Blow::PowerOff, true),
        (Blow::Kill, false),
        (Blow::Restart, false),
    ];
    let places = ["after", "before"];
    let case = |step: &Step, way: usize, place: usize| {
        let (blow, fleet_dies) = ways[way % ways.len()];
        Case {
            step: *step,
            place: places[place % places.len()],
            blow,
            fleet_dies,
        }
    };
    if long() {
        let all = steps().flat_map(|step| {
            (0..ways.len())
                .flat_map(move |way| (0..places.len()).map(move |place| (step, way, place)))
        });
        return all
            .map(|(step, way, place)| case(step, way, place))
            .collect();
    }
    let first = usize::try_from(seed() % 1000).unwrap_or(0);
    let steps = steps().enumerate();
    steps
        .map(|(number, step)| case(step, first + number, first / ways.len() + number))
        .collect()
}

fn strike(engine: &mut PrivateEngine, blow: Blow) {
    match blow {
        Blow::Kill => engine.kill(),
        Blow::Restart => engine.terminate(),
        Blow::PowerOff => engine.power_off(),
    }
}

/// Tells one case; says how it ended.
fn tell(lane: &mut Lane, engine: &mut PrivateEngine, case: &Case) -> String {
    let name = case.to_string();
    let blows = Blows {
        restarted: true,
        ..Blows::default()
    };
    lane.tell(&name, case.release(), |lane, update: Command| {
        let point = case.point();
        let mut paused = lane.pause_at(update, &point);
        assert_eq!(
            paused.wait().as_ref(),
            Some(&point),
            "{name}: it never got there"
        );
        let outcome = if case.fleet_dies {
            paused.kill();
            strike(engine, case.blow);
            engine.start_again();
            None
        } else {
            strike(engine, case.blow);
            // It finds the engine away, and waits.
            paused.go_on();
            engine.start_again();
            paused.end()
        };
        Told::new(outcome.or_else(|| recover(&lane.fleet))).after(blows)
    })
}

/// On a thread of its own: it never leaves the engine's network.
fn on_private_engine(live_restore: bool, work: impl FnOnce(&mut PrivateEngine) + Send) {
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let mut engine = PrivateEngine::start(live_restore);
            engine.enter();
            work(&mut engine);
        });
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Every case, or those of a sample whose turn it is on this engine.
fn blows(live_restore: bool) {
    let cases: Vec<_> = cases()
        .into_iter()
        .enumerate()
        .filter(|(number, _)| long() || (number % 2 == 0) == live_restore)
        .map(|(_, case)| case)
        .collect();
    on_private_engine(live_restore, |engine| {
        let mut lane = Lane::new("blows", "always");
        let mut asked = 0;
        for case in &cases {
            let outcome = tell(&mut lane, engine, case);
            if matches!(outcome.as_str(), "needs_operator" | "diverged") {
                asked += 1;
                lane = Lane::new("blows", "always");
            }
        }
        println!(
            "live-restore {live_restore}: {} blows to the engine, nothing lost, {asked} times a person was asked; slowest \
             decision of a recovery: {:?}",
            cases.len(),
            slowest_decision()
        );
    });
}

#[test]
fn an_engine_that_dies_in_any_step_loses_nothing() {
    blows(false);
}

#[test]
fn an_engine_that_keeps_its_containers_alive_loses_nothing() {
    blows(true);
}

/// The new container is safe from a prune once the guard runs.
fn guarded(point: &str) -> bool {
    let step = point.split('.').next().unwrap_or_default();
    let at = |label: &str| Step::ALL.iter().position(|step| step.label() == label);
    at(step) > at(Step::Guard.label())
}

#[test]
fn a_prune_in_every_step_loses_nothing() {
    on_private_engine(false, |engine| {
        let mut lane = Lane::new("prune", "unless-stopped");
        let blows = Blows {
            pruned: true,
            ..Blows::default()
        };
        // One update, a prune at every point of it.
        for release in [Release::Good, Release::Bad] {
            let mut prunes = 0;
            let outcome = lane.tell("prune everywhere", release, |lane, update| {
                let mut paused = lane.pause_at(update, "*");
                while let Some(point) = paused.wait() {
                    if guarded(&point) {
                        engine.prune();
                        prunes += 1;
                    }
                    paused.go_on();
                }
                Told::new(paused.end()).after(blows)
            });
            // The new container does not run until its start: a prune takes it before, and the update goes back.
            assert_eq!(outcome, "rolled_back");
            assert!(prunes > 20, "only {prunes} prunes");
            println!("{release:?} release, {prunes} prunes: nothing lost");
        }
    });
}

#[test]
fn a_death_and_a_prune_in_every_step_lose_nothing() {
    on_private_engine(false, |engine| {
        let mut lane = Lane::new("bare", "unless-stopped");
        let blows = Blows {
            pruned: true,
            ..Blows::default()
        };
        let mut told = 0;
        for step in steps() {
            let point = format!("{step}.after");
            lane.tell(
                &format!("death and prune at {point}"),
                release(*step),
                |lane, update| {
                    lane.die_at(update, &point);
                    engine.prune();
                    Told::new(recover(&lane.fleet)).after(blows)
                },
            );
            told += 1;
        }
        println!("{told} deaths with a prune, one in each step, nothing lost");
    });
}
