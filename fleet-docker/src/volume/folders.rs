//! Opens folders below a root by descriptor only, never through a symlink, with a bounded number of descriptors
//! however deep the tree is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawDir};

use super::error::VolumeError;

/// Folders above the current one that stay open. Deeper trees have the far ones closed, and opened again through
/// `..` on the way back.
const KEEP_OPEN: usize = 64;

/// Bytes of one `getdents` call.
const DENTS: usize = 64 << 10;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the root of a volume.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, VolumeError> {
    rustix::fs::open(path, FOLDER, Mode::empty())
        .map_err(io::Error::from)
        .map_err(VolumeError::io("open the volume at", path))
}

/// Opens a folder by its name in another one; a symlink is refused.
pub(super) fn open_folder(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, FOLDER, Mode::empty())?)
}

/// The way from the root to a folder, with the descriptors that are open on it.
#[derive(Debug)]
pub(super) struct FolderStack {
    root: OwnedFd,
    /// Path of the innermost folder.
    path: Vec<u8>,
    below: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    /// Open, or closed because the tree is deep.
    fd: Option<OwnedFd>,
    /// Length of the path up to here.
    path_len: usize,
    /// Device and inode, to know it again.
    id: (u64, u64),
}

impl FolderStack {
    /// Stands at the root.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            path: Vec::new(),
            below: Vec::new(),
        }
    }

    /// Path of the innermost folder, empty at the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Descriptor of the innermost folder.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.below
            .last()
            .and_then(|step| step.fd.as_ref())
            .unwrap_or(&self.root)
            .as_fd()
    }

    /// Enters a folder of the innermost one, which the caller has opened.
    pub(super) fn enter(&mut self, name: &[u8], fd: OwnedFd) -> io::Result<()> {
        let id = identity(fd.as_fd())?;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.below.push(Step {
            fd: Some(fd),
            path_len: self.path.len(),
            id,
        });
        if self.below.len() > KEEP_OPEN {
            let far = self.below.len() - 1 - KEEP_OPEN;
            self.below[far].fd = None;
        }
        Ok(())
    }

    /// Goes back to the parent.
    pub(super) fn leave(&mut self) -> Result<(), VolumeError> {
        let Some(left) = self.below.pop() else {
            return Ok(());
        };
        let left_path = std::mem::take(&mut self.path);
        let parent_len = self.below.last().map_or(0, |step| step.path_len);
        self.path.extend_from_slice(&left_path[..parent_len]);
        let (Some(parent), Some(child)) = (self.below.last_mut(), left.fd) else {
            return Ok(());
        };
        if parent.fd.is_none() {
            let fd = open_folder(child.as_fd(), b"..")
                .map_err(VolumeError::io("open the folder above", &left_path))?;
            let id = identity(fd.as_fd())
                .map_err(VolumeError::io("look at the folder above", &left_path))?;
            if id != parent.id {
                return Err(VolumeError::changed(&self.path));
            }
            parent.fd = Some(fd);
        }
        Ok(())
    }

    /// Goes to the folder with this path, the shortest way, entering each folder by its name.
    pub(super) fn go_to(&mut self, path: &[u8]) -> Result<(), VolumeError> {
        while !is_at_or_below(path, &self.path) {
            self.leave()?;
        }
        loop {
            let rest = if self.path.is_empty() {
                path
            } else {
                path[self.path.len()..]
                    .strip_prefix(b"/")
                    .unwrap_or_default()
            };
            if rest.is_empty() {
                return Ok(());
            }
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
            let fd =
                open_folder(self.fd(), name).map_err(VolumeError::io("open the folder", path))?;
            self.enter(name, fd)
                .map_err(VolumeError::io("enter the folder", path))?;
        }
    }

    /// Goes to the folder that holds this path; returns the last component.
    pub(super) fn go_to_parent<'p>(&mut self, path: &'p [u8]) -> Result<&'p [u8], VolumeError> {
        let (parent, name) = split_path(path);
        self.go_to(parent)?;
        Ok(name)
    }
}

/// Parent and last component.
pub(super) fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Whether `path` is `folder` or lies below it.
pub(super) fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The names in a folder, sorted byte by byte, in one block of memory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    start: usize,
    len: usize,
    kind: FileType,
}

impl Listing {
    /// Reads a folder that was just opened.
    pub(super) fn read(folder: BorrowedFd<'_>) -> io::Result<Self> {
        let mut listing = Self::default();
        let mut buf = Vec::with_capacity(DENTS);
        let mut entries = RawDir::new(folder, buf.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                listing.names.push(Name {
                    start: listing.bytes.len(),
                    len: name.len(),
                    kind: entry.file_type(),
                });
                listing.bytes.extend_from_slice(name);
            }
        }
        let Self { bytes, names } = &mut listing;
        let text = |name: &Name| &bytes[name.start..name.start + name.len];
        names.sort_unstable_by(|a, b| text(a).cmp(text(b)));
        Ok(listing)
    }

    /// Name and type (which may be unknown) at a place in the order.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], FileType)> {
        let name = self.names.get(index)?;
        Some((&self.bytes[name.start..name.start + name.len], name.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_their_last_slash() {
        assert_eq!(split_path(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split_path(b"a"), (&b""[..], &b"a"[..]));
        assert!(is_at_or_below(b"a/b", b"a"));
        assert!(is_at_or_below(b"a/b", b""));
        assert!(!is_at_or_below(b"ab", b"a"));
    }

    #[test]
    fn a_deep_tree_needs_few_descriptors_and_a_symlink_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let mut stack = FolderStack::new(open_root(dir.path()).unwrap());
        let deep = vec!["d"; 300].join("/").into_bytes();
        for _ in 0..300 {
            rustix::fs::mkdirat(stack.fd(), "d", Mode::RWXU).unwrap();
            let fd = open_folder(stack.fd(), b"d").unwrap();
            stack.enter(b"d", fd).unwrap();
        }
        assert_eq!(stack.path(), deep);
        let open = stack.below.iter().filter(|step| step.fd.is_some()).count();
        assert!(open <= KEEP_OPEN + 1, "{open}");
        rustix::fs::symlinkat("/", stack.fd(), "out").unwrap();
        assert!(stack.go_to(&[&deep[..], b"/out"].concat()).is_err());
        stack.go_to(b"d").unwrap();
        assert_eq!(stack.below.len(), 1);
        stack.go_to(&deep).unwrap();
        assert_eq!(stack.path(), deep);
    }
}
