//! The helper over pipes: the same work, its files on the way to another store.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use fleet_core::model::VolumeSource;
use fleet_core::ports::{NoProgress, PortError, PortErrorKind, SnapshotStore};
use fleet_docker::helper::{Access, Connect, Connection, HelperSnapshotStore, serve_in};
use fleet_docker::volume::SnapshotOptions;

use crate::every_kind::{make_every_kind, wreck};
use crate::support::{Place, assert_same_portrait, id, instance, portrait, sh};

/// Helpers in threads, each with a folder of its own; they see the volumes where the tests do.
#[derive(Debug)]
struct Threads {
    dir: PathBuf,
    /// Lines are cut after the next connection is made.
    dies: AtomicBool,
}

#[async_trait]
impl Connect for Threads {
    async fn connect(
        &self,
        _volumes: &[VolumeSource],
        _access: Access,
    ) -> Result<Connection, PortError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir_in(&self.dir).unwrap();
        let output = theirs.try_clone().unwrap();
        std::thread::spawn(move || {
            // A line that is cut ends the helper with an error, which nobody is there to see.
            let _ = serve_in(
                &folder.path().join("snapshots"),
                SnapshotOptions::default(),
                theirs,
                output,
            );
        });
        let cut = ours.try_clone().unwrap();
        if self.dies.load(Ordering::SeqCst) {
            cut.shutdown(std::net::Shutdown::Both).unwrap();
        }
        Ok(Connection {
            to: Box::new(ours.try_clone().unwrap()),
            from: Box::new(ours),
            keep: Box::new(()),
        })
    }

    fn mountpoint(&self, volume: &VolumeSource) -> String {
        volume.mountpoint.clone()
    }
}

fn with_helper() -> (Place, Arc<Threads>, HelperSnapshotStore) {
    let place = Place::new();
    let threads = Arc::new(Threads {
        dir: place.dir.path().to_owned(),
        dies: AtomicBool::new(false),
    });
    let store = HelperSnapshotStore::new(place.store.clone(), threads.clone());
    (place, threads, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_round_through_a_helper() {
    let (place, _, store) = with_helper();
    let volume = place.volume();
    make_every_kind(&volume);
    // Enough that the helper finds a first pass worth it.
    sh(&volume, "for i in {1..4100}; do : > empty-folder/$i; done");
    let request = place.request(1);
    let estimate = store.estimate(&request.volumes).await.unwrap();
    assert!(
        estimate.fits() && estimate.needed_bytes > 300_000,
        "{estimate:?}"
    );
    store.pre_copy(&request, &NoProgress).await.unwrap();
    wreck(&volume);
    let before = portrait(&volume);
    let info = store.take(&request, &NoProgress).await.unwrap();
    assert_eq!(store.take(&request, &NoProgress).await.unwrap(), info);
    let snapshot = place.snapshots().join("web").join(id(1).to_string());
    assert!(snapshot.join("data.delta.tar.zst").exists());
    assert_eq!(store.verify(&id(1)).await.unwrap(), info);
    assert_eq!(
        store.list(Some(&instance())).await.unwrap(),
        std::slice::from_ref(&info)
    );
    assert!(
        store
            .differs(&id(1), &request.volumes)
            .await
            .unwrap()
            .is_empty()
    );
    sh(&volume, "rm -r empty-folder; echo x > y");
    let differing = store.differs(&id(1), &request.volumes).await.unwrap();
    assert_eq!(differing, [place.source().name]);
    store
        .restore(&id(1), &request.volumes, &NoProgress)
        .await
        .unwrap();
    assert_same_portrait(&before, &portrait(&volume));
    store.discard(&id(1)).await.unwrap();
    store.delete(&id(1)).await.unwrap();
    assert_eq!(store.get(&id(1)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_come_back_as_what_they_were() {
    let (place, threads, store) = with_helper();
    let request = place.request(1);
    let mut elsewhere = request.clone();
    elsewhere.volumes[0].mountpoint = "/nowhere/at/all".to_owned();
    let error = store.take(&elsewhere, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::NotFound, "{error}");
    assert_eq!(place.stored(), Vec::<String>::new());
    let error = store
        .restore(&id(9), &request.volumes, &NoProgress)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    threads.dies.store(true, Ordering::SeqCst);
    let error = store.take(&request, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{error}");
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_refused_by_the_helper() {
    let (place, _, store) = with_helper();
    sh(&place.volume(), "seq 100000 > a");
    let request = place.request(1);
    store.take(&request, &NoProgress).await.unwrap();
    let archive = place
        .snapshots()
        .join("web")
        .join(id(1).to_string())
        .join("data.tar.zst");
    let mut content = std::fs::read(&archive).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 4;
    std::fs::write(&archive, content).unwrap();
    let before = portrait(&place.volume());
    let error = store
        .restore(&id(1), &request.volumes, &NoProgress)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Corrupt, "{error}");
    assert_same_portrait(&before, &portrait(&place.volume()));
}
