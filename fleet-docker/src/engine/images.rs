//! Images of the engine.

use async_trait::async_trait;
use fleet_core::ids::ImageId;
use fleet_core::image::PinnedImage;
use fleet_core::model::{ImageInfo, Platform};
use fleet_core::ports::{ImageStore, PortError, PortErrorKind, ProgressSink};
use serde_json::Value;

use super::DockerEngine;
use super::container::string_map;
use crate::json::{integer, text, texts};

#[async_trait]
impl ImageStore for DockerEngine {
    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, PortError> {
        self.image_raw(reference)
            .await?
            .as_ref()
            .map(info)
            .transpose()
    }

    async fn pull(
        &self,
        image: &PinnedImage,
        platform: &Platform,
        progress: &dyn ProgressSink,
    ) -> Result<ImageInfo, PortError> {
        self.pull_pinned(image, platform, progress).await
    }

    async fn tag(&self, image: &ImageId, reference: &str) -> Result<(), PortError> {
        self.set_tag(image, reference).await
    }

    async fn untag(&self, reference: &str) -> Result<(), PortError> {
        self.remove_tag(reference).await
    }

    async fn file(
        &self,
        image: &ImageId,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, PortError> {
        self.read_image_file(image, path, bytes_max).await
    }
}

/// The model of a raw inspect answer.
pub(super) fn info(raw: &Value) -> Result<ImageInfo, PortError> {
    let id = ImageId::new(text(&raw["Id"])).map_err(|source| {
        PortError::new(
            "read an image",
            PortErrorKind::Failed,
            "the engine's answer has no usable id",
        )
        .with_source(source)
    })?;
    Ok(ImageInfo {
        id,
        repo_digests: texts(&raw["RepoDigests"]),
        repo_tags: texts(&raw["RepoTags"]),
        platform: Platform {
            os: text(&raw["Os"]).to_owned(),
            architecture: text(&raw["Architecture"]).to_owned(),
            variant: text(&raw["Variant"]).to_owned(),
        },
        size_bytes: u64::try_from(integer(&raw["Size"])).unwrap_or(0),
        labels: string_map(&raw["Config"]["Labels"]),
    })
}
