//! Stage 3: do it, safely.
//!
//! One update takes one instance (or a group that must move together) from one release to another. [`Step`] lists
//! what it is made of, [`Entry`] is a journal row, [`UpdateState`] the fold of all rows, and [`next`] the pure total
//! function that says what to do now: the same for live work and for recovery. The [`Executor`] does it: intent,
//! effect, outcome.

mod entry;
mod outcome;
mod plan;
mod step;

pub use entry::{Entry, Phase};
pub use outcome::{Cause, Fault, Outcome};
pub use plan::{MemberPlan, UpdatePlan};
pub use step::{Direction, Step};
