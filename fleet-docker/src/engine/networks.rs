//! Connecting containers to networks.

use bollard::models::{EndpointSettings, NetworkConnectRequest, NetworkDisconnectRequest};
use fleet_core::ids::ContainerId;
use fleet_core::model::FrozenSpec;
use fleet_core::ports::{PortError, PortErrorKind};
use serde_json::Value;

use super::{CALL_LIMIT, DockerEngine, limited};
use crate::json::text;
use crate::recreate::{EngineSpec, has_own_network, requested};

impl DockerEngine {
    /// Puts a container onto a network with these settings.
    pub(super) async fn connect_network(
        &self,
        network: &str,
        id: &ContainerId,
        settings: &Value,
    ) -> Result<(), PortError> {
        let op = "connect a container to a network";
        // A container that does not run is "connected" to a network that does not exist without complaint, and then
        // does not start.
        self.existing_network(op, network).await?;
        let endpoint: EndpointSettings =
            serde_json::from_value(settings.clone()).map_err(|source| {
                PortError::new(op, PortErrorKind::Invalid, "its settings cannot be read")
                    .with_source(source)
            })?;
        let request = NetworkConnectRequest {
            container: id.to_string(),
            endpoint_config: Some(endpoint),
        };
        limited(
            op,
            CALL_LIMIT,
            self.docker.connect_network(network, request),
        )
        .await
    }

    /// Takes a container off a network, also off one that no longer exists.
    pub(super) async fn disconnect_network(
        &self,
        network: &str,
        id: &ContainerId,
    ) -> Result<(), PortError> {
        let request = NetworkDisconnectRequest {
            container: id.to_string(),
            force: Some(true),
        };
        let call = self.docker.disconnect_network(network, request);
        limited("take a container off a network", CALL_LIMIT, call).await
    }

    /// What the engine says of the network of exactly this name, none if there is none.
    pub(super) async fn network_raw(
        &self,
        op: &'static str,
        name: &str,
    ) -> Result<Option<Value>, PortError> {
        let found = self
            .raw
            .get(op, &["networks", name], &[], CALL_LIMIT)
            .await?;
        Ok(found.filter(|network| text(&network["Name"]) == name))
    }

    /// The network of exactly this name.
    async fn existing_network(&self, op: &'static str, name: &str) -> Result<Value, PortError> {
        self.network_raw(op, name).await?.ok_or_else(|| {
            let message = format!("there is no network {name}; create it again as it was");
            PortError::new(op, PortErrorKind::NotFound, message)
        })
    }

    pub(super) async fn reattach_frozen(
        &self,
        id: &ContainerId,
        frozen: &FrozenSpec,
    ) -> Result<(), PortError> {
        let op = "put a container back on its networks";
        let spec = EngineSpec::of(frozen)?;
        if !has_own_network(text(&spec.inspect["HostConfig"]["NetworkMode"])) {
            return Ok(());
        }
        for (name, endpoint) in crate::json::object(&spec.inspect["NetworkSettings"]["Networks"]) {
            let network = self.existing_network(op, name).await?;
            let raw = self.inspect_raw(id.as_str()).await?.ok_or_else(|| {
                let message = format!("there is no container {}", id.short());
                PortError::new(op, PortErrorKind::NotFound, message)
            })?;
            let attached = &raw["NetworkSettings"]["Networks"][name];
            let attached_to = text(&attached["NetworkID"]);
            // Before the first start the engine may know the network by name only.
            if attached.is_object()
                && (attached_to.is_empty() || attached_to == text(&network["Id"]))
            {
                continue;
            }
            if attached.is_object() {
                self.disconnect_network(name, id).await?;
            }
            let settings = Value::Object(requested(endpoint, spec.short_id()));
            self.connect_network(name, id, &settings).await?;
        }
        Ok(())
    }
}
