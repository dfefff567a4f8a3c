//! Tags and pulls.

use super::Machine;
use crate::ids::ImageId;
use crate::model::{ImageInfo, Platform};
use crate::ports::{PortError, PortErrorKind};

impl Machine {
    /// Points a tag somewhere, or nowhere. Says where it pointed. The image it leaves stays, without a name.
    pub(in super::super) fn retag(
        &mut self,
        reference: &str,
        to: Option<&ImageId>,
    ) -> Option<ImageId> {
        match to {
            Some(id) => self.tags.insert(reference.to_owned(), id.clone()),
            None => self.tags.remove(reference),
        }
    }

    /// Takes a tag off. As with the real engine an image that loses its last tag is deleted, unless a container is
    /// made from it.
    pub(in super::super) fn untag(&mut self, reference: &str) {
        let Some(id) = self.tags.remove(reference) else {
            return;
        };
        let tagged = self.tags.values().any(|other| other == &id);
        let used = self.containers.iter().any(|ctr| ctr.image_id == id);
        if !tagged && !used {
            self.images.remove(&id);
        }
    }

    /// Pulls what the registry offers under `repository@digest`.
    pub(in super::super) fn pull(
        &mut self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ImageInfo, PortError> {
        let refuse = |kind, text: String| Err(PortError::new("pull the image", kind, text));
        let Some(offer) = self.offers.get(reference) else {
            let text = format!("manifest for {reference} not found");
            return refuse(PortErrorKind::NotFound, text);
        };
        if &offer.image.platform != platform {
            let text = format!(
                "expected {}/{}, found {}/{}",
                platform.os,
                platform.architecture,
                offer.image.platform.os,
                offer.image.platform.architecture
            );
            return refuse(PortErrorKind::Invalid, text);
        }
        if self.free_bytes < offer.release.size_bytes {
            return refuse(PortErrorKind::NoSpace, "no space left on device".to_owned());
        }
        let (id, image) = (offer.id.clone(), offer.image.clone());
        let stored = self.images.entry(id.clone()).or_insert(image);
        stored.repo_digests.insert(reference.to_owned());
        match self.image_info(&id) {
            Some(info) => Ok(info),
            None => refuse(PortErrorKind::Failed, "the image is not there".to_owned()),
        }
    }
}
