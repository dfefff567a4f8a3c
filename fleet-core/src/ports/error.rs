//! The one error of all ports that talk to the outside.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a call through a port failed. `Display` names the operation and the reason, never the source: print the
/// chain with its sources.
#[derive(Debug)]
pub struct PortError {
    op: &'static str,
    kind: PortErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of failure it was: what callers branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortErrorKind {
    /// No such object.
    NotFound,
    /// The object is in a state that does not allow it, or the name is taken.
    Conflict,
    /// The request itself is wrong; asking again gives the same answer.
    Invalid,
    /// Not permitted (authentication, authorisation, socket permissions).
    Denied,
    /// The other side could not be reached, or went away before it answered: **the outcome is unknown**.
    Unreachable,
    /// No answer in time: **the outcome is unknown**.
    Timeout,
    /// Too many requests; may say how long to wait.
    RateLimited {
        /// As the other side asked.
        retry_after: Option<Duration>,
    },
    /// No space left.
    NoSpace,
    /// Data does not have the hash, form or content that it must have.
    Corrupt,
    /// The other side cannot do this at all.
    Unsupported,
    /// The other side failed (HTTP 500 and the like).
    Failed,
}

impl PortError {
    /// A failure of `op` (a verb phrase that fits "failed to …").
    #[must_use]
    pub fn new(op: &'static str, kind: PortErrorKind, message: impl Into<String>) -> Self {
        Self {
            op,
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same failure with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> PortErrorKind {
        self.kind
    }

    /// What was tried.
    #[must_use]
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The reason alone.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the effect may have happened although the call failed.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(
            self.kind,
            PortErrorKind::Unreachable | PortErrorKind::Timeout
        )
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            PortErrorKind::Unreachable
                | PortErrorKind::Timeout
                | PortErrorKind::RateLimited { .. }
                | PortErrorKind::Failed
        )
    }

    /// Whether no such object exists.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == PortErrorKind::NotFound
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.op, self.message)
    }
}

impl Error for PortError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}
