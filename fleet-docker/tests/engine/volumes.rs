//! Volumes of a new container, and data outside of volumes.

use fleet_core::ids::VolumeName;
use fleet_core::ports::{ContainerRuntime as _, PortErrorKind};
use fleet_testkit::{Container, Image, Lab, docker};

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
        Vec::<String>::new()
    );
    let dirty = lab.run("dirty").start(&image);
    dirty.wait_up();
    dirty.put("x");
    let found = engine.writable_layer(&id(&dirty)).await.expect("asked");
    assert_eq!(found, ["/data/rows"]);
}
