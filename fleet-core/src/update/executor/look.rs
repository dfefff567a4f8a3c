//! Looking before acting.

use super::super::{Cause, Facts, Fault};
use super::Run;
use super::error::StepError;
use crate::ids::{ContainerId, VolumeName};
use crate::model::{Container, FrozenSpec, Mount, MountKind, labels};
use crate::ports::Names;

impl Run<'_> {
    pub(super) fn facts(&self, member: usize) -> &Facts {
        &self.state.members[member].facts
    }

    /// The frozen spec; every step after the freeze has one.
    pub(super) fn frozen(&self, member: usize) -> Result<&FrozenSpec, StepError> {
        self.facts(member)
            .frozen
            .as_ref()
            .ok_or_else(|| stuck("the journal has no frozen spec of the old container"))
    }

    /// The old container as it is now, none if it is gone.
    pub(super) async fn old(&self, member: usize) -> Result<Option<Container>, StepError> {
        Ok(self
            .ports
            .runtime
            .inspect(self.state.old_id(member))
            .await?)
    }

    /// The old container; its absence fails the step.
    pub(super) async fn old_or_gone(&self, member: usize) -> Result<Container, StepError> {
        self.old(member).await?.ok_or_else(|| {
            let id = self.state.old_id(member).short();
            StepError::Diverged(format!("container {id} was removed by somebody else"))
        })
    }

    /// The new container as it is now, none if it is gone or was never made.
    pub(super) async fn new_container(
        &self,
        member: usize,
    ) -> Result<Option<Container>, StepError> {
        match &self.facts(member).candidate {
            Some(id) => Ok(self.ports.runtime.inspect(id).await?),
            // The creation began and its answer was lost: the name and the label tell.
            None => self.candidate_by_name(member).await,
        }
    }

    /// A container under the candidate's name, or the instance's, that this update made.
    pub(super) async fn candidate_by_name(
        &self,
        member: usize,
    ) -> Result<Option<Container>, StepError> {
        let name = Names::candidate(
            &self.state.plan.members[member].instance.name,
            &self.state.plan.id,
        );
        let found = self.ports.runtime.find(&name).await?;
        Ok(found.filter(|container| self.is_ours(container)))
    }

    /// Whether this update made the container.
    pub(super) fn is_ours(&self, container: &Container) -> bool {
        container
            .labels
            .get(labels::UPDATE)
            .is_some_and(|update| *update == self.state.plan.id.to_string())
    }

    /// Makes sure that nobody but `ours` holds the instance's name.
    pub(super) async fn name_is_free_for(
        &self,
        member: usize,
        ours: &[&ContainerId],
    ) -> Result<(), StepError> {
        let name = self.state.plan.members[member].instance.name.as_str();
        match self.ports.runtime.find(name).await? {
            Some(holder) if !ours.contains(&&holder.id) => Err(StepError::Diverged(format!(
                "expected the name {name} to be free, found it held by container {}, which fleet does not know",
                holder.id.short()
            ))),
            _ => Ok(()),
        }
    }

    /// Volumes of a container that fleet made which the old container does not have: the engine made them for it.
    pub(super) fn volumes_made_for(&self, member: usize, container: &Container) -> Vec<VolumeName> {
        let volume = |mount: &Mount| match &mount.kind {
            MountKind::Volume { name, .. } => Some(name.clone()),
            _ => None,
        };
        let Some(frozen) = &self.facts(member).frozen else {
            return Vec::new();
        };
        let old: Vec<_> = frozen.container.mounts.iter().filter_map(volume).collect();
        let all = container.mounts.iter().filter_map(volume);
        all.filter(|name| !old.contains(name)).collect()
    }

    /// Whether something may have happened to the containers that nobody told of: the engine was away, or another process
    /// of fleet had the update before.
    pub(super) fn may_have_missed_something(&mut self) -> bool {
        self.engine_lost || self.watch.lost() || self.state.recoveries > 0
    }

    /// The other version of the same instance, if it runs: no start beside it.
    pub(super) async fn version_beside(
        &self,
        id: &ContainerId,
    ) -> Result<Option<String>, StepError> {
        for member in 0..self.state.members.len() {
            let old = self.state.old_id(member);
            let new = self.facts(member).candidate.as_ref();
            let other = match new {
                Some(new) if new == id => Some(old),
                new if old == id => new,
                _ => None,
            };
            let Some(other) = other else { continue };
            let found = self.ports.runtime.inspect(other).await?;
            if found.is_some_and(|other| other.is_up()) {
                let what = if other == old { "parked" } else { "new" };
                return Ok(Some(format!(
                    "somebody started the {what} container {} of {}",
                    other.short(),
                    self.state.plan.members[member].instance
                )));
            }
        }
        Ok(None)
    }

    /// Containers that mount one of the volumes, running or not; guards and helpers aside.
    pub(super) async fn users_of_volumes(
        &self,
        member: usize,
    ) -> Result<Vec<Container>, StepError> {
        let Some(volumes) = &self.facts(member).volumes else {
            return Ok(Vec::new());
        };
        let inventory = self.ports.runtime.inventory().await?;
        let mounts = |container: &Container| {
            container.mounts.iter().any(|mount| match &mount.kind {
                MountKind::Volume { name, .. } => volumes.iter().any(|volume| volume.name == *name),
                _ => false,
            })
        };
        Ok(inventory
            .containers
            .into_iter()
            .filter(|container| !labels::is_auxiliary(&container.labels) && mounts(container))
            .collect())
    }
}

pub(super) fn stuck(reason: impl Into<String>) -> StepError {
    StepError::Stuck(reason.into())
}

pub(super) fn infrastructure(reason: impl Into<String>) -> StepError {
    StepError::Failed(Cause::new(Fault::Infrastructure, reason))
}
