//! Telling people.

use async_trait::async_trait;

use super::PortError;

/// One message to one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The same on every retry.
    pub id: String,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
}

/// Delivers one message. At least once: the caller retries with the same id.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Delivers.
    ///
    /// # Errors
    /// Not delivered, or not known.
    async fn deliver(&self, message: &Message) -> Result<(), PortError>;
}
