//! Several processes on one file.

use std::path::Path;

use fleet_core::ports::{EventStore, Journal, JournalError, JournalWrite};
use fleet_core::testing::conformance::fixtures::{
    event, instance, new_update, rows, started, update_id,
};
use fleet_core::update::Step;
use fleet_sqlite::{OpenOptions, SqliteStore};
use tempfile::TempDir;

use crate::child;

const ROUNDS: u8 = 40;

#[tokio::test]
async fn whoever_takes_the_lease_stops_the_one_before() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let first = SqliteStore::open(&path, OpenOptions::default().with_lease("first")).unwrap();
    first.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    let second = SqliteStore::open(&path, OpenOptions::default().with_lease("second")).unwrap();

    let write = rows(0, vec![started(1, Step::Stop)]);
    let refused = first.append(&update_id(1), write.clone()).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("epoch 2 held by second"), "{message}");
    let refused = first.record(vec![event(1)]).await;
    assert!(refused.is_err(), "a fenced store recorded an event");
    assert_eq!(first.load_open().await.unwrap().len(), 1, "reading goes on");

    second.append(&update_id(1), write).await.unwrap();
    let third = SqliteStore::open(&path, OpenOptions::default().with_lease("first")).unwrap();
    assert!(second.record(vec![event(1)]).await.is_err());
    third.record(vec![event(1)]).await.unwrap();
}

/// Updates the same instance as the others, as often as it gets the chance; says how often it did.
async fn compete(path: &Path, base: u8) {
    let store = SqliteStore::open(path, OpenOptions::default()).unwrap();
    let mut won = 0;
    for n in base..base + ROUNDS {
        match store.open(&new_update(n, &["a"]), vec![]).await {
            Ok(()) => won += 1,
            Err(JournalError::LiveUpdate { .. }) => continue,
            Err(error) => panic!("{error}"),
        }
        let open = store.load_open().await.unwrap();
        assert_eq!(open.len(), 1, "two live updates of one instance");
        assert_eq!(open[0].plan.id, update_id(n));
        let close = JournalWrite {
            close: true,
            ..rows(0, vec![started(n, Step::Admit)])
        };
        store.append(&update_id(n), close).await.unwrap();
    }
    child::say(&won.to_string());
}

#[tokio::test]
async fn processes_that_compete_never_have_two_live_updates() {
    if let Some((base, path)) = child::role() {
        return compete(&path, base.parse().unwrap()).await;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let test = "processes::processes_that_compete_never_have_two_live_updates";
    // All of them find no file: they make it at once, too.
    let children: Vec<_> = ["0", "100", "200"]
        .into_iter()
        .map(|base| child::command(&child::this_program(), test, base, &path))
        .map(|command| std::thread::spawn(|| child::run(command)))
        .collect();
    let won: usize = children
        .into_iter()
        .flat_map(|child| child.join().unwrap())
        .map(|said| said.parse::<usize>().unwrap())
        .sum();
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    let history = store.history(&instance("a"), u32::MAX).await.unwrap();
    assert_eq!(history.len(), won);
    assert!(won > 0, "nobody ever got the instance");
    assert!(
        history
            .iter()
            .all(|update| update.closed && update.entries.len() == 1)
    );
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_each_write_at_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let writer = SqliteStore::open(&path, OpenOptions::default().with_lease("daemon")).unwrap();
    let reader = SqliteStore::open(&path, OpenOptions::read_only()).unwrap();
    for n in 1..=5 {
        let name = format!("i{n}");
        writer.open(&new_update(n, &[&name]), vec![]).await.unwrap();
        assert_eq!(reader.load_open().await.unwrap().len(), usize::from(n));
    }
}
