//! Mounts: byte for byte, by name, and tracked.

use std::collections::BTreeSet;

use fleet_core::ids::VolumeName;
use serde_json::{Value, json};

use super::{Planner, container};

fn anonymous() -> String {
    "ab".repeat(32)
}

fn mounted(name: &str, target: &str, writable: bool) -> Value {
    json!({ "Type": "volume", "Name": name, "Destination": target, "RW": writable })
}

#[track_caller]
fn check_binds(user: Value, expect: &[&str]) {
    let spec = container(&user, &json!({}));
    let planner = Planner::new(&spec, &json!({}));
    assert_eq!(planner.surprises(), Vec::<String>::new());
    assert_eq!(planner.plan().body["HostConfig"]["Binds"], json!(expect));
}

#[test]
fn binds_are_carried_byte_for_byte() {
    let binds = [
        "data:/data",
        "/srv/x:/x:ro,z",
        "/a:/b:rshared",
        "named:/n/:nocopy",
    ];
    let mounts = json!([mounted("data", "/data", true), mounted("named", "/n", true)]);
    check_binds(
        json!({ "HostConfig": { "Binds": binds }, "Mounted": mounts }),
        &binds,
    );
}

#[test]
fn anonymous_volumes_keep_their_content_by_keeping_their_name() {
    let name = anonymous();
    let bind = format!("{name}:/var/lib/db");
    check_binds(
        json!({ "Volumes": { "/var/lib/db": {} }, "Mounted": [mounted(&name, "/var/lib/db", true)] }),
        &[&bind],
    );
    check_binds(
        json!({ "HostConfig": { "Binds": ["/c:ro", "/var/lib/db"] }, "Mounted": [mounted(&name, "/var/lib/db", true)] }),
        &["/c:ro", &bind],
    );
    // The second time it is a bind like any other.
    check_binds(
        json!({ "HostConfig": { "Binds": [&bind] }, "Mounted": [mounted(&name, "/var/lib/db", true)] }),
        &[&bind],
    );
}

#[test]
fn mounts_keep_their_options_and_get_the_name_of_an_anonymous_volume() {
    let name = anonymous();
    let user = json!({
        "HostConfig": { "Mounts": [
            { "Type": "volume", "Target": "/v", "VolumeOptions": { "Labels": { "a": "b" }, "Subpath": "x" } },
            { "Type": "bind", "Source": "/s", "Target": "/b", "ReadOnly": true, "BindOptions": { "Propagation": "rslave" } },
            { "Type": "tmpfs", "Target": "/t", "TmpfsOptions": { "SizeBytes": 5 } },
        ] },
        "Mounted": [mounted(&name, "/v", true)],
    });
    let spec = container(&user, &json!({}));
    let planner = Planner::new(&spec, &json!({}));
    assert_eq!(planner.surprises(), Vec::<String>::new());
    let mut expect = user["HostConfig"]["Mounts"].clone();
    expect[0]["Source"] = Value::from(name);
    let body = planner.plan().body;
    assert_eq!(body["HostConfig"]["Mounts"], expect);
    assert_eq!(body["HostConfig"].get("Binds"), None);
}

#[test]
fn volumes_of_other_containers_are_left_to_them() {
    let name = anonymous();
    let user = json!({
        "HostConfig": { "VolumesFrom": ["parent"] },
        "Mounted": [mounted(&name, "/shared", true)],
    });
    let mut spec = container(&user, &json!({}));
    spec.inherited_targets = BTreeSet::from(["/shared".to_owned()]);
    let new_image = json!({ "Volumes": { "/shared": {} } });
    let plan = Planner::new(&spec, &new_image).plan();
    assert_eq!(plan.body["HostConfig"].get("Binds"), None);
    assert_eq!(plan.new_volumes, []);
}

#[test]
fn nocopy_is_added_where_a_volume_is_empty_and_dropped_by_the_next_recreate() {
    let user = json!({
        "HostConfig": {
            "Binds": ["empty:/e", "full:/f", "ro:/r:ro", "mine:/m:nocopy", "/host:/h"],
            "Mounts": [{ "Type": "volume", "Source": "empty2", "Target": "/e2" }],
        },
        "Mounted": [
            mounted("empty", "/e", true), mounted("full", "/f", true), mounted("ro", "/r", false),
            mounted("mine", "/m", true), mounted("empty2", "/e2", true),
        ],
    });
    let spec = container(&user, &json!({}));
    let mut planner = Planner::new(&spec, &json!({}));
    let volume = |name: &str| VolumeName::new(name).expect("a name");
    planner.empty = ["empty", "empty2", "ro", "mine"].map(volume).into();
    assert_eq!(planner.surprises(), Vec::<String>::new());
    let body = planner.plan().body;
    assert_eq!(
        body["HostConfig"]["Binds"],
        json!([
            "empty:/e:nocopy",
            "full:/f",
            "ro:/r:ro,nocopy",
            "mine:/m:nocopy",
            "/host:/h"
        ])
    );
    assert_eq!(
        body["HostConfig"]["Mounts"][0]["VolumeOptions"],
        json!({ "NoCopy": true })
    );
    assert_eq!(body["Labels"]["io.fleet.nocopy"], r#"["/e","/e2","/r"]"#);

    let mut next = json!({ "Labels": body["Labels"], "HostConfig": body["HostConfig"] });
    next["Mounted"] = user["Mounted"].clone();
    let spec = container(&next, &json!({}));
    let planner = Planner::new(&spec, &json!({}));
    assert_eq!(planner.surprises(), Vec::<String>::new());
    let body = planner.plan().body;
    assert_eq!(body["HostConfig"]["Binds"], user["HostConfig"]["Binds"]);
    assert_eq!(
        body["HostConfig"]["Mounts"][0]["VolumeOptions"],
        Value::Null
    );
    assert_eq!(body["Labels"].get("io.fleet.nocopy"), None);
}

#[test]
fn a_new_volume_of_the_image_is_named_and_tracked() {
    let name = anonymous();
    let user = json!({
        "HostConfig": { "Tmpfs": { "/cache/": "" }, "Binds": ["x:/x"] },
        "Mounted": [mounted(&name, "/old", true), mounted("x", "/x", true)],
    });
    let old_image = json!({ "Volumes": { "/old": {} } });
    let new_image = json!({ "Volumes": { "/old/": {}, "/new/data": {}, "/cache": {}, "/x": {} } });
    let spec = container(&user, &old_image);
    let planner = Planner::new(&spec, &new_image);
    assert_eq!(planner.surprises(), Vec::<String>::new());
    let plan = planner.plan();
    let made: Vec<(&str, &str)> = plan
        .new_volumes
        .iter()
        .map(|volume| (volume.name.as_str(), volume.target.as_str()))
        .collect();
    let [(volume, "/new/data")] = made.as_slice() else {
        panic!("{made:?}")
    };
    assert!(
        volume.starts_with("fleet-volume-a5a5a5a5-new-data-"),
        "{volume}"
    );
    let binds = &plan.body["HostConfig"]["Binds"];
    assert_eq!(
        binds,
        &json!([
            "x:/x",
            format!("{name}:/old"),
            format!("{volume}:/new/data")
        ])
    );
    assert_eq!(planner.plan(), plan, "the same update gives the same names");
}
