//! One probe, one verdict.

use std::time::Duration;

use async_trait::async_trait;

use super::PortError;
use crate::ids::ContainerId;
use crate::model::HttpCheck;

/// What to probe.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    /// The container; the adapter finds its address (its own, its network parent's, or loopback for the host network)
    /// and goes nowhere else.
    pub container: ContainerId,
    /// What to ask and what to expect.
    pub check: HttpCheck,
    /// Time for the whole probe.
    pub timeout: Duration,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// It answered as it must.
    Pass,
    /// It answered, or did not, in a way that is not a pass; the text says how. Not an error: asking again is right.
    Fail(String),
}

/// Asks a container over HTTP whether it is well.
///
/// # Guarantees
/// Redirects are not followed; the body is read up to a cap and never beyond; the address is the container's own by
/// construction, whatever labels say.
#[async_trait]
pub trait HealthProbe: Send + Sync {
    /// One GET.
    ///
    /// # Errors
    /// Only where no probe could be made at all: the engine is away ([`super::PortErrorKind::Unreachable`]) or the
    /// check has no port and the container does not expose exactly one ([`super::PortErrorKind::Invalid`]).
    async fn probe(&self, target: &ProbeTarget) -> Result<ProbeVerdict, PortError>;
}
