//! `fleet snapshot`: by hand.

use std::collections::BTreeMap;

use super::{Fleet, FleetError};
use crate::ids::{InstanceId, SnapshotId};
use crate::model::{Consistency, Container, MountKind, SnapshotInfo, VolumeSource, labels};
use crate::ports::{EventFilter, PortErrorKind, ProgressSink, SnapshotRequest};
use crate::record::{Event, EventKind, NewEvent};
use crate::time::Timestamp;

/// A restore by hand that began and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRestore {
    /// The instance whose volumes may be half filled.
    pub instance: InstanceId,
    /// The snapshot that was to be put back. Doing it again is right.
    pub snapshot: SnapshotId,
    /// When it began.
    pub began_at: Timestamp,
}

impl Fleet {
    /// Copies the volumes of an instance now. Of a running one the copy is hot.
    ///
    /// # Errors
    /// No such instance; a volume cannot be read; no space.
    pub async fn snapshot_create(
        &self,
        name: &str,
        actor: &str,
        progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, FleetError> {
        let survey = self.survey().await?;
        let managed = survey
            .workload(name)
            .ok_or_else(|| Self::unknown(&survey, name))?;
        let instance = managed.id()?;
        let Some(_claim) = self.live.claim_instance(&instance) else {
            return Err(Self::busy(name));
        };
        let volumes = self.local_volumes(managed.container).await?;
        let consistency = if managed.container.is_up() {
            Consistency::Hot
        } else {
            Consistency::Clean
        };
        let id = self.new_snapshot_id();
        let held = self.hold_mounts(&instance, &volumes, &id).await?;
        let taken = self.take(id, &instance, volumes, consistency, progress);
        let taken = taken.await;
        self.let_go(held).await;
        let info = taken?;
        self.note(EventKind::SnapshotCreated, &instance, actor, &info.id)
            .await?;
        Ok(info)
    }

    /// Puts the volumes of an instance back to a snapshot, after a safety snapshot of what is there now. The instance
    /// must be stopped.
    ///
    /// # Errors
    /// No such snapshot or instance; something runs on the volumes; the snapshot is damaged (nothing was touched then).
    pub async fn snapshot_restore(
        &self,
        id: &SnapshotId,
        actor: &str,
        progress: &dyn ProgressSink,
    ) -> Result<(SnapshotInfo, SnapshotInfo), FleetError> {
        let store = &self.ports.update.snapshots;
        let info = store
            .get(id)
            .await?
            .ok_or(FleetError::UnknownSnapshot(*id))?;
        let Some(_claim) = self.live.claim_instance(&info.instance) else {
            return Err(Self::busy(&info.instance));
        };
        store.verify(id).await?;
        let mut volumes = Vec::new();
        for volume in &info.volumes {
            let found = self.ports.update.runtime.volume(&volume.name).await?;
            volumes.push(found.ok_or_else(|| FleetError::Refused {
                reason: format!("volume {} does not exist", volume.name),
                remedy: format!("make it again with `docker volume create {}`", volume.name),
            })?);
        }
        self.nobody_runs_on(&volumes).await?;
        let held = self.hold_mounts(&info.instance, &volumes, id).await?;
        let restored = self.put_back(&info, volumes, actor, progress).await;
        self.let_go(held).await;
        Ok((info, restored?))
    }

    /// Gives the safety snapshot of what was there before.
    async fn put_back(
        &self,
        info: &SnapshotInfo,
        volumes: Vec<VolumeSource>,
        actor: &str,
        progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, FleetError> {
        let store = &self.ports.update.snapshots;
        let (id, instance) = (&info.id, &info.instance);
        let (safety, clean) = (self.new_snapshot_id(), Consistency::Clean);
        let safety = self
            .take(safety, instance, volumes.clone(), clean, progress)
            .await?;
        // The copy may have taken minutes: the last look before the act.
        self.nobody_runs_on(&volumes).await?;
        self.note(EventKind::SnapshotRestoring, instance, actor, id)
            .await?;
        store.restore(id, &volumes, progress).await?;
        self.note(EventKind::SnapshotRestored, instance, actor, id)
            .await?;
        Ok(safety)
    }

    /// Restores by hand that began and did not end, oldest first, each the last one of its instance: fleet was killed, or
    /// an error came in the middle. The volumes may be half filled. What this process works on is left out.
    ///
    /// # Errors
    /// The events cannot be read.
    pub async fn unfinished_restores(&self) -> Result<Vec<UnfinishedRestore>, FleetError> {
        const PAGE: u32 = 1_000;
        let filter = EventFilter {
            kinds: vec![EventKind::SnapshotRestoring, EventKind::SnapshotRestored],
            ..EventFilter::default()
        };
        let mut begun = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = self.ports.events.page(after, PAGE, &filter).await?;
            let Some(last) = page.last() else { break };
            after = last.sequence;
            for Event { event, sequence } in page {
                let Some(instance) = event.instance else {
                    continue;
                };
                let id = event.data["snapshot"].as_str().map(str::parse);
                match (event.kind, id) {
                    (EventKind::SnapshotRestoring, Some(Ok(snapshot))) => {
                        let at = event.at;
                        let begins = (sequence, snapshot, at);
                        begun.insert(instance, begins);
                    }
                    _ => drop(begun.remove(&instance)),
                }
            }
        }
        let mut unfinished: Vec<_> = begun.into_iter().collect();
        unfinished.sort_by_key(|(_, (sequence, ..))| *sequence);
        let unfinished = unfinished.into_iter();
        Ok(unfinished
            .map(|(instance, (_, snapshot, began_at))| UnfinishedRestore {
                instance,
                snapshot,
                began_at,
            })
            .filter(|restore| self.live.claim_instance(&restore.instance).is_some())
            .collect())
    }

    /// Removes a snapshot; never the last one of an instance, and never one that an open update may need.
    ///
    /// # Errors
    /// No such snapshot; refused.
    pub async fn snapshot_delete(&self, id: &SnapshotId, actor: &str) -> Result<(), FleetError> {
        let store = &self.ports.update.snapshots;
        let info = store
            .get(id)
            .await?
            .ok_or(FleetError::UnknownSnapshot(*id))?;
        if self.is_needed(id).await? {
            return Err(FleetError::Refused {
                reason: format!("snapshot {id} belongs to an open update"),
                remedy: "end the update first (`fleet recover`, `fleet resolve`)".to_owned(),
            });
        }
        if store.list(Some(&info.instance)).await?.len() <= 1 {
            return Err(FleetError::Refused {
                reason: format!("snapshot {id} is the last one of {}", info.instance),
                remedy: "take another one first (`fleet snapshot create`)".to_owned(),
            });
        }
        store.delete(id).await?;
        self.note(EventKind::SnapshotDeleted, &info.instance, actor, id)
            .await
    }

    /// Removes snapshots that are older than an age and not among so many newest ones of their instance; never the newest
    /// one of an instance, never the newest one that is whole, and never one that an open update may need. Returns what was
    /// removed.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn snapshot_prune(
        &self,
        older_than: std::time::Duration,
        keep: usize,
        actor: &str,
    ) -> Result<Vec<SnapshotInfo>, FleetError> {
        let store = &self.ports.update.snapshots;
        let now = self.ports.update.clock.now();
        let all = store.list(None).await?;
        let mut removed = Vec::new();
        let mut kept = BTreeMap::new();
        for (place, info) in all.iter().enumerate() {
            let mut newer = all[place + 1..].iter();
            let is_kept = newer
                .by_ref()
                .filter(|other| other.instance == info.instance)
                .take(keep)
                .count()
                < keep;
            let is_young = now.since(info.created_at) < older_than;
            if is_kept || is_young || self.is_needed(&info.id).await? {
                continue;
            }
            if !kept.contains_key(&info.instance) {
                let good = self.last_good(&all, &info.instance).await?;
                let newest = all.iter().rfind(|other| other.instance == info.instance);
                kept.insert(&info.instance, [good, newest.map(|newest| newest.id)]);
            }
            if kept[&info.instance].contains(&Some(info.id)) {
                continue;
            }
            store.delete(&info.id).await?;
            self.note(EventKind::SnapshotDeleted, &info.instance, actor, &info.id)
                .await?;
            removed.push(info.clone());
        }
        Ok(removed)
    }

    /// The newest snapshot of an instance that is whole; each is read until one is. What was copied while the instance ran
    /// counts only where there is no other.
    async fn last_good(
        &self,
        all: &[SnapshotInfo],
        instance: &InstanceId,
    ) -> Result<Option<SnapshotId>, FleetError> {
        let of_instance = || all.iter().rev().filter(|info| info.instance == *instance);
        let is_hot = |info: &&SnapshotInfo| info.consistency == Consistency::Hot;
        let cold = of_instance().filter(|info| !is_hot(info));
        for info in cold.chain(of_instance().filter(is_hot)) {
            match self.ports.update.snapshots.verify(&info.id).await {
                Ok(_) => return Ok(Some(info.id)),
                Err(error) if error.kind() == PortErrorKind::Corrupt => {
                    tracing::warn!(snapshot = %info.id, %error, "a snapshot is damaged");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    pub(super) fn busy(instance: impl std::fmt::Display) -> FleetError {
        FleetError::Busy(instance.to_string())
    }

    async fn is_needed(&self, id: &SnapshotId) -> Result<bool, FleetError> {
        let open = self.ports.update.journal.load_open().await?;
        Ok(open
            .iter()
            .flat_map(|update| &update.plan.members)
            .any(|member| member.snapshot_id == *id))
    }

    /// Nothing runs on the volumes: neither a container, nor a process of one that the engine lost sight of. Guards and
    /// helpers do not count.
    async fn nobody_runs_on(&self, volumes: &[VolumeSource]) -> Result<(), FleetError> {
        let runtime = &self.ports.update.runtime;
        let uses = |container: &Container| {
            let mut mounts = container.mounts.iter();
            mounts.any(|mount| match &mount.kind {
                MountKind::Volume { name, .. } => volumes.iter().any(|volume| volume.name == *name),
                _ => false,
            })
        };
        let mut users = runtime.inventory().await?.containers;
        users.retain(|container| !labels::is_auxiliary(&container.labels) && uses(container));
        if let Some(container) = users.iter().find(|container| container.is_up()) {
            return Err(FleetError::Refused {
                reason: format!("container {} runs on its volumes", container.name),
                remedy: format!("stop it first: `docker stop {}`", container.name),
            });
        }
        for container in &users {
            if let Some(orphan) = runtime.orphan(&container.id).await? {
                return Err(FleetError::Refused {
                    reason: format!(
                        "a process of container {} lives on without the engine: {orphan}",
                        container.name
                    ),
                    remedy: "end it first: `kill PID`".to_owned(),
                });
            }
        }
        Ok(())
    }

    async fn local_volumes(&self, container: &Container) -> Result<Vec<VolumeSource>, FleetError> {
        let mut volumes = Vec::new();
        for mount in container.mounts.iter().filter(|mount| mount.writable) {
            if let MountKind::Volume { name, driver, .. } = &mount.kind
                && driver == "local"
            {
                volumes.extend(self.ports.update.runtime.volume(name).await?);
            }
        }
        if volumes.is_empty() {
            return Err(FleetError::Refused {
                reason: format!("container {} has no writable local volume", container.name),
                remedy: "there is nothing to copy".to_owned(),
            });
        }
        Ok(volumes)
    }

    fn new_snapshot_id(&self) -> SnapshotId {
        let ports = &self.ports.update;
        SnapshotId::new(ports.clock.now(), ports.entropy.bytes())
    }

    async fn take(
        &self,
        id: SnapshotId,
        instance: &InstanceId,
        volumes: Vec<VolumeSource>,
        consistency: Consistency,
        progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, FleetError> {
        let now = self.ports.update.clock.now();
        let request = SnapshotRequest {
            id,
            instance: instance.clone(),
            update: None,
            volumes,
            consistency,
            now,
            engine_id: self.ports.update.runtime.info().await?.engine_id,
            spec: None,
        };
        Ok(self.ports.update.snapshots.take(&request, progress).await?)
    }

    async fn note(
        &self,
        kind: EventKind,
        instance: &InstanceId,
        actor: &str,
        id: &SnapshotId,
    ) -> Result<(), FleetError> {
        let event = NewEvent {
            instance: Some(instance.clone()),
            data: serde_json::json!({ "snapshot": id.to_string() }),
            ..NewEvent::new(self.ports.update.clock.now(), kind, actor)
        };
        Ok(self.ports.events.record(vec![event]).await?)
    }
}
