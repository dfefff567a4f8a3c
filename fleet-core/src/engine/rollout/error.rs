//! What can go wrong with rollouts.

use super::updater::UpdaterError;
use crate::ids::{InstanceId, RolloutId};
use crate::plan::rollout::IllegalTransition;
use crate::plan::strategy::StrategyError;
use crate::plan::window::WindowError;
use crate::plan::{Held, PlanError, Violation};
use crate::ports::RolloutStoreError;

/// Why a rollout could not be driven or steered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloutError {
    /// The store failed, or somebody else changed the rollout again and again.
    #[error("the rollout could not be kept")]
    Store(#[from] RolloutStoreError),
    /// The fleet could not be looked at.
    #[error("the fleet could not be looked at")]
    Updater(#[from] UpdaterError),
    /// The rollout is not in a state that allows it.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// There is none of that id.
    #[error("there is no rollout {0}")]
    NoSuchRollout(RolloutId),
    /// The rollout is not about that instance.
    #[error("instance {instance} is not in rollout {rollout}")]
    NotInRollout {
        /// The instance.
        instance: InstanceId,
        /// The rollout.
        rollout: RolloutId,
    },
    /// The strategy of a stored rollout is not registered here.
    #[error("the rollout's strategy is not known here")]
    Strategy(#[from] StrategyError),
    /// A setting of the fleet cannot be read; nothing starts.
    #[error("a setting of the fleet cannot be read")]
    Setting(#[from] WindowError),
}

/// Why a rollout was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The whole fleet is held: refused for now.
    #[error("the fleet is {0}")]
    Paused(Held),
    /// The same release is being rolled out to the same instances.
    #[error("rollout {0} is rolling out this release already")]
    AlreadyRunning(RolloutId),
    /// The rollout to repeat is not over.
    #[error("rollout {0} is not over: expected one that ended")]
    NotOver(RolloutId),
    /// Nothing of the rollout failed in a way that can be tried again.
    #[error("nothing failed in rollout {0}")]
    NothingFailed(RolloutId),
    /// There is no plan.
    #[error("there is no plan")]
    Plan(#[from] PlanError),
    /// The planner is wrong: the plan is not carried out.
    #[error("the plan breaks {} rules, the first one: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Unsound(Vec<Violation>),
    /// Something else failed.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
}

impl From<RolloutStoreError> for StartError {
    fn from(error: RolloutStoreError) -> Self {
        Self::Rollout(error.into())
    }
}

impl From<UpdaterError> for StartError {
    fn from(error: UpdaterError) -> Self {
        Self::Rollout(error.into())
    }
}
