//! Fleet's side: a store whose volumes are read and written by a helper, and whose snapshots lie here.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fleet_core::ids::{InstanceId, SnapshotId, VolumeName};
use fleet_core::model::{SnapshotEstimate, SnapshotInfo, VolumeSource};
use fleet_core::ports::{PortError, PortErrorKind, ProgressSink, SnapshotRequest, SnapshotStore};
use serde::de::DeserializeOwned;

use super::exchange::{Received, receive, send};
use super::frame::{self, Tag};
use super::message::{Ask, Failure, FileBegins, WireRequest};
use crate::volume::exchange::{Bench, VolumeFault};
use crate::volume::{LocalSnapshotStore, VolumeError};

/// Makes connections to helpers.
#[async_trait]
pub trait Connect: Send + Sync + fmt::Debug {
    /// Starts a helper that has these volumes at [`Connect::mountpoint`].
    ///
    /// # Errors
    /// No helper could be started.
    async fn connect(
        &self,
        volumes: &[VolumeSource],
        access: Access,
    ) -> Result<Connection, PortError>;

    /// Where the helper has a volume.
    fn mountpoint(&self, volume: &VolumeSource) -> String {
        format!("/volumes/{}", volume.name)
    }
}

/// What a helper may do to its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read them.
    Read,
    /// Put data back.
    Write,
    /// See the processes of the engine's host; no volumes.
    Processes,
}

/// A running helper. Dropping it ends the helper.
pub struct Connection {
    /// To the helper's input.
    pub to: Box<dyn Write + Send>,
    /// From the helper's output.
    pub from: Box<dyn Read + Send>,
    /// Whatever must live as long as the helper is needed.
    pub keep: Box<dyn Send>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Snapshots in a folder of this process, of volumes that only the engine's host can open.
///
/// A helper takes and restores them with the same code as [`LocalSnapshotStore`]; its files come over its pipes and
/// are synced, read back and compared here before a snapshot becomes visible. Between the first pass and the second
/// the helper stays, so that within the stop only what changed travels.
#[derive(Debug, Clone)]
pub struct HelperSnapshotStore {
    local: LocalSnapshotStore,
    connect: Arc<dyn Connect>,
    sessions: Arc<Mutex<HashMap<SnapshotId, Session>>>,
}

/// A helper that has made a first pass, and what came of it.
#[derive(Debug)]
struct Session {
    line: Connection,
    have: Received,
}

/// Why a question was not answered well.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The line broke: the helper is gone.
    Line(io::Error),
    /// The work failed here.
    Here(VolumeError),
    /// The work failed there.
    There(Failure),
}

impl Trouble {
    pub(super) fn into_port(self, op: &'static str) -> PortError {
        match self {
            Self::Line(source) => {
                let message = "the helper went away before it answered";
                PortError::new(op, PortErrorKind::Unreachable, message).with_source(source)
            }
            Self::Here(error) => error.into_port(op),
            Self::There(failure) => failure.into_port(op),
        }
    }
}

impl HelperSnapshotStore {
    /// Over a store that keeps the snapshots.
    #[must_use]
    pub fn new(local: LocalSnapshotStore, connect: Arc<dyn Connect>) -> Self {
        Self {
            local,
            connect,
            sessions: Arc::default(),
        }
    }

    /// The volumes as the helper has them.
    fn theirs(&self, volumes: &[VolumeSource]) -> Vec<VolumeSource> {
        let moved = |volume: &VolumeSource| VolumeSource {
            mountpoint: self.connect.mountpoint(volume),
            ..volume.clone()
        };
        volumes.iter().map(moved).collect()
    }

    fn wire(&self, request: &SnapshotRequest) -> WireRequest {
        let volumes = self.theirs(&request.volumes);
        let request = SnapshotRequest {
            volumes,
            ..request.clone()
        };
        request.into()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SnapshotId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn session(
        &self,
        volumes: &[VolumeSource],
        access: Access,
    ) -> Result<Session, PortError> {
        Ok(Session {
            line: self.connect.connect(volumes, access).await?,
            have: Received::new(),
        })
    }

    /// Sends the files of a snapshot that pass `wanted`, then asks.
    async fn with_files<T: DeserializeOwned + Send + 'static>(
        &self,
        op: &'static str,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        access: Access,
        wanted: fn(&str) -> bool,
        ask: impl FnOnce(SnapshotId, InstanceId, Vec<VolumeSource>) -> Ask + Send + 'static,
    ) -> Result<T, PortError> {
        let mut session = self.session(volumes, access).await?;
        let (bench, id, theirs) = (self.local.bench(), *id, self.theirs(volumes));
        blocking(op, move || {
            let instance = bench.instance_of(&id).map_err(Trouble::Here)?;
            for (name, path) in bench.files_of(&id).map_err(Trouble::Here)? {
                if wanted(&name) {
                    send(&mut session.line.to, id, &name, &path).map_err(Trouble::Here)?;
                }
            }
            session.ask(&bench, &ask(id, instance, theirs))
        })
        .await
    }
}

impl Connection {
    /// Asks what is answered without files.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, ask: &Ask) -> Result<T, Trouble> {
        frame::write_json(&mut self.to, Tag::Request, ask).map_err(Trouble::Line)?;
        match frame::read(&mut self.from).map_err(Trouble::Line)? {
            Some((Tag::Done, content)) => frame::parse(&content).map_err(Trouble::Line),
            Some((Tag::Failed, content)) => Err(Trouble::There(
                frame::parse(&content).map_err(Trouble::Line)?,
            )),
            Some(_) => Err(Trouble::Line(frame::invalid("an answer"))),
            None => Err(Trouble::Line(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl Session {
    /// Asks, keeps the files that come, and returns the answer.
    fn ask<T: DeserializeOwned>(&mut self, bench: &Bench, ask: &Ask) -> Result<T, Trouble> {
        frame::write_json(&mut self.line.to, Tag::Request, ask).map_err(Trouble::Line)?;
        let gone = || Trouble::Line(io::ErrorKind::UnexpectedEof.into());
        loop {
            let read = frame::read(&mut self.line.from).map_err(Trouble::Line)?;
            match read.ok_or_else(gone)? {
                (Tag::File, content) => {
                    let begins: FileBegins = frame::parse(&content).map_err(Trouble::Line)?;
                    let dir = bench.unfinished(&begins.snapshot);
                    let from = &mut self.line.from;
                    let ends =
                        receive(from, &begins, &bench.files(), &dir).map_err(Trouble::Here)?;
                    self.have.insert(begins.name, ends);
                }
                (Tag::Done, content) => return frame::parse(&content).map_err(Trouble::Line),
                (Tag::Failed, content) => {
                    let failure = frame::parse(&content).map_err(Trouble::Line)?;
                    return Err(Trouble::There(failure));
                }
                _ => return Err(Trouble::Line(frame::invalid("a file or an answer"))),
            }
        }
    }

    /// Finishes a snapshot here with what the helper has.
    fn take(
        &mut self,
        bench: &Bench,
        wire: WireRequest,
        ask: &SnapshotRequest,
    ) -> Result<SnapshotInfo, Trouble> {
        let have = self.have.keys().cloned().collect();
        let theirs: SnapshotInfo = self.ask(
            bench,
            &Ask::Take {
                request: wire,
                have,
            },
        )?;
        let expected = bench.expected_files(&ask.id).map_err(Trouble::Here)?;
        for (name, bytes, sha256) in expected {
            let came = self.have.get(&name);
            if came.is_none_or(|file| (file.bytes, &file.sha256) != (bytes, &sha256)) {
                let found = came.map_or("no such file", |file| &file.sha256);
                let error = VolumeFault::corrupt(name, &sha256, found);
                return Err(Trouble::Here(error));
            }
        }
        let ours = bench
            .finish(&ask.id, &ask.instance)
            .map_err(Trouble::Here)?;
        if ours.manifest_sha256 == theirs.manifest_sha256 {
            return Ok(ours);
        }
        Err(Trouble::Here(VolumeFault::corrupt(
            "the manifest that the helper wrote",
            &theirs.manifest_sha256,
            &ours.manifest_sha256,
        )))
    }
}

/// Runs blocking work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    op: &'static str,
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, PortError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|trouble| trouble.into_port(op)),
        Err(join) => Err(
            PortError::new(op, PortErrorKind::Failed, "its thread ended early").with_source(join),
        ),
    }
}

#[async_trait]
impl SnapshotStore for HelperSnapshotStore {
    async fn estimate(&self, volumes: &[VolumeSource]) -> Result<SnapshotEstimate, PortError> {
        if volumes.is_empty() {
            return self.local.estimate(volumes).await;
        }
        let mut session = self.session(volumes, Access::Read).await?;
        let (bench, theirs) = (self.local.bench(), self.theirs(volumes));
        blocking("estimate a snapshot", move || {
            let needed_bytes = session.ask(&bench, &Ask::Estimate { volumes: theirs })?;
            let (free_bytes, reserve_bytes) = bench.space().map_err(Trouble::Here)?;
            Ok(SnapshotEstimate {
                needed_bytes,
                free_bytes,
                reserve_bytes,
            })
        })
        .await
    }

    async fn pre_copy(
        &self,
        request: &SnapshotRequest,
        _progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        if self.local.get(&request.id).await?.is_some() {
            return Ok(());
        }
        let mut session = self.session(&request.volumes, Access::Read).await?;
        let (bench, wire, id) = (self.local.bench(), self.wire(request), request.id);
        let session = blocking("copy volumes ahead", move || {
            bench.begin(&id).map_err(Trouble::Here)?;
            let asked: Result<(), Trouble> = session.ask(&bench, &Ask::PreCopy { request: wire });
            if let Err(trouble) = asked {
                let _ = bench.discard(&id);
                return Err(trouble);
            }
            Ok(session)
        })
        .await?;
        self.sessions().insert(id, session);
        Ok(())
    }

    async fn take(
        &self,
        request: &SnapshotRequest,
        _progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, PortError> {
        if let Some(info) = self.local.get(&request.id).await? {
            return Ok(info);
        }
        let waiting = self.sessions().remove(&request.id);
        let mut first = waiting.is_some();
        let mut session = match waiting {
            Some(session) => session,
            None => self.session(&request.volumes, Access::Read).await?,
        };
        loop {
            let (bench, wire, ask) = (self.local.bench(), self.wire(request), request.clone());
            let ahead = first;
            let taken = blocking("take a snapshot", move || {
                if !ahead {
                    bench.begin(&ask.id).map_err(Trouble::Here)?;
                }
                let taken = session.take(&bench, wire, &ask);
                if taken.is_err() {
                    let _ = bench.discard(&ask.id);
                }
                taken
            })
            .await;
            match taken {
                // The helper of the first pass died meanwhile: one pass by a new one is still right.
                Err(error) if first && error.outcome_unknown() => {
                    first = false;
                    session = self.session(&request.volumes, Access::Read).await?;
                }
                taken => return taken,
            }
        }
    }

    async fn discard(&self, id: &SnapshotId) -> Result<(), PortError> {
        drop(self.sessions().remove(id));
        self.local.discard(id).await
    }

    async fn get(&self, id: &SnapshotId) -> Result<Option<SnapshotInfo>, PortError> {
        self.local.get(id).await
    }

    async fn list(&self, instance: Option<&InstanceId>) -> Result<Vec<SnapshotInfo>, PortError> {
        self.local.list(instance).await
    }

    async fn verify(&self, id: &SnapshotId) -> Result<SnapshotInfo, PortError> {
        self.local.verify(id).await
    }

    async fn restore(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        _progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        self.with_files(
            "restore a snapshot",
            id,
            volumes,
            Access::Write,
            |_| true,
            |id, instance, volumes| Ask::Restore {
                id,
                instance,
                volumes,
            },
        )
        .await
    }

    async fn delete(&self, id: &SnapshotId) -> Result<(), PortError> {
        self.local.delete(id).await
    }

    async fn differs(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<Vec<VolumeName>, PortError> {
        self.with_files(
            "compare volumes with a snapshot",
            id,
            volumes,
            Access::Read,
            |name| !name.ends_with(".tar.zst"),
            |id, instance, volumes| Ask::Differs {
                id,
                instance,
                volumes,
            },
        )
        .await
    }
}
