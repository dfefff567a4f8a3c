//! Docker adapter of fleet: containers and images of one engine, health probes, volume snapshots, registries.
//!
//! What the engine gives and what it does not decides the layout: [`DockerEngine`] talks to it, [`recreate`] is the
//! pure part that turns what was inspected into a create request without losing anything, and [`compose`] keeps
//! docker-compose from undoing an update.

pub mod compose;
mod engine;
mod error;
mod guard;
mod health;
pub mod helper;
mod json;
pub mod recreate;
pub mod registry;
mod system;
pub mod volume;

pub use engine::{ConnectOptions, DockerEngine, Scout};
pub use system::{SystemClock, SystemEntropy};
