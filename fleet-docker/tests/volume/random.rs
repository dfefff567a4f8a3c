//! Random trees and random changes between the two passes: a restore gives the tree of the stop.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use fleet_core::ports::{NoProgress, SnapshotStore};
use fleet_docker::volume::PreCopy;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Place, assert_same_portrait, portrait};

/// One change of a tree. Those that cannot be made (no such name) change nothing.
#[derive(Debug, Clone)]
enum Change {
    Write(Name, u8, u16),
    Append(Name, u8),
    Hole(Name, u32),
    Folder(Name),
    Remove(Name),
    Rename(Name, Name),
    Link(Name, Name),
    Symlink(Name, Name),
    Mode(Name, u32),
    Attribute(Name, u8),
    NoAttribute(Name),
    Time(Name, u32),
}

type Name = Vec<u8>;

fn name() -> impl Strategy<Value = Name> {
    vec(0..4u8, 1..4)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (name(), any::<u8>(), any::<u16>()).prop_map(|(n, b, l)| Change::Write(n, b, l)),
        2 => (name(), any::<u8>()).prop_map(|(n, b)| Change::Append(n, b)),
        1 => (name(), 0..200_000u32).prop_map(|(n, l)| Change::Hole(n, l)),
        4 => name().prop_map(Change::Folder),
        2 => name().prop_map(Change::Remove),
        3 => (name(), name()).prop_map(|(a, b)| Change::Rename(a, b)),
        3 => (name(), name()).prop_map(|(a, b)| Change::Link(a, b)),
        1 => (name(), name()).prop_map(|(a, b)| Change::Symlink(a, b)),
        1 => (name(), 0..0o10_000u32).prop_map(|(n, m)| Change::Mode(n, m)),
        1 => (name(), any::<u8>()).prop_map(|(n, v)| Change::Attribute(n, v)),
        1 => name().prop_map(Change::NoAttribute),
        1 => (name(), any::<u32>()).prop_map(|(n, t)| Change::Time(n, t)),
    ]
}

fn path(root: &Path, name: &[u8]) -> PathBuf {
    let parts = name
        .iter()
        .map(|part| ["a", "b", "c", "b.c"][usize::from(*part)]);
    parts.fold(root.to_owned(), |path, part| path.join(part))
}

fn apply(root: &Path, change: &Change) {
    let at = |name: &Name| path(root, name);
    let attribute = |name: &Name| (at(name), "user.note");
    // What cannot be done is left undone; the shape of the tree decides.
    let _ = match change {
        Change::Write(n, byte, len) => fs::write(at(n), vec![*byte; usize::from(*len)]),
        Change::Append(n, byte) => fs::read(at(n)).and_then(|mut content| {
            content.push(*byte);
            fs::write(at(n), content)
        }),
        Change::Hole(n, len) => fs::File::options()
            .write(true)
            .open(at(n))
            .and_then(|file| file.set_len(u64::from(*len))),
        Change::Folder(n) => fs::create_dir(at(n)),
        Change::Remove(n) => fs::remove_dir_all(at(n)).or_else(|_| fs::remove_file(at(n))),
        Change::Rename(a, b) => fs::rename(at(a), at(b)),
        Change::Link(a, b) => fs::hard_link(at(a), at(b)),
        Change::Symlink(a, b) => symlink(at(a), at(b)),
        Change::Mode(n, mode) => fs::set_permissions(at(n), fs::Permissions::from_mode(*mode)),
        Change::Attribute(n, value) => {
            let (path, name) = attribute(n);
            rustix::fs::lsetxattr(path, name, &[*value], rustix::fs::XattrFlags::empty())
                .map_err(Into::into)
        }
        Change::NoAttribute(n) => {
            let (path, name) = attribute(n);
            rustix::fs::lremovexattr(path, name).map_err(Into::into)
        }
        Change::Time(n, seconds) => fs::File::open(at(n)).and_then(|file| {
            let since = std::time::Duration::from_secs(u64::from(*seconds));
            file.set_modified(std::time::UNIX_EPOCH + since)
        }),
    };
}

async fn check(pre_copy: PreCopy, first: &[Change], then: &[Change]) {
    let place = Place::forced(pre_copy);
    let volume = place.volume();
    first.iter().for_each(|change| apply(&volume, change));
    place
        .store
        .pre_copy(&place.request(1), &NoProgress)
        .await
        .unwrap();
    then.iter().for_each(|change| apply(&volume, change));
    let before = portrait(&volume);
    place.take(1).await.unwrap();
    first.iter().for_each(|change| apply(&volume, change));
    place.restore(1).await.unwrap();
    assert_same_portrait(&before, &portrait(&volume));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn two_passes_give_the_tree_of_the_stop(first in vec(change(), 0..40), then in vec(change(), 0..25)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(check(PreCopy::Always, &first, &then));
    }

    #[test]
    fn one_pass_gives_the_tree_of_the_stop(first in vec(change(), 0..40), then in vec(change(), 0..10)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(check(PreCopy::Never, &first, &then));
    }
}
