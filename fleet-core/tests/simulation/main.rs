//! The simulator's tests: stories of updates under faults, each checked against the invariants.

mod enumeration;
mod parallel;
mod seeds;
mod stories;
mod table;
