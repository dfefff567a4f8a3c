//! The fake engine and the real one, asked the same: without this the simulation proves nothing.
//!
//! Random sequences of calls through the ports go to both; every answer must be of the same class, and after every call
//! both must show the same containers. `FLEET_DIFFERENTIAL` says how many sequences, `FLEET_SEED_FROM` where to begin.

mod call;
mod sides;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use fleet_core::testing::SeedRng;

use crate::call::Call;
use crate::sides::{Fake, Real, Side};

/// Sequences of a run, and of a long one.
const SEQUENCES: u64 = 500;
const SEQUENCES_LONG: u64 = 2_000;
/// Calls of a sequence.
const CALLS: u64 = 7;
/// Sequences at once: the engine is what takes the time.
const THREADS: usize = 6;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

#[test]
fn the_fake_engine_answers_as_the_real_one() {
    let long = std::env::var_os("FLEET_TEST_LONG").is_some();
    let usual = if long { SEQUENCES_LONG } else { SEQUENCES };
    let count = number("FLEET_DIFFERENTIAL").unwrap_or(usual);
    let fresh = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("after 1970").as_secs() * 100_000
    };
    let first = number("FLEET_SEED_FROM").unwrap_or_else(fresh);
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let real = Real::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + count {
                            return;
                        }
                        compare(seed, &real);
                    }
                })
            })
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                next.store(first + count, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    });
    println!("{count} sequences from seed {first}: the fake answers as the engine does");
}

/// One sequence on both sides.
fn compare(seed: u64, real: &Real) {
    let mut rng = SeedRng::new(seed).child("calls");
    let mut real = real.sequence(seed);
    let mut fake = Fake::new(seed, real.words());
    let mut story = Vec::new();
    for _ in 0..CALLS {
        let call = Call::random(&mut rng, fake.slots());
        let answers = (fake.ask(&call), real.ask(&call));
        story.push(format!("{call:?} -> {}", answers.1));
        let shown = (fake.show(), real.show());
        assert!(
            answers.0 == answers.1 && shown.0 == shown.1,
            "seed {seed}:\n{}\nfake answers {}\nreal answers {}\nfake shows {:#?}\nreal shows {:#?}\n\
             replay it with FLEET_SEED_FROM={seed} FLEET_DIFFERENTIAL=1",
            story.join("\n"),
            answers.0,
            answers.1,
            shown.0,
            shown.1
        );
    }
}
