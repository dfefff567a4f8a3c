//! Why work on a volume or a snapshot failed, and how that reads through the port.

use std::fmt;
use std::io;
use std::path::Path;

use fleet_core::ids::SnapshotId;
use fleet_core::ports::{PortError, PortErrorKind};

/// What went wrong with a volume or a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// A call to the operating system failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what; names that are not UTF-8 are shown lossily.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An entry of the volume changed or vanished although no writer should run.
    #[error("{path} changed while it was read; stop every program that writes to the volume")]
    Changed {
        /// The entry.
        path: String,
    },
    /// A snapshot does not hold what it must hold.
    #[error("{what}: expected {expected}, found {found}")]
    Corrupt {
        /// Which part.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A restored volume is not what the snapshot says.
    #[error("{path} differs from the snapshot after the restore: {difference}")]
    Differs {
        /// The entry.
        path: String,
        /// In what.
        difference: String,
    },
    /// There is no such snapshot.
    #[error("snapshot {0} does not exist")]
    Missing(SnapshotId),
    /// Writing on would use up the space kept for the journal.
    #[error("{free} bytes are free and {reserve} must stay free; make room or lower the reserve")]
    NoSpace {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        reserve: u64,
    },
    /// What a snapshot holds cannot fit where the volume lies.
    #[error(
        "the volume needs {needed} bytes; {free} are free and emptying it frees {held}; make room, nothing was touched"
    )]
    NoRoom {
        /// Bytes of content to put back.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// Bytes that what stands there takes.
        held: u64,
    },
    /// This cannot be copied or put back.
    #[error("{0}")]
    Unsupported(String),
    /// The volume is only there while a container uses it, and none does.
    #[error(
        "the volume {0} is mounted only while a container uses it, and is not mounted now: nothing was read or changed. \
         Its container must be there and its image must allow a guard; see docs/snapshots.md"
    )]
    NotMounted(String),
    /// The request contradicts itself or the store.
    #[error("{0}")]
    Invalid(String),
    /// The caller went away.
    #[error("the work was given up by its caller")]
    Cancelled,
    /// A thread of the pipeline ended without saying why.
    #[error("a worker thread ended early")]
    WorkerLost,
}

impl VolumeError {
    /// Wraps a failed system call.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<Shown>,
    ) -> impl FnOnce(io::Error) -> Self {
        let Shown(path) = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// A part that is not what it must be.
    pub(super) fn corrupt(
        what: impl Into<String>,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self::Corrupt {
            what: what.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// An entry that a writer touched.
    pub(super) fn changed(path: &[u8]) -> Self {
        Self::Changed {
            path: Shown::from(path).0,
        }
    }

    /// What callers of the port branch on.
    #[must_use]
    pub fn kind(&self) -> PortErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge => PortErrorKind::NoSpace,
                io::ErrorKind::PermissionDenied => PortErrorKind::Denied,
                io::ErrorKind::NotFound => PortErrorKind::NotFound,
                _ => PortErrorKind::Failed,
            },
            Self::Changed { .. } => PortErrorKind::Conflict,
            Self::Corrupt { .. } => PortErrorKind::Corrupt,
            Self::Missing(_) => PortErrorKind::NotFound,
            Self::NoSpace { .. } | Self::NoRoom { .. } => PortErrorKind::NoSpace,
            Self::Unsupported(_) => PortErrorKind::Unsupported,
            Self::Invalid(_) => PortErrorKind::Invalid,
            Self::NotMounted(_) | Self::Differs { .. } | Self::Cancelled | Self::WorkerLost => {
                PortErrorKind::Failed
            }
        }
    }

    /// The same failure as the port reports it; `op` is a verb phrase that fits "failed to …".
    #[must_use]
    pub fn into_port(self, op: &'static str) -> PortError {
        let kind = self.kind();
        let message = self.to_string();
        match self {
            Self::Io { source, .. } => PortError::new(op, kind, message).with_source(source),
            _ => PortError::new(op, kind, message),
        }
    }
}

/// A path as people read it.
pub(super) struct Shown(String);

impl From<&Path> for Shown {
    fn from(path: &Path) -> Self {
        Self(path.display().to_string())
    }
}

impl From<&[u8]> for Shown {
    fn from(path: &[u8]) -> Self {
        if path.is_empty() {
            Self("the root of the volume".to_owned())
        } else {
            Self(String::from_utf8_lossy(path).into_owned())
        }
    }
}

impl From<&Vec<u8>> for Shown {
    fn from(path: &Vec<u8>) -> Self {
        path.as_slice().into()
    }
}
