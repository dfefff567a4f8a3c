//! A volume of the driver `local` with a device: the engine mounts it only while a container uses it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use fleet_core::ports::{NoProgress, Progress, ProgressSink};
use fleet_core::update::Outcome;
use fleet_testkit::{Image, Lab, docker};

use crate::embedded::Embedded;

/// Takes the guard away when these steps begin, as a restart of the host does, and looks whether the volume is there.
struct NoGuard<'a> {
    volume: &'a str,
    mountpoint: &'a str,
    at: &'a [&'static str],
    seen: Mutex<BTreeSet<&'static str>>,
}

impl ProgressSink for NoGuard<'_> {
    fn report(&self, progress: Progress) {
        let Progress::Step { step, .. } = progress else {
            return;
        };
        let Some(step) = self.at.iter().find(|at| **at == step) else {
            return;
        };
        let ours = format!("volume={}", self.volume);
        let guards = ["--filter", &ours, "--filter", "name=^fleet-guard-"];
        let guards = docker(&[&["ps", "--all", "--quiet"], &guards[..]].concat());
        for guard in guards.lines() {
            docker(&["rm", "--force", guard]);
        }
        if !is_mounted(self.mountpoint) {
            self.seen.lock().expect("no panic").insert(step);
        }
    }
}

fn is_mounted(place: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("it can be read");
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(place))
}

fn entries(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_data_is_put_back_and_not_the_folder_below() {
    let lab = Lab::new("mounted");
    let device = tempfile::tempdir().expect("a folder");
    let options = format!("device={}", device.path().display());
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &options];
    let volume = lab.volume_with("data", &options);
    let mountpoint = lab.mountpoint(&volume);
    let first = lab.import("app:1", &Image::new("1", ""));
    let bad = lab.import("app:bad", &Image::new("bad", "corrupt"));
    let web = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", "2s")
        .volume(&volume, "/data")
        .start(&first);
    web.wait_up();
    web.put("one");
    let fleet = Embedded::new().await;
    let watch = NoGuard {
        volume: &volume,
        mountpoint: &mountpoint,
        at: &["snapshot", "restore"],
        seen: Mutex::default(),
    };
    let report = fleet.update_watched(&[&web.name], &bad, &watch).await;
    let report = report.expect("the engine answers");
    assert_eq!(report.outcome, Some(Outcome::RolledBack), "{report:?}");
    web.wait_up();
    assert_eq!(web.rows(), ["one"]);
    let seen = watch.seen.into_inner().expect("no panic");
    assert_eq!(seen, BTreeSet::from(["snapshot", "restore"]));
    assert_eq!(lab.containers(), [web.name.clone()]);

    // By hand, with nothing that runs.
    docker(&["stop", &web.name]);
    assert!(!is_mounted(&mountpoint));
    let taken = fleet.fleet.snapshot_create(&web.name, "ann", &NoProgress);
    let taken = taken.await.expect("it can be copied");
    let before = entries(device.path());
    std::fs::write(device.path().join("since"), "x").expect("it can be written");
    let restored = fleet.fleet.snapshot_restore(&taken.id, "ann", &NoProgress);
    restored.await.expect("it can be put back");
    assert_eq!(entries(device.path()), before);
    assert!(!is_mounted(&mountpoint));
    assert_eq!(lab.containers(), [web.name.clone()]);
    docker(&["start", &web.name]);
    web.wait_up();
    assert_eq!(web.rows(), ["one"]);
    docker(&["rm", "--force", &web.name]);
}
