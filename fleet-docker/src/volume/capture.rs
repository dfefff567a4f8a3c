//! One pass over a volume: the archive of what it holds, or of what changed since an earlier pass, and the list of
//! everything.
//!
//! It never decides that something may be missing: what cannot be read fails the pass, and so does what changes
//! under it, unless a writer is known to run.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use sha2::{Digest, Sha256};

use super::control::Control;
use super::entry::{ArchiveKind, Attributes, Entry, Kind, Time};
use super::error::VolumeError;
use super::files::Files;
use super::hash::Sha256Hash;
use super::inode;
use super::list::{ListReader, ListWriter, Totals};
use super::removed::{Removed, RemovedLists};
use super::stream_out::{CHUNK, Sealed, StreamOptions, StreamOut};
use super::tar;
use super::walk::{Place, Visitor, has_vanished, walk};

/// How far before the first pass a change may have happened and still be missed by it: the kernel stamps inodes with
/// a clock that stands still between two ticks (10 ms at the slowest), and the pass reads a finer one.
const RACY_MARGIN_NANOS: i128 = 20_000_000;
/// How much more where the file system stamps whole seconds, cut: ext2, ext3, and ext4 with inodes of 128 bytes.
const SECOND_NANOS: i128 = 1_000_000_000;

/// Where a pass reads and writes.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    /// The file port.
    pub(super) files: Arc<dyn Files>,
    /// How files are written.
    pub(super) stream: StreamOptions,
    /// What the caller has over the work.
    pub(super) control: Control,
    /// Whether a writer may be running: then what vanishes is passed over, and what changes is taken as it is.
    pub(super) hot: bool,
    /// Whether inode stamps go into the list, for a later pass.
    pub(super) keep_stamps: bool,
    /// A folder on the volume's own cloning file system, to read from clones that no writer can change.
    pub(super) clones_in: Option<&'a Path>,
}

/// What an earlier pass left, for a pass that takes only changes.
#[derive(Debug)]
pub(super) struct Earlier {
    /// Its list.
    pub(super) list: ListReader,
    /// When it began.
    pub(super) began: Time,
    /// Takes what must be removed from its archive's tree before this one's is extracted.
    pub(super) removed: Removed,
}

/// What a pass made.
#[derive(Debug)]
pub(super) struct Captured {
    /// The archive.
    pub(super) archive: Sealed,
    /// The list.
    pub(super) list: Sealed,
    /// What the list holds.
    pub(super) totals: Totals,
    /// What must be removed from the earlier archive's tree before this one's is extracted.
    pub(super) removed: RemovedLists,
    /// What was read of the earlier pass's list: all of it.
    pub(super) earlier: Option<Sealed>,
}

impl Pass<'_> {
    /// Makes the pass.
    pub(super) fn run(
        self,
        root: OwnedFd,
        archive: &Path,
        list: &Path,
        earlier: Option<Earlier>,
    ) -> Result<Captured, VolumeError> {
        let kind = match earlier {
            None => ArchiveKind::Base,
            Some(_) => ArchiveKind::Delta,
        };
        let mut capture = Capture {
            out: StreamOut::create(&self.files, archive, self.stream)?,
            list: ListWriter::create(&self.files, list, self.stream)?,
            pass: self,
            kind,
            earlier,
            groups: HashMap::new(),
        };
        walk(root, &mut capture)?;
        capture.drop_before(None)?;
        capture.out.write(&tar::END)?;
        let (removed, earlier) = match capture.earlier {
            None => (RemovedLists::default(), None),
            Some(earlier) => (earlier.removed.finish()?, Some(earlier.list.finish()?)),
        };
        let (list, totals) = capture.list.finish()?;
        Ok(Captured {
            archive: capture.out.finish()?,
            list,
            totals,
            removed,
            earlier,
        })
    }
}

struct Capture<'a> {
    pass: Pass<'a>,
    kind: ArchiveKind,
    earlier: Option<Earlier>,
    out: StreamOut,
    list: ListWriter,
    /// Files with several names, of which some were not met yet.
    groups: HashMap<u64, Group>,
}

/// The names of one inode.
struct Group {
    first: Vec<u8>,
    /// Names not met yet, as far as the inode says.
    left: u64,
    /// Whether the first name went into this pass's archive.
    written: bool,
}

impl Visitor for Capture<'_> {
    fn folder(
        &mut self,
        path: &[u8],
        folder: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(), VolumeError> {
        self.pass.control.check()?;
        let before = self.earlier_at(path)?;
        let xattrs =
            inode::xattrs_of(folder).map_err(VolumeError::io("read attributes of", path))?;
        let entry = self.entry(path, Kind::Dir, inode::attributes(stat, xattrs), stat);
        self.replace(before, &entry)?;
        self.out.write(&tar::header(&entry))?;
        self.list.push(&entry)
    }

    fn leaf(&mut self, place: &Place<'_>) -> Result<(), VolumeError> {
        self.pass.control.check()?;
        let before = self.earlier_at(place.path)?;
        let before = match before {
            None => None,
            Some(before) => match self.keep_if_unchanged(place, before)? {
                Kept::Yes => return Ok(()),
                Kept::No(before) => Some(before),
            },
        };
        match self.take_leaf(place) {
            Ok(entry) => {
                self.replace(before, &entry)?;
                self.list.push(&entry)
            }
            Err(TakeError::Vanished) if self.pass.hot => match before {
                Some(before) => self.drop(before),
                None => Ok(()),
            },
            Err(TakeError::Vanished) => Err(VolumeError::changed(place.path)),
            Err(TakeError::Failed(error)) => Err(error),
        }
    }

    fn lets_go(&self) -> bool {
        self.pass.hot
    }
}

enum Kept {
    Yes,
    No(Entry),
}

enum TakeError {
    /// The name is gone, or is something else now.
    Vanished,
    Failed(VolumeError),
}

impl From<VolumeError> for TakeError {
    fn from(error: VolumeError) -> Self {
        Self::Failed(error)
    }
}

/// A failed call on a name: it vanished, or the pass fails.
fn on(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> TakeError {
    move |error| {
        if has_vanished(&error) {
            TakeError::Vanished
        } else {
            TakeError::Failed(VolumeError::io(action, path)(error))
        }
    }
}

impl Capture<'_> {
    fn entry(&self, path: &[u8], kind: Kind, attributes: Attributes, stat: &Stat) -> Entry {
        let archive = (kind != Kind::Socket).then_some(self.kind);
        Entry {
            path: path.to_vec(),
            kind,
            attributes,
            archive,
            live: true,
            stamp: self.pass.keep_stamps.then(|| inode::stamp(stat)),
        }
    }

    /// What the earlier pass had under this path; everything before it is gone.
    fn earlier_at(&mut self, path: &[u8]) -> Result<Option<Entry>, VolumeError> {
        self.drop_before(Some(path))?;
        match &mut self.earlier {
            Some(earlier) if earlier.list.peek().is_some_and(|entry| entry.path == path) => {
                earlier.list.pop()
            }
            _ => Ok(None),
        }
    }

    /// Lists what the earlier pass had before this path (or at all) as no longer there.
    fn drop_before(&mut self, path: Option<&[u8]>) -> Result<(), VolumeError> {
        while let Some(earlier) = &mut self.earlier {
            let gone = earlier.list.peek().is_some_and(|entry| {
                path.is_none_or(|path| super::entry::walk_order(&entry.path, path).is_lt())
            });
            if !gone {
                break;
            }
            if let Some(entry) = earlier.list.pop()? {
                self.drop(entry)?;
            }
        }
        Ok(())
    }

    /// Lists what the earlier pass had as no longer there.
    fn drop(&mut self, before: Entry) -> Result<(), VolumeError> {
        if let (Some(earlier), Some(_)) = (&mut self.earlier, before.archive) {
            earlier.removed.path(&before.path)?;
        }
        self.list_dead(before)
    }

    /// Lists what the earlier pass had as replaced by `entry`.
    fn replace(&mut self, before: Option<Entry>, entry: &Entry) -> Result<(), VolumeError> {
        let Some(before) = before else {
            return Ok(());
        };
        if let (Some(earlier), Some(_)) = (&mut self.earlier, before.archive) {
            earlier.removed.replaced(&before, entry)?;
        }
        self.list_dead(before)
    }

    fn list_dead(&mut self, mut entry: Entry) -> Result<(), VolumeError> {
        // What no archive holds leaves no trace.
        if entry.archive.is_none() {
            return Ok(());
        }
        entry.live = false;
        entry.stamp = None;
        self.list.push(&entry)
    }

    /// Lists an entry as the earlier pass had it, if its inode says that nothing changed.
    fn keep_if_unchanged(&mut self, place: &Place<'_>, before: Entry) -> Result<Kept, VolumeError> {
        let stat = match rustix::fs::statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => {
                let error = io::Error::from(error);
                // The copy meets the same and decides.
                return if has_vanished(&error) {
                    Ok(Kept::No(before))
                } else {
                    Err(VolumeError::io("look at", place.path)(error))
                };
            }
        };
        let began = self.earlier.as_ref().map(|earlier| earlier.began);
        if !began.is_some_and(|began| is_unchanged(&before, &stat, began)) {
            return Ok(Kept::No(before));
        }
        if may_share(&stat) {
            match self.groups.get_mut(&stat.st_ino) {
                // The first name was written again, so this one must be a link to that.
                Some(group) if group.written => return Ok(Kept::No(before)),
                Some(group) if group.left > 1 => group.left -= 1,
                // The last name: nobody asks for the group any more.
                Some(_) => drop(self.groups.remove(&stat.st_ino)),
                // Its content is under a name that is gone.
                None if matches!(before.kind, Kind::Hardlink { .. }) => {
                    return Ok(Kept::No(before));
                }
                None => self.begin_group(place.path, &stat, false),
            }
        }
        let kept = Entry {
            stamp: self.pass.keep_stamps.then(|| inode::stamp(&stat)),
            ..before
        };
        self.list.push(&kept)?;
        Ok(Kept::Yes)
    }

    fn begin_group(&mut self, path: &[u8], stat: &Stat, written: bool) {
        self.groups.insert(
            stat.st_ino,
            Group {
                first: path.to_vec(),
                left: stat.st_nlink.saturating_sub(1),
                written,
            },
        );
    }

    /// Puts whatever stands here into the archive.
    fn take_leaf(&mut self, place: &Place<'_>) -> Result<Entry, TakeError> {
        if place.kind == FileType::RegularFile {
            let file =
                inode::open_file(place.parent, place.name).map_err(on("open", place.path))?;
            let stat = rustix::fs::fstat(&file)
                .map_err(|error| on("look at", place.path)(error.into()))?;
            return match inode::kind(&stat) {
                FileType::RegularFile => self.take_file(place, &file, &stat),
                _ => Err(TakeError::Vanished),
            };
        }
        // Nothing else is opened: opening a pipe or a device is an act upon it.
        let stat = rustix::fs::statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| on("look at", place.path)(error.into()))?;
        let device = || {
            (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            )
        };
        let kind = match inode::kind(&stat) {
            FileType::Symlink => Kind::Symlink {
                target: rustix::fs::readlinkat(place.parent, place.name, Vec::new())
                    .map_err(|error| on("read the link", place.path)(error.into()))?
                    .into_bytes(),
            },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => {
                let (major, minor) = device();
                Kind::Char { major, minor }
            }
            FileType::BlockDevice => {
                let (major, minor) = device();
                Kind::Block { major, minor }
            }
            FileType::RegularFile | FileType::Directory | FileType::Unknown => {
                return Err(TakeError::Vanished);
            }
        };
        let xattrs = inode::xattrs_at(place.parent, place.name)
            .map_err(on("read attributes of", place.path))?;
        let attributes = inode::attributes(&stat, xattrs);
        if let Some(link) = self.take_link(place.path, &attributes, &stat)? {
            return Ok(link);
        }
        let entry = self.entry(place.path, kind, attributes, &stat);
        self.out.write(&tar::header(&entry))?;
        Ok(entry)
    }

    /// Puts a further name of an inode into the archive as a link to its first; none if this is the first.
    fn take_link(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        stat: &Stat,
    ) -> Result<Option<Entry>, TakeError> {
        if !may_share(stat) {
            return Ok(None);
        }
        let Some(group) = self.groups.get_mut(&stat.st_ino) else {
            self.begin_group(path, stat, true);
            return Ok(None);
        };
        let to = group.first.clone();
        group.left = group.left.saturating_sub(1);
        if group.left == 0 {
            self.groups.remove(&stat.st_ino);
        }
        let entry = self.entry(path, Kind::Hardlink { to }, attributes.clone(), stat);
        self.out.write(&tar::header(&entry))?;
        Ok(Some(entry))
    }

    fn take_file(
        &mut self,
        place: &Place<'_>,
        file: &OwnedFd,
        stat: &Stat,
    ) -> Result<Entry, TakeError> {
        let xattrs =
            inode::xattrs_of(file.as_fd()).map_err(on("read attributes of", place.path))?;
        let attributes = inode::attributes(stat, xattrs);
        if let Some(link) = self.take_link(place.path, &attributes, stat)? {
            return Ok(link);
        }
        let clone = self.clone_of(file);
        let source = clone.as_ref().unwrap_or(file);
        let data = inode::data_runs(source.as_fd(), stat)
            .map_err(VolumeError::io("look for holes in", place.path))?;
        let mut entry = self.entry(
            place.path,
            Kind::File {
                size: inode::size(stat),
                sha256: Sha256Hash::of(b""),
                data: data.clone(),
            },
            attributes,
            stat,
        );
        self.out.write(&tar::header(&entry))?;
        let hash = self.copy_content(place.path, source, inode::size(stat), data.as_deref())?;
        if let Kind::File { sha256, .. } = &mut entry.kind {
            *sha256 = hash;
        }
        if !self.pass.hot {
            assert_same(place.path, file, stat)?;
        }
        Ok(entry)
    }

    /// A copy of the file that no writer can change, where the file systems can give one at no cost.
    fn clone_of(&self, file: &OwnedFd) -> Option<OwnedFd> {
        let dir = self.pass.clones_in?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let clone = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).ok()?;
        rustix::fs::ioctl_ficlone(&clone, file).ok()?;
        Some(clone)
    }

    /// Content into the archive, padded to a block; returns the hash of what the archive stores.
    fn copy_content(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        size: u64,
        data: Option<&[(u64, u64)]>,
    ) -> Result<Sha256Hash, VolumeError> {
        let mut hasher = Sha256::new();
        let mut stored = 0;
        if let Some(runs) = data {
            let map = tar::sparse_map(runs, size);
            hasher.update(&map);
            stored += map.len() as u64;
        }
        for &(start, len) in data.unwrap_or(&[(0, size)]) {
            self.copy_run(path, file, (start, len), &mut hasher)?;
            stored += len;
        }
        self.out.write_zeros(tar::padding(stored))?;
        Ok(hasher.into())
    }

    fn copy_run(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        (start, len): (u64, u64),
        hasher: &mut Sha256,
    ) -> Result<(), VolumeError> {
        let mut done = 0;
        while done < len {
            let most = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
            let (files, hot) = (&self.pass.files, self.pass.hot);
            let count = self.out.fill(most, |buf| {
                let count = files
                    .read_volume(file.as_fd(), start + done, buf)
                    .map_err(VolumeError::io("read", path))?;
                let count = match count {
                    // It became shorter: a running writer may do that; the header has promised the length.
                    0 if hot => {
                        buf.fill(0);
                        buf.len()
                    }
                    0 => return Err(VolumeError::changed(path)),
                    count => count,
                };
                hasher.update(&buf[..count]);
                Ok(count)
            })?;
            done += count as u64;
            self.pass.control.moved(count)?;
        }
        Ok(())
    }
}

/// Whether an inode may have further names that an archive knows as links. A link may be to anything but a folder;
/// sockets are not copied.
fn may_share(stat: &Stat) -> bool {
    let kind = inode::kind(stat);
    stat.st_nlink > 1 && kind != FileType::Directory && kind != FileType::Socket
}

/// Whether the inode under a name is what the earlier pass copied: everything that changes an inode changes its
/// ctime, and a ctime before the pass cannot come from a change after it.
fn is_unchanged(before: &Entry, stat: &Stat, began: Time) -> bool {
    let now = inode::stamp(stat);
    let same_type = match &before.kind {
        Kind::File { .. } => inode::kind(stat) == FileType::RegularFile,
        Kind::Hardlink { .. } => may_share(stat),
        Kind::Symlink { .. } => inode::kind(stat) == FileType::Symlink,
        Kind::Fifo => inode::kind(stat) == FileType::Fifo,
        Kind::Char { .. } => inode::kind(stat) == FileType::CharacterDevice,
        Kind::Block { .. } => inode::kind(stat) == FileType::BlockDevice,
        Kind::Socket => inode::kind(stat) == FileType::Socket,
        Kind::Dir => false,
    };
    same_type && before.stamp == Some(now) && settled(now.ctime) < nanos(began)
}

/// When a change can no longer have left an inode with this stamp. Whether a file system keeps fractions shows in the
/// stamp itself: one without any is of a second that may have gone on, or, one time in a thousand million, is exact.
fn settled(ctime: Time) -> i128 {
    let cut = if ctime.1 == 0 { SECOND_NANOS } else { 0 };
    nanos(ctime) + cut + RACY_MARGIN_NANOS
}

fn nanos(Time(seconds, nanoseconds): Time) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

/// Fails if the file changed while it was read.
fn assert_same(path: &[u8], file: &OwnedFd, before: &Stat) -> Result<(), VolumeError> {
    let after =
        rustix::fs::fstat(file).map_err(|error| VolumeError::io("look at", path)(error.into()))?;
    if inode::stamp(&after) == inode::stamp(before) && inode::mtime(&after) == inode::mtime(before)
    {
        Ok(())
    } else {
        Err(VolumeError::changed(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_whole_seconds_stands_for_all_of_its_second() {
        assert_eq!(settled(Time(7, 1)), 7_020_000_001);
        assert_eq!(settled(Time(7, 0)), 8_020_000_000);
    }

    #[test]
    fn times_before_1970_count_downwards() {
        assert_eq!(nanos(Time(1, 5)), 1_000_000_005);
        assert_eq!(nanos(Time(-1, 5)), -999_999_995);
    }
}
