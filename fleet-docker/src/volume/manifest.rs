//! The manifest of a snapshot and the folder it lies in.
//!
//! ```text
//! <instance>/<snapshot id>/
//!   manifest.json              what, when, of which volumes, hash of every other file
//!   SHA256SUMS                 hash of every file, the manifest's too, for `sha256sum -c`
//!   spec.json                  the container's frozen spec, if given
//!   <volume>.tar.zst           the first pass, or the only one
//!   <volume>.delta.tar.zst     what changed until the stop, if there were two passes
//!   <volume>.removed           what to remove between the two by hand, if anything
//!   <volume>.removed-xattrs    the same for attributes of folders
//!   <volume>.entries.jsonl.zst every entry with its metadata and hash
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleet_core::ids::{HostId, InstanceId, SnapshotId, UpdateId, VolumeName};
use fleet_core::model::{Consistency, SnapshotInfo, SnapshotVolume};
use fleet_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::ArchiveKind;
use super::error::VolumeError;
use super::hash::Sha256Hash;
use super::plain::read_small;
use super::stream_out::Sealed;

/// Version of the format. It changes whenever an older reader would misread a newer snapshot.
pub(super) const SCHEMA: u32 = 1;

/// Name of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// Name of the list of hashes.
pub(super) const SUMS: &str = "SHA256SUMS";
/// Name of the copy of the frozen spec.
pub(super) const SPEC: &str = "spec.json";

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) schema: u32,
    pub(super) snapshot: SnapshotId,
    pub(super) instance: InstanceId,
    pub(super) update: Option<UpdateId>,
    pub(super) created_at: Timestamp,
    pub(super) consistency: Consistency,
    pub(super) engine_id: String,
    pub(super) volumes: Vec<VolumeRecord>,
    /// Hash of `spec.json`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spec: Option<FileRecord>,
}

impl Manifest {
    /// Every file that is counted on.
    pub(super) fn records(&self) -> impl Iterator<Item = &FileRecord> {
        let of_volumes = self.volumes.iter().flat_map(|volume| {
            let optional = [&volume.delta, &volume.removed, &volume.removed_xattrs];
            [&volume.list, &volume.base]
                .into_iter()
                .chain(optional.into_iter().flatten())
        });
        self.spec.iter().chain(of_volumes)
    }
}

/// One volume in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRecord {
    pub(super) name: VolumeName,
    pub(super) driver: String,
    pub(super) options: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    /// Bytes of file content, holes not counted.
    pub(super) bytes: u64,
    /// Entries at the end.
    pub(super) entries: u64,
    /// Sockets among them: listed, never copied.
    pub(super) sockets: u64,
    pub(super) list: FileRecord,
    pub(super) base: FileRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<FileRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) removed: Option<FileRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) removed_xattrs: Option<FileRecord>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    pub(super) file: String,
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// Bytes after decompression.
    pub(super) raw_bytes: u64,
    pub(super) sha256: Sha256Hash,
}

impl FileRecord {
    /// Records a finished file.
    pub(super) fn new(file: String, sealed: &Sealed) -> Self {
        Self {
            file,
            bytes: sealed.bytes,
            raw_bytes: sealed.raw_bytes,
            sha256: sealed.sha256,
        }
    }

    /// Fails if what was read is not what was recorded.
    pub(super) fn check(&self, read: &Sealed) -> Result<(), VolumeError> {
        let found = Self::new(self.file.clone(), read);
        if found == *self {
            return Ok(());
        }
        let show = |record: &Self| {
            format!(
                "{} bytes ({} decompressed) with SHA-256 {}",
                record.bytes, record.raw_bytes, record.sha256
            )
        };
        Err(VolumeError::corrupt(&self.file, show(self), show(&found)))
    }
}

/// Which file of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Archive(ArchiveKind),
    List,
    Removed,
    RemovedXattrs,
    /// The list of the first pass, kept until the second has ended.
    BaseList,
}

/// The name of a file of a volume. Made from the validated name alone, within what a file system allows.
pub(super) fn file_name(volume: &VolumeName, part: Part) -> String {
    let suffix = match part {
        Part::Archive(ArchiveKind::Base) => "tar.zst",
        Part::Archive(ArchiveKind::Delta) => "delta.tar.zst",
        Part::List => "entries.jsonl.zst",
        Part::Removed => "removed",
        Part::RemovedXattrs => "removed-xattrs",
        Part::BaseList => "base-entries.jsonl.zst",
    };
    format!("{}.{suffix}", path_safe(volume.as_str()))
}

/// Longest text that goes into a file name as it is.
const LONGEST_STEM: usize = 200;

/// A text of letters, digits, `_`, `.` and `-` as part of a file name: as it is, or, where that would be too long or
/// be taken for another name, with a part of its hash (behind a `+`, which such a text cannot hold).
fn path_safe(text: &str) -> String {
    if text.len() <= LONGEST_STEM && !text.ends_with(".delta") {
        return text.to_owned();
    }
    let hash = String::from(Sha256Hash::of(text.as_bytes()));
    let head: String = text.chars().take(LONGEST_STEM - 20).collect();
    format!("{head}+{}", &hash[..16])
}

/// The folder of an instance's snapshots below the store.
pub(super) fn instance_folder(instance: &InstanceId) -> String {
    let name = path_safe(instance.name.as_str());
    if instance.host == HostId::local() {
        return name;
    }
    let hash = String::from(Sha256Hash::of(instance.host.as_str().as_bytes()));
    format!("{name}@{}", &hash[..16])
}

/// A snapshot as it lies on disk, its manifest read and checked.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) dir: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) manifest_sha256: Sha256Hash,
}

impl Stored {
    /// Reads the manifest of a folder and checks it against the list of hashes and against itself.
    pub(super) fn load(dir: &Path, id: &SnapshotId) -> Result<Self, VolumeError> {
        let bytes = read_small(&dir.join(MANIFEST))?;
        let sums = read_small(&dir.join(SUMS))?;
        let manifest_sha256 = Sha256Hash::of(&bytes);
        let path = dir.join(MANIFEST).display().to_string();
        let parsed: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| VolumeError::corrupt(&path, "a manifest", error))?;
        if parsed.schema != SCHEMA {
            let found = format!("schema {}", parsed.schema);
            return Err(VolumeError::corrupt(
                path,
                format_args!("schema {SCHEMA}"),
                found,
            ));
        }
        if parsed.snapshot != *id {
            return Err(VolumeError::corrupt(path, id, parsed.snapshot));
        }
        let expected = sums_of(&parsed, manifest_sha256)?;
        if sums != expected.as_bytes() {
            let path = dir.join(SUMS).display().to_string();
            return Err(VolumeError::corrupt(
                path,
                "the hashes of manifest and files",
                "others",
            ));
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest: parsed,
            manifest_sha256,
        })
    }

    /// A file of the snapshot.
    pub(super) fn path(&self, record: &FileRecord) -> PathBuf {
        self.dir.join(&record.file)
    }

    /// What callers see.
    pub(super) fn info(&self) -> SnapshotInfo {
        let volume = |record: &VolumeRecord| SnapshotVolume {
            name: record.name.clone(),
            bytes: record.bytes,
            archive_bytes: record.base.bytes + record.delta.as_ref().map_or(0, |file| file.bytes),
            entries: record.entries,
        };
        SnapshotInfo {
            id: self.manifest.snapshot,
            instance: self.manifest.instance.clone(),
            update: self.manifest.update,
            created_at: self.manifest.created_at,
            consistency: self.manifest.consistency,
            volumes: self.manifest.volumes.iter().map(volume).collect(),
            manifest_sha256: self.manifest_sha256.to_string(),
            // What is visible was read back before it was published.
            verified: true,
        }
    }
}

/// The text of `SHA256SUMS`. Fails if a recorded file does not have the name that it must have.
pub(super) fn sums_of(manifest: &Manifest, own: Sha256Hash) -> Result<String, VolumeError> {
    let mut lines = format!("{own}  {MANIFEST}\n");
    let mut add = |record: &FileRecord, name: String| {
        if record.file != name {
            return Err(VolumeError::corrupt(
                "a file name in the manifest",
                name,
                &record.file,
            ));
        }
        lines.push_str(&format!("{}  {name}\n", record.sha256));
        Ok(())
    };
    if let Some(spec) = &manifest.spec {
        add(spec, SPEC.to_owned())?;
    }
    for volume in &manifest.volumes {
        let name = |part| file_name(&volume.name, part);
        add(&volume.list, name(Part::List))?;
        add(&volume.base, name(Part::Archive(ArchiveKind::Base)))?;
        let optional = [
            (&volume.delta, Part::Archive(ArchiveKind::Delta)),
            (&volume.removed, Part::Removed),
            (&volume.removed_xattrs, Part::RemovedXattrs),
        ];
        for (record, part) in optional {
            if let Some(record) = record {
                add(record, name(part))?;
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::ids::InstanceName;

    #[test]
    fn names_of_files_are_distinct_and_short_enough() {
        let volume = |name: &str| VolumeName::new(name).unwrap();
        let base = |name: &str| file_name(&volume(name), Part::Archive(ArchiveKind::Base));
        assert_eq!(base("data"), "data.tar.zst");
        let delta = file_name(&volume("data"), Part::Archive(ArchiveKind::Delta));
        assert_ne!(base("data.delta"), delta);
        let long = "v".repeat(255);
        assert!(file_name(&volume(&long), Part::BaseList).len() <= 255);
        assert_ne!(base(&long), base(&"v".repeat(254)));
    }

    #[test]
    fn instances_of_different_hosts_have_different_folders() {
        let name = InstanceName::new("web").unwrap();
        let local = InstanceId::local(name.clone());
        let other = InstanceId {
            host: HostId::new("web").unwrap(),
            name,
        };
        assert_eq!(instance_folder(&local), "web");
        assert!(instance_folder(&other).starts_with("web@"));
    }
}
