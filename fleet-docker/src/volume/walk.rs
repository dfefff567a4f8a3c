//! Walks a volume in the order of [`super::entry::walk_order`], and empties one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::error::VolumeError;
use super::folders::{FolderStack, Listing, open_folder};

/// A name that is not a folder, as the walk comes to it.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The folder that holds it.
    pub(super) parent: BorrowedFd<'a>,
    /// Its name there.
    pub(super) name: &'a [u8],
    /// Its path below the root.
    pub(super) path: &'a [u8],
    /// What the folder says it is.
    pub(super) kind: FileType,
}

/// What is done on the way.
pub(super) trait Visitor {
    /// The walk enters a folder (the root has an empty path).
    fn folder(
        &mut self,
        path: &[u8],
        folder: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(), VolumeError>;

    /// The walk stands at anything else.
    fn leaf(&mut self, place: &Place<'_>) -> Result<(), VolumeError>;

    /// Whether a name that vanishes under the walk is passed over.
    fn lets_go(&self) -> bool;
}

/// Walks everything below the root, the root first.
pub(super) fn walk(root: OwnedFd, visitor: &mut dyn Visitor) -> Result<(), VolumeError> {
    let stat = stat_of(root.as_fd(), b"")?;
    let device = stat.st_dev;
    visitor.folder(b"", root.as_fd(), &stat)?;
    let listing = Listing::read(root.as_fd()).map_err(VolumeError::io("list", &b""[..]))?;
    let mut stack = FolderStack::new(root);
    let mut levels = vec![(listing, 0)];
    let mut path = Vec::new();
    while let Some((listing, next)) = levels.last_mut() {
        let Some((name, kind)) = listing.get(*next) else {
            levels.pop();
            stack.leave()?;
            continue;
        };
        *next += 1;
        path.clear();
        path.extend_from_slice(stack.path());
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let Some(kind) = settle_kind(&stack, name, &path, kind, visitor)? else {
            continue;
        };
        if kind != FileType::Directory {
            visitor.leaf(&Place {
                parent: stack.fd(),
                name,
                path: &path,
                kind,
            })?;
            continue;
        }
        let folder = match open_folder(stack.fd(), name) {
            Ok(folder) => folder,
            Err(error) if visitor.lets_go() && has_vanished(&error) => continue,
            Err(error) if has_vanished(&error) => return Err(VolumeError::changed(&path)),
            Err(error) => return Err(VolumeError::io("open the folder", &path)(error)),
        };
        let stat = stat_of(folder.as_fd(), &path)?;
        if stat.st_dev != device {
            return Err(crosses(&path));
        }
        visitor.folder(&path, folder.as_fd(), &stat)?;
        let below = match Listing::read(folder.as_fd()) {
            // Removed since it was opened: it holds nothing any more.
            Err(error) if visitor.lets_go() && has_vanished(&error) => Listing::default(),
            Err(error) if has_vanished(&error) => return Err(VolumeError::changed(&path)),
            listing => listing.map_err(VolumeError::io("list", &path))?,
        };
        stack
            .enter(name, folder)
            .map_err(VolumeError::io("enter the folder", &path))?;
        levels.push((below, 0));
    }
    Ok(())
}

/// The type as the listing had it, or as the inode says where the file system does not list types; none if the
/// name is gone and that is fine.
fn settle_kind(
    stack: &FolderStack,
    name: &[u8],
    path: &[u8],
    listed: FileType,
    visitor: &dyn Visitor,
) -> Result<Option<FileType>, VolumeError> {
    if listed != FileType::Unknown {
        return Ok(Some(listed));
    }
    match rustix::fs::statat(stack.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) if visitor.lets_go() => Ok(None),
        Err(Errno::NOENT) => Err(VolumeError::changed(path)),
        Err(error) => Err(VolumeError::io("look at", path)(error.into())),
    }
}

/// Whether an error means that the name, or an attribute of it, is no longer what the listing said.
pub(super) fn has_vanished(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(
        code,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NODATA)
    )
}

fn stat_of(folder: BorrowedFd<'_>, path: &[u8]) -> Result<Stat, VolumeError> {
    rustix::fs::fstat(folder).map_err(|error| VolumeError::io("look at", path)(error.into()))
}

fn crosses(path: &[u8]) -> VolumeError {
    VolumeError::Unsupported(format!(
        "another file system is mounted at {} inside the volume; unmount it, or leave the volume out of snapshots",
        String::from_utf8_lossy(path)
    ))
}

/// Removes everything below the root; the root itself stays.
pub(super) fn empty(root: OwnedFd) -> Result<(), VolumeError> {
    let mut stack = FolderStack::new(root);
    let list = |stack: &FolderStack| {
        // A descriptor of its own, so that the listing begins at the first name.
        let again = open_folder(stack.fd(), b".")?;
        Listing::read(again.as_fd())
    };
    let first = list(&stack).map_err(VolumeError::io("list", stack.path()))?;
    let mut levels = vec![(first, 0)];
    while let Some((listing, next)) = levels.last_mut() {
        let Some((name, kind)) = listing.get(*next) else {
            levels.pop();
            if !levels.is_empty() {
                let path = stack.path().to_vec();
                stack.leave()?;
                let (_, name) = super::folders::split_path(&path);
                rustix::fs::unlinkat(stack.fd(), name, AtFlags::REMOVEDIR)
                    .map_err(|error| VolumeError::io("remove the folder", &path)(error.into()))?;
            }
            continue;
        };
        *next += 1;
        let shown = || match stack.path() {
            b"" => name.to_vec(),
            folder => [folder, name].join(&b'/'),
        };
        let kind = match kind {
            FileType::Unknown => {
                let stat = rustix::fs::statat(stack.fd(), name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| VolumeError::io("look at", &shown())(error.into()))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        if kind != FileType::Directory {
            rustix::fs::unlinkat(stack.fd(), name, AtFlags::empty())
                .map_err(|error| VolumeError::io("remove", &shown())(error.into()))?;
            continue;
        }
        let folder =
            open_folder(stack.fd(), name).map_err(VolumeError::io("open the folder", &shown()))?;
        let path = shown();
        stack
            .enter(name, folder)
            .map_err(VolumeError::io("enter the folder", &path))?;
        let below = list(&stack).map_err(VolumeError::io("list", &path))?;
        levels.push((below, 0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::folders::open_root;
    use super::*;

    /// Removes each folder but the root between its opening and its listing.
    struct Remover<'a> {
        root: &'a std::path::Path,
        lets_go: bool,
        seen: Vec<String>,
    }

    impl Visitor for Remover<'_> {
        fn folder(&mut self, path: &[u8], _: BorrowedFd<'_>, _: &Stat) -> Result<(), VolumeError> {
            let path = String::from_utf8(path.to_vec()).unwrap();
            if !path.is_empty() {
                std::fs::remove_dir(self.root.join(&path)).unwrap();
            }
            self.seen.push(path);
            Ok(())
        }

        fn leaf(&mut self, place: &Place<'_>) -> Result<(), VolumeError> {
            let path = String::from_utf8(place.path.to_vec()).unwrap();
            self.seen.push(path);
            Ok(())
        }

        fn lets_go(&self) -> bool {
            self.lets_go
        }
    }

    fn walk_and_remove(lets_go: bool) -> Result<Vec<String>, VolumeError> {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("c"), "").unwrap();
        let mut remover = Remover {
            root: dir.path(),
            lets_go,
            seen: Vec::new(),
        };
        walk(open_root(dir.path()).unwrap(), &mut remover)?;
        Ok(remover.seen)
    }

    #[test]
    fn a_folder_that_goes_away_once_it_is_open_is_empty_to_who_lets_go() {
        assert_eq!(walk_and_remove(true).unwrap(), ["", "a", "b", "c"]);
        let error = walk_and_remove(false).unwrap_err();
        assert!(matches!(error, VolumeError::Changed { .. }), "{error}");
    }
}
