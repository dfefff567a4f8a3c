//! The port, call by call; each is one line that leads to where it is done.

use std::time::Duration;

use async_trait::async_trait;
use fleet_core::ids::{ContainerId, VolumeName};
use fleet_core::model::{Container, FrozenSpec, Inventory, RestartPolicy, VolumeSource};
use fleet_core::ports::{
    ContainerRuntime, CreateRequest, Created, EngineEvent, EngineInfo, ExecOutcome, PortError,
    StartOutcome, StopOutcome, WritableLayer,
};
use futures::stream::BoxStream;

use super::DockerEngine;

#[async_trait]
impl ContainerRuntime for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, PortError> {
        self.engine_info().await
    }

    async fn inventory(&self) -> Result<Inventory, PortError> {
        self.list_all().await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, PortError> {
        self.inspect_by_id(id).await
    }

    async fn find(&self, name: &str) -> Result<Option<Container>, PortError> {
        self.find_by_name(name).await
    }

    async fn freeze(&self, id: &ContainerId) -> Result<FrozenSpec, PortError> {
        self.freeze_container(id).await
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<WritableLayer, PortError> {
        self.layer_data(id).await
    }

    async fn volume(&self, name: &VolumeName) -> Result<Option<VolumeSource>, PortError> {
        self.volume_source(name).await
    }

    async fn remove_volume(&self, name: &VolumeName) -> Result<(), PortError> {
        self.remove_own_volume(name).await
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created, PortError> {
        match request {
            CreateRequest::Candidate(request) => self.create_candidate(request).await,
            CreateRequest::Restore(request) => self.restore(request).await,
            CreateRequest::Guard(request) => self.raise_guard(request).await,
        }
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), PortError> {
        self.rename_to(id, name).await
    }

    async fn set_restart_policy(
        &self,
        id: &ContainerId,
        policy: RestartPolicy,
    ) -> Result<(), PortError> {
        self.set_policy(id, policy).await
    }

    async fn start(&self, id: &ContainerId) -> Result<StartOutcome, PortError> {
        self.start_and_look(id).await
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Option<Duration>,
    ) -> Result<StopOutcome, PortError> {
        self.stop_and_look(id, grace).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), PortError> {
        self.remove_stopped(id).await
    }

    async fn reattach(&self, id: &ContainerId, frozen: &FrozenSpec) -> Result<(), PortError> {
        self.reattach_frozen(id, frozen).await
    }

    async fn logs_tail(&self, id: &ContainerId, lines: u32) -> Result<String, PortError> {
        self.log_end(id, lines).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, PortError> {
        self.run_inside(id, argv, timeout).await
    }

    async fn orphan(&self, id: &ContainerId) -> Result<Option<String>, PortError> {
        self.find_orphan(id).await
    }

    async fn events(
        &self,
    ) -> Result<BoxStream<'static, Result<EngineEvent, PortError>>, PortError> {
        self.container_events().await
    }
}
