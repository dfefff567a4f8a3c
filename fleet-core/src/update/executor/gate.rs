//! The health gate: asks until it is sure.
//!
//! The first of these that is configured decides alone: the HTTP check, the image's HEALTHCHECK, "runs, not
//! restarted". An exit fails at once, except where the engine itself went down.

use std::time::Duration;

use futures::{FutureExt, select_biased};

use super::super::state::Deadline;
use super::super::{Cause, Facts, Fault};
use super::Run;
use super::error::{StepError, chain};
use crate::ids::ContainerId;
use crate::model::{Container, EngineHealth, HealthSpec, RestartPolicy, RunState};
use crate::ports::{PortErrorKind, ProbeTarget, ProbeVerdict, Progress};
use crate::time::Timestamp;

/// First pause between two probes; it grows by half each time up to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest time for one HTTP probe.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Within this time after a signal that fleet did not send, a lost engine explains it.
const ENGINE_INCIDENT: Duration = Duration::from_secs(15);

/// How one question was answered.
enum Answer {
    Pass,
    NotYet(String),
    /// The process ended.
    Ended(Box<Container>),
    /// Another run of it, since the engine restarted.
    RunAnew,
}

/// What the gate learned when it passed.
pub(super) struct Passed {
    first_pass_at: Timestamp,
    /// Start of the run that passed.
    run: Option<Timestamp>,
}

impl Passed {
    fn facts(&self) -> Facts {
        Facts {
            first_pass_at: Some(self.first_pass_at),
            started_at: self.run,
            ..Facts::default()
        }
    }
}

impl Run<'_> {
    /// The deadline for the row that begins the gate: kept if it was set on this boot.
    pub(super) fn gate_deadline(&self, member: usize) -> serde_json::Value {
        let boot_id = self.ports.clock.boot_id();
        if let Some(deadline) = &self.facts(member).gate_deadline
            && deadline.boot_id == boot_id
        {
            return serde_json::Value::Null;
        }
        let timeout = self.state.plan.members[member].health.timeout;
        let at = self.ports.clock.now().saturating_add(timeout);
        Facts {
            gate_deadline: Some(Deadline { at, boot_id }),
            ..Facts::default()
        }
        .payload()
    }

    /// Steps `gate`: the new container proves that it is well.
    pub(super) async fn gate_new(&mut self, member: usize) -> Result<Facts, StepError> {
        let Some(new) = self.new_container(member).await? else {
            return Err(StepError::Diverged(
                "the new container was removed by somebody else".to_owned(),
            ));
        };
        let found = &new.image_id;
        if let Some(expected) = self
            .facts(member)
            .image_id
            .as_ref()
            .filter(|expected| *expected != found)
        {
            let text = format!(
                "expected image {}, found {} in the new container",
                expected.short(),
                found.short()
            );
            return Err(StepError::Failed(Cause::new(Fault::Infrastructure, text)));
        }
        let spec = self.state.plan.members[member].health.clone();
        let left = self.time_left(member, spec.timeout);
        let passed = self.gate(member, &new.id, &spec, left, &mut true).await?;
        Ok(passed.facts())
    }

    /// Whether the run that passed the gate is not the one that there is now.
    pub(super) fn runs_ungated(&self, member: usize, new: &Container) -> bool {
        let gated = self.state.was_running(member) && !self.state.forced_forward;
        gated && (!runs(new) || new.started_at != self.facts(member).started_at)
    }

    /// A run that the gate did not see, since engine or host restarted, or the container ended, after it had passed: it
    /// proves anew that it is well, under no restart policy, which would hide a crash.
    pub(super) async fn gate_again(
        &mut self,
        member: usize,
        new: &Container,
    ) -> Result<Facts, StepError> {
        let runs = runs(new);
        if !runs && !self.may_have_missed_something() {
            return Err(StepError::Failed(Cause::new(
                Fault::Release,
                "the new container ended after it had passed",
            )));
        }
        if new.restart_policy != RestartPolicy::No {
            self.ports
                .runtime
                .set_restart_policy(&new.id, RestartPolicy::No)
                .await?;
        }
        if !runs {
            // Its policy may be about to start it once more.
            self.stop_container(new, None).await?;
            self.no_lost_process(member).await?;
            self.ports.runtime.start(&new.id).await?;
            self.watch.ours(&new.id);
        }
        let spec = self.state.plan.members[member].health.clone();
        let mut may_restart = runs;
        let passed = self
            .gate(member, &new.id, &spec, spec.timeout, &mut may_restart)
            .await?;
        Ok(passed.facts())
    }

    /// Time left until the recorded deadline. A clock that jumped may not stretch it.
    fn time_left(&self, member: usize, timeout: Duration) -> Duration {
        let deadline = self.facts(member).gate_deadline.as_ref();
        deadline.map_or(timeout, |deadline| {
            deadline.at.since(self.ports.clock.now()).min(timeout)
        })
    }

    /// Asks until it passes, fails, or the time is over.
    ///
    /// `may_restart`: whether an engine restart may be answered by starting the container again, once.
    pub(super) async fn gate(
        &mut self,
        member: usize,
        id: &ContainerId,
        spec: &HealthSpec,
        time: Duration,
        may_restart: &mut bool,
    ) -> Result<Passed, StepError> {
        let mut start = self.ports.clock.monotonic();
        let mut pause = FIRST_PAUSE;
        let mut passes = 0;
        let mut first: Option<(Timestamp, Duration)> = None;
        let mut last_reason = String::from("it was never asked");
        let mut run_of = None;
        loop {
            if let Some(what) = self.foreign_hand(super::Step::Gate) {
                return Err(StepError::Diverged(what));
            }
            let now = self.ports.clock.monotonic();
            match self.ask(id, spec, &mut run_of).await {
                Ok(Answer::Pass) => {
                    passes += 1;
                    let (at, since) = *first.get_or_insert_with(|| (self.ports.clock.now(), now));
                    self.progress.report(Progress::Probe {
                        passes,
                        reason: None,
                    });
                    let healthy = self.ports.clock.monotonic().saturating_sub(since);
                    if passes >= spec.passes && healthy >= spec.min_healthy {
                        return Ok(Passed {
                            first_pass_at: at,
                            run: run_of,
                        });
                    }
                }
                Ok(Answer::NotYet(reason)) => {
                    passes = 0;
                    first = None;
                    self.progress.report(Progress::Probe {
                        passes,
                        reason: Some(reason.clone()),
                    });
                    last_reason = reason;
                }
                Ok(Answer::Ended(container)) => {
                    self.ended(member, &container, may_restart).await?;
                    (passes, first, pause, run_of) = (0, None, FIRST_PAUSE, None);
                    start = self.ports.clock.monotonic();
                    continue;
                }
                Ok(Answer::RunAnew) => {
                    self.engine_lost = true;
                    self.wait_for_engine_back().await?;
                    (passes, first, pause, run_of) = (0, None, FIRST_PAUSE, None);
                    start = self.ports.clock.monotonic();
                    continue;
                }
                Err(StepError::Unknown(error)) => {
                    // The engine is away. It is an incident of the engine: wait, then start the question anew.
                    self.engine_lost = true;
                    self.wait_for_engine(super::Step::Gate, &error).await?;
                    (passes, first, pause, run_of) = (0, None, FIRST_PAUSE, None);
                    start = self.ports.clock.monotonic();
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.ports.clock.monotonic().saturating_sub(start) >= time {
                let text = format!(
                    "not healthy within {}s: {last_reason}",
                    spec.timeout.as_secs_f32()
                );
                return Err(StepError::Failed(Cause::new(Fault::Release, text)));
            }
            let wanted = wanted_pause(
                spec,
                first.map(|(_, since)| since),
                self.ports.clock.monotonic(),
            );
            self.rest(pause.min(wanted), id).await;
            pause = (pause * 3 / 2).min(spec.interval.max(FIRST_PAUSE));
        }
    }

    /// Waits for the pause to pass, or until the container's process ends or the engine goes away.
    async fn rest(&mut self, pause: Duration, id: &ContainerId) {
        let mut sleep = self.ports.clock.sleep(pause).fuse();
        loop {
            {
                let changed = self.watch.changed().fuse();
                futures::pin_mut!(changed);
                select_biased! {
                    () = sleep => return,
                    () = changed => {}
                }
            }
            let foreign = self.foreign_hand(super::Step::Gate).is_some();
            if foreign || self.watch.has_died(id) || self.watch.lost() {
                return;
            }
        }
    }

    /// One question.
    ///
    /// `run_of`: start of the run that is being judged, once it is known; another one is the engine's restart or
    /// somebody else's doing.
    async fn ask(
        &mut self,
        id: &ContainerId,
        spec: &HealthSpec,
        run_of: &mut Option<Timestamp>,
    ) -> Result<Answer, StepError> {
        let Some(container) = self.ports.runtime.inspect(id).await? else {
            return Err(StepError::Diverged(format!(
                "container {} was removed by somebody else",
                id.short()
            )));
        };
        if !container.is_up() {
            return Ok(Answer::Ended(Box::new(container)));
        }
        if run_of.is_some() && *run_of != container.started_at {
            // The engine goes and comes back within one slow answer, and its policy brings the container up: no
            // question failed, only the events broke off.
            if self.watch.lost() {
                return Ok(Answer::RunAnew);
            }
            return Err(StepError::Diverged(format!(
                "container {} was restarted by somebody else",
                id.short()
            )));
        }
        *run_of = container.started_at;
        let Some(check) = &spec.http else {
            return Ok(engine_answer(&container));
        };
        let target = ProbeTarget {
            container: id.clone(),
            check: check.clone(),
            timeout: PROBE_TIMEOUT,
        };
        match self.ports.probe.probe(&target).await {
            Ok(ProbeVerdict::Pass) => Ok(Answer::Pass),
            Ok(ProbeVerdict::Fail(reason)) => Ok(Answer::NotYet(reason)),
            Err(error) if error.kind() == PortErrorKind::Invalid => Err(StepError::Failed(
                Cause::new(Fault::Infrastructure, chain(&error)),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// The container is down: its own doing fails the gate; the engine's restart does not count, once; anybody else's
    /// hand freezes the update.
    async fn ended(
        &mut self,
        member: usize,
        container: &Container,
        may_restart: &mut bool,
    ) -> Result<(), StepError> {
        let id = &container.id;
        let signalled = self.watch.was_killed(id);
        let mut incident = self.may_have_missed_something();
        if signalled && !incident {
            incident = self.engine_goes_down().await;
            if !incident {
                return Err(StepError::Diverged(format!(
                    "somebody stopped the new container {}",
                    id.short()
                )));
            }
        }
        if incident && *may_restart {
            *may_restart = false;
            self.wait_for_engine_back().await?;
            self.no_lost_process(member).await?;
            if let Some(other) = self.version_beside(id).await? {
                return Err(StepError::Diverged(other));
            }
            let result = self.ports.runtime.start(id).await;
            self.watch.ours(id);
            return Ok(result.map(|_| ())?);
        }
        let code = container
            .exit_code
            .map_or_else(String::new, |code| format!(" with code {code}"));
        Err(StepError::Failed(Cause::new(
            Fault::Release,
            format!("the container ended{code}"),
        )))
    }

    /// Whether the engine goes away in the time in which a signal of its own shutdown would be followed by that.
    async fn engine_goes_down(&mut self) -> bool {
        let start = self.ports.clock.monotonic();
        while self.ports.clock.monotonic().saturating_sub(start) < ENGINE_INCIDENT {
            if self.watch.lost() || self.ports.runtime.info().await.is_err() {
                self.engine_lost = true;
                return true;
            }
            self.ports.clock.sleep(Duration::from_millis(500)).await;
        }
        false
    }

    async fn wait_for_engine_back(&mut self) -> Result<(), StepError> {
        match self.ports.runtime.info().await {
            Ok(_) if !self.watch.lost() => Ok(()),
            Ok(_) => {
                self.watch.start_again(self.ports).await;
                Ok(())
            }
            Err(error) => Ok(self.wait_for_engine(super::Step::Gate, &error).await?),
        }
    }
}

/// Whether it runs, and is not between two runs of its policy.
pub(super) fn runs(container: &Container) -> bool {
    container.is_up() && container.state != RunState::Restarting
}

/// What the engine itself says of a running container.
fn engine_answer(container: &Container) -> Answer {
    match container.health {
        None | Some(EngineHealth::Healthy) => Answer::Pass,
        Some(EngineHealth::Starting) => {
            Answer::NotYet("its health check is still starting".to_owned())
        }
        Some(EngineHealth::Unhealthy) => Answer::NotYet("its health check fails".to_owned()),
    }
}

/// While passing, there is no need to sleep beyond the moment at which the gate can pass.
fn wanted_pause(spec: &HealthSpec, healthy_since: Option<Duration>, now: Duration) -> Duration {
    let Some(since) = healthy_since else {
        return Duration::MAX;
    };
    let left = spec.min_healthy.saturating_sub(now.saturating_sub(since));
    left.max(Duration::from_millis(5))
}
