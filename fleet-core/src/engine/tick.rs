//! One tick: the five stages, once, in order.
//!
//! A tick is idempotent and takes no hint about what changed: everything follows from the stores and from the fleet as
//! it is. A timer, an engine event or a command may wake it sooner; none of them is needed.

use std::collections::BTreeSet;

use super::offers::{Looked, Waiting, offers};
use super::rollout::{Orchestrator, RolloutError};
use super::{Fleet, FleetError, Recovery, Target};
use crate::detect::Finding;
use crate::ids::RolloutId;
use crate::image::{ImageRef, PinnedImage};
use crate::model::Channel;
use crate::plan::rollout::SupersedePolicy;
use crate::plan::strategy::StrategySpec;
use crate::plan::{Limits, PlannerSettings};
use crate::ports::{Availability, ProgressSink, StoredUpdate};
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
    /// Releases for which none was opened now.
    pub waiting: Vec<Waiting>,
}

impl Fleet {
    /// Recovers, asks what is new, opens rollouts for what is offered, and brings all rollouts as far as they may go
    /// now. One whole cycle; [`super::Daemon`] takes the same stages each at its own time.
    ///
    /// # Errors
    /// The engine or a store failed. What had begun is in the journal; the next tick goes on.
    pub async fn tick(&self, tick: &Tick<'_>) -> Result<Ticked, FleetError> {
        // Before anything new: what a dead process left.
        let recoveries = self.recover(tick.progress, tick.told).await?;
        let Looked {
            findings,
            opened,
            waiting,
            ..
        } = self.look(tick, &|_| true).await?;
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

    /// The stages before an update, for the channels that are due.
    pub(super) async fn look(
        &self,
        tick: &Tick<'_>,
        is_due: &(dyn Fn(&Channel) -> bool + Sync),
    ) -> Result<Looked, FleetError> {
        // 1. detect
        let findings = self.check_those(tick.actor, is_due).await?;
        // 2. plan
        self.take_back_withdrawn(tick, &findings).await?;
        let looked = self.open_rollouts(tick, offers(&findings)).await?;
        Ok(Looked { findings, ..looked })
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

    /// The strategy of rollouts that nobody chose one for, see [`StrategySpec::of_settings`].
    ///
    /// # Errors
    /// The store failed, or a setting cannot be read.
    pub async fn default_strategy(&self) -> Result<StrategySpec, FleetError> {
        let settings = self.ports.settings.settings().await?;
        Ok(StrategySpec::of_settings(&settings).map_err(RolloutError::from)?)
    }

    /// What the settings of the fleet say to the planner.
    ///
    /// # Errors
    /// The store failed, or a setting cannot be read.
    pub async fn planner_settings(&self) -> Result<PlannerSettings, FleetError> {
        let settings = self.ports.settings.settings().await?;
        Ok(PlannerSettings::read(&settings).map_err(RolloutError::from)?)
    }

    /// The bounds of rollouts that nobody chose others for, see [`Limits::of_settings`].
    ///
    /// # Errors
    /// The store failed, or a setting cannot be read.
    pub async fn default_limits(&self) -> Result<Limits, FleetError> {
        let settings = self.ports.settings.settings().await?;
        Ok(Limits::of_settings(&settings).map_err(RolloutError::from)?)
    }
}
