//! How registries are reached: per-registry settings, secrets and limits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

/// Settings of a [`super::RegistryClient`]. Every limit has a default that suits a daemon.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Settings by registry as references name it: `ghcr.io`, `registry.example:5000`, `docker.io` for Docker Hub.
    pub hosts: BTreeMap<String, HostOptions>,
    /// Where Docker's own credentials are read.
    pub docker_config: DockerConfig,
    /// Time for one request, connecting and reading the body included.
    pub request_timeout: Duration,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// How long an answer to [`fleet_core::ports::ReleaseSource::digest`] is good for: one cycle at most.
    pub answer_ttl: Duration,
    /// Tries of one question when the registry fails or cannot be reached, the first included.
    pub attempts: u32,
    /// Pause before the second try; doubles with each further one.
    pub backoff_min: Duration,
    /// Longest pause between two tries, and longest hold after a 429 that does not say how long.
    pub backoff_max: Duration,
    /// Whether pauses are spread at random. Off in tests.
    pub jitter: bool,
    /// Longest wait that a registry may ask for within a call; beyond it the call fails with `RateLimited`.
    pub patience: Duration,
    /// Requests a second to one registry, evenly spread after a burst of as many.
    pub requests_per_second: u32,
    /// Sees every answer, for metrics.
    pub observer: Option<Observer>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            docker_config: DockerConfig::default(),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            answer_ttl: Duration::from_secs(10),
            attempts: 3,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(900),
            jitter: true,
            patience: Duration::from_secs(5),
            requests_per_second: 20,
            observer: None,
        }
    }
}

/// Settings of one registry.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Credentials for this registry and no other host; they win over Docker's.
    pub login: Option<Login>,
    /// Files with further certificate authorities, PEM.
    pub ca_files: Vec<PathBuf>,
    /// `true`: without TLS. Unset: without TLS on loopback addresses unless `ca_files` is given, else with.
    pub plain_http: Option<bool>,
    /// Further hosts whose token service may be given the credentials, over TLS.
    pub auth_hosts: Vec<String>,
}

/// Credentials for one registry.
#[derive(Debug, Clone)]
pub enum Login {
    /// Name and password (or access token).
    Password {
        /// Name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// An identity token, exchanged for bearer tokens at the registry's token service.
    IdentityToken(Secret),
}

/// A secret as configured: its text, or a file that is read each time it is needed, so that rotation needs no restart.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The secret itself.
    Text(SecretString),
    /// The file that holds it; white space at its end is not part of it.
    File(PathBuf),
}

/// Where Docker's `config.json` is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DockerConfig {
    /// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    #[default]
    Default,
    /// This file.
    File(PathBuf),
    /// Docker's credentials are not used.
    Ignore,
}

/// Called with every answer of a registry (or with none, where it could not be reached), for metrics.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Seen<'_>) + Send + Sync>);

/// One request as an [`Observer`] sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The registry as references name it.
    pub registry: &'a str,
    /// HTTP status, none if there was no answer.
    pub status: Option<u16>,
    /// From sending to the head of the answer.
    pub took: Duration,
    /// What the registry says is left of its rate limit, if it says so.
    pub remaining: Option<u64>,
}

impl Observer {
    /// Wraps a function. It must not block.
    #[must_use]
    pub fn new(observe: impl Fn(&Seen<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(super) fn see(&self, seen: &Seen<'_>) {
        (self.0)(seen);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
