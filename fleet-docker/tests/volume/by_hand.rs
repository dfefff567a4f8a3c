//! The restore by hand of `docs/snapshots.md`, step by step, with the real `tar`.

use std::path::Path;

use fleet_core::ports::{NoProgress, SnapshotStore};
use fleet_docker::volume::PreCopy;

use crate::every_kind::{make_every_kind, wreck};
use crate::support::{Place, assert_same_portrait, id, portrait, sh};

/// The commands of the page: its one block of shell.
fn commands() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/snapshots.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let (_, rest) = text.split_once("```sh\n").expect("a block of shell");
    let (commands, _) = rest.split_once("```").expect("its end");
    commands.to_owned()
}

async fn check(two_passes: bool) {
    let place = Place::forced(PreCopy::Always);
    let volume = place.volume();
    make_every_kind(&volume);
    if two_passes {
        place
            .store
            .pre_copy(&place.request(1), &NoProgress)
            .await
            .unwrap();
        wreck(&volume);
    }
    let info = place.take(1).await.unwrap();
    let snapshot = place.snapshots().join("web").join(id(1).to_string());
    assert_eq!(
        snapshot.join("data.removed").exists(),
        two_passes,
        "{info:?}"
    );
    let target = place.dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let variables = format!(
        "SNAPSHOT={} VOLUME=data TARGET={}\n",
        snapshot.display(),
        target.display()
    );
    sh(Path::new("/"), &(variables + &commands()));
    assert_same_portrait(&portrait(&volume), &portrait(&target));
}

#[tokio::test]
async fn one_pass_can_be_restored_by_hand() {
    check(false).await;
}

#[tokio::test]
async fn two_passes_can_be_restored_by_hand() {
    check(true).await;
}
