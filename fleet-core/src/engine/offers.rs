//! From what detection found to rollouts: what is offered is opened, what waited is asked for once more, and what was
//! withdrawn is taken back.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rollout::{Detected, Prepared, StartError, StartRequest, Started};
use super::tick::Tick;
use super::{Fleet, FleetError};
use crate::detect::{Finding, Verdict};
use crate::ids::RolloutId;
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::model::Channel;
use crate::plan::Limits;
use crate::plan::rollout::Decision;
use crate::plan::strategy::StrategySpec;
use crate::ports::PortError;
use crate::time::Timestamp;
use crate::update::error_chain;

/// When a registry is asked again that could not say whether a release is still there.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// A release that is offered to the instances of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The release.
    pub release: PinnedImage,
    /// The channel whose instances it is offered to.
    pub channel: Channel,
    /// When fleet saw it first.
    pub first_seen: Timestamp,
    /// Whether the engine's own tag is followed, and no registry.
    pub local: bool,
}

/// A release for which no rollout was opened now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The release.
    pub offer: Offer,
    /// Why, for people.
    pub why: String,
    /// From when on it is worth another try; none: not before it is found again.
    pub again_at: Option<Timestamp>,
}

/// What detection and planning did.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    pub(super) opened: Vec<RolloutId>,
    pub(super) waiting: Vec<Waiting>,
    /// What waited and is not what its reference points to any more.
    pub(super) gone: Vec<Offer>,
}

/// What a reference points to, for a channel.
#[derive(Debug)]
pub(super) struct Reference {
    /// The reference, and the digest under it.
    pub(super) now_there: PinnedImage,
    /// The channel that was asked for.
    pub(super) channel: Channel,
    /// Whether the engine's own tag is followed, and no registry.
    pub(super) local: bool,
}

/// What becomes of an offer for which no rollout is opened.
enum NotOpened {
    /// It waits.
    Waits {
        why: String,
        again_at: Option<Timestamp>,
    },
    /// Nothing is to be done for it.
    Done,
    /// Its reference points elsewhere.
    Gone,
}

/// How rollouts that detection opens are made.
struct Defaults {
    strategy: StrategySpec,
    limits: Limits,
    needs_approval: bool,
}

impl Fleet {
    /// One rollout for each release that a poll just offered to a channel, if it is its time.
    pub(super) async fn open_rollouts(
        &self,
        tick: &Tick<'_>,
        offers: Vec<Offer>,
    ) -> Result<Looked, FleetError> {
        self.open_those(tick, offers, false).await
    }

    /// The same for releases that waited: each is asked for once more, and opened only if it is still there.
    pub(super) async fn open_what_waited(
        &self,
        tick: &Tick<'_>,
        offers: Vec<Offer>,
    ) -> Result<Looked, FleetError> {
        self.open_those(tick, offers, true).await
    }

    async fn open_those(
        &self,
        tick: &Tick<'_>,
        offers: Vec<Offer>,
        waited: bool,
    ) -> Result<Looked, FleetError> {
        let mut looked = Looked::default();
        if offers.is_empty() {
            return Ok(looked);
        }
        let defaults = Defaults {
            strategy: self.default_strategy().await?,
            limits: self.default_limits().await?,
            needs_approval: self.planner_settings().await?.needs_approval,
        };
        for offer in offers {
            match self.open_one(tick, &offer, &defaults, waited).await {
                Ok(Ok(id)) => looked.opened.push(id),
                Ok(Err(NotOpened::Done)) => {}
                Ok(Err(NotOpened::Gone)) => looked.gone.push(offer),
                Ok(Err(NotOpened::Waits { why, again_at })) => looked.waiting.push(Waiting {
                    offer,
                    why,
                    again_at,
                }),
                // A release that cannot be planned does not keep the others from being rolled out.
                Err(error) => looked.waiting.push(Waiting {
                    offer,
                    why: error_chain(&error),
                    again_at: None,
                }),
            }
        }
        Ok(looked)
    }

    async fn open_one(
        &self,
        tick: &Tick<'_>,
        offer: &Offer,
        defaults: &Defaults,
        waited: bool,
    ) -> Result<Result<RolloutId, NotOpened>, StartError> {
        let request = StartRequest {
            released_at: Some(offer.first_seen),
            strategy: defaults.strategy.clone(),
            limits: defaults.limits,
            needs_approval: defaults.needs_approval,
            ..StartRequest::new(tick.actor, offer.release.clone())
        };
        let channel = Some(offer.channel.clone());
        let orchestrator = tick.orchestrator;
        let prepared = orchestrator
            .prepare(request, channel, offer.first_seen, tick.supersede)
            .await?;
        let plan = match prepared {
            Prepared::Ready(plan) => *plan,
            Prepared::Not(detected) => return Ok(not_opened(detected, offer)),
        };
        if waited {
            let PinnedImage { image, digest } = &offer.release;
            match self.now_under(image, offer.local).await {
                Ok(Some(now)) if now == *digest => {}
                Ok(_) => return Ok(Err(NotOpened::Gone)),
                Err(error) => {
                    let why = format!(
                        "nobody can say whether it is still there: {}",
                        error_chain(&error)
                    );
                    let again_at = self.ports.update.clock.now().saturating_add(ASK_AGAIN);
                    return Ok(Err(NotOpened::Waits {
                        why,
                        again_at: Some(again_at),
                    }));
                }
            }
        }
        let detected = orchestrator.open_prepared(plan, tick.supersede).await?;
        Ok(not_opened(detected, offer))
    }

    /// Stops and takes back the rollouts whose release was withdrawn.
    pub(super) async fn take_back_withdrawn(
        &self,
        tick: &Tick<'_>,
        findings: &[Finding],
    ) -> Result<(), FleetError> {
        let there = references(findings);
        for (id, place) in tick.orchestrator.withdrawn(&there).await? {
            let Reference {
                now_there,
                channel,
                local,
            } = &there[place];
            // One old answer, of a mirror that is behind for instance, must not take a release back.
            match self.now_under(&now_there.image, *local).await {
                Ok(Some(digest)) if digest == now_there.digest => {}
                _ => continue,
            }
            tracing::warn!(rollout = %id, image = %now_there.image, channel = %channel, "its release was withdrawn");
            tick.orchestrator
                .take_back_withdrawn(&id, now_there)
                .await?;
        }
        Ok(())
    }

    /// The digest under a reference at this moment; none if the reference is gone.
    async fn now_under(&self, image: &ImageRef, local: bool) -> Result<Option<Digest>, PortError> {
        if local {
            let tag = image.familiar_tag().unwrap_or_else(|| image.to_string());
            let found = self.ports.update.images.image(&tag).await?;
            return Ok(found.and_then(|info| info.id.as_str().parse().ok()));
        }
        self.ports.releases.begin_cycle();
        match self.ports.releases.digest(image).await {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn not_opened(detected: Detected, offer: &Offer) -> Result<RolloutId, NotOpened> {
    let decision = match detected {
        Detected::Started(Started::Opened(plan)) => return Ok(plan.id()),
        Detected::Started(Started::NothingToDo(_)) => return Err(NotOpened::Done),
        Detected::Decided(decision) => decision,
    };
    Err(NotOpened::Waits {
        why: decision.to_string(),
        again_at: match decision {
            Decision::WaitUntil(at) => Some(at),
            Decision::WaitFor { .. } => Some(offer.first_seen),
            _ => None,
        },
    })
}

/// Releases that are offered to each channel, with the instant at which fleet saw them first.
pub(super) fn offers(findings: &[Finding]) -> Vec<Offer> {
    let mut releases = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.is_offered()) {
        if let (Some(image), Some(digest)) = (&finding.image, &finding.digest) {
            let (first, _) = releases
                .entry((image.clone(), digest.clone(), finding.channel.clone()))
                .or_insert((finding.first_seen, is_local(finding)));
            *first = finding.first_seen.min(*first);
        }
    }
    let offer = |((image, digest, channel), (first_seen, local)): ((ImageRef, _, _), _)| Offer {
        release: image.pinned(digest),
        channel,
        first_seen,
        local,
    };
    releases.into_iter().map(offer).collect()
}

/// What references point to in each channel, as far as somebody could say.
fn references(findings: &[Finding]) -> Vec<Reference> {
    let mut references = BTreeMap::new();
    for finding in findings {
        if let (Some(image), Some(digest)) = (&finding.image, &finding.digest)
            && !matches!(finding.verdict, Verdict::Unknown(_))
        {
            let key = (image.clone(), finding.channel.clone());
            references.insert(key, (digest.clone(), is_local(finding)));
        }
    }
    let reference = |((image, channel), (digest, local)): ((ImageRef, _), _)| Reference {
        now_there: image.pinned(digest),
        channel,
        local,
    };
    references.into_iter().map(reference).collect()
}

fn is_local(finding: &Finding) -> bool {
    let release = finding.release.as_ref();
    release.is_some_and(|release| release.local.is_some())
}

/// Whether a poll leaves an offer that waits as it is: it says the same, or it does not say anything of it.
pub(super) fn still_stands(offer: &Offer, findings: &[Finding]) -> bool {
    let in_channel = findings
        .iter()
        .filter(|finding| finding.channel == offer.channel);
    let PinnedImage { image, digest } = &offer.release;
    let is_unknown = |finding: &&Finding| matches!(finding.verdict, Verdict::Unknown(_));
    let says_so = |finding: &&Finding| {
        finding.image.as_ref() == Some(image)
            && finding.digest.as_ref() == Some(digest)
            && finding.is_offered()
    };
    let may_mean_it = |finding: &&Finding| {
        let same = |other: &ImageRef| other.same_repository(image);
        is_unknown(finding)
            && finding.image.as_ref().is_some_and(same)
            && finding.digest.as_ref().is_none_or(|other| other == digest)
    };
    in_channel
        .clone()
        .any(|finding| says_so(&finding) || may_mean_it(&finding))
}
