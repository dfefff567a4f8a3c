//! The steps between the disarm and the commit.

use std::time::Duration;

use super::super::state::SnapshotFact;
use super::super::{Facts, Step};
use super::Run;
use super::error::{StepError, blame_release_if_invalid};
use super::gate::runs;
use super::look::{infrastructure, stuck};
use crate::model::{Consistency, Container, RestartPolicy};
use crate::ports::{Names, PortErrorKind};

/// How long a hook may take.
pub(super) const HOOK_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a stop that timed out may go on before it counts as failed.
const STOP_GOES_ON: Duration = Duration::from_secs(60);
/// How often a new container is gated again that went down between its gate and its arming.
const ARM_TRIES: u32 = 2;

impl Run<'_> {
    pub(super) async fn disarm(&mut self, member: usize) -> Result<Facts, StepError> {
        let Some(old) = self.old_to_make_room(member).await? else {
            return Ok(Facts::default());
        };
        let frozen = &self.frozen(member)?.container;
        if !self.state.forced_forward
            && (old.name != frozen.name || old.started_at != frozen.started_at)
        {
            return Err(StepError::Diverged(format!(
                "container {} was restarted or renamed by somebody else while the update was prepared",
                old.id.short()
            )));
        }
        self.nobody_started_the_new(member).await?;
        if old.restart_policy != RestartPolicy::No {
            self.ports
                .runtime
                .set_restart_policy(&old.id, RestartPolicy::No)
                .await?;
        }
        Ok(Facts::default())
    }

    /// The old container, which must be there, unless a person decided to keep the new one: then it may be gone.
    async fn old_to_make_room(&self, member: usize) -> Result<Option<Container>, StepError> {
        if self.state.forced_forward {
            self.old(member).await
        } else {
            self.old_or_gone(member).await.map(Some)
        }
    }

    pub(super) async fn stop(&mut self, member: usize) -> Result<Facts, StepError> {
        let Some(old) = self.old_to_make_room(member).await? else {
            return Ok(Facts::default());
        };
        if let Some(orphan) = self.orphan_of(&old).await? {
            return Err(stuck(format!(
                "a process of the old container lives on without the engine: {orphan}"
            )));
        }
        self.nobody_started_the_new(member).await?;
        let exit_code = self
            .stop_container(&old, self.state.plan.members[member].stop_grace)
            .await?;
        Ok(Facts {
            exit_code,
            ..Facts::default()
        })
    }

    /// Until fleet starts it, the new container does not run. One that somebody started is stopped if it still runs, since it writes to the
    /// volumes of the old one, and the update does not go on.
    async fn nobody_started_the_new(&mut self, member: usize) -> Result<(), StepError> {
        if self.state.forced_forward {
            return Ok(());
        }
        let Some(new) = self.new_container(member).await? else {
            return Ok(());
        };
        let grace = self.state.plan.members[member].stop_grace;
        self.stop_container(&new, grace).await?;
        self.new_never_ran(member, &new)
    }

    /// Fails where a new container ran that fleet did not start. Once the old one was stopped, the journal takes note of
    /// the start: what was written then is not the old one's.
    pub(super) fn new_never_ran(
        &mut self,
        member: usize,
        new: &Container,
    ) -> Result<(), StepError> {
        let ran = new.started_at.is_some() || new.is_up();
        if !ran || self.state.members[member].started.contains(&Step::Start) {
            return Ok(());
        }
        if self.state.any_started(Step::Stop) {
            self.note_start_by_others(member, new);
        }
        Err(StepError::Diverged(format!(
            "somebody started the new container {} before its time",
            new.id.short()
        )))
    }

    /// Stops a container and sees to it that its process is gone; a stop whose answer was lost may go on.
    pub(super) async fn stop_container(
        &mut self,
        container: &Container,
        grace: Option<Duration>,
    ) -> Result<Option<i64>, StepError> {
        if !container.is_up() {
            return Ok(container.exit_code);
        }
        let result = self.ports.runtime.stop(&container.id, grace).await;
        self.watch.ours(&container.id);
        match result {
            Ok(outcome) => return Ok(outcome.exit_code),
            Err(error) if error.kind() == PortErrorKind::Timeout => {}
            Err(error) => return Err(error.into()),
        }
        let start = self.ports.clock.monotonic();
        while self.ports.clock.monotonic().saturating_sub(start) < STOP_GOES_ON {
            match self.ports.runtime.inspect(&container.id).await? {
                Some(now) if now.is_up() => {
                    self.ports.clock.sleep(Duration::from_millis(200)).await
                }
                Some(now) => return Ok(now.exit_code),
                None => {
                    return Err(StepError::Diverged(format!(
                        "container {} is gone",
                        container.id.short()
                    )));
                }
            }
        }
        Err(infrastructure(format!(
            "container {} does not stop",
            container.id.short()
        )))
    }

    pub(super) async fn snapshot(&mut self, member: usize) -> Result<Facts, StepError> {
        let consistency = if self.facts(member).was_killed() {
            Consistency::Unclean
        } else {
            Consistency::Clean
        };
        let guard = self.hold_mounts(member).await?;
        let request = self.snapshot_request(member, consistency)?;
        self.both_are_down(member).await?;
        let info = match self.ports.snapshots.take(&request, self.progress).await {
            Ok(info) => info,
            Err(error) if error.kind() == PortErrorKind::NoSpace => return Err(error.into()),
            Err(first) => {
                tracing::warn!(error = %first, "the snapshot failed, one more try from its beginning");
                self.ports.snapshots.discard(&request.id).await?;
                // A copy takes its time, and a failed one says nothing about who wrote meanwhile.
                self.both_are_down(member).await?;
                self.ports.snapshots.take(&request, self.progress).await?
            }
        };
        let snapshot = SnapshotFact {
            id: info.id,
            archive_bytes: info.archive_bytes(),
            manifest_sha256: info.manifest_sha256,
        };
        Ok(Facts {
            snapshot: Some(snapshot),
            guard,
            ..Facts::default()
        })
    }

    /// The last look before volumes are copied.
    async fn both_are_down(&mut self, member: usize) -> Result<(), StepError> {
        let old = self.old(member).await?;
        if old.is_some_and(|old| old.is_up()) {
            return Err(StepError::Diverged(
                "somebody started the old container again after the stop".to_owned(),
            ));
        }
        self.nobody_started_the_new(member).await?;
        self.no_lost_process(member).await
    }

    pub(super) async fn park(&mut self, member: usize) -> Result<Facts, StepError> {
        // A prune takes a stopped container; its spec is in the journal, so the update goes on without it.
        let Some(old) = self.old(member).await? else {
            return Ok(Facts {
                note: Some("the parked container was removed".to_owned()),
                ..Facts::default()
            });
        };
        let plan = &self.state.plan.members[member];
        let parked = Names::parked(&plan.instance.name, &self.state.plan.id);
        if old.name != plan.instance.name.as_str() && old.name != parked {
            return Err(StepError::Diverged(format!(
                "somebody renamed the old container to {}",
                old.name
            )));
        }
        if old.is_up() {
            return Err(StepError::Diverged(format!(
                "somebody started container {} while it was to be parked",
                old.id.short()
            )));
        }
        self.ports.runtime.rename(&old.id, &parked).await?;
        Ok(Facts::default())
    }

    pub(super) async fn promote(&mut self, member: usize) -> Result<Facts, StepError> {
        let new = self.new_or_gone(member).await?;
        self.name_is_free_for(member, &[&new.id]).await?;
        let name = self.state.plan.members[member].instance.name.as_str();
        self.ports.runtime.rename(&new.id, name).await?;
        Ok(Facts::default())
    }

    pub(super) async fn new_or_gone(&self, member: usize) -> Result<Container, StepError> {
        self.new_container(member).await?.ok_or_else(|| {
            infrastructure("the new container was removed by somebody else before it was started")
        })
    }

    /// Where the engine was lost, it may have lost sight of what somebody had started before: the new container, or the old
    /// one again.
    pub(super) async fn no_lost_process(&mut self, member: usize) -> Result<(), StepError> {
        if !self.may_have_missed_something() {
            return Ok(());
        }
        let new = self.facts(member).candidate.as_ref().map(|id| ("new", id));
        let old = ("old", self.state.old_id(member));
        for (which, id) in new.into_iter().chain([old]) {
            if let Some(orphan) = self.ports.runtime.orphan(id).await? {
                return Err(stuck(format!(
                    "a process of the {which} container lives on without the engine: {orphan}"
                )));
            }
        }
        Ok(())
    }

    pub(super) async fn start(&mut self, member: usize) -> Result<Facts, StepError> {
        let new = self.new_or_gone(member).await?;
        if new.started_at.is_some() && (new.is_up() || !self.state.forced_forward) {
            // It ran. Whether it is well is the gate's question.
            return Ok(Facts {
                started_at: new.started_at,
                ..Facts::default()
            });
        }
        self.no_lost_process(member).await?;
        if let Some(other) = self.version_beside(&new.id).await? {
            return Err(StepError::Diverged(other));
        }
        let result = self.ports.runtime.start(&new.id).await;
        self.watch.ours(&new.id);
        if result.as_ref().is_err_and(|error| !error.outcome_unknown()) {
            // Only the answer to the first start proves that nothing ran: an earlier one may have been lost. And the
            // error may have come after the start.
            let now = self.ports.runtime.inspect(&new.id).await;
            let never_ran =
                matches!(now, Ok(Some(now)) if now.started_at.is_none() && !now.is_up());
            self.start_refused = never_ran && self.state.recoveries == 0;
        }
        let outcome = result.map_err(blame_release_if_invalid)?;
        Ok(Facts {
            started_at: outcome.started_at,
            ..Facts::default()
        })
    }

    pub(super) async fn arm(&mut self, member: usize) -> Result<Facts, StepError> {
        let policy = self.frozen(member)?.container.restart_policy;
        let mut facts = Facts::default();
        for _ in 0..ARM_TRIES {
            let mut new = self.new_in_its_place(member).await?;
            if self.runs_ungated(member, &new) {
                facts = self.gate_again(member, &new).await?;
                self.state.members[member].facts.started_at = facts.started_at;
                new = self.new_in_its_place(member).await?;
            }
            if new.restart_policy != policy {
                self.ports
                    .runtime
                    .set_restart_policy(&new.id, policy)
                    .await?;
            }
            let new = self.new_in_its_place(member).await?;
            if self.state.forced_forward && self.state.was_running(member) && !new.is_up() {
                // A person decided that it runs.
                self.no_lost_process(member).await?;
                self.ports.runtime.start(&new.id).await?;
                self.watch.ours(&new.id);
            }
            // A reboot or a restart of the engine just before the policy was set leaves it down, or as another run.
            if !self.runs_ungated(member, &new) {
                return Ok(facts);
            }
        }
        Err(infrastructure(
            "the new container was taken down again and again after it had passed",
        ))
    }

    /// The new container under the instance's name, and no other version beside it: events may have been missed while
    /// the engine was away.
    async fn new_in_its_place(&self, member: usize) -> Result<Container, StepError> {
        let gone = || StepError::Diverged("the new container was removed by somebody else".into());
        let new = self.new_container(member).await?.ok_or_else(gone)?;
        let name = self.state.plan.members[member].instance.name.as_str();
        if new.name != name {
            return Err(StepError::Diverged(format!(
                "expected the new container under the name {name}, found it under {}",
                new.name
            )));
        }
        match self.version_beside(&new.id).await? {
            Some(other) => Err(StepError::Diverged(other)),
            None => Ok(new),
        }
    }

    /// The commit has no effect outside the journal: its rows are the effect. What another process armed may have gone down
    /// since; before the commit any doubt leads back.
    pub(super) async fn commit(&mut self) -> Result<Facts, StepError> {
        if self.may_have_missed_something() && !self.state.forced_forward {
            for member in 0..self.state.members.len() {
                let new = self.new_container(member).await?;
                let up = new.as_ref().is_some_and(runs);
                if self.state.was_running(member) && !up {
                    return Err(infrastructure(
                        "the new container went down before the commit, while the engine or fleet was away",
                    ));
                }
            }
        }
        Ok(Facts::default())
    }
}
