//! Signatures of images.

use async_trait::async_trait;

use super::PortError;
use crate::image::PinnedImage;

/// Answers "may this image be trusted?" from its signatures.
///
/// # Guarantees
/// Fails closed: only a signature that was checked and holds is `Ok`. A verifier that cannot be run or asked is an
/// error, never a yes. What was verified is the digest, so nothing that moves a tag afterwards matters.
#[async_trait]
pub trait ImageVerifier: Send + Sync {
    /// Verifies the signatures of an image at its digest.
    ///
    /// # Errors
    /// [`super::PortErrorKind::Denied`]: no signature that holds. Anything else: it could not be told, which counts as
    /// no.
    async fn verify(&self, image: &PinnedImage) -> Result<(), PortError>;
}
