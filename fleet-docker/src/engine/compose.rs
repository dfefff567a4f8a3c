//! Compose's hash for a container that is about to be made.

use fleet_core::ids::ImageId;

use super::DockerEngine;
use super::container::string_map;
use crate::compose::{ComposeService, NextUp};
use crate::recreate::EngineSpec;

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
    /// Decides whether compose's hash can be made anew: only if the project's files still give the old one.
    pub(super) async fn calming(
        &self,
        spec: &EngineSpec,
        old_image: &ImageId,
        image: &str,
    ) -> Calming {
        let old_reference = crate::json::text(&spec.inspect["Config"]["Image"]);
        let mut labels = string_map(&spec.inspect["Config"]["Labels"]);
        // An image that carries compose's labels must not send anybody to files of this host.
        let of_image = string_map(&spec.image_config["Labels"]);
        labels.retain(|name, value| of_image.get(name) != Some(value));
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
            Ok(Ok(_)) => {
                "its files have changed since; that `up` would apply the change".to_owned()
            }
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

fn warning(service: &ComposeService, reason: &str) -> Option<String> {
    match service.recreates(reason) {
        NextUp::RecreatesOnce(text) => Some(text),
        NextUp::Nothing => None,
    }
}
