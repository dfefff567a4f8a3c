//! Every write, sync, rename and read fails once: the failure is clean, and what was before still holds.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fleet_core::ports::{NoProgress, PortErrorKind, SnapshotStore};
use fleet_docker::volume::{Files, OsFiles, PreCopy, SnapshotOptions, StoreFile};

use crate::support::{Place, assert_same_portrait, id, portrait, sh};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Counts every call and fails one of them.
#[derive(Debug, Default)]
struct Faulty {
    calls: AtomicU64,
    /// Which call fails, counted from 1; 0 none.
    fails: AtomicU64,
    code: AtomicU64,
    /// Whether what is read back is wrong by one bit instead.
    lies: AtomicBool,
}

impl Faulty {
    fn arm(&self, call: u64, code: i32) {
        self.calls.store(0, Ordering::SeqCst);
        self.fails.store(call, Ordering::SeqCst);
        self.code
            .store(code.unsigned_abs().into(), Ordering::SeqCst);
    }

    /// Whether the armed call came to pass since it was armed.
    fn struck(&self) -> bool {
        let fails = self.fails.load(Ordering::SeqCst);
        fails > 0 && self.calls.load(Ordering::SeqCst) >= fails
    }

    fn pass(&self) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if call == self.fails.load(Ordering::SeqCst) {
            let code = i32::try_from(self.code.load(Ordering::SeqCst)).unwrap();
            return Err(io::Error::from_raw_os_error(code));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFiles(Arc<Faulty>);

#[derive(Debug)]
struct FaultyFile(Arc<Faulty>, Arc<dyn StoreFile>);

impl Files for FaultyFiles {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.pass()?;
        OsFiles.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoreFile>> {
        self.0.pass()?;
        Ok(Arc::new(FaultyFile(self.0.clone(), OsFiles.create(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.pass()?;
        OsFiles.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.pass()?;
        OsFiles.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsFiles.free_bytes(path)
    }

    fn read_volume(&self, file: BorrowedFd<'_>, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.pass()?;
        // Short reads are allowed, so give them.
        let most = buf.len().min(100_000);
        OsFiles.read_volume(file, offset, &mut buf[..most])
    }

    fn write_volume(&self, file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.0.pass() {
            // A part may well have been written.
            OsFiles.write_volume(file, offset, &data[..data.len() / 2])?;
            return Err(error);
        }
        OsFiles.write_volume(file, offset, &data[..data.len().min(100_000)])
    }
}

impl StoreFile for FaultyFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Err(error) = self.0.pass() {
            self.1.write_at(offset, &data[..data.len() / 2])?;
            return Err(error);
        }
        self.1.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.pass()?;
        self.1.sync()
    }

    fn read_back(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.pass()?;
        let count = self.1.read_back(offset, buf)?;
        if count > 0 && self.0.lies.load(Ordering::SeqCst) {
            buf[count / 2] ^= 1;
        }
        Ok(count)
    }
}

fn faulty_place() -> (Arc<Faulty>, Place) {
    let faulty = Arc::new(Faulty::default());
    let options = SnapshotOptions {
        pre_copy: PreCopy::Always,
        workers: 1,
        ..SnapshotOptions::default()
    };
    let place = Place::with(options, Arc::new(FaultyFiles(faulty.clone())));
    sh(
        &place.volume(),
        "mkdir a; echo one > a/one; ln a/one two; head -c 3000000 /dev/urandom > three; mkfifo p; chmod 711 .",
    );
    (faulty, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_meets_any_failure_leaves_nothing_and_can_be_taken_again() {
    let (faulty, place) = faulty_place();
    let untouched = portrait(&place.volume());
    for (code, kind) in [
        (ENOSPC, PortErrorKind::NoSpace),
        (EIO, PortErrorKind::Failed),
    ] {
        for call in 1.. {
            faulty.arm(call, code);
            let ahead = place.store.pre_copy(&place.request(1), &NoProgress).await;
            let taken = match ahead {
                Ok(()) => place.take(1).await.map(drop),
                Err(error) => Err(error),
            };
            let struck = faulty.struck();
            faulty.arm(0, 0);
            if !struck {
                taken.unwrap();
                place.store.delete(&id(1)).await.unwrap();
                assert!(call > 30, "only {call} calls were made to fail");
                break;
            }
            let error = taken.expect_err("a failed call went unnoticed");
            assert_eq!(error.kind(), kind, "call {call}: {error}");
            assert_eq!(place.store.get(&id(1)).await.unwrap(), None);
            place.store.discard(&id(1)).await.unwrap();
            let left = place.stored();
            assert!(
                left.iter().all(|path| path == "./web"),
                "call {call}: {left:?}"
            );
        }
    }
    assert_same_portrait(&untouched, &portrait(&place.volume()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_meets_any_failure_ends_right_when_run_again() {
    let (faulty, place) = faulty_place();
    let before = portrait(&place.volume());
    place.take(1).await.unwrap();
    for call in 1.. {
        sh(
            &place.volume(),
            "find . -mindepth 1 -delete; echo wrong > wrong",
        );
        faulty.arm(call, EIO);
        let restored = place.restore(1).await;
        let struck = faulty.struck();
        faulty.arm(0, 0);
        if !struck {
            restored.unwrap();
            assert!(call > 30, "only {call} calls were made to fail");
            break;
        }
        restored.expect_err("a failed call went unnoticed");
        place.restore(1).await.unwrap();
        assert_same_portrait(&before, &portrait(&place.volume()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_gives_back_is_compared_before_it_counts() {
    let (faulty, place) = faulty_place();
    faulty.lies.store(true, Ordering::SeqCst);
    let error = place.take(1).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Corrupt, "{error}");
    assert_eq!(place.stored(), Vec::<String>::new());
}
