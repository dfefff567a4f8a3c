//! How rollouts come to be: a person starts one, or a failed one is tried again.

use std::collections::HashSet;

use super::error::{RolloutError, StartError};
use super::facts;
use super::orchestrator::Orchestrator;
use super::updater::FleetView;
use crate::ids::{InstanceId, RolloutId};
use crate::image::PinnedImage;
use crate::plan::rollout::{Ending, MemberState, RolloutState};
use crate::plan::strategy::StrategySpec;
use crate::plan::{
    Asked, Candidate, Limits, PlanInput, PlannerSettings, Request, RolloutKind, RolloutPlan, check,
    fleet_pause, plan, plan_rollback_again,
};
use crate::ports::{RolloutStoreError, StoredRollout};
use crate::time::Timestamp;

/// What a new rollout shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRequest {
    /// User name, or `fleet`.
    pub actor: String,
    /// Who asked, and for what.
    pub asked: Asked,
    /// The release.
    pub target: PinnedImage,
    /// When the release was pushed, or else first seen.
    pub released_at: Option<Timestamp>,
    /// How it proceeds.
    pub strategy: StrategySpec,
    /// What bounds it.
    pub limits: Limits,
    /// Windows do not hold it.
    pub override_window: bool,
    /// Takes a quarantined digest once more.
    pub retry_quarantined: bool,
    /// A person must approve before it begins.
    pub needs_approval: bool,
}

impl StartRequest {
    /// A rollout of a release over all automatic instances, with the defaults.
    #[must_use]
    pub fn new(actor: impl Into<String>, target: PinnedImage) -> Self {
        Self {
            actor: actor.into(),
            asked: Asked::ByOperator {
                tenants: Vec::new(),
            },
            target,
            released_at: None,
            strategy: StrategySpec::default(),
            limits: Limits::default(),
            override_window: false,
            retry_quarantined: false,
            needs_approval: false,
        }
    }

    fn into_request(self, id: RolloutId, parent: Option<RolloutId>, attempt: u32) -> Request {
        Request {
            id,
            parent,
            attempt,
            actor: self.actor,
            asked: self.asked,
            target: self.target,
            released_at: self.released_at,
            strategy: self.strategy,
            limits: self.limits,
            override_window: self.override_window,
            retry_quarantined: self.retry_quarantined,
            needs_approval: self.needs_approval,
        }
    }
}

/// What starting came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Started {
    /// A rollout was made; [`Orchestrator::run_due`] takes it up.
    Opened(Box<RolloutPlan>),
    /// No instance is to be updated; the plan says why.
    NothingToDo(Box<RolloutPlan>),
}

impl Orchestrator {
    /// Plans without making a rollout: what `fleet plan` shows.
    ///
    /// # Errors
    /// There is no plan, or store or fleet failed.
    pub async fn preview(&self, request: StartRequest) -> Result<RolloutPlan, StartError> {
        let view = self.updater.fleet().await?;
        let candidates = self
            .updater
            .candidates(&request.target, &request.asked)
            .await?;
        self.plan_of(self.fresh(request, None, 1), &view, &candidates)
    }

    /// Starts a rollout for a person. A rollout of another release over the same instances makes way.
    ///
    /// # Errors
    /// The fleet is paused, the same is being rolled out, there is no plan, or store or fleet failed.
    pub async fn start(&self, request: StartRequest) -> Result<Started, StartError> {
        let view = self.updater.fleet().await?;
        if let Some(held) = fleet_pause(&view.settings) {
            return Err(StartError::Paused(held));
        }
        let candidates = self
            .updater
            .candidates(&request.target, &request.asked)
            .await?;
        self.open(self.fresh(request, None, 1), &view, &candidates)
            .await
    }

    /// Tries again what failed in a rollout that is over: a new rollout over those instances, for which the quarantine of
    /// the digest is lifted.
    ///
    /// # Errors
    /// The rollout is not over or nothing failed, and as [`Orchestrator::start`].
    pub async fn retry_failed(&self, id: &RolloutId, actor: &str) -> Result<Started, StartError> {
        let view = self.updater.fleet().await?;
        if let Some(held) = fleet_pause(&view.settings) {
            return Err(StartError::Paused(held));
        }
        let StoredRollout { plan, state, .. } = self.load(id).await?;
        if !state.phase.is_terminal() {
            return Err(StartError::NotOver(*id));
        }
        if plan.kind == RolloutKind::Rollback {
            return self.take_back_again(&plan, &state, actor).await;
        }
        let failed = plan.members.iter().zip(&state.members);
        let names: Vec<_> = failed
            .filter(|(_, member)| member.ending().is_some_and(|how| how.is_retryable()))
            .flat_map(|(member, _)| member.instances())
            .map(|instance| instance.name.clone())
            .collect();
        if names.is_empty() {
            return Err(StartError::NothingFailed(*id));
        }
        let old = plan.request;
        let request = StartRequest {
            actor: actor.to_owned(),
            asked: Asked::ForInstances { names },
            target: old.target,
            released_at: old.released_at,
            strategy: old.strategy,
            limits: old.limits,
            override_window: old.override_window,
            retry_quarantined: true,
            needs_approval: false,
        };
        let candidates = self
            .updater
            .candidates(&request.target, &request.asked)
            .await?;
        self.open(
            self.fresh(request, Some(*id), old.attempt + 1),
            &view,
            &candidates,
        )
        .await
    }

    /// A rollback stops at the first instance that cannot go back: this goes on with those that did not.
    async fn take_back_again(
        &self,
        rollback: &RolloutPlan,
        state: &RolloutState,
        actor: &str,
    ) -> Result<Started, StartError> {
        let id = rollback.id();
        let places: Vec<usize> = state
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| {
                let how = member.ending();
                how.is_some_and(|how| how.is_retryable() || how == Ending::Cancelled)
            })
            .map(|(place, _)| place)
            .collect();
        if places.is_empty() {
            return Err(StartError::NothingFailed(id));
        }
        let now = self.clock.now();
        let request = Request {
            id: RolloutId::new(now, self.entropy.bytes()),
            parent: Some(id),
            attempt: rollback.request.attempt + 1,
            actor: actor.to_owned(),
            ..rollback.request.clone()
        };
        let plan = plan_rollback_again(rollback, &places, request, now);
        self.keep_new(plan.clone(), Vec::new(), 0).await?;
        self.wake();
        Ok(Started::Opened(Box::new(plan)))
    }

    pub(super) fn fresh(
        &self,
        request: StartRequest,
        parent: Option<RolloutId>,
        attempt: u32,
    ) -> Request {
        let id = RolloutId::new(self.clock.now(), self.entropy.bytes());
        request.into_request(id, parent, attempt)
    }

    pub(super) fn plan_of(
        &self,
        mut request: Request,
        view: &FleetView,
        candidates: &[Candidate],
    ) -> Result<RolloutPlan, StartError> {
        let settings = PlannerSettings::read(&view.settings).map_err(RolloutError::from)?;
        if request.limits.min_success_percent == 0 {
            request.limits.min_success_percent = settings.min_success_percent;
        }
        let strategy = self
            .strategies
            .resolve(&request.strategy)
            .map_err(RolloutError::from)?;
        let input = PlanInput {
            request: &request,
            candidates,
            tenants: &view.tenants,
            fleet: &view.settings,
            settings: &settings,
            now: self.clock.now(),
        };
        let plan = plan(&input, strategy.as_ref())?;
        match check(&plan, &settings.salt) {
            violations if violations.is_empty() => Ok(plan),
            violations => Err(StartError::Unsound(violations)),
        }
    }

    async fn open(
        &self,
        request: Request,
        view: &FleetView,
        candidates: &[Candidate],
    ) -> Result<Started, StartError> {
        let plan = self.plan_of(request, view, candidates)?;
        if plan.members.is_empty() {
            return Ok(Started::NothingToDo(Box::new(plan)));
        }
        let active = self.store.active().await?;
        self.open_planned(plan, &active).await
    }

    /// Opens a rollout in the place of the active ones over the same instances.
    pub(super) async fn open_planned(
        &self,
        plan: RolloutPlan,
        active: &[StoredRollout],
    ) -> Result<Started, StartError> {
        let overlapping = overlapping(&plan, active);
        let same = overlapping
            .iter()
            .find(|other| other.plan.request.target.digest == plan.request.target.digest);
        if let Some(same) = same {
            return Err(StartError::AlreadyRunning(same.plan.id()));
        }
        let in_first_wave = |other: &&&StoredRollout| {
            other.state.wave == 0 && !other.state.phase.is_waiting_to_begin()
        };
        let replaced_in_a_row = overlapping
            .iter()
            .filter(in_first_wave)
            .map(|other| other.state.replaced_in_a_row + 1)
            .max()
            .unwrap_or(0);
        let replaces = overlapping.iter().map(|other| other.plan.id()).collect();
        self.keep_new(plan.clone(), replaces, replaced_in_a_row)
            .await?;
        self.wake();
        Ok(Started::Opened(Box::new(plan)))
    }

    /// Keeps a new rollout.
    pub(super) async fn keep_new(
        &self,
        plan: RolloutPlan,
        replaces: Vec<RolloutId>,
        replaced_in_a_row: u32,
    ) -> Result<(), RolloutStoreError> {
        let state = RolloutState {
            replaces,
            replaced_in_a_row,
            ..RolloutState::new(&plan)
        };
        let mut events = vec![facts::planned(&plan)];
        if state.is_starving() {
            events.push(facts::starving(&plan, false, plan.planned_at));
        }
        self.store.create(&plan, &state, events).await?;
        self.report(&plan, &state);
        Ok(())
    }
}

/// The active rollouts that have yet to update an instance of this plan.
pub(super) fn overlapping<'a>(
    plan: &RolloutPlan,
    active: &'a [StoredRollout],
) -> Vec<&'a StoredRollout> {
    let mine: HashSet<&InstanceId> = plan.instances().collect();
    let overlaps = |other: &&StoredRollout| {
        let mut members = other.plan.members.iter().zip(&other.state.members);
        members.any(|(member, state)| {
            !matches!(state, MemberState::Ended { .. })
                && member.instances().any(|one| mine.contains(one))
        })
    };
    let forward = active
        .iter()
        .filter(|other| other.plan.kind == RolloutKind::Forward);
    forward.filter(overlaps).collect()
}
