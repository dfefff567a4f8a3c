//! SIGKILL at any moment, and again during the recovery.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fleet_core::testing::SeedRng;

use crate::lane::{Lane, Release};
use crate::told::{Told, recover};
use crate::{long, number, seed};

/// Kills of a run, and of a long one.
const KILLS: u64 = 20;
const KILLS_LONG: u64 = 500;
/// Instances that are updated at the same time.
const LANES: u64 = 3;
/// Kills of one update at most: a person is asked after the third recovery.
const KILLS_EACH: u64 = 3;

/// Waits whole, also when woken early.
fn wait(duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

/// Kills a process after a while; says whether it was alive until then.
fn kill_after(child: &mut Child, while_: Duration) -> bool {
    wait(while_);
    let alive = child
        .try_wait()
        .expect("a child can be waited for")
        .is_none();
    child.kill().expect("a child can be killed");
    child.wait().expect("it ends");
    alive
}

/// One lane until so many kills hit a living process.
fn lane(number: u64, rng: &mut SeedRng, hits: &AtomicU64, wanted: u64) {
    let mut lane = Lane::new(&format!("random{number}"), "always");
    let mut took = Vec::new();
    for release in [Release::Good, Release::Bad] {
        let begun = Instant::now();
        lane.tell("undisturbed", release, |lane, update| {
            lane.undisturbed(update).0
        });
        took.push(begun.elapsed());
    }
    while hits.load(Ordering::SeqCst) < wanted {
        let (release, took) = if rng.chance(500) {
            (Release::Good, took[0])
        } else {
            (Release::Bad, took[1])
        };
        let mut some = |of: Duration| {
            let millis = u64::try_from(of.as_millis()).unwrap_or(u64::MAX);
            Duration::from_millis(rng.below(millis.max(1)))
        };
        let moments: Vec<_> = (0..KILLS_EACH)
            .map(|nth| some(took / if nth == 0 { 1 } else { 2 }))
            .collect();
        let name = format!("SIGKILL after {moments:?}");
        lane.tell(&name, release, |lane, mut update| {
            let mut alive = kill_after(
                &mut update.spawn().expect("fleet can be started"),
                moments[0],
            );
            hits.fetch_add(u64::from(alive), Ordering::SeqCst);
            for moment in &moments[1..] {
                // The recovery is killed too, as long as there is something to kill.
                if !alive {
                    break;
                }
                let mut again = lane.fleet.command(&["recover"]);
                again
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                alive = kill_after(&mut again.spawn().expect("fleet can be started"), *moment);
                hits.fetch_add(u64::from(alive), Ordering::SeqCst);
            }
            Told::new(recover(&lane.fleet))
        });
    }
}

#[test]
fn killed_at_random_moments_nothing_is_lost() {
    let usual = if long() { KILLS_LONG } else { KILLS };
    let (seed, wanted) = (seed(), number("FLEET_RANDOM_KILLS").unwrap_or(usual));
    println!("moments from seed {seed}");
    let hits = AtomicU64::new(0);
    let root = SeedRng::new(seed);
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|number| {
                let mut rng = root.child(&format!("lane {number}"));
                let hits = &hits;
                scope.spawn(move || lane(number, &mut rng, hits, wanted))
            })
            .collect();
        for lane in lanes {
            if let Err(panic) = lane.join() {
                hits.store(wanted, Ordering::SeqCst);
                std::panic::resume_unwind(panic);
            }
        }
    });
    println!("killed {} times, nothing lost", hits.into_inner());
}
