//! Puts a volume back: empty it, fill it, compare it with the list, sync it.
//!
//! Everything but the content of files comes from the list; an archive only gives content, and only for entries of
//! the list. Every name is made below a folder that was opened by descriptor without following a symlink, and made
//! as new. So nothing in a snapshot can reach outside the volume, and a second run gives what the first would have.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fleet_core::ids::VolumeName;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::compare::compare;
use super::control::Control;
use super::entry::{ArchiveKind, Attributes, Entry, Kind, Time, Xattr};
use super::error::VolumeError;
use super::files::Files;
use super::flush::Flush;
use super::folders::{FolderStack, open_root};
use super::inode::{is_host_label, path_through, xattrs_of};
use super::list::ListReader;
use super::manifest::{Stored, VolumeRecord};
use super::members::MemberReader;
use super::stream_in::StreamIn;
use super::walk::empty;

/// What the names of POSIX ACLs begin with.
const ACLS: &[u8] = b"system.posix_acl_";

/// What a restore needs besides the snapshot.
#[derive(Debug)]
pub(super) struct Restore {
    pub(super) files: Arc<dyn Files>,
    pub(super) workers: usize,
    pub(super) control: Control,
    pub(super) labels: Labels,
}

/// Counts labels that the host's policy did not take.
#[derive(Debug, Default)]
pub(super) struct Labels {
    refused: Cell<u64>,
}

impl Labels {
    /// Passes over the failure to set a label: whether a host has SELinux, and which labels it takes, is not a matter of
    /// the data, and data that stands there under the host's own label is worth more than none.
    fn bear(&self, xattr: &Xattr, set: io::Result<()>) -> io::Result<()> {
        let refused = |error: &io::Error| {
            matches!(
                Errno::from_io_error(error),
                Some(Errno::ACCESS | Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)
            )
        };
        match set {
            Err(error) if is_host_label(&xattr.name) && refused(&error) => {
                self.refused.set(self.refused.get() + 1);
                Ok(())
            }
            result => result,
        }
    }

    /// Says how many there were, and begins anew.
    fn tell(&self, volume: &VolumeName) {
        let refused = self.refused.take();
        if refused > 0 {
            tracing::warn!(
                %volume,
                refused,
                "this host refuses security labels of the snapshot; its own stand in their place"
            );
        }
    }
}

impl Restore {
    /// Restores one volume of a snapshot that was verified.
    pub(super) fn run(
        &self,
        stored: &Stored,
        volume: &VolumeRecord,
        mountpoint: &Path,
    ) -> Result<(), VolumeError> {
        let root = open_root(mountpoint)?;
        empty(reopen(&root, mountpoint)?)?;
        strip_acls(&self.files, &root)
            .map_err(VolumeError::io("clear the attributes of", mountpoint))?;
        let (filled, flushed) = Flush::beside(&root, |flush| {
            self.fill(stored, volume, &root, mountpoint, flush)
        });
        self.labels.tell(&volume.name);
        filled?;
        flushed.map_err(VolumeError::io("sync", mountpoint))?;
        let list = ListReader::open(&stored.path(&volume.list))?;
        // The disk writes while the content is read from memory and compared.
        let (compared, synced) = std::thread::scope(|scope| {
            let sync = scope.spawn(|| rustix::fs::syncfs(&root));
            let again = reopen(&root, mountpoint)?;
            let compared = compare(&self.files, again, list, self.workers, &self.control);
            Ok::<_, VolumeError>((compared, sync.join()))
        })?;
        let (difference, read) = compared?;
        if let Some(difference) = difference {
            return Err(difference.into_error());
        }
        if let Some(read) = read {
            volume.list.check(&read)?;
        }
        synced
            .map_err(|_| VolumeError::WorkerLost)?
            .map_err(|error| VolumeError::io("sync", mountpoint)(error.into()))
    }

    fn fill(
        &self,
        stored: &Stored,
        volume: &VolumeRecord,
        root: &OwnedFd,
        mountpoint: &Path,
        flush: &Flush,
    ) -> Result<(), VolumeError> {
        let list_path = stored.path(&volume.list);
        let mut archives = vec![(ArchiveKind::Base, &volume.base)];
        archives.extend(volume.delta.iter().map(|delta| (ArchiveKind::Delta, delta)));
        for (kind, record) in archives {
            let mut filler = self.filler(reopen(root, mountpoint)?, flush);
            let mut list = ListReader::open(&list_path)?;
            // Each file is compared with its sum where it comes to lie.
            let input = StreamIn::open(&stored.path(record), self.workers)?;
            let mut members = MemberReader::without_sums(input);
            while let Some(entry) = list.pop()? {
                if kind == ArchiveKind::Base && entry.live {
                    filler.make_without_content(&entry)?;
                }
                if entry.archive == Some(kind) {
                    filler.make_file(&mut members, &entry)?;
                }
            }
            record.check(&members.finish()?)?;
        }
        // Links once every file is there; folders last, since making names in them moves their times.
        let mut filler = self.filler(reopen(root, mountpoint)?, flush);
        let mut list = ListReader::open(&list_path)?;
        while let Some(entry) = list.pop_live()? {
            if let Kind::Hardlink { to } = &entry.kind {
                filler.make_link(to, &entry)?;
            }
        }
        let mut filler = self.filler(reopen(root, mountpoint)?, flush);
        let mut list = ListReader::open(&list_path)?;
        while let Some(entry) = list.pop_live()? {
            if entry.kind == Kind::Dir {
                filler.dress_folder(&entry)?;
            }
        }
        Ok(())
    }

    fn filler<'a>(&'a self, root: OwnedFd, flush: &'a Flush) -> Filler<'a> {
        Filler {
            restore: self,
            flush,
            folders: FolderStack::new(root),
        }
    }
}

/// A second descriptor of the root.
fn reopen(root: &OwnedFd, mountpoint: &Path) -> Result<OwnedFd, VolumeError> {
    super::folders::open_folder(root.as_fd(), b".")
        .map_err(VolumeError::io("open the volume at", mountpoint))
}

/// Removes the ACLs of the root, so that its default does not colour what is made below. What else it has in excess goes
/// when it is dressed.
fn strip_acls(files: &Arc<dyn Files>, root: &OwnedFd) -> io::Result<()> {
    for xattr in xattrs_of(root.as_fd())? {
        if xattr.name.starts_with(ACLS) {
            files.remove_xattr(root.as_fd(), &xattr.name)?;
        }
    }
    Ok(())
}

struct Filler<'a> {
    restore: &'a Restore,
    flush: &'a Flush,
    folders: FolderStack,
}

impl Filler<'_> {
    /// Makes folders (bare), symlinks, pipes and devices.
    fn make_without_content(&mut self, entry: &Entry) -> Result<(), VolumeError> {
        self.restore.control.check()?;
        let path = &entry.path;
        let failed = |error: rustix::io::Errno| VolumeError::io("make", path)(error.into());
        let (kind, device) = match &entry.kind {
            Kind::Dir if path.is_empty() => return Ok(()),
            Kind::File { .. } | Kind::Hardlink { .. } | Kind::Socket => return Ok(()),
            Kind::Dir => {
                let name = self.folders.go_to_parent(path)?;
                return rustix::fs::mkdirat(self.folders.fd(), name, Mode::RWXU).map_err(failed);
            }
            Kind::Symlink { target } => {
                let name = self.folders.go_to_parent(path)?;
                rustix::fs::symlinkat(target.as_slice(), self.folders.fd(), name)
                    .map_err(failed)?;
                return self.dress_name(name, entry);
            }
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Char { major, minor } => (
                FileType::CharacterDevice,
                rustix::fs::makedev(*major, *minor),
            ),
            Kind::Block { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
            }
        };
        let name = self.folders.go_to_parent(path)?;
        rustix::fs::mknodat(
            self.folders.fd(),
            name,
            kind,
            Mode::RUSR | Mode::WUSR,
            device,
        )
        .map_err(failed)?;
        self.dress_name(name, entry)
    }

    /// Reads the member of an entry; makes it if it is a file that is still there at the end.
    fn make_file(&mut self, members: &mut MemberReader, entry: &Entry) -> Result<(), VolumeError> {
        let control = &self.restore.control;
        let Kind::File { size, data, .. } = &entry.kind else {
            return members.read(entry, &mut |_| Ok(()));
        };
        if !entry.live {
            return members.read(entry, &mut |_| control.check());
        }
        let name = self.folders.go_to_parent(&entry.path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.folders.fd(), name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| VolumeError::io("make", &entry.path)(error.into()))?;
        let whole = [(0, *size)];
        let mut places = Places::new(data.as_deref().unwrap_or(&whole));
        members.read(entry, &mut |mut bytes| {
            while !bytes.is_empty() {
                let (at, room) = places.next().ok_or(VolumeError::WorkerLost)?;
                let most = usize::try_from(room)
                    .unwrap_or(bytes.len())
                    .min(bytes.len());
                let count = self
                    .restore
                    .files
                    .write_volume(file.as_fd(), at, &bytes[..most])
                    .map_err(VolumeError::io("write", &entry.path))?;
                places.advance(count as u64);
                self.flush.wrote(count as u64);
                bytes = &bytes[count..];
                control.moved(count)?;
            }
            Ok(())
        })?;
        if data.is_some() {
            rustix::fs::ftruncate(&file, *size)
                .map_err(|error| VolumeError::io("set the length of", &entry.path)(error.into()))?;
        }
        self.dress(file.as_fd(), &entry.attributes)
            .map_err(VolumeError::io("set the attributes of", &entry.path))
    }

    fn make_link(&mut self, to: &[u8], entry: &Entry) -> Result<(), VolumeError> {
        let name = self.folders.go_to_parent(&entry.path)?;
        let here = rustix::io::fcntl_dupfd_cloexec(self.folders.fd(), 0)
            .map_err(|error| VolumeError::io("hold the folder of", &entry.path)(error.into()))?;
        let target = self.folders.go_to_parent(to)?;
        rustix::fs::linkat(self.folders.fd(), target, here, name, AtFlags::empty())
            .map_err(|error| VolumeError::io("link", &entry.path)(error.into()))
    }

    fn dress_folder(&mut self, entry: &Entry) -> Result<(), VolumeError> {
        self.restore.control.check()?;
        self.folders.go_to(&entry.path)?;
        self.dress(self.folders.fd(), &entry.attributes)
            .map_err(VolumeError::io("set the attributes of", &entry.path))
    }

    /// Attributes of what cannot be opened. The name was made by the line before, in a folder that is held open.
    fn dress_name(&self, name: &[u8], entry: &Entry) -> Result<(), VolumeError> {
        let folder = self.folders.fd();
        let attributes = &entry.attributes;
        let set = || -> io::Result<()> {
            rustix::fs::chownat(
                folder,
                name,
                Some(Uid::from_raw(attributes.uid)),
                Some(Gid::from_raw(attributes.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            let path = path_through(folder, name);
            for xattr in &attributes.xattrs {
                let name = xattr.name.as_slice();
                let set =
                    rustix::fs::lsetxattr(path.as_slice(), name, &xattr.value, XattrFlags::empty());
                self.restore.labels.bear(xattr, set.map_err(Into::into))?;
            }
            if !matches!(entry.kind, Kind::Symlink { .. }) {
                let mode = Mode::from_raw_mode(attributes.mode);
                rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?;
            }
            let times = times(attributes.mtime);
            rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(())
        };
        set().map_err(VolumeError::io("set the attributes of", &entry.path))
    }

    /// Owner first, since changing it drops capabilities and setuid; time last, since nothing may follow it.
    fn dress(&self, fd: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        self.set_xattrs(fd, &attributes.xattrs)?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
        rustix::fs::futimens(fd, &times(attributes.mtime))?;
        Ok(())
    }

    /// Sets what differs, and removes what is too much: that of the root, and what a file system hands down by itself.
    fn set_xattrs(&self, fd: BorrowedFd<'_>, wanted: &[Xattr]) -> io::Result<()> {
        let files = &self.restore.files;
        let there = xattrs_of(fd)?;
        for xattr in &there {
            let known = wanted.iter().any(|wanted| wanted.name == xattr.name);
            if !known && !is_host_label(&xattr.name) {
                files.remove_xattr(fd, &xattr.name)?;
            }
        }
        for xattr in wanted.iter().filter(|xattr| !there.contains(xattr)) {
            let set = files.set_xattr(fd, &xattr.name, &xattr.value);
            self.restore.labels.bear(xattr, set)?;
        }
        Ok(())
    }
}

/// The time of the content; the time of access is set to the same, it is not kept.
fn times(Time(tv_sec, nanoseconds): Time) -> Timestamps {
    let at = Timespec {
        tv_sec,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

/// Where the next bytes of a file go.
struct Places<'a> {
    runs: std::slice::Iter<'a, (u64, u64)>,
    at: u64,
    left: u64,
}

impl<'a> Places<'a> {
    fn new(runs: &'a [(u64, u64)]) -> Self {
        Self {
            runs: runs.iter(),
            at: 0,
            left: 0,
        }
    }

    /// Offset and room there; none once every run is full.
    fn next(&mut self) -> Option<(u64, u64)> {
        while self.left == 0 {
            let (start, len) = self.runs.next()?;
            self.at = *start;
            self.left = *len;
        }
        Some((self.at, self.left))
    }

    fn advance(&mut self, count: u64) {
        self.at += count;
        self.left = self.left.saturating_sub(count);
    }
}
