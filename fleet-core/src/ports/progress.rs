//! Progress of long steps, for people. Never for decisions.

/// How far a long step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step began.
    Step {
        /// The instance.
        instance: String,
        /// The step's name, as in the journal.
        step: &'static str,
    },
    /// Bytes done of a total (0 if not known).
    Bytes {
        /// What is counted: `pull`, `snapshot`, `restore`.
        what: &'static str,
        /// Done so far.
        done: u64,
        /// In all, 0 if not known.
        total: u64,
    },
    /// The health gate probed once.
    Probe {
        /// Passes in a row so far.
        passes: u32,
        /// What the probe said, if it did not pass.
        reason: Option<String>,
    },
}

/// Where progress goes. Must return at once.
pub trait ProgressSink: Send + Sync {
    /// Takes one report.
    fn report(&self, progress: Progress);
}

/// Drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl ProgressSink for NoProgress {
    fn report(&self, _progress: Progress) {}
}
