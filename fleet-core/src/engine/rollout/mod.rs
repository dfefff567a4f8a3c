//! Drives rollouts: claims instances, has them updated, records what became of them, and opens the next wave.
//!
//! | this does | others do |
//! |---|---|
//! | asks [`crate::plan::rollout::admit`] what may begin, claims it in the store, then orders the update | [`Updater`]: the update itself, journalled |
//! | writes each change by compare-and-swap, with its events | [`crate::plan::rollout::next`]: what a change is |
//! | after a restart asks the updater what became of each claim | the journal: what really happened |
//!
//! # Guarantees
//! A pass takes no hint about what changed: everything follows from the store and from the fleet as it is. The process
//! may die, or [`Orchestrator::run_due`] be dropped, at any point: claims are in the store before their updates begin,
//! and what ended unrecorded is in the journal. Of two orchestrators that want to change a rollout one wins, the other
//! looks again. Nothing that is in flight is ever cut short by a hold, an abort, a window or a newer rollout.

mod clocks;
mod detected;
mod error;
mod facts;
mod orchestrator;
mod order;
mod pass;
mod replaced;
mod run;
mod start;
mod updater;
mod view;

pub use detected::Detected;
pub(in crate::engine) use detected::Prepared;
pub use error::{RolloutError, StartError};
pub use orchestrator::{Command, Orchestrator, Woken};
pub use run::{Outlook, Waited};
pub use start::{StartRequest, Started};
pub use updater::{
    FleetView, Happened, InstanceView, UpdateOrder, Updater, UpdaterError, update_end,
};
pub use view::{MemberView, RolloutView};

#[cfg(test)]
mod tests;
