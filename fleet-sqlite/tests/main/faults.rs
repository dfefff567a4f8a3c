//! Writes that fail: nothing of them is there, and what follows works, or is refused where it must be.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_core::ports::{EventFilter, EventStore, Journal, JournalError, JournalWrite};
use fleet_core::testing::conformance::fixtures::{
    deployed, event, instance, new_update, quarantined, rows, started, update_id,
};
use fleet_core::update::{Outcome, Step};
use fleet_sqlite::{OpenOptions, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::child;

/// Makes the first change of a kind to a table fail, from another connection.
fn sabotage(path: &Path, change: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    let trigger = format!(
        "CREATE TRIGGER saboteur BEFORE {change} BEGIN SELECT RAISE(ABORT, 'sabotaged'); END"
    );
    conn.execute_batch(&trigger).unwrap();
    conn
}

/// Everything that a journal keeps, as text.
async fn state(store: &SqliteStore) -> String {
    let a = instance("a");
    format!(
        "{:?} {:?} {:?} {:?}",
        store.history(&a, 9).await.unwrap(),
        store.page(0, 99, &EventFilter::default()).await.unwrap(),
        store.quarantined(&a).await.unwrap(),
        store.deployed().await.unwrap(),
    )
}

fn full_write() -> JournalWrite {
    JournalWrite {
        outcome: Some(Outcome::RolledBack),
        volumes_dirty: true,
        close: true,
        events: vec![event(1), event(2)],
        quarantine: vec![quarantined(1, "a")],
        deployed: vec![deployed(1, "a")],
        ..rows(0, vec![started(1, Step::Admit), started(2, Step::Stop)])
    }
}

#[tokio::test]
async fn an_append_that_fails_at_any_part_leaves_nothing() {
    for change in [
        "INSERT ON update_steps",
        "INSERT ON update_steps WHEN NEW.seq = 1",
        "UPDATE ON updates",
        "UPDATE ON update_members",
        "INSERT ON events",
        "INSERT ON events WHEN NEW.data LIKE '%2%'",
        "INSERT ON quarantine",
        "INSERT ON deployed",
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("fleet.db");
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
        let before = state(&store).await;

        let saboteur = sabotage(&path, change);
        let failed = store.append(&update_id(1), full_write()).await;
        assert!(
            matches!(failed, Err(JournalError::Store { .. })),
            "{change}: {failed:?}"
        );
        assert_eq!(state(&store).await, before, "{change}");

        saboteur.execute_batch("DROP TRIGGER saboteur").unwrap();
        store.append(&update_id(1), full_write()).await.unwrap();
        assert_ne!(state(&store).await, before, "{change}");
    }
}

#[tokio::test]
async fn an_open_that_fails_at_any_part_leaves_nothing() {
    for change in [
        "INSERT ON updates",
        "INSERT ON update_plans",
        "INSERT ON update_members WHEN NEW.member = 1",
        "INSERT ON events",
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("fleet.db");
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        let before = state(&store).await;

        let saboteur = sabotage(&path, change);
        let update = new_update(1, &["a", "b"]);
        let failed = store.open(&update, vec![event(1)]).await;
        assert!(
            matches!(failed, Err(JournalError::Store { .. })),
            "{change}: {failed:?}"
        );
        assert_eq!(state(&store).await, before, "{change}");

        saboteur.execute_batch("DROP TRIGGER saboteur").unwrap();
        store.open(&update, vec![event(1)]).await.unwrap();
    }
}

#[tokio::test]
async fn reading_never_waits_for_a_writer_and_writing_gives_up() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let impatient = OpenOptions {
        busy_timeout: Duration::from_millis(50),
        ..OpenOptions::default()
    };
    let store = SqliteStore::open(&path, impatient).unwrap();
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();

    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("BEGIN IMMEDIATE; DELETE FROM updates")
        .unwrap();
    assert_eq!(store.load_open().await.unwrap().len(), 1);
    let busy = store.append(&update_id(1), rows(0, vec![])).await;
    let message = busy.unwrap_err().to_string();
    assert!(message.contains("another process holds it"), "{message}");

    other.execute_batch("ROLLBACK").unwrap();
    store.append(&update_id(1), rows(0, vec![])).await.unwrap();
}

/// Appends until the file may not grow any more.
async fn write_until_full(path: &Path) {
    let store = SqliteStore::open(path, OpenOptions::default()).unwrap();
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    let mut row = 0;
    let error = loop {
        let mut write = rows(row, vec![started(1, Step::Freeze)]);
        write.events = vec![event(1)];
        match store.append(&update_id(1), write).await {
            Ok(()) => row += 1,
            Err(error) => break error,
        }
    };
    child::say(&row.to_string());
    child::say(&error.to_string());
    let again = store.append(&update_id(1), rows(row, vec![])).await;
    child::say(&again.unwrap_err().to_string());
    assert!(store.is_broken(), "a daemon must know that it has to end");
    child::say(&store.load_open().await.is_ok().to_string());
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_store_until_it_is_opened_again() {
    if let Some((_, path)) = child::role() {
        return write_until_full(&path).await;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    // A limit on the size of files makes a write fail for real; the signal that comes with it is ignored.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\""])
        .arg(child::this_program())
        .stderr(Stdio::null());
    let test = "faults::a_disk_that_fails_stops_the_store_until_it_is_opened_again";
    child::as_child(&mut shell, test, "writer", &path);
    let said = child::run(shell);
    let [rows_said, error, again, readable] = said.as_slice() else {
        panic!("{said:?}");
    };
    let acknowledged: usize = rows_said.parse().unwrap();
    assert!(acknowledged > 0);
    assert!(error.contains("the disk failed"), "{error}");
    assert!(again.contains("open the store again"), "{again}");
    assert_eq!(readable, "true");

    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    let open = store.load_open().await.unwrap();
    assert_eq!(open[0].entries.len(), acknowledged);
    let write = rows(
        u32::try_from(acknowledged).unwrap(),
        vec![started(1, Step::Stop)],
    );
    store.append(&update_id(1), write).await.unwrap();
}
