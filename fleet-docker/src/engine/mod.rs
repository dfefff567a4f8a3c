//! One Docker engine: containers, images, volumes.
//!
//! Every call has a time limit of its own and every answer is translated at the door; no vendor type leaves this
//! crate. Calls that change something act by full id and set an absolute state, so that they may be repeated.

mod compose;
mod container;
mod create;
mod endpoint;
mod events;
mod exec;
mod freeze;
mod guard;
mod helper;
mod image_file;
mod images;
mod info;
mod layer;
mod lifecycle;
mod networks;
mod orphan;
mod pull;
mod raw;
mod runtime;
mod tags;
mod volumes;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use fleet_core::ports::{PortError, PortErrorKind};

use crate::error;
use crate::registry::RegistryOptions;
#[cfg(test)]
pub(crate) use container::plain_container;
pub(crate) use container::volumes_from_reference;
use endpoint::Endpoint;
pub use orphan::Scout;
pub(crate) use orphan::process_of;
pub(crate) use raw::{RawClient, plain_client_builder};

/// Longest wait for the answer to a call that takes the engine no time of its own.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for calls in which the engine works: create (copies into volumes), start, remove.
pub(crate) const WORK_LIMIT: Duration = Duration::from_secs(300);
/// What a stop may take beyond its grace.
pub(crate) const STOP_MARGIN: Duration = Duration::from_secs(30);

/// How to reach an engine.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// `unix:///path`, `tcp://host:port` or `http://host:port`. None: `DOCKER_HOST`, else `/var/run/docker.sock`.
    pub host: Option<String>,
}

/// A connection to one Docker engine: containers, images and health probes.
///
/// Cheap to clone; clones share the locks that keep local tags from being moved by two updates at once.
#[derive(Clone)]
pub struct DockerEngine {
    docker: Docker,
    raw: RawClient,
    endpoint: Endpoint,
    api_version: ApiVersion,
    registries: Arc<RegistryOptions>,
    known: Arc<Mutex<Option<info::Known>>>,
    tag_locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    /// Sees the processes of the engine's host; none: fleet does.
    scout: Option<Arc<dyn Scout>>,
}

impl std::fmt::Debug for DockerEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerEngine")
            .field("endpoint", &self.endpoint)
            .field("api_version", &self.api_version)
            .finish_non_exhaustive()
    }
}

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    pub(crate) major: usize,
    pub(crate) minor: usize,
}

impl ApiVersion {
    /// From here on every network may be given in the create call.
    pub(crate) const ALL_NETWORKS_AT_CREATE: Self = Self {
        major: 1,
        minor: 44,
    };
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl DockerEngine {
    /// Connects and agrees on an API version: the newest that both sides speak.
    ///
    /// # Errors
    /// `Invalid`: the address cannot be read. `Unreachable`, `Denied`, `Timeout`: no engine answers there.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, PortError> {
        let from_environment = std::env::var("DOCKER_HOST").ok();
        let host = options.host.as_deref().or(from_environment.as_deref());
        let endpoint = Endpoint::parse(host)?;
        let docker = client(&endpoint)?;
        let docker = limited(
            "connect to the engine",
            CALL_LIMIT,
            docker.negotiate_version(),
        )
        .await?;
        let version = docker.client_version();
        let api_version = ApiVersion {
            major: version.major_version,
            minor: version.minor_version,
        };
        let raw = RawClient::new(&endpoint, &api_version.to_string())?;
        Ok(Self {
            docker,
            raw,
            endpoint,
            api_version,
            registries: Arc::default(),
            known: Arc::default(),
            tag_locks: Arc::default(),
            scout: None,
        })
    }

    /// The same connection, whose pulls use the credentials of these registries. Without this call they use those that
    /// `docker login` keeps.
    #[must_use]
    pub fn with_registries(mut self, options: &RegistryOptions) -> Self {
        self.registries = Arc::new(options.clone());
        self
    }

    /// The same connection, for a fleet that does not see the processes of the engine's host: this one does.
    #[must_use]
    pub fn with_scout(mut self, scout: Arc<dyn Scout>) -> Self {
        self.scout = Some(scout);
        self
    }

    /// The engine's address as `DOCKER_HOST` would have it, for child processes.
    #[must_use]
    pub fn host(&self) -> String {
        self.endpoint.url()
    }

    /// A lock for one local tag.
    fn tag_lock(&self, tag: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self
            .tag_locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(tag.to_owned()).or_default())
    }
}

fn client(endpoint: &Endpoint) -> Result<Docker, PortError> {
    // The library's own limit covers only the head of an answer; ours covers the whole and is the one that counts.
    let beyond = (WORK_LIMIT + STOP_MARGIN).as_secs();
    let version = bollard::API_DEFAULT_VERSION;
    match endpoint {
        Endpoint::Unix(path) => {
            let path = path.to_str().ok_or_else(|| {
                PortError::new(
                    "connect to the engine",
                    PortErrorKind::Invalid,
                    "expected a socket path in UTF-8",
                )
            })?;
            Docker::connect_with_unix(path, beyond, version)
        }
        Endpoint::Tcp(authority) => {
            Docker::connect_with_http(&format!("http://{authority}"), beyond, version)
        }
    }
    .map_err(|source| error::from_bollard("connect to the engine", source))
}

/// Runs a call of the client library, at most this long.
pub(crate) async fn limited<T>(
    op: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, PortError> {
    tokio::time::timeout(limit, call)
        .await
        .map_err(|_| error::timeout(op))?
        .map_err(|source| error::from_bollard(op, source))
}
