//! Rename, restart policy, start, stop, remove: each sets an absolute state and looks again.

use std::time::Duration;

use bollard::models::{ContainerUpdateBody, RestartPolicy as ApiPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use fleet_core::ids::ContainerId;
use fleet_core::model::labels::KIND;
use fleet_core::model::{Container, RestartPolicy, RunState};
use fleet_core::ports::{PortError, PortErrorKind, StartOutcome, StopOutcome};

use super::{CALL_LIMIT, DockerEngine, STOP_MARGIN, WORK_LIMIT, limited};

/// Grace of a container that has none of its own; the engine's default.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Stands for "wait for ever" (a stop timeout of -1): longer than any update, short of overflowing a timer.
const ENDLESS_GRACE: Duration = Duration::from_secs(24 * 3600);
/// Pause between two looks at a container that is about to be gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl DockerEngine {
    /// The container, or `NotFound`.
    pub(super) async fn existing(
        &self,
        op: &'static str,
        id: &ContainerId,
    ) -> Result<Container, PortError> {
        self.inspect_by_id(id).await?.ok_or_else(|| {
            let message = format!("there is no container {}", id.short());
            PortError::new(op, PortErrorKind::NotFound, message)
        })
    }

    pub(super) async fn rename_to(&self, id: &ContainerId, name: &str) -> Result<(), PortError> {
        let op = "rename a container";
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        let call = self.docker.rename_container(id.as_str(), options);
        match limited(op, CALL_LIMIT, call).await {
            // The same name again is a 400 at the engine. Looked at only then: a rename lies in the time without service.
            Err(error) if !error.outcome_unknown() && self.existing(op, id).await?.name == name => {
                Ok(())
            }
            other => other,
        }
    }

    pub(super) async fn set_policy(
        &self,
        id: &ContainerId,
        policy: RestartPolicy,
    ) -> Result<(), PortError> {
        let op = "set a restart policy";
        let (name, retries) = match policy {
            RestartPolicy::No => (RestartPolicyNameEnum::NO, None),
            RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, None),
            RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
            RestartPolicy::OnFailure { max_retries } => (
                RestartPolicyNameEnum::ON_FAILURE,
                Some(i64::from(max_retries)),
            ),
        };
        let body = ContainerUpdateBody {
            restart_policy: Some(ApiPolicy {
                name: Some(name),
                maximum_retry_count: retries,
            }),
            ..ContainerUpdateBody::default()
        };
        limited(
            op,
            CALL_LIMIT,
            self.docker.update_container(id.as_str(), body),
        )
        .await?;
        Ok(())
    }

    pub(super) async fn start_and_look(&self, id: &ContainerId) -> Result<StartOutcome, PortError> {
        let op = "start a container";
        let before = self.existing(op, id).await?;
        let call = self
            .docker
            .start_container(id.as_str(), None::<StartContainerOptions>);
        limited(op, WORK_LIMIT, call).await.map_err(start_refused)?;
        let after = self.existing(op, id).await?;
        let outcome = StartOutcome {
            started_at: after.started_at,
            running: after.is_up(),
        };
        if outcome.running || after.started_at != before.started_at || before.is_up() {
            return Ok(outcome);
        }
        // While a stop is going on the engine answers "already started" and starts nothing.
        let message = "the engine said yes but the process did not run; was it still stopping?";
        Err(PortError::new(op, PortErrorKind::Conflict, message))
    }

    pub(super) async fn stop_and_look(
        &self,
        id: &ContainerId,
        grace: Option<Duration>,
    ) -> Result<StopOutcome, PortError> {
        let op = "stop a container";
        let container = self.existing(op, id).await?;
        if container.is_up() {
            let limit = match grace {
                Some(grace) => grace,
                None => self.own_grace(id).await?,
            } + STOP_MARGIN;
            let mut options = StopContainerOptionsBuilder::new();
            if let Some(grace) = grace {
                // Whole seconds, rounded up: a grace is never cut short.
                let secs = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
                options = options.t(i32::try_from(secs).unwrap_or(i32::MAX));
            }
            // The library's own limit counts from the same moment and must not be the shorter one.
            let docker = self.docker.clone().with_timeout(limit + STOP_MARGIN);
            limited(
                op,
                limit,
                docker.stop_container(id.as_str(), Some(options.build())),
            )
            .await?;
        }
        let stopped = self
            .wait_until(op, id, |container| !container.is_up())
            .await?;
        Ok(StopOutcome {
            exit_code: stopped.started_at.and(stopped.exit_code),
        })
    }

    /// The container's own grace.
    async fn own_grace(&self, id: &ContainerId) -> Result<Duration, PortError> {
        let raw = self.inspect_raw(id.as_str()).await?.unwrap_or_default();
        Ok(match raw["Config"]["StopTimeout"].as_i64() {
            None => DEFAULT_GRACE,
            Some(secs) => u64::try_from(secs).map_or(ENDLESS_GRACE, Duration::from_secs),
        })
    }

    /// Looks until a container is as wanted. One that is gone counts as not found.
    async fn wait_until(
        &self,
        op: &'static str,
        id: &ContainerId,
        wanted: impl Fn(&Container) -> bool,
    ) -> Result<Container, PortError> {
        let looking = async {
            loop {
                let container = self.existing(op, id).await?;
                if wanted(&container) {
                    return Ok(container);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(STOP_MARGIN, looking)
            .await
            .map_err(|_| {
                PortError::new(
                    op,
                    PortErrorKind::Timeout,
                    "it is still not as it should be",
                )
            })?
    }

    pub(super) async fn remove_stopped(&self, id: &ContainerId) -> Result<(), PortError> {
        let op = "remove a container";
        let Some(container) = self.inspect_by_id(id).await? else {
            return Ok(());
        };
        // Guards and helpers hold nothing: they are killed. Everything else has to have been stopped before.
        let force = is_fleets_tool(&container);
        if container.state != RunState::Removing {
            let options = RemoveContainerOptionsBuilder::new()
                .v(false)
                .link(false)
                .force(force)
                .build();
            match limited(
                op,
                WORK_LIMIT,
                self.docker.remove_container(id.as_str(), Some(options)),
            )
            .await
            {
                Ok(()) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.message().contains("already in progress") => {}
                Err(error) => return Err(error),
            }
        }
        match self.wait_until(op, id, |_| false).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

/// Whether a container is a guard or helper of fleet's.
pub(super) fn is_fleets_tool(container: &Container) -> bool {
    container
        .labels
        .get(KIND)
        .is_some_and(|kind| kind == "guard" || kind == "helper")
}

/// A start that a live engine refused is not "not found", even where a network is what is missing.
fn start_refused(error: PortError) -> PortError {
    let container_is_gone = error.message().to_lowercase().contains("no such container");
    if error.is_not_found() && !container_is_gone {
        let message = error.message().to_owned();
        return PortError::new(error.op(), PortErrorKind::Failed, message).with_source(error);
    }
    error
}
