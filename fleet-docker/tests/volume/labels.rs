//! Hosts with SELinux: every file has a label, nobody may remove it, and the policy may refuse to set it.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use fleet_core::ports::SnapshotStore;
use fleet_docker::volume::{Files, OsFiles, SnapshotOptions, StoreFile};

use crate::support::{Place, assert_same_portrait, id, portrait, sh};

const LABEL: &[u8] = b"security.selinux";
const EACCES: i32 = 13;

/// Answers as SELinux does.
#[derive(Debug)]
struct Policy {
    /// Whether a label may be changed.
    relabels: bool,
}

impl Files for Policy {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsFiles.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoreFile>> {
        OsFiles.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFiles.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFiles.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsFiles.free_bytes(path)
    }

    fn read_volume(&self, file: BorrowedFd<'_>, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        OsFiles.read_volume(file, offset, buf)
    }

    fn write_volume(&self, file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> io::Result<usize> {
        OsFiles.write_volume(file, offset, data)
    }

    fn set_xattr(&self, file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
        if name == LABEL && !self.relabels {
            return Err(io::Error::from_raw_os_error(EACCES));
        }
        OsFiles.set_xattr(file, name, value)
    }

    fn remove_xattr(&self, file: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        if name == LABEL {
            return Err(io::Error::from_raw_os_error(EACCES));
        }
        OsFiles.remove_xattr(file, name)
    }
}

fn labelled(relabels: bool) -> Place {
    let place = Place::with(SnapshotOptions::default(), Arc::new(Policy { relabels }));
    sh(
        &place.volume(),
        "mkdir d; echo a > d/a; mkfifo p; setfattr -n user.kept -v 1 d; setfacl -d -m u:7:rx .
         setfattr -n security.selinux -v old:label:s0 . d d/a; setfattr -h -n security.selinux -v old:label:s0 p",
    );
    place
}

const WRECK: &str = "rm -r d p; echo b > b; setfacl -k .; setfattr -n user.added -v 1 .
    setfattr -n security.selinux -v new:label:s0 .";

fn without_labels(portrait: &str) -> String {
    let of_labels = |line: &&str| {
        line.is_empty() || line.contains("security.selinux") || line.starts_with("# file")
    };
    let kept = portrait.lines().filter(|line| !of_labels(line));
    kept.collect::<Vec<_>>().join("\n")
}

fn label_of_root(place: &Place) -> String {
    sh(
        &place.volume(),
        "getfattr --only-values -n security.selinux .",
    )
}

#[tokio::test]
async fn labels_come_back_where_the_policy_lets_them() {
    let place = labelled(true);
    let before = portrait(&place.volume());
    place.take(1).await.unwrap();
    sh(&place.volume(), WRECK);
    place.restore(1).await.unwrap();
    assert_same_portrait(&before, &portrait(&place.volume()));
}

#[tokio::test]
async fn a_label_that_the_policy_refuses_holds_nothing_up() {
    let place = labelled(false);
    let before = without_labels(&portrait(&place.volume()));
    place.take(1).await.unwrap();
    sh(&place.volume(), WRECK);
    // The second time over what the first left.
    for _ in 0..2 {
        place.restore(1).await.unwrap();
        assert_same_portrait(&before, &without_labels(&portrait(&place.volume())));
        assert_eq!(label_of_root(&place), "new:label:s0");
    }
    let volumes = [place.source()];
    let differs = place.store.differs(&id(1), &volumes).await.unwrap();
    assert!(differs.is_empty());
}

/// A file of a host without labels is put back where every file has one.
#[tokio::test]
async fn a_label_that_the_snapshot_does_not_know_stays() {
    let place = Place::with(
        SnapshotOptions::default(),
        Arc::new(Policy { relabels: false }),
    );
    sh(&place.volume(), "echo a > a");
    place.take(1).await.unwrap();
    sh(
        &place.volume(),
        "setfattr -n security.selinux -v new:label:s0 .",
    );
    place.restore(1).await.unwrap();
    assert_eq!(label_of_root(&place), "new:label:s0");
}
