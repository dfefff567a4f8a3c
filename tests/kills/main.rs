//! Real kills: fleet, the engine and everything else dies in the middle of updates, on a real engine with real volumes,
//! while a client writes; then `fleet recover`, and everything is compared.

mod engine;
mod lane;
mod points;
mod random;
mod table;
mod told;
mod writer;

use std::time::{SystemTime, UNIX_EPOCH};

use fleet_core::update::Step;

/// Steps in which an update can be disturbed, in order: to admit it is one row, written before the first of them.
fn steps() -> impl Iterator<Item = &'static Step> + Clone {
    Step::ALL.iter().filter(|step| **step != Step::Admit)
}

/// Whether full counts are wanted.
fn long() -> bool {
    std::env::var_os("FLEET_TEST_LONG").is_some()
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// A seed that was not used before, unless `FLEET_SEED_FROM` names one.
fn seed() -> u64 {
    number("FLEET_SEED_FROM").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("after 1970").as_secs()
    })
}
