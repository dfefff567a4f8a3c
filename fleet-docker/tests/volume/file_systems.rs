//! File systems of their own, on loop devices: full ones, cloning ones, ones in memory.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fleet_core::ports::{NoProgress, PortErrorKind, SnapshotStore};
use fleet_docker::volume::{LocalSnapshotStore, PreCopy, SnapshotOptions};

use crate::support::{assert_same_portrait, id, portrait, request, sh, source};

/// A file system in a file, mounted; unmounted when dropped.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    fn new(make: &str, size: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let script = format!(
            "truncate -s {size} image; {make} image >/dev/null; mkdir at; mount -o loop image at"
        );
        sh(dir.path(), &script);
        Self { dir }
    }

    fn in_memory() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        sh(dir.path(), "mkdir at; mount -t tmpfs tmpfs at");
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("at")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        sh(self.dir.path(), "umount at");
    }
}

fn options(reserve_bytes: u64) -> SnapshotOptions {
    SnapshotOptions {
        reserve_bytes,
        pre_copy: PreCopy::Always,
        ..SnapshotOptions::default()
    }
}

fn used(path: &Path) -> u64 {
    sh(path, "df --output=used -B1 . | tail -1")
        .trim()
        .parse()
        .expect("a number")
}

#[tokio::test]
async fn a_full_disk_fails_the_snapshot_and_gets_its_space_back() {
    let small = Mounted::new("mkfs.ext4 -q", "24M");
    let volume = tempfile::tempdir().unwrap();
    sh(volume.path(), "head -c 30000000 /dev/urandom > random");
    let ask = request(1, vec![source("data", volume.path())]);
    for reserve in [0, 8 << 20] {
        let store = LocalSnapshotStore::open(&small.path().join("s"), options(reserve)).unwrap();
        let estimate = store.estimate(&ask.volumes).await.unwrap();
        assert!(!estimate.fits(), "{estimate:?}");
        let before = used(&small.path());
        let error = store.take(&ask, &NoProgress).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::NoSpace, "{error}");
        assert_eq!(sh(&small.path().join("s"), "ls -A"), "");
        assert!(used(&small.path()) <= before + (64 << 10));
    }
}

#[tokio::test]
async fn the_reserve_stays_free() {
    let small = Mounted::new("mkfs.ext4 -q", "24M");
    let volume = tempfile::tempdir().unwrap();
    sh(volume.path(), "echo small > small");
    let store = LocalSnapshotStore::open(&small.path().join("s"), options(1 << 30)).unwrap();
    let ask = request(1, vec![source("data", volume.path())]);
    let error = store.take(&ask, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::NoSpace, "{error}");
}

async fn round_trip(at: &Path, two_archives: bool) {
    let (volume, snapshots) = (at.join("v"), at.join("s"));
    std::fs::create_dir(&volume).unwrap();
    sh(
        &volume,
        "head -c 400000 /dev/urandom > a; mkdir d; echo b > d/b; truncate -s 2M hole; setfattr -n trusted.t -v 1 d",
    );
    let store = LocalSnapshotStore::open(&snapshots, options(0)).unwrap();
    let ask = request(1, vec![source("data", &volume)]);
    store.pre_copy(&ask, &NoProgress).await.unwrap();
    sh(&volume, "echo more >> a; mv d e; echo new > new");
    let before = portrait(&volume);
    store.take(&ask, &NoProgress).await.unwrap();
    let delta = snapshots
        .join("web")
        .join(id(1).to_string())
        .join("data.delta.tar.zst");
    assert_eq!(delta.exists(), two_archives);
    sh(&volume, "find . -mindepth 1 -delete");
    store
        .restore(&id(1), &ask.volumes, &NoProgress)
        .await
        .unwrap();
    assert_same_portrait(&before, &portrait(&volume));
}

#[tokio::test]
async fn xfs_that_clones_goes_round() {
    round_trip(
        &Mounted::new("mkfs.xfs -q -m reflink=1", "320M").path(),
        true,
    )
    .await;
}

#[tokio::test]
async fn btrfs_goes_round() {
    round_trip(&Mounted::new("mkfs.btrfs -q", "160M").path(), true).await;
}

/// Inodes of 128 bytes have room for whole seconds only: a change after the first pass may leave the stamp as it was.
#[tokio::test]
async fn a_change_within_the_second_of_the_first_pass_is_seen_where_stamps_are_whole_seconds() {
    let coarse = Mounted::new("mkfs.ext4 -q -I 128", "32M");
    let (volume, snapshots) = (coarse.path().join("v"), coarse.path().join("s"));
    std::fs::create_dir(&volume).unwrap();
    let file = volume.join("file");
    let store = LocalSnapshotStore::open(&snapshots, options(0)).unwrap();
    let mut same_second = 0;
    for n in 1..=40 {
        let ask = request(n, vec![source("data", &volume)]);
        std::fs::write(&file, "before").unwrap();
        let stamp = file.metadata().unwrap().ctime();
        store.pre_copy(&ask, &NoProgress).await.unwrap();
        std::fs::write(&file, "behind").unwrap();
        if file.metadata().unwrap().ctime() != stamp {
            store.discard(&ask.id).await.unwrap();
            continue;
        }
        same_second += 1;
        store.take(&ask, &NoProgress).await.unwrap();
        store
            .restore(&ask.id, &ask.volumes, &NoProgress)
            .await
            .unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "behind");
        store.delete(&ask.id).await.unwrap();
        if same_second == 3 {
            return;
        }
    }
    panic!("only {same_second} first passes of one file took less than a second");
}

#[tokio::test]
async fn memory_has_no_second_pass() {
    round_trip(&Mounted::in_memory().path(), false).await;
}

#[tokio::test]
async fn another_file_system_inside_the_volume_is_refused() {
    let inner = Mounted::in_memory();
    let volume = inner.dir.path();
    let store = LocalSnapshotStore::open(&tempfile::tempdir().unwrap().keep(), options(0)).unwrap();
    let ask = request(1, vec![source("data", volume)]);
    let error = store.take(&ask, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unsupported, "{error}");
}

/// Flags that keep even root from removing a file, a folder, a name.
#[tokio::test]
async fn files_that_nobody_may_remove_give_way_to_a_restore() {
    for make in ["mkfs.ext4 -q", "mkfs.xfs -q"] {
        let made = Mounted::new(make, "320M");
        let (volume, snapshots) = (made.path().join("v"), made.path().join("s"));
        std::fs::create_dir(&volume).unwrap();
        sh(
            &volume,
            "mkdir -p a/b c; echo 1 > a/b/one; echo 2 > two; echo 3 > c/log",
        );
        let before = portrait(&volume);
        let store = LocalSnapshotStore::open(&snapshots, options(0)).unwrap();
        let ask = request(1, vec![source("data", &volume)]);
        store.take(&ask, &NoProgress).await.unwrap();
        sh(
            &volume,
            "echo more >> two; chattr +i two a/b .; chattr +a c/log c",
        );
        store
            .restore(&id(1), &ask.volumes, &NoProgress)
            .await
            .unwrap();
        assert_same_portrait(&before, &portrait(&volume));
    }
}

#[tokio::test]
async fn a_restore_that_cannot_fit_touches_nothing() {
    for make in ["mkfs.ext4 -q -m 0", "mkfs.xfs -q"] {
        let made = Mounted::new(make, "320M");
        let volume = made.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        sh(&volume, "head -c 120000000 /dev/urandom > random");
        let before = portrait(&volume);
        let elsewhere = tempfile::tempdir().unwrap();
        let store = LocalSnapshotStore::open(&elsewhere.path().join("s"), options(0)).unwrap();
        let ask = request(1, vec![source("data", &volume)]);
        store.take(&ask, &NoProgress).await.unwrap();
        // Somebody else uses the room meanwhile.
        sh(
            &volume,
            "rm random; echo left > left; chattr +i left; fallocate -l 200M ../other",
        );
        let wrecked = portrait(&volume);
        let error = store
            .restore(&id(1), &ask.volumes, &NoProgress)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::NoSpace, "{error}");
        assert_same_portrait(&wrecked, &portrait(&volume));
        assert!(sh(&volume, "lsattr left").contains('i'));
        // What the volume itself holds counts as room.
        sh(
            &volume,
            "rm ../other; head -c 120000000 /dev/zero > zeros; fallocate -l 80M ../other",
        );
        store
            .restore(&id(1), &ask.volumes, &NoProgress)
            .await
            .unwrap();
        assert_same_portrait(&before, &portrait(&volume));
    }
}
