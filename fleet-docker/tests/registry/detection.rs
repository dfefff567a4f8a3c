//! Detection over the real client: how many questions it asks, and that nothing but another image is an update.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use fleet_core::detect::{Finding, Known, Subject, Verdict, check_all};
use fleet_core::ids::{ImageId, InstanceId, InstanceName};
use fleet_core::image::{Digest, PinnedImage};
use fleet_core::model::labels::TagPolicy;
use fleet_core::model::{Channel, ImageInfo, Platform};
use fleet_core::ports::{Availability, ImageStore, PortError, ProgressSink, ReleaseSource};
use fleet_core::time::Timestamp;

use crate::mock::{Server, Shelf, status};
use crate::server::{Demand, Registry, run};
use crate::support::{
    Image, amd64, attestation_entry, client, index, index_of, options, reference,
};

/// The image store of an engine: what was "pulled" into it.
#[derive(Default)]
struct Engine(Mutex<BTreeMap<String, ImageInfo>>);

impl Engine {
    /// Does as the classic store does after a pull: the id is the config's digest.
    fn hold(&self, image: &Image, repo_digest: String) -> ImageId {
        let id = ImageId::new(image.config_digest.as_str()).unwrap();
        let info = ImageInfo {
            id: id.clone(),
            repo_digests: vec![repo_digest],
            repo_tags: Vec::new(),
            platform: amd64(),
            size_bytes: 1,
            labels: BTreeMap::new(),
        };
        self.0.lock().unwrap().insert(id.to_string(), info);
        id
    }
}

#[async_trait]
impl ImageStore for Engine {
    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, PortError> {
        Ok(self.0.lock().unwrap().get(reference).cloned())
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

fn subject(name: &str, image: &str, image_id: &ImageId) -> Subject {
    Subject {
        instance: InstanceId::local(InstanceName::new(name).unwrap()),
        channel: Channel::default(),
        image: image.to_owned(),
        image_id: image_id.clone(),
        local_source: false,
        tag_policy: TagPolicy::Digest,
        tag_include: None,
        tag_exclude: None,
        pin: None,
        min_age: None,
    }
}

async fn ask(releases: &dyn ReleaseSource, engine: &Engine, subjects: &[Subject]) -> Vec<Finding> {
    let now = Timestamp::from_millis(1_800_000_000_000);
    check_all(releases, engine, &amd64(), subjects, &Known::new(), now).await
}

#[tokio::test]
async fn ten_thousand_instances_of_ten_references_cost_ten_heads_a_cycle() {
    let (shelf, engine) = (Shelf::default(), Engine::default());
    let server = Server::start({
        let shelf = shelf.clone();
        move |request| shelf.answer(request)
    })
    .await;
    let mut subjects = Vec::new();
    for version in 0..10 {
        let image = Image::new("amd64", &version.to_string());
        shelf.put(&format!("v{version}"), &image);
        let repository = format!("{}/team/app", server.name);
        let id = engine.hold(&image, format!("{repository}@{}", image.digest()));
        let reference = format!("{repository}:v{version}");
        let names = (0..1000).map(|n| format!("app{version}-{n}"));
        subjects.extend(names.map(|name| subject(&name, &reference, &id)));
    }
    let client = client(options());
    for cycle in 1..=3 {
        let findings = ask(&client, &engine, &subjects).await;
        assert_eq!(findings.len(), 10_000);
        assert!(
            findings
                .iter()
                .all(|finding| finding.verdict == Verdict::UpToDate)
        );
        let asked = server.requests().await;
        assert_eq!(asked.len(), 10 * cycle);
        assert!(
            asked
                .iter()
                .all(|request| request.method.as_str() == "HEAD")
        );
    }
}

#[tokio::test]
async fn a_registry_that_refuses_makes_everything_unknown_and_nothing_up_to_date() {
    let (engine, image) = (Engine::default(), Image::new("amd64", "1"));
    for code in [401, 403, 404, 429, 500] {
        let server = Server::start(move |_| status(code)).await;
        let repository = format!("{}/app", server.name);
        let id = engine.hold(&image, format!("{repository}@{}", image.digest()));
        let subjects = [subject("web", &format!("{repository}:1"), &id)];
        let findings = ask(&client(options()), &engine, &subjects).await;
        let stored: Availability = findings[0].availability().unwrap();
        assert_eq!(stored.behind, None, "{code}");
        assert!(
            stored.note.unwrap().contains("failed to ask the registry"),
            "{code}"
        );
    }
}

/// A repository with an index for two platforms under the tag `1`, and an engine that runs its amd64 image.
struct Scene {
    registry: Registry,
    engine: Engine,
    images: [Image; 2],
    subjects: [Subject; 1],
}

impl Scene {
    async fn set() -> Self {
        let registry = Registry::start(Demand::Nothing).await;
        let engine = Engine::default();
        let images = [Image::new("amd64", "1"), Image::new("arm64", "1")];
        let document = index(&[&images[0], &images[1]]);
        registry
            .push_index("app", "1", &[&images[0], &images[1]], &document)
            .await;
        let repository = format!("{}/app", registry.name);
        let id = engine.hold(
            &images[0],
            format!("{repository}@{}", Digest::of(&document)),
        );
        let subjects = [subject("web", &format!("{repository}:1"), &id)];
        Self {
            registry,
            engine,
            images,
            subjects,
        }
    }

    #[track_caller]
    fn check(&self, findings: &[Finding], expect: &Verdict, what: &str) {
        assert_eq!(&findings[0].verdict, expect, "{what}");
    }

    async fn expect(&self, expect: Verdict, what: &str) {
        // A client of its own each time: nothing remembered helps.
        let findings = ask(&client(options()), &self.engine, &self.subjects).await;
        self.check(&findings, &expect, what);
    }

    fn skopeo(&self, from: &str, to: &str, more: &[&str]) {
        let address = |rest: &str| format!("docker://{}/{rest}", self.registry.name);
        let (from, to) = (address(from), address(to));
        let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        let copy = [
            &["--insecure-policy", "copy"],
            &plain[..],
            more,
            &[&from, &to],
        ]
        .concat();
        run("skopeo", &copy);
    }
}

#[tokio::test]
async fn nothing_but_another_image_is_an_update() {
    let scene = Scene::set().await;
    let [amd, arm] = &scene.images;
    scene.expect(Verdict::UpToDate, "as pulled").await;

    scene.skopeo("app:1", "app:copy", &["--all", "--preserve-digests"]);
    scene.skopeo("app:copy", "app:1", &["--all", "--preserve-digests"]);
    scene
        .expect(Verdict::UpToDate, "the index copied and tagged again")
        .await;

    scene.registry.push("app", Some("1"), amd).await;
    scene
        .expect(Verdict::UpToDate, "the image alone, without its index")
        .await;

    let proof = Image::new("unknown", "provenance");
    let attested = index_of(vec![
        amd.entry(),
        arm.entry(),
        attestation_entry(&proof, amd),
    ]);
    scene
        .registry
        .push_index("app", "1", &[amd, arm, &proof], &attested)
        .await;
    scene
        .expect(Verdict::UpToDate, "an attestation added")
        .await;

    let other_arm = Image::new("arm64", "2");
    let half = index(&[amd, &other_arm]);
    scene
        .registry
        .push_index("app", "1", &[amd, &other_arm], &half)
        .await;
    scene
        .expect(Verdict::UpToDate, "another platform changed")
        .await;

    scene.skopeo(
        "app:1",
        "app:1",
        &["--format", "v2s2", "--dest-compress-format", "gzip"],
    );
    scene
        .expect(
            Verdict::UpToDate,
            "converted to Docker's types, layers compressed anew",
        )
        .await;

    let changed = Image::new("amd64", "2");
    let new = index(&[&changed, arm]);
    scene
        .registry
        .push_index("app", "1", &[&changed, arm], &new)
        .await;
    scene.expect(Verdict::Offered, "a real change").await;

    let only_arm = index(&[arm]);
    scene
        .registry
        .push_index("app", "1", &[arm], &only_arm)
        .await;
    let findings = ask(&client(options()), &scene.engine, &scene.subjects).await;
    let Verdict::Unknown(why) = &findings[0].verdict else {
        panic!("expected Unknown, found {:?}", findings[0].verdict);
    };
    assert!(why.contains("linux/amd64"), "{why}");
}

#[tokio::test]
async fn digests_are_those_that_skopeo_computes() {
    let scene = Scene::set().await;
    let image = reference(&scene.registry.name, "app:1");
    let ours = client(options()).resolve(&image, &amd64()).await.unwrap();
    let address = format!("docker://{image}");
    let inspect = [
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &address,
    ];
    let theirs = run("skopeo", &inspect);
    assert_eq!(ours.image.digest.as_str(), theirs.trim());
    let raw = run(
        "skopeo",
        &["inspect", "--tls-verify=false", "--raw", &address],
    );
    assert_eq!(Digest::of(raw.as_bytes()), ours.image.digest);
}
