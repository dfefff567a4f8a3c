//! Folds the answers of one cycle into findings. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::candidate::verdict;
use super::compare::{Running, same_image};
use super::finding::{Finding, Verdict};
use super::known::Known;
use super::subject::{Followed, Subject, at_digest};
use crate::image::{Digest, ImageRef};
use crate::model::{ImageInfo, Platform, Release};
use crate::time::Timestamp;

/// An answer that several instances share; what went wrong is text for people.
pub(super) type Answer<T> = Result<T, Arc<str>>;

const NOT_ASKED: &str = "it was not asked for";

/// An instance with what it follows.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    pub(super) subject: &'a Subject,
    pub(super) target: Target,
}

/// What an instance follows, once tags were chosen from.
#[derive(Debug)]
pub(super) enum Target {
    Remote(Followed),
    Local(ImageRef),
    Unknown(String),
}

/// Everything that was asked in one cycle.
pub(super) struct Answers<'a> {
    // inputs
    pub(super) platform: &'a Platform,
    pub(super) known: &'a Known,
    pub(super) now: Timestamp,
    // state
    /// Images that instances were made from, by id; none where the engine has it no more or could not say.
    pub(super) infos: HashMap<&'a str, Option<ImageInfo>>,
    /// What the engine's own tags point to.
    pub(super) local: HashMap<ImageRef, Answer<Option<ImageInfo>>>,
    /// Digests under the references that are followed.
    pub(super) digests: HashMap<ImageRef, Answer<Digest>>,
    /// Releases by their pinned reference.
    pub(super) releases: HashMap<ImageRef, Answer<Arc<Release>>>,
}

impl Answers<'_> {
    /// The pinned references whose releases have to be read: what is not known to be what runs, and what tells what
    /// runs where its id does not.
    pub(super) fn releases_wanted(&self, watched: &Watched<'_>) -> [Option<ImageRef>; 2] {
        let Target::Remote(followed) = &watched.target else {
            return [None, None];
        };
        let Some(Ok(digest)) = self.digests.get(&followed.image) else {
            return [None, None];
        };
        let running = self.running(watched, &followed.image);
        if running.is_named_by(digest, self.platform) {
            return [None, None];
        }
        let runs = running.digest_to_look_up();
        [
            at_digest(&followed.image, digest),
            runs.and_then(|digest| at_digest(&followed.image, &digest)),
        ]
    }

    /// What was found out about one instance.
    pub(super) fn finding(&self, watched: &Watched<'_>) -> Finding {
        match &watched.target {
            Target::Unknown(reason) => {
                let reference = watched.subject.image.parse().ok();
                self.unknown(watched, reference.as_ref(), None, reason)
            }
            Target::Local(image) => self.local_finding(watched, image),
            Target::Remote(followed) => self.remote_finding(watched, followed),
        }
    }

    fn local_finding(&self, watched: &Watched<'_>, image: &ImageRef) -> Finding {
        let unknown = |reason: &str| self.unknown(watched, Some(image), None, reason);
        let info = match self.local.get(image) {
            Some(Ok(Some(info))) => info,
            Some(Ok(None)) => return unknown(&format!("the engine has no image {image}")),
            Some(Err(reason)) => return unknown(reason),
            None => return unknown(NOT_ASKED),
        };
        let followed = Followed {
            image: image.clone(),
            asked_for: watched.subject.pin.is_some(),
        };
        match local_release(image, info) {
            Some(release) => self.judged(watched, &followed, &Arc::new(release)),
            None => unknown("the image's id is not a digest"),
        }
    }

    fn remote_finding(&self, watched: &Watched<'_>, followed: &Followed) -> Finding {
        let image = &followed.image;
        let digest = match self.digests.get(image) {
            Some(Ok(digest)) => digest,
            Some(Err(reason)) => return self.unknown(watched, Some(image), None, reason),
            None => return self.unknown(watched, Some(image), None, NOT_ASKED),
        };
        if self
            .running(watched, image)
            .is_named_by(digest, self.platform)
        {
            return self.up_to_date(watched, image, digest, None);
        }
        match at_digest(image, digest).and_then(|pinned| self.releases.get(&pinned)) {
            Some(Ok(release)) => self.judged(watched, followed, release),
            Some(Err(reason)) => self.unknown(watched, Some(image), Some(digest), reason),
            None => self.unknown(watched, Some(image), Some(digest), NOT_ASKED),
        }
    }

    fn judged(
        &self,
        watched: &Watched<'_>,
        followed: &Followed,
        release: &Arc<Release>,
    ) -> Finding {
        let image = &followed.image;
        let digest = &release.image.digest;
        if self.runs_already(watched, image, release) {
            return self.up_to_date(watched, image, digest, Some(release));
        }
        let first_seen = self.known.first_seen(image, Some(digest), self.now);
        let verdict = verdict(
            watched.subject,
            followed,
            release,
            self.known,
            first_seen,
            self.now,
        );
        Finding {
            digest: Some(digest.clone()),
            release: Some(Arc::clone(release)),
            first_seen,
            ..self.blank(watched, Some(image), verdict)
        }
    }

    fn runs_already(&self, watched: &Watched<'_>, image: &ImageRef, release: &Release) -> bool {
        let running = self.running(watched, image);
        let looked_up = running
            .digest_to_look_up()
            .and_then(|digest| at_digest(image, &digest))
            .and_then(|pinned| self.releases.get(&pinned));
        running.is(release, self.platform)
            || matches!(looked_up, Some(Ok(found)) if same_image(found, release))
    }

    fn running<'b>(&'b self, watched: &'b Watched<'_>, image: &'b ImageRef) -> Running<'b> {
        let id = &watched.subject.image_id;
        Running {
            image,
            image_id: id,
            info: self.infos.get(id.as_str()).and_then(Option::as_ref),
            deployed: self.known.deployed(&watched.subject.instance),
        }
    }

    fn up_to_date(
        &self,
        watched: &Watched<'_>,
        image: &ImageRef,
        digest: &Digest,
        release: Option<&Arc<Release>>,
    ) -> Finding {
        Finding {
            digest: Some(digest.clone()),
            release: release.cloned(),
            first_seen: self.known.first_seen(image, Some(digest), self.now),
            ..self.blank(watched, Some(image), Verdict::UpToDate)
        }
    }

    fn unknown(
        &self,
        watched: &Watched<'_>,
        image: Option<&ImageRef>,
        digest: Option<&Digest>,
        reason: &str,
    ) -> Finding {
        Finding {
            digest: digest.cloned(),
            ..self.blank(watched, image, Verdict::Unknown(reason.to_owned()))
        }
    }

    fn blank(&self, watched: &Watched<'_>, image: Option<&ImageRef>, verdict: Verdict) -> Finding {
        Finding {
            instance: watched.subject.instance.clone(),
            channel: watched.subject.channel.clone(),
            image: image.cloned(),
            digest: None,
            verdict,
            release: None,
            first_seen: self.now,
            checked_at: self.now,
        }
    }
}

/// The release that the engine's own tag offers; none if its id is not a digest.
#[must_use]
pub fn local_release(image: &ImageRef, info: &ImageInfo) -> Option<Release> {
    let digest: Digest = info.id.as_str().parse().ok()?;
    Some(Release {
        image: image.pinned(digest.clone()),
        platform_digest: digest,
        config_digest: None,
        local: Some(info.id.clone()),
        pushed_at: None,
        size_bytes: 0,
        annotations: info.labels.clone(),
    })
}
