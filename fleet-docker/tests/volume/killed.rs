//! Kill -9 at random moments of a snapshot and of a restore.
//!
//! This binary runs itself again as the child: the test `the_child` does nothing unless its variables are set.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fleet_core::ports::{NoProgress, SnapshotStore};
use fleet_docker::volume::{LocalSnapshotStore, PreCopy, SnapshotOptions};

use crate::support::{Place, assert_same_portrait, id, portrait, request, sh, source};

/// Kills of each kind.
fn kills() -> u32 {
    let long = std::env::var_os("FLEET_TEST_LONG").is_some();
    let usual = if long { 200 } else { 40 };
    std::env::var("FLEET_KILLS").map_or(usual, |text| text.parse().expect("a number"))
}

fn options() -> SnapshotOptions {
    SnapshotOptions {
        pre_copy: PreCopy::Always,
        ..SnapshotOptions::default()
    }
}

#[tokio::test]
async fn the_child() {
    let Ok(act) = std::env::var("FLEET_KILLED_ACT") else {
        return;
    };
    let dir = PathBuf::from(std::env::var("FLEET_KILLED_DIR").unwrap());
    let store = LocalSnapshotStore::open(&dir.join("snapshots"), options()).unwrap();
    let ask = request(1, vec![source("data", &dir.join("volume"))]);
    if act == "take" {
        store.pre_copy(&ask, &NoProgress).await.unwrap();
        store.take(&ask, &NoProgress).await.unwrap();
    } else {
        store
            .restore(&id(1), &ask.volumes, &NoProgress)
            .await
            .unwrap();
    }
}

fn child(act: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["killed::the_child", "--exact", "-q"])
        .env("FLEET_KILLED_ACT", act)
        .env("FLEET_KILLED_DIR", dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits at most so long for the child; whether it ended by itself, well.
fn ended_within(child: &mut Child, time: Duration) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the child failed: {status}");
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Runs and kills children, each given a little more time than the one before, over the time that a whole run takes.
async fn kill_children(act: &str, dir: &Path, mut after: impl AsyncFnMut(bool)) {
    let begun = Instant::now();
    assert!(ended_within(&mut child(act, dir), Duration::from_secs(120)));
    let whole = begun.elapsed();
    after(true).await;
    let mut killed = 0;
    for n in 0..kills() {
        let mut child = child(act, dir);
        let ended = ended_within(&mut child, whole * n / kills());
        if !ended {
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        after(ended).await;
    }
    assert!(
        killed > kills() / 4,
        "only {killed} of {} were killed at work",
        kills()
    );
}

fn fill(volume: &Path) {
    sh(
        volume,
        "mkdir d; for i in {1..300}; do echo $i > d/$i; done; head -c 8000000 /dev/urandom > r; seq 300000 > s; ln s t",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_snapshot_leaves_only_a_hidden_folder() {
    let place = Place::new();
    fill(&place.volume());
    let store = &place.store;
    kill_children("take", place.dir.path(), async |ended| {
        if ended || store.get(&id(1)).await.unwrap().is_some() {
            store.verify(&id(1)).await.unwrap();
            store.delete(&id(1)).await.unwrap();
        } else {
            let hidden = |path: &String| path == "./web" || path.starts_with("./.tmp-snap_");
            assert!(place.stored().iter().all(hidden), "{:?}", place.stored());
        }
    })
    .await;
    store.take(&place.request(1), &NoProgress).await.unwrap();
    store.verify(&id(1)).await.unwrap();
    store.discard(&id(1)).await.unwrap();
    assert!(place.stored().iter().all(|path| path.starts_with("./web")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_ends_right_when_run_again() {
    let place = Place::new();
    fill(&place.volume());
    let before = portrait(&place.volume());
    place.take(1).await.unwrap();
    kill_children("restore", place.dir.path(), async |ended| {
        if !ended {
            place.restore(1).await.unwrap();
        }
        assert_same_portrait(&before, &portrait(&place.volume()));
        sh(&place.volume(), "rm -r d; echo x > s; mkdir -p n/e/w");
    })
    .await;
}
