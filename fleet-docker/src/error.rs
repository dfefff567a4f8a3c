//! What the engine answered, in the words of the ports. Vendor errors end here.
//!
//! The engine tells most failures apart only by their text: a taken port is a 500, a missing program a 400. The table
//! [`PHRASES`] is what is known of these texts; what it does not know stays with the kind of its status.

use std::error::Error as StdError;
use std::io;

use bollard::errors::Error as Bollard;
use fleet_core::ports::{PortError, PortErrorKind};

/// Texts of the engine that say more than the status, in lower case.
const PHRASES: &[(&str, PortErrorKind)] = &[
    ("no space left on device", PortErrorKind::NoSpace),
    ("disk quota exceeded", PortErrorKind::NoSpace),
    ("port is already allocated", PortErrorKind::Conflict),
    ("address already in use", PortErrorKind::Conflict),
    (
        "toomanyrequests",
        PortErrorKind::RateLimited { retry_after: None },
    ),
    (
        "too many requests",
        PortErrorKind::RateLimited { retry_after: None },
    ),
    ("unauthorized", PortErrorKind::Denied),
    ("authentication required", PortErrorKind::Denied),
    ("denied: ", PortErrorKind::Denied),
    ("access denied", PortErrorKind::Denied),
    ("manifest unknown", PortErrorKind::NotFound),
    ("name unknown", PortErrorKind::NotFound),
    ("not found: manifest", PortErrorKind::NotFound),
    ("no matching manifest", PortErrorKind::Invalid),
    ("cannot overwrite digest", PortErrorKind::Invalid),
    (
        "does not match the specified platform",
        PortErrorKind::Invalid,
    ),
    (
        "filesystem layer verification failed",
        PortErrorKind::Corrupt,
    ),
    ("manifest verification failed", PortErrorKind::Corrupt),
];

/// The error for an answer with this status and text.
pub(crate) fn from_status(op: &'static str, status: u16, message: &str) -> PortError {
    let by_status = match status {
        400 | 406 | 413 | 422 => PortErrorKind::Invalid,
        401 | 403 => PortErrorKind::Denied,
        404 => PortErrorKind::NotFound,
        409 => PortErrorKind::Conflict,
        408 | 504 => PortErrorKind::Timeout,
        429 => PortErrorKind::RateLimited { retry_after: None },
        501 => PortErrorKind::Unsupported,
        _ => PortErrorKind::Failed,
    };
    // A text sharpens only the statuses under which the engine hides everything else.
    let kind = match by_status {
        PortErrorKind::Failed | PortErrorKind::Invalid | PortErrorKind::NotFound => {
            by_phrase(message).unwrap_or(by_status)
        }
        _ => by_status,
    };
    let text = message.trim();
    if text.is_empty() {
        PortError::new(
            op,
            kind,
            format!("the engine answered {status} without a reason"),
        )
    } else {
        PortError::new(op, kind, format!("the engine answered {status}: {text}"))
    }
}

/// The error for a failure that arrived inside a stream under status 200.
pub(crate) fn from_stream(op: &'static str, message: &str) -> PortError {
    let kind = by_phrase(message).unwrap_or(PortErrorKind::Failed);
    PortError::new(op, kind, format!("the engine reported: {}", message.trim()))
}

/// The error for what the client library reported.
pub(crate) fn from_bollard(op: &'static str, error: Bollard) -> PortError {
    match error {
        Bollard::DockerResponseServerError {
            status_code,
            message,
        } => from_status(op, status_code, &message),
        Bollard::DockerStreamError { error } => from_stream(op, &error),
        Bollard::DockerContainerWaitError { error, .. } => from_stream(op, &error),
        Bollard::RequestTimeoutError => timeout(op),
        Bollard::SocketNotFoundError(path) => PortError::new(
            op,
            PortErrorKind::Unreachable,
            format!("no engine socket at {path}; is the engine running, is DOCKER_HOST right?"),
        ),
        Bollard::UnsupportedURISchemeError { uri } => PortError::new(
            op,
            PortErrorKind::Invalid,
            format!("expected unix://, tcp:// or http://, found {uri:?}"),
        ),
        Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } => PortError::new(
            op,
            PortErrorKind::Failed,
            "the engine's answer cannot be read",
        )
        .with_source(error),
        other => lost(op, other),
    }
}

/// The error for what the HTTP client reported.
pub(crate) fn from_reqwest(op: &'static str, error: reqwest::Error) -> PortError {
    if error.is_timeout() {
        timeout(op).with_source(error)
    } else if error.is_decode() {
        PortError::new(
            op,
            PortErrorKind::Failed,
            "the engine's answer cannot be read",
        )
        .with_source(error)
    } else {
        lost(op, error)
    }
}

/// No answer in time.
pub(crate) fn timeout(op: &'static str) -> PortError {
    PortError::new(
        op,
        PortErrorKind::Timeout,
        "the engine did not answer in time",
    )
}

/// The connection could not be made or broke. Where the socket itself refuses, nothing was sent.
fn lost(op: &'static str, error: impl StdError + Send + Sync + 'static) -> PortError {
    match io_kind(&error) {
        Some(io::ErrorKind::PermissionDenied) => PortError::new(
            op,
            PortErrorKind::Denied,
            "no permission to use the engine's socket; run as root or as a member of its group",
        ),
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => PortError::new(
            op,
            PortErrorKind::Unreachable,
            "nothing answers at the engine's address; is the engine running?",
        ),
        _ => PortError::new(
            op,
            PortErrorKind::Unreachable,
            "the connection to the engine broke",
        ),
    }
    .with_source(error)
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        current = error.source();
    }
    None
}

fn by_phrase(message: &str) -> Option<PortErrorKind> {
    let message = message.to_lowercase();
    PHRASES
        .iter()
        .find(|(phrase, _)| message.contains(phrase))
        .map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, message: &str, expect: PortErrorKind) {
        assert_eq!(
            from_status("x", status, message).kind(),
            expect,
            "{status} {message}"
        );
    }

    #[test]
    fn statuses_and_texts_of_the_engine_have_the_right_kind() {
        check(404, "No such container: x", PortErrorKind::NotFound);
        check(
            409,
            "Conflict. The container name \"/x\" is already in use",
            PortErrorKind::Conflict,
        );
        check(400, "invalid mount config", PortErrorKind::Invalid);
        check(403, "forbidden by the proxy", PortErrorKind::Denied);
        check(
            500,
            "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 failed: port is already allocated",
            PortErrorKind::Conflict,
        );
        check(500, "Address already in use", PortErrorKind::Conflict);
        check(
            500,
            "write /var/lib/docker/x: no space left on device",
            PortErrorKind::NoSpace,
        );
        check(
            500,
            "manifest for localhost/x@sha256:… not found: manifest unknown: manifest unknown",
            PortErrorKind::NotFound,
        );
        check(
            500,
            "Get https://r/v2/: dial tcp: connection refused",
            PortErrorKind::Failed,
        );
        check(500, "", PortErrorKind::Failed);
    }

    #[test]
    fn a_conflict_stays_one_whatever_its_text_says() {
        check(409, "unauthorized name", PortErrorKind::Conflict);
        check(
            429,
            "denied: later",
            PortErrorKind::RateLimited { retry_after: None },
        );
    }

    #[test]
    fn an_error_inside_a_stream_has_a_kind_as_well() {
        let kind = |text| from_stream("x", text).kind();
        assert_eq!(
            kind("toomanyrequests: slow down"),
            PortErrorKind::RateLimited { retry_after: None }
        );
        assert_eq!(
            kind("cannot overwrite digest sha256:a"),
            PortErrorKind::Invalid
        );
        assert_eq!(kind("unexpected EOF"), PortErrorKind::Failed);
    }
}
