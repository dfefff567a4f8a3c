//! How an order ends, also where the update stopped on the way.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;

use super::super::FleetError;
use super::super::rollout::{Happened, UpdateOrder, UpdaterError, update_end};
use super::{FleetUpdater, infrastructure, unanswered};
use crate::ids::UpdateId;
use crate::plan::rollout::UpdateEnd;
use crate::update::{SagaError, UpdateState};

/// Shortest and longest pause before recovery is asked again for an update that lost its engine.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);
const ENGINE_PAUSE_MAX: Duration = Duration::from_secs(30);

impl FleetUpdater {
    /// Carries an order out, whatever comes in between.
    pub(super) async fn carried_out(&self, order: &UpdateOrder, guard: Option<&str>) -> UpdateEnd {
        let carried_out = AssertUnwindSafe(self.carry_out(order, guard));
        let carried_out = carried_out.catch_unwind().await;
        match carried_out {
            // The other updates of the rollout go on; recovery looks at what is there, as after a crash.
            Err(_) => {
                let why = "the update stopped by a defect in fleet".to_owned();
                self.after_a_stop(order, why).await
            }
            Ok(Ok(end)) => end,
            Ok(Err(FleetError::Saga(SagaError::EngineAway { .. }))) => {
                self.after_a_stop(order, "the engine stayed away".to_owned())
                    .await
            }
            // The process is about to end: the next one reads in the journal how far this came.
            Ok(Err(FleetError::Saga(SagaError::Stopped { .. }))) => std::future::pending().await,
            // The outcome stands; only the clean-up is left to the next recovery.
            Ok(Err(FleetError::Saga(SagaError::CleanUp { reason }))) => {
                match self.became(&order.id).await {
                    Ok(Happened::Ended(end)) => end,
                    _ => infrastructure(reason),
                }
            }
            Ok(Err(error)) => infrastructure(crate::update::error_chain(&error)),
        }
    }

    /// What became of an update.
    pub(super) async fn became(&self, update: &UpdateId) -> Result<Happened, UpdaterError> {
        let stored = self
            .fleet
            .ports
            .update
            .journal
            .load(update)
            .await
            .map_err(|error| unanswered(error.into()))?;
        let Some(stored) = stored else {
            return Ok(Happened::NeverBegan);
        };
        let state = UpdateState::replay(stored.plan, &stored.entries);
        let Some(outcome) = state.outcome else {
            return Ok(Happened::Open);
        };
        let fault = state.cause.as_ref().map(|cause| cause.fault);
        Ok(Happened::Ended(update_end(
            outcome,
            fault,
            &state.outcome_reason,
            self.now(),
        )))
    }

    /// Has recovery finish an update that stopped on the way, however long the engine stays away: until it is back nobody
    /// can say how the update ends.
    async fn after_a_stop(&self, order: &UpdateOrder, why: String) -> UpdateEnd {
        let mut pause = ENGINE_PAUSE;
        loop {
            match self.fleet.recover(self.progress.as_ref(), &|_, _| {}).await {
                Ok(_) => match self.became(&order.id).await {
                    Ok(Happened::Ended(end)) => return end,
                    Ok(Happened::NeverBegan) => return infrastructure(why),
                    Ok(Happened::Open) | Err(_) => {}
                },
                Err(error) => tracing::warn!(%error, "recovery failed"),
            }
            self.fleet.ports.update.clock.sleep(pause).await;
            pause = (pause * 2).min(ENGINE_PAUSE_MAX);
        }
    }
}
