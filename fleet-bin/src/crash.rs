//! Crash points of the binary: with the feature `crash-points`, the process dies where `FLEET_CRASH_AT` says, and stops
//! as on SIGSTOP where `FLEET_PAUSE_AT` says (`*`: everywhere) until somebody lets it go on.
//!
//! Without the feature, which is how it ships, nothing can make it do either.

use std::sync::Arc;

use fleet_core::crash::CrashPoints;

/// The hook that the engine calls.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn points() -> Arc<dyn CrashPoints> {
    Arc::new(fleet_core::crash::NoCrashPoints)
}

/// The hook that the engine calls.
#[cfg(feature = "crash-points")]
pub(crate) fn points() -> Arc<dyn CrashPoints> {
    Arc::new(dying::DieAt {
        at: std::env::var("FLEET_CRASH_AT").unwrap_or_default(),
        pause: std::env::var("FLEET_PAUSE_AT").unwrap_or_default(),
        paused: std::sync::atomic::AtomicBool::new(false),
        log: std::env::var_os("FLEET_CRASH_LOG").map(std::path::PathBuf::from),
    })
}

#[cfg(feature = "crash-points")]
mod dying {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use fleet_core::crash::CrashPoints;
    use rustix::process::{Signal, getpid, kill_process};

    /// Aborts at one point, pauses at one or all; notes every point that is passed, so that tests know which there are.
    pub(super) struct DieAt {
        pub(super) at: String,
        pub(super) pause: String,
        /// A named point pauses once: a step that is tried again passes it again.
        pub(super) paused: AtomicBool,
        pub(super) log: Option<PathBuf>,
    }

    impl CrashPoints for DieAt {
        fn reached(&self, point: &str) -> bool {
            if let Some(path) = &self.log {
                let file = OpenOptions::new().append(true).create(true).open(path);
                // A test that cannot read its log fails by itself.
                let _ = file.and_then(|mut file| writeln!(file, "{point}"));
            }
            if point == self.at {
                std::process::abort();
            }
            let first = || !self.paused.swap(true, Ordering::SeqCst);
            if self.pause == "*" || (point == self.pause && first()) {
                // A test that waits for the pause fails by itself if there is none.
                let _ = kill_process(getpid(), Signal::STOP);
            }
            false
        }
    }
}
