//! What becomes visible is on the disk by then: every file synced after its last write, every folder after its last
//! new name. Cutting the power is the one thing that a test cannot do, so the order of the calls is watched.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fleet_core::ports::{NoProgress, SnapshotStore};
use fleet_docker::volume::{Files, OsFiles, PreCopy, SnapshotOptions, StoreFile};

use crate::support::{Place, sh};

/// What the disk may not have yet.
#[derive(Debug, Default)]
struct Pending {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    renames: usize,
    wrong: Vec<String>,
}

#[derive(Debug, Default, Clone)]
struct Watched(Arc<Mutex<Pending>>);

#[derive(Debug)]
struct WatchedFile(Watched, PathBuf, Arc<dyn StoreFile>);

impl Watched {
    fn on<T>(&self, act: impl FnOnce(&mut Pending) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn new_name(&self, path: &Path) {
        let parent = path.parent().unwrap_or(path).to_owned();
        self.on(|pending| pending.folders.insert(parent));
    }
}

impl Files for Watched {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if !path.exists() {
            self.new_name(path);
        }
        OsFiles.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoreFile>> {
        self.new_name(path);
        self.on(|pending| pending.files.insert(path.to_owned()));
        let file = OsFiles.create(path)?;
        Ok(Arc::new(WatchedFile(self.clone(), path.to_owned(), file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on(|pending| {
            let all = pending.files.iter().chain(&pending.folders);
            let left: Vec<_> = all.filter(|path| path.starts_with(from)).collect();
            if !left.is_empty() {
                let wrong = format!(
                    "{} becomes {} before {left:?}",
                    from.display(),
                    to.display()
                );
                pending.wrong.push(wrong);
            }
            pending.renames += 1;
        });
        self.new_name(to);
        OsFiles.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFiles.sync_dir(path)?;
        self.on(|pending| pending.folders.remove(path));
        Ok(())
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
}

impl StoreFile for WatchedFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Self(watched, path, file) = self;
        watched.on(|pending| pending.files.insert(path.clone()));
        file.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        let Self(watched, path, file) = self;
        file.sync()?;
        watched.on(|pending| pending.files.remove(path));
        Ok(())
    }

    fn read_back(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.2.read_back(offset, buf)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_on_the_disk_before_it_can_be_seen() {
    for pre_copy in [PreCopy::Always, PreCopy::Never] {
        let watched = Watched::default();
        let options = SnapshotOptions {
            pre_copy,
            ..SnapshotOptions::default()
        };
        let place = Place::with(options, Arc::new(watched.clone()));
        let fill = "mkdir a; echo one > a/one; head -c 9000000 /dev/urandom > large";
        sh(&place.volume(), fill);
        let request = place.request(1);
        place.store.pre_copy(&request, &NoProgress).await.unwrap();
        sh(&place.volume(), "echo two > a/two");
        place.take(1).await.unwrap();
        watched.on(|pending| {
            assert_eq!(pending.wrong, Vec::<String>::new(), "{pre_copy:?}");
            assert!(pending.renames > 0, "it became visible");
            let left: Vec<_> = pending.files.iter().chain(&pending.folders).collect();
            assert!(left.is_empty(), "{pre_copy:?}: {left:?} may be lost");
        });
    }
}
