//! Damage of every file of a snapshot is found before the volume is touched.

use std::path::{Path, PathBuf};

use fleet_core::ports::{NoProgress, PortErrorKind, SnapshotStore};
use fleet_docker::volume::PreCopy;

use crate::support::{Place, assert_same_portrait, id, portrait, sh};

/// Offsets tried in each file, spread over it, its ends among them.
const SAMPLES: u64 = 12;

async fn snapshot() -> (Place, PathBuf) {
    let place = Place::forced(PreCopy::Always);
    sh(
        &place.volume(),
        "mkdir a; seq 20000 > a/text; head -c 100000 /dev/urandom > random; echo b > b; ln b c",
    );
    place
        .store
        .pre_copy(&place.request(1), &NoProgress)
        .await
        .unwrap();
    sh(
        &place.volume(),
        "rm random; echo more >> a/text; head -c 50000 /dev/urandom > new",
    );
    place.take(1).await.unwrap();
    sh(&place.volume(), "echo after > after; rm b");
    let dir = place.snapshots().join("web").join(id(1).to_string());
    (place, dir)
}

async fn assert_refused(place: &Place, what: &str) {
    let error = place.restore(1).await.expect_err(what);
    let refused = [PortErrorKind::Corrupt, PortErrorKind::NotFound];
    assert!(refused.contains(&error.kind()), "{what}: {error}");
    place.store.verify(&id(1)).await.expect_err(what);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn any_flipped_bit_is_found() {
    let (place, dir) = snapshot().await;
    let before = portrait(&place.volume());
    assert_eq!(files(&dir).len(), 7);
    for file in files(&dir) {
        let whole = std::fs::read(&file).unwrap();
        let last = whole.len() as u64 - 1;
        for sample in 0..=SAMPLES {
            let offset = usize::try_from(last * sample / SAMPLES).unwrap();
            let mut damaged = whole.clone();
            damaged[offset] ^= 1 << (sample % 8);
            std::fs::write(&file, damaged).unwrap();
            assert_refused(&place, &format!("{} at {offset}", file.display())).await;
        }
        std::fs::write(&file, whole).unwrap();
    }
    assert_same_portrait(&before, &portrait(&place.volume()));
    place.restore(1).await.unwrap();
}

#[tokio::test]
async fn any_cut_or_longer_or_lost_file_is_found() {
    let (place, dir) = snapshot().await;
    let before = portrait(&place.volume());
    for file in files(&dir) {
        let whole = std::fs::read(&file).unwrap();
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&file, &whole[..len]).unwrap();
            assert_refused(&place, &format!("{} cut to {len}", file.display())).await;
        }
        std::fs::write(&file, [&whole[..], &whole[..]].concat()).unwrap();
        assert_refused(&place, &format!("{} twice", file.display())).await;
        std::fs::remove_file(&file).unwrap();
        assert_refused(&place, &format!("{} lost", file.display())).await;
        std::fs::write(&file, whole).unwrap();
    }
    assert_same_portrait(&before, &portrait(&place.volume()));
    place.restore(1).await.unwrap();
}

#[tokio::test]
async fn parts_of_another_snapshot_are_refused() {
    let (place, dir) = snapshot().await;
    place.take(2).await.unwrap();
    let other = place.snapshots().join("web").join(id(2).to_string());
    let before = portrait(&place.volume());
    for name in [
        "data.tar.zst",
        "data.entries.jsonl.zst",
        "manifest.json",
        "SHA256SUMS",
    ] {
        let own = std::fs::read(dir.join(name)).unwrap();
        std::fs::copy(other.join(name), dir.join(name)).unwrap();
        assert_refused(&place, name).await;
        std::fs::write(dir.join(name), own).unwrap();
    }
    for name in ["manifest.json", "SHA256SUMS"] {
        std::fs::copy(other.join(name), dir.join(name)).unwrap();
    }
    assert_refused(&place, "another manifest with its hashes").await;
    assert_same_portrait(&before, &portrait(&place.volume()));
}

/// The first pass left its list; a part of it, or another one, must not decide what is copied.
#[tokio::test]
async fn a_damaged_list_of_the_first_pass_costs_a_second_copy_and_nothing_else() {
    for damage in [
        "truncate -s 0 $list",
        "truncate -s 40 $list",
        // Read before it is replaced: in one pipe the writer may be quicker than the reader.
        "part=$(zstd -dcq $list | sed -n 1,2p); zstd -qfo $list <<< \"$part\"",
    ] {
        let place = Place::forced(PreCopy::Always);
        sh(&place.volume(), "for i in {1..50}; do echo $i > $i; done");
        let request = place.request(1);
        place.store.pre_copy(&request, &NoProgress).await.unwrap();
        let before = portrait(&place.volume());
        let damage = format!("list=$(echo .tmp-*/data.base-entries.jsonl.zst); {damage}");
        sh(&place.snapshots(), &damage);
        let info = place.take(1).await.unwrap();
        assert_eq!(place.store.verify(&id(1)).await.unwrap(), info, "{damage}");
        sh(&place.volume(), "rm 1; echo x > 2");
        place.restore(1).await.unwrap();
        assert_same_portrait(&before, &portrait(&place.volume()));
    }
}
