//! One pass over all rollouts: what changed by itself, and what may begin now.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::error::RolloutError;
use super::orchestrator::{Draft, Noted, Orchestrator};
use super::order::order;
use super::replaced::takes_the_place_of;
use super::updater::{FleetView, Happened, UpdateOrder};
use crate::ids::{InstanceId, RolloutId, UpdateId};
use crate::plan::rollout::{
    Ending, Hold, HoldKind, MemberState, Phase, RolloutEvent, Surroundings, UpdateEnd, WavePhase,
    admit,
};
use crate::plan::strategy::{Batch, Immediate, StrategySpec, WaveGate};
use crate::plan::{
    Held, PlannedInstance, PlannerSettings, Request, RolloutKind, fleet_pause, plan_rollback,
    reason_of_mode,
};
use crate::ports::{RolloutStoreError, StoredRollout};
use crate::update::error_chain;

/// How often working time is written down.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const FLEET: &str = "fleet";

/// What a pass found to do.
#[derive(Debug, Default)]
pub(super) struct Pass<'a> {
    /// Updates to begin, in order: place, order, and the note that it is in flight. Their claims are in the store.
    pub(super) orders: Vec<(usize, UpdateOrder, Noted<'a>)>,
    /// Whether anything changed, so that another pass may find more.
    pub(super) changed: bool,
}

impl Orchestrator {
    /// Looks at every rollout that is not over.
    pub(super) async fn pass(&self) -> Result<Pass<'_>, RolloutError> {
        let active = self.store.active().await?;
        let mut pass = Pass::default();
        self.clocks.forget_others(&active);
        if active.is_empty() {
            return Ok(pass);
        }
        let view = self.updater.fleet().await?;
        let settings = PlannerSettings::read(&view.settings)?;
        let mut around = view.surroundings(&settings);
        for stored in &active {
            for (place, _) in stored.state.claims() {
                let member = &stored.plan.members[place];
                around.take_down(&member.instance, stored.plan.tenant(member));
            }
        }
        for stored in &active {
            let mut draft = self.draft(stored.clone())?;
            let advanced = self.advance(&mut draft, &active, &view, &mut around);
            let claimed = match advanced.await {
                Ok(claimed) => claimed,
                // That one cannot be judged here; the others can.
                Err(error @ RolloutError::Strategy(_)) => {
                    let id = stored.plan.id();
                    tracing::error!(rollout = %id, error = error_chain(&error), "it stands still");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let changed = draft.changed || draft.made_another;
            match self.write(draft).await {
                Ok(stored) => {
                    pass.changed |= changed;
                    let orders = claimed
                        .into_iter()
                        .filter_map(|(place, noted)| Some((place, order(&stored, place)?, noted)));
                    pass.orders.extend(orders);
                }
                // Somebody else was faster: the next pass sees what they did.
                Err(RolloutStoreError::Overtaken { .. }) => pass.changed = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(pass)
    }

    /// Does what follows by itself; returns the members that were claimed.
    async fn advance(
        &self,
        draft: &mut Draft,
        active: &[StoredRollout],
        view: &FleetView,
        around: &mut Surroundings,
    ) -> Result<Vec<(usize, Noted<'_>)>, RolloutError> {
        self.reconcile_claims(draft).await?;
        self.let_go(draft, view)?;
        self.follow_fleet_pause(draft, view)?;
        self.lift_infra_hold(draft).await?;
        self.lift_space_hold(draft).await?;
        self.make_way(draft, active)?;
        if draft.stored.state.phase == Phase::Planned {
            draft.apply(&RolloutEvent::TakenUp, self.clock.now())?;
        }
        self.begin(draft, active, around)?;
        self.open_wave(draft)?;
        self.take_back(draft).await?;
        let claimed = self.claim(draft, around)?;
        self.look(draft)?;
        Ok(claimed)
    }

    /// Claims of an earlier process: the journal knows what became of them.
    async fn reconcile_claims(&self, draft: &mut Draft) -> Result<(), RolloutError> {
        let claims: Vec<_> = draft
            .stored
            .state
            .claims()
            .filter(|(_, update)| !self.in_flight.contains(update))
            .collect();
        if !claims.is_empty() {
            let rollout = draft.stored.plan.id();
            self.updater.remove_leftovers(&rollout).await;
        }
        for (place, update) in claims {
            let event = match self.updater.happened(&update).await? {
                Happened::Open => continue,
                Happened::NeverBegan => RolloutEvent::Unclaimed { place, update },
                Happened::Ended(end) => self.ended(&draft.stored, place, update, end),
            };
            draft.apply(&event, self.clock.now())?;
        }
        Ok(())
    }

    /// Members that have not begun and are no longer to be updated: gone, or meant by their mode to be left alone. A way
    /// back asks for no mode.
    fn let_go(&self, draft: &mut Draft, view: &FleetView) -> Result<(), RolloutError> {
        let StoredRollout { plan, state, .. } = &draft.stored;
        if state.phase.is_terminal() {
            return Ok(());
        }
        let instances = view.instances.iter().map(|view| (&view.instance, view));
        let instances: HashMap<_, _> = instances.collect();
        let forbidden = |instance: &InstanceId| {
            let view = instances.get(instance)?;
            let asked = &plan.request.asked;
            let (label, mode) = (view.label_mode, view.mode);
            reason_of_mode(asked, &instance.name, &view.tenant, label, mode)
        };
        let leaving = |(place, member): (usize, &MemberState)| {
            let planned = &plan.members[place];
            if !matches!(member, MemberState::Queued { .. }) {
                return None;
            }
            let why = match instances.contains_key(&planned.instance) {
                false => "it is gone".to_owned(),
                true if plan.kind == RolloutKind::Rollback => return None,
                // One that is left alone keeps all of its group.
                true => planned.instances().find_map(forbidden)?.to_string(),
            };
            Some((place, why))
        };
        let leaving: Vec<_> = state
            .members
            .iter()
            .enumerate()
            .filter_map(leaving)
            .collect();
        for (place, why) in leaving {
            let event = RolloutEvent::Excluded {
                place,
                by: FLEET.to_owned(),
                why: Some(why),
            };
            draft.apply(&event, self.clock.now())?;
        }
        Ok(())
    }

    fn follow_fleet_pause(&self, draft: &mut Draft, view: &FleetView) -> Result<(), RolloutError> {
        let state = &draft.stored.state;
        // A way back waits for nobody.
        if state.phase.is_terminal() || draft.stored.plan.kind == RolloutKind::Rollback {
            return Ok(());
        }
        let held = state
            .holds
            .iter()
            .any(|hold| hold.kind == HoldKind::GlobalPause);
        let event = match (fleet_pause(&view.settings), held) {
            (Some(Held::Paused { by, why }), false) => RolloutEvent::Held(Hold {
                kind: HoldKind::GlobalPause,
                by: by.into(),
                why: why.into(),
                since: self.clock.now(),
            }),
            (None, true) => RolloutEvent::Unheld {
                kind: HoldKind::GlobalPause,
                by: FLEET.to_owned(),
            },
            _ => return Ok(()),
        };
        Ok(draft.apply(&event, self.clock.now())?)
    }

    async fn lift_infra_hold(&self, draft: &mut Draft) -> Result<(), RolloutError> {
        let state = &draft.stored.state;
        let held = state
            .holds
            .iter()
            .any(|hold| hold.kind == HoldKind::InfraErrors);
        if held
            && !state.phase.is_terminal()
            && self.updater.probe(&draft.stored.plan.request.target).await
        {
            let event = RolloutEvent::Unheld {
                kind: HoldKind::InfraErrors,
                by: FLEET.to_owned(),
            };
            draft.apply(&event, self.clock.now())?;
        }
        Ok(())
    }

    /// Whoever goes next has room for its snapshot: so it goes on.
    async fn lift_space_hold(&self, draft: &mut Draft) -> Result<(), RolloutError> {
        let StoredRollout { plan, state, .. } = &draft.stored;
        let mut holds = state.holds.iter();
        if !holds.any(|hold| hold.kind == HoldKind::DiskSpace) || state.phase.is_terminal() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut wave = plan.wave_range(state.wave);
        let mut queued = false;
        let next = wave.find(|place| match state.members[*place] {
            MemberState::Queued { not_before, .. } => {
                queued = true;
                not_before.is_none_or(|at| at <= now)
            }
            _ => false,
        });
        let has_space = match next {
            Some(place) => self.updater.has_space(&plan.members[place].instance).await,
            // Those that are left were looked at a moment ago.
            None => !queued,
        };
        if has_space {
            let event = RolloutEvent::Unheld {
                kind: HoldKind::DiskSpace,
                by: FLEET.to_owned(),
            };
            draft.apply(&event, self.clock.now())?;
        }
        Ok(())
    }

    /// A rollout whose place is taken ends; the newer one names it, so a crash in between forgets nothing.
    fn make_way(&self, draft: &mut Draft, active: &[StoredRollout]) -> Result<(), RolloutError> {
        let id = draft.stored.plan.id();
        let newer = active.iter().find(|other| {
            other.state.replaces.contains(&id) && takes_the_place_of(other, &draft.stored)
        });
        let replaceable = matches!(
            draft.stored.state.phase,
            Phase::Planned | Phase::AwaitingApproval | Phase::Scheduled | Phase::Running
        );
        if let (Some(newer), true) = (newer, replaceable) {
            draft.apply(
                &RolloutEvent::Superseded {
                    by: newer.plan.id(),
                },
                self.clock.now(),
            )?;
        }
        Ok(())
    }

    /// A rollout begins when no other one works on its instances and the first of them may be updated.
    fn begin(
        &self,
        draft: &mut Draft,
        active: &[StoredRollout],
        around: &Surroundings,
    ) -> Result<(), RolloutError> {
        let StoredRollout { plan, state, .. } = &draft.stored;
        if state.phase != Phase::Scheduled
            || !state.holds.is_empty()
            || conflict(&draft.stored, active).is_some()
        {
            return Ok(());
        }
        let mut around = around.clone();
        // A wave of which nothing is left is passed over once it has begun.
        let nothing = state.members[plan.wave_range(state.wave)]
            .iter()
            .all(|member| member.ending().is_some());
        if nothing
            || !admit(plan, state, &mut around, self.clock.now())
                .start
                .is_empty()
        {
            draft.apply(&RolloutEvent::Started, self.clock.now())?;
        }
        Ok(())
    }

    fn open_wave(&self, draft: &mut Draft) -> Result<(), RolloutError> {
        let StoredRollout { plan, state, .. } = &draft.stored;
        let waiting = state.phase == Phase::Running && state.wave_phase == WavePhase::Pending;
        if !waiting || !state.holds.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let event = match self.gate(&draft.stored)? {
            Err(why) => RolloutEvent::Aborted {
                by: plan.request.strategy.label().to_owned(),
                why,
                rollback: false,
            },
            Ok(_) if state.promoted => RolloutEvent::WaveOpened,
            Ok(WaveGate::Open) => RolloutEvent::WaveOpened,
            Ok(WaveGate::Pause { duration }) => {
                if state
                    .passed_at
                    .is_some_and(|passed| now < passed.saturating_add(duration))
                {
                    return Ok(());
                }
                RolloutEvent::WaveOpened
            }
            Ok(WaveGate::Person) => RolloutEvent::Held(Hold {
                kind: HoldKind::ManualGate,
                by: FLEET.to_owned(),
                why: format!(
                    "wave {} of {} waits for a person to promote",
                    state.wave + 1,
                    plan.waves.len()
                ),
                since: now,
            }),
        };
        Ok(draft.apply(&event, now)?)
    }

    /// What stands before the wave at hand: the stricter of what the plan says and what the strategy says now that it
    /// knows what happened; or why the strategy stops.
    pub(super) fn gate(
        &self,
        stored: &StoredRollout,
    ) -> Result<Result<WaveGate, String>, RolloutError> {
        let StoredRollout { plan, state, .. } = stored;
        let planned = plan
            .waves
            .get(state.wave as usize)
            .map_or(WaveGate::Open, |wave| wave.gate);
        if plan.kind == RolloutKind::Rollback {
            return Ok(Ok(planned));
        }
        let strategy = self.strategies.resolve(&plan.request.strategy)?;
        let remaining = &plan.members[plan.wave_range(state.wave).start..];
        if remaining.is_empty() {
            return Ok(Ok(planned));
        }
        Ok(match strategy.next_batch(remaining, &state.progress()) {
            Batch::Take { gate, .. } => Ok(gate.max(planned)),
            Batch::Stop { why } => Err(why),
        })
    }

    /// The rollback of an aborted rollout is a rollout of its own. Its id is written first, then it is made: a crash in
    /// between leaves an id without a rollout, and the next pass makes it.
    async fn take_back(&self, draft: &mut Draft) -> Result<(), RolloutError> {
        let state = &draft.stored.state;
        if matches!(state.phase, Phase::Aborting { rollback: true, .. })
            && state.claims().next().is_none()
        {
            let child = RolloutId::new(self.clock.now(), self.entropy.bytes());
            return Ok(draft.apply(&RolloutEvent::RollbackBegun { child }, self.clock.now())?);
        }
        let Phase::RollingBack { child } = state.phase else {
            return Ok(());
        };
        match self.store.load(&child).await? {
            None => {
                self.make_rollback(&draft.stored, child).await?;
                draft.made_another = true;
                Ok(())
            }
            Some(child) if child.state.phase.is_terminal() => {
                let event = rollback_ended(&draft.stored, &child);
                Ok(draft.apply(&event, self.clock.now())?)
            }
            Some(_) => Ok(()),
        }
    }

    async fn make_rollback(
        &self,
        parent: &StoredRollout,
        child: RolloutId,
    ) -> Result<(), RolloutError> {
        let committed: Vec<usize> = parent
            .state
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.ending() == Some(Ending::Committed))
            .map(|(place, _)| place)
            .collect();
        let request = Request {
            id: child,
            parent: Some(parent.plan.id()),
            strategy: StrategySpec::Immediate(Immediate::default()),
            needs_approval: false,
            ..parent.plan.request.clone()
        };
        let mut before = HashMap::new();
        for &place in &committed {
            for instance in parent.plan.members[place].instances() {
                let ran = self.updater.ran_before(&parent.plan.id(), instance).await?;
                before.extend(ran.map(|ran| (instance.clone(), ran)));
            }
        }
        let ran_before = |instance: &InstanceId| before.get(instance).cloned();
        let now = self.clock.now();
        let plan = plan_rollback(&parent.plan, &committed, &ran_before, request, now);
        match self.keep_new(plan, Vec::new(), 0).await {
            Ok(()) | Err(RolloutStoreError::Exists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Claims what may begin. Noted as in flight before the claim can be read by anybody: whoever reads it then leaves it
    /// alone.
    fn claim(
        &self,
        draft: &mut Draft,
        around: &mut Surroundings,
    ) -> Result<Vec<(usize, Noted<'_>)>, RolloutError> {
        let StoredRollout { plan, state, .. } = &draft.stored;
        let may_start = state.phase == Phase::Running
            && state.wave_phase == WavePhase::Open
            && state.holds.is_empty();
        if !may_start {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let mut claimed = Vec::new();
        for place in admit(plan, state, around, now).start {
            let update = UpdateId::new(now, self.entropy.bytes());
            let noted = self.in_flight.note(update);
            draft.apply(&RolloutEvent::Claimed { place, update }, now)?;
            claimed.push((place, noted));
        }
        Ok(claimed)
    }

    fn look(&self, draft: &mut Draft) -> Result<(), RolloutError> {
        let state = &draft.stored.state;
        if state.phase.is_terminal() {
            return Ok(());
        }
        let now = self.clock.now();
        let working = state.claims().next().is_some();
        let expires_at = draft.stored.plan.approval_ends_at();
        let approval_expired = state.phase == Phase::AwaitingApproval
            && expires_at.is_some_and(|expires_at| now >= expires_at);
        let due = match state.worked.running_since {
            None => working || approval_expired,
            Some(since) => !working || now.since(since) >= LOOK_EVERY || now < since,
        };
        if due {
            draft.apply(&RolloutEvent::Looked { working }, now)?;
        }
        Ok(())
    }

    /// The event for an update that ended, with what the strategy makes of it.
    pub(super) fn ended(
        &self,
        stored: &StoredRollout,
        place: usize,
        update: UpdateId,
        end: UpdateEnd,
    ) -> RolloutEvent {
        let follow = match &end {
            UpdateEnd::Unsuccessful { how, kind, why } => {
                self.follow(stored, place, *how, *kind, why)
            }
            _ => crate::plan::rollout::Follow::Nothing,
        };
        RolloutEvent::Ended {
            place,
            update,
            end,
            follow,
        }
    }
}

/// What the end of a rollback means for the rollout that it took back.
fn rollback_ended(parent: &StoredRollout, child: &StoredRollout) -> RolloutEvent {
    let went_back: HashSet<&InstanceId> = child
        .plan
        .members
        .iter()
        .zip(&child.state.members)
        .filter(|(_, state)| state.ending().is_some_and(Ending::is_success))
        .map(|(member, _)| &member.instance)
        .collect();
    let members = parent.plan.members.iter().enumerate();
    RolloutEvent::RollbackEnded {
        complete: child.state.phase == Phase::Completed && child.plan.held.is_empty(),
        taken_back: members
            .filter(|(_, member)| went_back.contains(&member.instance))
            .map(|(place, _)| place)
            .collect(),
    }
}

/// Another rollout that works, or may still work, on an instance of this one.
pub(super) fn conflict(stored: &StoredRollout, active: &[StoredRollout]) -> Option<RolloutId> {
    let mine: HashSet<&InstanceId> = stored.plan.instances().collect();
    let touches = |member: &PlannedInstance| member.instances().any(|one| mine.contains(one));
    let works_on_mine = |other: &&StoredRollout| {
        let begun = !other.state.phase.is_waiting_to_begin() && !other.state.phase.is_terminal();
        // The rollback of a rollout is what that rollout waits for.
        let is_parent = stored.plan.kind == RolloutKind::Rollback
            && stored.plan.request.parent == Some(other.plan.id());
        let members = other.plan.members.iter().zip(&other.state.members);
        let mut open = members.filter(|(_, state)| !matches!(state, MemberState::Ended { .. }));
        let rolling_back = matches!(
            other.state.phase,
            Phase::RollingBack { .. } | Phase::Aborting { rollback: true, .. }
        );
        begun
            && !is_parent
            && (open.any(|(member, _)| touches(member))
                || rolling_back && other.plan.members.iter().any(touches))
    };
    active
        .iter()
        .filter(|other| other.plan.id() != stored.plan.id())
        .find(works_on_mine)
        .map(|other| other.plan.id())
}
