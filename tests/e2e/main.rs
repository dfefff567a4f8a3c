//! The promise, end to end: the binary `fleet` on a real engine, with real volumes and a real registry.

mod away;
mod commit;
mod compose;
mod contained;
mod cutter;
mod daemon;
mod demo;
mod errors;
mod explain;
mod gate;
mod port;
mod pruned;
mod pull;
mod rollback;
mod rollouts;
mod tree;
mod trust;
mod writer;
