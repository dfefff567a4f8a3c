//! The port: runs the blocking work on threads of its own, reports progress, and gives the work up when its caller
//! goes away.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::ids::{InstanceId, SnapshotId, VolumeName};
use fleet_core::model::{SnapshotEstimate, SnapshotInfo, VolumeSource};
use fleet_core::ports::{
    NoProgress, PortError, PortErrorKind, Progress, ProgressSink, SnapshotRequest, SnapshotStore,
};
use fleet_core::time::Timestamp;

use super::control::{CancelOnDrop, Control};
use super::error::VolumeError;
use super::exchange::Bench;
use super::files::{Files, OsFiles};
use super::options::{Retention, SnapshotOptions};
use super::work::Work;

/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Snapshots in a folder of this host, of volumes whose mountpoints this process can open.
///
/// Cheap to clone. See the [module](super) for the format and the guarantees.
#[derive(Debug, Clone)]
pub struct LocalSnapshotStore {
    work: Arc<Work>,
}

impl LocalSnapshotStore {
    /// Opens a folder of snapshots; makes it (mode 0700) if its parent is there.
    ///
    /// # Errors
    /// The folder cannot be made or opened.
    pub fn open(dir: &Path, options: SnapshotOptions) -> Result<Self, PortError> {
        Self::open_with(dir, options, Arc::new(OsFiles))
    }

    /// The same with a file port of the caller's, for tests that make calls fail.
    ///
    /// # Errors
    /// The folder cannot be made or opened.
    pub fn open_with(
        dir: &Path,
        options: SnapshotOptions,
        files: Arc<dyn Files>,
    ) -> Result<Self, PortError> {
        let work = Work::open(dir, options, files)
            .map_err(|error| error.into_port("open the folder of snapshots"))?;
        Ok(Self {
            work: Arc::new(work),
        })
    }

    /// The work behind it.
    pub(crate) fn bench(&self) -> Bench {
        Bench::of(self.work.clone())
    }

    /// Removes snapshots by age and count; returns the ids of those removed. The newest whole snapshot of each
    /// instance stays, and so does what the rule protects.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn prune(
        &self,
        rule: &Retention,
        now: Timestamp,
    ) -> Result<Vec<SnapshotId>, PortError> {
        let rule = rule.clone();
        self.run("prune snapshots", move |work, _| work.prune(&rule, now))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        job: impl FnOnce(&Work, &Control) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, PortError> {
        self.run_reporting(op, None, ("", &NoProgress), job).await
    }

    /// Runs a job that belongs to one snapshot, alone among the jobs of that snapshot.
    async fn run_on<T: Send + 'static>(
        &self,
        op: &'static str,
        id: &SnapshotId,
        job: impl FnOnce(&Work, &Control) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, PortError> {
        self.run_reporting(op, Some(*id), ("", &NoProgress), job)
            .await
    }

    async fn run_reporting<T: Send + 'static>(
        &self,
        op: &'static str,
        id: Option<SnapshotId>,
        (what, progress): (&'static str, &dyn ProgressSink),
        job: impl FnOnce(&Work, &Control) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, PortError> {
        let control = Control::new(self.work.options.bytes_per_second);
        let _cancel = CancelOnDrop(control.clone());
        let (work, theirs) = (self.work.clone(), control.clone());
        let mut task = tokio::task::spawn_blocking(move || {
            let lock = id.map(|id| work.lock(&id));
            let _held = lock
                .as_ref()
                .map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
            theirs.check()?;
            job(&work, &theirs)
        });
        let mut reports = tokio::time::interval(REPORT_EVERY);
        let result = loop {
            tokio::select! {
                result = &mut task => break result,
                _ = reports.tick(), if !what.is_empty() => {
                    progress.report(Progress::Bytes { what, done: control.done(), total: 0 });
                }
            }
        };
        match result {
            Ok(result) => result.map_err(|error| error.into_port(op)),
            Err(join) => Err(
                PortError::new(op, PortErrorKind::Failed, "its thread ended early")
                    .with_source(join),
            ),
        }
    }
}

#[async_trait]
impl SnapshotStore for LocalSnapshotStore {
    async fn estimate(&self, volumes: &[VolumeSource]) -> Result<SnapshotEstimate, PortError> {
        let volumes = volumes.to_vec();
        self.run("estimate a snapshot", move |work, _| {
            work.estimate(&volumes)
        })
        .await
    }

    async fn pre_copy(
        &self,
        request: &SnapshotRequest,
        progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        let (id, request) = (request.id, request.clone());
        let to = ("snapshot", progress);
        self.run_reporting("copy volumes ahead", Some(id), to, move |work, control| {
            work.pre_copy(&request, control)
        })
        .await
    }

    async fn take(
        &self,
        request: &SnapshotRequest,
        progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, PortError> {
        let (id, request) = (request.id, request.clone());
        let to = ("snapshot", progress);
        self.run_reporting("take a snapshot", Some(id), to, move |work, control| {
            work.take(&request, control)
        })
        .await
    }

    async fn discard(&self, id: &SnapshotId) -> Result<(), PortError> {
        let of = *id;
        self.run_on("discard a snapshot", id, move |work, _| work.discard(&of))
            .await
    }

    async fn get(&self, id: &SnapshotId) -> Result<Option<SnapshotInfo>, PortError> {
        let id = *id;
        self.run("read a snapshot", move |work, _| work.get(&id))
            .await
    }

    async fn list(&self, instance: Option<&InstanceId>) -> Result<Vec<SnapshotInfo>, PortError> {
        let instance = instance.cloned();
        self.run("list snapshots", move |work, _| {
            work.list(instance.as_ref())
        })
        .await
    }

    async fn verify(&self, id: &SnapshotId) -> Result<SnapshotInfo, PortError> {
        let of = *id;
        self.run_on("verify a snapshot", id, move |work, control| {
            work.verify(&of, control)
        })
        .await
    }

    async fn restore(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        let (of, volumes) = (*id, volumes.to_vec());
        let to = ("restore", progress);
        self.run_reporting("restore a snapshot", Some(of), to, move |work, control| {
            work.restore(&of, &volumes, control)
        })
        .await
    }

    async fn delete(&self, id: &SnapshotId) -> Result<(), PortError> {
        let of = *id;
        self.run_on("delete a snapshot", id, move |work, _| work.delete(&of))
            .await
    }

    async fn differs(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<Vec<VolumeName>, PortError> {
        let (of, volumes) = (*id, volumes.to_vec());
        self.run_on(
            "compare volumes with a snapshot",
            id,
            move |work, control| work.differs(&of, &volumes, control),
        )
        .await
    }
}
