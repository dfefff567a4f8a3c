//! What may be trusted: the image policy and signatures, asked again before an update begins.
//!
//! Detection has asked the policy before, for what it offers. An update may be ordered long after that, or by a person
//! who names another image, so admission asks again, and about the way back as well: whatever an update may start, the
//! policy has allowed by then.

use super::{Fleet, FleetError};
use crate::image::ImageRef;
use crate::model::{Container, InstanceSettings, Release};
use crate::ports::PortErrorKind;
use crate::update::Refusal;

impl Fleet {
    /// What speaks against starting a release, by policy and signature.
    pub(super) async fn distrust(
        &self,
        settings: &InstanceSettings,
        target: &Release,
    ) -> Result<Option<Refusal>, FleetError> {
        let image = &target.image;
        if let Some(refusal) = self.not_named(&image.image) {
            return Ok(Some(refusal));
        }
        let Some(verifier) = &self.ports.verifier else {
            return Ok(None);
        };
        if settings.local_source {
            return Ok(Some(Refusal::for_good(
                "unsigned",
                format!(
                    "{image} is an image of the engine itself, and only images of a registry have signatures"
                ),
                "push it to a registry and sign it there, or run without signatures",
            )));
        }
        let Err(error) = verifier.verify(image).await else {
            return Ok(None);
        };
        let why = crate::update::error_chain(&error);
        Ok(Some(if error.kind() == PortErrorKind::Denied {
            Refusal::for_good(
                "unsigned",
                why,
                "sign the image with the key or identity that is configured",
            )
        } else {
            // Whether it is signed could not be told, which counts as no.
            Refusal::for_now(
                "signature_unknown",
                why,
                "`fleet doctor` says what is missing",
            )
        }))
    }

    /// What speaks against starting again what a container runs now, which a way back would do.
    pub(super) fn distrust_of_way_back(&self, container: &Container) -> Option<Refusal> {
        let policy = self.options.image_policy.as_ref()?;
        let denied = policy.check_text(&container.image).err()?;
        let why = format!("its way back would start what it runs now: {denied}");
        Some(not_allowed("rollback_not_allowed", why))
    }

    /// Whether the policy lets anybody name this image as a target.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn allow(&self, image: &ImageRef) -> Result<(), FleetError> {
        match self.not_named(image) {
            None => Ok(()),
            Some(Refusal { reason, remedy, .. }) => Err(FleetError::Refused { reason, remedy }),
        }
    }

    /// What the policy has against an image as a target.
    fn not_named(&self, image: &ImageRef) -> Option<Refusal> {
        let denied = self.options.image_policy.as_ref()?.check(image).err()?;
        Some(not_allowed("image_not_allowed", denied.to_string()))
    }
}

fn not_allowed(code: &str, why: String) -> Refusal {
    Refusal::for_good(
        code,
        why,
        "name its repository in images.allow of fleet's configuration, or use one that is named there",
    )
}
