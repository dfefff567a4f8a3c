//! Old events go, their numbers do not come back.

use fleet_core::ports::{EventFilter, EventStore};
use fleet_core::testing::conformance::fixtures::{at, event};
use fleet_sqlite::{OpenOptions, SqliteStore};
use tempfile::TempDir;

async fn kept(store: &SqliteStore) -> Vec<(u64, i64)> {
    let page = store.page(0, 99, &EventFilter::default()).await.unwrap();
    page.into_iter()
        .map(|event| (event.sequence, event.event.data["n"].as_i64().unwrap()))
        .collect()
}

#[tokio::test]
async fn old_events_go_and_their_numbers_do_not_come_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fleet.db");
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    assert_eq!(store.drop_events(at(9), 0).await.unwrap(), 0);

    // The clock went back once: the event after the jump is not older than the one before it.
    let events = [1, 2, 6, 3, 7].map(event).to_vec();
    store.record(events).await.unwrap();
    assert_eq!(store.drop_events(at(1), 0).await.unwrap(), 0);
    assert_eq!(store.drop_events(at(5), 4).await.unwrap(), 1);
    assert_eq!(store.drop_events(at(5), 0).await.unwrap(), 1);
    assert_eq!(store.drop_events(at(5), 0).await.unwrap(), 0);
    assert_eq!(kept(&store).await, [(3, 6), (4, 3), (5, 7)]);

    assert_eq!(store.drop_events(at(99), 0).await.unwrap(), 3);
    store.close().await.unwrap();
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    store.record(vec![event(8)]).await.unwrap();
    assert_eq!(kept(&store).await, [(6, 8)]);
}
