//! Docker adapter of fleet: containers and images of one engine, health probes, volume snapshots, registries.
//!
//! What the engine gives and what it does not decides the layout: [`engine`] talks to it, [`recreate`] is the pure
//! part that turns what was inspected into a create request without losing anything.

pub mod registry;
