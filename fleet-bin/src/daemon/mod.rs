//! The daemon's face: a unix socket with HTTP, and the client that commands use when there is one.

mod client;
mod problem;
mod routes;
mod server;
mod wire;

use std::sync::Arc;

use fleet_core::engine::rollout::Orchestrator;
use fleet_core::engine::{DaemonState, Fleet};
use fleet_core::plan::rollout::SupersedePolicy;
use fleet_docker::DockerEngine;
use fleet_sqlite::SqliteStore;
use tokio::sync::watch;

pub(crate) use client::{Client, Unanswered};
pub(crate) use routes::at;
pub(crate) use server::Socket;
pub(crate) use wire::Hub;

/// Name of the socket in the data directory.
pub(crate) const SOCKET: &str = "fleet.sock";

/// What a daemon has, for those who ask it.
#[derive(Clone)]
pub(crate) struct Served {
    /// The façade.
    pub(crate) fleet: Fleet,
    /// The engine that it works on.
    pub(crate) engine: DockerEngine,
    /// Its rollouts.
    pub(crate) orchestrator: Arc<Orchestrator>,
    /// Its stores.
    pub(crate) store: SqliteStore,
    /// What a newer release means for what is going on.
    pub(crate) supersede: SupersedePolicy,
    /// Progress of all rollouts.
    pub(crate) hub: Hub,
    /// What is ready.
    pub(crate) state: watch::Receiver<DaemonState>,
    /// How far the end is.
    pub(crate) life: watch::Receiver<Life>,
}

/// How far the end of a daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Life {
    /// It works.
    Works,
    /// It finishes what is in hand and begins nothing.
    Stops,
    /// Nothing is in hand any more.
    Over,
}
