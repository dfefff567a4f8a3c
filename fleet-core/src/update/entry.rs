//! A row of the journal.

use serde::{Deserialize, Serialize};

use super::{Cause, Outcome, Step};
use crate::time::Timestamp;

/// One row: a step of one member began, ended or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, for people; rows are ordered by their number.
    pub at: Timestamp,
    /// Which member of the plan; 0 for steps that concern the whole update.
    pub member: usize,
    /// What it is about.
    pub phase: Phase,
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// The step is about to act. Whether it did is not known from this row.
    Started {
        /// The step.
        step: Step,
        /// Its inputs.
        #[serde(default)]
        input: serde_json::Value,
    },
    /// The step's state was seen.
    Done {
        /// The step.
        step: Step,
        /// Its outputs.
        #[serde(default)]
        output: serde_json::Value,
    },
    /// The step did not succeed; the update turns back, or, on the way back, needs a person.
    Failed {
        /// The step.
        step: Step,
        /// Why.
        cause: Cause,
        /// What is known all the same.
        #[serde(default)]
        output: serde_json::Value,
    },
    /// The update has an outcome.
    Ended {
        /// The outcome.
        outcome: Outcome,
        /// Why, for people; empty where there is nothing to say.
        reason: String,
    },
    /// A person ended what needed one: the update goes on, in the direction the person chose.
    Resolved {
        /// Keep the new release, or go back to the old one.
        keep_new: bool,
        /// Who.
        actor: String,
    },
    /// A new process took over: recovery decided this.
    Recovered {
        /// Whether it goes on forward.
        forward: bool,
        /// What was found and what follows, for people.
        reason: String,
        /// Why it turns back, if it does.
        cause: Option<Cause>,
    },
    /// Written by a newer fleet.
    #[serde(other)]
    Unknown,
}
