//! Does what [`next`](super::next) says: intent, effect, outcome.
//!
//! The executor decides nothing about order. Every effect looks before it acts, sets an absolute state and may be
//! repeated; so live work and recovery are the same code, and a step that began before a crash is simply done again.

mod again;
mod back;
mod cutover;
mod error;
mod finish;
mod gate;
mod look;
mod prepare;
mod record;
mod watch;

use std::fmt;
use std::time::Duration;

use error::StepError;
pub use error::{SagaError, chain as error_chain};
use watch::Watch;

use super::program::{Action, MAX_MOVES, next};
use super::{Cause, Direction, Entry, Facts, Fault, Outcome, Step, UpdateState};
use crate::ports::{JournalWrite, PortError, Progress, ProgressSink, UpdatePorts};

/// How long the executor waits for an engine that went away before it leaves the update to recovery.
pub const ENGINE_WAIT: Duration = Duration::from_secs(120);

/// Tries of a step whose outcome was unknown before it counts as failed.
const UNKNOWN_TRIES: u32 = 5;

/// Tries of a step of the way back before a person is asked.
const BACK_TRIES: u32 = 4;

/// Pause before a step is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Tries of a clean-up step before it is left to the next recovery.
const CLEAN_UP_TRIES: u32 = 3;

/// Drives one update to its end.
pub struct Executor<'a> {
    ports: &'a UpdatePorts,
    progress: &'a dyn ProgressSink,
    engine_wait: Duration,
    stopping: &'a (dyn Fn() -> bool + Sync),
}

impl fmt::Debug for Executor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("engine_wait", &self.engine_wait)
            .finish_non_exhaustive()
    }
}

impl<'a> Executor<'a> {
    /// An executor over these ports.
    #[must_use]
    pub fn new(ports: &'a UpdatePorts, progress: &'a dyn ProgressSink) -> Self {
        Self {
            ports,
            progress,
            engine_wait: ENGINE_WAIT,
            stopping: &|| false,
        }
    }

    /// Waits so long for an engine that went away.
    #[must_use]
    pub fn engine_wait(mut self, wait: Duration) -> Self {
        self.engine_wait = wait;
        self
    }

    /// Asked before each step whether to stop there. While the instance is out of service the update goes on all the same.
    #[must_use]
    pub fn stop_when(mut self, stopping: &'a (dyn Fn() -> bool + Sync)) -> Self {
        self.stopping = stopping;
        self
    }

    /// Runs an open update until it is closed or frozen, and returns its last state.
    ///
    /// # Errors
    /// The run stopped before that; the update stays open, and running it again (after recovery decided) is right.
    ///
    /// # Cancel safety
    /// Dropping the future is the same as a crash: the journal says where it was.
    pub async fn run(&self, state: UpdateState) -> Result<UpdateState, SagaError> {
        let mut run = self.begin(state).await;
        run.drive().await?;
        Ok(run.state)
    }

    /// Stops the new container of an update where somebody else's hand lets the old one, or another in its place, run
    /// beside it: before recovery freezes an update. Gives the rows that the journal lacks.
    ///
    /// # Errors
    /// The engine stayed away.
    pub async fn stand_aside(&self, state: UpdateState) -> Result<Vec<Entry>, SagaError> {
        let mut run = self.begin(state).await;
        run.stand_aside().await?;
        Ok(run.pending.entries)
    }

    async fn begin(&self, state: UpdateState) -> Run<'a> {
        Run {
            ports: self.ports,
            progress: self.progress,
            engine_wait: self.engine_wait,
            stopping: self.stopping,
            state,
            watch: Watch::start(self.ports).await,
            pending: JournalWrite::default(),
            unrecorded: Vec::new(),
            engine_lost: false,
            start_refused: false,
        }
    }
}

/// One run over one update: the state, and what is not yet written of it.
struct Run<'a> {
    // inputs
    ports: &'a UpdatePorts,
    progress: &'a dyn ProgressSink,
    engine_wait: Duration,
    stopping: &'a (dyn Fn() -> bool + Sync),
    // state
    state: UpdateState,
    watch: Watch,
    /// Rows and what goes with them, written together with the next intent.
    pending: JournalWrite,
    /// Steps whose `Done` row is in `pending`.
    unrecorded: Vec<Step>,
    /// The engine went away in this run.
    engine_lost: bool,
    /// A live engine refused to start the new container, and nothing had tried before.
    start_refused: bool,
}

impl Run<'_> {
    async fn drive(&mut self) -> Result<(), SagaError> {
        loop {
            match next(&self.state) {
                Action::Perform(step, _) if (self.stopping)() && !self.state.out_of_service() => {
                    self.flush().await?;
                    return Err(SagaError::Stopped { before: step });
                }
                Action::Perform(step, member) => self.perform(step, member).await?,
                Action::GiveUp => {
                    let reason = format!("gave up after {MAX_MOVES} steps");
                    self.end(Outcome::NeedsOperator, &reason).await?;
                }
                Action::Nothing => return self.flush().await,
            }
        }
    }

    /// One step: intent, effect, outcome.
    async fn perform(&mut self, step: Step, member: usize) -> Result<(), SagaError> {
        let instance = self.state.plan.members[member].instance.to_string();
        self.progress.report(Progress::Step {
            instance,
            step: step.label(),
        });
        let mut tries = 0;
        loop {
            self.intend(step, member).await?;
            self.crash_point(step, "before")?;
            let result = match self.foreign_hand(step) {
                Some(what) => Err(StepError::Diverged(what)),
                None => self.effect(step, member).await,
            };
            self.crash_point(step, "after")?;
            match result {
                Ok(facts) => return self.done(step, member, facts).await,
                Err(StepError::Abort(error)) => return Err(error),
                Err(StepError::Unknown(error)) => {
                    self.engine_lost = true;
                    tries += 1;
                    self.wait_for_engine(step, &error).await?;
                    if tries >= UNKNOWN_TRIES && is_clean_up(step) {
                        // The outcome stands, whatever becomes of the clean-up.
                        self.flush().await?;
                        let reason = error::chain(&error);
                        return Err(SagaError::CleanUp { reason });
                    }
                    if tries >= UNKNOWN_TRIES {
                        let cause = Cause::new(Fault::Infrastructure, error::chain(&error));
                        return self.failed(step, member, cause).await;
                    }
                }
                Err(StepError::Failed(cause)) if is_clean_up(step) => {
                    tries += 1;
                    if tries >= CLEAN_UP_TRIES {
                        self.flush().await?;
                        return Err(SagaError::CleanUp {
                            reason: cause.reason,
                        });
                    }
                    self.ports.clock.sleep(RETRY_PAUSE).await;
                }
                Err(StepError::Failed(cause))
                    if may_pass(step, &cause) && tries + 1 < BACK_TRIES =>
                {
                    tries += 1;
                    tracing::warn!(
                        step = step.label(),
                        reason = cause.reason,
                        "a step of the way back is tried again"
                    );
                    self.ports.clock.sleep(RETRY_PAUSE).await;
                }
                Err(StepError::Failed(cause)) => return self.failed(step, member, cause).await,
                Err(StepError::Diverged(reason)) => return self.diverged(step, &reason).await,
                Err(StepError::Stuck(reason)) => {
                    return self.end(Outcome::NeedsOperator, &reason).await;
                }
            }
        }
    }

    async fn effect(&mut self, step: Step, member: usize) -> Result<Facts, StepError> {
        match step {
            Step::Admit => Ok(Facts::default()),
            Step::Freeze => self.freeze(member).await,
            Step::Pull => self.pull(member).await,
            Step::PreCopy => self.pre_copy(member).await,
            Step::CreateCandidate => self.create_candidate(member).await,
            Step::Guard => self.guard(member).await,
            Step::PreHook => self.pre_hook(member).await,
            Step::Disarm => self.disarm(member).await,
            Step::Stop => self.stop(member).await,
            Step::Snapshot => self.snapshot(member).await,
            Step::Park => self.park(member).await,
            Step::Promote => self.promote(member).await,
            Step::Start => self.start(member).await,
            Step::Gate => self.gate_new(member).await,
            Step::Arm => self.arm(member).await,
            Step::Commit => self.commit().await,
            Step::PostHook => self.post_hook(member).await,
            Step::CleanUp => self.clean_up().await,
            Step::StopNew => self.stop_new(member).await,
            Step::Evidence => self.evidence(member).await,
            Step::SetAside => self.set_aside(member).await,
            Step::Restore => self.restore(member).await,
            Step::Retag => self.retag(member).await,
            Step::Reinstate => self.reinstate(member).await,
            Step::StartOld => self.start_old(member).await,
            Step::ArmOld => self.arm_old(member).await,
            Step::GateOld => self.gate_old(member).await,
            Step::RolledBack => self.rolled_back().await,
            Step::CleanUpBack => self.clean_up_back().await,
        }
    }

    /// What others did to the containers that makes going on wrong. Clean-up and the last records go on all the same.
    fn foreign_hand(&mut self, step: Step) -> Option<String> {
        if self.state.outcome.is_some() || self.state.forced_forward {
            return None;
        }
        let watched =
            step >= Step::Park && step <= Step::Commit || step.direction() == Direction::Back;
        let found = self.watch.foreign(&self.state);
        found.filter(|_| watched)
    }

    /// Waits until the engine answers again. The engine being away is no move of the update.
    async fn wait_for_engine(&mut self, step: Step, error: &PortError) -> Result<(), SagaError> {
        let start = self.ports.clock.monotonic();
        let mut pause = Duration::from_millis(50);
        loop {
            match self.ports.runtime.info().await {
                Ok(_) => {
                    self.watch.start_again(self.ports).await;
                    return Ok(());
                }
                Err(last)
                    if self.ports.clock.monotonic().saturating_sub(start) >= self.engine_wait =>
                {
                    tracing::warn!(step = step.label(), first = %error, "the engine stayed away");
                    self.flush().await?;
                    return Err(SagaError::EngineAway { step, source: last });
                }
                Err(_) => {
                    self.ports.clock.sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    fn crash_point(&self, step: Step, place: &str) -> Result<(), SagaError> {
        let point = format!("{step}.{place}");
        if self.ports.crash.reached(&point) {
            Err(SagaError::Crashed(point))
        } else {
            Ok(())
        }
    }
}

fn is_clean_up(step: Step) -> bool {
    matches!(step, Step::CleanUp | Step::CleanUpBack)
}

/// Whether a failure of a step of the way back may pass by itself: a person is asked only when it does not.
fn may_pass(step: Step, cause: &Cause) -> bool {
    step.direction() == Direction::Back && cause.fault == Fault::Infrastructure
}
