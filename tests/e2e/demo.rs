//! `fleet demo`: tells the truth, and leaves nothing behind, also when it is interrupted.

use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_testkit::{Fleet, Ran, app_binary, docker, wait_for};
use serde_json::Value;

/// What the demo of this process has on the engine: containers, volumes, images by the demo's own prefix.
fn objects(prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for args in [
        &["ps", "--all", "--format", "{{.Names}}"][..],
        &["volume", "ls", "--quiet"],
        &["images", "--format", "{{.Repository}}"],
    ] {
        found.extend(
            docker(args)
                .lines()
                .filter(|name| name.starts_with(prefix))
                .map(str::to_owned),
        );
    }
    found
}

fn demo(fleet: &Fleet) -> Command {
    let mut command = fleet.command(&["--output", "json", "demo", "--app"]);
    command
        .arg(app_binary())
        .env("TMPDIR", fleet.data_dir().parent().expect("a parent"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_demo_loses_nothing_and_cleans_up() {
    let fleet = Fleet::new();
    let ran = Ran::from(&demo(&fleet).output().expect("fleet can be started"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let document: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let tenants = document["tenants"].as_array().expect("tenants");
    assert_eq!(tenants.len(), 6);
    for tenant in tenants {
        assert_eq!(tenant["release_2"], "committed", "{tenant}");
        assert_eq!(tenant["release_3"], "rolled_back", "{tenant}");
        assert_eq!(tenant["lost"], 0, "{tenant}");
        assert!(
            tenant["answered_by_good_versions"].as_u64() > Some(20),
            "{tenant}"
        );
    }
    assert!(
        ran.stderr
            .contains("Everything that the demo made is removed"),
        "{ran:?}"
    );
    let left = std::fs::read_dir(fleet.data_dir().parent().expect("a parent")).expect("the folder");
    let names: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().starts_with("fleet-demo-")),
        "{names:?}"
    );
}

#[test]
fn an_interrupted_demo_cleans_up() {
    let fleet = Fleet::new();
    let mut child = demo(&fleet).spawn().expect("fleet can be started");
    let parent = fleet.data_dir();
    let parent = parent.parent().expect("a parent");
    // The demo's folder carries its prefix, so that this test looks at nobody else's objects.
    let prefix = wait_for("the demo's folder", Duration::from_secs(30), || {
        let entries = std::fs::read_dir(parent).map_err(|error| error.to_string())?;
        let mut names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .find(|name| name.starts_with("fleet-demo-"))
            .ok_or_else(|| "none".to_owned())
    });
    wait_for("all containers", Duration::from_secs(60), || {
        let found = objects(&prefix);
        if found.len() >= 15 {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it can be signalled");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert_eq!(objects(&prefix), Vec::<String>::new());
}
