//! What the first pass leaves for the second, on disk, so that a restart in between loses nothing.

use std::path::Path;
use std::sync::Arc;

use fleet_core::ids::VolumeName;
use fleet_core::model::VolumeSource;
use serde::{Deserialize, Serialize};

use super::entry::{ArchiveKind, Time};
use super::error::VolumeError;
use super::files::Files;
use super::folders::open_root;
use super::hash::Sha256Hash;
use super::manifest::{FileRecord, Part, SCHEMA, file_name};
use super::measure::FileSystem;
use super::plain::{read_small, write_small};

/// Name of the record, written last.
pub(super) const FIRST_PASS: &str = "first-pass.json";

/// The volumes that have a first pass.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct FirstPass {
    schema: u32,
    volumes: Vec<FirstVolume>,
}

/// The first pass of one volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FirstVolume {
    pub(super) name: VolumeName,
    pub(super) mountpoint: String,
    /// Device of its file system.
    pub(super) device: u64,
    /// When the pass began: before the sync, before anything was read.
    pub(super) began: Time,
    pub(super) base: FileRecord,
    pub(super) list_sha256: Sha256Hash,
}

impl FirstPass {
    pub(super) fn new(volumes: Vec<FirstVolume>) -> Self {
        Self {
            schema: SCHEMA,
            volumes,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// Writes the record.
    pub(super) fn write(&self, files: &Arc<dyn Files>, tmp: &Path) -> Result<(), VolumeError> {
        let text = serde_json::to_vec(self)
            .map_err(|error| VolumeError::io("write down", tmp)(std::io::Error::other(error)))?;
        write_small(files, &tmp.join(FIRST_PASS), &text)?;
        Ok(())
    }

    /// Reads what a first pass left in a folder and removes all else from it. Nothing usable is an empty one.
    pub(super) fn resume(tmp: &Path) -> Result<Self, VolumeError> {
        let path = tmp.join(FIRST_PASS);
        if !path.exists() {
            return Ok(Self::default());
        }
        let read = serde_json::from_slice::<Self>(&read_small(&path)?);
        let Ok(mut first) = read else {
            // Cut while it was written.
            return Ok(Self::default());
        };
        if first.schema != SCHEMA {
            return Ok(Self::default());
        }
        first.volumes.retain(|volume| volume.is_there(tmp));
        let mut keep = vec![FIRST_PASS.to_owned()];
        for volume in &first.volumes {
            keep.push(volume.base.file.clone());
            keep.push(file_name(&volume.name, Part::BaseList));
        }
        let entries = std::fs::read_dir(tmp).map_err(VolumeError::io("list", tmp))?;
        for entry in entries {
            let entry = entry.map_err(VolumeError::io("list", tmp))?;
            let known = entry
                .file_name()
                .to_str()
                .is_some_and(|name| keep.iter().any(|k| k == name));
            if !known {
                std::fs::remove_file(entry.path())
                    .map_err(VolumeError::io("remove", entry.path().as_path()))?;
            }
        }
        Ok(first)
    }

    /// The first pass of this volume, if the volume is still the one that was copied.
    pub(super) fn take(&mut self, volume: &VolumeSource) -> Option<FirstVolume> {
        let index = self
            .volumes
            .iter()
            .position(|first| first.name == volume.name)?;
        let first = self.volumes[index].clone();
        let root = open_root(Path::new(&volume.mountpoint)).ok()?;
        let fs = FileSystem::of(&root, Path::new(&volume.mountpoint)).ok()?;
        let same = first.mountpoint == volume.mountpoint
            && first.device == fs.device
            && fs.stamps_every_change;
        same.then_some(first)
    }

    /// Removes what only the second pass needed.
    pub(super) fn clear(&self, tmp: &Path) -> Result<(), VolumeError> {
        let lists = self
            .volumes
            .iter()
            .map(|volume| file_name(&volume.name, Part::BaseList));
        for name in lists.chain([FIRST_PASS.to_owned()]) {
            let path = tmp.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(VolumeError::io("remove", path.as_path())(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl FirstVolume {
    fn is_there(&self, tmp: &Path) -> bool {
        let expected = file_name(&self.name, Part::Archive(ArchiveKind::Base));
        self.base.file == expected
            && std::fs::symlink_metadata(tmp.join(&expected))
                .is_ok_and(|file| file.len() == self.base.bytes)
            && tmp.join(file_name(&self.name, Part::BaseList)).is_file()
    }
}
