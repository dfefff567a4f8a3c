//! Stories from seeds: each seed enables a random subset of what can go wrong, so that rare pairs meet.

use std::fmt;
use std::time::Duration;

use super::checkers::Violation;
use super::faults::{FaultPlan, FaultRates};
use super::machine::{ForeignMove, Move};
use super::rng::SeedRng;
use super::world::{Ending, Life, NAME, Scenario, World};
use crate::ports::Names;
use crate::update::{MAX_RECOVERIES, Outcome};

/// The name that others give to a container of fleet's.
pub(super) const THEIR_NAME: &str = "theirs";

/// Calls of an undisturbed update, roughly; planned faults fall within them.
const CALLS: u64 = 90;
/// Places to die in an undisturbed update, roughly.
const SITES: u64 = 260;
/// Lives under faults, at most.
const LIVES_MAX: u64 = 4;

/// A story that broke an invariant, with what is needed to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Whether it was the story of a group.
    pub group: bool,
    /// What does not hold.
    pub violation: Violation,
    /// The trace, if it was kept.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(
            f,
            "replay it with: cargo run --release --example simulate -- {}--seed {}",
            if self.group { "--group " } else { "" },
            self.seed
        )
    }
}

impl std::error::Error for Failure {}

/// What a seed lets go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kinds {
    refuse: bool,
    lose: bool,
    slow: bool,
    death: bool,
    restart: bool,
    kill: bool,
    prune: bool,
    foreign: bool,
    jump: bool,
    full_disk: bool,
    damage: bool,
}

/// Tells the story of a seed: an update of one instance.
///
/// # Errors
/// An invariant does not hold.
pub fn tell(seed: u64, keep_trace: bool) -> Result<Ending, Box<Failure>> {
    let root = SeedRng::new(seed);
    let scenario = Scenario::random(&mut root.child("scenario"));
    tell_of(seed, scenario, keep_trace)
}

/// Tells the story of a seed: an update of two or three instances that move together.
///
/// # Errors
/// An invariant does not hold.
pub fn tell_of_group(seed: u64, keep_trace: bool) -> Result<Ending, Box<Failure>> {
    let root = SeedRng::new(seed);
    let scenario = Scenario::random(&mut root.child("scenario"));
    tell_of(
        seed,
        scenario.with_group(&mut root.child("group")),
        keep_trace,
    )
}

fn tell_of(seed: u64, scenario: Scenario, keep_trace: bool) -> Result<Ending, Box<Failure>> {
    let root = SeedRng::new(seed);
    let mut world = World::new(seed, &scenario);
    if keep_trace {
        world.host().keep_trace();
    }
    let kinds = Kinds::random(&mut root.child("kinds"));
    let told = live(&mut world, kinds, &root).and_then(|ending| {
        needed(kinds, &ending)?;
        Ok(ending)
    });
    told.map_err(|violation| {
        let group = !scenario.beside.is_empty();
        let mut trace = world.host().trace().lines().to_vec();
        if keep_trace {
            trace.insert(0, format!("{scenario:?}"));
            trace.insert(1, format!("{kinds:?}"));
        }
        Box::new(Failure {
            seed,
            group,
            violation,
            trace,
        })
    })
}

fn live(world: &mut World, kinds: Kinds, root: &SeedRng) -> Result<Ending, Violation> {
    let mut rng = root.child("faults");
    let lives = 1 + rng.below(LIVES_MAX);
    for number in 0..lives {
        let faults = kinds.plan(&mut rng, world, number);
        let life = if number == 0 {
            world.begin(faults)?
        } else {
            if kinds.restart || kinds.kill || kinds.jump {
                let pause = rng.below(30_000);
                world.host().pass(Duration::from_millis(pause));
            }
            world.recover(faults)?
        };
        if life == Life::Ended(None) {
            break;
        }
        if kinds.damage && rng.chance(200) {
            let id = world.plan().primary().snapshot_id;
            world.host().snapshots().damage(&id);
        }
    }
    world.finish()
}

/// A person is asked only where fleet cannot know or cannot do better.
fn needed(kinds: Kinds, ending: &Ending) -> Result<(), Violation> {
    let harmless = Kinds {
        death: kinds.death,
        slow: kinds.slow,
        restart: kinds.restart,
        ..Kinds::default()
    };
    let asked = matches!(
        ending.outcome,
        Some(Outcome::NeedsOperator | Outcome::Diverged)
    );
    if asked && kinds == harmless && ending.lives <= MAX_RECOVERIES {
        let text = format!("a person is asked without need: {}", ending.reason);
        return Err(Violation::new("I3", text));
    }
    Ok(())
}

impl Kinds {
    fn random(rng: &mut SeedRng) -> Self {
        let mut one_in_three = || rng.chance(333);
        Self {
            refuse: one_in_three(),
            lose: one_in_three(),
            slow: one_in_three(),
            death: one_in_three() || one_in_three(),
            restart: one_in_three(),
            kill: one_in_three(),
            prune: one_in_three(),
            foreign: one_in_three() && one_in_three(),
            jump: one_in_three(),
            full_disk: one_in_three() && one_in_three(),
            damage: one_in_three() && one_in_three(),
        }
    }

    /// The faults of one life.
    fn plan(self, rng: &mut SeedRng, world: &World, life: u64) -> FaultPlan {
        let mut plan = FaultPlan::default();
        if self.death && rng.chance(700) {
            let within = if life == 0 { SITES } else { SITES / 2 };
            plan.die_at_site = Some(1 + rng.below(within));
        }
        if self.refuse || self.lose || self.slow {
            let rate = |on: bool| if on { 25 } else { 0 };
            plan.rates = Some(FaultRates {
                rng: SeedRng::new(rng.next_u64()),
                refuse: rate(self.refuse),
                lose: rate(self.lose),
                slow: rate(self.slow),
            });
        }
        let mut at = |on: bool, per_mille: u64, what: Move| {
            if on && rng.chance(per_mille) {
                let call = 1 + rng.below(CALLS);
                plan.moves.entry(call).or_default().push(what);
            }
        };
        let down_for = Duration::from_millis(500 + 1000 * life);
        at(self.restart, 600, Move::EngineRestart { down_for });
        at(self.kill, 600, Move::EngineKill { down_for });
        at(self.kill, 200, Move::Reboot { down_for });
        at(self.prune, 600, Move::Prune);
        at(self.prune, 200, Move::Prune);
        let days = 86_400_000;
        at(self.jump, 400, Move::ClockJump { millis: 2 * days });
        at(self.jump, 400, Move::ClockJump { millis: -2 * days });
        at(self.full_disk, 400, Move::FreeBytes(0));
        at(self.full_disk, 700, Move::FreeBytes(100 << 30));
        if self.foreign && rng.chance(700) {
            let call = 1 + rng.below(CALLS);
            let foreign = foreign(rng, world);
            let moves = plan.moves.entry(call).or_default();
            moves.push(Move::Foreign(foreign));
        }
        plan
    }
}

/// Somebody meddles with one of the update's containers.
fn foreign(rng: &mut SeedRng, world: &World) -> ForeignMove {
    let plan = world.plan();
    let instance = &plan.primary().instance.name;
    let names = [
        NAME.to_owned(),
        Names::candidate(instance, &plan.id),
        Names::parked(instance, &plan.id),
    ];
    let name = rng.pick(&names).cloned().unwrap_or_default();
    match rng.below(6) {
        0 => ForeignMove::Stop(name),
        1 => ForeignMove::Start(name),
        2 => ForeignMove::Remove(name),
        3 => ForeignMove::Rename(name, THEIR_NAME.to_owned()),
        4 => ForeignMove::Recreate(name),
        _ => ForeignMove::TakeName(name),
    }
}
