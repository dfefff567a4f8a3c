//! The façade as the updater of rollouts: one order is one journalled update.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::try_join_all;

use super::admit::Targets;
use super::instances::{deployed_digest, image_digest};
use super::rollout::{
    FleetView, Happened, InstanceView, UpdateOrder, Updater, UpdaterError, update_end,
};
use super::{Fleet, FleetError, InstanceState, Managed, Survey, Target, UpdateRequest};
use crate::ids::{ImageId, InstanceId, UpdateId};
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::model::{Channel, Container, EngineHealth, ImageInfo, InstanceSettings, Release};
use crate::plan::rollout::{Ending, UpdateEnd};
use crate::plan::strategy::FailureKind;
use crate::plan::{Asked, Candidate, InstanceState as PlanState};
use crate::ports::{Deployed, PortError, ProgressOf, ProgressSink, StoredUpdate};
use crate::update::{Fault, MemberPlan, NO_SPACE, Outcome, SagaError, UpdateState, group};

/// How often an update that lost its engine is taken up again before the rollout asks a person.
const ENGINE_TRIES: u32 = 10;
/// Updates of an instance that are looked back at for how long the next one may take.
const HISTORY: u32 = 10;
/// How old a look at all containers may be for what follows from it at once. What a container is by then is looked at
/// again before anything is done to it.
const JUST_NOW: Duration = Duration::from_secs(1);

/// A fleet that rollouts can order updates from.
pub struct FleetUpdater {
    fleet: Fleet,
    progress: Arc<dyn ProgressSink>,
    seen: Mutex<Seen>,
}

/// What is known of all containers.
#[derive(Default)]
struct Seen {
    /// The last look, and when it was begun.
    last: Option<(Duration, Arc<Survey>)>,
    /// When an update ended last: a look that was begun before may show its instance as it was.
    ended: Duration,
}

impl std::fmt::Debug for FleetUpdater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetUpdater").finish_non_exhaustive()
    }
}

impl FleetUpdater {
    /// An updater over this fleet; its updates report there.
    #[must_use]
    pub fn new(fleet: Fleet, progress: Arc<dyn ProgressSink>) -> Self {
        Self {
            fleet,
            progress,
            seen: Mutex::default(),
        }
    }

    /// Looks at all containers.
    async fn survey(&self) -> Result<Arc<Survey>, FleetError> {
        let begun = self.fleet.ports.update.clock.monotonic();
        let survey = Arc::new(self.fleet.survey().await?);
        let mut seen = self.seen();
        seen.last = (begun >= seen.ended).then(|| (begun, Arc::clone(&survey)));
        Ok(survey)
    }

    /// The look from which the question at hand follows, if it was just now; else another one. With many containers the
    /// look is what costs, and updates end one after the other.
    async fn survey_of_now(&self) -> Result<Arc<Survey>, FleetError> {
        match self.just_seen() {
            Some(survey) => Ok(survey),
            None => self.survey().await,
        }
    }

    fn just_seen(&self) -> Option<Arc<Survey>> {
        let now = self.fleet.ports.update.clock.monotonic();
        let seen = self.seen();
        let (begun, survey) = seen.last.as_ref()?;
        (now.saturating_sub(*begun) <= JUST_NOW).then(|| Arc::clone(survey))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look that still holds for one instance.
    async fn survey_for(&self, name: &str) -> Result<Arc<Survey>, FleetError> {
        let Some(survey) = self.just_seen() else {
            return self.survey().await;
        };
        let known = survey.workload(name).map(|managed| &managed.container.id);
        let now = self.fleet.ports.update.runtime.find(name).await?;
        if known == now.as_ref().map(|container| &container.id) {
            Ok(survey)
        } else {
            self.survey().await
        }
    }

    /// After an update: looks again at what it was about, and leaves the rest of the last look as it is. Where that does
    /// not do, the next question looks at all.
    async fn look_again(&self, members: &[MemberPlan]) {
        let ended = self.fleet.ports.update.clock.monotonic();
        let names = members.iter().map(|member| member.instance.name.as_str());
        let look = |name| self.fleet.ports.update.runtime.find(name);
        let found = match self.just_seen() {
            Some(_) => try_join_all(names.map(look)).await.ok(),
            None => None,
        };
        let mut seen = self.seen();
        seen.ended = ended;
        match (found, seen.last.as_mut()) {
            (Some(found), Some((_, survey))) => {
                let survey = Arc::make_mut(survey);
                let prefix = &self.fleet.options.label_prefix;
                found
                    .into_iter()
                    .flatten()
                    .for_each(|container| survey.replace(prefix, container));
            }
            _ => seen.last = None,
        }
    }

    async fn carry_out(&self, order: &UpdateOrder) -> Result<UpdateEnd, FleetError> {
        let name = order.instance.name.as_str();
        let survey = self.survey_for(name).await?;
        let managed = survey
            .workload(name)
            .ok_or_else(|| Fleet::unknown(&survey, name))?;
        let release = match self.release(managed, order).await {
            Ok(release) => release,
            Err(error) => return Ok(no_release(&error)),
        };
        let request = UpdateRequest {
            instances: vec![name.to_owned()],
            to: Target::Reference(release.image.image.clone()),
            timeout: Some(order.health_timeout),
            // The rollout has looked at them when it gave the order.
            override_window: true,
            retry: order.retry_quarantined,
            actor: order.actor.clone(),
            rollout: Some(order.rollout),
        };
        if let Some(pause) = self.fleet.paused().await? {
            return Ok(update_end(
                Outcome::Refused,
                Some(Fault::NotNow),
                &pause.reason,
                self.now(),
            ));
        }
        let targets = Targets::from([(managed.container.id.clone(), release)]);
        let mut admissions = self.fleet.admit(&survey, &targets, &request).await?;
        let Some(mut admission) = admissions.pop() else {
            return Ok(UpdateEnd::Unchanged);
        };
        admission.plan.id = order.id;
        let progress = ProgressOf::new(name, self.progress.as_ref());
        let report = self.fleet.update_one(&admission, &request, &progress).await;
        self.look_again(&admission.plan.members).await;
        let report = report?;
        let fault = match &report.refusal {
            Some(refusal) if refusal.code == NO_SPACE => {
                let why = refusal.reason.clone();
                return Ok(UpdateEnd::NoSpace { why });
            }
            Some(refusal) if refusal.for_now => Some(Fault::NotNow),
            Some(_) => Some(Fault::Refusal),
            None => report.fault,
        };
        let outcome = report.outcome.unwrap_or(Outcome::NeedsOperator);
        Ok(update_end(
            outcome,
            fault,
            report.reason.as_deref().unwrap_or_default(),
            self.now(),
        ))
    }

    /// The release of an order. What ran before may be in the engine only.
    async fn release(
        &self,
        managed: Managed<'_>,
        order: &UpdateOrder,
    ) -> Result<Release, PortError> {
        let PinnedImage { image, digest } = &order.target;
        if managed.settings.local_source {
            let id = ImageId::new(digest.as_str());
            let local = id
                .ok()
                .map(Target::Local)
                .unwrap_or_else(|| Target::Reference(image.clone()));
            let found = self
                .fleet
                .release_for(managed.settings, managed.container, &local)
                .await?;
            return Ok(Release {
                image: order.target.clone(),
                ..found
            });
        }
        let pinned = order.target.reference();
        let asked = Target::Reference(pinned.clone());
        match self
            .fleet
            .release_for(managed.settings, managed.container, &asked)
            .await
        {
            Ok(release) => Ok(Release {
                image: order.target.clone(),
                ..release
            }),
            Err(error) => match self
                .fleet
                .ports
                .update
                .images
                .image(&order.target.by_digest())
                .await?
            {
                Some(known) => Ok(Release {
                    image: order.target.clone(),
                    platform_digest: digest.clone(),
                    config_digest: None,
                    local: Some(known.id),
                    pushed_at: None,
                    size_bytes: 0,
                    annotations: known.labels,
                }),
                None => Err(error),
            },
        }
    }

    fn now(&self) -> crate::time::Timestamp {
        self.fleet.ports.update.clock.now()
    }

    /// Has recovery finish an update that stopped on the way, as soon as it can.
    async fn after_a_stop(&self, order: &UpdateOrder, why: &str) -> UpdateEnd {
        for _ in 0..ENGINE_TRIES {
            match self.fleet.recover(self.progress.as_ref(), &|_, _| {}).await {
                Ok(_) => match self.happened(&order.id).await {
                    Ok(Happened::Ended(end)) => return end,
                    Ok(Happened::NeverBegan) => break,
                    Ok(Happened::Open) | Err(_) => {}
                },
                Err(error) => tracing::warn!(%error, "recovery failed"),
            }
            self.fleet
                .ports
                .update
                .clock
                .sleep(Duration::from_secs(5))
                .await;
        }
        UpdateEnd::Unsuccessful {
            how: Ending::NeedsOperator,
            kind: FailureKind::Infrastructure,
            why: why.to_owned(),
        }
    }

    async fn candidate(
        &self,
        survey: &Survey,
        managed: Managed<'_>,
        target: &PinnedImage,
        known: &mut Known,
    ) -> Result<Candidate, FleetError> {
        let id = managed.id()?;
        let journal = &self.fleet.ports.update.journal;
        let running = known.digest(&self.fleet, &id, managed.container).await?;
        let history = journal.history(&id, HISTORY).await?;
        let quarantined = journal.quarantined(&id).await?;
        let found = group(
            &survey.inventory,
            &survey.settings,
            std::slice::from_ref(&managed.container.id),
        );
        let root = found
            .members
            .first()
            .and_then(|first| survey.inventory.by_id(first));
        let current: Option<Digest> = running.parse().ok();
        Ok(Candidate {
            behind: current.as_ref().map(|current| *current != target.digest),
            current,
            state: known.states.get(&id).copied().unwrap_or_default(),
            healthy: is_well(managed),
            quarantined: quarantined
                .iter()
                .any(|known| known.digest == target.digest),
            failed_before: history.first().is_some_and(failed),
            own: self.fleet.options.own_container.as_ref() == Some(&managed.container.id),
            group: root
                .filter(|_| found.members.len() > 1)
                .and_then(|root| root.instance_name()),
            estimate: history.iter().map(took).max(),
            ..Candidate::new(id, managed.settings)
        })
    }

    async fn known(&self) -> Result<Known, FleetError> {
        let journal = &self.fleet.ports.update.journal;
        let mut states = BTreeMap::new();
        for update in journal.load_open().await? {
            let state =
                match InstanceState::of(&UpdateState::replay(update.plan.clone(), &update.entries))
                {
                    InstanceState::NeedsOperator => PlanState::NeedsOperator,
                    InstanceState::Diverged => PlanState::Diverged,
                    _ => PlanState::Updating,
                };
            states.extend(
                update
                    .plan
                    .members
                    .into_iter()
                    .map(|member| (member.instance, state)),
            );
        }
        let deployed = journal.deployed().await?.into_iter();
        Ok(Known {
            states,
            deployed: deployed
                .map(|known| (known.instance.clone(), known))
                .collect(),
            images: BTreeMap::new(),
        })
    }

    async fn view(&self) -> Result<FleetView, FleetError> {
        let survey = self.survey_of_now().await?;
        let known = self.known().await?;
        let tenants = self.fleet.ports.configs.list().await?;
        let mut instances = Vec::new();
        for managed in survey.managed() {
            let instance = managed.id()?;
            instances.push(InstanceView {
                healthy: is_well(managed),
                state: known.states.get(&instance).copied().unwrap_or_default(),
                tenant: managed.settings.tenant.clone(),
                instance,
            });
        }
        Ok(FleetView {
            settings: self.fleet.ports.settings.settings().await?,
            tenants: tenants
                .into_iter()
                .map(|tenant| (tenant.tenant, tenant.config))
                .collect(),
            instances,
        })
    }

    async fn about(
        &self,
        target: &PinnedImage,
        asked: &Asked,
    ) -> Result<Vec<Candidate>, FleetError> {
        let survey = self.survey_of_now().await?;
        let mut known = self.known().await?;
        let mut candidates = Vec::new();
        for managed in survey.managed() {
            if follows(
                managed.container.image.as_str(),
                managed.settings,
                target,
                asked,
            ) {
                candidates.push(self.candidate(&survey, managed, target, &mut known).await?);
            }
        }
        Ok(candidates)
    }
}

/// What the stores say of all instances, and the engine of their images.
struct Known {
    states: BTreeMap<InstanceId, PlanState>,
    deployed: BTreeMap<InstanceId, Deployed>,
    /// Those that were asked for: many instances share an image.
    images: BTreeMap<ImageId, Option<ImageInfo>>,
}

impl Known {
    /// The digest that an instance runs.
    async fn digest(
        &mut self,
        fleet: &Fleet,
        id: &InstanceId,
        container: &Container,
    ) -> Result<String, FleetError> {
        if let Some(digest) = deployed_digest(self.deployed.get(id), container) {
            return Ok(digest);
        }
        if !self.images.contains_key(&container.image_id) {
            let found = fleet.image_of(container).await?;
            self.images.insert(container.image_id.clone(), found);
        }
        let image = self
            .images
            .get(&container.image_id)
            .and_then(Option::as_ref);
        Ok(image_digest(image, container))
    }
}

#[async_trait]
impl Updater for FleetUpdater {
    async fn update_instance(&self, order: &UpdateOrder) -> UpdateEnd {
        let carried_out = AssertUnwindSafe(self.carry_out(order)).catch_unwind().await;
        match carried_out {
            // The other updates of the rollout go on; recovery looks at what is there, as after a crash.
            Err(_) => {
                self.after_a_stop(order, "the update stopped by a defect in fleet")
                    .await
            }
            Ok(Ok(end)) => end,
            Ok(Err(FleetError::Saga(SagaError::EngineAway { .. }))) => {
                self.after_a_stop(order, "the engine stayed away").await
            }
            // The process is about to end: the next one reads in the journal how far this came.
            Ok(Err(FleetError::Saga(SagaError::Stopped { .. }))) => std::future::pending().await,
            // The outcome stands; only the clean-up is left to the next recovery.
            Ok(Err(FleetError::Saga(SagaError::CleanUp { reason }))) => {
                match self.happened(&order.id).await {
                    Ok(Happened::Ended(end)) => end,
                    _ => infrastructure(reason),
                }
            }
            Ok(Err(error)) => infrastructure(crate::update::error_chain(&error)),
        }
    }

    async fn happened(&self, update: &UpdateId) -> Result<Happened, UpdaterError> {
        let stored = self
            .fleet
            .ports
            .update
            .journal
            .load(update)
            .await
            .map_err(|error| unanswered(error.into()))?;
        let Some(stored) = stored else {
            return Ok(Happened::NeverBegan);
        };
        let state = UpdateState::replay(stored.plan, &stored.entries);
        let Some(outcome) = state.outcome else {
            return Ok(Happened::Open);
        };
        let fault = state.cause.as_ref().map(|cause| cause.fault);
        Ok(Happened::Ended(update_end(
            outcome,
            fault,
            &state.outcome_reason,
            self.now(),
        )))
    }

    async fn fleet(&self) -> Result<FleetView, UpdaterError> {
        self.view().await.map_err(unanswered)
    }

    async fn candidates(
        &self,
        target: &PinnedImage,
        asked: &Asked,
    ) -> Result<Vec<Candidate>, UpdaterError> {
        self.about(target, asked).await.map_err(unanswered)
    }

    async fn probe(&self, target: &PinnedImage) -> bool {
        if self.fleet.ports.update.runtime.info().await.is_err() {
            return false;
        }
        let in_engine = self
            .fleet
            .ports
            .update
            .images
            .image(&target.by_digest())
            .await;
        matches!(in_engine, Ok(Some(_)))
            || self
                .fleet
                .ports
                .releases
                .digest(&target.image)
                .await
                .is_ok()
    }

    async fn has_space(&self, instance: &InstanceId) -> bool {
        match self.fits(instance).await {
            Ok(fits) => fits,
            // It is gone, or cannot be looked at: its update says so better than a hold.
            Err(error) => {
                tracing::warn!(%instance, error = crate::update::error_chain(&error), "no look at its volumes");
                true
            }
        }
    }
}

impl FleetUpdater {
    async fn fits(&self, instance: &InstanceId) -> Result<bool, FleetError> {
        let survey = self.survey_of_now().await?;
        let name = instance.name.as_str();
        let managed = survey
            .workload(name)
            .ok_or_else(|| Fleet::unknown(&survey, name))?;
        let choice = &managed.settings.snapshot;
        let estimate = self.fleet.estimate(managed.container, choice).await?;
        Ok(estimate.is_none_or(|estimate| estimate.fits()))
    }
}

/// Whether an instance follows the target: by repository, and for detection by the very reference and the channel.
fn follows(image: &str, settings: &InstanceSettings, target: &PinnedImage, asked: &Asked) -> bool {
    let Ok(image) = image.parse::<ImageRef>() else {
        return false;
    };
    let tag_may_move = settings.tag_policy != crate::model::labels::TagPolicy::Digest;
    let in_repository = image.same_repository(&target.image);
    match asked {
        Asked::ByDetection { channel } => {
            let polled = |channel: &Channel| *channel == settings.channel;
            in_repository
                && (tag_may_move || image.tag() == target.image.tag())
                && channel.as_ref().is_none_or(polled)
        }
        _ => in_repository,
    }
}

fn is_well(managed: Managed<'_>) -> bool {
    managed.container.is_up() && managed.container.health != Some(EngineHealth::Unhealthy)
}

fn failed(last: &StoredUpdate) -> bool {
    !matches!(
        last.outcome,
        Some(Outcome::Committed | Outcome::Unchanged | Outcome::Refused)
    )
}

fn took(update: &StoredUpdate) -> Duration {
    let (first, last) = (update.entries.first(), update.entries.last());
    first
        .zip(last)
        .map_or(Duration::ZERO, |(first, last)| last.at.since(first.at))
}

fn no_release(error: &PortError) -> UpdateEnd {
    let why = crate::update::error_chain(error);
    if error.is_transient() {
        infrastructure(why)
    } else {
        UpdateEnd::Refused { why }
    }
}

fn infrastructure(why: String) -> UpdateEnd {
    UpdateEnd::Unsuccessful {
        how: Ending::Failed,
        kind: FailureKind::Infrastructure,
        why,
    }
}

fn unanswered(error: FleetError) -> UpdaterError {
    UpdaterError {
        message: "the fleet cannot be looked at".to_owned(),
        source: Some(Box::new(error)),
    }
}
