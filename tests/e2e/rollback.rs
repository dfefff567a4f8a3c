//! A bad release: the same container, the same data.

use std::path::PathBuf;

use fleet_testkit::{Fleet, Image, Lab};
use serde_json::json;

use crate::tree;

#[test]
fn after_a_bad_migration_container_and_volume_are_what_they_were() {
    let lab = Lab::new("migration");
    let old = lab.import("app:1", &Image::new("1", ""));
    let bad = lab.import("app:2", &Image::new("2", "corrupt"));
    let volume = lab.volume("data");
    let container = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", "2s")
        .volume(&volume, "/data")
        .options(&["--restart", "on-failure:7"])
        .start(&old);
    container.wait_up();
    for row in 0..100 {
        container.put(&format!("row-{row}"));
    }
    let root = PathBuf::from(lab.mountpoint(&volume));
    tree::furnish(&root);
    let expect = tree::read(&root);
    let before = container.inspect();

    let fleet = Fleet::new();
    let (code, report) = fleet.update(&container.name, &bad, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (20, &json!("rolled_back")),
        "{report}"
    );
    let after = container.inspect();
    assert_eq!(after["Name"], before["Name"]);
    assert_eq!(after["State"]["Running"], json!(true));
    assert_eq!(
        after["HostConfig"]["RestartPolicy"],
        before["HostConfig"]["RestartPolicy"]
    );
    tree::assert_same(&expect, &tree::read(&root));
    assert_eq!(lab.containers(), [container.name.clone()]);
    assert_eq!(lab.foreign_tags(), Vec::<String>::new());
    container.wait_up();
    assert_eq!(container.rows().len(), 100);

    // Refused until somebody wants it once more.
    let started_at = container.inspect()["State"]["StartedAt"].clone();
    let (code, report) = fleet.update(&container.name, &bad, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (1, &json!("refused")),
        "{report}"
    );
    assert!(
        report["reason"]
            .as_str()
            .is_some_and(|why| why.contains("failed here before")),
        "{report}"
    );
    assert_eq!(container.inspect()["State"]["StartedAt"], started_at);
    let (code, report) = fleet.update(&container.name, &bad, &["--retry"]);
    assert_eq!(
        (code, &report["outcome"]),
        (20, &json!("rolled_back")),
        "{report}"
    );
    tree::assert_same(&expect, &tree::read(&root));
    assert_eq!(container.inspect()["Id"], before["Id"]);
}

#[test]
fn a_snapshot_can_be_listed_verified_and_restored_by_hand() {
    let lab = Lab::new("byhand");
    let image = lab.import("app:1", &Image::new("1", ""));
    let volume = lab.volume("data");
    let container = lab
        .run("web")
        .managed()
        .volume(&volume, "/data")
        .start(&image);
    container.wait_up();
    container.put("first");
    fleet_testkit::docker(&["stop", &container.id]);
    let root = PathBuf::from(lab.mountpoint(&volume));
    tree::furnish(&root);
    let expect = tree::read(&root);
    let fleet = Fleet::new();
    let (code, made) = fleet.json(&["snapshot", "create", &container.name]);
    assert_eq!(code, 0, "{made}");
    let id = made["snapshot"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(made["snapshot"]["consistency"], "clean");
    let (code, listed) = fleet.json(&["snapshot", "list"]);
    assert_eq!((code, &listed["snapshots"][0]["id"]), (0, &json!(id)));
    assert_eq!(listed["snapshots"][0]["volumes"][0]["name"], json!(volume));
    assert_eq!(fleet.json(&["snapshot", "verify", &id]).0, 0);
    std::fs::remove_dir_all(root.join("deep")).expect("the folder can be removed");
    std::fs::write(root.join("extra"), "x").expect("the file can be written");
    let refused = fleet.run(&["snapshot", "restore", &id]);
    assert_eq!(refused.code, 2, "nobody can be asked: {refused:?}");
    let (code, restored) = fleet.json(&["snapshot", "restore", &id, "--yes"]);
    assert_eq!(code, 0, "{restored}");
    assert!(
        restored["restored"]["safety_snapshot"]["id"].is_string(),
        "{restored}"
    );
    tree::assert_same(&expect, &tree::read(&root));
    let unknown = fleet.run(&[
        "snapshot",
        "verify",
        "snap_0190f3a1b2c37d4e8f60718293a4b5c6",
    ]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("there is no snapshot"),
        "{unknown:?}"
    );
}
