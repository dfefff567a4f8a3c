//! The guard that an instance shares with others of its wave.

use futures::future::join;

use super::super::FleetError;
use super::super::rollout::UpdateOrder;
use super::super::shared_guard::Share;
use super::FleetUpdater;
use crate::ids::RolloutId;
use crate::plan::rollout::UpdateEnd;

impl FleetUpdater {
    /// Holds the instance together with others of its wave while the update goes on, where one guard can.
    pub(super) async fn held(&self, order: &UpdateOrder) -> UpdateEnd {
        let mut share = self.join_guard(order).await;
        let guard = share.as_ref().map(|share| share.name.clone());
        let raise = async {
            if let Some(share) = &mut share {
                self.fleet.raise_guard(share).await;
            }
        };
        let ((), end) = join(raise, self.carried_out(order, guard.as_deref())).await;
        if let Some(share) = share {
            self.fleet.leave_guard(share).await;
        }
        end
    }

    async fn join_guard(&self, order: &UpdateOrder) -> Option<Share> {
        if order.beside.is_empty() {
            return None;
        }
        // Where nobody can look, the update says better what is wrong.
        let survey = self.survey_of_now().await.ok()?;
        let (instance, beside) = (&order.instance, &order.beside);
        let fleet = &self.fleet;
        fleet
            .join_guard(order.rollout, instance, beside, &survey)
            .await
    }

    /// Removes the guards that an earlier process left of a rollout.
    pub(super) async fn remove_guards_left(&self, rollout: &RolloutId) -> Result<(), FleetError> {
        let survey = self.survey_of_now().await?;
        self.fleet.remove_guards_left(rollout, &survey).await
    }
}
