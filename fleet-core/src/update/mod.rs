//! Stage 3: do it, safely.
//!
//! One update takes one instance (or a group that must move together) from one release to another. [`Step`] lists
//! what it is made of, [`Entry`] is a journal row, [`UpdateState`] the fold of all rows, and [`next`] the pure total
//! function that says what to do now: the same for live work and for recovery. The [`Executor`] does it: intent,
//! effect, outcome.

mod entry;
mod executor;
mod former;
mod group;
mod guard;
mod outcome;
mod plan;
mod preflight;
mod program;
mod recover;
mod report;
mod state;
mod step;

pub use entry::{Entry, Phase};
pub use executor::{ENGINE_WAIT, Executor, SagaError, error_chain};
pub use former::former_digests;
pub use group::{Group, group, groups};
pub(crate) use guard::Belongings;
pub use outcome::{Cause, Fault, Outcome};
pub use plan::{MemberPlan, UpdatePlan};
pub use preflight::{NO_SPACE, Refusal, Subject, is_transitional, preflight};
pub use program::{Action, applies, next, outcome_of_going_back, program, quarantines};
pub(crate) use recover::catch_up;
pub use recover::{Decision, MAX_RECOVERIES, MemberObservation, Observation, Verdict, decide};
pub use report::{StepReport, UpdateReport, downtime};
pub use state::{Deadline, Facts, MemberState, SnapshotFact, UpdateState};
pub use step::{Direction, Step};
