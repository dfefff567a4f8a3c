//! Local tags: where they point, and moving one for the length of a call.

use std::future::Future;
use std::time::Duration;

use backon::Retryable as _;
use bollard::query_parameters::{RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use fleet_core::ids::ImageId;
use fleet_core::ports::{PortError, PortErrorKind};

use super::{CALL_LIMIT, DockerEngine, limited};
use crate::json::text;

/// Longest wait for the lock of a tag: it is held for one create call at a time.
const LOCK_LIMIT: Duration = Duration::from_secs(600);

/// Repository and tag of `repository:tag`; none for ids, digests and references without a tag.
pub(super) fn split_tag(reference: &str) -> Option<(&str, &str)> {
    if reference.contains('@') || reference.starts_with("sha256:") {
        return None;
    }
    let (repository, tag) = reference.rsplit_once(':')?;
    (!tag.contains('/') && !tag.is_empty() && !repository.is_empty()).then_some((repository, tag))
}

impl DockerEngine {
    pub(super) async fn set_tag(&self, image: &ImageId, reference: &str) -> Result<(), PortError> {
        let op = "tag an image";
        let (repository, tag) = split_tag(reference).ok_or_else(|| {
            let message = format!("expected repository:tag, found {reference:?}");
            PortError::new(op, PortErrorKind::Invalid, message)
        })?;
        let options = TagImageOptionsBuilder::new()
            .repo(repository)
            .tag(tag)
            .build();
        limited(
            op,
            CALL_LIMIT,
            self.docker.tag_image(image.as_str(), Some(options)),
        )
        .await
    }

    pub(super) async fn remove_tag(&self, reference: &str) -> Result<(), PortError> {
        let op = "remove a tag";
        if split_tag(reference).is_none() {
            // By id or digest the engine would remove the image itself.
            let message = format!("expected repository:tag, found {reference:?}");
            return Err(PortError::new(op, PortErrorKind::Invalid, message));
        }
        let options = RemoveImageOptionsBuilder::new()
            .force(false)
            .noprune(false)
            .build();
        let call = self.docker.remove_image(reference, Some(options), None);
        match limited(op, super::WORK_LIMIT, call).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs `call` while `reference` points to `image`, then puts the tag back to where it pointed, also after an
    /// error. References that are no tags are left alone.
    pub(super) async fn with_tag_on<T>(
        &self,
        reference: &str,
        image: &ImageId,
        call: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        if split_tag(reference).is_none() {
            return call.await;
        }
        let lock = self.tag_lock(reference);
        let _held = tokio::time::timeout(LOCK_LIMIT, lock.lock())
            .await
            .map_err(|_| {
                PortError::new(
                    "move a tag",
                    PortErrorKind::Timeout,
                    "another update holds it",
                )
            })?;
        let before = self.image_raw(reference).await?;
        let before = before.and_then(|raw| ImageId::new(text(&raw["Id"])).ok());
        if before.as_ref() == Some(image) {
            return call.await;
        }
        // The tag may have moved although its answer was lost, so it is put back in either case.
        let result = match self.set_tag(image, reference).await {
            Ok(()) => call.await,
            Err(error) => Err(error),
        };
        let put_back = self.put_back(reference, before.as_ref()).await;
        match (result, put_back) {
            (Ok(value), Ok(())) => Ok(value),
            (Ok(_), Err(error)) | (Err(error), _) => Err(error),
        }
    }

    /// Puts a tag back to where it pointed, and asks again if the answer is lost: a tag on the wrong image outlives us.
    async fn put_back(&self, reference: &str, before: Option<&ImageId>) -> Result<(), PortError> {
        let put = || async {
            match before {
                Some(before) => self.set_tag(before, reference).await,
                None => match self.remove_tag(reference).await {
                    // It is the image's only name and the new container uses it: nobody had the name before, so it
                    // may stay until the update ends.
                    Err(error) if error.kind() == PortErrorKind::Conflict => Ok(()),
                    other => other,
                },
            }
        };
        let again = backon::ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_times(4);
        put.retry(again).when(PortError::is_transient).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repository_and_tag_is_a_tag() {
        assert_eq!(split_tag("app:1"), Some(("app", "1")));
        assert_eq!(
            split_tag("localhost:5000/a/b:1"),
            Some(("localhost:5000/a/b", "1"))
        );
        for other in [
            "app",
            "localhost:5000/a/b",
            "app@sha256:ab",
            "sha256:ab",
            ":x",
            "app:",
        ] {
            assert_eq!(split_tag(other), None, "{other}");
        }
    }
}
