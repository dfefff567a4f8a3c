//! Detection as a whole, over ports that count.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;

use super::subject::tests::{digest, id, subject};
use super::*;
use crate::ids::ImageId;
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::model::labels::TagPolicy;
use crate::model::{ImageInfo, Platform, Release};
use crate::ports::{
    Availability, ImageStore, PortError, PortErrorKind, ProgressSink, ReleaseSource,
};
use crate::time::Timestamp;

/// A registry and an engine's image store, both maps.
#[derive(Default)]
struct World {
    tags: BTreeMap<String, Release>,
    by_digest: BTreeMap<Digest, Release>,
    images: BTreeMap<String, ImageInfo>,
    down: Option<PortErrorKind>,
    heads: AtomicUsize,
    resolves: AtomicUsize,
    lists: AtomicUsize,
    looks: AtomicUsize,
    cycles: Mutex<u32>,
}

impl World {
    fn publish(&mut self, image: &str, name: &str) -> Release {
        self.publish_as(image, name, name, name)
    }

    /// Publishes under a tag what has these names for its index, manifest and config.
    fn publish_as(&mut self, image: &str, index: &str, manifest: &str, config: &str) -> Release {
        let reference: ImageRef = image.parse().unwrap();
        let release = Release {
            image: reference.pinned(digest(&format!("index {index}"))),
            platform_digest: digest(&format!("manifest {manifest}")),
            config_digest: Some(digest(&format!("config {config}"))),
            local: None,
            pushed_at: None,
            size_bytes: 1,
            annotations: BTreeMap::new(),
        };
        self.tags.insert(reference.to_string(), release.clone());
        self.by_digest
            .insert(release.image.digest.clone(), release.clone());
        release
    }

    /// Puts a release into the engine as a pull does, and returns the id that containers made from it have.
    fn hold(&mut self, release: &Release, store: Store) -> ImageId {
        let id = match store {
            Store::Classic => release.config_digest.clone().unwrap(),
            Store::Containerd => release.image.digest.clone(),
        };
        let id = ImageId::new(id.as_str()).unwrap();
        let info = ImageInfo {
            id: id.clone(),
            repo_digests: vec![release.image.by_digest()],
            repo_tags: Vec::new(),
            platform: amd64(),
            size_bytes: 1,
            labels: BTreeMap::new(),
        };
        self.images.insert(id.to_string(), info);
        id
    }

    fn answer(&self) -> Result<(), PortError> {
        match self.down {
            Some(kind) => Err(PortError::new("ask the registry", kind, "no").with_source("cause")),
            None => Ok(()),
        }
    }

    fn asked(&self) -> [usize; 4] {
        [&self.heads, &self.resolves, &self.lists, &self.looks].map(|n| n.load(Ordering::SeqCst))
    }
}

#[derive(Debug, Clone, Copy)]
enum Store {
    Classic,
    Containerd,
}

fn unknown_manifest(image: &ImageRef) -> PortError {
    PortError::new(
        "ask the registry",
        PortErrorKind::NotFound,
        format!("no {image}"),
    )
}

#[async_trait]
impl ReleaseSource for World {
    fn begin_cycle(&self) {
        *self.cycles.lock().unwrap() += 1;
    }

    async fn digest(&self, image: &ImageRef) -> Result<Digest, PortError> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        self.answer()?;
        if let Some(digest) = image.digest() {
            return Ok(digest.clone());
        }
        let release = self.tags.get(&image.to_string());
        release
            .map(|r| r.image.digest.clone())
            .ok_or_else(|| unknown_manifest(image))
    }

    async fn resolve(&self, image: &ImageRef, _: &Platform) -> Result<Release, PortError> {
        self.resolves.fetch_add(1, Ordering::SeqCst);
        self.answer()?;
        let digest = image
            .digest()
            .expect("detection resolves by digest, never by a tag");
        let release = self
            .by_digest
            .get(digest)
            .ok_or_else(|| unknown_manifest(image))?;
        Ok(Release {
            image: image.pinned(digest.clone()),
            ..release.clone()
        })
    }

    async fn tags(&self, _: &ImageRef) -> Result<Vec<String>, PortError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.answer()?;
        Ok(self
            .tags
            .values()
            .filter_map(|r| r.image.image.tag().map(str::to_owned))
            .collect())
    }
}

#[async_trait]
impl ImageStore for World {
    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, PortError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        Ok(self.images.get(reference).cloned())
    }

    async fn pull(
        &self,
        _: &PinnedImage,
        _: &Platform,
        _: &dyn ProgressSink,
    ) -> Result<ImageInfo, PortError> {
        unreachable!("detection never pulls")
    }

    async fn tag(&self, _: &ImageId, _: &str) -> Result<(), PortError> {
        unreachable!("detection never tags")
    }

    async fn untag(&self, _: &str) -> Result<(), PortError> {
        unreachable!("detection never untags")
    }

    async fn file(&self, _: &ImageId, _: &str, _: usize) -> Result<Option<Vec<u8>>, PortError> {
        unreachable!("detection reads no files")
    }
}

fn amd64() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: String::new(),
    }
}

fn now() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

async fn ask(world: &World, subjects: &[Subject], known: &Known) -> Vec<Finding> {
    check_all(world, world, &amd64(), subjects, known, now()).await
}

async fn ask_one(world: &World, subject: &Subject) -> Finding {
    ask(world, std::slice::from_ref(subject), &Known::new())
        .await
        .remove(0)
}

fn made_from(name: &str, image: &str, id: &ImageId) -> Subject {
    Subject {
        image_id: id.clone(),
        ..subject(name, image, "")
    }
}

#[tokio::test]
async fn ten_thousand_instances_of_ten_references_ask_ten_questions() {
    let mut world = World::default();
    let mut subjects = Vec::new();
    for app in 0..10 {
        let image = format!("r.io/app{app}:1");
        let release = world.publish(&image, &format!("app {app}"));
        let id = world.hold(&release, Store::Classic);
        let names = (0..1000).map(|n| format!("app{app}-{n}"));
        subjects.extend(names.map(|name| made_from(&name, &image, &id)));
    }
    let findings = ask(&world, &subjects, &Known::new()).await;
    assert_eq!(findings.len(), 10_000);
    assert!(
        findings
            .iter()
            .all(|finding| finding.verdict == Verdict::UpToDate)
    );
    assert_eq!(world.asked(), [10, 0, 0, 10]);
    assert_eq!(*world.cycles.lock().unwrap(), 1);

    for app in 0..10 {
        world.publish(&format!("r.io/app{app}:1"), &format!("app {app} b"));
    }
    let findings = ask(&world, &subjects, &Known::new()).await;
    assert!(findings.iter().all(Finding::is_offered));
    assert_eq!(world.asked(), [20, 10, 0, 20]);
}

#[tokio::test]
async fn a_change_is_offered_with_the_release_that_was_verified() {
    let mut world = World::default();
    let old = world.publish("r.io/app:1", "1");
    let id = world.hold(&old, Store::Classic);
    let new = world.publish("r.io/app:1", "2");
    let finding = ask_one(&world, &made_from("web", "r.io/app:1", &id)).await;
    assert_eq!(finding.verdict, Verdict::Offered);
    assert_eq!(finding.digest.as_ref(), Some(&new.image.digest));
    assert_eq!(*finding.release.clone().unwrap(), new);
    let stored = finding.availability().unwrap();
    assert_eq!((stored.behind, stored.note), (Some(true), None));
}

#[tokio::test]
async fn what_cannot_be_asked_is_unknown_with_its_cause_and_never_up_to_date() {
    let mut world = World::default();
    let release = world.publish("r.io/app:1", "1");
    let id = world.hold(&release, Store::Classic);
    let web = made_from("web", "r.io/app:1", &id);
    for kind in [
        PortErrorKind::Denied,
        PortErrorKind::Unreachable,
        PortErrorKind::RateLimited { retry_after: None },
        PortErrorKind::Failed,
    ] {
        world.down = Some(kind);
        let stored = ask_one(&world, &web).await.availability().unwrap();
        assert_eq!((stored.behind, stored.digest), (None, None));
        assert_eq!(
            stored.note.as_deref(),
            Some("failed to ask the registry: no: cause")
        );
    }
    world.down = None;
    let gone = made_from("gone", "r.io/gone:1", &id);
    let findings = ask(&world, &[gone, web], &Known::new()).await;
    assert!(matches!(findings[0].verdict, Verdict::Unknown(_)));
    assert_eq!(
        findings[1].verdict,
        Verdict::UpToDate,
        "one question never fails another"
    );
}

#[tokio::test]
async fn a_tag_policy_offers_the_newest_version_and_lists_a_repository_once() {
    let mut world = World::default();
    let old = world.publish("r.io/app:1.2.0", "1.2.0");
    let id = world.hold(&old, Store::Classic);
    world.publish("r.io/app:1.3.0", "1.3.0");
    world.publish("r.io/app:2.0.0", "2.0.0");
    let follow = |name: &str, tag_policy| Subject {
        tag_policy,
        ..made_from(name, "r.io/app:1.2.0", &id)
    };
    let subjects = [
        follow("a", TagPolicy::Digest),
        follow("b", TagPolicy::Minor),
        follow("c", TagPolicy::Major),
        Subject {
            tag_exclude: Some("^2".to_owned()),
            ..follow("d", TagPolicy::Major)
        },
        Subject {
            tag_include: Some("(".to_owned()),
            ..follow("e", TagPolicy::Major)
        },
    ];
    let findings = ask(&world, &subjects, &Known::new()).await;
    let asked: Vec<_> = findings
        .iter()
        .map(|f| f.image.as_ref().unwrap().to_string())
        .collect();
    let expect = ["1.2.0", "1.3.0", "2.0.0", "1.3.0", "1.2.0"].map(|tag| format!("r.io/app:{tag}"));
    assert_eq!(asked, expect);
    assert_eq!(findings[0].verdict, Verdict::UpToDate);
    assert!(findings[1..4].iter().all(Finding::is_offered));
    assert!(matches!(&findings[4].verdict, Verdict::Unknown(why) if why.contains("tag.include")));
    assert_eq!(world.asked()[2], 1);
}

#[tokio::test]
async fn the_local_source_follows_the_engines_own_tag() {
    let mut world = World::default();
    let (old, new) = (id("old"), id("new"));
    let info = |id: &ImageId| ImageInfo {
        id: id.clone(),
        repo_digests: Vec::new(),
        repo_tags: Vec::new(),
        platform: amd64(),
        size_bytes: 1,
        labels: BTreeMap::new(),
    };
    world.images.insert("app:1".to_owned(), info(&old));
    let local = Subject {
        local_source: true,
        ..made_from("web", "app:1", &old)
    };
    assert_eq!(ask_one(&world, &local).await.verdict, Verdict::UpToDate);
    world.images.insert("app:1".to_owned(), info(&new));
    let finding = ask_one(&world, &local).await;
    assert!(finding.is_offered());
    assert_eq!(finding.release.unwrap().local, Some(new));
    world.images.clear();
    assert!(matches!(
        ask_one(&world, &local).await.verdict,
        Verdict::Unknown(_)
    ));
    assert_eq!(world.asked()[..3], [0, 0, 0], "no registry is asked");
}

#[tokio::test]
async fn a_held_release_is_stored_as_behind_with_a_reason() {
    let mut world = World::default();
    let old = world.publish("r.io/app:1", "1");
    let id = world.hold(&old, Store::Classic);
    let new = world.publish("r.io/app:1", "2");
    let web = made_from("web", "r.io/app:1", &id);
    let patient = Subject {
        min_age: Some(Duration::from_secs(3600)),
        ..web.clone()
    };
    let young = ask_one(&world, &patient).await.availability().unwrap();
    assert_eq!(young.behind, Some(true));
    assert!(young.note.unwrap().contains("until 2026-01-31T13:00:00Z"));

    let seen = |first_seen| Availability {
        instance: subject("other", "r.io/app:1", "").instance,
        image: "r.io/app:1".parse().unwrap(),
        digest: Some(new.image.digest.clone()),
        behind: Some(true),
        note: None,
        first_seen,
        checked_at: now(),
        lag: None,
    };
    let hours_ago = now().saturating_sub(Duration::from_secs(7200));
    let rows = [seen(now()), seen(hours_ago)];
    let known = Known::new().with_findings(&rows);
    let findings = ask(&world, &[patient], &known).await;
    assert!(
        findings[0].is_offered(),
        "another instance saw it two hours ago"
    );
    assert_eq!(findings[0].first_seen, hours_ago);
}

#[tokio::test]
async fn detection_can_be_spawned() {
    fn needs_send<T: Send>(future: T) -> T {
        future
    }
    let world = World::default();
    let known = Known::new();
    let platform = amd64();
    let future = check(&world, &world, &platform, &[], &known, now());
    assert!(needs_send(future).await.is_empty());
}

fn any_store() -> impl Strategy<Value = Store> {
    prop_oneof![Just(Store::Classic), Just(Store::Containerd)]
}

proptest! {
    /// Whatever changes around the image, an update is offered if and only if its config differs.
    #[test]
    fn an_update_is_offered_if_and_only_if_another_image_would_run(
        store in any_store(),
        before in [0u8..3, 0u8..3, 0u8..3],
        after in [0u8..3, 0u8..3, 0u8..3],
    ) {
        // An index names its manifests and a manifest its config, so a digest can only stay where all below it do.
        let names = |[index, manifest, config]: [u8; 3]| {
            let config = format!("{config}");
            let manifest = format!("{manifest}/{config}");
            (format!("{index}/{manifest}"), manifest, config)
        };
        let mut world = World::default();
        let (index, manifest, config) = names(before);
        let old = world.publish_as("r.io/app:1", &index, &manifest, &config);
        let id = world.hold(&old, store);
        let (index, manifest, config) = names(after);
        world.publish_as("r.io/app:1", &index, &manifest, &config);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let finding = runtime.block_on(ask_one(&world, &made_from("web", "r.io/app:1", &id)));
        let expect = if before[2] == after[2] { Verdict::UpToDate } else { Verdict::Offered };
        prop_assert_eq!(finding.verdict, expect);
    }
}
