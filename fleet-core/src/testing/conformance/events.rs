//! The event log: order, paging, filters.

use super::fixtures::{at, event, instance, tenant};
use crate::ids::{HostId, InstanceId, RolloutId, UpdateId};
use crate::ports::{EventFilter, EventStore};
use crate::record::{EventKind, NewEvent};

/// What every [`EventStore`] must do.
///
/// # Panics
/// It does not.
pub async fn events<S: EventStore>(fresh: impl AsyncFn() -> S) {
    events_read_back_as_written(&fresh().await).await;
    pages_join_without_gap_or_overlap(&fresh().await).await;
    filters_hold_together(&fresh().await).await;
}

async fn events_read_back_as_written(store: &impl EventStore) {
    store.record(vec![]).await.unwrap();
    let mut all: Vec<NewEvent> = EventKind::ALL
        .iter()
        .map(|kind| NewEvent::new(at(1), kind.clone(), "fleet"))
        .collect();
    all.push(NewEvent::new(
        at(0),
        EventKind::from("moon.landed".to_owned()),
        "newer",
    ));
    all.push(NewEvent {
        tenant: Some(tenant("acme")),
        instance: Some(instance("a")),
        rollout: Some(RolloutId::new(at(1), [1; 10])),
        update: Some(UpdateId::new(at(1), [2; 10])),
        data: serde_json::json!({ "reason": "quote ' \" and \u{1f6a2}" }),
        ..event(1)
    });
    store.record(all.clone()).await.unwrap();
    let page = store.page(0, 1000, &EventFilter::default()).await.unwrap();
    let kept: Vec<_> = page.into_iter().map(|event| event.event).collect();
    assert_eq!(kept, all);
}

async fn pages_join_without_gap_or_overlap(store: &impl EventStore) {
    for n in 0..7 {
        store.record(vec![event(n)]).await.unwrap();
    }
    let mut after = 0;
    let mut read = Vec::new();
    loop {
        let page = store.page(after, 3, &EventFilter::default()).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = last.sequence;
        read.extend(page.into_iter().map(|event| event.event));
    }
    assert_eq!(read, [0, 1, 2, 3, 4, 5, 6].map(event));
    let none = EventFilter::default();
    assert_eq!(store.page(u64::MAX, 9, &none).await.unwrap(), []);
    assert_eq!(store.page(0, 0, &none).await.unwrap(), []);
}

async fn filters_hold_together(store: &impl EventStore) {
    let remote = InstanceId {
        host: HostId::new("remote").unwrap(),
        ..instance("a")
    };
    let of = |n: u8, owner: &str, instance: Option<InstanceId>| NewEvent {
        tenant: Some(tenant(owner)),
        instance,
        ..event(n)
    };
    let all = vec![
        of(5, "acme", Some(instance("a"))),
        of(1, "acme", Some(instance("b"))),
        of(2, "zeta", Some(instance("a"))),
        of(3, "acme", Some(remote)),
        of(4, "acme", None),
        event(6),
    ];
    store.record(all.clone()).await.unwrap();
    let check = async |tenant: Option<&str>, instance: Option<&str>, since, expect: &[u8]| {
        let filter = EventFilter {
            tenant: tenant.map(str::to_owned),
            instance: instance.map(str::to_owned),
            since,
            ..EventFilter::default()
        };
        let page = store.page(0, 9, &filter).await.unwrap();
        let found: Vec<_> = page
            .into_iter()
            .map(|e| e.event.data["n"].clone())
            .collect();
        assert_eq!(found, expect, "{filter:?}");
    };
    check(None, None, None, &[5, 1, 2, 3, 4, 6]).await;
    check(Some("acme"), None, None, &[5, 1, 3, 4]).await;
    check(None, Some("a"), None, &[5, 2]).await;
    check(None, Some("remote/a"), None, &[3]).await;
    check(Some("acme"), Some("a"), None, &[5]).await;
    check(None, None, Some(at(4)), &[5, 4, 6]).await;
    check(Some("acme"), None, Some(at(3)), &[5, 3, 4]).await;
    check(Some("nobody"), None, None, &[]).await;
    check(None, Some("x' OR 1=1 --"), None, &[]).await;
    let page = async |kinds: Vec<EventKind>| {
        let filter = EventFilter {
            kinds,
            ..EventFilter::default()
        };
        store.page(0, 9, &filter).await.unwrap().len()
    };
    let kind = all[0].kind.clone();
    let other = EventKind::Unknown("x') OR (1=1".to_owned());
    assert_eq!(page(vec![other.clone()]).await, 0);
    assert_eq!(page(vec![other, kind]).await, all.len());
}
