//! A client that writes without pause through twenty updates, half of them bad: what was answered stays.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fleet_testkit::{Container, Fleet, Image, Lab, get};
use serde_json::json;

const BAD: &str = "bad";

/// Writes numbers until told to stop; gives those that were answered, with the version that answered.
fn write(container: &Container, stop: &AtomicBool) -> Vec<(u64, String)> {
    let mut answered = Vec::new();
    let mut address: Option<SocketAddr> = None;
    for number in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let to = *address.get_or_insert_with(|| container.address_when_there());
        match get(to, &format!("/put?{number}"), Duration::from_secs(2)) {
            Ok(answer) if answer.status == 200 => answered.push((number, answer.body)),
            // Not answered: it may be there or not. The next container may have another address.
            _ => address = None,
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    answered
}

#[test]
fn what_was_answered_is_never_missing_afterwards() {
    let lab = Lab::new("writer");
    let good =
        [1, 2].map(|n| lab.import(&format!("good:{n}"), &Image::new(&format!("good{n}"), "")));
    let bad: Vec<_> = (0..10)
        .map(|n| {
            lab.import(
                &format!("bad:{n}"),
                &Image::new(BAD, if n % 2 == 0 { "corrupt" } else { "unhealthy" }),
            )
        })
        .collect();
    let container = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", "1s")
        .volume(&lab.volume("data"), "/data")
        .start(&good[0]);
    container.wait_up();
    let fleet = Fleet::new();
    let stop = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let writer = scope.spawn(|| write(&container, &stop));
        // Stops the writer also when an assertion below fails, so that the failure is seen and not a hang.
        let stopper = StopOnDrop(&stop);
        for (round, bad) in bad.iter().enumerate() {
            let (code, report) = fleet.update(&container.name, &good[(round + 1) % 2], &[]);
            assert_eq!(
                (code, &report["outcome"]),
                (0, &json!("committed")),
                "round {round}: {report}"
            );
            let (code, report) = fleet.update(&container.name, bad, &[]);
            assert_eq!(
                (code, &report["outcome"]),
                (20, &json!("rolled_back")),
                "round {round}: {report}"
            );
        }
        drop(stopper);
        writer.join().expect("the writer ends")
    });
    container.wait_up();
    let there: BTreeSet<u64> = container
        .rows()
        .iter()
        .filter_map(|row| row.parse().ok())
        .collect();
    let by_good = answered.iter().filter(|(_, version)| version != BAD);
    let missing: Vec<_> = by_good
        .clone()
        .filter(|(number, _)| !there.contains(number))
        .collect();
    let lost = answered.len() - by_good.clone().count();
    println!(
        "{} answered, {lost} of them by versions that were rolled back",
        answered.len()
    );
    assert!(missing.is_empty(), "answered and missing: {missing:?}");
    assert!(by_good.count() > 100, "the writer hardly wrote");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
