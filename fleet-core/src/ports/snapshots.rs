//! Verified copies of volumes.

use async_trait::async_trait;

use super::{PortError, ProgressSink};
use crate::ids::{InstanceId, SnapshotId, UpdateId, VolumeName};
use crate::model::{Consistency, SnapshotEstimate, SnapshotInfo, VolumeSource};
use crate::time::Timestamp;

/// What to copy.
#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    /// Id of the snapshot; the same for the first pass and the finish.
    pub id: SnapshotId,
    /// Whose volumes.
    pub instance: InstanceId,
    /// The update that takes it, none if by hand.
    pub update: Option<UpdateId>,
    /// What to copy.
    pub volumes: Vec<VolumeSource>,
    /// State of the data, as far as known.
    pub consistency: Consistency,
    /// Now, for the manifest.
    pub now: Timestamp,
    /// The engine's id, for the manifest.
    pub engine_id: String,
    /// Copy of the frozen spec, kept beside the snapshot as `spec.json`; secrets are the owner's.
    pub spec: Option<serde_json::Value>,
}

/// Takes, verifies and restores snapshots.
///
/// # Guarantees
/// - A snapshot that is visible is complete, verified and durable; a crash leaves only `.tmp-…`.
/// - An unreadable or vanishing file fails a cold snapshot; nothing is ever skipped.
/// - [`SnapshotStore::restore`] verifies before it touches anything, and is a function of the snapshot: run again
///   after any cut it gives the same volume.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// What a snapshot of these volumes would need.
    ///
    /// # Errors
    /// A volume cannot be read.
    async fn estimate(&self, volumes: &[VolumeSource]) -> Result<SnapshotEstimate, PortError>;

    /// First pass while the writer may still run. Optional for the caller, cheap to repeat (an earlier first pass of
    /// the same id is replaced). May decide that the volumes are too small to be worth it.
    ///
    /// # Errors
    /// No space, unreadable.
    async fn pre_copy(
        &self,
        request: &SnapshotRequest,
        progress: &dyn ProgressSink,
    ) -> Result<(), PortError>;

    /// Finishes the snapshot with the writer stopped, verifies and publishes it. If it is already there, returns it.
    ///
    /// # Errors
    /// No space, unreadable, changed while being read. Nothing of it is visible then.
    async fn take(
        &self,
        request: &SnapshotRequest,
        progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, PortError>;

    /// Removes what an unfinished snapshot left. Nothing there is fine.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn discard(&self, id: &SnapshotId) -> Result<(), PortError>;

    /// A finished snapshot, none if there is no such one.
    ///
    /// # Errors
    /// The manifest cannot be read.
    async fn get(&self, id: &SnapshotId) -> Result<Option<SnapshotInfo>, PortError>;

    /// Finished snapshots, oldest first; of one instance or of all.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn list(&self, instance: Option<&InstanceId>) -> Result<Vec<SnapshotInfo>, PortError>;

    /// Reads a snapshot whole and compares every hash.
    ///
    /// # Errors
    /// `Corrupt` says where; `NotFound`.
    async fn verify(&self, id: &SnapshotId) -> Result<SnapshotInfo, PortError>;

    /// Puts volumes back exactly: verify, empty, fill, compare, sync. `volumes` says where each lies now.
    ///
    /// # Errors
    /// `Corrupt`: the snapshot is damaged; no volume was touched. Other errors: a volume may be half filled; running
    /// it again is right.
    async fn restore(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        progress: &dyn ProgressSink,
    ) -> Result<(), PortError>;

    /// Removes a snapshot. One that is not there is fine.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn delete(&self, id: &SnapshotId) -> Result<(), PortError>;

    /// Names of the volumes whose content differs from the snapshot, metadata included.
    ///
    /// # Errors
    /// As [`SnapshotStore::verify`].
    async fn differs(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<Vec<VolumeName>, PortError>;
}
