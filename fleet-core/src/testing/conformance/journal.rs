//! The journal: one live update per instance, compare-and-swap, all or nothing.

use futures::future::join_all;

use super::fixtures::{event, instance, new_update, rows, started, update_id};
use super::journal_rows;
use crate::ids::{HostId, InstanceId};
use crate::ports::{EventFilter, EventStore, Journal, JournalError, JournalWrite};
use crate::update::{Outcome, Step};

/// What every [`Journal`] must do.
///
/// # Panics
/// It does not.
pub async fn journal<S: Journal + EventStore>(fresh: impl AsyncFn() -> S) {
    an_empty_journal_has_nothing(&fresh().await).await;
    an_instance_has_one_live_update(&fresh().await).await;
    a_group_is_taken_whole_or_not_at_all(&fresh().await).await;
    hosts_keep_equal_names_apart(&fresh().await).await;
    plans_that_cannot_be_kept_are_refused(&fresh().await).await;
    one_of_many_that_open_at_once_wins(&fresh().await).await;
    a_stale_writer_is_overtaken(&fresh().await).await;
    one_of_many_that_append_at_once_wins(&fresh().await).await;
    only_open_updates_can_be_written_to(&fresh().await).await;
    outcome_and_dirty_volumes_stay(&fresh().await).await;
    open_updates_come_oldest_first(&fresh().await).await;
    history_comes_newest_first_and_bounded(&fresh().await).await;
    journal_rows::all(fresh).await;
}

async fn events_of(store: &impl EventStore) -> usize {
    let page = store.page(0, 1000, &EventFilter::default()).await;
    page.unwrap().len()
}

async fn close(store: &impl Journal, n: u8, expected_rows: u32) {
    let close = JournalWrite {
        close: true,
        outcome: Some(Outcome::Committed),
        expected_rows,
        ..JournalWrite::default()
    };
    store.append(&update_id(n), close).await.unwrap();
}

async fn an_empty_journal_has_nothing(store: &impl Journal) {
    assert_eq!(store.load_open().await.unwrap(), []);
    assert_eq!(store.load(&update_id(1)).await.unwrap(), None);
    assert_eq!(store.history(&instance("a"), 9).await.unwrap(), []);
    assert_eq!(store.quarantined(&instance("a")).await.unwrap(), []);
    assert_eq!(store.deployed().await.unwrap(), []);
}

async fn an_instance_has_one_live_update<S: Journal + EventStore>(store: &S) {
    store
        .open(&new_update(1, &["a"]), vec![event(1)])
        .await
        .unwrap();
    let again = store.open(&new_update(2, &["a"]), vec![event(2)]).await;
    match again {
        Err(JournalError::LiveUpdate {
            instance: busy,
            update,
        }) => assert_eq!((busy, update), (instance("a"), update_id(1))),
        other => panic!("expected LiveUpdate, found {other:?}"),
    }
    assert_eq!(store.load(&update_id(2)).await.unwrap(), None);
    assert_eq!(events_of(store).await, 1, "a refused open leaves no event");

    close(store, 1, 0).await;
    let free = store.open(&new_update(2, &["a"]), vec![]).await;
    assert!(free.is_ok(), "a closed update frees its instance: {free:?}");
}

async fn a_group_is_taken_whole_or_not_at_all(store: &impl Journal) {
    store.open(&new_update(1, &["b"]), vec![]).await.unwrap();
    let group = store.open(&new_update(2, &["a", "b", "c"]), vec![]).await;
    assert!(
        matches!(&group, Err(JournalError::LiveUpdate { update, .. }) if *update == update_id(1)),
        "expected LiveUpdate of b, found {group:?}"
    );
    store
        .open(&new_update(3, &["a", "c"]), vec![])
        .await
        .unwrap();
    for busy in ["a", "c"] {
        let refused = store.open(&new_update(4, &[busy]), vec![]).await;
        assert!(
            matches!(&refused, Err(JournalError::LiveUpdate { update, .. }) if *update == update_id(3)),
            "expected LiveUpdate of {busy}, found {refused:?}"
        );
    }
    close(store, 3, 0).await;
    for (n, free) in [(5, "a"), (6, "c")] {
        store.open(&new_update(n, &[free]), vec![]).await.unwrap();
    }
}

async fn hosts_keep_equal_names_apart(store: &impl Journal) {
    let mut remote = new_update(2, &["a"]);
    remote.plan.members[0].instance.host = HostId::new("remote").unwrap();
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    store.open(&remote, vec![]).await.unwrap();
    let of_remote = InstanceId {
        host: HostId::new("remote").unwrap(),
        ..instance("a")
    };
    let history = store.history(&of_remote, 9).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].plan, remote.plan);
}

async fn plans_that_cannot_be_kept_are_refused(store: &impl Journal) {
    let refused = |result: Result<(), JournalError>, why: &str| {
        assert!(
            matches!(result, Err(JournalError::Store { .. })),
            "{why}: {result:?}"
        );
    };
    refused(
        store.open(&new_update(1, &[]), vec![]).await,
        "nothing to update",
    );
    let twice = store.open(&new_update(1, &["a", "a"]), vec![]).await;
    assert!(twice.is_err(), "an instance twice in one plan: {twice:?}");
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    close(store, 1, 0).await;
    refused(
        store.open(&new_update(1, &["a"]), vec![]).await,
        "an id used before",
    );
    assert_eq!(store.load_open().await.unwrap(), []);
}

async fn one_of_many_that_open_at_once_wins(store: &impl Journal) {
    let updates: Vec<_> = (1..=8).map(|n| new_update(n, &["a"])).collect();
    let opened = join_all(updates.iter().map(|update| store.open(update, vec![]))).await;
    let won = opened.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{opened:?}");
    assert_eq!(store.load_open().await.unwrap().len(), 1);
}

async fn a_stale_writer_is_overtaken<S: Journal + EventStore>(store: &S) {
    let id = update_id(1);
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    store
        .append(&id, rows(0, vec![started(1, Step::Admit)]))
        .await
        .unwrap();
    for stale in [0, 2] {
        let write = JournalWrite {
            events: vec![event(1)],
            outcome: Some(Outcome::Failed),
            close: true,
            ..rows(stale, vec![started(2, Step::Freeze)])
        };
        match store.append(&id, write).await {
            Err(JournalError::Overtaken {
                update,
                expected,
                found,
            }) => assert_eq!((update, expected, found), (id, stale, 1)),
            other => panic!("expected Overtaken, found {other:?}"),
        }
    }
    let kept = store.load(&id).await.unwrap().unwrap();
    assert_eq!(kept.entries, [started(1, Step::Admit)]);
    assert_eq!((kept.outcome, kept.closed), (None, false));
    assert_eq!(events_of(store).await, 0);
}

async fn one_of_many_that_append_at_once_wins(store: &impl Journal) {
    let id = update_id(1);
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    let writes = (1..=8).map(|n| store.append(&id, rows(0, vec![started(n, Step::Admit)])));
    let appended = join_all(writes).await;
    let won = appended.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{appended:?}");
    assert_eq!(store.load(&id).await.unwrap().unwrap().entries.len(), 1);
}

async fn only_open_updates_can_be_written_to(store: &impl Journal) {
    let unknown = store.append(&update_id(7), rows(0, vec![])).await;
    assert!(
        matches!(unknown, Err(JournalError::NoSuchUpdate(id)) if id == update_id(7)),
        "{unknown:?}"
    );
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    close(store, 1, 0).await;
    let closed = store
        .append(&update_id(1), rows(0, vec![started(1, Step::Admit)]))
        .await;
    assert!(
        matches!(closed, Err(JournalError::Closed(id)) if id == update_id(1)),
        "{closed:?}"
    );
    assert_eq!(
        store.load(&update_id(1)).await.unwrap().unwrap().entries,
        []
    );
}

async fn outcome_and_dirty_volumes_stay(store: &impl Journal) {
    let id = update_id(1);
    store.open(&new_update(1, &["a"]), vec![]).await.unwrap();
    let first = store.load(&id).await.unwrap().unwrap();
    assert!(!first.volumes_dirty);
    let write = JournalWrite {
        volumes_dirty: true,
        outcome: Some(Outcome::NeedsOperator),
        ..JournalWrite::default()
    };
    store.append(&id, write).await.unwrap();
    store.append(&id, JournalWrite::default()).await.unwrap();
    let kept = store.load(&id).await.unwrap().unwrap();
    assert_eq!(kept.outcome, Some(Outcome::NeedsOperator));
    assert!(kept.volumes_dirty && !kept.closed);

    let outcomes = [
        Outcome::Committed,
        Outcome::RolledBack,
        Outcome::Diverged,
        Outcome::Refused,
        Outcome::Failed,
        Outcome::Unchanged,
    ];
    for outcome in outcomes {
        let write = JournalWrite {
            outcome: Some(outcome),
            ..JournalWrite::default()
        };
        store.append(&id, write).await.unwrap();
        let kept = store.load(&id).await.unwrap().unwrap();
        assert_eq!(kept.outcome, Some(outcome));
    }
}

async fn open_updates_come_oldest_first(store: &impl Journal) {
    // The order is that of opening, whatever the clock said then.
    for (n, name) in [(3, "a"), (1, "b"), (2, "c"), (9, "d")] {
        store.open(&new_update(n, &[name]), vec![]).await.unwrap();
    }
    close(store, 1, 0).await;
    let open = store.load_open().await.unwrap();
    let ids: Vec<_> = open.iter().map(|update| update.plan.id).collect();
    assert_eq!(ids, [3, 2, 9].map(update_id));
}

async fn history_comes_newest_first_and_bounded(store: &impl Journal) {
    for n in [1, 2, 3, 4] {
        let group = ["a", "b"];
        let names = if n == 2 { &group[1..] } else { &group[..] };
        store.open(&new_update(n, names), vec![]).await.unwrap();
        close(store, n, 0).await;
    }
    let ids = async |name: &str, limit: u32| -> Vec<_> {
        let history = store.history(&instance(name), limit).await.unwrap();
        history.into_iter().map(|update| update.plan.id).collect()
    };
    assert_eq!(ids("a", 9).await, [4, 3, 1].map(update_id));
    assert_eq!(ids("b", 2).await, [4, 3].map(update_id));
    assert_eq!(ids("a", 0).await, []);
}
