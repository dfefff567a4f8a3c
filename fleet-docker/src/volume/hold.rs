//! Who works on what is unfinished: each such folder is locked by the process that fills it, so that another can tell what a
//! kill left from what is being made.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_core::ids::SnapshotId;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::error::VolumeError;
use super::files::Files;
use super::first_pass::FIRST_PASS;
use super::work::{TMP, remove_tree};

/// Folders that this process works on. The kernel lets go of them when the process ends, however it ends.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<SnapshotId, OwnedFd>>);

impl Holds {
    /// Makes an empty folder and holds it.
    pub(super) fn make(
        &self,
        files: &dyn Files,
        id: &SnapshotId,
        tmp: &Path,
    ) -> Result<(), VolumeError> {
        self.release(id);
        remove_tree(tmp)?;
        loop {
            files
                .create_dir(tmp)
                .map_err(VolumeError::io("make", tmp))?;
            // Gone again: who swept had looked before it was held.
            if self.keep(id, tmp) {
                return Ok(());
            }
        }
    }

    /// Holds a folder; false if there is none. Where nothing can be locked nothing is swept either.
    pub(super) fn keep(&self, id: &SnapshotId, tmp: &Path) -> bool {
        match lock(tmp, FlockOperation::LockShared) {
            Ok(Some(held)) => {
                self.map().insert(*id, held);
                true
            }
            Ok(None) => false,
            Err(_) => tmp.is_dir(),
        }
    }

    /// Nobody here works on it any more.
    pub(super) fn release(&self, id: &SnapshotId) {
        self.map().remove(id);
    }

    fn map(&self) -> MutexGuard<'_, HashMap<SnapshotId, OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes unfinished folders that no process holds. A first pass that is whole stays: its update may go on with it.
pub(super) fn sweep(root: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let unfinished = entry.file_name().to_string_lossy().starts_with(TMP);
        if !unfinished || !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        let Ok(Some(_held)) = lock(&path, FlockOperation::NonBlockingLockExclusive) else {
            continue;
        };
        if path.join(FIRST_PASS).exists() {
            continue;
        }
        tracing::info!(folder = %path.display(), "removing what was left of a snapshot");
        if let Err(error) = remove_tree(&path) {
            tracing::warn!(folder = %path.display(), error = &error as &dyn std::error::Error, "it cannot be removed");
        }
    }
    Ok(())
}

/// Opens and locks a folder; none if it is not there, or not any more once it is locked.
fn lock(path: &Path, operation: FlockOperation) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    rustix::io::retry_on_intr(|| rustix::fs::flock(&folder, operation))?;
    let held = rustix::fs::fstat(&folder)?;
    match rustix::fs::lstat(path) {
        Ok(now) if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino) => Ok(Some(folder)),
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
