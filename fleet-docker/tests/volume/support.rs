//! A volume, a store beside it, and independent eyes: `find`, `getfattr`, `sha256sum`, `rsync`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use fleet_core::ids::{InstanceId, InstanceName, SnapshotId, VolumeName};
use fleet_core::model::{Consistency, SnapshotInfo, VolumeSource};
use fleet_core::ports::{NoProgress, PortError, SnapshotRequest, SnapshotStore};
use fleet_core::time::Timestamp;
use fleet_docker::volume::{Files, LocalSnapshotStore, OsFiles, PreCopy, SnapshotOptions};

/// A volume and a store in one temporary folder.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: LocalSnapshotStore,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(SnapshotOptions::default(), Arc::new(OsFiles))
    }

    pub(crate) fn forced(pre_copy: PreCopy) -> Self {
        let options = SnapshotOptions {
            pre_copy,
            ..SnapshotOptions::default()
        };
        Self::with(options, Arc::new(OsFiles))
    }

    pub(crate) fn with(options: SnapshotOptions, files: Arc<dyn Files>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("volume")).expect("a volume");
        Self::at(dir, options, files)
    }

    /// In a folder that holds the volume already.
    pub(crate) fn at(
        dir: tempfile::TempDir,
        options: SnapshotOptions,
        files: Arc<dyn Files>,
    ) -> Self {
        let store = LocalSnapshotStore::open_with(&dir.path().join("snapshots"), options, files)
            .expect("a store");
        Self { dir, store }
    }

    pub(crate) fn volume(&self) -> PathBuf {
        self.dir.path().join("volume")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.dir.path().join("snapshots")
    }

    pub(crate) fn source(&self) -> VolumeSource {
        source("data", &self.volume())
    }

    pub(crate) fn request(&self, n: u8) -> SnapshotRequest {
        request(n, vec![self.source()])
    }

    pub(crate) async fn take(&self, n: u8) -> Result<SnapshotInfo, PortError> {
        self.store.take(&self.request(n), &NoProgress).await
    }

    pub(crate) async fn restore(&self, n: u8) -> Result<(), PortError> {
        self.store
            .restore(&id(n), &[self.source()], &NoProgress)
            .await
    }

    /// Everything below the folder of snapshots, sorted.
    pub(crate) fn stored(&self) -> Vec<String> {
        let out = sh(&self.snapshots(), "find . -mindepth 1 | sort");
        out.lines().map(str::to_owned).collect()
    }
}

pub(crate) fn id(n: u8) -> SnapshotId {
    SnapshotId::new(
        Timestamp::from_millis(1_700_000_000_000 + i64::from(n)),
        [n; 10],
    )
}

pub(crate) fn source(name: &str, path: &Path) -> VolumeSource {
    VolumeSource {
        name: VolumeName::new(name).expect("a name"),
        driver: "local".to_owned(),
        mountpoint: path.to_str().expect("a path").to_owned(),
        options: [("type".to_owned(), "none".to_owned())].into(),
        labels: [("keep".to_owned(), "me".to_owned())].into(),
    }
}

pub(crate) fn instance() -> InstanceId {
    InstanceId::local(InstanceName::new("web").expect("a name"))
}

pub(crate) fn request(n: u8, volumes: Vec<VolumeSource>) -> SnapshotRequest {
    SnapshotRequest {
        id: id(n),
        instance: instance(),
        update: None,
        volumes,
        consistency: Consistency::Clean,
        now: Timestamp::from_millis(1_700_000_000_000 + i64::from(n) * 1000),
        engine_id: "ENGINE".to_owned(),
        spec: Some(serde_json::json!({"Image": "app:1"})),
    }
}

/// Runs a shell script in a folder; its output. A failure ends the test.
#[track_caller]
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .expect("bash");
    assert!(
        out.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What independent tools see of a tree: type, mode, owner, time, size, link and link count; extended attributes
/// (ACLs and capabilities among them); content. Sockets are left out, they cannot be copied.
#[track_caller]
pub(crate) fn portrait(tree: &Path) -> String {
    sh(
        tree,
        r#"
        find . ! -type s -printf '%p\t%y %m %U:%G %T@ %l %n' -a \( ! -type d -printf ' %s' -o -true \) -printf '\n' | sort
        find . -type b -o -type c | sort | xargs -r -d '\n' stat -c '%n %t:%T'
        find . ! -type s -print0 | sort -z | xargs -0r getfattr -h -d -m - -e hex --absolute-names 2>&1
        find . -type f -size -64M -print0 | sort -z | xargs -0r sha256sum
        "#,
    )
}

/// Fails, with what `rsync` would change, unless the trees are the same.
#[track_caller]
pub(crate) fn assert_same_trees(expected: &Path, found: &Path) {
    let script = format!(
        "rsync -aHAXn --exclude=/socket --delete --checksum --itemize-changes {}/ {}/",
        expected.display(),
        found.display()
    );
    assert_eq!(sh(Path::new("/"), &script), "");
}

/// Fails with the first lines that differ.
#[track_caller]
pub(crate) fn assert_same_portrait(expected: &str, found: &str) {
    if expected == found {
        return;
    }
    let differing: Vec<String> = expected
        .lines()
        .filter(|line| !found.lines().any(|other| other == *line))
        .map(|line| format!("- {line}"))
        .chain(
            found
                .lines()
                .filter(|line| !expected.lines().any(|other| other == *line))
                .map(|line| format!("+ {line}")),
        )
        .take(40)
        .collect();
    panic!("the trees differ:\n{}", differing.join("\n"));
}
