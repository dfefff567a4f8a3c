//! What every test of this binary needs.

use fleet_core::ids::{ContainerId, ImageId, UpdateId};
use fleet_core::model::FrozenSpec;
use fleet_core::ports::{
    CandidateRequest, ContainerRuntime as _, CreateRequest, Created, PortError, Repoint,
    RestoreRequest,
};
use fleet_core::time::Timestamp;
use fleet_docker::recreate::{By, Difference, Spec, spec_diff};
use fleet_docker::{ConnectOptions, DockerEngine};
use fleet_testkit::{Container, Image, Lab};
use serde_json::Value;

/// A connection to the engine of this machine.
pub(crate) async fn engine() -> DockerEngine {
    match DockerEngine::connect(&ConnectOptions::default()).await {
        Ok(engine) => engine,
        Err(error) => panic!("these tests need a running engine: {error}"),
    }
}

/// The id of a container of the kit's.
pub(crate) fn id(container: &Container) -> ContainerId {
    ContainerId::new(container.id.clone()).expect("the kit gives full ids")
}

/// The id of an image.
pub(crate) fn image_id(lab: &Lab, reference: &str) -> ImageId {
    ImageId::new(lab.image_id(reference)).expect("an image id")
}

/// An update id of this process's own.
pub(crate) fn update_id(seed: u8) -> UpdateId {
    let mut random = [seed; 10];
    random[2..6].copy_from_slice(&std::process::id().to_le_bytes());
    UpdateId::new(Timestamp::from_millis(1_800_000_000_000), random)
}

/// Makes a candidate as an update would.
pub(crate) async fn candidate(
    engine: &DockerEngine,
    frozen: &FrozenSpec,
    image_id: &ImageId,
    image: &str,
    name: &str,
    repoint: Vec<Repoint>,
) -> Result<Created, PortError> {
    let request = CandidateRequest {
        update: update_id(1),
        name: name.to_owned(),
        frozen: frozen.clone(),
        image_id: image_id.clone(),
        image: image.to_owned(),
        repoint,
    };
    engine
        .create(&CreateRequest::Candidate(Box::new(request)))
        .await
}

/// An old and a new image that differ in everything that an image can say.
pub(crate) fn images(lab: &Lab) -> (String, String) {
    let old = Image::new("1", "")
        .env("SHARED", "old")
        .env("GONE", "x")
        .label("org.version", "1")
        .label("org.gone", "x")
        .change("CMD [\"serve\"]")
        .change("USER 1000")
        .change("WORKDIR /old")
        .change("EXPOSE 9000")
        .change("HEALTHCHECK --interval=11s --retries=3 CMD [\"/app\", \"old\"]");
    let new = Image::new("2", "")
        .env("SHARED", "new")
        .env("ADDED", "y")
        .label("org.version", "2")
        .label("org.added", "y")
        .change("CMD [\"run\"]")
        .change("USER 2000")
        .change("WORKDIR /new")
        .change("EXPOSE 9001")
        .change("HEALTHCHECK --interval=22s --timeout=5s CMD [\"/app\", \"new\"]");
    let old = lab.import("old-base", &old);
    let new = lab.import("new-base", &new);
    (
        derive(
            lab,
            "old:1",
            &old,
            "STOPSIGNAL SIGINT\nSHELL [\"/old-shell\"]\n",
        ),
        derive(
            lab,
            "new:2",
            &new,
            "STOPSIGNAL SIGQUIT\nSHELL [\"/new-shell\"]\n",
        ),
    )
}

/// An image made from another by instructions that the engine's import call does not know.
fn derive(lab: &Lab, name: &str, from: &str, instructions: &str) -> String {
    let reference = lab.name(name);
    let mut build = std::process::Command::new("docker")
        .args(["build", "--quiet", "--tag", &reference, "-"])
        .env("DOCKER_BUILDKIT", "0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("docker runs");
    let file = format!("FROM {from}\n{instructions}");
    let mut stdin = build.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, file.as_bytes()).expect("docker reads");
    drop(stdin);
    assert!(
        build.wait().expect("docker ends").success(),
        "{reference} cannot be built"
    );
    reference
}

/// A container as the frozen form says, made again after somebody removed it, as the engine shows it.
pub(crate) async fn made_again(engine: &DockerEngine, frozen: &FrozenSpec, name: &str) -> Value {
    let request = RestoreRequest {
        update: update_id(1),
        name: name.to_owned(),
        frozen: frozen.clone(),
        repoint: Vec::new(),
    };
    let request = CreateRequest::Restore(Box::new(request));
    let made = engine.create(&request).await.expect("made again").id;
    let after = engine.freeze(&made).await.expect("frozen");
    let spec = |frozen: &FrozenSpec| Spec::of(frozen).expect("read");
    for difference in spec_diff(&spec(frozen), &spec(&after)) {
        assert!(
            difference.is_expected() && difference.by == By::Fleet,
            "{difference}"
        );
    }
    let shown = fleet_testkit::docker_json(&["container", "inspect", made.as_str()]);
    engine.remove(&made).await.expect("removed");
    shown
}

/// A container and the one made in its place, as the engine shows them.
pub(crate) struct Updated {
    pub(crate) old: Value,
    pub(crate) new: Value,
    pub(crate) created: Created,
}

/// Makes a candidate for a container and gives both as the engine shows them.
pub(crate) async fn update(engine: &DockerEngine, lab: &Lab, web: &Container, to: &str) -> Updated {
    let frozen = engine.freeze(&id(web)).await.expect("frozen");
    let name = format!("{}.fleet-c", web.name);
    let announced = engine.preview(&frozen, to, to).await.expect("previewed");
    let created = candidate(engine, &frozen, &image_id(lab, to), to, &name, Vec::new())
        .await
        .expect("created");
    let after = engine.freeze(&created.id).await.expect("frozen");
    let differences = spec_diff(
        &Spec::of(&frozen).expect("read"),
        &Spec::of(&after).expect("read"),
    );
    for difference in &differences {
        assert!(difference.is_expected(), "{difference}");
    }
    // What was announced is what came, in the same fields; the update's id is the request's.
    let fields = |differences: &[Difference]| -> Vec<String> {
        differences
            .iter()
            .map(|difference| difference.field.clone())
            .collect()
    };
    assert_eq!(fields(&announced), fields(&differences));
    Updated {
        old: web.inspect(),
        new: fleet_testkit::docker_json(&["container", "inspect", created.id.as_str()]),
        created,
    }
}
