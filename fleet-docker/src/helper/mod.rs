//! The helper: fleet's own program in a container beside the engine, for volumes that fleet itself cannot open.
//!
//! Where fleet runs in a container with only the engine's socket, the volumes lie on the engine's host and nowhere in
//! fleet's own file system. So fleet makes an image from its own static executable, named by its hash, and starts it
//! with the volumes mounted; it reads questions from its input and answers on its output ([`serve`]), by the code that
//! fleet uses itself. [`HelperSnapshotStore`] is the store that asks, [`DockerHelpers`] starts the containers.

mod container;
mod exchange;
mod frame;
mod image;
mod message;
mod probe;
mod scout;
mod serve;
mod store;
mod waiting;

pub use container::DockerHelpers;
pub(crate) use container::Pipes;
pub use probe::HelperProbe;
pub use scout::HelperScout;
pub use serve::{serve, serve_in};
pub use store::{Access, Connect, Connection, HelperSnapshotStore};
