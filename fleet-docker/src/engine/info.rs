//! What engine this is.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use fleet_core::model::Platform;
use fleet_core::ports::{EngineInfo, PortError};

use super::{CALL_LIMIT, DockerEngine, limited};

/// How long an answer is believed. To give one the engine runs four programs (runc and its init, twice), which costs as
/// much as starting a container does; and every update asks several times.
const BELIEVED: Duration = Duration::from_secs(60);

/// What the engine said of itself.
#[derive(Debug, Clone)]
pub(super) struct Known {
    at: Instant,
    info: EngineInfo,
    host_name: String,
}

impl DockerEngine {
    pub(super) async fn engine_info(&self) -> Result<EngineInfo, PortError> {
        Ok(self.known().await?.info)
    }

    /// The name of the engine's host.
    pub(super) async fn host_name(&self) -> Result<String, PortError> {
        Ok(self.known().await?.host_name)
    }

    /// What is known of the engine, if it is there: that is asked each time.
    async fn known(&self) -> Result<Known, PortError> {
        let op = "ask the engine whether it is there";
        let there = limited(op, CALL_LIMIT, self.docker.ping()).await;
        let known = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if there.is_err() {
                // Another one may come back.
                *known = None;
            }
            known.clone()
        };
        there?;
        match known.filter(|known| known.at.elapsed() < BELIEVED) {
            Some(known) => Ok(known),
            None => self.ask().await,
        }
    }

    async fn ask(&self) -> Result<Known, PortError> {
        let op = "ask the engine what it is";
        let (version, info) = tokio::try_join!(
            limited(op, CALL_LIMIT, self.docker.version()),
            limited(op, CALL_LIMIT, self.docker.info()),
        )?;
        let podman = version
            .components
            .iter()
            .flatten()
            .any(|component| component.name.to_lowercase().contains("podman"));
        let known = Known {
            at: Instant::now(),
            host_name: info.name.unwrap_or_default(),
            info: EngineInfo {
                engine_id: info.id.unwrap_or_default(),
                version: version.version.unwrap_or_default(),
                api_version: self.api_version.to_string(),
                api_version_max: version.api_version.unwrap_or_default(),
                platform: Platform {
                    os: version.os.unwrap_or_default(),
                    architecture: version.arch.unwrap_or_default(),
                    variant: String::new(),
                },
                storage_driver: info.driver.unwrap_or_default(),
                root_dir: info.docker_root_dir.unwrap_or_default(),
                live_restore: info.live_restore_enabled.unwrap_or(false),
                flavour: if podman { "podman" } else { "docker" }.to_owned(),
            },
        };
        let mut kept = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(known.clone());
        Ok(known)
    }
}
