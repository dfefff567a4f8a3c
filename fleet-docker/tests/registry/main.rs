//! The registry client against Debian's `docker-registry` on loopback, and against a mock for the dialects.

mod answers;
mod auth;
mod detection;
mod mock;
mod real;
mod server;
mod support;
