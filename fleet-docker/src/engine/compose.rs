//! Compose's hash for a container that is about to be made.

use std::collections::BTreeMap;

use fleet_core::ids::ImageId;
use fleet_core::model::Container;
use fleet_core::ports::PortError;

use super::DockerEngine;
use super::container::string_map;
use crate::compose::{ComposeService, NextUp};
use crate::recreate::EngineSpec;

const FILES_CHANGED: &str = "its files have changed since; that `up` would apply the change";

/// What is known about compose and a container that is about to be made.
pub(super) enum Calming {
    /// Nothing has to be done, or nothing can be.
    Leave {
        /// What people should know.
        warning: Option<String>,
    },
    /// The hash has to be made while the tag is on the new image.
    Rehash(ComposeService),
}

impl DockerEngine {
    /// What the next `up` of compose will do with a container once it was updated to an image of this name, by looking
    /// at files alone; none if compose did not make it.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn next_up(
        &self,
        container: &Container,
        image: &str,
    ) -> Result<Option<NextUp>, PortError> {
        let service = self.compose_service(container).await?;
        Ok(service.map(|service| service.next_up(container.image == image)))
    }

    /// The same, with compose itself asked whether its hash still is what the container's label says. Changes nothing:
    /// where a tag would have to be moved for that, the files decide.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn next_up_by_compose(
        &self,
        container: &Container,
        image: &str,
    ) -> Result<Option<NextUp>, PortError> {
        let Some(service) = self.compose_service(container).await? else {
            return Ok(None);
        };
        let by_files = service.next_up(container.image == image);
        let tagged = self.image_raw(&container.image).await?.unwrap_or_default();
        let tag_is_old = crate::json::text(&tagged["Id"]) == container.image_id.as_str();
        if by_files != NextUp::Nothing || !service.hash_contains_image() || !tag_is_old {
            return Ok(Some(by_files));
        }
        Ok(Some(match service.hash_now(&self.host()).await {
            Ok(hash) if hash == service.hash() => NextUp::Nothing,
            Ok(_) => service.recreates(FILES_CHANGED),
            Err(reason) => service.recreates(&reason),
        }))
    }

    pub(super) async fn compose_service(
        &self,
        container: &Container,
    ) -> Result<Option<ComposeService>, PortError> {
        let image = self.image_raw(container.image_id.as_str()).await?;
        let of_image = string_map(&image.unwrap_or_default()["Config"]["Labels"]);
        Ok(ComposeService::of(&own_labels(
            container.labels.clone(),
            &of_image,
        )))
    }

    /// Decides whether compose's hash can be made anew: only if the project's files still give the old one.
    pub(super) async fn calming(
        &self,
        spec: &EngineSpec,
        old_image: &ImageId,
        image: &str,
    ) -> Calming {
        let old_reference = crate::json::text(&spec.inspect["Config"]["Image"]);
        let of_image = string_map(&spec.image_config["Labels"]);
        let labels = own_labels(string_map(&spec.inspect["Config"]["Labels"]), &of_image);
        let Some(service) = ComposeService::of(&labels) else {
            return Calming::Leave { warning: None };
        };
        if let NextUp::RecreatesOnce(reason) = service.next_up(old_reference == image) {
            return Calming::Leave {
                warning: Some(reason),
            };
        }
        if !service.hash_contains_image() {
            return Calming::Leave { warning: None };
        }
        let host = self.host();
        let asked = async { Ok(service.hash_now(&host).await) };
        let reason = match self.with_tag_on(image, old_image, asked).await {
            Ok(Ok(hash)) if hash == service.hash() => return Calming::Rehash(service),
            Ok(Ok(_)) => FILES_CHANGED.to_owned(),
            Ok(Err(reason)) => reason,
            Err(error) => error.message().to_owned(),
        };
        Calming::Leave {
            warning: warning(&service, &reason),
        }
    }

    /// The hash for the new container. The tag is on the new image while this runs.
    pub(super) async fn new_hash(&self, calming: &Calming) -> (Option<String>, Option<String>) {
        match calming {
            Calming::Leave { warning } => (None, warning.clone()),
            Calming::Rehash(service) => match service.hash_now(&self.host()).await {
                Ok(hash) => (Some(hash), None),
                Err(reason) => (None, warning(service, &reason)),
            },
        }
    }
}

/// Labels without those of the image: one that carries compose's labels must not send anybody to files of this host.
fn own_labels(
    mut labels: BTreeMap<String, String>,
    of_image: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    labels.retain(|name, value| of_image.get(name) != Some(value));
    labels
}

fn warning(service: &ComposeService, reason: &str) -> Option<String> {
    match service.recreates(reason) {
        NextUp::RecreatesOnce(text) => Some(text),
        NextUp::Nothing => None,
    }
}
