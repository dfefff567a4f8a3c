//! Images as the engine has them, and releases as a registry offers them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::ImageId;
use crate::image::{Digest, PinnedImage};
use crate::time::Timestamp;

/// Operating system and architecture, in the words of the image specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// For instance `linux`.
    pub os: String,
    /// For instance `amd64`.
    pub architecture: String,
    /// For instance `v8`; empty where there is none.
    #[serde(default)]
    pub variant: String,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Id.
    pub id: ImageId,
    /// `repository@digest` entries; they accumulate, their order means nothing.
    pub repo_digests: Vec<String>,
    /// `repository:tag` entries.
    pub repo_tags: Vec<String>,
    /// Platform it is for.
    pub platform: Platform,
    /// Bytes on the engine's disk.
    pub size_bytes: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An immutable target: what a registry (or the engine's own image store) offers under a reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Repository, tag and the digest that is pulled and recorded. For the local source the digest is the image id.
    pub image: PinnedImage,
    /// Digest of the manifest for the engine's platform; equal to `image.digest` where there is no index.
    pub platform_digest: Digest,
    /// Digest of the image config, which in the classic image store is the image id; none if not fetched.
    pub config_digest: Option<Digest>,
    /// The image in the engine, for the local source: nothing is pulled.
    pub local: Option<ImageId>,
    /// When the registry says that it was pushed, if it says so.
    pub pushed_at: Option<Timestamp>,
    /// Bytes to pull at most, summed over the layers; 0 if not known.
    pub size_bytes: u64,
    /// OCI annotations and image labels (`org.opencontainers.image.*`). Hostile text.
    pub annotations: BTreeMap<String, String>,
}
