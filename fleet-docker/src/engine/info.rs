//! What engine this is.

use fleet_core::model::Platform;
use fleet_core::ports::{EngineInfo, PortError};

use super::{CALL_LIMIT, DockerEngine, limited};

impl DockerEngine {
    pub(super) async fn engine_info(&self) -> Result<EngineInfo, PortError> {
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
        Ok(EngineInfo {
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
        })
    }

    /// The name of the engine's host.
    pub(super) async fn host_name(&self) -> Result<String, PortError> {
        let info = limited("ask for the host's name", CALL_LIMIT, self.docker.info()).await?;
        Ok(info.name.unwrap_or_default())
    }
}
