//! Compares a volume with the list of a snapshot: every name, all metadata, all content, nothing more and nothing
//! less. Sockets count on neither side.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, SeekFrom, Stat};
use sha2::{Digest, Sha256};

use super::control::Control;
use super::entry::{Attributes, Entry, Kind, Xattr};
use super::error::VolumeError;
use super::files::Files;
use super::hash::Sha256Hash;
use super::inode;
use super::list::ListReader;
use super::stream_out::Sealed;
use super::tar;
use super::walk::{Place, Visitor, walk};

/// Bytes of a file read at once.
const READ: usize = 1 << 20;
/// Files waiting to be hashed; also bounds the descriptors that are open.
const QUEUE: usize = 32;

/// Where a volume is not what the list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) path: Vec<u8>,
    pub(super) what: String,
}

impl Difference {
    /// A difference as the failure of a restore.
    pub(super) fn into_error(self) -> VolumeError {
        VolumeError::Differs {
            path: if self.path.is_empty() {
                "the root of the volume".to_owned()
            } else {
                String::from_utf8_lossy(&self.path).into_owned()
            },
            difference: self.what,
        }
    }
}

/// The first difference found, none if there is none; and what was read of the list, if it was read to its end.
pub(super) fn compare(
    files: &Arc<dyn Files>,
    root: OwnedFd,
    list: ListReader,
    workers: usize,
    control: &Control,
) -> Result<(Option<Difference>, Option<Sealed>), VolumeError> {
    let outcome = Mutex::new(Ok(()));
    let (jobs, queue) = sync_channel(QUEUE);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| hash_jobs(files, &queue, &outcome, control));
        }
        let mut comparison = Comparison {
            list,
            jobs,
            outcome: &outcome,
            control,
            firsts: HashMap::new(),
            first_of: HashMap::new(),
        };
        let walked = walk(root, &mut comparison)
            .map_err(Stop::Failed)
            .and_then(|()| comparison.nothing_left());
        let Comparison { list, .. } = comparison;
        match walked {
            Ok(()) => Ok(Some(list)),
            Err(stop) => {
                note(&outcome, stop);
                Ok(None)
            }
        }
    })
    .and_then(|list| {
        let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => Ok((None, list.map(ListReader::finish).transpose()?)),
            Err(Stop::Differs(difference)) => Ok((Some(difference), None)),
            Err(Stop::Failed(error)) => Err(error),
        }
    })
}

/// Why a comparison ends early.
enum Stop {
    Differs(Difference),
    Failed(VolumeError),
}

type Outcome = Mutex<Result<(), Stop>>;

/// Keeps the first reason.
fn note(outcome: &Outcome, stop: Stop) {
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    if outcome.is_ok() {
        *outcome = Err(stop);
    }
}

fn stopped(outcome: &Outcome) -> bool {
    outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_err()
}

struct Comparison<'a> {
    list: ListReader,
    jobs: SyncSender<(OwnedFd, Entry)>,
    outcome: &'a Outcome,
    control: &'a Control,
    /// Inodes of files with several names, by the path that the list has first.
    firsts: HashMap<Vec<u8>, u64>,
    /// The same the other way round: two files of the list must not share an inode.
    first_of: HashMap<u64, Vec<u8>>,
}

impl Visitor for Comparison<'_> {
    fn folder(
        &mut self,
        path: &[u8],
        folder: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(), VolumeError> {
        let Some(expected) = self.expected(path, "a folder")? else {
            return self.end();
        };
        let xattrs =
            inode::xattrs_of(folder).map_err(VolumeError::io("read attributes of", path))?;
        self.same_kind(&expected, &Kind::Dir);
        self.same_attributes(&expected, &inode::attributes(stat, xattrs));
        self.end()
    }

    fn leaf(&mut self, place: &Place<'_>) -> Result<(), VolumeError> {
        self.control.check()?;
        if place.kind == FileType::Socket {
            return Ok(());
        }
        let Some(expected) = self.expected(place.path, "an entry")? else {
            return self.end();
        };
        if place.kind == FileType::RegularFile {
            self.file(place, expected)?;
        } else {
            self.other(place, &expected)?;
        }
        self.end()
    }

    fn lets_go(&self) -> bool {
        false
    }
}

impl Comparison<'_> {
    /// Ends the walk once a difference is known; the error never leaves [`compare`].
    fn end(&self) -> Result<(), VolumeError> {
        if stopped(self.outcome) {
            Err(VolumeError::Cancelled)
        } else {
            Ok(())
        }
    }

    fn differs(&self, path: &[u8], what: impl Into<String>) {
        note(
            self.outcome,
            Stop::Differs(Difference {
                path: path.to_vec(),
                what: what.into(),
            }),
        );
    }

    /// What the list has next, if that is this path.
    fn expected(&mut self, path: &[u8], what: &str) -> Result<Option<Entry>, VolumeError> {
        let next = self.next()?;
        match next {
            Some(entry) if entry.path == path => Ok(Some(entry)),
            Some(entry) if super::entry::walk_order(&entry.path, path).is_lt() => {
                self.differs(&entry.path, format!("{} is missing", entry.kind.noun()));
                Ok(None)
            }
            _ => {
                self.differs(path, format!("{what} that the snapshot does not have"));
                Ok(None)
            }
        }
    }

    fn next(&mut self) -> Result<Option<Entry>, VolumeError> {
        loop {
            match self.list.pop_live()? {
                Some(entry) if entry.kind == Kind::Socket => {}
                next => return Ok(next),
            }
        }
    }

    fn nothing_left(&mut self) -> Result<(), Stop> {
        match self.next().map_err(Stop::Failed)? {
            None => Ok(()),
            Some(entry) => Err(Stop::Differs(Difference {
                what: format!("{} is missing", entry.kind.noun()),
                path: entry.path,
            })),
        }
    }

    fn same_kind(&self, expected: &Entry, found: &Kind) {
        if expected.kind != *found {
            let what = match (&expected.kind, found) {
                (a, b) if a.noun() == b.noun() => format!("{} with another target", a.noun()),
                (a, b) => format!("{} instead of {}", b.noun(), a.noun()),
            };
            self.differs(&expected.path, what);
        }
    }

    fn same_attributes(&self, expected: &Entry, found: &Attributes) {
        let want = &expected.attributes;
        let what = if want.mode != found.mode {
            format!("mode {:04o} instead of {:04o}", found.mode, want.mode)
        } else if (want.uid, want.gid) != (found.uid, found.gid) {
            let (uid, gid) = (found.uid, found.gid);
            format!("owner {uid}:{gid} instead of {}:{}", want.uid, want.gid)
        } else if want.mtime != found.mtime {
            format!("time {:?} instead of {:?}", found.mtime, want.mtime)
        } else if !same_xattrs(&want.xattrs, &found.xattrs) {
            "other extended attributes".to_owned()
        } else {
            return;
        };
        self.differs(&expected.path, what);
    }

    fn file(&mut self, place: &Place<'_>, expected: Entry) -> Result<(), VolumeError> {
        let path = place.path;
        let file =
            inode::open_file(place.parent, place.name).map_err(VolumeError::io("open", path))?;
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| VolumeError::io("look at", path)(error.into()))?;
        let xattrs =
            inode::xattrs_of(file.as_fd()).map_err(VolumeError::io("read attributes of", path))?;
        self.same_attributes(&expected, &inode::attributes(&stat, xattrs));
        match &expected.kind {
            Kind::Hardlink { to } => self.same_inode(path, to, &stat),
            Kind::File { size, .. } if *size != inode::size(&stat) => {
                self.differs(path, format!("{} bytes instead of {size}", stat.st_size));
            }
            Kind::File { .. } => {
                self.first_name(path, &stat);
                // The queue is closed only after a difference, which ends the walk.
                let _ = self.jobs.send((file, expected));
            }
            other => {
                let what = format!("a file instead of {}", other.noun());
                self.differs(path, what);
            }
        }
        Ok(())
    }

    /// Notes the first name of an inode that has more.
    fn first_name(&mut self, path: &[u8], stat: &Stat) {
        if stat.st_nlink > 1 {
            self.firsts.insert(path.to_vec(), stat.st_ino);
            if self.first_of.insert(stat.st_ino, path.to_vec()).is_some() {
                self.differs(path, "a hard link instead of an inode of its own");
            }
        }
    }

    fn same_inode(&self, path: &[u8], to: &[u8], stat: &Stat) {
        if self.firsts.get(to) != Some(&stat.st_ino) {
            self.differs(path, "no hard link to what it should share");
        }
    }

    fn other(&mut self, place: &Place<'_>, expected: &Entry) -> Result<(), VolumeError> {
        let path = place.path;
        let stat = rustix::fs::statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| VolumeError::io("look at", path)(error.into()))?;
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        let found = match inode::kind(&stat) {
            FileType::Symlink => Kind::Symlink {
                target: rustix::fs::readlinkat(place.parent, place.name, Vec::new())
                    .map_err(|error| VolumeError::io("read the link", path)(error.into()))?
                    .into_bytes(),
            },
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Char { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            _ => return Err(VolumeError::changed(path)),
        };
        let xattrs = inode::xattrs_at(place.parent, place.name)
            .map_err(VolumeError::io("read attributes of", path))?;
        if let Kind::Hardlink { to } = &expected.kind {
            self.same_inode(path, to, &stat);
        } else {
            self.first_name(path, &stat);
            self.same_kind(expected, &found);
        }
        self.same_attributes(expected, &inode::attributes(&stat, xattrs));
        Ok(())
    }
}

/// Whether the extended attributes are the same, but for labels of the host's policy.
fn same_xattrs(a: &[Xattr], b: &[Xattr]) -> bool {
    let of_the_data = |xattr: &&Xattr| !inode::is_host_label(&xattr.name);
    a.iter()
        .filter(of_the_data)
        .eq(b.iter().filter(of_the_data))
}

fn hash_jobs(
    files: &Arc<dyn Files>,
    queue: &Mutex<Receiver<(OwnedFd, Entry)>>,
    outcome: &Outcome,
    control: &Control,
) {
    let mut buf = vec![0; READ];
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((file, entry)) = job else { return };
        // Jobs are taken to the last, so that the walk never waits for a full queue.
        if stopped(outcome) {
            continue;
        }
        match same_content(files, &file, &entry, &mut buf, control) {
            Ok(true) => {}
            Ok(false) => note(
                outcome,
                Stop::Differs(Difference {
                    path: entry.path,
                    what: "other content".to_owned(),
                }),
            ),
            Err(error) => note(outcome, Stop::Failed(error)),
        }
    }
}

fn same_content(
    files: &Arc<dyn Files>,
    file: &OwnedFd,
    entry: &Entry,
    buf: &mut [u8],
    control: &Control,
) -> Result<bool, VolumeError> {
    let Kind::File { size, sha256, data } = &entry.kind else {
        return Ok(true);
    };
    let mut hasher = Sha256::new();
    if let Some(runs) = data {
        hasher.update(tar::sparse_map(runs, *size));
    }
    let whole = [(0, *size)];
    let runs = data.as_deref().unwrap_or(&whole);
    for &(start, len) in runs {
        let read = read_run(files, file, entry, (start, len), buf, &mut |bytes| {
            hasher.update(bytes);
            control.moved(bytes.len())
        })?;
        if !read {
            return Ok(false);
        }
    }
    if Sha256Hash::from(hasher) != *sha256 {
        return Ok(false);
    }
    match data {
        None => Ok(true),
        Some(runs) => holes_are_zero(files, file, entry, runs, buf),
    }
}

/// Reads one run to its end; false if the file ends before.
fn read_run(
    files: &Arc<dyn Files>,
    file: &OwnedFd,
    entry: &Entry,
    (start, len): (u64, u64),
    buf: &mut [u8],
    take: &mut dyn FnMut(&[u8]) -> Result<(), VolumeError>,
) -> Result<bool, VolumeError> {
    let mut done = 0;
    while done < len {
        let most = usize::try_from(len - done)
            .unwrap_or(buf.len())
            .min(buf.len());
        let count = files
            .read_volume(file.as_fd(), start + done, &mut buf[..most])
            .map_err(VolumeError::io("read", &entry.path))?;
        if count == 0 {
            return Ok(false);
        }
        take(&buf[..count])?;
        done += count as u64;
    }
    Ok(true)
}

/// Whether everything between the runs reads as zeros. Only what the file system stores is read.
fn holes_are_zero(
    files: &Arc<dyn Files>,
    file: &OwnedFd,
    entry: &Entry,
    runs: &[(u64, u64)],
    buf: &mut [u8],
) -> Result<bool, VolumeError> {
    let Kind::File { size, .. } = entry.kind else {
        return Ok(true);
    };
    let ends = runs.iter().map(|(start, len)| start + len);
    let hole_starts = std::iter::once(0).chain(ends);
    let hole_ends = runs.iter().map(|(start, _)| *start).chain([size]);
    for (mut at, end) in hole_starts.zip(hole_ends) {
        while at < end {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => break,
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => at,
                Err(error) => {
                    return Err(VolumeError::io("look for holes in", &entry.path)(
                        error.into(),
                    ));
                }
            };
            if data >= end {
                break;
            }
            let stored = rustix::fs::seek(file, SeekFrom::Hole(data))
                .unwrap_or(end)
                .min(end);
            let mut zero = true;
            read_run(
                files,
                file,
                entry,
                (data, stored - data),
                buf,
                &mut |bytes| {
                    zero &= bytes.iter().all(|byte| *byte == 0);
                    Ok(())
                },
            )?;
            if !zero {
                return Ok(false);
            }
            at = stored;
        }
    }
    Ok(true)
}
