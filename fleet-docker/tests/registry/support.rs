//! Images made of a few bytes, and a client with short waits.

use std::sync::Once;
use std::time::Duration;

use fleet_core::image::{Digest, ImageRef};
use fleet_core::model::Platform;
use fleet_docker::registry::{DockerConfig, RegistryClient, RegistryOptions};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Options for tests: short waits, no jitter, nobody's real credentials.
pub(crate) fn options() -> RegistryOptions {
    RegistryOptions {
        docker_config: DockerConfig::Ignore,
        request_timeout: Duration::from_secs(10),
        backoff_min: Duration::from_millis(1),
        jitter: false,
        patience: Duration::from_millis(50),
        requests_per_second: 10_000,
        ..RegistryOptions::default()
    }
}

pub(crate) fn client(options: RegistryOptions) -> RegistryClient {
    install_provider();
    RegistryClient::new(options).unwrap()
}

/// What the binary does in its `main`.
pub(crate) fn install_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("the test installs the only provider");
    });
}

pub(crate) fn amd64() -> Platform {
    platform("amd64")
}

pub(crate) fn platform(architecture: &str) -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: String::new(),
    }
}

pub(crate) fn reference(registry: &str, rest: &str) -> ImageRef {
    format!("{registry}/{rest}").parse().unwrap()
}

/// An image: its manifest, and the blobs that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) config_digest: Digest,
    architecture: String,
}

impl Image {
    pub(crate) fn new(architecture: &str, content: &str) -> Self {
        let layer = content.as_bytes().to_vec();
        let config = json!({
            "os": "linux", "architecture": architecture,
            "config": {"Labels": {"org.opencontainers.image.version": content}},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).as_str()]},
        })
        .to_string()
        .into_bytes();
        let config_digest = Digest::of(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config),
            "layers": [descriptor(OCI_LAYER, &layer)],
        })
        .to_string()
        .into_bytes();
        Self {
            manifest,
            blobs: vec![layer, config],
            config_digest,
            architecture: architecture.to_owned(),
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(crate) fn entry(&self) -> Value {
        let mut entry = descriptor(OCI_MANIFEST, &self.manifest);
        entry["platform"] = json!({"os": "linux", "architecture": self.architecture});
        entry
    }
}

/// An index of these images.
pub(crate) fn index(images: &[&Image]) -> Vec<u8> {
    index_of(images.iter().map(|image| image.entry()).collect())
}

pub(crate) fn index_of(entries: Vec<Value>) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        .to_string()
        .into_bytes()
}

/// The entry of a build attestation about an image.
pub(crate) fn attestation_entry(attestation: &Image, about: &Image) -> Value {
    let mut entry = descriptor(OCI_MANIFEST, &attestation.manifest);
    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    entry["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": about.digest().as_str(),
    });
    entry
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()})
}
