//! The file port: every write of the store, and every read or write of volume content, passes here, so that tests
//! can make any of them fail.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, XattrFlags};

/// Mode of every folder of the store.
const DIR_MODE: u32 = 0o700;
/// Mode of every file of the store.
const FILE_MODE: u32 = 0o600;

/// Where the store writes, and how volume content is read and written.
pub trait Files: Send + Sync + fmt::Debug {
    /// Makes a folder that only its owner can enter. One that is there is fine.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes a new file that only its owner can read.
    ///
    /// # Errors
    /// As the system says; one that is there is an error.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoreFile>>;

    /// Renames a folder or file.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the entries of a folder durable.
    ///
    /// # Errors
    /// As the system says. The same folder must not be trusted afterwards.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that an unprivileged program could still write below this folder.
    ///
    /// # Errors
    /// As the system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Reads content of a volume's file at an offset. 0 is the end.
    ///
    /// # Errors
    /// As the system says.
    fn read_volume(&self, file: BorrowedFd<'_>, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes content to a volume's file at an offset, at least one byte.
    ///
    /// # Errors
    /// As the system says.
    fn write_volume(&self, file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> io::Result<usize>;

    /// Sets an extended attribute of a volume's file or folder.
    ///
    /// # Errors
    /// As the system says.
    fn set_xattr(&self, file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::fsetxattr(
            file,
            name,
            value,
            XattrFlags::empty(),
        )?)
    }

    /// Removes an extended attribute of a volume's file or folder.
    ///
    /// # Errors
    /// As the system says.
    fn remove_xattr(&self, file: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::fremovexattr(file, name)?)
    }
}

/// A file that is being written to the store.
pub trait StoreFile: Send + Sync + fmt::Debug {
    /// Writes all of `data` at an offset.
    ///
    /// # Errors
    /// As the system says.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// As the system says. After a failure the content is lost for good, and the file must be thrown away: a second
    /// sync may succeed without having written anything.
    fn sync(&self) -> io::Result<()>;

    /// Reads what was synced, from the disk where the system can be made to forget its own copy.
    ///
    /// # Errors
    /// As the system says.
    fn read_back(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

/// The file system itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

impl Files for OsFiles {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(DIR_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoreFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn read_volume(&self, file: BorrowedFd<'_>, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::io::pread(file, &mut *buf, offset)
        })?)
    }

    fn write_volume(&self, file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::io::pwrite(file, data, offset)
        })?)
    }
}

#[derive(Debug)]
struct OsFile(File);

impl StoreFile for OsFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn read_back(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let len = NonZeroU64::new(buf.len() as u64);
        // Advice only: where it is not taken, the system's own copy is read.
        let _ = rustix::fs::fadvise(&self.0, offset, len, Advice::DontNeed);
        self.0.read_at(buf, offset)
    }
}
