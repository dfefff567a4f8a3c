//! The guard: up before the call returns, harmless, gone at once.

use std::time::{Duration, Instant};

use fleet_core::ids::VolumeName;
use fleet_core::ports::{
    ContainerRuntime as _, CreateRequest, GuardOwner, GuardRequest, PortErrorKind,
};
use fleet_testkit::{Image, Lab, docker, docker_json};
use serde_json::Value;

use crate::kit::{engine, image_id, update_id};

#[tokio::test]
async fn guard_holds_what_it_must_and_nothing_else() {
    let lab = Lab::new("guard");
    let image = lab.import(
        "app",
        &Image::new("1", "")
            .file("/data/from-image", "x")
            // An image may hold anything, also a program of this name.
            .file("/fleet", "x")
            .change("VOLUME /data /declared"),
    );
    let volume = lab.volume("data");
    let front = lab.network("front", &[]);
    let back = lab.network("back", &[]);
    let engine = engine().await;
    let request = GuardRequest {
        owner: GuardOwner::Update(update_id(2)),
        name: lab.name("guard"),
        image_id: image_id(&lab, &image),
        volumes: vec![VolumeName::new(volume.clone()).expect("a name")],
        networks: vec![front.clone(), back.clone()],
        default_network: false,
        containers: 1,
    };
    let raise = CreateRequest::Guard(Box::new(request.clone()));
    let guard = engine.create(&raise).await.expect("up");
    let again = engine.create(&raise).await.expect("still up");
    assert_eq!(guard.id, again.id);

    let raw = docker_json(&["container", "inspect", guard.id.as_str()]);
    check_settings(&raw, &request);
    let files = std::fs::read_dir(lab.mountpoint(&volume))
        .expect("readable")
        .count();
    assert_eq!(files, 0, "the image's files were copied into the volume");
    assert!(
        fleet_testkit::try_docker(&["network", "rm", &front]).is_err(),
        "the network is in use"
    );
    assert!(
        fleet_testkit::try_docker(&["volume", "rm", &volume]).is_err(),
        "the volume is in use"
    );

    let begun = Instant::now();
    engine.stop(&guard.id, None).await.expect("stopped");
    engine.remove(&guard.id).await.expect("removed");
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
}

fn check_settings(raw: &Value, request: &GuardRequest) {
    assert_eq!(raw["State"]["Running"], true);
    assert_eq!(raw["Image"], request.image_id.as_str());
    assert_eq!(raw["Config"]["User"], "0:0");
    assert_eq!(raw["Config"]["Labels"]["io.fleet.kind"], "guard");
    let (label, id) = request.owner.label();
    assert_eq!(raw["Config"]["Labels"][label], id);
    assert_eq!(raw["State"].get("Health"), None);
    assert_eq!(raw["NetworkSettings"]["Ports"]["8080/tcp"], Value::Null);
    let networks = raw["NetworkSettings"]["Networks"]
        .as_object()
        .expect("networks");
    let mut expect = request.networks.clone();
    expect.sort();
    assert_eq!(networks.keys().cloned().collect::<Vec<_>>(), expect);
    // The image declares volumes: none of them may have come into being.
    let mounts = raw["Mounts"].as_array().expect("mounts");
    let volumes: Vec<_> = mounts
        .iter()
        .filter(|mount| mount["Type"] == "volume")
        .collect();
    assert_eq!(volumes.len(), 1);
    assert_eq!(volumes[0]["Name"], request.volumes[0].as_str());
    assert_eq!(volumes[0]["RW"], false);
}

#[tokio::test]
async fn dead_guard_is_raised_anew_and_a_stranger_is_left_alone() {
    let lab = Lab::new("guard2");
    let image = lab.import("app", &Image::new("1", ""));
    let engine = engine().await;
    let mut request = GuardRequest {
        owner: GuardOwner::Update(update_id(3)),
        name: lab.name("guard"),
        image_id: image_id(&lab, &image),
        volumes: Vec::new(),
        networks: Vec::new(),
        default_network: false,
        containers: 1,
    };
    let raise = CreateRequest::Guard(Box::new(request.clone()));
    let first = engine.create(&raise).await.expect("up");
    docker(&["kill", first.id.as_str()]);
    let second = engine.create(&raise).await.expect("up again");
    assert_ne!(first.id, second.id);
    assert!(
        engine
            .inspect(&second.id)
            .await
            .expect("asked")
            .expect("there")
            .is_up()
    );
    // It may be removed while it runs: it holds nothing of its own.
    engine.remove(&second.id).await.expect("removed");

    let stranger = lab.run("stranger").create(&image);
    request.name.clone_from(&stranger.name);
    let refused = engine
        .create(&CreateRequest::Guard(Box::new(request)))
        .await
        .expect_err("not ours");
    assert_eq!(refused.kind(), PortErrorKind::Conflict);
    assert_eq!(stranger.inspect()["State"]["Status"], "created");
}
