//! One tick: the five stages, once, in order.
//!
//! A tick is idempotent and takes no hint about what changed: everything follows from the stores and from the fleet as
//! it is. A timer, an engine event or a command may wake it sooner; none of them is needed.

use std::collections::{BTreeMap, BTreeSet};

use super::rollout::{Detected, Orchestrator, StartRequest, Started};
use super::{Fleet, FleetError, Recovery, Target};
use crate::detect::Finding;
use crate::ids::RolloutId;
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::plan::rollout::SupersedePolicy;
use crate::plan::strategy::StrategySpec;
use crate::ports::{Availability, ProgressSink, StoredUpdate};
use crate::time::Timestamp;
use crate::update::Verdict;

/// What a tick needs beside the fleet.
pub struct Tick<'a> {
    /// Drives the rollouts of this fleet.
    pub orchestrator: &'a Orchestrator,
    /// What a newer release means for the rollout that is going on.
    pub supersede: SupersedePolicy,
    /// Where progress goes.
    pub progress: &'a dyn ProgressSink,
    /// Hears each verdict of recovery before it is executed.
    pub told: &'a (dyn Fn(&StoredUpdate, &Verdict) + Sync),
    /// In whose name: `fleet` for the daemon.
    pub actor: &'a str,
}

impl std::fmt::Debug for Tick<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tick")
            .field("actor", &self.actor)
            .finish_non_exhaustive()
    }
}

/// What a tick did.
#[derive(Debug)]
pub struct Ticked {
    /// Open updates that recovery dealt with.
    pub recoveries: Vec<Recovery>,
    /// What was found out about each instance.
    pub findings: Vec<Finding>,
    /// Rollouts that were opened.
    pub opened: Vec<RolloutId>,
    /// Releases for which none was opened now, and why.
    pub waiting: Vec<(ImageRef, String)>,
}

impl Fleet {
    /// Recovers, asks what is new, opens rollouts for what is offered, and brings all rollouts as far as they may go
    /// now.
    ///
    /// # Errors
    /// The engine or a store failed. What had begun is in the journal; the next tick goes on.
    pub async fn tick(&self, tick: &Tick<'_>) -> Result<Ticked, FleetError> {
        // Before anything new: what a dead process left.
        let recoveries = self.recover(tick.progress, tick.told).await?;
        // 1. detect
        let findings = self.check(tick.actor).await?;
        // 2. plan
        let (opened, waiting) = self.open_rollouts(tick, &findings).await?;
        // 3. update, and 4. record: each change is written with its events.
        tick.orchestrator.run_due().await?;
        // 5. notify: messages follow from the events.
        Ok(Ticked {
            recoveries,
            findings,
            opened,
            waiting,
        })
    }

    /// Releases that the last check offered to an instance.
    ///
    /// # Errors
    /// The store failed.
    pub async fn offered(&self) -> Result<Vec<PinnedImage>, FleetError> {
        let found = self.ports.availability.available().await?;
        let behind = found.into_iter().filter(Availability::is_offered);
        let releases: BTreeSet<_> = behind
            .filter_map(|found| Some((found.image, found.digest?)))
            .collect();
        Ok(releases
            .into_iter()
            .map(|(image, digest)| image.pinned(digest))
            .collect())
    }

    /// The release under a reference now: at the registry, or in the engine where the instances of that repository
    /// follow the engine's own tag.
    ///
    /// # Errors
    /// There is none, the policy does not allow it, or nobody can say.
    pub async fn pin(&self, image: &ImageRef) -> Result<PinnedImage, FleetError> {
        self.allow(image)?;
        let survey = self.survey().await?;
        let follower = survey.managed().find(|managed| {
            managed
                .container
                .image
                .parse::<ImageRef>()
                .is_ok_and(|own| own.same_repository(image))
        });
        let release = match follower {
            Some(managed) => {
                let target = Target::Reference(image.clone());
                self.release_for(managed.settings, managed.container, &target)
                    .await?
            }
            None => {
                let platform = self.ports.update.runtime.info().await?.platform;
                self.ports.releases.resolve(image, &platform).await?
            }
        };
        Ok(release.image)
    }

    /// One rollout for each release that is offered, if it is its time.
    async fn open_rollouts(
        &self,
        tick: &Tick<'_>,
        findings: &[Finding],
    ) -> Result<(Vec<RolloutId>, Vec<(ImageRef, String)>), FleetError> {
        let strategy = self.default_strategy().await?;
        let (mut opened, mut waiting) = (Vec::new(), Vec::new());
        for ((image, digest), first_seen) in offered(findings) {
            let request = StartRequest {
                released_at: Some(first_seen),
                strategy: strategy.clone(),
                ..StartRequest::new(tick.actor, image.pinned(digest))
            };
            match tick
                .orchestrator
                .detected(request, first_seen, tick.supersede)
                .await
            {
                Ok(Detected::Started(Started::Opened(plan))) => opened.push(plan.id()),
                Ok(Detected::Started(Started::NothingToDo(_))) => {}
                Ok(Detected::Decided(decision)) => waiting.push((image, decision.to_string())),
                // A release that cannot be planned does not keep the others from being rolled out.
                Err(error) => waiting.push((image, crate::update::error_chain(&error))),
            }
        }
        Ok((opened, waiting))
    }

    /// The strategy of rollouts that nobody chose one for: setting `default.strategy`, else rolling.
    ///
    /// # Errors
    /// The store failed.
    pub async fn default_strategy(&self) -> Result<StrategySpec, FleetError> {
        let settings = self.ports.settings.settings().await?;
        Ok(settings
            .values
            .get("default.strategy")
            .map(|name| StrategySpec::named(name))
            .unwrap_or_default())
    }
}

/// Releases that are offered, each with the instant at which fleet saw it first.
fn offered(findings: &[Finding]) -> BTreeMap<(ImageRef, Digest), Timestamp> {
    let mut releases = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.is_offered()) {
        if let (Some(image), Some(digest)) = (&finding.image, &finding.digest) {
            let first = releases
                .entry((image.clone(), digest.clone()))
                .or_insert(finding.first_seen);
            *first = finding.first_seen.min(*first);
        }
    }
    releases
}
