//! What an instance follows: its reference, its labels, and therefore the question to ask.

use std::time::Duration;

use super::tags::{TagRules, TagRulesError};
use crate::ids::{HostId, ImageId, InstanceId};
use crate::image::{Digest, ImageRef};
use crate::model::labels::TagPolicy;
use crate::model::{Channel, Container, InstanceSettings};
use crate::ports::Deployed;

/// One instance as detection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The instance.
    pub instance: InstanceId,
    /// `fleet.channel`.
    pub channel: Channel,
    /// `Config.Image`: what the user wrote.
    pub image: String,
    /// The image that it was made from.
    pub image_id: ImageId,
    /// `fleet.source=local`.
    pub local_source: bool,
    /// `fleet.tag.policy`.
    pub tag_policy: TagPolicy,
    /// `fleet.tag.include`.
    pub tag_include: Option<String>,
    /// `fleet.tag.exclude`.
    pub tag_exclude: Option<String>,
    /// `fleet.pin`.
    pub pin: Option<String>,
    /// `fleet.min_age`.
    pub min_age: Option<Duration>,
}

/// What an instance follows.
#[derive(Debug, Clone)]
pub(super) enum Follows {
    /// The registry's answer to one reference.
    Reference(Followed),
    /// The newest of a repository's tags that the rules allow.
    Newest { from: ImageRef, rules: TagRules },
    /// The engine's own tag.
    Local(ImageRef),
    /// Nothing that can be asked for.
    Nothing(Unfollowable),
}

/// A reference that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) image: ImageRef,
    /// A person named this very digest or tag: going back to it is what was asked for.
    pub(super) asked_for: bool,
}

/// Why nothing can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfollowable {
    /// The container was made from an image id.
    #[error("made from the image id {found}, which names no repository to follow")]
    ImageId {
        /// The text as given.
        found: String,
    },
    /// The container's image is not a reference.
    #[error("expected an image reference in the container, found {found:?}")]
    NotAReference {
        /// The text as given.
        found: String,
    },
    /// The reference has a digest and no tag, and no pin says otherwise.
    #[error("made from a digest without a tag, so there is nothing newer to look for")]
    Digest,
    /// The pin is neither a digest nor a tag.
    #[error("expected a digest or a tag in the pin, found {found:?}")]
    Pin {
        /// The text as given.
        found: String,
    },
    /// An expression for tags is none.
    #[error("the label for tags cannot be read")]
    TagRules(#[source] TagRulesError),
}

impl Subject {
    /// The instance that a container is; none if its name is not one that an instance can have.
    #[must_use]
    pub fn new(host: &HostId, container: &Container, settings: &InstanceSettings) -> Option<Self> {
        Some(Self {
            instance: InstanceId {
                host: host.clone(),
                name: container.instance_name()?,
            },
            channel: settings.channel.clone(),
            image: container.image.clone(),
            image_id: container.image_id.clone(),
            local_source: settings.local_source,
            tag_policy: settings.tag_policy,
            tag_include: settings.tag_include.clone(),
            tag_exclude: settings.tag_exclude.clone(),
            pin: settings.pin.clone(),
            min_age: settings.min_age,
        })
    }

    /// What it follows, by its labels and its reference.
    pub(super) fn follows(&self, deployed: Option<&Deployed>) -> Follows {
        let image = match self.reference(deployed) {
            Ok(image) => image,
            Err(reason) => return Follows::Nothing(reason),
        };
        if let Some(pin) = &self.pin {
            return match pinned(&image, pin) {
                Some(image) if self.local_source => Follows::Local(image),
                Some(pin) => Follows::Reference(Followed {
                    asked_for: pin.digest().is_some() || pin.tag() != image.tag(),
                    image: pin,
                }),
                None => Follows::Nothing(Unfollowable::Pin { found: pin.clone() }),
            };
        }
        let Some(tag) = image.tag() else {
            return Follows::Nothing(Unfollowable::Digest);
        };
        if self.local_source {
            return Follows::Local(image);
        }
        if image.digest().is_some() {
            // Tag and digest together are a pin that the user wrote into the reference itself.
            return Follows::Reference(Followed {
                image,
                asked_for: true,
            });
        }
        let rules = TagRules::new(
            self.tag_policy,
            self.tag_include.as_deref(),
            self.tag_exclude.as_deref(),
        );
        match rules {
            Err(error) => Follows::Nothing(Unfollowable::TagRules(error)),
            Ok(rules) if rules.need_tags(tag) => Follows::Newest { from: image, rules },
            Ok(_) => Follows::Reference(Followed {
                image,
                asked_for: false,
            }),
        }
    }

    /// The reference of the container, or the one fleet deployed where the container names only an image id.
    pub(super) fn reference(&self, deployed: Option<&Deployed>) -> Result<ImageRef, Unfollowable> {
        if self.names_an_image_id() {
            return match deployed {
                Some(deployed) if deployed.image_id == self.image_id => Ok(deployed.image.clone()),
                _ => Err(Unfollowable::ImageId {
                    found: self.image.clone(),
                }),
            };
        }
        self.image.parse().map_err(|_| Unfollowable::NotAReference {
            found: self.image.clone(),
        })
    }

    /// An id is a reference too by the grammar (`sha256:…` would be a repository of Docker Hub), and must not be asked
    /// for as one.
    fn names_an_image_id(&self) -> bool {
        let id = self.image_id.as_str();
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        self.image.starts_with("sha256:")
            || (self.image.len() >= 12 && hex.starts_with(&self.image))
    }
}

/// The reference that a pin leads to: a digest or tag of the same repository.
fn pinned(image: &ImageRef, pin: &str) -> Option<ImageRef> {
    match pin.parse::<Digest>() {
        Ok(digest) => at_digest(image, &digest),
        Err(_) => image.with_tag(pin).ok().filter(|pinned| {
            // What follows the grammar as a whole may still be more than a tag.
            pinned.same_repository(image) && pinned.tag() == Some(pin) && pinned.digest().is_none()
        }),
    }
}

/// The reference with its tag, at a digest.
pub(super) fn at_digest(image: &ImageRef, digest: &Digest) -> Option<ImageRef> {
    image.pinned(digest.clone()).to_string().parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ids::InstanceName;

    pub(in crate::detect) fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    pub(in crate::detect) fn id(name: &str) -> ImageId {
        ImageId::new(digest(name).as_str()).unwrap()
    }

    pub(in crate::detect) fn subject(name: &str, image: &str, image_id: &str) -> Subject {
        Subject {
            instance: InstanceId::local(InstanceName::new(name).unwrap()),
            channel: Channel::default(),
            image: image.to_owned(),
            image_id: id(image_id),
            local_source: false,
            tag_policy: TagPolicy::Digest,
            tag_include: None,
            tag_exclude: None,
            pin: None,
            min_age: None,
        }
    }

    fn words(subject: &Subject) -> String {
        match subject.follows(None) {
            Follows::Reference(Followed { image, asked_for }) => {
                format!("{image}{}", if asked_for { " (asked for)" } else { "" })
            }
            Follows::Newest { from, .. } => format!("newest from {from}"),
            Follows::Local(image) => format!("local {image}"),
            Follows::Nothing(reason) => reason.to_string(),
        }
    }

    #[track_caller]
    fn check(image: &str, change: impl FnOnce(&mut Subject), expect: &str) {
        let mut subject = subject("web", image, "config");
        change(&mut subject);
        assert_eq!(words(&subject), expect);
    }

    #[test]
    fn a_reference_is_followed_by_its_tag() {
        check("r.io/app:1.2", |_| {}, "r.io/app:1.2");
        check("app", |_| {}, "app:latest");
        check(
            "r.io/app:1.2",
            |s| s.tag_policy = TagPolicy::Minor,
            "newest from r.io/app:1.2",
        );
        check(
            "r.io/app",
            |s| s.tag_policy = TagPolicy::Minor,
            "r.io/app:latest",
        );
        check("r.io/app:1", |s| s.local_source = true, "local r.io/app:1");
    }

    #[test]
    fn a_pin_beats_the_reference() {
        let digest = digest("pinned");
        let pin = |text: &str| {
            let text = text.to_owned();
            move |s: &mut Subject| s.pin = Some(text)
        };
        check("r.io/app:1", pin("1"), "r.io/app:1");
        check("r.io/app:2", pin("1"), "r.io/app:1 (asked for)");
        check(
            "r.io/app:2",
            pin(digest.as_str()),
            &format!("r.io/app:2@{digest} (asked for)"),
        );
        check(
            &format!("r.io/app:2@{digest}"),
            |_| {},
            &format!("r.io/app:2@{digest} (asked for)"),
        );
        for bad in ["", "a b", "1/../2", "sha256:12", &format!("1@{digest}")] {
            check(
                "r.io/app:2",
                pin(bad),
                &format!("expected a digest or a tag in the pin, found {bad:?}"),
            );
        }
    }

    #[test]
    fn ids_and_digests_name_nothing_to_follow() {
        let id = id("config");
        let short = &id.as_str()[7..19];
        for image in [id.as_str(), short, &id.as_str()[7..]] {
            let expect =
                format!("made from the image id {image}, which names no repository to follow");
            check(image, |_| {}, &expect);
        }
        let digest = digest("x");
        check(
            &format!("r.io/app@{digest}"),
            |_| {},
            "made from a digest without a tag, so there is nothing newer to look for",
        );
        check(
            "a b",
            |_| {},
            "expected an image reference in the container, found \"a b\"",
        );
    }

    #[test]
    fn what_fleet_deployed_names_the_repository_of_an_id() {
        let subject = subject("web", id("config").as_str(), "config");
        let mut deployed = Deployed {
            instance: subject.instance.clone(),
            image: "r.io/app:1".parse().unwrap(),
            digest: digest("index"),
            image_id: id("config"),
            at: crate::time::Timestamp::UNIX_EPOCH,
        };
        assert!(matches!(
            subject.follows(Some(&deployed)),
            Follows::Reference(_)
        ));
        deployed.image_id = id("something else");
        assert!(matches!(
            subject.follows(Some(&deployed)),
            Follows::Nothing(_)
        ));
    }
}
