//! The work of the store, blocking: what each call of the port does on disk, in which order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};

use fleet_core::ids::{InstanceId, SnapshotId, VolumeName};
use fleet_core::model::{SnapshotEstimate, SnapshotInfo, VolumeSource};
use fleet_core::ports::SnapshotRequest;

use super::check::check;
use super::compare::compare;
use super::control::Control;
use super::error::VolumeError;
use super::files::Files;
use super::first_pass::FirstPass;
use super::folders::open_root;
use super::ground::Ground;
use super::hold::{Holds, sweep};
use super::list::ListReader;
use super::manifest::{
    FileRecord, MANIFEST, Manifest, SCHEMA, SPEC, SUMS, Stored, VolumeRecord, instance_folder,
    sums_of,
};
use super::measure::{FileSystem, measure};
use super::mounted;
use super::options::{PreCopy, SnapshotOptions};
use super::plain::write_small;
use super::restore::{Labels, Restore};
use super::stream_out::StreamOptions;

/// What every unfinished folder begins with.
pub(super) const TMP: &str = ".tmp-";

/// The store without its port.
#[derive(Debug)]
pub(crate) struct Work {
    pub(super) root: PathBuf,
    pub(super) options: SnapshotOptions,
    pub(super) files: Arc<dyn Files>,
    locks: Mutex<HashMap<SnapshotId, Arc<Mutex<()>>>>,
    holds: Holds,
    swept: Once,
}

impl Work {
    pub(super) fn open(
        root: &Path,
        options: SnapshotOptions,
        files: Arc<dyn Files>,
    ) -> Result<Self, VolumeError> {
        let is_new = !root.exists();
        files
            .create_dir(root)
            .map_err(VolumeError::io("make the folder of snapshots", root))?;
        let root = std::fs::canonicalize(root).map_err(VolumeError::io("open", root))?;
        if let Some(parent) = root.parent().filter(|_| is_new) {
            let failed = VolumeError::io("make durable", parent);
            files.sync_dir(parent).map_err(failed)?;
        }
        Ok(Self {
            root,
            options,
            files,
            locks: Mutex::default(),
            holds: Holds::default(),
            swept: Once::new(),
        })
    }

    /// One thread at a time works on a snapshot: one whose caller went away may still be on its way out.
    pub(super) fn lock(&self, id: &SnapshotId) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(*id).or_default().clone()
    }

    pub(super) fn estimate(
        &self,
        volumes: &[VolumeSource],
    ) -> Result<SnapshotEstimate, VolumeError> {
        let mut needed_bytes: u64 = 0;
        for volume in volumes {
            let (fs, size) = measure(mountpoint(volume)?)?;
            let passes = if self.wants_first_pass(fs, size.bytes, size.entries) {
                2
            } else {
                1
            };
            needed_bytes = needed_bytes.saturating_add(size.archive_most().saturating_mul(passes));
        }
        let free_bytes = self.files.free_bytes(&self.root).map_err(VolumeError::io(
            "ask the free space of",
            self.root.as_path(),
        ))?;
        Ok(SnapshotEstimate {
            needed_bytes,
            free_bytes,
            reserve_bytes: self.options.reserve_bytes,
        })
    }

    pub(super) fn wants_first_pass(&self, fs: FileSystem, bytes: u64, entries: u64) -> bool {
        fs.stamps_every_change
            && match self.options.pre_copy {
                PreCopy::Always => true,
                PreCopy::Never => false,
                PreCopy::Auto => bytes >= PreCopy::WORTH_BYTES || entries >= PreCopy::WORTH_ENTRIES,
            }
    }

    pub(super) fn pre_copy(
        &self,
        request: &SnapshotRequest,
        control: &Control,
    ) -> Result<(), VolumeError> {
        check_request(request)?;
        if self.find(&request.id)?.is_some() {
            return Ok(());
        }
        let tmp = self.fresh_tmp(&request.id)?;
        let made = self.first_pass(request, &tmp, control);
        if made.is_err() {
            self.discard(&request.id)?;
        }
        made
    }

    pub(super) fn stream(&self) -> StreamOptions {
        StreamOptions {
            level: self.options.level,
            workers: self.options.workers,
            reserve_bytes: self.options.reserve_bytes,
        }
    }

    pub(super) fn take(
        &self,
        request: &SnapshotRequest,
        control: &Control,
    ) -> Result<SnapshotInfo, VolumeError> {
        check_request(request)?;
        if let Some(dir) = self.find(&request.id)? {
            return Ok(Stored::load(&dir, &request.id)?.info());
        }
        self.sweep();
        let tmp = self.tmp(&request.id);
        self.holds.keep(&request.id, &tmp);
        let first = FirstPass::resume(&tmp)?;
        if first.is_empty() {
            self.fresh_tmp(&request.id)?;
        }
        let published = self
            .fill(request, &tmp, first, control)
            .and_then(|()| self.publish(&request.id, &request.instance, &tmp));
        if published.is_err() {
            // What is left would never be visible; the failure is what must be told.
            let _ = self.discard(&request.id);
        }
        published
    }

    fn fill(
        &self,
        request: &SnapshotRequest,
        tmp: &Path,
        mut first: FirstPass,
        control: &Control,
    ) -> Result<(), VolumeError> {
        let mut volumes = Vec::new();
        for volume in &request.volumes {
            volumes.push(self.take_volume(request, volume, tmp, first.take(volume), control)?);
        }
        first.clear(tmp)?;
        let spec = match &request.spec {
            None => None,
            Some(spec) => {
                let text = format!("{spec:#}\n");
                let sealed = write_small(&self.files, &tmp.join(SPEC), text.as_bytes())?;
                Some(FileRecord::new(SPEC.to_owned(), &sealed))
            }
        };
        let manifest = Manifest {
            schema: SCHEMA,
            snapshot: request.id,
            instance: request.instance.clone(),
            update: request.update,
            created_at: request.now,
            consistency: request.consistency,
            engine_id: request.engine_id.clone(),
            volumes,
            spec,
        };
        let mut text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| VolumeError::io("write down", tmp)(std::io::Error::other(error)))?;
        text.push(b'\n');
        let sealed = write_small(&self.files, &tmp.join(MANIFEST), &text)?;
        let sums = sums_of(&manifest, sealed.sha256)?;
        write_small(&self.files, &tmp.join(SUMS), sums.as_bytes())?;
        self.sync_dir(tmp)
    }

    /// Makes a filled folder visible, durably.
    pub(super) fn publish(
        &self,
        id: &SnapshotId,
        instance: &InstanceId,
        tmp: &Path,
    ) -> Result<SnapshotInfo, VolumeError> {
        let stored = Stored::load(tmp, id)?;
        let folder = self.root.join(instance_folder(instance));
        self.files
            .create_dir(&folder)
            .map_err(VolumeError::io("make", folder.as_path()))?;
        self.sync_dir(&self.root)?;
        let dir = folder.join(id.to_string());
        self.files
            .rename(tmp, &dir)
            .map_err(VolumeError::io("publish", dir.as_path()))?;
        let durable = self
            .sync_dir(&folder)
            .and_then(|()| self.sync_dir(&self.root));
        if let Err(error) = durable {
            // Visible but perhaps not durable: hide it again, so that what is visible always holds.
            let _ = std::fs::rename(&dir, tmp);
            return Err(error);
        }
        self.holds.release(id);
        Ok(stored.info())
    }

    pub(super) fn discard(&self, id: &SnapshotId) -> Result<(), VolumeError> {
        self.sweep();
        self.holds.release(id);
        remove_tree(&self.tmp(id))
    }

    /// Removes what killed processes left, once, before the first act that writes to the store.
    pub(super) fn sweep(&self) {
        self.swept.call_once(|| {
            if let Err(error) = sweep(&self.root) {
                tracing::warn!(%error, "what killed snapshots left cannot be looked for");
            }
        });
    }

    pub(super) fn verify(
        &self,
        id: &SnapshotId,
        control: &Control,
    ) -> Result<SnapshotInfo, VolumeError> {
        let stored = self.load(id)?;
        check(&stored, self.options.workers, control)?;
        Ok(stored.info())
    }

    pub(super) fn restore(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        control: &Control,
    ) -> Result<(), VolumeError> {
        let stored = self.load(id)?;
        let targets = targets(&stored, volumes)?;
        for (_, mount) in &targets {
            open_root(mount)?;
        }
        check(&stored, self.options.workers, control)?;
        let mut ground = Ground::default();
        for (record, mount) in &targets {
            ground.look_at(mount, record.bytes)?;
        }
        ground.clear()?;
        let restore = Restore {
            files: self.files.clone(),
            workers: self.options.workers,
            control: control.clone(),
            labels: Labels::default(),
        };
        for (record, mount) in targets {
            restore.run(&stored, record, mount)?;
        }
        Ok(())
    }

    pub(super) fn differs(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        control: &Control,
    ) -> Result<Vec<VolumeName>, VolumeError> {
        let stored = self.load(id)?;
        let mut names = Vec::new();
        for (record, mount) in targets(&stored, volumes)? {
            let list = ListReader::open(&stored.path(&record.list))?;
            let root = open_root(mount)?;
            let (difference, read) =
                compare(&self.files, root, list, self.options.workers, control)?;
            if let Some(read) = read {
                record.list.check(&read)?;
            }
            if let Some(difference) = difference {
                tracing::debug!(
                    volume = %record.name,
                    path = %String::from_utf8_lossy(&difference.path),
                    difference = difference.what,
                    "a volume differs from its snapshot"
                );
                names.push(record.name.clone());
            }
        }
        Ok(names)
    }

    pub(super) fn tmp(&self, id: &SnapshotId) -> PathBuf {
        self.root.join(format!("{TMP}{id}"))
    }

    pub(super) fn fresh_tmp(&self, id: &SnapshotId) -> Result<PathBuf, VolumeError> {
        self.sweep();
        let tmp = self.tmp(id);
        self.holds.make(self.files.as_ref(), id, &tmp)?;
        Ok(tmp)
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), VolumeError> {
        self.files
            .sync_dir(dir)
            .map_err(VolumeError::io("sync the folder", dir))
    }
}

/// The volumes of a snapshot that are asked for, with where they lie.
fn targets<'a>(
    stored: &'a Stored,
    volumes: &'a [VolumeSource],
) -> Result<Vec<(&'a VolumeRecord, &'a Path)>, VolumeError> {
    let target = |volume: &'a VolumeSource| {
        let record = stored
            .manifest
            .volumes
            .iter()
            .find(|record| record.name == volume.name);
        let record = record.ok_or_else(|| {
            VolumeError::Invalid(format!(
                "the snapshot does not hold the volume {}",
                volume.name
            ))
        })?;
        let mount = mountpoint(volume)?;
        mounted::require(volume, mount)?;
        Ok((record, mount))
    };
    volumes.iter().map(target).collect()
}

fn check_request(request: &SnapshotRequest) -> Result<(), VolumeError> {
    for (index, volume) in request.volumes.iter().enumerate() {
        mounted::require(volume, mountpoint(volume)?)?;
        let twice = request.volumes[..index]
            .iter()
            .any(|other| other.name == volume.name);
        if twice {
            return Err(VolumeError::Invalid(format!(
                "the volume {} is asked for twice",
                volume.name
            )));
        }
    }
    Ok(())
}

pub(super) fn mountpoint(volume: &VolumeSource) -> Result<&Path, VolumeError> {
    if volume.driver != "local" {
        return Err(VolumeError::Unsupported(format!(
            "the volume {} has the driver {}; only volumes of the driver local can be copied",
            volume.name, volume.driver
        )));
    }
    let path = Path::new(&volume.mountpoint);
    if !path.is_absolute() {
        return Err(VolumeError::Invalid(format!(
            "the volume {} lies at {:?}, which is not an absolute path",
            volume.name, volume.mountpoint
        )));
    }
    Ok(path)
}

pub(super) fn remove_file(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(VolumeError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(VolumeError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
