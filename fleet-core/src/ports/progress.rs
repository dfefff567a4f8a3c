//! Progress of long steps, for people. Never for decisions.

use crate::plan::rollout::RolloutGlance;

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
    /// One of several updates that go on at the same time is so far.
    Of {
        /// The instance.
        instance: String,
        /// How far it is.
        progress: Box<Progress>,
    },
    /// One of several updates is over.
    Over {
        /// The instance.
        instance: String,
    },
    /// A rollout is so far.
    Rollout(Box<RolloutGlance>),
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

/// One of several updates that report to the same place. When it is dropped the update is over.
pub struct ProgressOf<'a> {
    instance: &'a str,
    to: &'a dyn ProgressSink,
}

impl<'a> ProgressOf<'a> {
    /// Reports of the update of one instance, to a place where others report, too.
    #[must_use]
    pub fn new(instance: &'a str, to: &'a dyn ProgressSink) -> Self {
        Self { instance, to }
    }
}

impl std::fmt::Debug for ProgressOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProgressOf")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl ProgressSink for ProgressOf<'_> {
    fn report(&self, progress: Progress) {
        self.to.report(Progress::Of {
            instance: self.instance.to_owned(),
            progress: Box::new(progress),
        });
    }
}

impl Drop for ProgressOf<'_> {
    fn drop(&mut self) {
        self.to.report(Progress::Over {
            instance: self.instance.to_owned(),
        });
    }
}
