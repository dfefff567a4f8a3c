//! What becomes of an update that is killed in a step, as a table for people: computed by killing it there.

use super::checkers::Violation;
use super::faults::FaultPlan;
use super::world::{Life, Scenario, World};
use crate::update::{Direction, Outcome, Step};

/// The table in Markdown: for each step, what a kill before and after its effect leads to once fleet is up again.
///
/// Forward steps are those of a good release, steps of the way back those of one that destroys data. Every cell was
/// checked against the invariants, the content of the volumes among them.
///
/// # Panics
/// An invariant does not hold.
#[must_use]
pub fn recovery_table() -> String {
    let mut table = String::from(
        "| killed in step | before its effect | after its effect, before its row |\n|---|---|---|\n",
    );
    for step in Step::ALL {
        let scenario = match step.direction() {
            Direction::Forward => Scenario::good(),
            Direction::Back => Scenario::bad(),
        };
        let cell = |place: &str| match killed(&scenario, &format!("{step}.{place}")) {
            Ok(Some(outcome)) => Some(text(outcome)),
            Ok(None) => None,
            Err(violation) => panic!("killed in {step}.{place}: {violation}"),
        };
        if let (Some(before), Some(after)) = (cell("before"), cell("after")) {
            table.push_str(&format!("| `{step}` | {before} | {after} |\n"));
        }
    }
    table
}

/// How an update ends that is killed at a point; none if it never passes there.
fn killed(scenario: &Scenario, point: &str) -> Result<Option<Outcome>, Violation> {
    let mut world = World::new(1, scenario);
    let plan = FaultPlan {
        die_at_point: Some(point.to_owned()),
        ..FaultPlan::default()
    };
    if world.begin(plan)? != Life::Died {
        return Ok(None);
    }
    Ok(world.finish()?.outcome)
}

fn text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "committed: the new release runs, no write lost",
        Outcome::RolledBack => {
            "rolled back: the old release runs, with the data of the moment of stop"
        }
        Outcome::Failed => "failed: the old container was never stopped",
        Outcome::Refused => "refused: the old container was never touched",
        Outcome::Unchanged => "unchanged",
        Outcome::NeedsOperator | Outcome::Diverged => "a person is asked",
    }
}
