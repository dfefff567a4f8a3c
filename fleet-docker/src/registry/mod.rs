//! What registries offer: the port [`fleet_core::ports::ReleaseSource`] over the distribution protocol.
//!
//! The module decides how a question is asked: HEAD before GET, which credentials go where, how long to wait, and
//! whether an answer can be believed. It never decides whether something is an update.
//!
//! Why `reqwest` with the types of `oci-spec`, and not a registry library: the promises here are about what such a
//! library hides. The bytes of a manifest must be in hand to hash them and to compare three statements of its type;
//! `Retry-After` and `RateLimit-*` must be read; redirects must be followed without credentials; and the realm of a
//! challenge must be judged before a password is sent to it.
//!
//! What holds, whatever a registry answers:
//! - Credentials go to the registry's own host and to token services that belong to it, never along a redirect, never
//!   without TLS except on loopback or where the registry is configured so, never into a log.
//! - Every document is hashed here; it must have the digest that was asked for and the one that the registry names.
//! - Nothing is read without a limit on its size, and nothing waits without a limit on its time.
//! - Whatever fails is an error, which callers show as "unknown", never as "up to date".

mod auth;
mod challenge;
mod client;
mod cosign;
mod credentials;
mod endpoint;
mod error;
mod host;
mod http;
mod manifest;
mod options;
mod pace;
mod question;
mod wire;

pub use client::RegistryClient;
pub use cosign::{CosignOptions, CosignTrust, CosignVerifier};
pub(crate) use credentials::for_engine;
pub use error::OptionsError;
pub use options::{DockerConfig, HostOptions, Login, Observer, RegistryOptions, Secret, Seen};
