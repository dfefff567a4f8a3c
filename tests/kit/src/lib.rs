//! A real engine, a real registry and images of our own, for tests.
//!
//! Everything that a test makes hangs on a [`Lab`]: its names begin with a prefix of the lab's own, and they are
//! removed by exact id when the lab is dropped, also when the test fails. Nothing else on the engine is touched.
//! The kit speaks to the engine through the `docker` program, not through the code under test.
//!
//! There is no way to skip: without an engine or a registry program a test fails and says what to install.

mod app;
mod contained;
mod docker;
mod fleet;
mod http;
mod image;
mod lab;
mod private;
mod registry;
mod run;
mod serve;
mod wait;

pub use app::app_binary;
pub use contained::{ContainedFleet, tools_at};
pub use docker::{docker, docker_json, try_docker};
pub use fleet::{Fleet, Ran, crash_binary, fleet_binary, static_fleet_binary};
pub use http::{HttpAnswer, get};
pub use image::Image;
pub use lab::Lab;
pub use private::PrivateEngine;
pub use registry::Registry;
pub use run::{Container, Run};
pub use serve::Serving;
pub use wait::wait_for;
