//! Reads everything about one inode that a copy must keep, without changing it (not even its access time).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::entry::{Attributes, Stamp, Time, Xattr};

/// The kernel's own limit for a list of names and for a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MOST: usize = 64 << 10;
/// How often the attributes of an inode are read that change meanwhile.
const XATTR_TRIES: u32 = 16;
/// What fits nearly every list or value.
const XATTR_USUAL: usize = 512;

/// Attributes that the host's security module gives to every file: its policy has the last word on them.
const HOST_LABELS: [&[u8]; 4] = [
    b"security.selinux",
    b"security.SMACK64",
    b"security.ima",
    b"security.evm",
];

/// Whether an extended attribute belongs to the host's policy more than to the data.
pub(super) fn is_host_label(name: &[u8]) -> bool {
    HOST_LABELS.contains(&name)
}

/// Opens a regular file for reading. Never follows a symlink, never blocks on what turned into a pipe.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may ask for that.
        Err(Errno::PERM) => Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?),
        result => Ok(result?),
    }
}

/// Attributes of an inode, from its stat and its extended attributes.
pub(super) fn attributes(stat: &Stat, xattrs: Vec<Xattr>) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(stat),
        xattrs,
    }
}

/// Time of the last change of the content.
pub(super) fn mtime(stat: &Stat) -> Time {
    time(stat.st_mtime, stat.st_mtime_nsec)
}

/// What tells an unchanged inode from a changed one.
pub(super) fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        ino: stat.st_ino,
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        size: size(stat),
    }
}

/// Size in bytes.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The type.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time(seconds, u32::try_from(nanoseconds).unwrap_or(0))
}

/// Extended attributes of an open file or folder, sorted.
pub(super) fn xattrs_of(fd: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    collect(
        |buf| rustix::fs::flistxattr(fd, buf),
        |name, buf| rustix::fs::fgetxattr(fd, name, buf),
    )
}

/// Extended attributes of what cannot be opened (symlink, pipe, device, socket), sorted.
pub(super) fn xattrs_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<Xattr>> {
    let path = path_through(parent, name);
    collect(
        |buf| rustix::fs::llistxattr(path.as_slice(), buf),
        |name, buf| rustix::fs::lgetxattr(path.as_slice(), name, buf),
    )
}

/// A path that leads to a name in an open folder, for calls that take no descriptor; its last component is not
/// followed by the calls that begin with `l`.
pub(super) fn path_through(parent: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn collect(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<Xattr>> {
    let mut tries = 1;
    loop {
        match collect_once(&list, &get) {
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            // One went away between the names and its value.
            Err(Errno::NODATA) if tries < XATTR_TRIES => tries += 1,
            result => return Ok(result?),
        }
    }
}

fn collect_once(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Xattr>> {
    let names = read_growing(list)?;
    let mut xattrs = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let value = read_growing(|buf: &mut [u8]| get(name, buf))?;
        xattrs.push(Xattr {
            name: name.to_vec(),
            value,
        });
    }
    xattrs.sort();
    Ok(xattrs)
}

fn read_growing(
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut usual = [0; XATTR_USUAL];
    match read(&mut usual) {
        Ok(len) => Ok(usual[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut most = vec![0; XATTR_MOST];
            let len = read(&mut most)?;
            most.truncate(len);
            Ok(most)
        }
        Err(error) => Err(error),
    }
}

/// Most runs of data that are kept of a file; their line in the list then is far from the longest.
const RUNS_MOST: usize = 1 << 18;

/// Where the data of a file with holes lies; none if it has no holes. Where there are very many runs, those with the
/// smallest holes between them are one, and the holes are data.
pub(super) fn data_runs(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<Option<Vec<(u64, u64)>>> {
    let size = size(stat);
    let allocated = u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512);
    if allocated >= size {
        return Ok(None);
    }
    let mut runs = Runs::at_most(RUNS_MOST);
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // No data from here to the end.
            Err(Errno::NXIO) => break,
            // A file system that does not know holes has stored all of it.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(fd, SeekFrom::Hole(start))?.min(size);
        if end > start {
            runs.push(start, end);
        }
        at = end.max(start + 1);
    }
    let runs = runs.runs;
    let whole = runs.len() == 1 && runs[0] == (0, size);
    Ok((!whole).then_some(runs))
}

/// Runs of data in order, offset and length, of bounded number.
#[derive(Debug)]
struct Runs {
    most: usize,
    /// Holes up to this size are taken for data.
    hole: u64,
    runs: Vec<(u64, u64)>,
}

impl Runs {
    /// Smallest hole that is left out once there are too many: a block, the smallest that there is.
    const HOLE_LEAST: u64 = 4 << 10;

    fn at_most(most: usize) -> Self {
        Self {
            most,
            hole: 0,
            runs: Vec::new(),
        }
    }

    fn push(&mut self, start: u64, end: u64) {
        self.runs.push((start, end - start));
        let last = self.runs.len().saturating_sub(2);
        if self.hole > 0 {
            join_over(self.hole, &mut self.runs, last);
        }
        while self.runs.len() > self.most {
            self.hole = self.hole.saturating_mul(2).max(Self::HOLE_LEAST);
            join_over(self.hole, &mut self.runs, 0);
        }
    }
}

/// Makes one of each two runs, from a place on, that have at most such a hole between them.
fn join_over(hole: u64, runs: &mut Vec<(u64, u64)>, from: usize) {
    let mut kept = from;
    for next in from + 1..runs.len() {
        let ((start, len), (next_start, next_len)) = (runs[kept], runs[next]);
        if next_start.saturating_sub(start + len) <= hole {
            runs[kept].1 = next_start + next_len - start;
        } else {
            kept += 1;
            runs[kept] = runs[next];
        }
    }
    runs.truncate(kept + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(most: usize, given: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut runs = Runs::at_most(most);
        for (start, end) in given {
            runs.push(*start, *end);
        }
        runs.runs
    }

    #[test]
    fn an_attribute_that_goes_away_while_they_are_read_is_read_again() {
        let gone = std::cell::Cell::new(false);
        let give = |text: &[u8], buf: &mut [u8]| {
            buf[..text.len()].copy_from_slice(text);
            Ok(text.len())
        };
        let list = |buf: &mut [u8]| match gone.get() {
            false => give(b"user.a\0user.b\0", buf),
            true => give(b"user.a\0", buf),
        };
        let get = |name: &[u8], buf: &mut [u8]| {
            if name == b"user.b" {
                gone.set(true);
                return Err(Errno::NODATA);
            }
            give(b"1", buf)
        };
        let names: Vec<_> = collect(list, get)
            .unwrap()
            .into_iter()
            .map(|x| x.name)
            .collect();
        assert_eq!(names, [b"user.a"]);
        let never = collect(|buf| give(b"user.b\0", buf), |_, _| Err(Errno::NODATA));
        assert!(super::super::walk::has_vanished(&never.unwrap_err()));
    }

    #[test]
    fn few_runs_stay_as_they_are() {
        assert_eq!(runs(2, &[]), []);
        assert_eq!(runs(2, &[(0, 1), (9, 10)]), [(0, 1), (9, 1)]);
    }

    #[test]
    fn of_many_runs_those_with_the_smallest_holes_are_joined() {
        const K: u64 = 1 << 10;
        let given = [
            (0, 4 * K),
            (8 * K, 12 * K),
            (90 * K, 94 * K),
            (98 * K, 99 * K),
        ];
        assert_eq!(
            runs(3, &given[..3]),
            [(0, 4 * K), (8 * K, 4 * K), (90 * K, 4 * K)]
        );
        assert_eq!(runs(3, &given), [(0, 12 * K), (90 * K, 9 * K)]);
        assert_eq!(runs(1, &given), [(0, 99 * K)]);
    }

    #[test]
    fn any_number_of_runs_is_within_the_bound_and_covers_the_data() {
        let given: Vec<_> = (0..10_000)
            .map(|n| (n * 8192, n * 8192 + 4096 + n % 3))
            .collect();
        let kept = runs(100, &given);
        assert!(kept.len() <= 100, "{}", kept.len());
        let covered = |(start, end): &(u64, u64)| {
            kept.iter().any(|(at, len)| at <= start && *end <= at + len)
        };
        assert!(given.iter().all(covered));
        assert!(kept.windows(2).all(|two| two[0].0 + two[0].1 < two[1].0));
    }
}
