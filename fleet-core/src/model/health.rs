//! How an instance proves that it is well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The health gate's settings of one instance, after labels and defaults.
///
/// The first that is configured decides alone: [`HealthSpec::http`], then the image's HEALTHCHECK, then "running,
/// not restarted, for `min_healthy`".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// HTTP check, if `fleet.health.path` is set.
    pub http: Option<HttpCheck>,
    /// How long the gate waits in all before it fails.
    pub timeout: Duration,
    /// Longest pause between two probes; probing starts faster and slows down to it.
    pub interval: Duration,
    /// How long it must stay healthy before it passes.
    pub min_healthy: Duration,
    /// Probes that must pass in a row.
    pub passes: u32,
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            http: None,
            timeout: Duration::from_secs(120),
            interval: Duration::from_secs(5),
            min_healthy: Duration::from_secs(2),
            passes: 2,
        }
    }
}

/// A GET to the container's own address; a 2xx answer passes. The host is never configurable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Absolute path, with a query if wanted.
    pub path: String,
    /// Port in the container; none means the only exposed one.
    pub port: Option<u16>,
    /// JSON that the body must contain.
    pub expect: Option<serde_json::Value>,
}
