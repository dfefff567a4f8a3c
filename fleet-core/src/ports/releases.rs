//! What a registry offers.

use async_trait::async_trait;

use super::PortError;
use crate::image::ImageRef;
use crate::model::{Platform, Release};

/// Answers "what is under this reference now?".
///
/// # Guarantees
/// The manifest's bytes are hashed by fleet and must match the digest. Credentials go to the configured host only.
/// Answers of one cycle for one (registry, repository, tag, platform) cost one request.
#[async_trait]
pub trait ReleaseSource: Send + Sync {
    /// Begins a new cycle: answers that were kept for the last one are given no more.
    fn begin_cycle(&self) {}

    /// The digest under a reference, cheaply (a HEAD where the registry answers it); for detection.
    ///
    /// # Errors
    /// As [`ReleaseSource::resolve`]. Every error means "unknown", never "up to date".
    async fn digest(&self, image: &ImageRef) -> Result<crate::image::Digest, PortError>;

    /// The release under a reference, for a platform, with its manifest read and hashed; for an update.
    ///
    /// # Errors
    /// [`super::PortErrorKind::NotFound`]: no such repository, tag, digest or platform. `Denied`: credentials.
    /// `RateLimited`, `Unreachable`, `Timeout`, `Failed`: later. `Corrupt`: bytes and digest differ.
    async fn resolve(&self, image: &ImageRef, platform: &Platform) -> Result<Release, PortError>;

    /// The tags of a repository.
    ///
    /// # Errors
    /// As [`ReleaseSource::resolve`].
    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, PortError>;
}
