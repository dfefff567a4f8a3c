//! What the helper and its client need of the store beyond the port: the work without threads of its own, and the
//! files of a snapshot on the move.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet_core::ids::{InstanceId, SnapshotId, VolumeName};
use fleet_core::model::{SnapshotEstimate, SnapshotInfo, VolumeSource};
use fleet_core::ports::SnapshotRequest;

use super::control::Control;
use super::error::VolumeError;
use super::files::{Files, StoreFile};
pub(crate) use super::hash::Sha256Hash;
use super::manifest::{SUMS, Stored};
use super::options::SnapshotOptions;
use super::work::Work;

/// Makes the errors of this module's kind elsewhere in the crate.
pub(crate) struct VolumeFault;

impl VolumeFault {
    /// A failed call.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> VolumeError + use<> {
        let path = path.to_owned();
        move |source| VolumeError::io(action, path.as_path())(source)
    }

    /// Something that is not what it must be.
    pub(crate) fn corrupt(what: impl Into<String>, expected: &str, found: &str) -> VolumeError {
        VolumeError::corrupt(what, expected, found)
    }
}

/// Whether a name can only mean a file in the folder at hand.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(plain)
}

/// Syncs a file that was written whole and reads it back.
pub(crate) fn sync_and_read_back(
    file: &dyn StoreFile,
    path: &Path,
    bytes: u64,
) -> Result<(u64, Sha256Hash), VolumeError> {
    super::stream_out::sync_and_read_back(file, path, [bytes])
}

/// The work of a store, blocking.
#[derive(Debug, Clone)]
pub(crate) struct Bench(Arc<Work>);

impl Bench {
    pub(crate) fn open(
        dir: &Path,
        options: SnapshotOptions,
        files: Arc<dyn Files>,
    ) -> Result<Self, VolumeError> {
        Ok(Self(Arc::new(Work::open(dir, options, files)?)))
    }

    pub(crate) fn of(work: Arc<Work>) -> Self {
        Self(work)
    }

    pub(crate) fn files(&self) -> Arc<dyn Files> {
        self.0.files.clone()
    }

    pub(crate) fn estimate(
        &self,
        volumes: &[VolumeSource],
    ) -> Result<SnapshotEstimate, VolumeError> {
        self.0.estimate(volumes)
    }

    /// Free bytes where snapshots lie, and those that must stay free.
    pub(crate) fn space(&self) -> Result<(u64, u64), VolumeError> {
        let estimate = self.0.estimate(&[])?;
        Ok((estimate.free_bytes, estimate.reserve_bytes))
    }

    pub(crate) fn pre_copy(&self, request: &SnapshotRequest) -> Result<(), VolumeError> {
        self.0.pre_copy(request, &self.control())
    }

    pub(crate) fn take(&self, request: &SnapshotRequest) -> Result<SnapshotInfo, VolumeError> {
        self.0.take(request, &self.control())
    }

    pub(crate) fn restore(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<(), VolumeError> {
        self.0.restore(id, volumes, &self.control())
    }

    pub(crate) fn differs(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<Vec<VolumeName>, VolumeError> {
        self.0.differs(id, volumes, &self.control())
    }

    /// Makes the empty folder of an unfinished snapshot.
    pub(crate) fn begin(&self, id: &SnapshotId) -> Result<(), VolumeError> {
        self.0.fresh_tmp(id).map(drop)
    }

    /// That folder.
    pub(crate) fn unfinished(&self, id: &SnapshotId) -> PathBuf {
        self.0.tmp(id)
    }

    /// Makes an unfinished snapshot visible; an older one of the same id gives way.
    pub(crate) fn finish(
        &self,
        id: &SnapshotId,
        instance: &InstanceId,
    ) -> Result<SnapshotInfo, VolumeError> {
        let tmp = self.0.tmp(id);
        if self.0.find(id)?.is_some() {
            let aside = tmp.with_extension("aside");
            self.0
                .files
                .rename(&tmp, &aside)
                .map_err(VolumeError::io("set aside", tmp.as_path()))?;
            self.0.delete(id)?;
            self.0
                .files
                .rename(&aside, &tmp)
                .map_err(VolumeError::io("bring back", tmp.as_path()))?;
        }
        self.0.sync_dir(&tmp)?;
        self.0.publish(id, instance, &tmp)
    }

    /// Removes an unfinished snapshot.
    pub(crate) fn discard(&self, id: &SnapshotId) -> Result<(), VolumeError> {
        self.0.discard(id)
    }

    /// Archives of a first pass that waits for its second.
    pub(crate) fn first_archives(
        &self,
        id: &SnapshotId,
    ) -> Result<Vec<(String, PathBuf)>, VolumeError> {
        let files = files_in(&self.0.tmp(id))?;
        Ok(files
            .into_iter()
            .filter(|(name, _)| name.ends_with(".tar.zst"))
            .collect())
    }

    /// Every file of a finished snapshot, the hashes last.
    pub(crate) fn files_of(&self, id: &SnapshotId) -> Result<Vec<(String, PathBuf)>, VolumeError> {
        let dir = self.0.find(id)?.ok_or(VolumeError::Missing(*id))?;
        let mut files = files_in(&dir)?;
        files.sort_by_key(|(name, _)| (name == SUMS, name.clone()));
        Ok(files)
    }

    /// Name, length and hash of every file that an unfinished snapshot's manifest counts on.
    pub(crate) fn expected_files(
        &self,
        id: &SnapshotId,
    ) -> Result<Vec<(String, u64, String)>, VolumeError> {
        let stored = Stored::load(&self.0.tmp(id), id)?;
        let records = stored.manifest.records();
        Ok(records
            .map(|record| (record.file.clone(), record.bytes, record.sha256.to_string()))
            .collect())
    }

    /// Whose a finished snapshot is.
    pub(crate) fn instance_of(&self, id: &SnapshotId) -> Result<InstanceId, VolumeError> {
        let info = self.0.get(id)?.ok_or(VolumeError::Missing(*id))?;
        Ok(info.instance)
    }

    fn control(&self) -> Control {
        Control::new(self.0.options.bytes_per_second)
    }
}

fn files_in(dir: &Path) -> Result<Vec<(String, PathBuf)>, VolumeError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(VolumeError::io("list", dir))? {
        let entry = entry.map_err(VolumeError::io("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_taken() {
        for good in [
            "manifest.json",
            "data.delta.tar.zst",
            "a+0f.removed",
            "SHA256SUMS",
        ] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/a", ".hidden", "a\0", "é"] {
            assert!(!is_plain_name(bad), "{bad}");
        }
    }
}
