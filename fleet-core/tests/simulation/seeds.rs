//! Fresh seeds, and the same seed twice.

use std::time::{SystemTime, UNIX_EPOCH};

use fleet_core::testing::tell;

/// Seeds of a run unless `FLEET_SEEDS` says otherwise.
const SEEDS: u64 = 20_000;

fn count() -> u64 {
    match std::env::var("FLEET_SEEDS") {
        Ok(text) => text.parse().expect("FLEET_SEEDS is a number"),
        Err(_) => SEEDS,
    }
}

/// Each run tells stories that nobody told before, unless `FLEET_SEED_FROM` says where to begin.
fn first() -> u64 {
    match std::env::var("FLEET_SEED_FROM") {
        Ok(text) => text.parse().expect("FLEET_SEED_FROM is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("after 1970").as_secs() * 1_000_000
        }
    }
}

#[test]
fn fresh_seeds_hold_every_invariant() {
    let (first, count) = (first(), count());
    for seed in first..first + count {
        if let Err(failure) = tell(seed, false) {
            let again = tell(seed, true).expect_err("a seed tells the same story twice");
            panic!("{again}\n(first found as: {})", failure.violation);
        }
    }
    println!("{count} seeds from {first}: no invariant broken");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..300 {
        let traces = [(); 2].map(|()| match tell(seed, true) {
            Ok(ending) => (ending.trace, ending.outcome),
            Err(failure) => panic!("{failure}"),
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
