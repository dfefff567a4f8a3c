//! Somebody who asks a container's program without end: how long was it without service?

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long the new version may take to answer after everything else is done.
const AT_MOST: Duration = Duration::from_secs(10);

/// Asks without end; notes the last answer of the old version and the first of the new one.
pub(crate) struct Asker {
    stop: Arc<AtomicBool>,
    every: Duration,
    thread: thread::JoinHandle<Option<Duration>>,
}

impl Asker {
    /// Begins to ask for `/version`, with a pause between two questions.
    pub(crate) fn start(address: SocketAddr, new_version: &'static str, every: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut last_old = None;
            while !stopped.load(Ordering::Relaxed) {
                let answer = fleet_testkit::get(address, "/version", PATIENCE);
                match answer.ok().map(|answer| answer.body) {
                    Some(body) if body.trim() == new_version => {
                        return Some(last_old?).map(|old: Instant| old.elapsed());
                    }
                    Some(_) => last_old = Some(Instant::now()),
                    None => {}
                }
                thread::park_timeout(every);
            }
            None
        });
        Self {
            stop,
            every,
            thread,
        }
    }

    /// Whether the new version has answered.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// The time without service. Waits for the new version to have answered.
    pub(crate) fn end(self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while !self.is_done() && start.elapsed() < AT_MOST {
            thread::park_timeout(self.every);
        }
        self.stop.store(true, Ordering::Relaxed);
        let seen = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("the asker panicked"))?;
        seen.ok_or_else(|| anyhow::anyhow!("the new version never answered"))
    }
}
