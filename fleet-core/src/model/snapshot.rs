//! Snapshots: verified copies of an instance's volumes at one moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, SnapshotId, UpdateId, VolumeName};
use crate::time::Timestamp;

/// A volume to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSource {
    /// Name.
    pub name: VolumeName,
    /// Driver; only `local` ones are copied.
    pub driver: String,
    /// Where it lies on the engine's host.
    pub mountpoint: String,
    /// Driver options, needed to make it again.
    pub options: BTreeMap<String, String>,
    /// Labels, needed to make it again.
    pub labels: BTreeMap<String, String>,
}

impl VolumeSource {
    /// Whether the engine mounts something at the mountpoint, and only while a container uses the volume: a bind, NFS, a
    /// loop. At any other time the mountpoint is a folder that is not the volume.
    #[must_use]
    pub fn is_mounted_on_use(&self) -> bool {
        let device = self.options.get("device");
        device.is_some_and(|device| !device.is_empty())
    }
}

/// What state the data was in when it was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The writer had stopped by itself.
    Clean,
    /// The writer was killed (exit code 137) or its end is unknown.
    Unclean,
    /// A writer may have been running.
    Hot,
}

/// What copying would need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEstimate {
    /// Bytes that the snapshot may take at most, both passes.
    pub needed_bytes: u64,
    /// Bytes free where snapshots are kept.
    pub free_bytes: u64,
    /// Bytes that must stay free, so that the journal can always finish.
    pub reserve_bytes: u64,
}

impl SnapshotEstimate {
    /// Whether the snapshot fits and the reserve stays.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.needed_bytes.saturating_add(self.reserve_bytes) <= self.free_bytes
    }
}

/// A finished snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Id.
    pub id: SnapshotId,
    /// Whose volumes.
    pub instance: InstanceId,
    /// The update that took it, none if taken by hand.
    pub update: Option<UpdateId>,
    /// When it was finished.
    pub created_at: Timestamp,
    /// State of the data.
    pub consistency: Consistency,
    /// What is in it.
    pub volumes: Vec<SnapshotVolume>,
    /// SHA-256 of the manifest, in hexadecimal: what the journal records and a restore checks.
    pub manifest_sha256: String,
    /// Whether it was read back and compared after it was written.
    pub verified: bool,
}

impl SnapshotInfo {
    /// Bytes on disk, all archives together.
    #[must_use]
    pub fn archive_bytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.archive_bytes).sum()
    }
}

/// One volume in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotVolume {
    /// Name of the volume.
    pub name: VolumeName,
    /// Bytes of file content.
    pub bytes: u64,
    /// Bytes of its archives on disk.
    pub archive_bytes: u64,
    /// Files, folders, links and the rest.
    pub entries: u64,
}
