//! Mocks of the four public traits, for embedders' tests of their own code.
//!
//! A mock answers one call as told and checks that it was made. Where state, time or faults matter, use the fakes of
//! [`crate::testing`] instead: they behave.
//!
//! ```
//! use fleet_core::ports::UpdateConfigRepository as _;
//! use fleet_core::testing::MockUpdateConfigRepository;
//!
//! let mut configs = MockUpdateConfigRepository::new();
//! configs.expect_list().returning(|| Ok(Vec::new()));
//! let all = futures::executor::block_on(configs.list());
//! assert!(all.unwrap().is_empty());
//! ```

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::ids::{ContainerId, InstanceId, SnapshotId, TenantId, VolumeName};
use crate::model::{
    Container, FrozenSpec, Inventory, RestartPolicy, SnapshotEstimate, SnapshotInfo, UpdateConfig,
    VolumeSource,
};
use crate::plan::PlannedInstance;
use crate::plan::strategy::{Batch, Failure, FailureBudget, OnFailure, Progress, RolloutStrategy};
use crate::ports::{
    ContainerRuntime, CreateRequest, Created, EngineEvent, EngineInfo, ExecOutcome, JournalError,
    PortError, ProgressSink, SnapshotRequest, SnapshotStore, StartOutcome, StopOutcome,
    TenantConfig, UpdateConfigRepository, WritableLayer,
};
use crate::time::Timestamp;

mockall::mock! {
    /// A container engine that answers as told.
    pub ContainerRuntime {}

    #[async_trait]
    impl ContainerRuntime for ContainerRuntime {
        async fn info(&self) -> Result<EngineInfo, PortError>;
        async fn inventory(&self) -> Result<Inventory, PortError>;
        async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, PortError>;
        async fn find(&self, name: &str) -> Result<Option<Container>, PortError>;
        async fn freeze(&self, id: &ContainerId) -> Result<FrozenSpec, PortError>;
        async fn writable_layer(&self, id: &ContainerId) -> Result<WritableLayer, PortError>;
        async fn volume(&self, name: &VolumeName) -> Result<Option<VolumeSource>, PortError>;
        async fn remove_volume(&self, name: &VolumeName) -> Result<(), PortError>;
        async fn create(&self, request: &CreateRequest) -> Result<Created, PortError>;
        async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), PortError>;
        async fn set_restart_policy(
            &self,
            id: &ContainerId,
            policy: RestartPolicy,
        ) -> Result<(), PortError>;
        async fn start(&self, id: &ContainerId) -> Result<StartOutcome, PortError>;
        async fn stop(
            &self,
            id: &ContainerId,
            grace: Option<Duration>,
        ) -> Result<StopOutcome, PortError>;
        async fn remove(&self, id: &ContainerId) -> Result<(), PortError>;
        async fn reattach(&self, id: &ContainerId, frozen: &FrozenSpec) -> Result<(), PortError>;
        async fn logs_tail(&self, id: &ContainerId, lines: u32) -> Result<String, PortError>;
        async fn exec(
            &self,
            id: &ContainerId,
            argv: &[String],
            timeout: Duration,
        ) -> Result<ExecOutcome, PortError>;
        async fn orphan(&self, id: &ContainerId) -> Result<Option<String>, PortError>;
        async fn events(&self)
        -> Result<BoxStream<'static, Result<EngineEvent, PortError>>, PortError>;
    }
}

/// What a [`MockSnapshotStore`] is asked: the calls of a [`SnapshotStore`] with arguments of its own, and without the
/// progress.
pub trait SnapshotAnswers {
    /// As [`SnapshotStore::estimate`].
    fn estimate(&self, volumes: Vec<VolumeSource>) -> Result<SnapshotEstimate, PortError>;
    /// As [`SnapshotStore::pre_copy`].
    fn pre_copy(&self, request: SnapshotRequest) -> Result<(), PortError>;
    /// As [`SnapshotStore::take`].
    fn take(&self, request: SnapshotRequest) -> Result<SnapshotInfo, PortError>;
    /// As [`SnapshotStore::discard`].
    fn discard(&self, id: SnapshotId) -> Result<(), PortError>;
    /// As [`SnapshotStore::get`].
    fn get(&self, id: SnapshotId) -> Result<Option<SnapshotInfo>, PortError>;
    /// As [`SnapshotStore::list`].
    fn list(&self, instance: Option<InstanceId>) -> Result<Vec<SnapshotInfo>, PortError>;
    /// As [`SnapshotStore::verify`].
    fn verify(&self, id: SnapshotId) -> Result<SnapshotInfo, PortError>;
    /// As [`SnapshotStore::restore`].
    fn restore(&self, id: SnapshotId, volumes: Vec<VolumeSource>) -> Result<(), PortError>;
    /// As [`SnapshotStore::delete`].
    fn delete(&self, id: SnapshotId) -> Result<(), PortError>;
    /// As [`SnapshotStore::differs`].
    fn differs(
        &self,
        id: SnapshotId,
        volumes: Vec<VolumeSource>,
    ) -> Result<Vec<VolumeName>, PortError>;
}

mockall::mock! {
    /// A snapshot store that answers as told.
    pub SnapshotStore {}

    impl SnapshotAnswers for SnapshotStore {
        fn estimate(&self, volumes: Vec<VolumeSource>) -> Result<SnapshotEstimate, PortError>;
        fn pre_copy(&self, request: SnapshotRequest) -> Result<(), PortError>;
        fn take(&self, request: SnapshotRequest) -> Result<SnapshotInfo, PortError>;
        fn discard(&self, id: SnapshotId) -> Result<(), PortError>;
        fn get(&self, id: SnapshotId) -> Result<Option<SnapshotInfo>, PortError>;
        fn list(&self, instance: Option<InstanceId>) -> Result<Vec<SnapshotInfo>, PortError>;
        fn verify(&self, id: SnapshotId) -> Result<SnapshotInfo, PortError>;
        fn restore(&self, id: SnapshotId, volumes: Vec<VolumeSource>) -> Result<(), PortError>;
        fn delete(&self, id: SnapshotId) -> Result<(), PortError>;
        fn differs(
            &self,
            id: SnapshotId,
            volumes: Vec<VolumeSource>,
        ) -> Result<Vec<VolumeName>, PortError>;
    }
}

#[async_trait]
impl SnapshotStore for MockSnapshotStore {
    async fn estimate(&self, volumes: &[VolumeSource]) -> Result<SnapshotEstimate, PortError> {
        SnapshotAnswers::estimate(self, volumes.to_vec())
    }

    async fn pre_copy(
        &self,
        request: &SnapshotRequest,
        _progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        SnapshotAnswers::pre_copy(self, request.clone())
    }

    async fn take(
        &self,
        request: &SnapshotRequest,
        _progress: &dyn ProgressSink,
    ) -> Result<SnapshotInfo, PortError> {
        SnapshotAnswers::take(self, request.clone())
    }

    async fn discard(&self, id: &SnapshotId) -> Result<(), PortError> {
        SnapshotAnswers::discard(self, *id)
    }

    async fn get(&self, id: &SnapshotId) -> Result<Option<SnapshotInfo>, PortError> {
        SnapshotAnswers::get(self, *id)
    }

    async fn list(&self, instance: Option<&InstanceId>) -> Result<Vec<SnapshotInfo>, PortError> {
        SnapshotAnswers::list(self, instance.cloned())
    }

    async fn verify(&self, id: &SnapshotId) -> Result<SnapshotInfo, PortError> {
        SnapshotAnswers::verify(self, *id)
    }

    async fn restore(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
        _progress: &dyn ProgressSink,
    ) -> Result<(), PortError> {
        SnapshotAnswers::restore(self, *id, volumes.to_vec())
    }

    async fn delete(&self, id: &SnapshotId) -> Result<(), PortError> {
        SnapshotAnswers::delete(self, *id)
    }

    async fn differs(
        &self,
        id: &SnapshotId,
        volumes: &[VolumeSource],
    ) -> Result<Vec<VolumeName>, PortError> {
        SnapshotAnswers::differs(self, *id, volumes.to_vec())
    }
}

mockall::mock! {
    /// Update configs that answer as told.
    pub UpdateConfigRepository {}

    #[async_trait]
    impl UpdateConfigRepository for UpdateConfigRepository {
        async fn get(&self, tenant: &TenantId) -> Result<Option<UpdateConfig>, JournalError>;
        async fn upsert(
            &self,
            tenant: &TenantId,
            config: &UpdateConfig,
            actor: &str,
            now: Timestamp,
        ) -> Result<(), JournalError>;
        async fn list_auto_enabled(&self) -> Result<Vec<TenantConfig>, JournalError>;
        async fn list(&self) -> Result<Vec<TenantConfig>, JournalError>;
    }
}

mockall::mock! {
    /// A strategy that answers as told.
    pub RolloutStrategy {}


    impl RolloutStrategy for RolloutStrategy {
        fn label(&self) -> &str;
        fn next_batch(&self, remaining: &[PlannedInstance], so_far: &Progress) -> Batch;
        fn failure_budget(&self, total: u32) -> FailureBudget;
        fn on_failure<'a>(&self, failure: &Failure<'a>) -> OnFailure;
        fn retries(&self) -> u32;
        fn health_timeout(&self) -> Option<Duration>;
    }
}

macro_rules! debug_by_name {
    ($($mock:ident),*) => {$(
        impl fmt::Debug for $mock {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($mock)).finish_non_exhaustive()
            }
        }
    )*};
}

debug_by_name!(
    MockContainerRuntime,
    MockRolloutStrategy,
    MockSnapshotStore,
    MockUpdateConfigRepository
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance::fixtures::{instance, tenant};

    #[tokio::test]
    async fn mocks_stand_in_for_the_traits() {
        let mut snapshots = MockSnapshotStore::new();
        snapshots.expect_list().once().returning(|_| Ok(Vec::new()));
        let snapshots: Box<dyn SnapshotStore> = Box::new(snapshots);
        assert_eq!(snapshots.list(Some(&instance("a"))).await.unwrap(), []);

        let mut configs = MockUpdateConfigRepository::new();
        configs.expect_get().once().returning(|_| Ok(None));
        let configs: Box<dyn UpdateConfigRepository> = Box::new(configs);
        assert_eq!(configs.get(&tenant("acme")).await.unwrap(), None);

        let mut runtime = MockContainerRuntime::new();
        runtime.expect_find().once().returning(|_| Ok(None));
        let runtime: Box<dyn ContainerRuntime> = Box::new(runtime);
        assert!(runtime.find("web").await.unwrap().is_none());

        let mut strategy = MockRolloutStrategy::new();
        strategy.expect_retries().once().return_const(7_u32);
        let strategy: Box<dyn RolloutStrategy> = Box::new(strategy);
        assert_eq!(strategy.retries(), 7);
    }

    #[tokio::test]
    #[should_panic(expected = "No matching expectation found")]
    async fn a_call_that_nobody_expects_fails_the_test() {
        let configs = MockUpdateConfigRepository::new();
        let _ = configs.get(&tenant("acme")).await;
    }
}
