//! From what went wrong to the port's error.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use fleet_core::ports::{PortError, PortErrorKind};

const OP: &str = "ask the registry";

/// Why a [`super::RegistryClient`] could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// A certificate authority's file cannot be read.
    #[error("the certificate authority of {registry} cannot be read from {path}")]
    CaFile {
        /// Registry it was configured for.
        registry: String,
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A certificate authority's file holds no certificate.
    #[error(
        "expected certificates in PEM form for {registry} in {path}, found none that can be read"
    )]
    CaContent {
        /// Registry it was configured for.
        registry: String,
        /// The file.
        path: std::path::PathBuf,
    },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client for {registry} cannot be set up")]
    Client {
        /// Registry, or `all registries`.
        registry: String,
        /// What it said.
        #[source]
        source: reqwest::Error,
    },
    /// A configured registry is not a host with an optional port.
    #[error("expected a registry such as ghcr.io or registry.example:5000, found {found:?}")]
    Registry {
        /// The text as given.
        found: String,
    },
}

pub(super) fn failure(kind: PortErrorKind, message: impl Into<String>) -> PortError {
    PortError::new(OP, kind, message)
}

pub(super) fn corrupt(message: impl Into<String>) -> PortError {
    failure(PortErrorKind::Corrupt, message)
}

pub(super) fn denied(message: impl Into<String>) -> PortError {
    failure(PortErrorKind::Denied, message)
}

/// A failure below HTTP: connecting, TLS, time, a broken stream.
pub(super) fn transport(host: &str, error: reqwest::Error) -> PortError {
    let (kind, message) = if error.is_timeout() {
        (
            PortErrorKind::Timeout,
            format!("{host} did not answer in time"),
        )
    } else if error.is_connect() {
        (
            PortErrorKind::Unreachable,
            format!("{host} cannot be reached"),
        )
    } else {
        (
            PortErrorKind::Unreachable,
            format!("the connection to {host} broke"),
        )
    };
    // The URL of a token request or a signed download may hold what logs must not.
    failure(kind, message).with_source(error.without_url())
}

/// The error of a question that several callers asked at once.
pub(super) fn shared(error: Arc<PortError>) -> PortError {
    match Arc::try_unwrap(error) {
        Ok(error) => error,
        Err(error) => {
            let copy = PortError::new(error.op(), error.kind(), error.message());
            if error.source().is_some() {
                copy.with_source(SharedCause(error))
            } else {
                copy
            }
        }
    }
}

/// Stands for the source of an error that is shared.
#[derive(Debug)]
struct SharedCause(Arc<PortError>);

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(source) => fmt::Display::fmt(source, f),
            None => f.write_str("no cause"),
        }
    }
}

impl Error for SharedCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().and_then(Error::source)
    }
}
