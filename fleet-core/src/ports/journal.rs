//! The intent log: what recovery reads after a crash.

use async_trait::async_trait;

use crate::ids::{InstanceId, UpdateId};
use crate::image::{Digest, ImageRef};
use crate::record::NewEvent;
use crate::time::Timestamp;
use crate::update::{Entry, Outcome, UpdatePlan};

/// Why the journal did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The instance has a live update; the database itself enforces that there is one at most.
    #[error("instance {instance} has a live update {update}")]
    LiveUpdate {
        /// The instance.
        instance: InstanceId,
        /// The update that lives.
        update: UpdateId,
    },
    /// Somebody else wrote to this update: stop.
    #[error(
        "update {update} has {found} journal rows, expected {expected}: another process works on it"
    )]
    Overtaken {
        /// The update.
        update: UpdateId,
        /// Rows this writer knew of.
        expected: u32,
        /// Rows there are.
        found: u32,
    },
    /// No such update.
    #[error("there is no update {0}")]
    NoSuchUpdate(UpdateId),
    /// The update is over: nothing can be added to it.
    #[error("update {0} is closed: nothing can be added to it")]
    Closed(UpdateId),
    /// The store cannot be written or read. Whoever sees this stops at once.
    #[error("the journal failed: {message}")]
    Store {
        /// What happened.
        message: String,
        /// What caused it.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A new update: the plan, before its first step.
#[derive(Debug, Clone)]
pub struct NewUpdate {
    /// The immutable plan.
    pub plan: UpdatePlan,
    /// Now.
    pub at: Timestamp,
    /// The host's boot id.
    pub boot_id: String,
}

/// One transaction on one update. Everything in it happens or nothing does.
#[derive(Debug, Clone, Default)]
pub struct JournalWrite {
    /// Rows to append, in order. Their sequence numbers follow `expected_rows` without a gap.
    pub entries: Vec<Entry>,
    /// Rows that must be there before; a different number is [`JournalError::Overtaken`].
    pub expected_rows: u32,
    /// Sets the outcome.
    pub outcome: Option<Outcome>,
    /// The update's volumes may have been written to by the new version.
    pub volumes_dirty: bool,
    /// Ends the update: the instances are free for the next one. Clean-up is over, or a person ended it.
    pub close: bool,
    /// Events for people, written with the rows.
    pub events: Vec<NewEvent>,
    /// Digests that must not be tried again.
    pub quarantine: Vec<Quarantined>,
    /// What now runs where.
    pub deployed: Vec<Deployed>,
}

/// A digest that failed on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The instance.
    pub instance: InstanceId,
    /// The digest.
    pub digest: Digest,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// What fleet put on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The instance.
    pub instance: InstanceId,
    /// Reference it was found under.
    pub image: ImageRef,
    /// Digest that was asked for.
    pub digest: Digest,
    /// Image id that runs.
    pub image_id: crate::ids::ImageId,
    /// Since when.
    pub at: Timestamp,
}

/// An update as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUpdate {
    /// The plan.
    pub plan: UpdatePlan,
    /// When it began.
    pub created_at: Timestamp,
    /// Boot id at that time.
    pub boot_id: String,
    /// All rows in order.
    pub entries: Vec<Entry>,
    /// The outcome, if it has one.
    pub outcome: Option<Outcome>,
    /// Whether a write said that the new version may have written to the volumes. Never goes back to false.
    pub volumes_dirty: bool,
    /// Whether it is over.
    pub closed: bool,
}

/// The intent log.
///
/// # Guarantees
/// What [`Journal::open`] and [`Journal::append`] wrote is durable when they return. An instance has at most one
/// update that is not closed, enforced by the store. Events, quarantine and deployed rows are in the same
/// transaction as the rows that caused them.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Begins an update on all its members.
    ///
    /// # Errors
    /// [`JournalError::LiveUpdate`] if a member has one; nothing was written then.
    async fn open(&self, update: &NewUpdate, events: Vec<NewEvent>) -> Result<(), JournalError>;

    /// Appends to an update.
    ///
    /// # Errors
    /// [`JournalError::Overtaken`], [`JournalError::NoSuchUpdate`], [`JournalError::Closed`], [`JournalError::Store`].
    async fn append(&self, update: &UpdateId, write: JournalWrite) -> Result<(), JournalError>;

    /// Updates that are not closed, oldest first.
    ///
    /// # Errors
    /// [`JournalError::Store`].
    async fn load_open(&self) -> Result<Vec<StoredUpdate>, JournalError>;

    /// One update.
    ///
    /// # Errors
    /// [`JournalError::Store`].
    async fn load(&self, update: &UpdateId) -> Result<Option<StoredUpdate>, JournalError>;

    /// The newest updates of an instance, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`JournalError::Store`].
    async fn history(
        &self,
        instance: &InstanceId,
        limit: u32,
    ) -> Result<Vec<StoredUpdate>, JournalError>;

    /// The quarantined digests of an instance.
    ///
    /// # Errors
    /// [`JournalError::Store`].
    async fn quarantined(&self, instance: &InstanceId) -> Result<Vec<Quarantined>, JournalError>;

    /// Lifts the quarantine of a digest on an instance.
    ///
    /// # Errors
    /// [`JournalError::Store`].
    async fn lift_quarantine(
        &self,
        instance: &InstanceId,
        digest: &Digest,
    ) -> Result<(), JournalError>;

    /// What fleet put on each instance, as far as it did.
    ///
    /// # Errors
    /// [`JournalError::Store`].
    async fn deployed(&self) -> Result<Vec<Deployed>, JournalError>;

    /// Whether nothing can be written any more until it is opened anew: after an input/output error, or because another
    /// fleet took it. Whoever would go on for long ends, so that it is opened again.
    fn is_broken(&self) -> bool {
        false
    }
}
