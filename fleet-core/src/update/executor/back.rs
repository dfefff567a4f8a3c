//! The effects of the steps of the way back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::super::{Facts, Step};
use super::Run;
use super::error::{StepError, chain};
use super::look::{infrastructure, stuck};
use super::prepare::local_tag;
use crate::ids::{ContainerId, SnapshotId};
use crate::model::{Container, EngineHealth, RestartPolicy, VolumeSource};
use crate::ports::{Names, PortErrorKind};

/// Lines of the failed container's log that are kept.
const EVIDENCE_LINES: u32 = 50;
/// Tries of a restore before a person is asked.
const RESTORE_TRIES: u32 = 3;

impl Run<'_> {
    pub(super) async fn stop_new(&mut self, member: usize) -> Result<Facts, StepError> {
        let Some(new) = self.new_container(member).await? else {
            return Ok(Facts::default());
        };
        if let Some(orphan) = self.orphan_of(&new).await? {
            return Err(stuck(format!(
                "a process of the new container lives on without the engine: {orphan}"
            )));
        }
        if new.restart_policy != RestartPolicy::No {
            self.ports
                .runtime
                .set_restart_policy(&new.id, RestartPolicy::No)
                .await?;
        }
        self.stop_container(&new, self.state.plan.members[member].stop_grace)
            .await?;
        Ok(Facts::default())
    }

    /// A process that the engine lost sight of. Only worth looking for where the engine says that nothing runs although
    /// a start was sent.
    pub(super) async fn orphan_of(
        &self,
        container: &Container,
    ) -> Result<Option<String>, StepError> {
        if container.is_up() {
            Ok(None)
        } else {
            Ok(self.ports.runtime.orphan(&container.id).await?)
        }
    }

    /// Log and state of the failed container. Never blocks the way back.
    pub(super) async fn evidence(&mut self, member: usize) -> Result<Facts, StepError> {
        let Ok(Some(new)) = self.new_container(member).await else {
            return Ok(Facts::default());
        };
        let mut text = format!("state {:?}, exit code {:?}\n", new.state, new.exit_code);
        match self.ports.runtime.logs_tail(&new.id, EVIDENCE_LINES).await {
            Ok(log) => text.push_str(&log),
            Err(error) => {
                // Writing into a String cannot fail.
                let _ = write!(text, "no log: {}", chain(&error));
            }
        }
        Ok(Facts {
            evidence: Some(text),
            ..Facts::default()
        })
    }

    pub(super) async fn set_aside(&mut self, member: usize) -> Result<Facts, StepError> {
        let Some(new) = self.new_container(member).await? else {
            return Ok(Facts::default());
        };
        let name = Names::failed(
            &self.state.plan.members[member].instance.name,
            &self.state.plan.id,
        );
        self.ports.runtime.rename(&new.id, &name).await?;
        Ok(Facts::default())
    }

    pub(super) async fn restore(&mut self, member: usize) -> Result<Facts, StepError> {
        let Some(snapshot) = self.snapshot_to_put_back(member).await? else {
            return Ok(Facts {
                note: Some(format!(
                    "no snapshot of {} was taken before somebody started the new container: its data was left as it is",
                    self.state.plan.members[member].instance
                )),
                ..Facts::default()
            });
        };
        let mut volumes = Vec::new();
        for volume in self.facts(member).volumes.clone().unwrap_or_default() {
            match self.ports.runtime.volume(&volume.name).await? {
                Some(now) => volumes.push(now),
                None => {
                    return Err(stuck(format!(
                        "volume {} is gone; its data is in snapshot {snapshot}",
                        volume.name
                    )));
                }
            }
        }
        let guard = self.hold_mounts(member).await?;
        self.put_back(member, &snapshot, &volumes).await?;
        Ok(Facts {
            guard,
            ..Facts::default()
        })
    }

    pub(super) async fn put_back(
        &self,
        member: usize,
        snapshot: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<(), StepError> {
        let mut tries = 0;
        loop {
            tries += 1;
            // The last look before the act, each time.
            self.nobody_writes(member).await?;
            match self
                .ports
                .snapshots
                .restore(snapshot, volumes, self.progress)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == PortErrorKind::Corrupt || tries >= RESTORE_TRIES => {
                    return Err(stuck(format!(
                        "snapshot {snapshot} could not be put back: {}",
                        chain(&error)
                    )));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "putting the data back failed, trying again")
                }
            }
        }
    }

    /// The snapshot of the moment of stop. A journal that lost it still knows the id that it was to have. None where there
    /// never was one and a person, who was told so, chose the way back all the same.
    async fn snapshot_to_put_back(&self, member: usize) -> Result<Option<SnapshotId>, StepError> {
        let planned = self.state.plan.members[member].snapshot_id;
        match &self.facts(member).snapshot {
            Some(snapshot) => match self.ports.snapshots.get(&snapshot.id).await? {
                Some(info) if info.manifest_sha256 == snapshot.manifest_sha256 => {
                    Ok(Some(snapshot.id))
                }
                Some(_) => Err(stuck(format!(
                    "snapshot {} is not the one that was taken",
                    snapshot.id
                ))),
                None => Err(stuck(format!("snapshot {} is gone", snapshot.id))),
            },
            None if self.ports.snapshots.get(&planned).await?.is_some() => Ok(Some(planned)),
            None if self.state.decided_by_person => Ok(None),
            None => Err(stuck(
                "the volumes may have been written to, and there is no snapshot in the journal",
            )),
        }
    }

    /// No restore while anything that runs mounts the volumes: fleet's own containers are stopped already, the rest is
    /// somebody else's. What the engine shows as stopped may have a process that it lost sight of, whoever made it; and
    /// of fleet's own even what the engine does not know any more.
    async fn nobody_writes(&self, member: usize) -> Result<(), StepError> {
        let instance = &self.state.plan.members[member].instance;
        let users = self.users_of_volumes(member).await?;
        if let Some(other) = users.iter().find(|user| user.is_up()) {
            return Err(StepError::Diverged(format!(
                "expected nobody to use the volumes of {instance}, found container {} running on them",
                other.name
            )));
        }
        let mut ids: BTreeSet<_> = users.iter().map(|user| &user.id).collect();
        for (plan, known) in self.state.plan.members.iter().zip(&self.state.members) {
            ids.insert(&plan.container);
            ids.extend(&known.facts.candidate);
            ids.extend(&known.facts.restored);
        }
        for id in ids {
            if let Some(orphan) = self.ports.runtime.orphan(id).await? {
                return Err(stuck(format!(
                    "the data of {instance} is not put back while a process of container {} lives on without the \
                     engine: {orphan}",
                    id.short()
                )));
            }
        }
        Ok(())
    }

    /// Puts the local tag back on the image it was on, unless another instance has committed the new one.
    pub(super) async fn retag(&mut self, member: usize) -> Result<Facts, StepError> {
        let plan = &self.state.plan.members[member];
        let Some(tag) = local_tag(&plan.image) else {
            return Ok(Facts::default());
        };
        let Some(new) = &self.facts(member).image_id else {
            return Ok(Facts::default());
        };
        // What was frozen is where the old container's own tag pointed. A target under another tag never moved that
        // one, and its own tag is the user's: it stays.
        let was = &self.frozen(member)?.container.image;
        if *was != plan.image && local_tag(was).as_deref() != Some(&tag) {
            return Ok(Facts::default());
        }
        let deployed = self
            .ports
            .journal
            .deployed()
            .await
            .map_err(super::SagaError::from)?;
        let committed_elsewhere = deployed.iter().any(|other| {
            other.instance != plan.instance
                && other.image_id == *new
                && other.image.familiar_tag().as_deref() == Some(&tag)
        });
        if committed_elsewhere {
            return Ok(Facts::default());
        }
        match &self.frozen(member)?.tag_image {
            Some(image) => match self.ports.images.tag(image, &tag).await {
                // The image that the tag was on is not the one that ran, and somebody removed it since.
                Err(error) if error.is_not_found() => {}
                other => other?,
            },
            None => {
                let now = self.ports.images.image(&tag).await?;
                if now.is_some_and(|now| now.id == *new)
                    && plan.target.as_ref().is_some_and(|t| t.local.is_none())
                {
                    self.ports.images.untag(&tag).await?;
                }
            }
        }
        Ok(Facts::default())
    }

    pub(super) async fn reinstate(&mut self, member: usize) -> Result<Facts, StepError> {
        let name = self.state.plan.members[member].instance.name.to_string();
        match self.old(member).await? {
            Some(old) => {
                self.name_is_free_for(member, &[&old.id]).await?;
                self.ports.runtime.rename(&old.id, &name).await?;
                Ok(Facts::default())
            }
            None => self.make_old_again(member, name).await,
        }
    }

    pub(super) async fn start_old(&mut self, member: usize) -> Result<Facts, StepError> {
        let (old, restored) = match self.old(member).await? {
            Some(old) => (self.after_a_stop_that_goes_on(member, old).await?, None),
            // A prune takes what does not run yet, also what was just made again.
            None => self.old_made_again(member).await?,
        };
        if old.is_up() {
            return Ok(Facts {
                back_at: Some(self.ports.clock.now()),
                restored,
                ..Facts::default()
            });
        }
        // Never started by fleet, or stopped by it: if the new one runs now, somebody else started it; and if it ran
        // without fleet's start, the data may not be what the old one left.
        if let Some(new) = self.new_container(member).await? {
            self.new_never_ran(member, &new)?;
            if new.is_up() {
                return Err(StepError::Diverged(format!(
                    "somebody started the new container {}",
                    new.id.short()
                )));
            }
        }
        self.no_lost_process(member).await?;
        let mut result = self.ports.runtime.start(&old.id).await;
        if result.as_ref().is_err_and(|error| !error.outcome_unknown()) {
            // A network that was pruned and made again is known by its name only.
            let frozen = self.frozen(member)?.clone();
            self.ports.runtime.reattach(&old.id, &frozen).await?;
            result = self.ports.runtime.start(&old.id).await;
        }
        self.watch.ours(&old.id);
        result?;
        Ok(Facts {
            back_at: Some(self.ports.clock.now()),
            restored,
            ..Facts::default()
        })
    }

    /// A stop that was sent goes on in the engine without whoever sent it. Where its end was not seen and the old
    /// container still runs as before, it is seen through: else the container would go down, for good, when everything
    /// is over.
    async fn after_a_stop_that_goes_on(
        &mut self,
        member: usize,
        old: Container,
    ) -> Result<Container, StepError> {
        let known = &self.state.members[member];
        let sent = known.started.contains(&Step::Stop) && !known.done.contains(&Step::Stop);
        let as_before = old.started_at == self.frozen(member)?.container.started_at;
        if !sent || !as_before || !old.is_up() {
            return Ok(old);
        }
        let grace = self.state.plan.members[member].stop_grace;
        match self.stop_container(&old, grace).await {
            // What cannot be stopped runs on.
            Ok(_) | Err(StepError::Failed(_)) => self.old_or_gone(member).await,
            Err(error) => Err(error),
        }
    }

    async fn old_made_again(
        &mut self,
        member: usize,
    ) -> Result<(Container, Option<ContainerId>), StepError> {
        let name = self.state.plan.members[member].instance.name.to_string();
        let restored = self.make_old_again(member, name).await?.restored;
        let gone = || infrastructure("the old container was removed by somebody else");
        let id = restored.clone().ok_or_else(gone)?;
        let old = self.ports.runtime.inspect(&id).await?.ok_or_else(gone)?;
        Ok((old, restored))
    }

    pub(super) async fn arm_old(&mut self, member: usize) -> Result<Facts, StepError> {
        let policy = self.frozen(member)?.container.restart_policy;
        match self.old(member).await? {
            Some(old) => {
                self.start_again_if_engine_took_it_down(member, &old)
                    .await?;
                if old.restart_policy != policy {
                    self.ports
                        .runtime
                        .set_restart_policy(&old.id, policy)
                        .await?;
                }
            }
            // Before the stop, a container that somebody removed is theirs to have removed.
            None if !self.state.any_started(Step::Stop) => {}
            None => {
                return Err(infrastructure(
                    "the old container was removed by somebody else",
                ));
            }
        }
        Ok(Facts::default())
    }

    /// Between the disarm and the stop a restart of engine or host leaves the old container down, because fleet took its
    /// policy away. Without such an incident somebody else stopped it, and that is theirs.
    async fn start_again_if_engine_took_it_down(
        &mut self,
        member: usize,
        old: &Container,
    ) -> Result<(), StepError> {
        let down = self.state.was_running(member) && !old.is_up();
        if down && self.may_have_missed_something() && !self.state.any_started(Step::Stop) {
            self.start_old_alone(member, old).await?;
        }
        Ok(())
    }

    async fn start_old_alone(&mut self, member: usize, old: &Container) -> Result<(), StepError> {
        self.no_lost_process(member).await?;
        if let Some(other) = self.version_beside(&old.id).await? {
            return Err(StepError::Diverged(other));
        }
        let result = self.ports.runtime.start(&old.id).await;
        self.watch.ours(&old.id);
        result?;
        Ok(())
    }

    /// The old container must get back to what it was, not to more.
    pub(super) async fn gate_old(&mut self, member: usize) -> Result<Facts, StepError> {
        let mut spec = self.state.plan.members[member].health.clone();
        let timeout = spec.timeout.max(Duration::from_secs(30));
        if !self.was_healthy(member) {
            return self.old_runs(member).await;
        }
        spec.min_healthy = spec.min_healthy.min(Duration::from_secs(2));
        let id = self.state.old_id(member).clone();
        let mut may_restart = true;
        match self
            .gate(member, &id, &spec, timeout, &mut may_restart)
            .await
        {
            // The engine took it down, more than once: it may well get back.
            Err(StepError::Failed(cause)) if !may_restart => Err(infrastructure(cause.reason)),
            other => other.map(|_| Facts::default()),
        }
    }

    fn was_healthy(&self, member: usize) -> bool {
        !matches!(
            self.facts(member).health_before,
            Some(EngineHealth::Unhealthy | EngineHealth::Starting)
        )
    }

    async fn old_runs(&mut self, member: usize) -> Result<Facts, StepError> {
        match self.old(member).await? {
            Some(old) if old.is_up() => Ok(Facts::default()),
            _ => Err(infrastructure("the old container does not stay up")),
        }
    }

    /// The end of the way back has no effect outside the journal: its rows are the effect. But one that was back may have
    /// gone down again with the engine while others were on their way.
    pub(super) async fn rolled_back(&mut self) -> Result<Facts, StepError> {
        let back = self.state.any_started(Step::Stop) && self.may_have_missed_something();
        for member in 0..self.state.members.len() {
            if back && self.state.was_running(member) {
                let old = self.old_or_gone(member).await?;
                if !old.is_up() {
                    self.start_old_alone(member, &old).await?;
                }
            }
        }
        Ok(Facts::default())
    }

    pub(super) async fn clean_up_back(&mut self) -> Result<Facts, StepError> {
        for member in (0..self.state.members.len()).rev() {
            let mut volumes = self.facts(member).new_volumes.clone().unwrap_or_default();
            let mut ran = self.state.volumes_dirty();
            if let Some(new) = self.new_container(member).await? {
                ran |= new.started_at.is_some();
                // The answer to the creation may have been lost, and with it which volumes it brought.
                volumes.extend(self.volumes_made_for(member, &new));
                // Somebody may have started it meanwhile.
                self.stop_container(&new, None).await?;
                self.watch.ours(&new.id);
                self.ports.runtime.remove(&new.id).await?;
            }
            self.remove_guard(member).await?;
            self.drop_keep_tags(member).await?;
            self.remove_made_volumes(&volumes).await?;
            let id = self.state.plan.members[member].snapshot_id;
            self.ports.snapshots.discard(&id).await?;
            if !ran && self.lost_volumes(member).await?.is_empty() {
                // Nothing was written since: the volume itself is the last good state.
                self.ports.snapshots.delete(&id).await?;
            }
            self.apply_retention(member).await?;
        }
        Ok(Facts::default())
    }

    /// Stops the new container where the old one runs beside it: never two versions.
    pub(super) async fn stop_ours_beside_theirs(&mut self) -> Result<(), StepError> {
        for member in 0..self.state.members.len() {
            let Some(new) = self.new_container(member).await? else {
                continue;
            };
            if !new.is_up() {
                continue;
            }
            let known = self.state.members[member].started.contains(&Step::Start);
            if !known && self.state.any_started(Step::Stop) {
                self.note_start_by_others(member, &new);
            }
            let theirs = self.old(member).await?.is_some_and(|old| old.is_up());
            let holder = self
                .ports
                .runtime
                .find(self.state.plan.members[member].instance.name.as_str())
                .await?;
            let replaced = holder.is_some_and(|holder| holder.id != new.id && holder.is_up());
            if theirs || replaced {
                self.ports
                    .runtime
                    .set_restart_policy(&new.id, RestartPolicy::No)
                    .await?;
                self.stop_container(&new, None).await?;
            }
        }
        Ok(())
    }
}
