//! The effects of the forward steps.

use std::time::Duration;

use super::super::state::SnapshotFact;
use super::super::{Cause, Facts, Fault};
use super::Run;
use super::error::{StepError, blame_release_if_invalid, chain};
use super::look::{infrastructure, stuck};
use crate::ids::VolumeName;
use crate::image::ImageRef;
use crate::model::{
    Consistency, Container, Mount, MountKind, RestartPolicy, SnapshotChoice, VolumeSource,
};
use crate::ports::{
    CandidateRequest, CreateRequest, GuardRequest, Names, PortErrorKind, Repoint, SnapshotRequest,
};

/// Exit code of a hook that says "not now".
const NOT_NOW: i64 = 75;
/// How long a hook may take.
const HOOK_TIMEOUT: Duration = Duration::from_secs(300);
/// Exit code of a killed process.
const KILLED: i64 = 137;
/// How long a stop that timed out may go on before it counts as failed.
const STOP_GOES_ON: Duration = Duration::from_secs(60);

impl Run<'_> {
    pub(super) async fn freeze(&mut self, member: usize) -> Result<Facts, StepError> {
        let plan = &self.state.plan.members[member];
        let frozen = self.ports.runtime.freeze(&plan.container).await?;
        if frozen.container.name != plan.instance.name.as_str() {
            let found = &frozen.container.name;
            return Err(StepError::Diverged(format!(
                "expected the name {}, found {found}",
                plan.instance.name
            )));
        }
        let volumes = self
            .chosen_volumes(&frozen.container, &plan.snapshot)
            .await?;
        let info = self.ports.runtime.info().await?;
        Ok(Facts {
            was_running: Some(frozen.container.is_up()),
            health_before: frozen.container.health,
            volumes: Some(volumes),
            engine_id: Some(info.engine_id),
            frozen: Some(frozen),
            ..Facts::default()
        })
    }

    /// The volumes to copy. A volume that an earlier member of the group writes to belongs to that one.
    async fn chosen_volumes(
        &self,
        container: &Container,
        choice: &SnapshotChoice,
    ) -> Result<Vec<VolumeSource>, StepError> {
        let taken: Vec<&VolumeName> = self
            .state
            .members
            .iter()
            .filter_map(|member| member.facts.volumes.as_ref())
            .flatten()
            .map(|volume| &volume.name)
            .collect();
        let mut volumes: Vec<VolumeSource> = Vec::new();
        for mount in &container.mounts {
            let MountKind::Volume { name, driver, .. } = &mount.kind else {
                continue;
            };
            let known = taken.contains(&name) || volumes.iter().any(|volume| volume.name == *name);
            if known || driver != "local" || !is_chosen(choice, mount, name) {
                continue;
            }
            let source = self.ports.runtime.volume(name).await?;
            volumes.push(
                source.ok_or_else(|| infrastructure(format!("volume {name} does not exist")))?,
            );
        }
        Ok(volumes)
    }

    pub(super) async fn pull(&mut self, member: usize) -> Result<Facts, StepError> {
        let plan = &self.state.plan.members[member];
        let Some(target) = &plan.target else {
            return Ok(Facts::default());
        };
        let platform = self.ports.runtime.info().await?.platform;
        let image = match &target.local {
            Some(id) => self.ports.images.image(id.as_str()).await?.ok_or_else(|| {
                infrastructure(format!(
                    "image {} is not in the engine any more",
                    id.short()
                ))
            })?,
            None => {
                self.ports
                    .images
                    .pull(&target.image, &platform, self.progress)
                    .await?
            }
        };
        let frozen = self.frozen(member)?;
        if image.id == frozen.container.image_id {
            let facts = Facts {
                image_id: Some(image.id),
                ..Facts::default()
            };
            return self.same_image(member, facts);
        }
        let (old, new) = self.keep_tags(member);
        self.ports
            .images
            .tag(&frozen.container.image_id, &old)
            .await?;
        self.ports.images.tag(&image.id, &new).await?;
        Ok(Facts {
            image_id: Some(image.id),
            ..Facts::default()
        })
    }

    /// The image is what runs already. Once that is so for all members, there is nothing to do.
    fn same_image(&mut self, member: usize, facts: Facts) -> Result<Facts, StepError> {
        let mut after = self.state.clone();
        after.members[member]
            .facts
            .image_id
            .clone_from(&facts.image_id);
        if !after.unchanged() {
            return Ok(facts);
        }
        self.state.members[member]
            .facts
            .image_id
            .clone_from(&facts.image_id);
        Err(StepError::Failed(Cause::new(
            Fault::Refusal,
            "the image is what already runs",
        )))
    }

    /// The tags that keep the old and the new image while the update lasts.
    pub(super) fn keep_tags(&self, member: usize) -> (String, String) {
        let short = self.state.plan.id.short();
        (
            format!("fleet-keep:{short}-{member}-old"),
            format!("fleet-keep:{short}-{member}-new"),
        )
    }

    pub(super) async fn pre_copy(&mut self, member: usize) -> Result<Facts, StepError> {
        let request = self.snapshot_request(member, Consistency::Hot)?;
        self.ports
            .snapshots
            .pre_copy(&request, self.progress)
            .await?;
        Ok(Facts::default())
    }

    pub(super) async fn create_candidate(&mut self, member: usize) -> Result<Facts, StepError> {
        let plan = &self.state.plan.members[member];
        let name = Names::candidate(&plan.instance.name, &self.state.plan.id);
        if let Some(found) = self.ports.runtime.find(&name).await? {
            if !self.is_ours(&found) {
                return Err(infrastructure(format!(
                    "the name {name} is held by a container that fleet did not make"
                )));
            }
            // The answer to an earlier creation was lost. What it made is never started yet: make it anew, so that
            // what the creation reports is known.
            self.ports.runtime.remove(&found.id).await?;
        }
        let frozen = self.frozen(member)?.clone();
        let image_id = self
            .facts(member)
            .image_id
            .clone()
            .unwrap_or_else(|| frozen.container.image_id.clone());
        let request = CandidateRequest {
            update: self.state.plan.id,
            name,
            image_id,
            image: plan.image.clone(),
            repoint: self.repoint(member, |facts| facts.candidate.clone()),
            frozen,
        };
        let created = self
            .ports
            .runtime
            .create(&CreateRequest::Candidate(Box::new(request)))
            .await
            .map_err(blame_release_if_invalid)?;
        Ok(Facts {
            candidate: Some(created.id),
            new_volumes: Some(created.new_volumes),
            warnings: Some(created.warnings),
            ..Facts::default()
        })
    }

    /// References to earlier members of the group that have been made again.
    pub(super) fn repoint(
        &self,
        member: usize,
        replacement: impl Fn(&Facts) -> Option<crate::ids::ContainerId>,
    ) -> Vec<Repoint> {
        (0..member)
            .filter_map(|m| {
                let plan = &self.state.plan.members[m];
                let to = replacement(self.facts(m))?;
                Some(Repoint {
                    from: plan.container.clone(),
                    from_name: plan.instance.name.to_string(),
                    to,
                })
            })
            .collect()
    }

    pub(super) async fn guard(&mut self, member: usize) -> Result<Facts, StepError> {
        let frozen = self.frozen(member)?;
        let volumes = frozen
            .container
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Volume { name, .. } => Some(name.clone()),
                _ => None,
            });
        let shares_network = frozen.container.network_mode.starts_with("container:");
        let networks = frozen
            .container
            .networks
            .iter()
            .map(|network| network.network.clone());
        let request = GuardRequest {
            update: self.state.plan.id,
            name: self.guard_name(member),
            image_id: frozen.container.image_id.clone(),
            volumes: volumes.collect(),
            networks: if shares_network {
                Vec::new()
            } else {
                networks.filter(|name| is_user_network(name)).collect()
            },
        };
        match self
            .ports
            .runtime
            .create(&CreateRequest::Guard(Box::new(request)))
            .await
        {
            Ok(created) => Ok(Facts {
                guard: Some(created.id),
                ..Facts::default()
            }),
            Err(error) if error.kind() == PortErrorKind::Unsupported => Ok(Facts {
                note: Some(format!("no guard: {}", chain(&error))),
                ..Facts::default()
            }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn guard_name(&self, member: usize) -> String {
        let name = GuardRequest::name_for(&self.state.plan.id);
        if member == 0 {
            name
        } else {
            format!("{name}-{member}")
        }
    }

    pub(super) async fn pre_hook(&mut self, member: usize) -> Result<Facts, StepError> {
        let plan = &self.state.plan.members[member];
        let Some(argv) = &plan.pre_hook else {
            return Ok(Facts::default());
        };
        let outcome = self
            .ports
            .runtime
            .exec(&plan.container, argv, HOOK_TIMEOUT)
            .await?;
        match outcome.exit_code {
            0 => Ok(Facts::default()),
            NOT_NOW => Err(StepError::Failed(Cause::new(
                Fault::NotNow,
                "the pre-update hook said: not now (exit 75)",
            ))),
            code => Err(infrastructure(format!(
                "the pre-update hook ended with {code}: {}",
                outcome.output.trim()
            ))),
        }
    }

    pub(super) async fn disarm(&mut self, member: usize) -> Result<Facts, StepError> {
        let old = self.old_or_gone(member).await?;
        let frozen = &self.frozen(member)?.container;
        if !self.state.forced_forward
            && (old.name != frozen.name || old.started_at != frozen.started_at)
        {
            return Err(StepError::Diverged(format!(
                "container {} was restarted or renamed by somebody else while the update was prepared",
                old.id.short()
            )));
        }
        if old.restart_policy != RestartPolicy::No {
            self.ports
                .runtime
                .set_restart_policy(&old.id, RestartPolicy::No)
                .await?;
        }
        Ok(Facts::default())
    }

    pub(super) async fn stop(&mut self, member: usize) -> Result<Facts, StepError> {
        let old = self.old_or_gone(member).await?;
        let exit_code = self
            .stop_container(&old, self.state.plan.members[member].stop_grace)
            .await?;
        Ok(Facts {
            exit_code,
            ..Facts::default()
        })
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
        let consistency = match self.facts(member).exit_code {
            Some(KILLED) => Consistency::Unclean,
            _ => Consistency::Clean,
        };
        let old = self.old(member).await?;
        if old.is_some_and(|old| old.is_up()) {
            return Err(StepError::Diverged(
                "somebody started the old container again after the stop".to_owned(),
            ));
        }
        let request = self.snapshot_request(member, consistency)?;
        let info = match self.ports.snapshots.take(&request, self.progress).await {
            Ok(info) => info,
            Err(error) if error.kind() == PortErrorKind::NoSpace => return Err(error.into()),
            Err(first) => {
                tracing::warn!(error = %first, "the snapshot failed, one more try from its beginning");
                self.ports.snapshots.discard(&request.id).await?;
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
            ..Facts::default()
        })
    }

    fn snapshot_request(
        &self,
        member: usize,
        consistency: Consistency,
    ) -> Result<SnapshotRequest, StepError> {
        let plan = &self.state.plan.members[member];
        let facts = self.facts(member);
        Ok(SnapshotRequest {
            id: plan.snapshot_id,
            instance: plan.instance.clone(),
            update: Some(self.state.plan.id),
            volumes: facts.volumes.clone().unwrap_or_default(),
            consistency,
            now: self.ports.clock.now(),
            engine_id: facts.engine_id.clone().unwrap_or_default(),
            spec: Some(self.frozen(member)?.engine.clone()),
        })
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

    pub(super) async fn start(&mut self, member: usize) -> Result<Facts, StepError> {
        let new = self.new_or_gone(member).await?;
        if new.started_at.is_some() && (new.is_up() || !self.state.forced_forward) {
            // It ran. Whether it is well is the gate's question.
            return Ok(Facts {
                started_at: new.started_at,
                ..Facts::default()
            });
        }
        if self.engine_lost
            && let Some(orphan) = self.ports.runtime.orphan(&new.id).await?
        {
            return Err(stuck(format!(
                "a process of the new container lives on without the engine: {orphan}"
            )));
        }
        if let Some(other) = self.writer_beside(member).await? {
            return Err(StepError::Diverged(other));
        }
        let result = self.ports.runtime.start(&new.id).await;
        self.watch.ours(&new.id);
        let outcome = result.map_err(blame_release_if_invalid)?;
        Ok(Facts {
            started_at: outcome.started_at,
            ..Facts::default()
        })
    }

    /// The old container, if it runs although it was stopped.
    async fn writer_beside(&self, member: usize) -> Result<Option<String>, StepError> {
        let old = self.old(member).await?;
        Ok(old.filter(Container::is_up).map(|old| {
            format!(
                "somebody started the parked container {} of {}",
                old.id.short(),
                self.state.plan.members[member].instance
            )
        }))
    }

    pub(super) async fn arm(&mut self, member: usize) -> Result<Facts, StepError> {
        let policy = self.frozen(member)?.container.restart_policy;
        let Some(mut new) = self.new_container(member).await? else {
            return Err(StepError::Diverged(
                "the new container was removed by somebody else".to_owned(),
            ));
        };
        if self.state.was_running(member) && !new.is_up() {
            // Only a reboot or an engine restart after the gate leaves it down: its policy was `no` until now.
            if self.state.recoveries == 0 && !self.engine_lost {
                return Err(StepError::Failed(Cause::new(
                    Fault::Release,
                    "the new container ended after it had passed",
                )));
            }
            self.ports.runtime.start(&new.id).await?;
            self.watch.ours(&new.id);
            new = self.new_or_gone(member).await?;
        }
        if new.restart_policy != policy {
            self.ports
                .runtime
                .set_restart_policy(&new.id, policy)
                .await?;
        }
        Ok(Facts::default())
    }

    /// The commit has no effect outside the journal: its rows are the effect.
    pub(super) fn commit(&mut self) -> Result<Facts, StepError> {
        Ok(Facts::default())
    }

    pub(super) async fn post_hook(&mut self, member: usize) -> Result<Facts, StepError> {
        let plan = &self.state.plan.members[member];
        let (Some(argv), Some(new)) = (&plan.post_hook, &self.facts(member).candidate) else {
            return Ok(Facts::default());
        };
        // The update is committed: whatever the hook does, it does not undo it.
        let note = match self.ports.runtime.exec(new, argv, HOOK_TIMEOUT).await {
            Ok(outcome) if outcome.exit_code == 0 => None,
            Ok(outcome) => Some(format!(
                "the post-update hook ended with {}",
                outcome.exit_code
            )),
            Err(error) => Some(format!(
                "the post-update hook did not run: {}",
                chain(&error)
            )),
        };
        Ok(Facts {
            note,
            ..Facts::default()
        })
    }

    /// After the commit: the tag for good, then everything that is not needed any more.
    pub(super) async fn clean_up(&mut self) -> Result<Facts, StepError> {
        for member in 0..self.state.members.len() {
            self.move_tag_for_good(member).await?;
            let old = self.state.old_id(member).clone();
            self.watch.ours(&old);
            self.ports.runtime.remove(&old).await?;
            self.remove_guard(member).await?;
            self.drop_keep_tags(member).await?;
            self.apply_retention(member).await?;
        }
        Ok(Facts::default())
    }

    async fn move_tag_for_good(&mut self, member: usize) -> Result<(), StepError> {
        let plan = &self.state.plan.members[member];
        let (Some(_), Some(image_id)) = (&plan.target, &self.facts(member).image_id) else {
            return Ok(());
        };
        if let Some(tag) = local_tag(&plan.image) {
            self.ports.images.tag(image_id, &tag).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_guard(&mut self, member: usize) -> Result<(), StepError> {
        let found = match &self.facts(member).guard {
            Some(id) => self.ports.runtime.inspect(id).await?,
            None => self.ports.runtime.find(&self.guard_name(member)).await?,
        };
        let Some(guard) = found.filter(|guard| self.is_ours(guard)) else {
            return Ok(());
        };
        self.ports
            .runtime
            .stop(&guard.id, Some(Duration::ZERO))
            .await?;
        self.ports.runtime.remove(&guard.id).await?;
        Ok(())
    }

    pub(super) async fn drop_keep_tags(&mut self, member: usize) -> Result<(), StepError> {
        if self.state.plan.members[member].target.is_some() {
            let (old, new) = self.keep_tags(member);
            self.ports.images.untag(&old).await?;
            self.ports.images.untag(&new).await?;
        }
        Ok(())
    }

    /// Removes snapshots beyond the newest ones that are kept. The one of this update is the last good one.
    pub(super) async fn apply_retention(&mut self, member: usize) -> Result<(), StepError> {
        let keep = self.state.plan.keep_snapshots.max(1) as usize;
        let all = self
            .ports
            .snapshots
            .list(Some(&self.state.plan.members[member].instance))
            .await?;
        let by_update: Vec<_> = all
            .iter()
            .filter(|snapshot| snapshot.update.is_some())
            .collect();
        let surplus = by_update.len().saturating_sub(keep);
        for snapshot in &by_update[..surplus] {
            self.ports.snapshots.delete(&snapshot.id).await?;
        }
        Ok(())
    }
}

fn is_chosen(choice: &SnapshotChoice, mount: &Mount, name: &VolumeName) -> bool {
    match choice {
        SnapshotChoice::All => mount.writable,
        SnapshotChoice::None => false,
        SnapshotChoice::Only(list) => list
            .iter()
            .any(|item| item == name.as_str() || *item == mount.target),
    }
}

/// Networks that a prune may take: those that users made.
fn is_user_network(name: &str) -> bool {
    !matches!(name, "bridge" | "host" | "none" | "default")
}

/// The engine's local tag for what `Config.Image` reads; none if that is an id or a digest.
pub(super) fn local_tag(image: &str) -> Option<String> {
    if crate::ids::ImageId::new(image).is_ok() {
        return None;
    }
    let reference: ImageRef = image.parse().ok()?;
    reference
        .digest()
        .is_none()
        .then(|| reference.familiar_tag())
        .flatten()
}
