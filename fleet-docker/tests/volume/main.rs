//! Snapshots on real file systems, compared with tools that are not ours.

mod every_kind;
mod store;
mod support;
