//! The steps before the stop: nothing of the user's is touched yet.

use std::time::Duration;

use super::super::{Belongings, Cause, Facts, Fault};
use super::Run;
use super::cutover::HOOK_TIMEOUT;
use super::error::{StepError, blame_release_if_invalid, chain};
use super::gate::PROBE_TIMEOUT;
use super::look::infrastructure;
use crate::ids::{ContainerId, ImageId, VolumeName};
use crate::image::ImageRef;
use crate::model::{
    Consistency, Container, EngineHealth, Mount, MountKind, RunState, SnapshotChoice, VolumeSource,
};
use crate::ports::{
    CandidateRequest, CreateRequest, GuardOwner, GuardRequest, Names, PortErrorKind, ProbeTarget,
    ProbeVerdict, Repoint, SnapshotRequest,
};

/// How long a guard that others share may take from its making to its start, and the pause between two looks.
const SHARED_GUARD_WAIT: Duration = Duration::from_secs(5);
const SHARED_GUARD_LOOK: Duration = Duration::from_millis(25);
/// Exit code of a hook that says "not now".
const NOT_NOW: i64 = 75;

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
        // An engine that was killed may say that nothing runs while the process lives on, and writes.
        if !frozen.container.is_up()
            && let Some(orphan) = self.ports.runtime.orphan(&plan.container).await?
        {
            return Err(infrastructure(format!(
                "a process of the container lives on without the engine: {orphan}"
            )));
        }
        let volumes = self
            .chosen_volumes(&frozen.container, &plan.snapshot)
            .await?;
        let info = self.ports.runtime.info().await?;
        Ok(Facts {
            was_running: Some(frozen.container.is_up()),
            health_before: self.health_now(member, &frozen.container).await?,
            volumes: Some(volumes),
            engine_id: Some(info.engine_id),
            frozen: Some(frozen),
            ..Facts::default()
        })
    }

    /// Health by the question that the gate will ask: what a rollback must get back to, and not more. None where there
    /// is no question but whether it runs.
    async fn health_now(
        &self,
        member: usize,
        container: &Container,
    ) -> Result<Option<EngineHealth>, StepError> {
        let Some(check) = &self.state.plan.members[member].health.http else {
            return Ok(container.health);
        };
        if !container.is_up() {
            return Ok(None);
        }
        let target = ProbeTarget {
            container: container.id.clone(),
            check: check.clone(),
            timeout: PROBE_TIMEOUT,
        };
        match self.ports.probe.probe(&target).await {
            Ok(ProbeVerdict::Pass) => Ok(Some(EngineHealth::Healthy)),
            Ok(ProbeVerdict::Fail(_)) => Ok(Some(EngineHealth::Unhealthy)),
            Err(error) => Err(error.into()),
        }
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
        let frozen = self.frozen(member)?.clone();
        let image_id = self
            .facts(member)
            .image_id
            .clone()
            .unwrap_or_else(|| frozen.container.image_id.clone());
        let plan = &self.state.plan.members[member];
        let name = Names::candidate(&plan.instance.name, &self.state.plan.id);
        // Those of a container that an earlier try made are known before it is taken up or removed: somebody may remove it
        // first, or an answer be lost.
        let mut new_volumes = self.facts(member).new_volumes.clone().unwrap_or_default();
        if let Some(found) = self.ports.runtime.find(&name).await? {
            if !self.is_ours(&found) {
                return Err(infrastructure(format!(
                    "the name {name} is held by a container that fleet did not make"
                )));
            }
            // The answer to an earlier creation was lost. The runtime takes up what it made, unless it is of no use.
            let volumes = self.volumes_made_for(member, &found);
            new_volumes.extend(volumes.iter().cloned());
            self.state.members[member].facts.new_volumes = Some(new_volumes.clone());
            if found.image_id != image_id || found.state != RunState::Created {
                self.ports.runtime.remove(&found.id).await?;
                self.remove_made_volumes(&volumes).await?;
            }
        }
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
        new_volumes.extend(created.new_volumes);
        new_volumes.sort();
        new_volumes.dedup();
        Ok(Facts {
            candidate: Some(created.id),
            new_volumes: Some(new_volumes),
            warnings: Some(created.warnings),
            ..Facts::default()
        })
    }

    /// References to earlier members of the group that have been made again.
    pub(super) fn repoint(
        &self,
        member: usize,
        replacement: impl Fn(&Facts) -> Option<ContainerId>,
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
        let belongings = Belongings::of(&self.frozen(member)?.container);
        if let Some(name) = &self.state.plan.shared_guard
            && self.is_held_by(name, &belongings).await?
        {
            return Ok(Facts {
                note: Some(format!("held by {name}")),
                ..Facts::default()
            });
        }
        let owner = GuardOwner::Update(self.state.plan.id);
        let request = belongings.request(owner, self.guard_name(member));
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
            Err(error)
                if error.kind() == PortErrorKind::Unsupported && self.is_mounted_on_use(member) =>
            {
                // Once the old one is stopped its volumes would not be there, neither to be copied nor to be put back.
                Err(infrastructure(format!(
                    "a volume is mounted only while a container uses it, and no guard can: {}",
                    chain(&error)
                )))
            }
            Err(error) if error.kind() == PortErrorKind::Unsupported => Ok(Facts {
                note: Some(format!("no guard: {}", chain(&error))),
                ..Facts::default()
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a shared guard holds what this member needs; one that is about to be started is waited for.
    async fn is_held_by(&self, name: &str, belongings: &Belongings) -> Result<bool, StepError> {
        let clock = &self.ports.clock;
        let until = clock.monotonic() + SHARED_GUARD_WAIT;
        loop {
            match self.ports.runtime.find(name).await? {
                Some(guard) if guard.state == RunState::Created && clock.monotonic() < until => {
                    clock.sleep(SHARED_GUARD_LOOK).await;
                }
                found => return Ok(found.is_some_and(|guard| belongings.held_by(&guard))),
            }
        }
    }

    fn is_mounted_on_use(&self, member: usize) -> bool {
        let volumes = self.facts(member).volumes.iter().flatten();
        volumes.into_iter().any(VolumeSource::is_mounted_on_use)
    }

    /// Sees to it that volumes which the engine mounts only on use are there: the guard is raised again where a restart of
    /// engine or host, or somebody's hand, took it. Where that fails, whoever works on the volumes says that they are not
    /// there. Gives the guard.
    pub(super) async fn hold_mounts(
        &mut self,
        member: usize,
    ) -> Result<Option<ContainerId>, StepError> {
        if !self.is_mounted_on_use(member) {
            return Ok(None);
        }
        match self.guard(member).await {
            Ok(facts) => Ok(facts.guard),
            Err(StepError::Failed(cause)) => {
                tracing::warn!(reason = cause.reason, "the guard could not be raised again");
                Ok(None)
            }
            Err(error) => Err(error),
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

    pub(super) fn snapshot_request(
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

/// The engine's local tag for what `Config.Image` reads; none if that is an id or a digest.
pub(super) fn local_tag(image: &str) -> Option<String> {
    if ImageId::new(image).is_ok() {
        return None;
    }
    let reference: ImageRef = image.parse().ok()?;
    reference
        .digest()
        .is_none()
        .then(|| reference.familiar_tag())
        .flatten()
}
