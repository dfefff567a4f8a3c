//! Snapshots that somebody made by hand, with hashes that agree: nothing is touched, inside the volume or outside.

use std::path::{Path, PathBuf};

use fleet_core::ports::{PortErrorKind, SnapshotStore};
use fleet_docker::volume::PreCopy;
use proptest::prelude::*;

use crate::support::{Place, assert_same_portrait, id, portrait, sh};

async fn snapshot() -> (Place, PathBuf) {
    let place = Place::forced(PreCopy::Never);
    sh(
        &place.volume(),
        "mkdir dir; echo inside > dir/file; ln dir/file link; ln -s dir sym; mkfifo pipe; truncate -s 1M hole; echo z > zz",
    );
    place.take(1).await.unwrap();
    let dir = place.snapshots().join("web").join(id(1).to_string());
    (place, dir)
}

/// Makes hashes and lengths agree with what the files are now.
fn seal(dir: &Path) {
    sh(
        dir,
        r#"
        for part in base:data.tar.zst list:data.entries.jsonl.zst; do
            key=${part%%:*}; file=${part#*:}
            sum=$(sha256sum $file | cut -d' ' -f1); bytes=$(stat -c %s $file); raw=$(zstd -dc $file | wc -c)
            jq ".volumes[0].$key.sha256=\"$sum\" | .volumes[0].$key.bytes=$bytes | .volumes[0].$key.raw_bytes=$raw" \
                manifest.json > m
            cat m > manifest.json; rm m
        done
        files=$(awk '{print $2}' SHA256SUMS); sha256sum $files > s; cat s > SHA256SUMS; rm s
        "#,
    );
}

/// Rewrites the list with `sed`.
fn edit_list(dir: &Path, sed: &str) {
    let script = format!(
        "zstd -dc data.entries.jsonl.zst > l; cp l old; sed -i -E {sed} l; ! cmp -s l old; zstd -qf l -o data.entries.jsonl.zst; rm l old"
    );
    sh(dir, &script);
}

async fn assert_refused(place: &Place, what: &str) {
    let before = portrait(&place.volume());
    let error = place.restore(1).await.expect_err(what);
    assert_eq!(error.kind(), PortErrorKind::Corrupt, "{what}: {error}");
    assert_same_portrait(&before, &portrait(&place.volume()));
}

#[tokio::test]
async fn a_snapshot_sealed_again_without_a_change_is_taken() {
    let (place, dir) = snapshot().await;
    seal(&dir);
    place.restore(1).await.unwrap();
}

#[tokio::test]
async fn hostile_lists_are_refused() {
    for (what, sed) in [
        ("an absolute path", r#"'s|"path":"zz"|"path":"/tmp/zz"|'"#),
        (
            "a path that climbs",
            r#"'s|"path":"zz"|"path":"zz/../../evil"|'"#,
        ),
        ("a path with a NUL", r#"'s|"path":"zz"|"path":"zz%00"|'"#),
        (
            "a file through a symlink",
            r#"'s|"path":"zz"|"path":"sym/zz"|'"#,
        ),
        (
            "a link to what lies outside",
            r#"'s|"to":"dir/file"|"to":"../../etc/passwd"|'"#,
        ),
        (
            "a link to a symlink's target",
            r#"'s|"to":"dir/file"|"to":"sym/file"|'"#,
        ),
        (
            "a device that was a pipe",
            r#"'s|"type":"fifo"|"type":"block","major":7,"minor":0|'"#,
        ),
        (
            "setuid that was not there",
            r#"'/"zz"/s|"mode":420|"mode":2541|'"#,
        ),
        (
            "another size",
            r#"'/"zz"/s|"size":2|"size":4000000000000|'"#,
        ),
        (
            "holes beyond the end",
            r#"'s|"data":\[\]|"data":[[0,9999999]]|'"#,
        ),
        ("another owner", r#"'/"zz"/s|"uid":0|"uid":1|'"#),
        ("another hash", r#"'/"zz"/s|"sha256":"...|"sha256":"000|'"#),
        ("a missing line", r#"'/"zz"/d'"#),
        ("a line that is not JSON", r#"'s|^.*"zz"|}|'"#),
    ] {
        let (place, dir) = snapshot().await;
        edit_list(&dir, sed);
        seal(&dir);
        assert_refused(&place, what).await;
    }
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    for (what, script) in [
        ("an archive of other things", "tar -cf t /etc/hostname"),
        ("a device", "mknod n b 7 0; tar -cf t n; rm n"),
        (
            "a path that climbs",
            "tar -cPf t ../../../../../../etc/hostname",
        ),
        ("a member more", "echo x > x; tar --append -f t x; rm x"),
        ("nothing", ": > t"),
        ("more zeros after the end", "truncate -s +1M t"),
        ("content of another length", "truncate -s -1024 t"),
    ] {
        let (place, dir) = snapshot().await;
        let script =
            format!("zstd -dqc data.tar.zst > t; {script}; zstd -qf t -o data.tar.zst; rm t");
        sh(&dir, &script);
        seal(&dir);
        assert_refused(&place, what).await;
    }
}

#[tokio::test]
async fn a_bomb_is_refused_without_being_unpacked() {
    let (place, dir) = snapshot().await;
    sh(
        &dir,
        "truncate -s 2G z; zstd -1 -qf z -o data.tar.zst; rm z",
    );
    seal(&dir);
    assert_refused(&place, "two gigabytes of zeros").await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any bytes in place of any part of list or archive, with hashes that agree: an answer, never a panic, and never
    /// another volume.
    #[test]
    fn any_bytes_are_refused(
        list in any::<bool>(), at in 0.0..1.0f64, bytes in proptest::collection::vec(any::<u8>(), 1..64),
        compressed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (place, dir) = snapshot().await;
            let name = if list { "data.entries.jsonl.zst" } else { "data.tar.zst" };
            let path = dir.join(if compressed { name } else { "raw" });
            if !compressed {
                sh(&dir, &format!("zstd -dqc {name} > raw"));
            }
            let mut content = std::fs::read(&path).unwrap();
            let old = content.clone();
            let start = ((content.len() - 1) as f64 * at) as usize;
            let end = content.len().min(start + bytes.len());
            content[start..end].copy_from_slice(&bytes[..end - start]);
            std::fs::write(&path, &content).unwrap();
            if !compressed {
                sh(&dir, &format!("zstd -qf raw -o {name}; rm raw"));
                seal(&dir);
            }
            let before = portrait(&place.volume());
            if place.restore(1).await.is_ok() {
                assert_eq!(old, content);
            }
            assert_same_portrait(&before, &portrait(&place.volume()));
            let _ = place.store.verify(&id(1)).await;
        });
    }

    /// The same for the manifest. One that still can be read, and still is true, may be taken.
    #[test]
    fn any_bytes_in_the_manifest_change_nothing(
        at in 0.0..1.0f64, bytes in proptest::collection::vec(any::<u8>(), 0..32), cut in 0..16usize,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (place, dir) = snapshot().await;
            let path = dir.join("manifest.json");
            let mut content = std::fs::read(&path).unwrap();
            let start = ((content.len() - 1) as f64 * at) as usize;
            let end = content.len().min(start + cut);
            content.splice(start..end, bytes);
            std::fs::write(&path, &content).unwrap();
            sh(
                &dir,
                "files=$(awk '{print $2}' SHA256SUMS); sha256sum $files > s; cat s > SHA256SUMS; rm s",
            );
            let before = portrait(&place.volume());
            let _ = place.restore(1).await;
            let _ = place.store.verify(&id(1)).await;
            let _ = place.store.list(None).await;
            assert_same_portrait(&before, &portrait(&place.volume()));
        });
    }
}
