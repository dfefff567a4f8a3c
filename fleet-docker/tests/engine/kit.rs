//! What every test of this binary needs.

use fleet_core::ids::{ContainerId, ImageId, UpdateId};
use fleet_core::model::FrozenSpec;
use fleet_core::ports::{
    CandidateRequest, ContainerRuntime as _, CreateRequest, Created, PortError, Repoint,
};
use fleet_core::time::Timestamp;
use fleet_docker::{ConnectOptions, DockerEngine};
use fleet_testkit::{Container, Lab};

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
