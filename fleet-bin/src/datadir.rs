//! The data directory: made private, and locked by one fleet at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// A data directory that exists and is ours alone to read.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// Held while a command changes things. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DataLock {
    _file: File,
}

impl DataDir {
    /// Where it is when nobody says: `/var/lib/fleet` for root, else the XDG state folder.
    pub(crate) fn default_path() -> Option<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Some(PathBuf::from("/var/lib/fleet"));
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| state.join("fleet"))
    }

    /// Opens it, and makes it with mode 0700 where it is missing.
    ///
    /// # Errors
    /// It cannot be made or read, or others may write to it.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .or_exit(
                Exit::Usage,
                format!("the data directory {shown} cannot be made"),
            )?;
        let path = fs::canonicalize(path).or_exit(
            Exit::Usage,
            format!("the data directory {shown} cannot be found"),
        )?;
        fs::read_dir(&path).or_exit(
            Exit::Usage,
            format!("the data directory {shown} cannot be read"),
        )?;
        let mode = fs::metadata(&path)
            .or_exit(
                Exit::Usage,
                format!("the data directory {shown} cannot be read"),
            )?
            .mode();
        if mode & 0o022 != 0 {
            let message = format!(
                "the data directory {shown} may be written by others (mode {:o}); expected 700: chmod 700 {shown}",
                mode & 0o7777
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(Self { path })
    }

    /// Where it is, absolute and without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// Another fleet has it: refused for now, with the process that has it.
    pub(crate) fn lock(&self) -> Outcome<DataLock> {
        let path = self.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .or_exit(Exit::Usage, format!("{} cannot be opened", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                note_holder(&mut file).or_exit(Exit::Failed, "the lock file cannot be written")?;
                Ok(DataLock { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(Failure::new(Exit::NotNow, self.held(&mut file))),
            Err(TryLockError::Error(error)) => {
                Err(error).or_exit(Exit::Failed, "the data directory cannot be locked")
            }
        }
    }

    fn held(&self, file: &mut File) -> String {
        let mut holder = String::new();
        // Only for the message: what cannot be read is left out.
        let _ = file.take(32).read_to_string(&mut holder);
        let by = match holder.trim() {
            "" => String::new(),
            pid => format!(" (process {pid})"),
        };
        format!(
            "another fleet{by} is working on {}: try again when it has ended",
            self.path.display()
        )
    }
}

fn note_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_private_and_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let held = dir.lock().unwrap();
        let refused = dir.lock().unwrap_err();
        assert_eq!(refused.exit, Exit::NotNow);
        assert!(
            refused.chain().contains(&std::process::id().to_string()),
            "{}",
            refused.chain()
        );
        drop(held);
        dir.lock().unwrap();
    }

    #[test]
    fn one_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.chain().contains("chmod 700"), "{}", refused.chain());
    }
}
