//! The simulator's tests: stories of updates under faults, each checked against the invariants.
#![expect(
    clippy::disallowed_methods,
    reason = "how much to run comes from the environment, and fresh seeds from the clock"
)]

mod enumeration;
mod parallel;
mod seeds;
mod stories;
mod table;
