//! What fleet remembers, as far as detection needs it.

use std::collections::{BTreeMap, BTreeSet};

use super::image_policy::ImagePolicy;
use crate::ids::InstanceId;
use crate::image::{Digest, ImageRef};
use crate::ports::{Availability, Deployed, Quarantined};
use crate::time::Timestamp;

/// What fleet remembers.
#[derive(Debug, Clone, Default)]
pub struct Known {
    policy: Option<ImagePolicy>,
    deployed: BTreeMap<InstanceId, Deployed>,
    quarantined: BTreeMap<InstanceId, BTreeSet<Digest>>,
    former: BTreeMap<InstanceId, BTreeSet<Digest>>,
    first_seen: BTreeMap<(String, String), BTreeMap<Digest, Timestamp>>,
}

impl Known {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the image policy; without this call everything is allowed.
    #[must_use]
    pub fn with_policy(mut self, policy: Option<ImagePolicy>) -> Self {
        self.policy = policy;
        self
    }

    /// With what fleet put on each instance.
    #[must_use]
    pub fn with_deployed(mut self, deployed: impl IntoIterator<Item = Deployed>) -> Self {
        let rows = deployed.into_iter().map(|row| (row.instance.clone(), row));
        self.deployed.extend(rows);
        self
    }

    /// With what failed before.
    #[must_use]
    pub fn with_quarantined(mut self, quarantined: impl IntoIterator<Item = Quarantined>) -> Self {
        for row in quarantined {
            self.quarantined
                .entry(row.instance)
                .or_default()
                .insert(row.digest);
        }
        self
    }

    /// With the findings of earlier checks: when each digest was first seen, by whichever instance.
    #[must_use]
    pub fn with_findings<'a>(mut self, found: impl IntoIterator<Item = &'a Availability>) -> Self {
        for row in found {
            if let Some(digest) = &row.digest {
                let seen = self
                    .first_seen
                    .entry(repository_of(&row.image))
                    .or_default();
                let first = seen.entry(digest.clone()).or_insert(row.first_seen);
                *first = row.first_seen.min(*first);
            }
        }
        self
    }

    /// With digests, of any kind, and image ids that an instance ran before what it runs now.
    #[must_use]
    pub fn with_former(
        mut self,
        instance: &InstanceId,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Self {
        self.former
            .entry(instance.clone())
            .or_default()
            .extend(digests);
        self
    }

    pub(super) fn allows(&self, image: &ImageRef) -> bool {
        self.policy
            .as_ref()
            .is_none_or(|policy| policy.check(image).is_ok())
    }

    pub(super) fn deployed(&self, instance: &InstanceId) -> Option<&Deployed> {
        self.deployed.get(instance)
    }

    pub(super) fn is_quarantined(&self, instance: &InstanceId, digest: &Digest) -> bool {
        self.quarantined
            .get(instance)
            .is_some_and(|digests| digests.contains(digest))
    }

    pub(super) fn ran_formerly(&self, instance: &InstanceId, digest: &Digest) -> bool {
        let now = self.deployed.get(instance).map(|deployed| &deployed.digest);
        now != Some(digest)
            && self
                .former
                .get(instance)
                .is_some_and(|digests| digests.contains(digest))
    }

    /// When a digest of a repository was seen first, `now` if it never was.
    pub(super) fn first_seen(
        &self,
        image: &ImageRef,
        digest: Option<&Digest>,
        now: Timestamp,
    ) -> Timestamp {
        let seen = self.first_seen.get(&repository_of(image));
        let first = seen.and_then(|seen| seen.get(digest?));
        // A first sight in the future is a clock that was set back since.
        first.copied().map_or(now, |first| first.min(now))
    }
}

fn repository_of(image: &ImageRef) -> (String, String) {
    (image.registry().to_owned(), image.repository().to_owned())
}
