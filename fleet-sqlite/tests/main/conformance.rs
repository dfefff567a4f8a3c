//! The same suites as the store in memory.

use std::cell::Cell;

use fleet_core::testing::conformance;
use fleet_sqlite::{OpenOptions, SqliteStore};
use tempfile::TempDir;

/// Makes empty stores, each in a file of its own.
struct Files {
    folder: TempDir,
    made: Cell<u32>,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            made: Cell::new(0),
        }
    }

    fn fresh(&self) -> SqliteStore {
        self.made.set(self.made.get() + 1);
        let path = self.folder.path().join(format!("{}.db", self.made.get()));
        SqliteStore::open(path, OpenOptions::default().with_lease("tests")).unwrap()
    }
}

#[tokio::test]
async fn the_journal_keeps_its_promises() {
    let files = Files::new();
    conformance::journal(async || files.fresh()).await;
}

#[tokio::test]
async fn the_event_log_keeps_its_promises() {
    let files = Files::new();
    conformance::events(async || files.fresh()).await;
}

#[tokio::test]
async fn configs_and_settings_keep_their_promises() {
    let files = Files::new();
    conformance::configs(async || files.fresh()).await;
    conformance::settings(async || files.fresh()).await;
}

#[tokio::test]
async fn availability_keeps_its_promises() {
    let files = Files::new();
    conformance::availability(async || files.fresh()).await;
}

#[tokio::test]
async fn rollouts_keep_their_promises() {
    let files = Files::new();
    conformance::rollouts(async || files.fresh()).await;
}
