//! Every call to the engine fails once: whatever is hit, the old container runs under its name with its id, or the
//! update committed, and nothing of fleet's is left.

use fleet_core::update::Outcome;
use fleet_testkit::{Container, Image, Lab};
use futures::StreamExt as _;

use crate::embedded::Embedded;
use crate::proxy::{Proxy, Spoil};

/// Runs an update with one call spoiled, then recovery over a healthy connection, and checks what is left. Returns how
/// many calls there were.
async fn one(number: u64, spoil: Spoil, good: bool) -> u64 {
    let lab = Lab::new("calls");
    let dir = tempfile::tempdir().expect("a folder");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", if good { "" } else { "corrupt" }));
    let volume = lab.volume("data");
    let web = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", "1s")
        .volume(&volume, "/data")
        .start(&old);
    web.wait_up();
    web.put("kept");

    let proxy = Proxy::start(dir.path(), number, spoil);
    let fleet = Embedded::through(proxy.host()).await;
    // Connecting is not part of the update.
    proxy.arm();
    let result = fleet.update(&web.name, &new).await;
    let calls = proxy.calls();
    drop(proxy);
    let told = match &result {
        Ok(report) => format!("{:?}: {:?}", report.outcome, report.reason),
        Err(error) => format!("error: {error}"),
    };
    let healthy = fleet.successor().await;
    let recoveries = healthy.recover().await;
    let case = format!("call {number} {spoil:?} good={good}: {told}; recovered {recoveries:?}");
    check(&lab, &web, &new, &case);
    if number == 0 {
        let expected = if good {
            Outcome::Committed
        } else {
            Outcome::RolledBack
        };
        assert_eq!(
            result.expect("nothing was spoiled").outcome,
            Some(expected),
            "{case}"
        );
    }
    calls
}

fn check(lab: &Lab, web: &Container, new: &str, case: &str) {
    let now = web.inspect_by_name();
    let is_old = now["Id"] == web.id.as_str();
    let is_new = now["Image"] == lab.image_id(new).as_str();
    assert!(
        is_old || is_new,
        "neither old nor new holds the name after {case}: {now}"
    );
    assert_eq!(now["State"]["Running"], true, "not running after {case}");
    assert_eq!(
        lab.containers(),
        [web.name.clone()],
        "something is left after {case}"
    );
    assert!(
        lab.foreign_tags().is_empty(),
        "tags are left after {case}: {:?}",
        lab.foreign_tags()
    );
    web.wait_up();
    assert!(
        web.rows().contains(&"kept".to_owned()),
        "an acknowledged row is lost after {case}"
    );
}

/// The calls of a whole update, each spoiled in one way; in the long run in every way.
async fn every_call(good: bool) {
    let calls = one(0, Spoil::Fail, good).await;
    assert!(calls > 30, "an update takes more calls than {calls}");
    let ways = [Spoil::Fail, Spoil::LoseReply, Spoil::Break, Spoil::Delay];
    let long = std::env::var_os("FLEET_TEST_LONG").is_some();
    let mut cases = Vec::new();
    for number in 1..=calls {
        for (index, &way) in ways.iter().enumerate() {
            // The short run takes each call once, with the ways in turn; a delay alone is the least of them.
            let turn = (number as usize) % 3 == index;
            if long || turn {
                cases.push((number, way));
            }
        }
    }
    println!("{} calls, {} cases", calls, cases.len());
    let lanes =
        futures::stream::iter(cases).map(|(number, way)| tokio::spawn(one(number, way, good)));
    let results: Vec<_> = lanes.buffer_unordered(4).collect().await;
    for result in results {
        result.expect("the case passes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_of_an_update_that_commits_may_fail() {
    every_call(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_of_an_update_that_rolls_back_may_fail() {
    every_call(false).await;
}
