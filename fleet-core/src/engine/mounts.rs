//! Volumes that the engine mounts only while a container uses them: held for work by hand.

use super::{Fleet, FleetError};
use crate::ids::{ContainerId, InstanceId, SnapshotId, UpdateId};
use crate::model::VolumeSource;
use crate::ports::{CreateRequest, GuardOwner, GuardRequest};

impl Fleet {
    /// Lets a guard hold such volumes, made from the image of the instance's container. None where no volume is of that
    /// kind, or nothing can be held: the store refuses what is not mounted. The same snapshot gets the same guard.
    pub(super) async fn hold_mounts(
        &self,
        instance: &InstanceId,
        volumes: &[VolumeSource],
        snapshot: &SnapshotId,
    ) -> Result<Option<ContainerId>, FleetError> {
        if !volumes.iter().any(VolumeSource::is_mounted_on_use) {
            return Ok(None);
        }
        let runtime = &self.ports.update.runtime;
        let Some(container) = runtime.find(instance.name.as_str()).await? else {
            return Ok(None);
        };
        let Some(update) = namesake(snapshot) else {
            return Ok(None);
        };
        let request = GuardRequest {
            owner: GuardOwner::Update(update),
            name: GuardRequest::name_for(&update),
            image_id: container.image_id,
            volumes: volumes.iter().map(|volume| volume.name.clone()).collect(),
            networks: Vec::new(),
            default_network: false,
            containers: 1,
        };
        match runtime
            .create(&CreateRequest::Guard(Box::new(request)))
            .await
        {
            Ok(created) => Ok(Some(created.id)),
            Err(error) => {
                tracing::warn!(%error, "no guard holds the volumes");
                Ok(None)
            }
        }
    }

    /// Lets go of what was held.
    pub(super) async fn let_go(&self, guard: Option<ContainerId>) {
        let Some(guard) = guard else { return };
        if let Err(error) = self.ports.update.runtime.remove(&guard).await {
            tracing::warn!(container = %guard, %error, "a guard could not be removed");
        }
    }
}

/// The id under which a guard is made that belongs to no update: that of the snapshot.
fn namesake(snapshot: &SnapshotId) -> Option<UpdateId> {
    let text = snapshot.to_string();
    let number = text.strip_prefix(SnapshotId::PREFIX)?;
    format!("{}{number}", UpdateId::PREFIX).parse().ok()
}
