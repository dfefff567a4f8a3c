//! What was found out about one instance.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::InstanceId;
use crate::image::{Digest, ImageRef};
use crate::model::{Channel, Release};
use crate::ports::Availability;
use crate::time::Timestamp;

/// What was found out about one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The instance.
    pub instance: InstanceId,
    /// The channel that it follows.
    pub channel: Channel,
    /// The reference that was asked for; with a tag policy its tag may be another than the container's. None where
    /// there is nothing to ask for.
    pub image: Option<ImageRef>,
    /// The digest under it; none where nobody could say.
    pub digest: Option<Digest>,
    /// What follows.
    pub verdict: Verdict,
    /// The release, where it was read: always for [`Verdict::Offered`].
    pub release: Option<Arc<Release>>,
    /// When fleet saw this digest first.
    pub first_seen: Timestamp,
    /// When fleet looked.
    pub checked_at: Timestamp,
}

/// What follows from what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// What would run is what runs.
    UpToDate,
    /// Another image would run, and nothing in its own settings speaks against it.
    Offered,
    /// Another image would run, but it is not to be taken.
    Held(Hold),
    /// Nobody could say. Never the same as up to date.
    Unknown(String),
}

/// Why another image is not to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// No rule of the image policy names its repository.
    NotAllowed,
    /// It failed on this instance before.
    Quarantined,
    /// It ran here before what runs now: the tag moved back.
    MovedBackwards,
    /// It is younger than the instance's minimum age.
    TooYoung {
        /// When it will be old enough.
        ready_at: Timestamp,
        /// How old it must be.
        min_age: Duration,
    },
}

impl Hold {
    /// Stable word for scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Quarantined => "known_bad",
            Self::MovedBackwards => "moved_backwards",
            Self::TooYoung { .. } => "too_young",
        }
    }

    /// The holds that do not end by themselves: somebody must know of them.
    pub const ALERTS: [Self; 3] = [Self::NotAllowed, Self::Quarantined, Self::MovedBackwards];
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("the image policy does not allow its repository"),
            Self::Quarantined => f.write_str("it failed on this instance before"),
            Self::MovedBackwards => {
                f.write_str("moved backwards: the tag points to what ran here before")
            }
            Self::TooYoung { ready_at, min_age } => {
                write!(f, "younger than {} s, until {ready_at}", min_age.as_secs())
            }
        }
    }
}

impl Finding {
    /// Whether there is something to update to now.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.verdict == Verdict::Offered
    }

    /// The finding as it is stored, without its lag; none where there is no reference. A held one is behind and has a note;
    /// whoever acts by what is stored must leave those alone.
    #[must_use]
    pub fn availability(&self) -> Option<Availability> {
        let (behind, note) = match &self.verdict {
            Verdict::UpToDate => (Some(false), None),
            Verdict::Offered => (Some(true), None),
            Verdict::Held(hold) => (Some(true), Some(hold.to_string())),
            Verdict::Unknown(reason) => (None, Some(reason.clone())),
        };
        Some(Availability {
            instance: self.instance.clone(),
            image: self.image.clone()?,
            digest: self.digest.clone(),
            behind,
            note,
            first_seen: self.first_seen,
            checked_at: self.checked_at,
            lag: None,
        })
    }
}
