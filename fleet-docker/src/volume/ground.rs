//! Looks before a volume is emptied: everything in it must go, and what comes must fit. Nothing is touched unless both hold
//! for every volume of the restore.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, IFlags, Stat, Statx, StatxAttributes, StatxFlags};

use super::error::VolumeError;
use super::folders::open_root;
use super::inode;
use super::measure::FileSystem;
use super::walk::{Place, Visitor, walk};

/// Flags that keep even root from removing a name (`chattr +i`, `+a`).
const LOCKS: StatxAttributes = StatxAttributes::IMMUTABLE.union(StatxAttributes::APPEND);

/// What stands where volumes are put back, and what will.
#[derive(Debug, Default)]
pub(super) struct Ground {
    /// By device.
    rooms: HashMap<u64, Room>,
    /// Roots of volumes that hold something locked.
    locked: Vec<OwnedFd>,
}

/// The room on one file system, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    /// That the content will take at least.
    needed: u64,
    /// That are free, whoever may use them.
    free: u64,
    /// That emptying frees at most.
    held: u64,
}

impl Ground {
    /// Looks at a volume that will hold so many bytes of content.
    pub(super) fn look_at(&mut self, mountpoint: &Path, needed: u64) -> Result<(), VolumeError> {
        let root = open_root(mountpoint)?;
        let fs = FileSystem::of(&root, mountpoint)?;
        let mut survey = Survey::default();
        walk(reopen(&root, mountpoint)?, &mut survey)?;
        if fs.counts_plainly {
            let stat = rustix::fs::fstatvfs(&root).map_err(|error| {
                VolumeError::io("ask the free space of", mountpoint)(error.into())
            })?;
            let room = self.rooms.entry(fs.device).or_default();
            room.free = stat.f_bfree.saturating_mul(stat.f_frsize);
            room.held = room.held.saturating_add(survey.held);
            room.needed = room.needed.saturating_add(needed);
        }
        if survey.locked {
            self.locked.push(root);
        }
        Ok(())
    }

    /// Fails if what comes cannot fit; else takes the locks off.
    pub(super) fn clear(self) -> Result<(), VolumeError> {
        for room in self.rooms.into_values() {
            let Room { needed, free, held } = room;
            if needed > free.saturating_add(held) {
                return Err(VolumeError::NoRoom { needed, free, held });
            }
        }
        for root in self.locked {
            walk(root, &mut Unlock)?;
        }
        Ok(())
    }
}

fn reopen(root: &OwnedFd, mountpoint: &Path) -> Result<OwnedFd, VolumeError> {
    super::folders::open_folder(root.as_fd(), b".")
        .map_err(VolumeError::io("open the volume at", mountpoint))
}

/// Adds up what emptying frees, and finds out whether anything is locked.
#[derive(Debug, Default)]
struct Survey {
    held: u64,
    locked: bool,
}

impl Visitor for Survey {
    fn folder(&mut self, path: &[u8], folder: BorrowedFd<'_>, _: &Stat) -> Result<(), VolumeError> {
        let seen = look(folder, b"", AtFlags::EMPTY_PATH);
        let seen = seen.map_err(VolumeError::io("look at", path))?;
        self.locked |= seen.is_some_and(|seen| is_locked(&seen));
        Ok(())
    }

    fn leaf(&mut self, place: &Place<'_>) -> Result<(), VolumeError> {
        let seen = look(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW);
        match seen.map_err(VolumeError::io("look at", place.path))? {
            Some(seen) => {
                let stored = seen.stx_blocks.saturating_mul(512);
                // Each name of a file counts for its part of it.
                let names = u64::from(seen.stx_nlink.max(1));
                self.held = self.held.saturating_add(stored.div_ceil(names));
                self.locked |= is_locked(&seen);
            }
            None => self.held = u64::MAX,
        }
        Ok(())
    }

    fn lets_go(&self) -> bool {
        false
    }
}

/// None from an old kernel: there a lock or a full disk shows when it is met.
fn look(at: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<Option<Statx>> {
    let mask = StatxFlags::NLINK | StatxFlags::BLOCKS;
    match rustix::fs::statx(at, name, flags, mask) {
        Err(rustix::io::Errno::NOSYS) => Ok(None),
        seen => Ok(Some(seen?)),
    }
}

fn is_locked(seen: &Statx) -> bool {
    seen.stx_attributes.intersects(LOCKS)
}

/// Takes off what keeps names from being removed.
#[derive(Debug)]
struct Unlock;

impl Visitor for Unlock {
    fn folder(&mut self, path: &[u8], folder: BorrowedFd<'_>, _: &Stat) -> Result<(), VolumeError> {
        let unlocked = match look(folder, b"", AtFlags::EMPTY_PATH) {
            Ok(Some(seen)) if is_locked(&seen) => unlock(folder),
            looked => looked.map(drop),
        };
        unlocked.map_err(VolumeError::io("take the lock off", path))
    }

    fn leaf(&mut self, place: &Place<'_>) -> Result<(), VolumeError> {
        // Nothing else that is no folder can be locked by itself.
        if place.kind != FileType::RegularFile {
            return Ok(());
        }
        let unlocked = match look(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(Some(seen)) if is_locked(&seen) => {
                inode::open_file(place.parent, place.name).and_then(|file| unlock(file.as_fd()))
            }
            looked => looked.map(drop),
        };
        unlocked.map_err(VolumeError::io("take the lock off", place.path))
    }

    fn lets_go(&self) -> bool {
        false
    }
}

fn unlock(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::ioctl_getflags(fd)?;
    let without = flags - IFlags::IMMUTABLE - IFlags::APPEND;
    Ok(rustix::fs::ioctl_setflags(fd, without)?)
}
