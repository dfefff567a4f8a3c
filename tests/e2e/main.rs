//! The promise, end to end: the binary `fleet` on a real engine, with real volumes and a real registry.

mod commit;
mod cutter;
mod daemon;
mod contained;
mod demo;
mod errors;
mod gate;
mod pull;
mod rollback;
mod rollouts;
mod tree;
mod trust;
mod writer;
