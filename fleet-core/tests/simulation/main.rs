//! The simulator's tests: stories of updates under faults, each checked against the invariants.

mod seeds;
mod stories;
