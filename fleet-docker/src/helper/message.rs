//! What is asked of the helper, and what it answers.

use std::net::IpAddr;

use fleet_core::ids::{ContainerId, InstanceId, SnapshotId, UpdateId};
use fleet_core::model::{Consistency, HttpCheck, VolumeSource};
use fleet_core::ports::{PortError, PortErrorKind, ProbeVerdict, SnapshotRequest};
use fleet_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// How large may a snapshot be? Answered by bytes.
    Estimate {
        /// The volumes, by where the helper has them.
        volumes: Vec<VolumeSource>,
    },
    /// Make the first pass; sends its archives.
    PreCopy {
        /// Of what.
        request: WireRequest,
    },
    /// Finish the snapshot; sends its files but those that fleet has.
    Take {
        /// Of what.
        request: WireRequest,
        /// Names of files that fleet has.
        have: Vec<String>,
    },
    /// Restore from the files sent before.
    Restore {
        /// Which snapshot they are.
        id: SnapshotId,
        /// Whose.
        instance: InstanceId,
        /// Where to.
        volumes: Vec<VolumeSource>,
    },
    /// Probe over HTTP, from the network that the helper sits in. Answered by a verdict.
    Probe {
        /// Asked one after the other until somebody answers.
        addresses: Vec<IpAddr>,
        /// The port there.
        port: u16,
        /// What to ask and what to expect.
        check: HttpCheck,
        /// Time for the whole probe.
        timeout_millis: u64,
    },
    /// Look for a process of a container, among those that the helper sees. Answered by a text or nothing.
    Process {
        /// Which.
        container: ContainerId,
    },
    /// Compare with the lists sent before. Answered by names.
    Differs {
        /// Which snapshot they are.
        id: SnapshotId,
        /// Whose.
        instance: InstanceId,
        /// With what.
        volumes: Vec<VolumeSource>,
    },
}

/// What a probe saw.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As it must be.
    Pass,
    /// Not so, and how.
    Fail(String),
}

impl From<ProbeVerdict> for Verdict {
    fn from(verdict: ProbeVerdict) -> Self {
        match verdict {
            ProbeVerdict::Pass => Self::Pass,
            ProbeVerdict::Fail(reason) => Self::Fail(reason),
        }
    }
}

impl From<Verdict> for ProbeVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail(reason) => Self::Fail(reason),
        }
    }
}

/// A file that follows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileBegins {
    /// Of which snapshot.
    pub(crate) snapshot: SnapshotId,
    /// Its name in the snapshot's folder.
    pub(crate) name: String,
}

/// A file that was sent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEnds {
    /// Its length.
    pub(crate) bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub(crate) sha256: String,
}

/// [`SnapshotRequest`] on the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireRequest {
    id: SnapshotId,
    instance: InstanceId,
    update: Option<UpdateId>,
    volumes: Vec<VolumeSource>,
    consistency: Consistency,
    now: Timestamp,
    engine_id: String,
    spec: Option<serde_json::Value>,
}

impl From<SnapshotRequest> for WireRequest {
    fn from(request: SnapshotRequest) -> Self {
        let SnapshotRequest {
            id,
            instance,
            update,
            volumes,
            consistency,
            now,
            engine_id,
            spec,
        } = request;
        Self {
            id,
            instance,
            update,
            volumes,
            consistency,
            now,
            engine_id,
            spec,
        }
    }
}

impl From<WireRequest> for SnapshotRequest {
    fn from(wire: WireRequest) -> Self {
        let WireRequest {
            id,
            instance,
            update,
            volumes,
            consistency,
            now,
            engine_id,
            spec,
        } = wire;
        Self {
            id,
            instance,
            update,
            volumes,
            consistency,
            now,
            engine_id,
            spec,
        }
    }
}

/// A failure on the way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    NotFound,
    Conflict,
    Invalid,
    Denied,
    NoSpace,
    Corrupt,
    Unsupported,
    Failed,
}

impl Failure {
    /// A failure with everything that caused it, as one text.
    pub(crate) fn of(kind: PortErrorKind, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let kind = match kind {
            PortErrorKind::NotFound => Kind::NotFound,
            PortErrorKind::Conflict => Kind::Conflict,
            PortErrorKind::Invalid => Kind::Invalid,
            PortErrorKind::Denied => Kind::Denied,
            PortErrorKind::NoSpace => Kind::NoSpace,
            PortErrorKind::Corrupt => Kind::Corrupt,
            PortErrorKind::Unsupported => Kind::Unsupported,
            _ => Kind::Failed,
        };
        Self { kind, message }
    }

    /// The failure as the port reports it.
    pub(crate) fn into_port(self, op: &'static str) -> PortError {
        let kind = match self.kind {
            Kind::NotFound => PortErrorKind::NotFound,
            Kind::Conflict => PortErrorKind::Conflict,
            Kind::Invalid => PortErrorKind::Invalid,
            Kind::Denied => PortErrorKind::Denied,
            Kind::NoSpace => PortErrorKind::NoSpace,
            Kind::Corrupt => PortErrorKind::Corrupt,
            Kind::Unsupported => PortErrorKind::Unsupported,
            Kind::Failed => PortErrorKind::Failed,
        };
        PortError::new(op, kind, format!("the helper: {}", self.message))
    }
}
