//! What `check` found.

use super::fixtures::{at, available, digest};
use crate::ports::{Availability, AvailabilityStore};

/// What every [`AvailabilityStore`] must do.
///
/// # Panics
/// It does not.
pub async fn availability<S: AvailabilityStore>(fresh: impl AsyncFn() -> S) {
    findings_are_replaced_by_instance(&fresh().await).await;
    first_seen_belongs_to_the_digest(&fresh().await).await;
}

async fn findings_are_replaced_by_instance(store: &impl AvailabilityStore) {
    assert_eq!(store.available().await.unwrap(), []);
    let b = available(1, "b", None);
    let first = vec![b.clone(), available(1, "a", Some(digest(1)))];
    store.found(first).await.unwrap();
    let a = Availability {
        behind: Some(false),
        note: Some("held".to_owned()),
        lag: None,
        ..available(2, "a", Some(digest(2)))
    };
    store.found(vec![a.clone()]).await.unwrap();
    store.found(vec![]).await.unwrap();
    assert_eq!(store.available().await.unwrap(), [a, b]);
}

async fn first_seen_belongs_to_the_digest(store: &impl AvailabilityStore) {
    // second, what the registry said, since when that digest is known
    let looks = [
        (1, None, 1),
        (2, Some(1), 2),
        (3, Some(1), 2),
        // The registry is away for a moment: the image does not become young again by that.
        (4, None, 2),
        (5, Some(1), 2),
        (6, Some(2), 6),
        (7, None, 6),
        (8, Some(1), 8),
    ];
    for (second, said, since) in looks {
        let finding = available(second, "a", said.map(digest));
        store.found(vec![finding.clone()]).await.unwrap();
        let expected = Availability {
            first_seen: at(since),
            ..finding
        };
        assert_eq!(store.available().await.unwrap(), [expected]);
    }
}
