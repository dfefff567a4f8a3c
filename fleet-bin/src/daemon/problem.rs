//! What went wrong, as HTTP says it: problem details (RFC 9457) with a stable code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::engine::FleetError;
use fleet_core::engine::rollout::{RolloutError, StartError};
use serde::{Deserialize, Serialize};

use super::Unanswered;
use super::wire::EXIT;
use crate::exit::{Exit, Failure};

/// The code of what the end of the daemon cut.
const CUT: &str = "cut";

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// The status as a phrase.
    title: String,
    /// Status of HTTP.
    status: u16,
    /// What went wrong, what was expected, and what to do.
    detail: String,
    /// A stable word for programs.
    code: String,
    /// How a command ends with it.
    exit: Exit,
}

impl Problem {
    /// A problem of one's own.
    pub(super) fn new(
        status: StatusCode,
        code: &str,
        exit: Exit,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            exit,
        }
    }

    /// The failure that it stands for.
    pub(super) fn into_failure(self) -> Failure {
        let failure = match self.code.as_str() {
            CUT => Failure::from(Unanswered(
                "the daemon stopped before it had ended".to_owned(),
            )),
            _ => Failure::new(self.exit, self.detail),
        };
        failure.ends(self.exit)
    }
}

impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Self {
        let (status, code) = known(failure).unwrap_or(match failure.exit {
            Exit::Usage => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Exit::NotNow => (StatusCode::CONFLICT, "not_now"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        });
        Self::new(status, code, failure.exit, failure.chain())
    }
}

/// Failures that have a code of their own.
fn known(failure: &Failure) -> Option<(StatusCode, &'static str)> {
    if failure.cause::<Unanswered>().is_some() {
        return Some((StatusCode::SERVICE_UNAVAILABLE, CUT));
    }
    let start = failure.cause().and_then(|error| match error {
        StartError::Paused(_) => Some((StatusCode::CONFLICT, "paused")),
        StartError::AlreadyRunning(_) => Some((StatusCode::CONFLICT, "already_running")),
        StartError::NotOver(_) => Some((StatusCode::CONFLICT, "not_over")),
        StartError::NothingFailed(_) => Some((StatusCode::CONFLICT, "nothing_failed")),
        _ => None,
    });
    let rollout = failure.cause().and_then(|error| match error {
        RolloutError::NoSuchRollout(_) => Some((StatusCode::NOT_FOUND, "unknown_rollout")),
        RolloutError::NotInRollout { .. } => Some((StatusCode::NOT_FOUND, "not_in_rollout")),
        RolloutError::Illegal(_) => Some((StatusCode::CONFLICT, "illegal_transition")),
        _ => None,
    });
    let fleet = failure.cause().and_then(|error| match error {
        FleetError::UnknownInstance { .. } => Some((StatusCode::NOT_FOUND, "unknown_instance")),
        FleetError::UnknownSnapshot(_) => Some((StatusCode::NOT_FOUND, "unknown_snapshot")),
        FleetError::NotFrozen(_) => Some((StatusCode::CONFLICT, "not_frozen")),
        FleetError::Busy(_) => Some((StatusCode::CONFLICT, "busy")),
        FleetError::Refused { .. } => Some((StatusCode::CONFLICT, "refused")),
        FleetError::Port(_) => Some((StatusCode::BAD_GATEWAY, "engine_failed")),
        _ => None,
    });
    start.or(rollout).or(fleet)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let exit = HeaderValue::from(u16::from(self.exit.code()));
        let mut response = (status, [(EXIT, exit)], Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_exit_code_on_the_way() {
        let error = FleetError::UnknownInstance {
            name: "wbe".to_owned(),
            nearest: Some("web".to_owned()),
        };
        let failure = Failure::from(error);
        let problem = Problem::from(&failure);
        assert_eq!(
            (problem.status, problem.code.as_str()),
            (404, "unknown_instance")
        );
        let text = serde_json::to_string(&problem).unwrap();
        let back: Problem = serde_json::from_str(&text).unwrap();
        let back = back.into_failure();
        assert_eq!((back.exit, back.chain()), (Exit::Failed, failure.chain()));
        let busy = Failure::from(FleetError::Busy("web".to_owned()));
        assert_eq!(Problem::from(&busy).code, "busy");
        assert_eq!(busy.exit, Exit::NotNow);
    }
}
