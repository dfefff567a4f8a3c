//! Finished snapshots on their shelf: which there are, and which may go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fleet_core::ids::{InstanceId, SnapshotId};
use fleet_core::model::{Consistency, SnapshotInfo};
use fleet_core::time::Timestamp;

use super::error::VolumeError;
use super::manifest::{FileRecord, Stored, instance_folder};
use super::options::Retention;
use super::work::{Work, remove_tree};

impl Work {
    pub(super) fn get(&self, id: &SnapshotId) -> Result<Option<SnapshotInfo>, VolumeError> {
        match self.find(id)? {
            Some(dir) => Ok(Some(Stored::load(&dir, id)?.info())),
            None => Ok(None),
        }
    }

    pub(super) fn list(
        &self,
        instance: Option<&InstanceId>,
    ) -> Result<Vec<SnapshotInfo>, VolumeError> {
        let folders = match instance {
            Some(instance) => vec![self.root.join(instance_folder(instance))],
            None => self.instance_folders()?,
        };
        let mut infos = Vec::new();
        for folder in folders {
            for (name, dir) in visible(&folder)? {
                let Ok(id) = name.parse::<SnapshotId>() else {
                    continue;
                };
                match Stored::load(&dir, &id) {
                    Ok(stored) => infos.push(stored.info()),
                    // One damaged snapshot must not hide the others; asking for it by its id says what is wrong.
                    Err(error) => tracing::warn!(
                        snapshot = %id,
                        error = &error as &dyn std::error::Error,
                        "left a snapshot out of the list because its manifest cannot be used"
                    ),
                }
            }
        }
        infos.retain(|info| instance.is_none_or(|instance| info.instance == *instance));
        infos.sort_by_key(|info| (info.created_at, info.id));
        Ok(infos)
    }

    pub(super) fn delete(&self, id: &SnapshotId) -> Result<(), VolumeError> {
        let Some(dir) = self.find(id)? else {
            return Ok(());
        };
        self.sweep();
        // Hidden first: a folder that is half removed must never be taken for a snapshot.
        let tmp = self.tmp(id);
        remove_tree(&tmp)?;
        self.files
            .rename(&dir, &tmp)
            .map_err(VolumeError::io("hide", dir.as_path()))?;
        if let Some(folder) = dir.parent() {
            self.sync_dir(folder)?;
        }
        remove_tree(&tmp)
    }

    pub(super) fn prune(
        &self,
        rule: &Retention,
        now: Timestamp,
    ) -> Result<Vec<SnapshotId>, VolumeError> {
        let mut by_instance: HashMap<InstanceId, Vec<SnapshotInfo>> = HashMap::new();
        for info in self.list(None)? {
            by_instance
                .entry(info.instance.clone())
                .or_default()
                .push(info);
        }
        let mut removed = Vec::new();
        for infos in by_instance.values() {
            // What was copied while the instance ran counts only where there is no other.
            let whole = infos.iter().rev().filter(|info| self.is_whole(&info.id));
            let last_good = whole.min_by_key(|info| info.consistency == Consistency::Hot);
            for (newer, info) in infos.iter().rev().enumerate() {
                let too_many = rule.keep.is_some_and(|keep| newer >= keep);
                let too_old = rule
                    .max_age
                    .is_some_and(|age| now.since(info.created_at) > age);
                let needed = rule.protected.contains(&info.id)
                    || last_good.is_none_or(|good| good.id == info.id);
                if (too_many || too_old) && !needed {
                    self.delete(&info.id)?;
                    removed.push(info.id);
                }
            }
        }
        removed.sort();
        Ok(removed)
    }

    /// Whether every file of a snapshot is there with its length. Reading it whole is `verify`.
    fn is_whole(&self, id: &SnapshotId) -> bool {
        let Ok(stored) = self.load(id) else {
            return false;
        };
        let there = |record: &FileRecord| {
            std::fs::symlink_metadata(stored.path(record))
                .is_ok_and(|file| file.is_file() && file.len() == record.bytes)
        };
        stored.manifest.volumes.iter().all(|volume| {
            there(&volume.list) && there(&volume.base) && volume.delta.as_ref().is_none_or(there)
        })
    }

    pub(super) fn load(&self, id: &SnapshotId) -> Result<Stored, VolumeError> {
        let dir = self.find(id)?.ok_or(VolumeError::Missing(*id))?;
        Stored::load(&dir, id)
    }

    pub(super) fn find(&self, id: &SnapshotId) -> Result<Option<PathBuf>, VolumeError> {
        let name = id.to_string();
        let mut dirs = self
            .instance_folders()?
            .into_iter()
            .map(|folder| folder.join(&name));
        Ok(dirs.find(|dir| dir.is_dir()))
    }

    fn instance_folders(&self) -> Result<Vec<PathBuf>, VolumeError> {
        Ok(visible(&self.root)?
            .into_iter()
            .map(|(_, dir)| dir)
            .collect())
    }
}

/// Names and paths of the folders in a folder, hidden ones left out. A folder that is not there has none.
fn visible(folder: &Path) -> Result<Vec<(String, PathBuf)>, VolumeError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(VolumeError::io("list", folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(VolumeError::io("list", folder))?;
        let is_dir = entry
            .file_type()
            .map_err(VolumeError::io("look at", entry.path().as_path()))?
            .is_dir();
        match entry.file_name().into_string() {
            Ok(name) if is_dir && !name.starts_with('.') => found.push((name, entry.path())),
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}
