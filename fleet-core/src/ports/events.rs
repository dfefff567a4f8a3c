//! The event log: facts for people, in the order of their sequence numbers.

use async_trait::async_trait;

use super::JournalError;
use crate::record::{Event, EventKind, NewEvent};
use crate::time::Timestamp;

/// Which events to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only events of this tenant.
    pub tenant: Option<String>,
    /// Only events of this instance.
    pub instance: Option<String>,
    /// Only events at or after this instant.
    pub since: Option<Timestamp>,
    /// Only events of these kinds; empty: of all.
    pub kinds: Vec<EventKind>,
}

/// Durable, append-only. Events of updates come in through the journal's transactions.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Appends events that belong to no update; durable when this returns.
    ///
    /// # Errors
    /// The store failed.
    async fn record(&self, events: Vec<NewEvent>) -> Result<(), JournalError>;

    /// Events with a sequence number above `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The store failed.
    async fn page(
        &self,
        after: u64,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<Vec<Event>, JournalError>;
}
