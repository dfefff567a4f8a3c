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

    /// The content of one regular file of an image, read without anything of the image being run and without a trace
    /// being left. None where there is no such file, or something else of that name. What an image holds below a
    /// volume that it declares may be taken for not there.
    ///
    /// # Errors
    /// The image does not exist, the file is larger than `bytes_max` ([`super::PortErrorKind::Invalid`]), or the
    /// engine cannot be asked.
    async fn file(
        &self,
        image: &ImageId,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, PortError>;
}
