//! Looks at a volume before any copy: how large, and on what kind of file system.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Stat};

use super::error::VolumeError;
use super::folders::open_root;
use super::inode;
use super::walk::{Place, Visitor, walk};

/// Most bytes that an entry takes in archive and list besides its content: headers with long names, and its line.
const ENTRY_BYTES: u64 = 3 << 10;

const EXT: u64 = 0xEF53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683E;
const F2FS: u64 = 0xF2F5_2010;

/// What a file system is known to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// Device number, the same for all of a file system.
    pub(super) device: u64,
    /// Whether every change of a file, also through a mapping, changes its ctime (after a sync of the file system).
    /// False for those not known to.
    pub(super) stamps_every_change: bool,
    /// Whether it may clone files.
    pub(super) clones: bool,
    /// Whether content takes no less room than its length, and emptying frees what is stored: no compression.
    pub(super) counts_plainly: bool,
}

impl FileSystem {
    /// That of an open folder.
    pub(super) fn of(root: &OwnedFd, path: &Path) -> Result<Self, VolumeError> {
        let failed = |error: rustix::io::Errno| VolumeError::io("look at", path)(error.into());
        let device = rustix::fs::fstat(root).map_err(failed)?.st_dev;
        // The field is signed on some machines; the numbers are 32 bits on all.
        let magic = rustix::fs::fstatfs(root).map_err(failed)?.f_type as u64 & 0xFFFF_FFFF;
        Ok(Self {
            device,
            stamps_every_change: matches!(magic, EXT | XFS | BTRFS | F2FS),
            clones: matches!(magic, XFS | BTRFS),
            counts_plainly: matches!(magic, EXT | XFS),
        })
    }
}

/// How large a volume is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes stored, holes not counted.
    pub(super) bytes: u64,
    /// Names.
    pub(super) entries: u64,
}

impl Size {
    /// Bytes that an archive with its list may take at most: content that cannot be compressed grows a little.
    pub(super) fn archive_most(&self) -> u64 {
        self.bytes
            .saturating_add(self.bytes >> 8)
            .saturating_add(self.entries.saturating_mul(ENTRY_BYTES))
    }
}

/// Walks a volume and adds up.
pub(super) fn measure(path: &Path) -> Result<(FileSystem, Size), VolumeError> {
    let root = open_root(path)?;
    let fs = FileSystem::of(&root, path)?;
    let mut size = Size::default();
    walk(root, &mut size)?;
    Ok((fs, size))
}

impl Visitor for Size {
    fn folder(&mut self, _: &[u8], _: BorrowedFd<'_>, _: &Stat) -> Result<(), VolumeError> {
        self.entries += 1;
        Ok(())
    }

    fn leaf(&mut self, place: &Place<'_>) -> Result<(), VolumeError> {
        self.entries += 1;
        let stat = rustix::fs::statat(place.parent.as_fd(), place.name, AtFlags::SYMLINK_NOFOLLOW);
        // What vanishes needs no room; a writer may be running.
        if let Ok(stat) = stat {
            let stored = u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512);
            self.bytes = self.bytes.saturating_add(stored.min(inode::size(&stat)));
        }
        Ok(())
    }

    fn lets_go(&self) -> bool {
        true
    }
}
