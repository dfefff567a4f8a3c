//! Updates on a real engine, with fleet in this process: what commands cannot reach from outside.

mod calls_fail;
mod embedded;
mod groups;
mod mounted;
mod proxy;
mod sequences;
