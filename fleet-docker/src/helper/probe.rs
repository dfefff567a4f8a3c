//! Health probes through a helper that sits in the network of the container that is asked: where fleet itself runs in
//! a container it cannot reach other bridges.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::ids::ContainerId;
use fleet_core::ports::{ContainerRuntime, HealthProbe, PortError, ProbeTarget, ProbeVerdict};

use super::container::DockerHelpers;
use super::message::{Ask, Verdict};
use super::store::{Access, Connection, blocking};
use super::waiting::Waiting;
use crate::engine::DockerEngine;
use crate::health::port;

/// How long a helper waits for the next probe; longer than any interval between two.
const IDLE: Duration = Duration::from_secs(60);

/// Probes through helpers. One helper stays for a while for the container that was probed last.
#[derive(Debug, Clone)]
pub struct HelperProbe {
    engine: DockerEngine,
    helpers: DockerHelpers,
    waiting: Waiting<Key>,
}

/// The start of the container's run is part of the key: a restart gives it another network.
type Key = (ContainerId, Option<fleet_core::time::Timestamp>);

impl HelperProbe {
    /// Probes containers of this engine through these helpers.
    #[must_use]
    pub fn new(engine: DockerEngine, helpers: DockerHelpers) -> Self {
        Self {
            engine,
            helpers,
            waiting: Waiting::new(IDLE),
        }
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
        let ask = Ask::Probe {
            addresses,
            port,
            check: target.check.clone(),
            timeout_millis: u64::try_from(target.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        // One that waited may have been ended meanwhile, by whoever ends containers; a new one is asked once.
        if let Some(line) = self.waiting.take(&key) {
            match put(line, ask.clone()).await {
                Ok((line, verdict)) => {
                    self.waiting.keep(key, line);
                    return Ok(verdict);
                }
                Err(error) if error.outcome_unknown() => {}
                Err(error) => return Err(error),
            }
        }
        let asked = async {
            let line = self.helpers.start(&[], Access::Read, &network).await?;
            put(line, ask).await
        };
        match asked.await {
            Ok((line, verdict)) => {
                self.waiting.keep(key, line);
                Ok(verdict)
            }
            // It ended between the two looks: there is no network to sit in.
            Err(error) => match self.engine.inspect(&target.container).await? {
                Some(container) if container.is_up() => Err(error),
                _ => Ok(ProbeVerdict::Fail("the container has ended".to_owned())),
            },
        }
    }
}

async fn put(mut line: Connection, ask: Ask) -> Result<(Connection, ProbeVerdict), PortError> {
    blocking("probe a container through a helper", move || {
        let verdict: Verdict = line.ask(&ask)?;
        Ok((line, verdict.into()))
    })
    .await
}
