//! Volumes of a new container, and data outside of volumes.

use std::path::Path;

use fleet_core::ids::VolumeName;
use fleet_core::ports::{ContainerRuntime as _, PortErrorKind, WritableLayer};
use fleet_testkit::{Container, Image, Lab, Run, docker};

use crate::kit::{candidate, engine, id, image_id, update, update_id};

#[tokio::test]
async fn anonymous_volume_keeps_its_content_through_two_updates() {
    let lab = Lab::new("anon");
    let old = lab.import("old:1", &Image::new("1", "").change("VOLUME /data"));
    let new = lab.import("new:2", &Image::new("2", "").change("VOLUME /data"));
    let engine = engine().await;
    let web = lab.run("web").start(&old);
    web.wait_up();
    web.put("kept");
    let volume = web.inspect()["Mounts"][0]["Name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let mut current = id(&web);
    for (round, image) in [&new, &old].into_iter().enumerate() {
        let frozen = engine.freeze(&current).await.expect("frozen");
        let name = lab.name(&format!("round{round}"));
        let created = candidate(
            &engine,
            &frozen,
            &image_id(&lab, image),
            image,
            &name,
            Vec::new(),
        )
        .await
        .expect("created");
        assert_eq!(created.new_volumes, []);
        engine.stop(&current, None).await.expect("stopped");
        engine.remove(&current).await.expect("removed");
        engine.start(&created.id).await.expect("started");
        let running = Container {
            id: created.id.to_string(),
            name,
        };
        running.wait_up();
        assert_eq!(running.rows(), ["kept"]);
        assert_eq!(running.inspect()["Mounts"][0]["Name"], volume.as_str());
        current = created.id;
    }
    docker(&["rm", "--force", current.as_str()]);
    docker(&["volume", "rm", &volume]);
}

#[tokio::test]
async fn empty_volume_is_not_filled_from_the_new_image_and_new_volume_is_tracked() {
    let lab = Lab::new("vols");
    let old = lab.import("old:1", &Image::new("1", ""));
    let new = lab.import(
        "new:2",
        &Image::new("2", "")
            .file("/data/from-image", "x")
            .file("/fresh/from-image", "y")
            .change("VOLUME /fresh"),
    );
    let engine = engine().await;
    let volume = lab.volume("data");
    let web = lab.run("web").volume(&volume, "/data").create(&old);
    let updated = update(&engine, &lab, &web, &new).await;
    let files = std::fs::read_dir(lab.mountpoint(&volume))
        .expect("readable")
        .count();
    assert_eq!(
        files, 0,
        "the engine copied the image's files into the old container's volume"
    );
    assert_eq!(
        updated.new["HostConfig"]["Binds"][0],
        format!("{volume}:/data:nocopy")
    );
    let [fresh] = updated.created.new_volumes.as_slice() else {
        panic!("{:?}", updated.created)
    };
    let made = engine.volume(fresh).await.expect("asked").expect("there");
    assert_eq!(made.labels["io.fleet.update"], update_id(1).to_string());
    assert!(
        std::path::Path::new(&made.mountpoint)
            .join("from-image")
            .exists()
    );

    let in_use = engine.remove_volume(fresh).await.expect_err("in use");
    assert_eq!(in_use.kind(), PortErrorKind::Conflict);
    engine.remove(&updated.created.id).await.expect("removed");
    for _ in 0..2 {
        engine.remove_volume(fresh).await.expect("removed");
    }
    let users = VolumeName::new(volume).expect("a name");
    let refused = engine.remove_volume(&users).await.expect_err("not fleet's");
    assert_eq!(refused.kind(), PortErrorKind::Invalid);
}

#[tokio::test]
async fn data_in_the_writable_layer_is_seen_and_noise_is_not() {
    let lab = Lab::new("layer");
    let image = lab.import("app", &Image::new("1", "").file("/data/.keep", ""));
    let engine = engine().await;
    let volume = lab.volume("data");
    let clean = lab.run("clean").volume(&volume, "/data").start(&image);
    clean.wait_up();
    clean.put("x");
    assert_eq!(
        engine.writable_layer(&id(&clean)).await.expect("asked"),
        WritableLayer::default()
    );
    let dirty = lab.run("dirty").start(&image);
    dirty.wait_up();
    dirty.put("x");
    let found = engine.writable_layer(&id(&dirty)).await.expect("asked");
    assert_eq!(found.data, ["/data/rows"]);
    assert_eq!(found.inline, Vec::<String>::new());
}

/// A container as compose of version 2 makes one: its labels, and files that it puts there before the first start.
fn composed(lab: &Lab, name: &str, image: &str, folder: &Path) -> Container {
    let compose = |run: Run, label: &str, value: &str| {
        run.label(&format!("com.docker.compose.{label}"), value)
    };
    let folder = folder.display().to_string();
    let labels = [
        ("project", "shop"),
        ("service", "web"),
        ("version", "2.29.1"),
        ("project.working_dir", &folder),
        ("project.config_files", "compose.yaml"),
    ];
    let run = lab.run(name).options(&["--tmpfs", "/run/hidden"]);
    let run = labels
        .into_iter()
        .fold(run, |run, (label, value)| compose(run, label, value));
    let container = run.create(image);
    for path in [
        "/run/secrets/key",
        "/cfg",
        "/run/app.conf",
        "/run/pid",
        "/run/hidden/x",
    ] {
        container.put_file(path, b"content");
    }
    container
}

#[tokio::test]
async fn what_compose_put_into_a_container_is_told_apart_before_and_after_its_start() {
    let lab = Lab::new("inline");
    let image = lab.import("app", &Image::new("1", ""));
    let engine = engine().await;
    let folder = tempfile::tempdir().expect("a folder");
    let looked_at = |web: &Container| {
        let (engine, id) = (engine.clone(), id(web));
        async move { engine.writable_layer(&id).await.expect("asked") }
    };
    // Without the project's files only the place speaks, and the rest is data like any other.
    let web = composed(&lab, "blind", &image, folder.path());
    let found = looked_at(&web).await;
    assert_eq!(
        (found.inline, found.data),
        (vec!["/run/secrets/key".to_owned()], vec!["/cfg".to_owned()])
    );
    // With them each is known for what it is.
    let text = "services:\n  web:\n    configs: [cfg, {source: run, target: /run/app.conf}]\n    secrets: [key]\n\
                configs:\n  cfg: {content: x}\n  run: {content: y}\nsecrets:\n  key: {environment: KEY}\n";
    std::fs::write(folder.path().join("compose.yaml"), text).expect("written");
    let web = composed(&lab, "web", &image, folder.path());
    let expect = ["/cfg", "/run/app.conf", "/run/secrets/key"];
    for _ in ["created", "running"] {
        let mut found = looked_at(&web).await;
        found.inline.sort();
        assert_eq!(found.inline, expect);
        assert_eq!(found.data, Vec::<String>::new());
        docker(&["start", &web.id]);
        web.wait_up();
    }
    // A container that compose did not make has data there.
    let plain = lab.run("plain").create(&image);
    plain.put_file("/run/secrets/key", b"content");
    let found = looked_at(&plain).await;
    assert_eq!(found.data, ["/run/secrets/key"]);
    assert!(found.inline.is_empty(), "{found:?}");
}
