//! The old container made again from its frozen spec, where somebody pruned it, and with it perhaps its volumes.

use super::super::{Facts, Step};
use super::Run;
use super::error::{StepError, chain};
use super::look::stuck;
use crate::ids::VolumeName;
use crate::model::VolumeSource;
use crate::ports::{CreateRequest, PortErrorKind, RestoreRequest};

impl Run<'_> {
    /// The old container was pruned: make it again from its frozen spec.
    pub(super) async fn make_old_again(
        &mut self,
        member: usize,
        name: String,
    ) -> Result<Facts, StepError> {
        if let Some(holder) = self.ports.runtime.find(&name).await? {
            if self.is_ours(&holder) && Some(&holder.id) != self.facts(member).candidate.as_ref() {
                // An earlier try made it and its answer was lost.
                if holder.started_at.is_none() {
                    let lost = self.unlike_the_snapshot(member).await?;
                    self.fill_what_was_lost(member, &lost).await?;
                }
                return Ok(Facts {
                    restored: Some(holder.id),
                    ..Facts::default()
                });
            }
            return Err(StepError::Diverged(format!(
                "the old container was removed, and the name {name} is held by container {}",
                holder.id.short()
            )));
        }
        let request = RestoreRequest {
            update: self.state.plan.id,
            name,
            frozen: self.frozen(member)?.clone(),
            repoint: self.repoint(member, |facts| facts.restored.clone()),
        };
        let mut lost = self.lost_volumes(member).await?;
        self.is_not_lost_for_good(member, &lost)?;
        let created = self
            .ports
            .runtime
            .create(&CreateRequest::Restore(Box::new(request)))
            .await?;
        // A prune may have come between the look and the act.
        let once_started = self.state.members[member].started.contains(&Step::StartOld);
        if once_started || self.facts(member).snapshot.is_none() {
            let known = self.facts(member).volumes.iter().flatten();
            let known = known.map(|volume| &volume.name);
            let made = created.new_volumes.into_iter();
            lost.extend(made.filter(|made| known.clone().any(|name| name == made)));
            self.is_not_lost_for_good(member, &lost)?;
        } else {
            lost = self.unlike_the_snapshot(member).await?;
        }
        self.fill_what_was_lost(member, &lost).await?;
        Ok(Facts {
            restored: Some(created.id),
            ..Facts::default()
        })
    }

    /// Volumes that are not there any more: a prune took them with the old container.
    pub(super) async fn lost_volumes(&self, member: usize) -> Result<Vec<VolumeName>, StepError> {
        let mut lost = Vec::new();
        for volume in self.facts(member).volumes.iter().flatten() {
            if self.ports.runtime.volume(&volume.name).await?.is_none() {
                lost.push(volume.name.clone());
            }
        }
        Ok(lost)
    }

    /// A container over empty volumes is not the old one: where nothing holds what was lost, a person is asked.
    fn is_not_lost_for_good(&self, member: usize, lost: &[VolumeName]) -> Result<(), StepError> {
        match lost.first() {
            Some(volume)
                if self.facts(member).snapshot.is_none() && !self.state.decided_by_person =>
            {
                Err(stuck(format!(
                    "volume {volume} was removed with the old container before it was copied: fleet has nothing to put back"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Volumes that do not hold what the snapshot does, where an earlier try made the old container again and may have
    /// died over it.
    async fn unlike_the_snapshot(&self, member: usize) -> Result<Vec<VolumeName>, StepError> {
        let Some(snapshot) = &self.facts(member).snapshot else {
            return Ok(Vec::new());
        };
        let volumes = self.volumes_now(member).await?;
        let differ = self.ports.snapshots.differs(&snapshot.id, &volumes).await;
        let lost = match differ {
            Err(error) if error.kind() == PortErrorKind::Corrupt => {
                return Err(stuck(format!(
                    "the old container was made again, and {}",
                    chain(&error)
                )));
            }
            other => other?,
        };
        // Once it may have run, what is there may be its own.
        if !lost.is_empty() && self.state.members[member].started.contains(&Step::StartOld) {
            return Err(stuck(format!(
                "the old container was made again, and whether its volumes were lost before cannot be told; snapshot {} \
                 holds the data of the moment of stop",
                snapshot.id
            )));
        }
        Ok(lost)
    }

    async fn volumes_now(&self, member: usize) -> Result<Vec<VolumeSource>, StepError> {
        let mut volumes = Vec::new();
        for volume in self.facts(member).volumes.iter().flatten() {
            volumes.extend(self.ports.runtime.volume(&volume.name).await?);
        }
        Ok(volumes)
    }

    /// The engine made empty volumes in the place of those that were lost: they get the data of the moment of stop.
    async fn fill_what_was_lost(
        &mut self,
        member: usize,
        lost: &[VolumeName],
    ) -> Result<(), StepError> {
        let Some(snapshot) = self.facts(member).snapshot.clone() else {
            return Ok(());
        };
        if lost.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            ?lost,
            "volumes were removed, and get the data of the moment of stop"
        );
        self.hold_mounts(member).await?;
        let mut volumes = self.volumes_now(member).await?;
        volumes.retain(|volume| lost.contains(&volume.name));
        self.put_back(member, &snapshot.id, &volumes).await
    }
}
