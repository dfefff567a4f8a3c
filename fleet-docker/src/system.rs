//! Time and chance of the machine on which fleet runs, for whoever embeds it.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fleet_core::ports::{Clock, Entropy};
use fleet_core::time::Timestamp;

/// The machine's clock. Sleeps need a tokio runtime with time.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
    boot_id: String,
}

impl SystemClock {
    /// Starts the monotonic clock and reads the boot id, which is `unknown` where the kernel does not tell it.
    #[must_use]
    pub fn new() -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            started: Instant::now(),
            boot_id: boot_id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned()),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Chance from the keys that the standard library draws from the operating system. Good for ids and jitter, not for
/// secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        let mut words = (0_u64..).map(|word| RandomState::new().hash_one(word).to_le_bytes());
        for chunk in bytes.chunks_mut(8) {
            let word = words.next().unwrap_or_default();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_does_not_repeat() {
        let draws: std::collections::HashSet<_> =
            (0..10_000).map(|_| SystemEntropy.bytes()).collect();
        assert_eq!(draws.len(), 10_000);
    }
}
