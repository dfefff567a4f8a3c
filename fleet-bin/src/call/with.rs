//! What calls are carried out with: the stores alone, or the whole fleet.

use std::sync::Arc;

use fleet_core::engine::Fleet;
use fleet_core::engine::rollout::Orchestrator;
use fleet_core::plan::rollout::SupersedePolicy;
use fleet_docker::DockerEngine;
use fleet_sqlite::SqliteStore;

use super::Voice;
use crate::assemble::Context;
use crate::daemon::Served;
use crate::datadir::DataLock;
use crate::exit::Outcome;

/// What a call is carried out with.
pub(crate) trait With: Sized + Send + Sync {
    /// Takes it for a command that works alone.
    ///
    /// # Errors
    /// Another fleet works on the data directory, or something cannot be used.
    async fn open(context: &Context) -> Outcome<Self>;

    /// Takes it from a daemon, for somebody who asked it.
    fn of(served: &Served, actor: String, voice: Arc<dyn Voice>) -> Self;
}

/// The stores. Enough for settings, which need no engine.
pub(crate) struct Desk {
    /// All stores.
    pub(crate) store: SqliteStore,
    /// Who asks.
    pub(crate) actor: String,
    /// Makes what works at the moment look at the stores again.
    changed: Option<Arc<Orchestrator>>,
    _lock: Option<DataLock>,
}

/// The fleet.
pub(crate) struct Workshop {
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
    /// Who asks.
    pub(crate) actor: String,
    /// Where what happens is said.
    pub(crate) voice: Arc<dyn Voice>,
    /// Whether a daemon goes on with what is due after the call.
    pub(crate) daemon: bool,
    _lock: Option<DataLock>,
}

impl Desk {
    /// Tells whoever works at the moment that something was changed.
    pub(crate) fn changed(&self) {
        if let Some(orchestrator) = &self.changed {
            orchestrator.wake();
        }
    }
}

impl With for Desk {
    async fn open(context: &Context) -> Outcome<Self> {
        let writing = context.write()?;
        Ok(Self {
            store: writing.store,
            actor: context.actor(),
            changed: None,
            _lock: Some(writing.lock),
        })
    }

    fn of(served: &Served, actor: String, _voice: Arc<dyn Voice>) -> Self {
        Self {
            store: served.store.clone(),
            actor,
            changed: Some(served.orchestrator.clone()),
            _lock: None,
        }
    }
}

impl With for Workshop {
    async fn open(context: &Context) -> Outcome<Self> {
        let working = context.working().await?;
        let sink = Arc::new(context.ui.sink("rollout"));
        Ok(Self {
            orchestrator: Arc::new(working.orchestrator(sink)),
            fleet: working.fleet,
            engine: working.engine,
            store: working.store,
            supersede: context.config().supersede()?,
            actor: context.actor(),
            voice: Arc::new(context.ui.clone()),
            daemon: false,
            _lock: Some(working.lock),
        })
    }

    fn of(served: &Served, actor: String, voice: Arc<dyn Voice>) -> Self {
        Self {
            fleet: served.fleet.clone(),
            engine: served.engine.clone(),
            orchestrator: served.orchestrator.clone(),
            store: served.store.clone(),
            supersede: served.supersede,
            actor,
            voice,
            daemon: true,
            _lock: None,
        }
    }
}
