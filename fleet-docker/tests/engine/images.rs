//! Images: pulled by digest from a real registry, and every way in which that fails.

use std::sync::Mutex;

use fleet_core::ids::ImageId;
use fleet_core::image::{Digest, ImageRef, PinnedImage};
use fleet_core::model::Platform;
use fleet_core::ports::{
    ContainerRuntime as _, ImageStore as _, NoProgress, PortErrorKind, Progress, ProgressSink,
};
use fleet_testkit::{Image, Lab, Registry, docker};

use crate::kit::{engine, image_id};

fn pinned(registry: &Registry, repository: &str, digest: &str) -> PinnedImage {
    let image: ImageRef = registry
        .reference(&format!("{repository}:1"))
        .parse()
        .expect("a reference");
    image.pinned(digest.parse().expect("a digest"))
}

#[derive(Default)]
struct Reports(Mutex<Vec<Progress>>);

impl ProgressSink for Reports {
    fn report(&self, progress: Progress) {
        self.0.lock().expect("unpoisoned").push(progress);
    }
}

#[tokio::test]
async fn pulled_image_is_the_one_of_the_digest() {
    let lab = Lab::new("pull");
    let mut registry = Registry::start();
    let local = lab.import("app", &Image::new("1", ""));
    let digest = registry.push(&local, "team/app:1");
    let pushed_id = image_id(&lab, &local);
    docker(&["rmi", &local]);
    let engine = engine().await;
    let platform = engine.info().await.expect("info").platform;
    let image = pinned(&registry, "team/app", &digest);
    let reports = Reports::default();
    let found = engine
        .pull(&image, &platform, &reports)
        .await
        .expect("pulled");
    assert_eq!(found.id, pushed_id);
    assert!(
        found
            .repo_digests
            .iter()
            .any(|entry| entry.ends_with(&digest)),
        "{found:?}"
    );
    // The second time the registry is not needed.
    registry.stop();
    assert_eq!(
        engine
            .pull(&image, &platform, &NoProgress)
            .await
            .expect("there"),
        found
    );
}

#[tokio::test]
async fn pull_that_fails_says_why_and_leaves_no_image() {
    let lab = Lab::new("nopull");
    let mut registry = Registry::start();
    let local = lab.import("app", &Image::new("1", ""));
    let digest = registry.push(&local, "team/app:1");
    docker(&["rmi", &local]);
    let engine = engine().await;
    let platform = engine.info().await.expect("info").platform;
    let pull = async |repository: &str, digest: &str, platform: &Platform| {
        let error = engine
            .pull(
                &pinned(&registry, repository, digest),
                platform,
                &NoProgress,
            )
            .await;
        error.expect_err("it cannot be had")
    };
    let nothing = Digest::of(b"nothing");
    let missing = pull("team/app", nothing.as_str(), &platform).await;
    assert_eq!(missing.kind(), PortErrorKind::NotFound, "{missing}");
    let missing = pull("team/none", &digest, &platform).await;
    assert!(!missing.outcome_unknown(), "{missing}");
    let elsewhere = Platform {
        architecture: "s390x".to_owned(),
        ..platform.clone()
    };
    let foreign = pull("team/app", &digest, &elsewhere).await;
    assert_eq!(foreign.kind(), PortErrorKind::Invalid, "{foreign}");
    assert!(foreign.message().contains("s390x"), "{foreign}");
    registry.stop();
    let image = pinned(&registry, "team/app", &digest);
    let away = engine
        .pull(&image, &platform, &NoProgress)
        .await
        .expect_err("the registry is away");
    assert!(away.is_transient() && !away.outcome_unknown(), "{away}");
    let reference = format!("{}@{digest}", image.image.familiar_repository());
    assert_eq!(engine.image(&reference).await.expect("asked"), None);
}

#[tokio::test]
async fn tags_move_and_go_without_taking_an_image_that_is_used() {
    let lab = Lab::new("tags");
    let one = lab.import("one:1", &Image::new("1", ""));
    let two = lab.import("two:1", &Image::new("2", ""));
    let engine = engine().await;
    let (first, second) = (image_id(&lab, &one), image_id(&lab, &two));
    let keep = lab.name("keep:x");
    for image in [&first, &first, &second] {
        engine.tag(image, &keep).await.expect("tagged");
        assert_eq!(
            engine
                .image(&keep)
                .await
                .expect("asked")
                .map(|image| image.id),
            Some(image.clone())
        );
    }
    for _ in 0..2 {
        engine.untag(&keep).await.expect("untagged");
    }
    assert_eq!(engine.image(&keep).await.expect("asked"), None);
    assert!(
        engine
            .image(second.as_str())
            .await
            .expect("asked")
            .is_some()
    );

    let web = lab.run("web").create(&one);
    let used = engine
        .untag(&one)
        .await
        .expect_err("the only name of a used image");
    assert_eq!(used.kind(), PortErrorKind::Conflict);
    assert_eq!(web.inspect()["Image"], first.as_str());

    let nobody = ImageId::new(format!("sha256:{}", "0".repeat(64))).expect("an id");
    assert_eq!(
        engine
            .tag(&nobody, &keep)
            .await
            .expect_err("no image")
            .kind(),
        PortErrorKind::NotFound
    );
    for bad in ["sha256:ab", "app@sha256:ab", "app"] {
        assert_eq!(
            engine.untag(bad).await.expect_err("no tag").kind(),
            PortErrorKind::Invalid,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_file_of_an_image_is_read_without_running_it_and_without_a_trace() {
    let lab = Lab::new("file");
    let news = br#"{"version":"2"}"#;
    let image = Image::new("1", "exit:1")
        .change("VOLUME /var/lib/app")
        .file("/news/latest.json", news.to_vec())
        .file("/var/lib/app/seed", "seed")
        .file("/large", vec![b'x'; 4096]);
    let id = image_id(&lab, &lab.import("app", &image));
    let engine = engine().await;
    let read = async |path, most| engine.file(&id, path, most).await;
    let found = read("/news/latest.json", 4096).await;
    assert_eq!(found.expect("a file").as_deref(), Some(&news[..]));
    for nothing in [
        "/no/such/file",
        "/news",
        "/proc/self/environ",
        "../../etc/shadow",
    ] {
        assert_eq!(
            read(nothing, 4096).await.expect("answered"),
            None,
            "{nothing}"
        );
    }
    let largest = read("/large", 4096).await.expect("just small enough");
    assert_eq!(largest.map(|bytes| bytes.len()), Some(4096));
    let refused = read("/large", 4095).await.expect_err("too large");
    assert_eq!(refused.kind(), PortErrorKind::Invalid);
    let (one, other) = tokio::join!(read("/large", 4096), read("/large", 4096));
    assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
    let reader = format!(
        "name=^fleet-reader-{}",
        &id.as_str()["sha256:".len()..][..12]
    );
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &reader]), "");
    let gone = ImageId::new(format!("sha256:{}", "ab".repeat(32))).expect("an id");
    let error = engine.file(&gone, "/large", 1).await.expect_err("no image");
    assert_eq!(error.kind(), PortErrorKind::NotFound);
}
