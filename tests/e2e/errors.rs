//! What is wrong is said, with the documented exit code, and nothing is changed.

use std::fs;
use std::time::Duration;

use fleet_testkit::{Container, Fleet, Image, Lab, Ran, docker, wait_for};
use serde_json::{Value, json};

fn instance(lab: &Lab) -> (Container, String) {
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let container = lab
        .run("web")
        .managed()
        .volume(&lab.volume("data"), "/data")
        .start(&old);
    container.wait_up();
    (container, new)
}

/// What must not change when something is refused.
fn standing(container: &Container) -> Value {
    let found = container.inspect_by_name();
    json!([
        found["Id"],
        found["State"]["StartedAt"],
        found["HostConfig"]["RestartPolicy"]
    ])
}

#[track_caller]
fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in {ran:?}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

#[test]
fn mistakes_are_told_apart() {
    let lab = Lab::new("errors");
    let (container, new) = instance(&lab);
    let before = standing(&container);
    let fleet = Fleet::new();
    let near = format!("{}x", container.name);
    says(
        &fleet.run(&["update", &near, "--to", &new]),
        1,
        &["there is no instance", &container.name],
    );
    says(
        &fleet.run(&["update", &container.name, "--to", "a:b:c"]),
        2,
        &["expected an image reference"],
    );
    says(
        &fleet.run(&["update", &container.name, "--to", &new, "--timeout", "soon"]),
        2,
        &["expected a duration"],
    );
    says(&fleet.run(&["frobnicate"]), 2, &["unrecognized subcommand"]);
    says(
        &fleet.run(&["--config", "/nonexistent.toml", "ps"]),
        2,
        &["/nonexistent.toml"],
    );
    let file = fleet.data_dir().with_file_name("fleet.toml");
    fs::write(&file, "[snapshots]\nkep = 3\n").expect("the file can be written");
    says(
        &fleet.run(&["ps"]),
        2,
        &[
            "fleet.toml",
            "line 2, column 1",
            "unknown key \"snapshots.kep\"",
            "\"snapshots.keep\"",
        ],
    );
    fs::remove_file(&file).expect("the file can be removed");
    says(
        &fleet.run(&["--data-dir", "/proc/version", "ps"]),
        2,
        &["the data directory /proc/version"],
    );
    let away = Fleet::new().on("unix:///nonexistent/docker.sock");
    says(
        &away.run(&["update", &container.name, "--to", &new]),
        1,
        &["no engine can be used", "fleet doctor"],
    );
    says(&away.run(&["ps"]), 1, &["no engine can be used"]);
    assert_eq!(standing(&container), before);
    assert_eq!(lab.containers(), [container.name.clone()]);
}

#[test]
fn a_second_fleet_on_the_same_data_directory_is_refused_for_now() {
    let lab = Lab::new("second");
    let (container, new) = instance(&lab);
    let slow = lab.import("app:3", &Image::new("3", "slow:4000"));
    let fleet = Fleet::new();
    let mut first = fleet
        .command(&["update", &container.name, "--to", &slow])
        .spawn()
        .expect("fleet can be started");
    let pid = first.id().to_string();
    let lock = fleet.data_dir().join("lock");
    wait_for(
        "the first to hold the lock",
        Duration::from_secs(20),
        || {
            let holder = fs::read_to_string(&lock).unwrap_or_default();
            if holder.trim() == pid {
                Ok(())
            } else {
                Err(holder)
            }
        },
    );
    says(&fleet.run(&["recover"]), 75, &["another fleet", &pid]);
    says(
        &fleet.run(&["update", &container.name, "--to", &new]),
        75,
        &["another fleet"],
    );
    // Looking needs no lock.
    wait_for("ps to show it", Duration::from_secs(20), || {
        let (code, document) = fleet.json(&["ps"]);
        assert_eq!(code, 0);
        let all = document["instances"].as_array().expect("instances");
        let mine = all.iter().find(|one| one["name"] == container.name);
        match mine.map(|one| &one["state"]) {
            Some(state) if *state == "updating" => Ok(()),
            _ => Err(document.to_string()),
        }
    });
    assert!(first.wait().expect("it ends").success());
    assert_eq!(container.get("/version").body, "3");
}

#[test]
fn a_pause_refuses_for_now_and_resume_lifts_it() {
    let lab = Lab::new("pause");
    let (container, new) = instance(&lab);
    let before = standing(&container);
    let fleet = Fleet::new();
    assert_eq!(fleet.run(&["pause", "--reason", "holiday"]).code, 0);
    let (code, report) = fleet.update(&container.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (75, &json!("refused")),
        "{report}"
    );
    assert!(
        report["reason"]
            .as_str()
            .is_some_and(|why| why.contains("holiday")),
        "{report}"
    );
    assert_eq!(standing(&container), before);
    let (_, document) = fleet.json(&["ps"]);
    assert!(
        document["instances"].to_string().contains("holiday"),
        "{document}"
    );
    assert_eq!(fleet.run(&["resume"]).code, 0);
    assert_eq!(fleet.update(&container.name, &new, &[]).0, 0);
}

#[test]
fn what_cannot_be_done_safely_is_refused_with_a_reason() {
    let lab = Lab::new("refuse");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let fleet = Fleet::new();
    let removed = lab
        .run("rm")
        .managed()
        .volume(&lab.volume("rm"), "/data")
        .options(&["--rm"])
        .start(&old);
    removed.wait_up();
    let before = standing(&removed);
    let (code, report) = fleet.update(&removed.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (1, &json!("refused")),
        "{report}"
    );
    assert!(
        report["reason"]
            .as_str()
            .is_some_and(|why| why.contains("--rm")),
        "{report}"
    );
    assert_eq!(standing(&removed), before);

    // Without a volume the rows are in the writable layer.
    let layer = lab
        .run("layer")
        .managed()
        .options(&["--tmpfs", "/tmp"])
        .options(&["--env", "APP_DATA=/"])
        .start(&old);
    layer.wait_up();
    layer.put("in-the-layer");
    let (code, report) = fleet.update(&layer.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (1, &json!("refused")),
        "{report}"
    );
    assert!(
        report["reason"]
            .as_str()
            .is_some_and(|why| why.contains("/rows")),
        "{report}"
    );
    assert_eq!(layer.rows(), ["in-the-layer"]);

    let pinned = lab
        .run("pin")
        .managed()
        .label("fleet.pin", "9")
        .volume(&lab.volume("pin"), "/data")
        .start(&old);
    pinned.wait_up();
    let (code, report) = fleet.update(&pinned.name, &new, &[]);
    assert_eq!((code, &report["code"]), (1, &json!("pinned")), "{report}");
    let windowed = lab
        .run("window")
        .managed()
        .label("fleet.window", &closed_window())
        .volume(&lab.volume("w"), "/data")
        .start(&old);
    windowed.wait_up();
    let (code, report) = fleet.update(&windowed.name, &new, &[]);
    assert_eq!(
        (code, &report["code"]),
        (75, &json!("outside_window")),
        "{report}"
    );
    let (code, report) = fleet.update(&windowed.name, &new, &["--override-window"]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
}

/// A window of one hour, twelve hours from now.
fn closed_window() -> String {
    let hour = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .hour();
    let from = (hour + 12) % 24;
    format!("{from:02}:00-{from:02}:59")
}

#[test]
fn explain_doctor_and_recover_answer() {
    let lab = Lab::new("answers");
    let (container, _) = instance(&lab);
    let fleet = Fleet::new();
    let (code, document) = fleet.json(&["explain", &container.name, "--spec"]);
    assert_eq!(code, 0, "{document}");
    let settings = document["instance"]["settings"]
        .as_array()
        .expect("settings");
    let path = settings
        .iter()
        .find(|row| row["setting"] == "health.path")
        .expect("the path");
    assert_eq!(
        (&path["value"], &path["source"]),
        (&json!("/health"), &json!("label"))
    );
    assert!(document["instance"]["spec"].is_object(), "{document}");
    let (code, document) = fleet.json(&["doctor"]);
    assert_eq!(code, 0, "{document}");
    let checks = document["checks"].as_array().expect("checks");
    for name in ["engine", "volumes", "permissions", "disk", "store", "clock"] {
        assert!(
            checks
                .iter()
                .any(|check| check["name"] == name && check["status"] == "ok"),
            "{name}: {document}"
        );
    }
    let ran = fleet.run(&["recover"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("nothing to recover"), "{ran:?}");
    assert_eq!(
        docker(&["inspect", "--format", "{{.State.Running}}", &container.id]),
        "true"
    );
}
