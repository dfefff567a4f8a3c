//! Passes and updates, interleaved, until nothing is due.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::error::RolloutError;
use super::orchestrator::{Noted, Orchestrator};
use super::pass::{Pass, conflict};
use super::updater::UpdateOrder;
use crate::ids::{RolloutId, UpdateId};
use crate::plan::rollout::{Ending, Follow, MemberState, Phase, UpdateEnd, WavePhase, admit};
use crate::plan::strategy::{Failure, FailureKind, OnFailure, WaveGate};
use crate::plan::{Held, PlannerSettings, RolloutKind};
use crate::ports::StoredRollout;
use crate::time::Timestamp;
use crate::update::error_chain;

/// Longest time between two looks while updates are in flight.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Longest time between two looks of somebody who only watches: another process may be at work.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Tries beyond those of the strategy for an instance that was never stopped, while the infrastructure fails it: a day.
const PATIENT_TRIES: u32 = 144;
const PATIENT_PAUSE: Duration = Duration::from_secs(600);
/// Pause before an end that could not be recorded is recorded again.
const RECORD_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for another try that somebody who waits for a rollout sits through.
const PATIENCE: Duration = Duration::from_secs(120);

struct Done {
    rollout: RolloutId,
    place: usize,
    update: UpdateId,
    end: UpdateEnd,
}

/// The updates that go on, and those that ended and are not recorded yet.
#[derive(Default)]
struct InFlight {
    going_on: FuturesUnordered<BoxFuture<'static, Done>>,
    ended: VecDeque<Done>,
}

impl InFlight {
    fn begin(&mut self, update: BoxFuture<'static, Done>) {
        self.going_on.push(update);
    }

    fn is_empty(&self) -> bool {
        self.going_on.is_empty() && self.ended.is_empty()
    }

    /// The next that ended; none if there is none at all.
    async fn next(&mut self) -> Option<Done> {
        match self.ended.pop_front() {
            Some(done) => Some(done),
            None => self.going_on.next().await,
        }
    }

    /// Does something else while the updates go on: an instance that is out of service does not wait for a look at the
    /// others.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match select(work.as_mut(), self.going_on.next()).await {
                Either::Left((result, _)) => return result,
                Either::Right((Some(done), _)) => self.ended.push_back(done),
                Either::Right((None, _)) => return work.await,
            }
        }
    }
}

/// Where a rollout stands once nothing more is due.
#[derive(Debug, Clone, PartialEq)]
pub enum Outlook {
    /// It is over.
    Over,
    /// It goes on by itself soon: a pause between waves, another try.
    Soon(Timestamp),
    /// Nothing of it may start now.
    NotNow {
        /// Why, for people: holds, windows, another rollout.
        why: Vec<String>,
        /// When it goes on by itself, if it does.
        until: Option<Timestamp>,
    },
}

/// What waiting for a rollout came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Waited {
    /// The rollout.
    pub rollout: StoredRollout,
    /// [`Outlook::Over`] or [`Outlook::NotNow`].
    pub outlook: Outlook,
}

impl Orchestrator {
    /// Does everything that is due now in all rollouts, and returns when nothing is in flight and nothing may start.
    /// Safe to call at any time and any number of times; calling it again does no harm.
    ///
    /// # Cancel safety
    /// Dropping it is a crash: the next call finds out what became of the updates in flight.
    ///
    /// # Errors
    /// Store or fleet failed. Updates in flight are dropped then; their journal tells the next call.
    pub async fn run_due(&self) -> Result<(), RolloutError> {
        let mut in_flight = InFlight::default();
        let mut noted: HashMap<UpdateId, Noted<'_>> = HashMap::new();
        let mut woken = self.woken();
        loop {
            let pass = match in_flight.beside(self.pass_unless_draining()).await {
                Ok(pass) => pass,
                Err(error) if in_flight.is_empty() => return Err(error),
                // An engine or a store that is away for a moment is no reason to drop what is in flight.
                Err(error) => {
                    tracing::warn!(error = error_chain(&error), "no look at the rollouts");
                    Pass::default()
                }
            };
            for (place, order, note) in pass.orders {
                noted.insert(order.id, note);
                in_flight.begin(self.begin_update(place, order));
            }
            if in_flight.is_empty() {
                if pass.changed {
                    continue;
                }
                return Ok(());
            }
            let timer = self.clock.sleep(LOOK_EVERY);
            let look_again = select(timer, Box::pin(woken.next()));
            let mut ended = match select(Box::pin(in_flight.next()), look_again).await {
                Either::Left((done, _)) => done,
                Either::Right(_) => continue,
            };
            while let Some(done) = ended {
                match in_flight.beside(self.record(&done)).await {
                    Ok(()) => {}
                    // A store that is away for a moment is no reason to drop what is in flight either.
                    Err(error) if !in_flight.going_on.is_empty() => {
                        tracing::warn!(error = error_chain(&error), "an end is not recorded yet");
                        in_flight.beside(self.clock.sleep(RECORD_PAUSE)).await;
                        in_flight.ended.push_front(done);
                        break;
                    }
                    Err(error) => return Err(error),
                }
                noted.remove(&done.update);
                ended = in_flight.ended.pop_front();
            }
            self.wake();
        }
    }

    async fn pass_unless_draining(&self) -> Result<Pass<'_>, RolloutError> {
        if self.wakes.borrow().draining {
            return Ok(Pass::default());
        }
        self.pass().await
    }

    /// Runs what is due until a rollout is over, or until nothing of it may start now. Pauses between waves are waited
    /// for; windows, holds and other rollouts are not.
    ///
    /// # Errors
    /// As [`Orchestrator::run_due`], and if there is no such rollout.
    pub async fn wait(&self, id: &RolloutId) -> Result<Waited, RolloutError> {
        let mut woken = self.woken();
        let StoredRollout { plan, state, .. } = self.load(id).await?;
        self.report(&plan, &state);
        loop {
            self.run_due().await?;
            let rollout = self.load(id).await?;
            match self.outlook(&rollout).await? {
                Outlook::Soon(at) => {
                    let rest = at.since(self.clock.now()).min(LOOK_EVERY);
                    self.idle(&mut woken, rest).await;
                }
                outlook => return Ok(Waited { rollout, outlook }),
            }
        }
    }

    /// Waits until a rollout is over, whoever drives it, and does nothing for it. Says how far it is to begin with.
    ///
    /// # Errors
    /// There is no such rollout, or the store failed.
    pub async fn watch(&self, id: &RolloutId) -> Result<StoredRollout, RolloutError> {
        let mut woken = self.woken();
        let mut seen = None;
        loop {
            let rollout = self.load(id).await?;
            // Another process may drive it: then nobody here says how far it is.
            if seen.replace(rollout.generation) != Some(rollout.generation) {
                self.report(&rollout.plan, &rollout.state);
            }
            if rollout.state.phase.is_terminal() {
                return Ok(rollout);
            }
            self.idle(&mut woken, WATCH_EVERY).await;
        }
    }

    /// Where a rollout stands: over, going on by itself, or held, and by what.
    ///
    /// # Errors
    /// Store or fleet failed.
    pub async fn outlook(&self, stored: &StoredRollout) -> Result<Outlook, RolloutError> {
        let StoredRollout { plan, state, .. } = stored;
        if state.phase.is_terminal() {
            return Ok(Outlook::Over);
        }
        let not_now = |why: Vec<String>, until| Outlook::NotNow { why, until };
        if !state.holds.is_empty() {
            return Ok(not_now(
                state.holds.iter().map(ToString::to_string).collect(),
                None,
            ));
        }
        match state.phase {
            Phase::AwaitingApproval => {
                let why = match plan.approval_ends_at() {
                    Some(ends_at) => format!("a person must approve it until {ends_at}"),
                    None => "a person must approve it".to_owned(),
                };
                return Ok(not_now(vec![why], plan.approval_ends_at()));
            }
            Phase::RollingBack { child } => {
                let child = self.load(&child).await?;
                return Box::pin(self.outlook(&child)).await;
            }
            _ => {}
        }
        if state.claims().next().is_some() {
            // Another call drives it.
            return Ok(Outlook::Soon(self.clock.now().saturating_add(LOOK_EVERY)));
        }
        if let Some(other) = conflict(stored, &self.store.active().await?) {
            return Ok(not_now(
                vec![format!("rollout {other} works on its instances")],
                None,
            ));
        }
        if state.phase == Phase::Running
            && state.wave_phase == WavePhase::Pending
            && let (Some(passed), Ok(WaveGate::Pause { duration })) =
                (state.passed_at, self.gate(stored)?)
        {
            return Ok(Outlook::Soon(passed.saturating_add(duration)));
        }
        let view = self.updater.fleet().await?;
        let mut around = view.surroundings(&PlannerSettings::read(&view.settings)?);
        let now = self.clock.now();
        let admission = admit(plan, state, &mut around, now);
        let soon = admission.waiting.iter().filter_map(|(_, held)| match held {
            Held::Deferred { until } if until.since(now) <= PATIENCE => Some(*until),
            _ => None,
        });
        if let Some(at) = soon.min() {
            return Ok(Outlook::Soon(at));
        }
        let why = admission
            .waiting
            .iter()
            .map(|(place, held)| format!("{}: {held}", plan.members[*place].instance));
        Ok(not_now(why.collect(), admission.wakes_at()))
    }

    fn begin_update(&self, place: usize, order: UpdateOrder) -> BoxFuture<'static, Done> {
        let updater = std::sync::Arc::clone(&self.updater);
        Box::pin(async move {
            let end = updater.update_instance(&order).await;
            Done {
                rollout: order.rollout,
                place,
                update: order.id,
                end,
            }
        })
    }

    async fn record(&self, done: &Done) -> Result<(), RolloutError> {
        let decide = |stored: &StoredRollout| {
            let claimed = stored
                .state
                .claims()
                .any(|claim| claim == (done.place, done.update));
            if !claimed {
                // Another orchestrator recorded it from the journal.
                return Ok(Vec::new());
            }
            let end = done.end.clone();
            Ok(vec![self.ended(stored, done.place, done.update, end)])
        };
        self.change(&done.rollout, decide).await.map(drop)
    }

    /// What the strategy makes of a failure.
    pub(super) fn follow(
        &self,
        stored: &StoredRollout,
        place: usize,
        how: Ending,
        kind: FailureKind,
        reason: &str,
    ) -> Follow {
        let StoredRollout { plan, state, .. } = stored;
        let member = &plan.members[place];
        let MemberState::Claimed {
            attempt, failed, ..
        } = state.members[place]
        else {
            return Follow::Nothing;
        };
        let strategy = match self.strategies.resolve(&plan.request.strategy) {
            Ok(strategy) => strategy,
            // The rollout stands still then, see the pass; what ended is recorded all the same.
            Err(error) => {
                tracing::error!(rollout = %plan.id(), error = error_chain(&error), "nobody says what follows");
                return Follow::Nothing;
            }
        };
        let counts = failed || kind.counts() && !member.unhealthy_before;
        let stopped = how != Ending::Failed;
        let failure = Failure {
            instance: &member.instance,
            attempt,
            kind,
            stopped,
            failures: state.tally().failures + u32::from(counts),
            budget: state.failure_limit(plan),
            reason,
        };
        let not_before = |pause| self.clock.now().saturating_add(pause);
        let retries = strategy.retries();
        match strategy.on_failure(&failure) {
            OnFailure::Retry { after, .. } if attempt <= retries => Follow::Retry {
                not_before: not_before(after),
            },
            OnFailure::Abort if plan.kind == RolloutKind::Forward => Follow::Abort,
            // Nobody is given up because a registry was away: the instance runs as before, and waits.
            OnFailure::Skip | OnFailure::Retry { .. }
                if kind == FailureKind::Infrastructure
                    && !stopped
                    && attempt <= retries.saturating_add(PATIENT_TRIES) =>
            {
                Follow::Retry {
                    not_before: not_before(PATIENT_PAUSE),
                }
            }
            OnFailure::Abort | OnFailure::Skip | OnFailure::Retry { .. } => Follow::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::channel::oneshot;

    use super::*;

    #[test]
    fn updates_go_on_while_something_else_is_waited_for() {
        let at = Timestamp::from_millis(1);
        let (tell, told) = oneshot::channel();
        let mut in_flight = InFlight::default();
        in_flight.begin(Box::pin(async move {
            // The work below waits for this.
            let _ = tell.send(());
            Done {
                rollout: RolloutId::new(at, [1; 10]),
                place: 7,
                update: UpdateId::new(at, [2; 10]),
                end: UpdateEnd::Committed,
            }
        }));
        let work = in_flight.beside(told).now_or_never();
        assert_eq!(work, Some(Ok(())));
        assert!(!in_flight.is_empty(), "its end is not recorded yet");
        let done = in_flight.next().now_or_never().flatten();
        assert_eq!(done.map(|done| done.place), Some(7));
        assert!(in_flight.is_empty());
        assert_eq!(in_flight.beside(async { 1 }).now_or_never(), Some(1));
    }
}
