//! What is said while a call is carried out: lines for people, and progress.

use fleet_core::plan::rollout::RolloutGlance;
use fleet_core::ports::{Progress, ProgressSink};
use serde::{Deserialize, Serialize};

use crate::output::{Ui, tell};

/// Says things while a call is carried out.
pub(crate) trait Voice: Send + Sync {
    /// A line for people, on standard error.
    fn tell(&self, text: &str);

    /// Where the progress of something goes. What is shown disappears when it is dropped.
    fn sink(&self, name: &str) -> Box<dyn ProgressSink>;
}

impl Voice for Ui {
    fn tell(&self, text: &str) {
        self.suspend(|| tell(text));
    }

    fn sink(&self, name: &str) -> Box<dyn ProgressSink> {
        Box::new(Self::sink(self, name))
    }
}

/// Progress that can be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub(crate) enum Said {
    /// A step of an update begins.
    Step {
        /// The instance.
        instance: String,
        /// The step's name.
        step: String,
    },
    /// Bytes were moved.
    Bytes {
        /// What is moved.
        what: String,
        /// Done so far.
        done: u64,
        /// In all, 0 if that is not known.
        total: u64,
    },
    /// A health probe answered.
    Probe {
        /// Passes in a row.
        passes: u32,
        /// Why it did not pass.
        reason: Option<String>,
    },
    /// One of several updates is so far.
    Of {
        /// The instance.
        instance: String,
        /// How far it is.
        said: Box<Said>,
    },
    /// One of several updates is over.
    Over {
        /// The instance.
        instance: String,
    },
    /// A rollout is so far.
    Rollout {
        /// The rollout.
        rollout: Box<RolloutGlance>,
    },
}

impl From<Progress> for Said {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Step { instance, step } => Self::Step {
                instance,
                step: step.to_owned(),
            },
            Progress::Bytes { what, done, total } => Self::Bytes {
                what: what.to_owned(),
                done,
                total,
            },
            Progress::Probe { passes, reason } => Self::Probe { passes, reason },
            Progress::Of { instance, progress } => Self::Of {
                instance,
                said: Box::new(Self::from(*progress)),
            },
            Progress::Over { instance } => Self::Over { instance },
            Progress::Rollout(rollout) => Self::Rollout { rollout },
        }
    }
}
