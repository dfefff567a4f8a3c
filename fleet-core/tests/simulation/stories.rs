//! The two plain stories, without any fault.

use fleet_core::testing::{FaultPlan, Life, Scenario, World};
use fleet_core::update::Outcome;

#[track_caller]
fn check(scenario: &Scenario, expect: Outcome) {
    let mut world = World::new(1, scenario);
    world.host().keep_trace();
    let told = (|| {
        let life = world.begin(FaultPlan::default())?;
        Ok::<_, fleet_core::testing::Violation>((life, world.finish()?))
    })();
    let trace = world.host().trace().lines().join("\n");
    let (life, ending) = told.unwrap_or_else(|violation| panic!("{violation}\n{trace}"));
    assert_eq!(life, Life::Ended(None), "{trace}");
    assert_eq!(ending.outcome, Some(expect), "{}\n{trace}", ending.reason);
}

#[test]
fn a_good_release_commits() {
    check(&Scenario::good(), Outcome::Committed);
}

#[test]
fn a_bad_release_goes_back_with_its_data() {
    check(&Scenario::bad(), Outcome::RolledBack);
}
