//! A registry that is not there: [`ReleaseSource`] over a [`FakeHost`].

use async_trait::async_trait;

use super::host::{FakeHost, Side};
use super::machine::{Machine, Offer};
use crate::image::{Digest, ImageRef};
use crate::model::{Platform, Release};
use crate::ports::{PortError, PortErrorKind, ReleaseSource};

/// The registry of a fake host. What is published there with [`FakeHost::publish`] can be resolved and pulled.
#[derive(Debug, Clone)]
pub struct FakeRegistry(FakeHost);

impl FakeRegistry {
    pub(super) fn new(host: FakeHost) -> Self {
        Self(host)
    }
}

#[async_trait]
impl ReleaseSource for FakeRegistry {
    async fn digest(&self, image: &ImageRef) -> Result<Digest, PortError> {
        let on = image.to_string();
        self.0
            .call(Side::Elsewhere, "ask the registry", &on, |machine| {
                Ok(offered(machine, image)?.release.image.digest.clone())
            })
            .await
    }

    async fn resolve(&self, image: &ImageRef, platform: &Platform) -> Result<Release, PortError> {
        let op = "resolve the release";
        let on = image.to_string();
        self.0
            .call(Side::Elsewhere, op, &on, |machine| {
                let offer = offered(machine, image)?;
                if &offer.image.platform != platform {
                    let text = format!("no manifest for {}/{}", platform.os, platform.architecture);
                    return Err(PortError::new(op, PortErrorKind::NotFound, text));
                }
                Ok(offer.release.clone())
            })
            .await
    }

    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, PortError> {
        let on = image.to_string();
        self.0
            .call(Side::Elsewhere, "list the tags", &on, |machine| {
                let prefix = format!("{}:", image.familiar_repository());
                let tags = machine.offered_tags.keys();
                let own = tags.filter_map(|tag| tag.strip_prefix(&prefix));
                Ok(own.map(str::to_owned).collect())
            })
            .await
    }
}

fn offered<'a>(machine: &'a Machine, image: &ImageRef) -> Result<&'a Offer, PortError> {
    let by_digest = match image.digest() {
        Some(digest) => Some(format!("{}@{digest}", image.familiar_repository())),
        None => image
            .familiar_tag()
            .and_then(|tag| machine.offered_tags.get(&tag).cloned()),
    };
    by_digest
        .and_then(|reference| machine.offers.get(&reference))
        .ok_or_else(|| {
            PortError::new(
                "ask the registry",
                PortErrorKind::NotFound,
                format!("manifest of {image} unknown"),
            )
        })
}
