//! Files that fleet did not leave that way: each is refused with a reason, and left as it is.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use fleet_core::ports::{EventStore, Journal, JournalWrite};
use fleet_core::testing::conformance::fixtures::{event, new_update, rows, started, update_id};
use fleet_core::update::Step;
use fleet_sqlite::{OpenError, OpenOptions, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::child;

/// A store with a few rows, closed in order.
async fn a_store(folder: &Path) -> PathBuf {
    let path = folder.join("fleet.db");
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    store
        .open(&new_update(1, &["a"]), vec![event(1)])
        .await
        .unwrap();
    let write = JournalWrite {
        events: vec![event(2); 200],
        ..rows(0, vec![started(1, Step::Gate); 200])
    };
    store.append(&update_id(1), write).await.unwrap();
    store.close().await.unwrap();
    path
}

/// Every file of a folder with its bytes.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // The shared memory of the log is rebuilt at every start; nothing is kept in it.
        .filter(|path| !path.to_string_lossy().ends_with("-shm"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    files.sort();
    files
}

/// Refused, both to write and to read, and nothing changed.
#[track_caller]
fn check_refused(path: &Path, expect: &str) {
    let before = content(path.parent().unwrap());
    for options in [OpenOptions::default(), OpenOptions::read_only()] {
        let refused = match SqliteStore::open(path, options.clone()) {
            Ok(_) => panic!("opened with {options:?}, expected {expect}"),
            Err(error) => chain(&error),
        };
        assert!(
            refused.contains(expect),
            "expected {expect}, found {refused}"
        );
        assert!(
            refused.contains("fleet.db"),
            "it does not say which file: {refused}"
        );
        assert!(
            content(path.parent().unwrap()) == before,
            "something was written"
        );
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = a_store(folder.path()).await;
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA user_version = 999").unwrap();
    conn.close().unwrap();
    check_refused(
        &path,
        "has schema version 999, this fleet knows versions up to",
    );
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE bookmarks (url TEXT)")
        .unwrap();
    conn.close().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    check_refused(&path, "is a database of another program");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    fs::write(&path, b"dear diary, \n".repeat(1000)).unwrap();
    check_refused(&path, "is damaged");
}

#[tokio::test]
async fn a_file_cut_short_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = a_store(folder.path()).await;
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    check_refused_to_write(&path);
}

#[tokio::test]
async fn a_destroyed_page_is_found_whichever_it_is() {
    let folder = TempDir::new().unwrap();
    let path = a_store(folder.path()).await;
    let bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 20);
    for page in 0..pages {
        let mut damaged = bytes.clone();
        damaged[page * 4096..page * 4096 + 128].fill(0xA5);
        fs::write(&path, damaged).unwrap();
        check_refused_to_write(&path);
    }
    fs::write(&path, bytes).unwrap();
    SqliteStore::open(&path, OpenOptions::default()).unwrap();
}

#[track_caller]
fn check_refused_to_write(path: &Path) {
    let before = content(path.parent().unwrap());
    let refused = SqliteStore::open(path, OpenOptions::default());
    assert!(
        matches!(refused, Err(OpenError::Damaged { .. })),
        "expected Damaged, found {refused:?}"
    );
    assert!(
        content(path.parent().unwrap()) == before,
        "something was written"
    );
}

#[tokio::test]
async fn damage_that_is_found_leaves_the_log_alone() {
    let folder = TempDir::new().unwrap();
    let path = a_store(folder.path()).await;
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    store.record(vec![event(3)]).await.unwrap();
    let log = fs::read(path.with_extension("db-wal")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    store.close().await.unwrap();

    // As a crash leaves it: the last write is in the log alone. And then the disk loses a page.
    let page = bytes.len() / 4096 / 2;
    bytes[page * 4096..(page + 1) * 4096].fill(0);
    fs::write(&path, bytes).unwrap();
    fs::write(path.with_extension("db-wal"), log).unwrap();
    check_refused_to_write(&path);
}

#[tokio::test]
async fn reading_makes_no_store() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let missing = SqliteStore::open(&path, OpenOptions::read_only());
    assert!(
        matches!(missing, Err(OpenError::Missing { .. })),
        "{missing:?}"
    );
    assert_eq!(content(folder.path()), []);
}

#[tokio::test]
async fn a_store_opened_to_read_refuses_to_write() {
    let folder = TempDir::new().unwrap();
    let path = a_store(folder.path()).await;
    let store = SqliteStore::open(&path, OpenOptions::read_only()).unwrap();
    assert_eq!(store.load_open().await.unwrap().len(), 1);
    let refused = store.record(vec![event(1)]).await.unwrap_err();
    assert!(refused.to_string().contains("read only"), "{refused}");
}

#[tokio::test]
async fn only_the_owner_may_read_it() {
    let folder = TempDir::new().unwrap();
    let path = a_store(folder.path()).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    store.record(vec![event(1)]).await.unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.path());
    }
}

/// Tries to open and says how that ended.
fn try_to_open(path: &Path) {
    match SqliteStore::open(path, OpenOptions::default()) {
        Ok(_) => child::say("opened"),
        Err(error) => child::say(&chain(&error)),
    }
}

#[tokio::test]
async fn a_read_only_folder_is_refused_with_the_reason() {
    if let Some((_, path)) = child::role() {
        return try_to_open(&path);
    }
    const NOBODY: u32 = 65534;
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Root may write anywhere, so the child is somebody else then, who must be able to read the program.
    let program = folder.path().join("program");
    fs::copy(child::this_program(), &program).unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let data = folder.path().join("data");
    let test = "files::a_read_only_folder_is_refused_with_the_reason";
    let answer = |data: &Path| {
        let mut command = child::command(&program, test, "opener", &data.join("fleet.db"));
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        child::run(command).join("\n")
    };

    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).unwrap();
    let empty = answer(&data);
    assert!(empty.contains("failed to make"), "{empty}");
    assert!(empty.contains("ermission denied"), "{empty}");

    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let path = a_store(&data).await;
    if root {
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).unwrap();
    let before = content(&data);
    let full = answer(&data);
    assert!(full.contains("folder"), "{full}");
    assert_eq!(content(&data), before);

    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    if root {
        std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    assert_eq!(answer(&data), "opened");
}

#[tokio::test]
async fn sqlite_is_one_that_loses_nothing() {
    // Before 3.51.3 two connections that wrote and checkpointed at once could lose committed writes.
    assert!(
        rusqlite::version_number() >= 3_051_003,
        "{}",
        rusqlite::version()
    );
}
