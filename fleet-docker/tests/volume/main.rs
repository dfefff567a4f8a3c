//! Snapshots on real file systems, compared with tools that are not ours.

mod by_hand;
mod corrupt;
mod durable;
mod every_kind;
mod faults;
mod file_systems;
mod helper;
mod hostile;
mod killed;
mod labels;
mod large;
mod random;
mod store;
mod support;
mod writers;
