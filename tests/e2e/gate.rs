//! Releases that do not come up, each in its own way, and a probe that cannot be led astray.

use std::time::{Duration, Instant};

use fleet_testkit::{Container, Fleet, Image, Lab};
use serde_json::{Value, json};

/// Updates to an image that cannot pass; gives the report and the time it took.
#[track_caller]
fn rolled_back(mode: &str, timeout: &str, more: &[(&str, &str)]) -> (Value, Duration) {
    let lab = Lab::new("gate");
    let old = lab.import("app:1", &Image::new("1", ""));
    let bad = lab.import("app:2", &Image::new("2", mode));
    let mut run = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", timeout);
    for (label, value) in more {
        run = run.label(label, value);
    }
    let container = run
        .volume(&lab.volume("data"), "/data")
        .options(&["--restart", "always"])
        .start(&old);
    container.wait_up();
    container.put("kept");
    let before = container.inspect();
    let begun = Instant::now();
    let (code, report) = Fleet::new().update(&container.name, &bad, &[]);
    let took = begun.elapsed();
    assert_eq!(
        (code, &report["outcome"]),
        (20, &json!("rolled_back")),
        "{mode}: {report}"
    );
    assert_old_is_back(&lab, &container, &before);
    (report, took)
}

#[track_caller]
fn assert_old_is_back(lab: &Lab, container: &Container, before: &Value) {
    let after = container.inspect_by_name();
    assert_eq!(after["Id"], before["Id"]);
    assert_eq!(
        after["HostConfig"]["RestartPolicy"],
        before["HostConfig"]["RestartPolicy"]
    );
    container.wait_up();
    assert_eq!(container.rows(), ["kept"]);
    assert_eq!(container.get("/version").body, "1");
    assert_eq!(lab.containers(), [container.name.clone()]);
}

#[test]
fn one_that_exits_at_once_is_rolled_back_at_once() {
    let (report, took) = rolled_back("exit", "180s", &[]);
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(
        report["reason"]
            .as_str()
            .is_some_and(|why| why.contains("code 3")),
        "{report}"
    );
}

#[test]
fn one_that_is_healthy_once_and_then_exits_is_rolled_back_at_once() {
    let (_, took) = rolled_back(
        "exit-after-health:1",
        "180s",
        &[("fleet.health.min_healthy", "90s")],
    );
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn one_that_hangs_is_rolled_back_after_the_timeout() {
    let (_, took) = rolled_back("hang", "2s", &[]);
    assert!(took > Duration::from_secs(2), "{took:?}");
}

#[test]
fn one_that_is_unhealthy_for_the_whole_timeout_is_rolled_back() {
    let (report, took) = rolled_back("unhealthy", "2s", &[]);
    assert!(took > Duration::from_secs(2), "{took:?}");
    assert!(
        report["reason"]
            .as_str()
            .is_some_and(|why| why.contains("503")),
        "{report}"
    );
}

#[test]
fn one_that_is_only_slow_is_waited_for() {
    let lab = Lab::new("slow");
    let old = lab.import("app:1", &Image::new("1", ""));
    let slow = lab.import("app:2", &Image::new("2", "slow:3000"));
    let container = lab
        .run("web")
        .managed()
        .volume(&lab.volume("data"), "/data")
        .start(&old);
    container.wait_up();
    let (code, report) = Fleet::new().update(&container.name, &slow, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    assert!(
        report["downtime_ms"].as_u64().is_some_and(|ms| ms >= 3000),
        "{report}"
    );
}

#[test]
fn an_old_version_that_ignores_sigterm_is_killed_after_its_grace() {
    let lab = Lab::new("term");
    let old = lab.import("app:1", &Image::new("1", "ignore-term"));
    let new = lab.import("app:2", &Image::new("2", ""));
    let container = lab
        .run("web")
        .managed()
        .label("fleet.stop.timeout", "1s")
        .volume(&lab.volume("data"), "/data")
        .start(&old);
    container.wait_up();
    container.put("kept");
    let fleet = Fleet::new();
    let (code, report) = fleet.update(&container.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("137") && notes.contains("fleet.stop.timeout"),
        "{report}"
    );
    let (_, snapshots) = fleet.json(&["snapshot", "list", &container.name]);
    assert_eq!(
        snapshots["snapshots"][0]["consistency"], "unclean",
        "{snapshots}"
    );
    assert_eq!(container.rows(), ["kept"]);
}

#[test]
fn a_body_without_end_is_cut_off() {
    for mode in ["body-huge", "body-endless"] {
        let (_, took) = rolled_back(mode, "3s", &[]);
        assert!(took < Duration::from_secs(40), "{mode}: {took:?}");
    }
}

#[test]
fn a_redirect_is_no_pass() {
    let (report, _) = rolled_back("redirect", "2s", &[]);
    assert!(
        report["reason"]
            .as_str()
            .is_some_and(|why| why.contains("302")),
        "{report}"
    );
}

#[test]
fn the_probe_cannot_be_pointed_elsewhere_by_a_label() {
    use std::net::TcpListener;
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port is free");
    listener
        .set_nonblocking(true)
        .expect("the listener can be told");
    let elsewhere = listener.local_addr().expect("an address").port();
    for path in [
        format!("http://127.0.0.1:{elsewhere}/health"),
        format!("//127.0.0.1:{elsewhere}/health"),
        format!("@127.0.0.1:{elsewhere}/health"),
        format!("/health@127.0.0.1:{elsewhere}/"),
        format!("/..//127.0.0.1:{elsewhere}/health"),
    ] {
        let lab = Lab::new("elsewhere");
        let old = lab.import("app:1", &Image::new("1", ""));
        let new = lab.import("app:2", &Image::new("2", ""));
        let container = lab
            .run("web")
            .managed()
            .label("fleet.health.path", &path)
            .label("fleet.health.timeout", "1s")
            .volume(&lab.volume("data"), "/data")
            .start(&old);
        container.wait_up();
        let (code, report) = Fleet::new().update(&container.name, &new, &[]);
        // Whatever comes of it, nobody was asked but the container: a path that is none is not used at all, and one
        // that is a path leads to a page that the program does not have, neither the new nor the old one.
        assert!(matches!(code, 0 | 20), "{path}: {report}");
        assert!(
            listener.accept().is_err(),
            "{path}: the probe went elsewhere"
        );
    }
}

#[test]
fn the_images_own_healthcheck_decides_where_there_is_no_path() {
    let lab = Lab::new("healthcheck");
    let check = "HEALTHCHECK --interval=300ms --timeout=2s --retries=2 CMD [\"/app\",\"probe\"]";
    let old = lab.import("app:1", &Image::new("1", "").change(check));
    let good = lab.import("app:2", &Image::new("2", "").change(check));
    let bad = lab.import("app:3", &Image::new("3", "unhealthy").change(check));
    let container = lab
        .run("web")
        .label("fleet.enable", "true")
        .label("fleet.source", "local")
        .label("fleet.health.timeout", "20s")
        .label("fleet.health.min_healthy", "0s")
        .volume(&lab.volume("data"), "/data")
        .start(&old);
    container.wait_up();
    let fleet = Fleet::new();
    let (code, report) = fleet.update(&container.name, &good, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    let (code, report) = fleet.update(&container.name, &bad, &["--timeout", "4s"]);
    assert_eq!(
        (code, &report["outcome"]),
        (20, &json!("rolled_back")),
        "{report}"
    );
    container.wait_up();
    assert_eq!(container.get("/version").body, "2");
}
