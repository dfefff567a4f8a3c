//! What is new in a release, for people: the changelog that its image brings, else what its annotations tell.

use super::{Fleet, FleetError};
use crate::image::PinnedImage;
use crate::model::Release;
use crate::notify::changelog::{CHANGELOG_BYTES_MAX, Changelog};
use crate::ports::{PortError, PortErrorKind};

impl Fleet {
    /// What is new in the release that the last check offered to an instance; none where nothing is offered, or the
    /// release says nothing of itself.
    ///
    /// # Errors
    /// No such instance; the engine, the registry or the store cannot be asked.
    pub async fn whats_new(&self, name: &str) -> Result<Option<Changelog>, FleetError> {
        let survey = self.survey().await?;
        let managed = survey
            .workload(name)
            .ok_or_else(|| Self::unknown(&survey, name))?;
        let instance = managed.id()?;
        let found = self.ports.availability.available().await?;
        let offered = found
            .into_iter()
            .find(|found| found.instance == instance && found.is_offered())
            .and_then(|found| Some(found.image.pinned(found.digest?)));
        let Some(offered) = offered else {
            return Ok(None);
        };
        let path = &managed.settings.changelog;
        if let Some(changelog) = self.changelog_in_engine(&offered, path).await? {
            return Ok(Some(changelog));
        }
        if managed.settings.local_source {
            return Ok(None);
        }
        let platform = self.ports.update.runtime.info().await?.platform;
        let reference = offered.reference();
        let release = self.ports.releases.resolve(&reference, &platform).await?;
        Ok(Changelog::from_annotations(&release.annotations))
    }

    /// As far as it can be had without pulling anything; a failure is one line of the log, for it must not keep anybody
    /// from learning that there is a release.
    pub(super) async fn news_of(&self, release: &Release, path: &str) -> Option<Changelog> {
        match self.changelog_in_engine(&release.image, path).await {
            Ok(Some(changelog)) => Some(changelog),
            Ok(None) => Changelog::from_annotations(&release.annotations),
            Err(error) => {
                tracing::warn!(image = %release.image, %error, "its changelog cannot be read");
                Changelog::from_annotations(&release.annotations)
            }
        }
    }

    /// The changelog of an image that the engine has: its file at the digest, else its labels.
    async fn changelog_in_engine(
        &self,
        image: &PinnedImage,
        path: &str,
    ) -> Result<Option<Changelog>, PortError> {
        let images = &self.ports.update.images;
        let known = match images.image(&image.by_digest()).await? {
            Some(known) => Some(known),
            // A release of the engine's own has the image id as its digest.
            None => images.image(image.digest.as_str()).await?,
        };
        let Some(known) = known else {
            return Ok(None);
        };
        // What a publisher got wrong is the publisher's; the annotations may still tell something.
        let unusable = |error: &dyn std::fmt::Display| {
            tracing::warn!(%image, path, %error, "the image's changelog cannot be used");
        };
        match images.file(&known.id, path, CHANGELOG_BYTES_MAX).await {
            Ok(Some(bytes)) => match Changelog::read(&bytes) {
                Ok(changelog) => return Ok(Some(changelog)),
                Err(error) => unusable(&error),
            },
            Ok(None) => {}
            Err(error) if error.kind() == PortErrorKind::Invalid => unusable(&error),
            Err(error) => return Err(error),
        }
        Ok(Changelog::from_annotations(&known.labels))
    }
}
