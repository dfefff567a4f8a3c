//! The orchestrator, and the commands that steer a rollout.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::clocks::{Clocks, ClocksSeen};
use super::error::RolloutError;
use super::facts;
use super::updater::Updater;
use crate::ids::{InstanceId, RolloutId, UpdateId};
use crate::plan::RolloutPlan;
use crate::plan::rollout::{
    Hold, HoldKind, IllegalTransition, RolloutEvent, RolloutGlance, RolloutState, next,
};
use crate::plan::strategy::StrategyRegistry;
use crate::ports::{
    Clock, Entropy, NoProgress, Progress, ProgressSink, RolloutStore, RolloutStoreError,
    StoredRollout,
};

/// How often a change is decided anew after somebody else changed the rollout in between.
const TRIES_MAX: u32 = 16;

/// What a person does with a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Approve it.
    Approve,
    /// Say no to it.
    Deny {
        /// Why.
        why: String,
    },
    /// Start nothing more until resumed.
    Pause {
        /// Why.
        why: String,
    },
    /// Lift what people paused. A pause of the fleet stays.
    Resume,
    /// Go on past a gate, a pause between waves, a failed wave or a deadline.
    Promote,
    /// Stop it.
    Abort {
        /// Why.
        why: String,
        /// Whether what was committed goes back.
        rollback: bool,
    },
    /// Take an instance out.
    Exclude {
        /// The instance.
        instance: InstanceId,
    },
}

/// Drives and steers rollouts. One per store drives them: another one cannot tell an update that is about to begin from
/// one that never will. Any number may steer.
pub struct Orchestrator {
    // ports
    pub(super) store: Arc<dyn RolloutStore>,
    pub(super) updater: Arc<dyn Updater>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    progress: Arc<dyn ProgressSink>,
    // settings
    pub(super) strategies: StrategyRegistry,
    // state
    pub(super) wakes: watch::Sender<Wakes>,
    pub(super) in_flight: InFlight,
    /// What the clocks showed when each rollout was looked at last.
    pub(super) clocks: ClocksSeen,
}

/// What everybody who waits in an orchestrator hears of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wakes {
    /// How often something was changed that is worth a look.
    count: u64,
    /// Nothing new begins.
    pub(super) draining: bool,
}

/// Hears of every change since it was made: none is lost between two waits.
#[derive(Debug)]
pub struct Woken(watch::Receiver<Wakes>);

impl Woken {
    /// Waits for the next change.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The orchestrator is gone, and with it everything that could change.
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orchestrator")
            .field("strategies", &self.strategies)
            .finish_non_exhaustive()
    }
}

impl Orchestrator {
    /// An orchestrator over these ports.
    #[must_use]
    pub fn new(
        store: Arc<dyn RolloutStore>,
        updater: Arc<dyn Updater>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        strategies: StrategyRegistry,
    ) -> Self {
        Self {
            store,
            updater,
            clock,
            entropy,
            progress: Arc::new(NoProgress),
            strategies,
            wakes: watch::Sender::new(Wakes::default()),
            in_flight: InFlight::default(),
            clocks: ClocksSeen::default(),
        }
    }

    /// The same, and says there how far each rollout is whenever one of them changed.
    #[must_use]
    pub fn reporting_to(self, progress: Arc<dyn ProgressSink>) -> Self {
        Self { progress, ..self }
    }

    /// Says how far a rollout is.
    pub(super) fn report(&self, plan: &RolloutPlan, state: &RolloutState) {
        let glance = RolloutGlance::new(plan, state);
        self.progress.report(Progress::Rollout(Box::new(glance)));
    }

    /// Steers a rollout. Giving the same command twice changes nothing the second time.
    ///
    /// # Errors
    /// There is no such rollout or instance in it, its state does not allow it, or the store failed.
    pub async fn command(
        &self,
        id: &RolloutId,
        command: &Command,
        actor: &str,
    ) -> Result<StoredRollout, RolloutError> {
        let changed = self
            .change(id, |stored| {
                Ok(vec![self.event_of(stored, command, actor)?])
            })
            .await?;
        self.wake();
        Ok(changed)
    }

    /// One rollout.
    ///
    /// # Errors
    /// There is none of that id, or the store failed.
    pub async fn load(&self, id: &RolloutId) -> Result<StoredRollout, RolloutError> {
        self.store
            .load(id)
            .await?
            .ok_or(RolloutError::NoSuchRollout(*id))
    }

    /// The newest rollouts, newest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list(&self, limit: u32) -> Result<Vec<StoredRollout>, RolloutError> {
        Ok(self.store.list(limit).await?)
    }

    /// Makes everybody who waits look at once, for instance because the fleet's settings changed.
    pub fn wake(&self) {
        self.wakes.send_modify(|wakes| wakes.count += 1);
    }

    /// Begins nothing any more; what is in flight goes on. For a process that is about to end.
    pub fn drain(&self) {
        self.wakes.send_modify(|wakes| wakes.draining = true);
    }

    /// Hears of every change from now on.
    #[must_use]
    pub fn woken(&self) -> Woken {
        Woken(self.wakes.subscribe())
    }

    /// Waits until `woken` hears of a change, at most so long: what a daemon does between two calls of
    /// [`Orchestrator::run_due`]. Half a minute is a good limit; a hint that gets lost costs no more than that.
    pub async fn idle(&self, woken: &mut Woken, at_most: Duration) {
        futures::future::select(self.clock.sleep(at_most), Box::pin(woken.next())).await;
    }

    fn event_of(
        &self,
        stored: &StoredRollout,
        command: &Command,
        actor: &str,
    ) -> Result<RolloutEvent, RolloutError> {
        let by = actor.to_owned();
        Ok(match command.clone() {
            Command::Approve => RolloutEvent::Approved { by },
            Command::Deny { why } => RolloutEvent::Denied { by, why },
            Command::Pause { why } => RolloutEvent::Held(Hold {
                kind: HoldKind::UserPause,
                by,
                why,
                since: self.clock.now(),
            }),
            Command::Resume => RolloutEvent::Unheld {
                kind: HoldKind::UserPause,
                by,
            },
            Command::Promote => RolloutEvent::Promoted { by },
            Command::Abort { why, rollback } => RolloutEvent::Aborted { by, why, rollback },
            Command::Exclude { instance } => match stored.plan.place_of(&instance) {
                Some(place) => RolloutEvent::Excluded {
                    place,
                    by,
                    why: None,
                },
                None => {
                    return Err(RolloutError::NotInRollout {
                        instance,
                        rollout: stored.plan.id(),
                    });
                }
            },
        })
    }

    /// Loads, decides and writes; decides anew if somebody else was faster.
    pub(super) async fn change(
        &self,
        id: &RolloutId,
        decide: impl Fn(&StoredRollout) -> Result<Vec<RolloutEvent>, RolloutError>,
    ) -> Result<StoredRollout, RolloutError> {
        let mut tries = 0;
        loop {
            let stored = self.load(id).await?;
            let mut draft = self.draft(stored)?;
            for event in decide(&draft.stored)? {
                draft.apply(&event, self.clock.now())?;
            }
            match self.write(draft).await {
                Err(RolloutStoreError::Overtaken { .. }) if tries < TRIES_MAX => tries += 1,
                other => return Ok(other?),
            }
        }
    }

    /// A draft of a rollout as it is, which has heard of it if the clock was set.
    pub(super) fn draft(&self, stored: StoredRollout) -> Result<Draft, IllegalTransition> {
        let clocks = Clocks::of(self.clock.as_ref());
        let set_by = self.clocks.set_since(&stored, clocks);
        let mut draft = Draft {
            stored,
            clocks,
            facts: Vec::new(),
            changed: false,
            made_another: false,
        };
        if let (Some(by_millis), false) = (set_by, draft.stored.state.phase.is_terminal()) {
            draft.apply(&RolloutEvent::ClockSet { by_millis }, clocks.wall)?;
        }
        Ok(draft)
    }

    /// Writes a draft if it changed anything. A draft in the making of which the clock was set is overtaken by that.
    pub(super) async fn write(&self, draft: Draft) -> Result<StoredRollout, RolloutStoreError> {
        let Draft {
            mut stored,
            clocks,
            facts,
            changed,
            ..
        } = draft;
        let id = stored.plan.id();
        // What was decided in between counts from one side of the jump or from the other.
        if Clocks::of(self.clock.as_ref()).set_since(clocks).is_some() {
            return Err(RolloutStoreError::Overtaken {
                rollout: id,
                expected: stored.generation,
                found: stored.generation,
            });
        }
        if changed {
            let events = facts::events(&stored.plan, &stored.state, &facts, self.clock.now());
            self.clocks
                .about_to_write(id, stored.generation + 1, clocks);
            stored.generation = self
                .store
                .compare_and_swap(&id, stored.generation, &stored.state, events)
                .await?;
            self.report(&stored.plan, &stored.state);
        }
        self.clocks.keep(id, clocks);
        Ok(stored)
    }
}

/// The updates in flight in this process, whichever call drives them.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashSet<UpdateId>>);

/// Keeps an update noted as in flight until it is dropped: when its end is recorded, or when the call that drives it is.
#[derive(Debug)]
pub(super) struct Noted<'a> {
    of: &'a InFlight,
    update: UpdateId,
}

impl InFlight {
    pub(super) fn contains(&self, update: &UpdateId) -> bool {
        self.lock().contains(update)
    }

    pub(super) fn note(&self, update: UpdateId) -> Noted<'_> {
        self.lock().insert(update);
        Noted { of: self, update }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<UpdateId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.of.lock().remove(&self.update);
    }
}

/// A rollout with changes that are not written yet.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) stored: StoredRollout,
    /// What the clocks showed when it was begun.
    clocks: Clocks,
    facts: Vec<crate::plan::rollout::Fact>,
    pub(super) changed: bool,
    /// Another rollout was made on its account.
    pub(super) made_another: bool,
}

impl Draft {
    pub(super) fn apply(
        &mut self,
        event: &RolloutEvent,
        now: crate::time::Timestamp,
    ) -> Result<(), IllegalTransition> {
        let step = next(&self.stored.plan, &self.stored.state, event, now)?;
        self.changed |= step.state != self.stored.state;
        self.stored.state = step.state;
        self.facts.extend(step.facts);
        Ok(())
    }
}
