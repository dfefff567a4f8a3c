//! Time and chance, injected.

use std::time::Duration;

use async_trait::async_trait;

use crate::time::Timestamp;

/// Time. Only the engine holds one; pure code is handed instants.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process; never goes back. For durations and deadlines within a process.
    fn monotonic(&self) -> Duration;

    /// An id that changes when the host boots. Deadlines in the journal carry it.
    fn boot_id(&self) -> String;

    /// Waits. Cancel safe.
    async fn sleep(&self, duration: Duration);
}

/// Chance, for ids and jitter.
pub trait Entropy: Send + Sync {
    /// Ten random bytes.
    fn bytes(&self) -> [u8; 10];
}
