//! One suite per store port, the same for the store in memory and for every real one.
//!
//! Each suite takes a function that makes an empty store, and panics with what it expected and what it found. A
//! promise that a port's documentation makes and no suite checks is a gap in the suite.

pub mod fixtures;

mod availability;
mod configs;
mod events;
mod journal;
mod journal_rows;
mod rollouts;

pub use availability::availability;
pub use configs::{configs, settings};
pub use events::events;
pub use journal::journal;
pub use rollouts::rollouts;
