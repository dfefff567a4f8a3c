//! Keeps the disk writing while a volume is filled, so that the sync at the end finds little left to do.
//!
//! The kernel by itself begins to write only when a tenth of the memory is dirty, which most volumes never make.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fd::OwnedFd;

/// Bytes written to a volume between two syncs of its file system.
const FLUSH_STEP: u64 = 64 << 20;

/// Counts what is written, and wakes the thread that syncs.
#[derive(Debug)]
pub(super) struct Flush {
    written: AtomicU64,
    wake: SyncSender<()>,
}

impl Flush {
    /// Runs `work` with a thread beside it that syncs the file system of `root` after every [`FLUSH_STEP`].
    ///
    /// # Errors
    /// A sync failed. The kernel tells that once: a later sync through the same descriptor may succeed.
    pub(super) fn beside<T>(root: &OwnedFd, work: impl FnOnce(&Self) -> T) -> (T, io::Result<()>) {
        let (wake, woken) = sync_channel(1);
        std::thread::scope(|scope| {
            let syncing = scope.spawn(move || sync_when_woken(root, &woken));
            let flush = Self {
                written: AtomicU64::new(0),
                wake,
            };
            let done = work(&flush);
            drop(flush);
            let lost = || Err(io::Error::other("the thread that syncs was lost"));
            (done, syncing.join().unwrap_or_else(|_| lost()))
        })
    }

    /// So many bytes more were written.
    pub(super) fn wrote(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before / FLUSH_STEP != (before + bytes) / FLUSH_STEP {
            // One that is still waiting to be seen will do for both.
            let _ = self.wake.try_send(());
        }
    }
}

fn sync_when_woken(root: &OwnedFd, woken: &Receiver<()>) -> io::Result<()> {
    while woken.recv().is_ok() {
        rustix::fs::syncfs(root)?;
    }
    Ok(())
}
