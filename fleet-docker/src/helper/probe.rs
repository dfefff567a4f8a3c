//! Health probes through a helper that sits in the network of the container that is asked: where fleet itself runs in
//! a container it cannot reach other bridges.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fleet_core::ids::ContainerId;
use fleet_core::ports::{
    ContainerRuntime, HealthProbe, PortError, PortErrorKind, ProbeTarget, ProbeVerdict,
};

use super::container::DockerHelpers;
use super::message::{Ask, Verdict};
use super::store::{Connection, blocking};
use crate::engine::DockerEngine;
use crate::health::port;

/// Probes through helpers. One helper stays for the container that was probed last.
#[derive(Debug, Clone)]
pub struct HelperProbe {
    engine: DockerEngine,
    helpers: DockerHelpers,
    /// The start of the container's run is part of the key: a restart gives it another network.
    line: Arc<Mutex<Option<(Key, Connection)>>>,
}

type Key = (ContainerId, Option<fleet_core::time::Timestamp>);

impl HelperProbe {
    /// Probes containers of this engine through these helpers.
    #[must_use]
    pub fn new(engine: DockerEngine, helpers: DockerHelpers) -> Self {
        Self {
            engine,
            helpers,
            line: Arc::default(),
        }
    }

    /// The helper that waits for this container; any other ends here.
    fn waiting(&self, key: &Key) -> Option<Connection> {
        let taken = self
            .line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        taken.filter(|(of, _)| of == key).map(|(_, line)| line)
    }

    fn keep(&self, key: Key, line: Connection) {
        let mut waiting = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = Some((key, line));
    }
}

#[async_trait]
impl HealthProbe for HelperProbe {
    async fn probe(&self, target: &ProbeTarget) -> Result<ProbeVerdict, PortError> {
        let Some(container) = self.engine.inspect(&target.container).await? else {
            return Ok(ProbeVerdict::Fail("the container is gone".to_owned()));
        };
        if !container.is_up() {
            return Ok(ProbeVerdict::Fail("the container does not run".to_owned()));
        }
        let port = port(&container, &target.check)?;
        let network = match container.network_mode.as_str() {
            "host" => "host".to_owned(),
            _ => format!("container:{}", container.id),
        };
        let key = (container.id.clone(), container.started_at);
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        for address in self.engine.addresses(container).await? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let mut line = match self.waiting(&key) {
            Some(line) => line,
            None => match self.helpers.start(&[], &network).await {
                Ok(line) => line,
                // It ended between the two looks: there is no network to sit in.
                Err(error) if error.kind() == PortErrorKind::Conflict => {
                    return Ok(ProbeVerdict::Fail(error.message().to_owned()));
                }
                Err(error) => return Err(error),
            },
        };
        let ask = Ask::Probe {
            addresses,
            port,
            check: target.check.clone(),
            timeout_millis: u64::try_from(target.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let (line, verdict) = blocking("probe a container through a helper", move || {
            let verdict: Verdict = line.ask(&ask)?;
            Ok((line, verdict))
        })
        .await?;
        self.keep(key, line);
        Ok(verdict.into())
    }
}
