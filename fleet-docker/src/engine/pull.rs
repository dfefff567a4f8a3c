//! Pulling by digest, believing nothing until the image is seen.
//!
//! The engine answers 200 before it asks the registry; everything that goes wrong afterwards is an item of the stream.
//! So every item is read, and at the end the image is looked for under its digest.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use bollard::query_parameters::RemoveImageOptionsBuilder;
use fleet_core::image::PinnedImage;
use fleet_core::model::{ImageInfo, Platform};
use fleet_core::ports::{PortError, PortErrorKind, Progress, ProgressSink};
use serde_json::Value;

use super::{DockerEngine, WORK_LIMIT, images, limited};
use crate::error;
use crate::json::text;
use crate::registry::for_engine;

const OP: &str = "pull an image";
/// Longest wait for the engine to begin its answer: it asks the registry first.
const HEAD_LIMIT: Duration = Duration::from_secs(120);
/// Longest silence within the stream. Large layers are unpacked without a word.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

impl DockerEngine {
    pub(super) async fn pull_pinned(
        &self,
        image: &PinnedImage,
        platform: &Platform,
        progress: &dyn ProgressSink,
    ) -> Result<ImageInfo, PortError> {
        let repository = image.image.familiar_repository();
        let reference = format!("{repository}@{}", image.digest);
        if let Some(found) = self.image_raw(&reference).await? {
            return expect_platform(images::info(&found)?, platform);
        }
        let digest = image.digest.to_string();
        let wanted = platform_text(platform);
        let query = [
            ("fromImage", repository.as_str()),
            ("tag", digest.as_str()),
            ("platform", wanted.as_str()),
        ];
        let headers = self.registry_auth(image.image.registry()).await?;
        let mut items = self
            .raw
            .post_lines(OP, &["images", "create"], &query, &headers, HEAD_LIMIT)
            .await?;
        let mut layers = Layers::default();
        while let Some(item) = tokio::time::timeout(SILENCE_LIMIT, items.next())
            .await
            .map_err(|_| error::timeout(OP))??
        {
            layers.take(&item, progress)?;
        }
        let found = self.image_raw(&reference).await?.ok_or_else(|| {
            let message = format!("the engine reported success, but {reference} is not there");
            PortError::new(OP, PortErrorKind::Failed, message)
        })?;
        match expect_platform(images::info(&found)?, platform) {
            Ok(found) => Ok(found),
            Err(error) => {
                self.drop_pulled(&reference).await;
                Err(error)
            }
        }
    }

    /// The header with the credentials for a registry: those configured, else those that `docker login` keeps.
    async fn registry_auth(
        &self,
        registry: &str,
    ) -> Result<Vec<(&'static str, String)>, PortError> {
        let auth = for_engine(registry, &self.registries).await?;
        let encode =
            |auth: Value| base64::engine::general_purpose::URL_SAFE.encode(auth.to_string());
        Ok(auth
            .map(|auth| ("X-Registry-Auth", encode(auth)))
            .into_iter()
            .collect())
    }

    /// Gives back what a pull brought and nobody can use. If somebody does use it after all, it stays.
    async fn drop_pulled(&self, reference: &str) {
        let options = RemoveImageOptionsBuilder::new().force(false).build();
        let call = self.docker.remove_image(reference, Some(options), None);
        if let Err(left) = limited("remove an image", WORK_LIMIT, call).await {
            tracing::warn!(image = reference, error = %left, "an image for another platform stays behind");
        }
    }
}

/// Bytes of the layers so far.
#[derive(Default)]
struct Layers(HashMap<String, (u64, u64)>);

impl Layers {
    /// Reads one item of the stream: an error ends the pull, progress is passed on.
    fn take(&mut self, item: &Value, progress: &dyn ProgressSink) -> Result<(), PortError> {
        if let Some(message) = failure(item) {
            return Err(error::from_stream(OP, message));
        }
        let detail = &item["progressDetail"];
        if let (Some(done), Some(total)) = (detail["current"].as_u64(), detail["total"].as_u64())
            && text(&item["status"]) == "Downloading"
        {
            self.0.insert(text(&item["id"]).to_owned(), (done, total));
            progress.report(Progress::Bytes {
                what: "pull",
                done: self.0.values().map(|(done, _)| done).sum(),
                total: self.0.values().map(|(_, total)| total).sum(),
            });
        }
        Ok(())
    }
}

/// What went wrong, if an item says that something did. Docker gives both fields, others only one.
fn failure(item: &Value) -> Option<&str> {
    item["errorDetail"]["message"]
        .as_str()
        .or_else(|| item["error"].as_str())
}

fn expect_platform(found: ImageInfo, wanted: &Platform) -> Result<ImageInfo, PortError> {
    let canonical = |architecture: &str| match architecture {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let same = found.platform.os == wanted.os
        && canonical(&found.platform.architecture) == canonical(&wanted.architecture)
        && (wanted.variant.is_empty()
            || found.platform.variant.is_empty()
            || found.platform.variant == wanted.variant);
    if same {
        return Ok(found);
    }
    let message = format!(
        "expected an image for {}, found one for {}",
        platform_text(wanted),
        platform_text(&found.platform)
    );
    Err(PortError::new(OP, PortErrorKind::Invalid, message))
}

fn platform_text(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}
