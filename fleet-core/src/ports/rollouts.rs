//! Where rollouts are kept.

use async_trait::async_trait;

use crate::ids::RolloutId;
use crate::image::ImageRef;
use crate::plan::RolloutPlan;
use crate::plan::rollout::RolloutState;
use crate::record::NewEvent;

/// Why the store of rollouts did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloutStoreError {
    /// There is a rollout of that id.
    #[error("rollout {0} exists already")]
    Exists(RolloutId),
    /// There is none.
    #[error("there is no rollout {0}")]
    NoSuchRollout(RolloutId),
    /// Somebody else changed it: load it again and decide anew.
    #[error(
        "rollout {rollout} is at generation {found}, expected {expected}: somebody else changed it"
    )]
    Overtaken {
        /// The rollout.
        rollout: RolloutId,
        /// What the writer knew.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// The store cannot be written or read. Whoever sees this stops.
    #[error("the store of rollouts failed: {message}")]
    Store {
        /// What happened.
        message: String,
        /// What caused it.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A rollout as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRollout {
    /// The immutable plan.
    pub plan: RolloutPlan,
    /// Its state.
    pub state: RolloutState,
    /// How often the state was written, from 1.
    pub generation: u64,
}

/// Keeps rollouts.
///
/// # Guarantees
/// What was written is durable when the call returns. A state and the events of its change are written in one
/// transaction. Of two writers that know the same generation one wins.
#[async_trait]
pub trait RolloutStore: Send + Sync {
    /// Keeps a new rollout at generation 1.
    ///
    /// # Errors
    /// [`RolloutStoreError::Exists`], [`RolloutStoreError::Store`]; nothing was written then.
    async fn create(
        &self,
        plan: &RolloutPlan,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<(), RolloutStoreError>;

    /// One rollout.
    ///
    /// # Errors
    /// [`RolloutStoreError::Store`].
    async fn load(&self, id: &RolloutId) -> Result<Option<StoredRollout>, RolloutStoreError>;

    /// Rollouts whose state is not terminal, oldest first.
    ///
    /// # Errors
    /// [`RolloutStoreError::Store`].
    async fn active(&self) -> Result<Vec<StoredRollout>, RolloutStoreError>;

    /// The newest rollouts, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`RolloutStoreError::Store`].
    async fn list(&self, limit: u32) -> Result<Vec<StoredRollout>, RolloutStoreError>;

    /// The newest rollouts of releases under this very reference, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`RolloutStoreError::Store`].
    async fn of_image(
        &self,
        image: &ImageRef,
        limit: u32,
    ) -> Result<Vec<StoredRollout>, RolloutStoreError>;

    /// Replaces the state if its generation is the expected one; returns the new generation.
    ///
    /// # Errors
    /// [`RolloutStoreError::Overtaken`], [`RolloutStoreError::NoSuchRollout`], [`RolloutStoreError::Store`]; nothing
    /// was written then, or, after a failure of the store, it is not known whether something was.
    async fn compare_and_swap(
        &self,
        id: &RolloutId,
        expected: u64,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<u64, RolloutStoreError>;
}
