//! Much of one kind: what a snapshot may be written with, it can be read with.

use fleet_core::ports::{NoProgress, SnapshotStore};
use fleet_docker::volume::PreCopy;

use crate::support::{Place, id, sh};

/// A list of 17 MB of names that went away or changed between the passes.
#[tokio::test]
async fn a_snapshot_with_any_number_of_changes_can_be_read() {
    let place = Place::forced(PreCopy::Always);
    // Paths of 4,000 bytes.
    sh(
        &place.volume(),
        "long=$(printf 'n%.0s' {1..245}); for i in {1..15}; do mkdir $long; cd $long; done
         for i in {1..4400}; do : > $long$i; done",
    );
    let request = place.request(1);
    place.store.pre_copy(&request, &NoProgress).await.unwrap();
    sh(
        &place.volume(),
        "find . -type f -exec touch -d 2001-01-01 {} +",
    );
    let info = place.take(1).await.unwrap();
    let removed = place.snapshots().join("web").join(id(1).to_string());
    let removed = removed.join("data.removed").metadata().unwrap().len();
    assert!(removed > 16 << 20, "{removed}");
    assert_eq!(place.store.verify(&id(1)).await.unwrap(), info);
}
