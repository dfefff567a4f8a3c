//! Images of one engine.

use async_trait::async_trait;

use super::{PortError, ProgressSink};
use crate::ids::ImageId;
use crate::image::PinnedImage;
use crate::model::{ImageInfo, Platform};

/// The engine's image store.
#[async_trait]
pub trait ImageStore: Send + Sync {
    /// The image under a reference (`repository:tag`, `repository@digest`) or id; none if the engine does not have it.
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, PortError>;

    /// Pulls by digest, reading every item of the stream, then inspects. Returns the id that will run.
    ///
    /// # Errors
    /// Any error inside the stream, a stream that ends without the image being there, another platform than
    /// `platform` ([`super::PortErrorKind::Invalid`]), no space, no registry.
    async fn pull(
        &self,
        image: &PinnedImage,
        platform: &Platform,
        progress: &dyn ProgressSink,
    ) -> Result<ImageInfo, PortError>;

    /// Points a local tag at an image. Sets an absolute state: may be repeated.
    ///
    /// # Errors
    /// The image does not exist, or the engine cannot be asked.
    async fn tag(&self, image: &ImageId, reference: &str) -> Result<(), PortError>;

    /// Removes a local tag, never the image of a container. A tag that is not there is fine.
    ///
    /// # Errors
    /// The engine cannot be asked.
    async fn untag(&self, reference: &str) -> Result<(), PortError>;
}
