//! The façade as the updater of rollouts: one order is one journalled update.

mod ends;
mod held;
mod seen;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use self::seen::Seen;
use super::admit::{Admission, Targets};
use super::instances::{deployed_digest, image_digest};
use super::rollout::{
    FleetView, Happened, InstanceView, UpdateOrder, Updater, UpdaterError, update_end,
};
use super::{Fleet, FleetError, InstanceState, Managed, Survey, Target, UpdateRequest};
use crate::ids::{ContainerId, ImageId, InstanceId, InstanceName, RolloutId, TenantId, UpdateId};
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::model::labels::LabelMode;
use crate::model::{Channel, Container, EngineHealth, ImageInfo, InstanceSettings, Release};
use crate::plan::rollout::{Ending, UpdateEnd};
use crate::plan::strategy::FailureKind;
use crate::plan::{Asked, Candidate, InstanceState as PlanState, RolloutKind, mode_of};
use crate::ports::{Deployed, PortError, ProgressOf, ProgressSink, StoredUpdate};
use crate::update::{Fault, MemberPlan, NO_SPACE, Outcome, Phase, UpdateState, groups};

/// Updates of an instance that are looked back at for how long the next one may take.
const HISTORY: u32 = 10;
/// A fleet that rollouts can order updates from.
pub struct FleetUpdater {
    fleet: Fleet,
    progress: Arc<dyn ProgressSink>,
    seen: Mutex<Seen>,
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

    async fn carry_out(
        &self,
        order: &UpdateOrder,
        guard: Option<&str>,
    ) -> Result<UpdateEnd, FleetError> {
        let name = order.instance.name.as_str();
        let survey = self.survey_for(name).await?;
        let Some(managed) = survey.workload(name) else {
            let why = format!("there is no instance {name} any more");
            return Ok(UpdateEnd::Refused { why });
        };
        let mut targets = Targets::new();
        let others = order.with.iter();
        for (instance, target) in others.chain([&(order.instance.clone(), order.target.clone())]) {
            // One that is gone, or has it already, does not keep the others.
            let Some(one) = survey.workload(instance.name.as_str()) else {
                continue;
            };
            match self.release(one, target).await {
                Ok(release) => targets.insert(one.container.id.clone(), release),
                Err(error) => return Ok(no_release(&error)),
            };
        }
        let request = UpdateRequest {
            instances: vec![name.to_owned()],
            to: Target::Reference(order.target.image.clone()),
            timeout: Some(order.health_timeout),
            // The rollout has looked at them when it gave the order.
            override_window: true,
            retry: order.retry_quarantined,
            actor: order.actor.clone(),
            rollout: Some(order.rollout),
        };
        let pause = match order.kind {
            RolloutKind::Forward => self.fleet.paused().await?,
            RolloutKind::Rollback => None,
        };
        if let Some(pause) = pause {
            return Ok(update_end(
                Outcome::Refused,
                Some(Fault::NotNow),
                &pause.reason,
                self.now(),
            ));
        }
        let admissions = self.fleet.admit(&survey, &targets, &request).await?;
        // What was of its group when the rollout was planned and no longer is, is not updated on its account.
        let container = &managed.container.id;
        let its_own = |admission: &Admission| {
            let mut members = admission.plan.members.iter();
            members.any(|member| member.container == *container)
        };
        let Some(mut admission) = admissions.into_iter().find(its_own) else {
            return Ok(UpdateEnd::Unchanged);
        };
        admission.plan.id = order.id;
        admission.plan.shared_guard = guard.map(str::to_owned);
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
        target: &PinnedImage,
    ) -> Result<Release, PortError> {
        let PinnedImage { image, digest } = target;
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
                image: target.clone(),
                ..found
            });
        }
        let pinned = target.reference();
        let asked = Target::Reference(pinned.clone());
        match self
            .fleet
            .release_for(managed.settings, managed.container, &asked)
            .await
        {
            Ok(release) => Ok(Release {
                image: target.clone(),
                ..release
            }),
            Err(error) => match self
                .fleet
                .ports
                .update
                .images
                .image(&target.by_digest())
                .await?
            {
                Some(known) => Ok(Release {
                    image: target.clone(),
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

    async fn candidate(
        &self,
        managed: Managed<'_>,
        target: &PinnedImage,
        known: &mut Known,
    ) -> Result<Candidate, FleetError> {
        let id = managed.id()?;
        let journal = &self.fleet.ports.update.journal;
        let running = known.digest(&self.fleet, &id, managed.container).await?;
        let history = journal.history(&id, HISTORY).await?;
        let quarantined = journal.quarantined(&id).await?;
        let current: Option<Digest> = running.parse().ok();
        Ok(Candidate {
            behind: current.as_ref().map(|current| *current != target.digest),
            current,
            state: known.state(&id),
            healthy: is_well(managed),
            quarantined: quarantined
                .iter()
                .any(|known| known.digest == target.digest),
            failed_before: history.first().is_some_and(failed),
            own: self.fleet.options.own_container.as_ref() == Some(&managed.container.id),
            group: known.groups.get(&managed.container.id).cloned(),
            estimate: history.iter().filter_map(took).max(),
            ..Candidate::new(id, managed.settings)
        })
    }

    async fn known(&self) -> Result<Known, FleetError> {
        let journal = &self.fleet.ports.update.journal;
        let mut open = BTreeMap::new();
        for update in journal.load_open().await? {
            let state =
                match InstanceState::of(&UpdateState::replay(update.plan.clone(), &update.entries))
                {
                    InstanceState::NeedsOperator => PlanState::NeedsOperator,
                    InstanceState::Diverged => PlanState::Diverged,
                    _ => PlanState::Updating,
                };
            let members = update.plan.members.into_iter();
            open.extend(members.map(
                |MemberPlan {
                     instance, tenant, ..
                 }| { (instance, OpenUpdate { state, tenant }) },
            ));
        }
        let deployed = journal.deployed().await?.into_iter();
        Ok(Known {
            groups: BTreeMap::new(),
            open,
            deployed: deployed
                .map(|known| (known.instance.clone(), known))
                .collect(),
            images: BTreeMap::new(),
        })
    }

    async fn view(&self) -> Result<FleetView, FleetError> {
        let survey = self.survey_of_now().await?;
        let mut known = self.known().await?;
        let settings = self.fleet.ports.settings.settings().await?;
        let tenants = self.fleet.ports.configs.list().await?.into_iter();
        let tenants: BTreeMap<_, _> = tenants
            .map(|tenant| (tenant.tenant, tenant.config))
            .collect();
        let mut instances = Vec::new();
        for managed in survey.managed() {
            let instance = managed.id()?;
            let own = managed.settings;
            let (tenant, policy) = (tenants.get(&own.tenant), own.policy.as_deref());
            instances.push(InstanceView {
                healthy: is_well(managed),
                state: known
                    .open
                    .remove(&instance)
                    .map_or(PlanState::Idle, |open| open.state),
                tenant: own.tenant.clone(),
                instance,
                label_mode: own.mode,
                mode: mode_of(settings.mode, tenant, own.mode, policy),
            });
        }
        // In mid-update no container may have its name.
        let out_of_sight = known.open.into_iter().map(|(instance, open)| InstanceView {
            healthy: false,
            state: open.state,
            tenant: open.tenant,
            instance,
            label_mode: None,
            mode: LabelMode::Auto,
        });
        instances.extend(out_of_sight);
        Ok(FleetView {
            settings,
            tenants,
            instances,
        })
    }

    async fn about(
        &self,
        target: &PinnedImage,
        asked: &Asked,
    ) -> Result<Vec<Candidate>, FleetError> {
        let survey = self.survey_of_now().await?;
        let followers = survey.managed().filter(|managed| {
            let image = managed.container.image.as_str();
            follows(image, managed.settings, target, asked)
        });
        let followers: Vec<Managed<'_>> = followers.collect();
        let mut known = self.known().await?;
        known.groups = groups_of(&survey, &followers);
        let mut candidates = Vec::new();
        for managed in followers {
            candidates.push(self.candidate(managed, target, &mut known).await?);
        }
        Ok(candidates)
    }
}

/// What the stores say of all instances, and the engine of their images.
struct Known {
    /// For those that move together, the first of them.
    groups: BTreeMap<ContainerId, InstanceName>,
    open: BTreeMap<InstanceId, OpenUpdate>,
    deployed: BTreeMap<InstanceId, Deployed>,
    /// Those that were asked for: many instances share an image.
    images: BTreeMap<ImageId, Option<ImageInfo>>,
}

/// What an update that is not over says of an instance.
struct OpenUpdate {
    state: PlanState,
    tenant: TenantId,
}

impl Known {
    fn state(&self, instance: &InstanceId) -> PlanState {
        self.open
            .get(instance)
            .map_or(PlanState::Idle, |open| open.state)
    }

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
        self.held(order).await
    }

    async fn happened(&self, update: &UpdateId) -> Result<Happened, UpdaterError> {
        self.became(update).await
    }

    async fn remove_leftovers(&self, rollout: &RolloutId) {
        if let Err(error) = self.remove_guards_left(rollout).await {
            tracing::warn!(%rollout, %error, "what an earlier process left may still be there");
        }
    }

    async fn ran_before(
        &self,
        rollout: &RolloutId,
        instance: &InstanceId,
    ) -> Result<Option<PinnedImage>, UpdaterError> {
        let journal = &self.fleet.ports.update.journal;
        let history = journal.history(instance, HISTORY).await;
        let history = history.map_err(|error| unanswered(error.into()))?;
        let mut of_rollout = history.into_iter().filter(|update| {
            update.plan.rollout == Some(*rollout) && update.outcome == Some(Outcome::Committed)
        });
        Ok(of_rollout.next().and_then(|update| {
            let mut members = update.plan.members.into_iter();
            members
                .find(|member| member.instance == *instance)
                .and_then(|member| member.before)
        }))
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

/// For each container of a set that moves together when all of these are updated, the first one of the set.
fn groups_of(survey: &Survey, updated: &[Managed<'_>]) -> BTreeMap<ContainerId, InstanceName> {
    let ids: Vec<_> = updated
        .iter()
        .map(|managed| managed.container.id.clone())
        .collect();
    let mut found = BTreeMap::new();
    for group in groups(&survey.inventory, &survey.settings, &ids) {
        let root = group.members.first();
        let root = root.and_then(|first| survey.inventory.by_id(first));
        if let (Some(root), true) = (
            root.and_then(|root| root.instance_name()),
            group.members.len() > 1,
        ) {
            let members = group.members.into_iter();
            found.extend(members.map(|member| (member, root.clone())));
        }
    }
    found
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

/// How long an update took, if nothing disturbed it: time in which fleet or the engine was not there, or in which a person
/// was asked, says nothing of the next one.
fn took(update: &StoredUpdate) -> Option<Duration> {
    let ended = matches!(
        update.outcome,
        Some(Outcome::Committed | Outcome::RolledBack)
    );
    let mut phases = update.entries.iter().map(|entry| &entry.phase);
    let disturbed =
        phases.any(|phase| matches!(phase, Phase::Recovered { .. } | Phase::Resolved { .. }));
    if !ended || disturbed {
        return None;
    }
    let (first, last) = (update.entries.first()?, update.entries.last()?);
    Some(last.at.since(first.at))
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
