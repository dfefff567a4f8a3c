//! Bounded polling.

use std::thread;
use std::time::{Duration, Instant};

/// Polls until the condition gives a value.
///
/// # Panics
/// When `timeout` has passed, with `what` and the last status.
#[track_caller]
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + timeout;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(status) if Instant::now() >= until => {
                panic!("waited {timeout:?} for {what}; last seen: {status}")
            }
            Err(_) => thread::park_timeout(Duration::from_millis(10)),
        }
    }
}
