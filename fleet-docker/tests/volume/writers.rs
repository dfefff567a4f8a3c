//! Writers that run while a pass reads: the first pass bears them and the second mends what they did; a pass that
//! must be alone fails.

use std::io::{self, BufRead, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fleet_core::model::Consistency;
use fleet_core::ports::{NoProgress, PortErrorKind, SnapshotStore};
use fleet_docker::volume::{Files, OsFiles, PreCopy, SnapshotOptions, StoreFile};

use crate::support::{Place, assert_same_portrait, portrait, sh};

/// Does something to the volume at the first read of content.
#[derive(Debug)]
struct Meddling {
    volume: PathBuf,
    script: &'static str,
    done: AtomicBool,
}

impl Files for Meddling {
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
        if !self.done.swap(true, Ordering::SeqCst) {
            sh(&self.volume, self.script);
        }
        OsFiles.read_volume(file, offset, buf)
    }

    fn write_volume(&self, file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> io::Result<usize> {
        OsFiles.write_volume(file, offset, data)
    }
}

const MEDDLING: [&str; 5] = [
    "echo more >> a",
    "truncate -s 5 a",
    "rm z",
    "rm -r d",
    "rm z; mkdir z",
];

fn meddled(script: &'static str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    let files = Meddling {
        volume: volume.clone(),
        script,
        done: AtomicBool::new(false),
    };
    let options = SnapshotOptions {
        pre_copy: PreCopy::Always,
        ..SnapshotOptions::default()
    };
    std::fs::create_dir(&volume).unwrap();
    sh(&volume, "seq 2000 > a; mkdir d; echo b > d/b; echo z > z");
    Place::at(dir, options, Arc::new(files))
}

#[tokio::test]
async fn a_cold_pass_fails_when_anything_moves() {
    for script in MEDDLING {
        let place = meddled(script);
        let error = place.take(1).await.expect_err(script);
        assert_eq!(error.kind(), PortErrorKind::Conflict, "{script}: {error}");
        assert_eq!(place.stored(), Vec::<String>::new(), "{script}");
    }
}

#[tokio::test]
async fn a_first_pass_bears_what_moves_and_the_second_mends_it() {
    for script in MEDDLING {
        let place = meddled(script);
        place
            .store
            .pre_copy(&place.request(1), &NoProgress)
            .await
            .unwrap();
        let before = portrait(&place.volume());
        place.take(1).await.unwrap();
        sh(&place.volume(), "rm -rf a d");
        place.restore(1).await.unwrap();
        assert_same_portrait(&before, &portrait(&place.volume()));
    }
}

#[tokio::test]
async fn a_hot_snapshot_says_so_and_still_verifies() {
    for script in MEDDLING {
        let place = meddled(script);
        let mut request = place.request(1);
        request.consistency = Consistency::Hot;
        let info = place.store.take(&request, &NoProgress).await.unwrap();
        assert_eq!(info.consistency, Consistency::Hot);
        assert_eq!(place.store.verify(&request.id).await.unwrap(), info);
        place.restore(1).await.unwrap();
    }
}

/// A page that is mapped and dirty before the first pass takes a second store without any stamp, unless the pass
/// syncs the file system first.
#[tokio::test]
async fn a_store_into_a_page_that_was_dirty_before_the_pass_is_not_lost() {
    let place = Place::forced(PreCopy::Always);
    sh(
        &place.volume(),
        "head -c 1000000 /dev/zero > mapped; sync mapped",
    );
    let program = "
import mmap, os, sys
f = os.open('mapped', os.O_RDWR)
m = mmap.mmap(f, 1000000)
m[4096] = 1
print('dirty', flush=True)
sys.stdin.readline()
m[4097] = 2
print('stored', flush=True)
sys.stdin.readline()
";
    let mut writer = Command::new("python3")
        .args(["-c", program])
        .current_dir(place.volume())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = writer.stdin.take().unwrap();
    let mut from = io::BufReader::new(writer.stdout.take().unwrap());
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    place
        .store
        .pre_copy(&place.request(1), &NoProgress)
        .await
        .unwrap();
    to.write_all(b"\n").unwrap();
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "dirty\nstored\n");
    drop(to);
    writer.wait().unwrap();
    let before = portrait(&place.volume());
    place.take(1).await.unwrap();
    sh(&place.volume(), "echo x > mapped");
    place.restore(1).await.unwrap();
    assert_same_portrait(&before, &portrait(&place.volume()));
}
