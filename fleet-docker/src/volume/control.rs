//! What the caller has over running work: giving it up, a limit of bytes per second, a count of what is done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::VolumeError;

/// Shared between the caller and the threads that work for it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cancelled: AtomicBool,
    done: AtomicU64,
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    bytes_per_second: u64,
    /// Until when the bytes let through so far fill the line.
    busy_until: Mutex<Option<Instant>>,
}

/// How far the line may be filled ahead: small enough that giving up is quick, large enough not to wake for nothing.
const LIMIT_SLACK: Duration = Duration::from_millis(50);

impl Control {
    /// With an optional limit of volume bytes read or written per second.
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        let limit = bytes_per_second.filter(|rate| *rate > 0).map(|rate| Limit {
            bytes_per_second: rate,
            busy_until: Mutex::new(None),
        });
        Self {
            inner: Arc::new(Inner {
                limit,
                ..Inner::default()
            }),
        }
    }

    /// Asks the work to stop at its next step.
    pub(super) fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::Relaxed);
    }

    /// Bytes done so far.
    pub(super) fn done(&self) -> u64 {
        self.inner.done.load(Ordering::Relaxed)
    }

    /// Fails once the work was given up.
    pub(super) fn check(&self) -> Result<(), VolumeError> {
        if self.inner.cancelled.load(Ordering::Relaxed) {
            Err(VolumeError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Counts bytes as done and waits as long as the limit asks.
    #[expect(
        clippy::disallowed_methods,
        reason = "a limit of bytes a second is made of waiting"
    )]
    pub(super) fn moved(&self, bytes: usize) -> Result<(), VolumeError> {
        let bytes = bytes as u64;
        self.inner.done.fetch_add(bytes, Ordering::Relaxed);
        self.check()?;
        let Some(limit) = &self.inner.limit else {
            return Ok(());
        };
        let mut wait = limit.book(bytes);
        while !wait.is_zero() {
            let nap = wait.min(LIMIT_SLACK);
            std::thread::sleep(nap);
            self.check()?;
            wait -= nap;
        }
        Ok(())
    }
}

impl Limit {
    /// Puts bytes on the line; returns how long the caller must wait.
    fn book(&self, bytes: u64) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut busy_until = self
            .busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let until = busy_until.map_or(now, |until| until.max(now)) + cost;
        *busy_until = Some(until);
        until.duration_since(now).saturating_sub(LIMIT_SLACK)
    }
}

/// Gives the work up when it is dropped before it was disarmed: a future that nobody polls any more must not go on
/// in its thread.
#[derive(Debug)]
pub(super) struct CancelOnDrop(pub(super) Control);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_makes_callers_wait_in_proportion() {
        let limit = Limit {
            bytes_per_second: 1_000_000,
            busy_until: Mutex::new(None),
        };
        assert_eq!(limit.book(10_000), Duration::ZERO);
        let wait = limit.book(2_000_000);
        assert!(wait > Duration::from_millis(1_800), "{wait:?}");
        assert!(wait < Duration::from_millis(2_010), "{wait:?}");
    }

    #[test]
    fn given_up_work_fails_at_its_next_step() {
        let control = Control::new(None);
        assert!(control.moved(5).is_ok());
        drop(CancelOnDrop(control.clone()));
        assert!(matches!(control.moved(5), Err(VolumeError::Cancelled)));
        assert_eq!(control.done(), 10);
    }
}
