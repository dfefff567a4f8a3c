//! A healthy release: everything is as it was, but for the image.

use std::collections::BTreeSet;

use fleet_testkit::{Fleet, Image, Lab, Registry, docker};
use serde_json::{Value, json};

/// What must be the same before and after, but for the image and what the image says of itself.
#[track_caller]
fn kept(container: &Value) -> Value {
    let own_id = container["Id"].as_str().expect("an id");
    let networks = container["NetworkSettings"]["Networks"]
        .as_object()
        .expect("networks");
    let network = |(name, network): (&String, &Value)| {
        let aliases = network["Aliases"].as_array().into_iter().flatten();
        // The engine adds the container's own id to the aliases.
        let aliases: BTreeSet<_> = aliases
            .filter_map(Value::as_str)
            .filter(|alias| !own_id.starts_with(alias))
            .collect();
        json!([name, network["IPAMConfig"]["IPv4Address"], aliases])
    };
    let mount = |mount: &Value| {
        json!([
            mount["Destination"],
            mount["Type"],
            mount["Name"],
            mount["RW"],
            mount["Driver"]
        ])
    };
    let mounts = container["Mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .map(mount);
    let mut config = container["Config"].clone();
    if let Some(labels) = config["Labels"].as_object_mut() {
        labels.retain(|name, _| !name.starts_with("io.fleet."));
    }
    if let Some(env) = config["Env"].as_array_mut() {
        env.retain(|variable| !variable.to_string().contains("APP_VERSION="));
    }
    let mut host = container["HostConfig"].clone();
    if let Some(binds) = host["Binds"].as_array_mut() {
        // The anonymous volume is bound by its name, which the mounts show.
        binds.retain(|bind| !bind.to_string().contains(":/anonymous"));
    }
    config.as_object_mut().expect("a config").remove("Image");
    json!({
        "name": container["Name"],
        "config": config,
        "host": host,
        "mounts": mounts.map(|mount| mount.to_string()).collect::<BTreeSet<_>>(),
        "networks": networks.iter().map(network).collect::<Vec<_>>(),
    })
}

#[test]
fn everything_but_the_image_stays_and_nothing_is_left_behind() {
    let lab = Lab::new("commit");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let network = lab.network("net", &["--subnet", "10.213.7.0/24"]);
    let other = lab.network("other", &[]);
    let volume = lab.volume("data");
    let container = lab
        .run("web")
        .managed()
        .volume(&volume, "/data")
        .options(&[
            "--network",
            &network,
            "--ip",
            "10.213.7.20",
            "--network-alias",
            "front",
        ])
        .options(&[
            "--publish",
            "127.0.0.1::8080",
            "--restart",
            "unless-stopped",
            "--env",
            "MINE=1",
        ])
        .options(&[
            "--memory",
            "64m",
            "--label",
            "mine=yes",
            "--hostname",
            "fixed",
            "--volume",
            "/anonymous",
        ])
        .create(&old);
    docker(&["network", "connect", &other, &container.id]);
    docker(&["start", &container.id]);
    container.wait_up();
    for row in ["a", "b", "c"] {
        container.put(row);
    }
    let before = container.inspect();
    let fleet = Fleet::new();
    let (code, report) = fleet.update(&container.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    let after = container.inspect_by_name();
    assert_ne!(after["Id"], before["Id"]);
    assert_eq!(after["Image"], json!(lab.image_id(&new)));
    assert_eq!(after["Config"]["Image"], json!(new));
    assert_eq!(after["State"]["Running"], json!(true));
    assert_eq!(kept(&after), kept(&before));
    assert_eq!(container.rows(), ["a", "b", "c"]);
    assert_eq!(container.get("/version").body, "2");
    // The old container is gone, and so is the guard; no tag but the user's own points to the images.
    assert_eq!(lab.containers(), [container.name.clone()]);
    assert_eq!(lab.foreign_tags(), Vec::<String>::new());
    check_report(&report);
    check_ps(&fleet, &lab, &container.name, &new);
    check_events(&fleet, &container.name);
}

/// What scripts rely on.
fn check_report(report: &Value) {
    let steps: Vec<_> = report["steps"].as_array().expect("steps").iter().collect();
    let names: Vec<_> = steps
        .iter()
        .map(|step| step["name"].as_str().expect("a name"))
        .collect();
    for name in [
        "freeze",
        "pull",
        "create_candidate",
        "disarm",
        "stop",
        "snapshot",
        "park",
        "promote",
        "start",
        "gate",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for step in steps {
        let at = step["started_at"].as_str().expect("a time");
        assert!(at.ends_with('Z') && at.contains('T'), "{at}");
        assert!(step["duration_ms"].is_u64(), "{step}");
    }
    assert!(
        report["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("upd_")),
        "{report}"
    );
    assert!(
        report["downtime_ms"].is_u64() && report["duration_ms"].is_u64(),
        "{report}"
    );
    assert!(
        report["snapshot_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0),
        "{report}"
    );
}

fn check_ps(fleet: &Fleet, lab: &Lab, name: &str, image: &str) {
    let (code, document) = fleet.json(&["ps"]);
    assert_eq!(code, 0);
    let instances = document["instances"].as_array().expect("instances");
    let instance = instances
        .iter()
        .find(|instance| instance["name"] == name)
        .expect("our instance");
    assert_eq!(instance["state"], "idle");
    assert_eq!(instance["running"], true);
    assert_eq!(instance["image"], image);
    assert_eq!(instance["digest"], json!(lab.image_id(image)));
    assert_eq!(instance["tenant"], name);
    assert_eq!(instance["channel"], "stable");
}

fn check_events(fleet: &Fleet, name: &str) {
    let (code, document) = fleet.json(&["events", "--instance", name]);
    assert_eq!(code, 0);
    let kinds: Vec<_> = document["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .filter(|kind| *kind != "update.step")
        .collect();
    assert_eq!(kinds.first(), Some(&"update.started"), "{kinds:?}");
    assert!(kinds.contains(&"update.committed"), "{kinds:?}");
}

#[test]
fn a_release_from_a_registry_is_pulled_by_digest_and_the_tag_stays_readable() {
    let lab = Lab::new("registry");
    let registry = Registry::start();
    let repository = lab.name("app");
    for version in ["1", "2"] {
        let local = lab.import(&format!("v{version}"), &Image::new(version, ""));
        registry.push(&local, &format!("{repository}:{version}"));
        docker(&["rmi", &local]);
    }
    let old = registry.reference(&format!("{repository}:1"));
    let new = registry.reference(&format!("{repository}:2"));
    docker(&["pull", "--quiet", &old]);
    let container = lab
        .run("web")
        .managed()
        .label("fleet.source", "registry")
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
    assert!(
        report["to_digest"]
            .as_str()
            .is_some_and(|digest| digest.starts_with("sha256:")),
        "{report}"
    );
    assert_eq!(container.inspect_by_name()["Config"]["Image"], json!(new));
    assert_eq!(container.rows(), ["kept"]);
    assert_eq!(container.get("/version").body, "2");
    // The user's own name for it in the engine points to what runs.
    assert_eq!(
        json!(lab.image_id(&new)),
        container.inspect_by_name()["Image"]
    );
    let (code, report) = fleet.update(&container.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("unchanged")),
        "{report}"
    );
}

#[test]
fn an_instance_that_was_stopped_is_committed_stopped() {
    let lab = Lab::new("stopped");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let container = lab
        .run("web")
        .managed()
        .volume(&lab.volume("data"), "/data")
        .start(&old);
    container.wait_up();
    docker(&["stop", &container.id]);
    let (code, report) = Fleet::new().update(&container.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    let after = container.inspect_by_name();
    assert_eq!(after["State"]["Running"], json!(false));
    assert_eq!(after["Image"], json!(lab.image_id(&new)));
    assert_eq!(lab.containers(), [container.name.clone()]);
}

#[test]
fn check_tells_what_is_behind_and_ps_remembers_it() {
    let lab = Lab::new("check");
    let mut registry = Registry::start();
    let repository = lab.name("app");
    let push = |registry: &Registry, version: &str| {
        let local = lab.import(&format!("v{version}"), &Image::new(version, ""));
        let digest = registry.push(&local, &format!("{repository}:stable"));
        docker(&["rmi", &local]);
        digest
    };
    push(&registry, "1");
    let image = registry.reference(&format!("{repository}:stable"));
    docker(&["pull", "--quiet", &image]);
    let run = lab.run("web").managed().label("fleet.source", "registry");
    let container = run.volume(&lab.volume("data"), "/data").start(&image);
    let fleet = Fleet::new();
    let mine = |document: &Value| {
        let all = document["instances"].as_array().expect("instances").clone();
        all.into_iter()
            .find(|one| one["name"] == container.name)
            .expect("our instance")
    };
    let (code, document) = fleet.json(&["check"]);
    assert_eq!(
        (code, &mine(&document)["behind"]),
        (0, &json!(false)),
        "{document}"
    );
    let digest = push(&registry, "2");
    let (code, document) = fleet.json(&["check", "--exit-code"]);
    assert_eq!(code, 10, "{document}");
    assert_eq!(mine(&document)["behind"], json!(true));
    assert_eq!(mine(&document)["available_digest"], json!(digest));
    let (_, document) = fleet.json(&["ps"]);
    assert_eq!(mine(&document)["available_digest"], json!(digest));
    registry.stop();
    let (code, document) = fleet.json(&["check"]);
    assert_eq!(
        (code, &mine(&document)["behind"]),
        (0, &Value::Null),
        "{document}"
    );
}
