//! A fleet over a real engine in this process.

use std::sync::Arc;

use fleet_core::crash::NoCrashPoints;
use fleet_core::engine::{
    Fleet, FleetError, FleetOptions, FleetPorts, Recovery, Target, UpdateRequest,
};
use fleet_core::ports::{NoProgress, ProgressSink, UpdatePorts};
use fleet_core::update::UpdateReport;
use fleet_docker::registry::{RegistryClient, RegistryOptions};
use fleet_docker::volume::{LocalSnapshotStore, SnapshotOptions};
use fleet_docker::{ConnectOptions, DockerEngine, SystemClock, SystemEntropy};
use fleet_sqlite::{OpenOptions, SqliteStore};

/// A fleet with stores of its own.
pub(crate) struct Embedded {
    pub(crate) fleet: Fleet,
    stores: Stores,
}

/// Journal and snapshots: what stays when the process dies.
#[derive(Clone)]
pub(crate) struct Stores {
    dir: Arc<tempfile::TempDir>,
    sqlite: SqliteStore,
}

impl Stores {
    fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a folder"));
        let sqlite = SqliteStore::open(dir.path().join("fleet.db"), OpenOptions::default())
            .expect("a store");
        Self { dir, sqlite }
    }
}

impl Embedded {
    /// A fleet on this machine's engine.
    pub(crate) async fn new() -> Self {
        Self::on(None, Stores::new()).await
    }

    /// A fleet that reaches the engine at `host`.
    pub(crate) async fn through(host: String) -> Self {
        Self::on(Some(host), Stores::new()).await
    }

    /// Another process on the same stores, with the engine reached directly.
    pub(crate) async fn successor(&self) -> Self {
        Self::on(None, self.stores.clone()).await
    }

    async fn on(host: Option<String>, stores: Stores) -> Self {
        let engine = DockerEngine::connect(&ConnectOptions { host })
            .await
            .expect("an engine answers");
        let engine = Arc::new(engine);
        let snapshots = LocalSnapshotStore::open(
            &stores.dir.path().join("snapshots"),
            SnapshotOptions::default(),
        );
        let sqlite = Arc::new(stores.sqlite.clone());
        // Several tests make a client; the first one to come sets the provider.
        drop(rustls::crypto::ring::default_provider().install_default());
        let ports = FleetPorts {
            update: UpdatePorts {
                runtime: engine.clone(),
                images: engine.clone(),
                snapshots: Arc::new(snapshots.expect("a snapshot store")),
                probe: engine,
                journal: sqlite.clone(),
                clock: Arc::new(SystemClock::new()),
                entropy: Arc::new(SystemEntropy),
                crash: Arc::new(NoCrashPoints),
            },
            releases: Arc::new(RegistryClient::new(RegistryOptions::default()).expect("a client")),
            events: sqlite.clone(),
            configs: sqlite.clone(),
            settings: sqlite.clone(),
            availability: sqlite,
            verifier: None,
        };
        let options = FleetOptions {
            engine_wait: std::time::Duration::from_secs(20),
            ..FleetOptions::default()
        };
        Self {
            fleet: Fleet::new(ports, options),
            stores,
        }
    }

    pub(crate) async fn update(
        &self,
        instance: &str,
        to: &str,
    ) -> Result<UpdateReport, FleetError> {
        self.update_watched(&[instance], to, &NoProgress).await
    }

    /// The same for instances that are one update, told of each step.
    pub(crate) async fn update_watched(
        &self,
        instances: &[&str],
        to: &str,
        progress: &dyn ProgressSink,
    ) -> Result<UpdateReport, FleetError> {
        let request = UpdateRequest {
            instances: instances.iter().map(ToString::to_string).collect(),
            to: to.parse::<Target>().expect("a reference"),
            timeout: None,
            override_window: false,
            retry: false,
            actor: "test".to_owned(),
            rollout: None,
        };
        let mut reports = self.fleet.update(&request, progress).await?;
        assert_eq!(reports.len(), 1, "one update: {reports:?}");
        Ok(reports.remove(0))
    }

    pub(crate) async fn recover(&self) -> Vec<Recovery> {
        self.fleet
            .recover(&NoProgress, &|_, _| {})
            .await
            .expect("the journal can be read")
    }
}
