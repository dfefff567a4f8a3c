//! Everything about a folder that a restore must put back, as a value to compare.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// One entry, by everything but its inode number and its ctime, which no program can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    device: u64,
    content: String,
    link: Option<PathBuf>,
    /// First path (in order) that is the same file.
    same_as: PathBuf,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// A folder and everything in it, its root included as the empty path.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// Reads a folder.
pub(crate) fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut inodes = BTreeMap::new();
    walk(root, Path::new(""), &mut inodes, &mut tree);
    tree
}

fn walk(root: &Path, path: &Path, inodes: &mut BTreeMap<u64, PathBuf>, tree: &mut Tree) {
    let full = root.join(path);
    let full = if path.as_os_str().is_empty() {
        root.to_owned()
    } else {
        full
    };
    let meta =
        fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
    let file = meta.is_file();
    let entry = Entry {
        kind: format!("{:?}", meta.file_type()),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if file { meta.size() } else { 0 },
        device: meta.rdev(),
        content: if file {
            hash(&fs::read(&full).unwrap())
        } else {
            String::new()
        },
        link: fs::read_link(&full).ok(),
        same_as: inodes
            .entry(meta.ino())
            .or_insert_with(|| path.to_owned())
            .clone(),
        xattrs: xattrs(&full),
    };
    tree.insert(path.to_owned(), entry);
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            walk(root, &path.join(name), inodes, tree);
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0_u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = OsStr::from_bytes(name).to_owned();
            let mut value = vec![0_u8; 4096];
            let length = rustix::fs::lgetxattr(path, &*name, &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

/// What differs, for a message that can be read.
#[track_caller]
pub(crate) fn assert_same(expect: &Tree, found: &Tree) {
    let paths: std::collections::BTreeSet<_> = expect.keys().chain(found.keys()).collect();
    let differing: Vec<_> = paths
        .into_iter()
        .filter(|path| expect.get(*path) != found.get(*path))
        .map(|path| {
            format!(
                "{}:\n  expected {:?}\n  found    {:?}",
                path.display(),
                expect.get(path),
                found.get(path)
            )
        })
        .collect();
    assert!(
        differing.is_empty(),
        "the volume differs:\n{}",
        differing.join("\n")
    );
}

/// Fills a folder with one of everything that volumes hold.
pub(crate) fn furnish(root: &Path) {
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
    };
    fs::create_dir_all(root.join("deep/er/empty")).unwrap();
    fs::write(root.join("plain"), "plain text\n").unwrap();
    fs::write(root.join("deep/secret"), vec![7; 100_000]).unwrap();
    set(&root.join("deep/secret"), 0o600);
    fs::write(root.join("deep/suid"), "x").unwrap();
    set(&root.join("deep/suid"), 0o4755);
    fs::write(root.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), "name").unwrap();
    fs::hard_link(root.join("plain"), root.join("deep/hard")).unwrap();
    symlink("../plain", root.join("deep/soft")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    std::os::unix::fs::chown(root.join("deep/er"), Some(1234), Some(5_000_000)).unwrap();
    set(&root.join("deep/er"), 0o2770);
    let fifo = Command::new("mkfifo")
        .arg(root.join("pipe"))
        .status()
        .unwrap();
    assert!(fifo.success());
    assert!(
        fs::symlink_metadata(root.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    // The second is seen by nobody without CAP_SYS_ADMIN.
    for name in ["user.note", "trusted.note"] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(root.join("plain"), name, b"kept", flags).unwrap();
    }
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let times = fs::FileTimes::new().set_modified(old);
    fs::File::options()
        .write(true)
        .open(root.join("deep/secret"))
        .unwrap()
        .set_times(times)
        .unwrap();
    fs::File::open(root.join("deep/er/empty"))
        .unwrap()
        .set_times(times)
        .unwrap();
}
