//! The store through its port: take, list, get, verify, restore, delete, discard, prune.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::model::Consistency;
use fleet_core::ports::{NoProgress, PortErrorKind, SnapshotStore};
use fleet_core::time::Timestamp;
use fleet_docker::volume::{LocalSnapshotStore, OsFiles, PreCopy, Retention, SnapshotOptions};

use crate::support::{Place, assert_same_portrait, id, instance, portrait, sh};

#[tokio::test]
async fn a_snapshot_brings_the_volume_back() {
    let place = Place::new();
    sh(
        &place.volume(),
        "mkdir a; echo one > a/one; ln -s a/one link; chmod 1777 .; touch -d 2001-01-01 a",
    );
    let before = portrait(&place.volume());
    let info = place.take(1).await.unwrap();
    assert!(info.verified);
    assert_eq!(info.volumes[0].entries, 4);
    assert_eq!(info.volumes[0].bytes, 4);
    sh(
        &place.volume(),
        "rm -r a; echo two > link2; mkdir -p b/c; chmod 700 .",
    );
    place.restore(1).await.unwrap();
    assert_same_portrait(&before, &portrait(&place.volume()));
    let differs = place
        .store
        .differs(&id(1), &[place.source()])
        .await
        .unwrap();
    assert!(differs.is_empty());
}

#[tokio::test]
async fn what_is_asked_of_the_store_is_answered() {
    let place = Place::new();
    sh(&place.volume(), "echo one > one");
    assert_eq!(place.store.get(&id(1)).await.unwrap(), None);
    assert!(place.store.verify(&id(1)).await.unwrap_err().is_not_found());
    let estimate = place.store.estimate(&[place.source()]).await.unwrap();
    assert!(estimate.fits() && estimate.needed_bytes > 4, "{estimate:?}");
    let first = place.take(1).await.unwrap();
    assert_eq!(place.take(1).await.unwrap(), first);
    let second = place.take(2).await.unwrap();
    assert_ne!(first.manifest_sha256, second.manifest_sha256);
    assert_eq!(
        place.store.list(None).await.unwrap(),
        [first.clone(), second]
    );
    assert_eq!(place.store.get(&id(1)).await.unwrap(), Some(first.clone()));
    assert_eq!(place.store.verify(&id(1)).await.unwrap(), first);
    sh(&place.volume(), "echo two > one");
    let differs = place
        .store
        .differs(&id(1), &[place.source()])
        .await
        .unwrap();
    assert_eq!(differs, [place.source().name]);
    place.store.delete(&id(2)).await.unwrap();
    place.store.delete(&id(2)).await.unwrap();
    assert_eq!(place.store.list(Some(&instance())).await.unwrap(), [first]);
    place.store.discard(&id(3)).await.unwrap();
}

#[tokio::test]
async fn folders_are_0700_and_files_0600() {
    let place = Place::new();
    place.take(1).await.unwrap();
    for path in place.stored() {
        let meta = place.snapshots().join(&path).metadata().unwrap();
        let mode = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
    }
    let mode = place.snapshots().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[tokio::test]
async fn sha256sum_agrees_with_the_store() {
    let place = Place::new();
    sh(&place.volume(), "head -c 5000000 /dev/urandom > random");
    let info = place.take(1).await.unwrap();
    let dir = place.snapshots().join("web").join(id(1).to_string());
    let checked = sh(&dir, "sha256sum -c SHA256SUMS");
    assert_eq!(checked.lines().count(), 4, "{checked}");
    assert!(sh(&dir, "cat SHA256SUMS").contains(&info.manifest_sha256));
}

#[tokio::test]
async fn prune_keeps_the_last_good_one() {
    let place = Place::new();
    for n in 1..=4 {
        place.take(n).await.unwrap();
    }
    // The newest is damaged: the one before it is the last good one.
    let newest = place.snapshots().join("web").join(id(4).to_string());
    sh(&newest, "truncate -s 10 data.tar.zst");
    let rule = Retention {
        keep: Some(0),
        max_age: Some(Duration::from_secs(1)),
        protected: vec![id(1)],
    };
    let now = Timestamp::from_millis(1_800_000_000_000);
    let removed = place.store.prune(&rule, now).await.unwrap();
    assert_eq!(removed, [id(2), id(4)]);
    let left: Vec<_> = place
        .store
        .list(None)
        .await
        .unwrap()
        .into_iter()
        .map(|i| i.id)
        .collect();
    assert_eq!(left, [id(1), id(3)]);
    let rule = Retention {
        keep: Some(3),
        ..Retention::default()
    };
    assert_eq!(place.store.prune(&rule, now).await.unwrap(), []);
}

#[tokio::test]
async fn prune_keeps_the_last_clean_one_whatever_was_copied_hot_since() {
    let place = Place::new();
    place.take(1).await.unwrap();
    let mut hot = place.request(2);
    hot.consistency = Consistency::Hot;
    place.store.take(&hot, &NoProgress).await.unwrap();
    let rule = Retention {
        keep: Some(0),
        ..Retention::default()
    };
    let now = Timestamp::from_millis(1_800_000_000_000);
    assert_eq!(place.store.prune(&rule, now).await.unwrap(), [id(2)]);
}

#[tokio::test]
async fn a_volume_that_is_not_mounted_is_neither_copied_nor_filled() {
    let place = Place::new();
    sh(&place.volume(), "echo one > one");
    let info = place.take(1).await.unwrap();
    sh(&place.volume(), "echo two > two");
    let before = portrait(&place.volume());
    let mut on_use = place.source();
    on_use
        .options
        .insert("device".to_owned(), "/srv/data".to_owned());
    let restored = place
        .store
        .restore(&info.id, std::slice::from_ref(&on_use), &NoProgress)
        .await;
    let mut request = place.request(2);
    request.volumes = vec![on_use];
    let taken = place.store.take(&request, &NoProgress).await.map(drop);
    for result in [restored, taken] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Failed, "{error}");
        assert!(error.to_string().contains("not mounted"), "{error}");
    }
    assert_same_portrait(&before, &portrait(&place.volume()));
}

#[tokio::test]
async fn a_request_that_cannot_be_right_is_refused() {
    let place = Place::new();
    let mut request = place.request(1);
    request.volumes.push(place.source());
    let error = place.store.take(&request, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Invalid, "{error}");
    let mut request = place.request(1);
    request.volumes[0].driver = "nfs".to_owned();
    let error = place.store.take(&request, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unsupported, "{error}");
    let mut request = place.request(1);
    request.volumes[0].mountpoint = "relative".to_owned();
    let error = place.store.take(&request, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Invalid, "{error}");
    assert_eq!(place.stored(), Vec::<String>::new());
}

/// What a killed copy and a killed deletion leave goes with the first act of the next process; what is being made stays.
#[tokio::test]
async fn what_nobody_works_on_any_more_is_removed() {
    let place = Place::forced(PreCopy::Always);
    sh(&place.volume(), "echo one > one");
    let waiting = place.request(1);
    place.store.pre_copy(&waiting, &NoProgress).await.unwrap();
    place.take(2).await.unwrap();
    sh(
        &place.snapshots(),
        "mkdir .tmp-killed .tmp-killed.aside; echo x > .tmp-killed/data.tar.zst; cp -r web/snap_* .tmp-deleted",
    );
    let next = |place: &Place| {
        LocalSnapshotStore::open(&place.snapshots(), SnapshotOptions::default()).unwrap()
    };
    // Looking removes nothing.
    next(&place).list(None).await.unwrap();
    assert!(place.snapshots().join(".tmp-killed").exists());
    let other = next(&place);
    other.take(&place.request(3), &NoProgress).await.unwrap();
    let hidden = || sh(&place.snapshots(), "ls -d .tmp-* || true");
    assert_eq!(hidden(), format!(".tmp-{}\n", id(1)));
    // The first pass was whole and waits; one that is not is kept as long as its process lives.
    let first_pass = place
        .snapshots()
        .join(format!(".tmp-{}/first-pass.json", id(1)));
    std::fs::rename(&first_pass, first_pass.with_extension("aside")).unwrap();
    next(&place).delete(&id(3)).await.unwrap();
    assert_eq!(hidden(), format!(".tmp-{}\n", id(1)));
    std::fs::rename(first_pass.with_extension("aside"), &first_pass).unwrap();
    place.take(1).await.unwrap();
    assert_eq!(hidden(), "");
    // Once its process is gone, it goes.
    place
        .store
        .pre_copy(&place.request(4), &NoProgress)
        .await
        .unwrap();
    std::fs::remove_file(
        place
            .snapshots()
            .join(format!(".tmp-{}/first-pass.json", id(4))),
    )
    .unwrap();
    next(&place).delete(&id(1)).await.unwrap();
    assert_eq!(hidden(), format!(".tmp-{}\n", id(4)));
    let Place { dir, store } = place;
    drop(store);
    let again = Place::at(dir, SnapshotOptions::default(), Arc::new(OsFiles));
    again.store.delete(&id(2)).await.unwrap();
    assert!(!again.snapshots().join(format!(".tmp-{}", id(4))).exists());
}
