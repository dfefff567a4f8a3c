//! The paused time of tokio as a clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::ports::Clock;
use crate::time::Timestamp;

/// A clock over the time of a tokio runtime that is paused: when all tasks wait, time jumps to the next timer. For tests
/// with many sleepers over long stretches; [`super::ManualClock`] needs no runtime.
#[derive(Debug, Clone)]
pub struct PausedClock {
    started: Instant,
    /// The wall clock at the start.
    wall: Arc<Mutex<Timestamp>>,
}

impl PausedClock {
    /// A clock that stands at this instant. To be made, and asked, inside a runtime whose time is paused.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others ask"
    )]
    pub fn new(wall: Timestamp) -> Self {
        Self {
            started: Instant::now(),
            wall: Arc::new(Mutex::new(wall)),
        }
    }

    /// Sets the wall clock alone.
    pub fn jump_to(&self, wall: Timestamp) {
        *self.wall.lock().unwrap_or_else(PoisonError::into_inner) =
            wall.saturating_sub(self.monotonic());
    }
}

#[async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let wall = *self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        wall.saturating_add(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn boot_id(&self) -> String {
        "boot-1".to_owned()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others ask"
    )]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
