//! The passes over the volumes of a snapshot: the first while their program runs, the second after its stop, or one alone.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fleet_core::model::{Consistency, VolumeSource};
use fleet_core::ports::SnapshotRequest;

use super::capture::{Captured, Earlier, Pass};
use super::control::Control;
use super::entry::{ArchiveKind, Time};
use super::error::VolumeError;
use super::first_pass::{FirstPass, FirstVolume};
use super::folders::open_root;
use super::hash::Sha256Hash;
use super::list::ListReader;
use super::manifest::{FileRecord, Part, VolumeRecord, file_name};
use super::measure::{FileSystem, measure};
use super::plain::PlainOut;
use super::removed::Removed;
use super::stream_out::Sealed;
use super::work::{Work, mountpoint, remove_file};

impl Work {
    pub(super) fn first_pass(
        &self,
        request: &SnapshotRequest,
        tmp: &Path,
        control: &Control,
    ) -> Result<(), VolumeError> {
        let mut volumes = Vec::new();
        for volume in &request.volumes {
            let mount = mountpoint(volume)?;
            let (fs, size) = measure(mount)?;
            if !self.wants_first_pass(fs, size.bytes, size.entries) {
                continue;
            }
            let root = open_root(mount)?;
            let began = now();
            // A page that a program has mapped and already dirtied takes further stores without any stamp; writing it
            // out makes the next store stamp the inode.
            rustix::fs::syncfs(root.as_fd())
                .map_err(|error| VolumeError::io("sync", mount)(error.into()))?;
            let list = tmp.join(file_name(&volume.name, Part::BaseList));
            let archive = file_name(&volume.name, Part::Archive(ArchiveKind::Base));
            let pass = Pass {
                hot: true,
                keep_stamps: true,
                ..self.pass(control, fs, tmp)
            };
            let captured = pass.run(root, &tmp.join(&archive), &list, None)?;
            volumes.push(FirstVolume {
                name: volume.name.clone(),
                mountpoint: volume.mountpoint.clone(),
                device: fs.device,
                began,
                base: FileRecord::new(archive, &captured.archive),
                list_sha256: captured.list.sha256,
            });
        }
        FirstPass::new(volumes).write(&self.files, tmp)?;
        self.sync_dir(tmp)
    }

    fn pass<'a>(&self, control: &Control, fs: FileSystem, tmp: &'a Path) -> Pass<'a> {
        Pass {
            files: self.files.clone(),
            stream: self.stream(),
            control: control.clone(),
            hot: false,
            keep_stamps: false,
            clones_in: fs.clones.then_some(tmp),
        }
    }

    /// Copies a volume, with the help of a first pass where there is one that can be used.
    pub(super) fn take_volume(
        &self,
        request: &SnapshotRequest,
        volume: &VolumeSource,
        tmp: &Path,
        first: Option<FirstVolume>,
        control: &Control,
    ) -> Result<VolumeRecord, VolumeError> {
        if let Some(first) = first {
            match self.second_pass(request, volume, tmp, first, control) {
                Err(error @ VolumeError::Corrupt { .. }) => tracing::warn!(
                    volume = %volume.name,
                    error = &error as &dyn std::error::Error,
                    "what the first pass left is damaged; everything is copied again"
                ),
                result => return result,
            }
        }
        self.only_pass(request, volume, tmp, control)
    }

    fn second_pass(
        &self,
        request: &SnapshotRequest,
        volume: &VolumeSource,
        tmp: &Path,
        first: FirstVolume,
        control: &Control,
    ) -> Result<VolumeRecord, VolumeError> {
        let name = |part| file_name(&volume.name, part);
        let plain = |part| {
            let path = tmp.join(name(part));
            PlainOut::new(self.files.clone(), path, self.options.reserve_bytes)
        };
        let earlier = Earlier {
            list: ListReader::open(&tmp.join(name(Part::BaseList)))?,
            began: first.began,
            removed: Removed::new(plain(Part::Removed), plain(Part::RemovedXattrs)),
        };
        let archive = name(Part::Archive(ArchiveKind::Delta));
        let captured = self.cold_pass(request, volume, tmp, &archive, Some(earlier), control)?;
        check_list(&name(Part::BaseList), first.list_sha256, captured.earlier)?;
        let delta = FileRecord::new(archive, &captured.archive);
        Ok(record(volume, &captured, first.base, Some(delta)))
    }

    fn only_pass(
        &self,
        request: &SnapshotRequest,
        volume: &VolumeSource,
        tmp: &Path,
        control: &Control,
    ) -> Result<VolumeRecord, VolumeError> {
        // What an earlier pass made that no longer counts, since the volume moved or the list was damaged.
        for part in [
            Part::Archive(ArchiveKind::Base),
            Part::Archive(ArchiveKind::Delta),
            Part::List,
            Part::Removed,
            Part::RemovedXattrs,
        ] {
            remove_file(&tmp.join(file_name(&volume.name, part)))?;
        }
        let archive = file_name(&volume.name, Part::Archive(ArchiveKind::Base));
        let captured = self.cold_pass(request, volume, tmp, &archive, None, control)?;
        let base = FileRecord::new(archive, &captured.archive);
        Ok(record(volume, &captured, base, None))
    }

    fn cold_pass(
        &self,
        request: &SnapshotRequest,
        volume: &VolumeSource,
        tmp: &Path,
        archive: &str,
        earlier: Option<Earlier>,
        control: &Control,
    ) -> Result<Captured, VolumeError> {
        let mount = mountpoint(volume)?;
        let root = open_root(mount)?;
        let fs = FileSystem::of(&root, mount)?;
        let hot = request.consistency == Consistency::Hot;
        let pass = Pass {
            hot,
            clones_in: fs.clones.then_some(tmp).filter(|_| hot),
            ..self.pass(control, fs, tmp)
        };
        let list = tmp.join(file_name(&volume.name, Part::List));
        pass.run(root, &tmp.join(archive), &list, earlier)
    }
}

/// Fails unless the list that the second pass went by is the one that the first pass wrote.
fn check_list(what: &str, written: Sha256Hash, read: Option<Sealed>) -> Result<(), VolumeError> {
    match read {
        Some(read) if read.sha256 == written => Ok(()),
        Some(read) => Err(VolumeError::corrupt(what, written, read.sha256)),
        None => Err(VolumeError::corrupt(what, written, "nothing")),
    }
}

fn record(
    volume: &VolumeSource,
    captured: &Captured,
    base: FileRecord,
    delta: Option<FileRecord>,
) -> VolumeRecord {
    let name = |part| file_name(&volume.name, part);
    let plain = |part, sealed: &Option<Sealed>| {
        sealed
            .as_ref()
            .map(|sealed| FileRecord::new(name(part), sealed))
    };
    VolumeRecord {
        name: volume.name.clone(),
        driver: volume.driver.clone(),
        options: volume.options.clone(),
        labels: volume.labels.clone(),
        bytes: captured.totals.bytes,
        entries: captured.totals.entries,
        sockets: captured.totals.sockets,
        list: FileRecord::new(name(Part::List), &captured.list),
        base,
        delta,
        removed: plain(Part::Removed, &captured.removed.paths),
        removed_xattrs: plain(Part::RemovedXattrs, &captured.removed.xattrs),
    }
}

/// The clock that file systems stamp inodes with.
fn now() -> Time {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Time(
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            since.subsec_nanos(),
        ),
        // A clock before 1970 makes every file count as changed, which is safe.
        Err(_) => Time(i64::MIN, 0),
    }
}
