//! fleet aborts at every crash point of a commit and of a rollback, once each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fleet_core::update::{Direction, Step};

use crate::lane::{Lane, Release};
use crate::steps;
use crate::table::Killed;
use crate::told::{Told, recover, slowest_decision};

/// Instances that are updated at the same time: an update mostly waits.
const LANES: usize = 4;

/// Crash points of an update that nothing disturbs, in their order.
fn points() -> Vec<(Release, String)> {
    let mut lane = Lane::new("points", "unless-stopped");
    let mut all = Vec::new();
    for (release, outcome) in [(Release::Good, "committed"), (Release::Bad, "rolled_back")] {
        let mut passed = Vec::new();
        let told = lane.tell("undisturbed", release, |lane, update| {
            let (told, points) = lane.undisturbed(update);
            passed = points;
            told
        });
        assert_eq!(told, outcome);
        // The way forward of a bad release is that of a good one, as far as it goes.
        let back = |point: &String| {
            let step = point.split('.').next().unwrap_or_default();
            let step = Step::ALL.iter().find(|known| known.label() == step);
            step.expect("a step that is known").direction() == Direction::Back
        };
        passed.retain(|point| back(point) == (release == Release::Bad));
        all.extend(passed.into_iter().map(|point| (release, point)));
    }
    let passed = |step: &Step| {
        all.iter()
            .any(|(_, point)| *point == format!("{step}.before"))
    };
    let missing: Vec<_> = steps().filter(|step| !passed(step)).collect();
    assert!(
        missing.is_empty(),
        "no update passes {missing:?}, only {all:?}"
    );
    all
}

#[test]
fn aborted_at_every_crash_point_nothing_is_lost() {
    let points = points();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let kept = AtomicUsize::new(0);
    let work = |number: usize| {
        let mut lane = Lane::new(&format!("point{number}"), "unless-stopped");
        while let Some((release, point)) = points.get(next.fetch_add(1, Ordering::SeqCst)) {
            let outcome = lane.tell(point, *release, |lane, update| {
                lane.die_at(update, point);
                Told::new(recover(&lane.fleet))
            });
            let mut found = found.lock().expect("no panic holds it");
            found.insert(point.clone(), outcome);
        }
        kept.fetch_add(lane.rows_kept(), Ordering::SeqCst);
    };
    thread::scope(|scope| {
        let work = &work;
        let lanes: Vec<_> = (0..LANES)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        for lane in lanes {
            if let Err(panic) = lane.join() {
                next.store(points.len(), Ordering::SeqCst);
                std::panic::resume_unwind(panic);
            }
        }
    });
    let found = found.into_inner().expect("no panic holds it");
    let mut killed = Killed::default();
    for (_, point) in &points {
        killed.add(point, &found[point]);
    }
    println!(
        "aborted at each of {} crash points; {} answered rows, none lost",
        points.len(),
        kept.into_inner()
    );
    println!("slowest decision of a recovery: {:?}", slowest_decision());
    killed.check();
}
