//! Killed in mid-write, and a log that was cut: what was acknowledged is there, and nothing is half there.

use std::path::Path;

use fleet_core::ports::{EventFilter, EventStore, Journal, JournalWrite};
use fleet_core::testing::conformance::fixtures::{
    event, instance, new_update, rows, started, update_id,
};
use fleet_core::update::Step;
use fleet_sqlite::{OpenOptions, SqliteStore};
use tempfile::TempDir;

use crate::child;

const KILLS: usize = 12;
const ROWS_PER_UPDATE: u32 = 9;

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, OpenOptions::default().with_lease("crash test")).unwrap()
}

/// Opens updates and appends to them, each write with one event, and says what was acknowledged, until killed.
async fn write_until_killed(path: &Path) {
    let store = open(path);
    let mut update = 1;
    while store.load(&update_id(update)).await.unwrap().is_some() {
        update += 1;
    }
    for left in store.load_open().await.unwrap() {
        let close = JournalWrite {
            close: true,
            events: vec![event(0)],
            expected_rows: u32::try_from(left.entries.len()).unwrap(),
            ..JournalWrite::default()
        };
        store.append(&left.plan.id, close).await.unwrap();
    }
    loop {
        let new = new_update(update, &["a"]);
        store.open(&new, vec![event(0)]).await.unwrap();
        child::say(&format!("{update} 0"));
        for row in 0..ROWS_PER_UPDATE {
            let write = JournalWrite {
                events: vec![event(1)],
                close: row + 1 == ROWS_PER_UPDATE,
                ..rows(row, vec![started(update, Step::Stop)])
            };
            store.append(&update_id(update), write).await.unwrap();
            child::say(&format!("{update} {}", row + 1));
        }
        update += 1;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    if let Some((_, path)) = child::role() {
        return write_until_killed(&path).await;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let test = "crash::what_was_acknowledged_survives_kill_9";
    let mut closed_by_children = 0;
    for kill in 0..KILLS {
        let program = child::this_program();
        let mut child = child::command(&program, test, "writer", &path)
            .spawn()
            .unwrap();
        let mut said = child::listen(&mut child);
        // Never the same place: sometimes just after an update was opened, sometimes in its middle or at its end.
        let mut last = said.by_ref().nth(1 + kill * 3 % 20).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts as well.
        last = said.last().unwrap_or(last);

        let (update, acknowledged) = last.split_once(' ').unwrap();
        let update = update_id(update.parse().unwrap());
        let acknowledged: usize = acknowledged.parse().unwrap();
        let store = open(&path);
        assert_eq!(store.check().await.unwrap(), [""; 0]);
        let kept = store.load(&update).await.unwrap().unwrap();
        let rows = kept.entries.len();
        assert!(
            (acknowledged..=acknowledged + 1).contains(&rows),
            "expected {acknowledged} rows, perhaps one more that was in flight, found {rows}"
        );
        let complete = rows == usize::try_from(ROWS_PER_UPDATE).unwrap();
        assert_eq!(
            kept.closed, complete,
            "the last row and the end are one write"
        );
        closed_by_children += usize::from(kill > 0);
        let written = store.history(&instance("a"), u32::MAX).await.unwrap();
        let writes: usize = written.iter().map(|update| update.entries.len() + 1).sum();
        let events = store
            .page(0, u32::MAX, &EventFilter::default())
            .await
            .unwrap();
        // A life closes what the one before left open, which is a write without a row.
        let closings = events.len() - writes;
        assert!(
            closings <= closed_by_children,
            "{} events for {writes} writes: an event without its row, or a row without its event",
            events.len()
        );
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_cut_anywhere_holds_the_first_writes_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let store = open(&path);
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    for row in 0..10 {
        let write = JournalWrite {
            events: vec![event(1)],
            ..rows(row, vec![started(1, Step::Stop)])
        };
        store.append(&update_id(1), write).await.unwrap();
    }
    let file = std::fs::read(&path).unwrap();
    let log = std::fs::read(path.with_extension("db-wal")).unwrap();
    store.close().await.unwrap();
    assert!(log.len() > 10 * 4096, "the writes are not in the log");

    let mut seen = Vec::new();
    for cut in (0..=log.len()).step_by(1999).chain([log.len()]) {
        let copy = folder.path().join("cut.db");
        std::fs::write(&copy, &file).unwrap();
        std::fs::write(copy.with_extension("db-wal"), &log[..cut]).unwrap();
        let store = open(&copy);
        let open = store.load_open().await.unwrap();
        let rows = open.first().map_or(0, |update| update.entries.len());
        let events = store.page(0, 99, &EventFilter::default()).await.unwrap();
        assert_eq!(events.len(), rows, "cut at {cut}");
        assert_eq!(store.check().await.unwrap(), [""; 0], "cut at {cut}");
        seen.push(rows);
        store.close().await.unwrap();
    }
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert_eq!(seen, (0..=10).collect::<Vec<_>>());
}
