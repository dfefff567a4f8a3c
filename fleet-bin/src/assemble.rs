//! The one place where adapters meet ports.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleet_core::engine::rollout::Orchestrator;
use fleet_core::engine::{Fleet, FleetOptions, FleetPorts, FleetUpdater};
use fleet_core::ids::ContainerId;
use fleet_core::model::labels::DEFAULT_PREFIX;
use fleet_core::plan::strategy::StrategyRegistry;
use fleet_core::ports::{
    Clock as _, ContainerRuntime as _, EventStore as _, HealthProbe, NoProgress, PortError,
    PortErrorKind, ProgressSink, RolloutStore, SnapshotStore, UpdatePorts,
};
use fleet_core::record::{EventKind, NewEvent};
use fleet_docker::helper::{DockerHelpers, HelperProbe, HelperScout, HelperSnapshotStore};
use fleet_docker::registry::{
    CosignVerifier, HostOptions, Login, RegistryClient, RegistryOptions, Secret,
};
use fleet_docker::volume::LocalSnapshotStore;
use fleet_docker::{ConnectOptions, DockerEngine, SystemClock, SystemEntropy};
use fleet_sqlite::{OpenError, OpenOptions, SqliteStore};

use crate::cli::{Global, HelperArgs};
use crate::config::{self, FileConfig, Loaded, RegistryConfig};
use crate::crash;
use crate::datadir::{DataDir, DataLock};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::{Out, Ui};

/// How long another fleet may take to make the stores, and how often they are looked for meanwhile.
const STORE_WAIT: Duration = Duration::from_secs(10);
const STORE_PAUSE: Duration = Duration::from_millis(50);
/// Shortest and longest pause before an engine that is not there is tried again: within two seconds of its return recovery
/// has decided.
const ENGINE_PAUSE: Duration = Duration::from_millis(250);
const ENGINE_PAUSE_MAX: Duration = Duration::from_millis(500);

/// What every command has at hand.
pub(crate) struct Context {
    /// Arguments that hold for every command.
    pub(crate) global: Global,
    /// The configuration.
    pub(crate) loaded: Loaded,
    /// Where data goes.
    pub(crate) out: Out,
    /// Where bars go.
    pub(crate) ui: Ui,
    /// Time.
    pub(crate) clock: Arc<SystemClock>,
    /// Helper containers, where there are any.
    helpers: OnceLock<DockerHelpers>,
}

/// The stores, opened to change them.
pub(crate) struct Writing {
    /// The data directory.
    pub(crate) dir: DataDir,
    /// All stores.
    pub(crate) store: SqliteStore,
    /// Nobody else changes anything as long as this lives.
    pub(crate) lock: DataLock,
}

/// A fleet that may change things.
pub(crate) struct Working {
    /// The façade.
    pub(crate) fleet: Fleet,
    /// The engine that it works on.
    pub(crate) engine: DockerEngine,
    /// Its stores.
    pub(crate) store: SqliteStore,
    /// The data directory.
    pub(crate) dir: DataDir,
    /// Nobody else changes anything as long as this lives.
    pub(crate) lock: DataLock,
}

/// A fleet and its rollouts to look at.
pub(crate) struct Looking {
    /// The façade.
    pub(crate) fleet: Fleet,
    /// The engine that it looks at.
    pub(crate) engine: DockerEngine,
    /// Its rollouts; nothing may be changed through it.
    pub(crate) orchestrator: Orchestrator,
}

impl Working {
    /// Drives the rollouts of this fleet; their progress goes to `progress`.
    pub(crate) fn orchestrator(&self, progress: Arc<dyn ProgressSink>) -> Orchestrator {
        orchestrator(&self.fleet, Arc::new(self.store.clone()), progress)
    }
}

impl Context {
    /// Reads the configuration.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn new(global: Global, out: Out, ui: Ui) -> Outcome<Self> {
        let loaded = config::load(global.config.as_deref())?;
        Ok(Self {
            global,
            loaded,
            out,
            ui,
            clock: Arc::new(SystemClock::new()),
            helpers: OnceLock::new(),
        })
    }

    /// The configuration that holds.
    pub(crate) fn config(&self) -> &FileConfig {
        &self.loaded.config
    }

    /// Opens the data directory, and makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be used, or there is no default for this user.
    pub(crate) fn data_dir(&self) -> Outcome<DataDir> {
        let path = self
            .global
            .data_dir
            .clone()
            .or_else(|| self.config().data_dir.clone())
            .or_else(DataDir::default_path)
            .ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    "no data directory: give --data-dir, or set HOME",
                )
            })?;
        DataDir::open(&path)
    }

    /// Opens the stores to change them, alone.
    ///
    /// # Errors
    /// Another fleet works on them, or they cannot be used.
    pub(crate) fn write(&self) -> Outcome<Writing> {
        Self::write_in(self.data_dir()?)
    }

    fn write_in(dir: DataDir) -> Outcome<Writing> {
        let lock = dir.lock()?;
        let holder = format!("process {}", std::process::id());
        let store = open(&dir, OpenOptions::default().with_lease(holder))?;
        Ok(Writing { dir, store, lock })
    }

    /// Opens the stores to read them; needs no lock. Stores that are not there, or are of an older fleet, are made or
    /// brought up to date first; another fleet that is just doing that is waited for.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) async fn read(&self) -> Outcome<(DataDir, SqliteStore)> {
        let dir = self.data_dir()?;
        let mut waited = Duration::ZERO;
        loop {
            match SqliteStore::open(store_path(&dir), OpenOptions::read_only()) {
                Ok(store) => return Ok((dir, store)),
                Err(OpenError::Missing { .. } | OpenError::Older { .. }) => {}
                Err(error) => {
                    return Err(error).or_exit(Exit::Failed, "the store cannot be opened");
                }
            }
            match dir.lock() {
                Ok(lock) => {
                    let store = open(&dir, OpenOptions::default())?;
                    drop(lock);
                    return Ok((dir, store));
                }
                Err(held) if held.exit == Exit::NotNow && waited < STORE_WAIT => {
                    tokio::time::sleep(STORE_PAUSE).await;
                    waited += STORE_PAUSE;
                }
                Err(held) => return Err(held),
            }
        }
    }

    /// A fleet to look at; needs no lock.
    ///
    /// # Errors
    /// The stores cannot be used, or no engine answers.
    pub(crate) async fn looking(&self) -> Outcome<Fleet> {
        let (dir, store) = self.read().await?;
        let engine = self.engine().await?;
        self.fleet(&dir, store, &engine).await
    }

    /// A fleet to change; alone on its data directory.
    ///
    /// # Errors
    /// Another fleet works there, the stores cannot be used, or no engine answers.
    pub(crate) async fn working(&self) -> Outcome<Working> {
        self.working_in(self.data_dir()?).await
    }

    /// The same on another data directory.
    ///
    /// # Errors
    /// As [`Context::working`].
    pub(crate) async fn working_in(&self, dir: DataDir) -> Outcome<Working> {
        let Writing { dir, store, lock } = Self::write_in(dir)?;
        let (engine, fleet) = self.fleet_on_an_engine(&dir, &store).await?;
        Ok(Working {
            fleet,
            engine,
            store,
            dir,
            lock,
        })
    }

    /// A fleet to change, as soon as there is an engine: one that cannot be reached is waited for, with the stores held
    /// meanwhile. The event log says so once, and when it is over.
    ///
    /// # Errors
    /// As [`Context::working`], except that no engine answers; an engine that refuses is an error.
    pub(crate) async fn working_once_there_is_an_engine(&self) -> Outcome<Working> {
        let Writing { dir, store, lock } = self.write()?;
        let mut pause = None;
        let (engine, fleet) = loop {
            let failure = match self.fleet_on_an_engine(&dir, &store).await {
                Ok(found) => break found,
                Err(failure) if is_away(&failure) => failure,
                Err(failure) => return Err(failure),
            };
            let rest = pause.unwrap_or(ENGINE_PAUSE);
            if pause.is_none() {
                let why = failure.chain().replace("\n  caused by", "");
                tracing::warn!(why, "no engine answers; nothing begins until one does");
                let reason = serde_json::json!({ "reason": why });
                self.record(&store, EventKind::EngineLost, reason).await?;
            }
            tokio::time::sleep(rest).await;
            pause = Some((rest * 2).min(ENGINE_PAUSE_MAX));
        };
        if pause.is_some() {
            tracing::info!("the engine answers");
            self.record(&store, EventKind::EngineBack, serde_json::Value::Null)
                .await?;
        }
        Ok(Working {
            fleet,
            engine,
            store,
            dir,
            lock,
        })
    }

    async fn fleet_on_an_engine(
        &self,
        dir: &DataDir,
        store: &SqliteStore,
    ) -> Outcome<(DockerEngine, Fleet)> {
        let engine = self.engine().await?;
        let fleet = self.fleet(dir, store.clone(), &engine).await?;
        Ok((engine, fleet))
    }

    async fn record(
        &self,
        store: &SqliteStore,
        kind: EventKind,
        data: serde_json::Value,
    ) -> Outcome<()> {
        let event = NewEvent {
            data,
            ..NewEvent::new(self.clock.now(), kind, "fleet")
        };
        Ok(store.record(vec![event]).await?)
    }

    /// A fleet and its rollouts to look at; needs no lock.
    ///
    /// # Errors
    /// As [`Context::looking`].
    pub(crate) async fn looking_at_rollouts(&self) -> Outcome<Looking> {
        self.watching(Arc::new(NoProgress)).await
    }

    /// A fleet and its rollouts to look at; how far they are goes to `progress`.
    ///
    /// # Errors
    /// As [`Context::looking`].
    pub(crate) async fn watching(&self, progress: Arc<dyn ProgressSink>) -> Outcome<Looking> {
        let (dir, store) = self.read().await?;
        let rollouts = Arc::new(store.clone());
        let (engine, fleet) = self.fleet_on_an_engine(&dir, &store).await?;
        Ok(Looking {
            orchestrator: orchestrator(&fleet, rollouts, progress),
            fleet,
            engine,
        })
    }

    async fn fleet(
        &self,
        dir: &DataDir,
        store: SqliteStore,
        engine: &DockerEngine,
    ) -> Outcome<Fleet> {
        let store = Arc::new(store);
        let own_container = own_container(engine).await?;
        let (snapshots, probe) = self.hands(dir, engine, own_container.is_some()).await?;
        let engine = Arc::new(self.sighted(engine));
        let update = UpdatePorts {
            runtime: engine.clone(),
            images: engine,
            snapshots,
            probe,
            journal: store.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(SystemEntropy),
            crash: crash::points(),
        };
        let ports = FleetPorts {
            update,
            releases: Arc::new(self.registry()?),
            events: store.clone(),
            configs: store.clone(),
            settings: store.clone(),
            availability: store,
            verifier: self.verifier()?.map(|cosign| Arc::new(cosign) as _),
        };
        let config = self.config();
        let options = FleetOptions {
            label_prefix: config
                .label_prefix
                .clone()
                .unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
            keep_snapshots: config.snapshots.keep,
            snapshot_max_age: config.snapshot_max_age()?,
            own_container,
            image_policy: config.images.policy()?,
            ..FleetOptions::default()
        };
        Ok(Fleet::new(ports, options))
    }

    /// What touches volumes and networks: fleet itself where it can, else a helper container beside the engine.
    async fn hands(
        &self,
        dir: &DataDir,
        engine: &DockerEngine,
        contained: bool,
    ) -> Outcome<(Arc<dyn SnapshotStore>, Arc<dyn HealthProbe>)> {
        let local = self.snapshots_in(dir)?;
        let root = engine.info().await?.root_dir;
        if !contained && volumes_are_ours(Path::new(&root)) {
            return Ok((Arc::new(local), Arc::new(engine.clone())));
        }
        let executable = std::env::current_exe()
            .or_exit(Exit::Failed, "fleet's own executable cannot be found")?;
        let helpers = self.helpers.get_or_init(|| {
            let line = HelperArgs::command_line(&self.config().snapshots);
            DockerHelpers::new(engine.clone(), executable, line)
        });
        let probe = HelperProbe::new(engine.clone(), helpers.clone());
        Ok((
            Arc::new(HelperSnapshotStore::new(local, Arc::new(helpers.clone()))),
            Arc::new(probe),
        ))
    }

    /// The engine, with helpers that see its host's processes where fleet does not.
    fn sighted(&self, engine: &DockerEngine) -> DockerEngine {
        match self.helpers.get() {
            Some(helpers) => {
                let scout = HelperScout::new(Arc::new(helpers.clone()));
                engine.clone().with_scout(Arc::new(scout))
            }
            None => engine.clone(),
        }
    }

    /// Waits until helper containers that a command used are gone.
    pub(crate) async fn settle(&self) {
        if let Some(helpers) = self.helpers.get() {
            helpers.settle().await;
        }
    }

    /// Connects to the engine.
    ///
    /// # Errors
    /// None answers.
    pub(crate) async fn engine(&self) -> Outcome<DockerEngine> {
        let host = self
            .global
            .docker_host
            .clone()
            .or_else(|| self.config().docker_host.clone());
        let engine = DockerEngine::connect(&ConnectOptions { host })
            .await
            .or_exit(
                Exit::Failed,
                "no engine can be used; fleet doctor says what is missing",
            )?;
        Ok(engine.with_registries(&self.registry_options()))
    }

    /// The snapshots of the data directory.
    ///
    /// # Errors
    /// Their folder cannot be used.
    pub(crate) fn snapshot_store(&self) -> Outcome<LocalSnapshotStore> {
        self.snapshots_in(&self.data_dir()?)
    }

    fn snapshots_in(&self, dir: &DataDir) -> Outcome<LocalSnapshotStore> {
        let folder = self.snapshots_folder(dir);
        LocalSnapshotStore::open(&folder, self.config().snapshots.options()).or_exit(
            Exit::Usage,
            format!("the snapshots in {} cannot be used", folder.display()),
        )
    }

    /// Where snapshots are.
    pub(crate) fn snapshots_folder(&self, dir: &DataDir) -> PathBuf {
        self.config()
            .snapshots
            .dir
            .clone()
            .unwrap_or_else(|| dir.join("snapshots"))
    }

    /// A client for registries, with the configured credentials.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub(crate) fn registry(&self) -> Outcome<RegistryClient> {
        RegistryClient::new(self.registry_options())
            .or_exit(Exit::Usage, "the registries' settings cannot be used")
    }

    /// What verifies signatures, if any are asked for.
    ///
    /// # Errors
    /// It is not clear whose signatures count.
    pub(crate) fn verifier(&self) -> Outcome<Option<CosignVerifier>> {
        let options = self.config().signatures.cosign()?;
        Ok(options.map(CosignVerifier::new))
    }

    /// How registries are reached, by us and by the engine.
    fn registry_options(&self) -> RegistryOptions {
        let hosts = &self.config().registries;
        RegistryOptions {
            hosts: hosts
                .iter()
                .map(|(name, host)| (name.clone(), host_options(host)))
                .collect(),
            ..RegistryOptions::default()
        }
    }

    /// Who asks: the user's name for the event log.
    pub(crate) fn actor(&self) -> String {
        let name = ["SUDO_USER", "USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok());
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
    }
}

/// Whether that is an engine that may be there later.
fn is_away(failure: &Failure) -> bool {
    let cause = failure.cause::<PortError>();
    cause.is_some_and(|error| {
        matches!(
            error.kind(),
            PortErrorKind::Unreachable | PortErrorKind::Timeout
        )
    })
}

fn orchestrator(
    fleet: &Fleet,
    rollouts: Arc<dyn RolloutStore>,
    progress: Arc<dyn ProgressSink>,
) -> Orchestrator {
    let updater = FleetUpdater::new(fleet.clone(), progress.clone());
    let update = &fleet.ports().update;
    let (clock, entropy) = (update.clock.clone(), update.entropy.clone());
    Orchestrator::new(
        rollouts,
        Arc::new(updater),
        clock,
        entropy,
        StrategyRegistry::default(),
    )
    .reporting_to(progress)
}

fn store_path(dir: &DataDir) -> PathBuf {
    dir.join("fleet.db")
}

fn open(dir: &DataDir, options: OpenOptions) -> Outcome<SqliteStore> {
    let path = store_path(dir);
    SqliteStore::open(&path, options).or_exit(
        Exit::Failed,
        format!("the store {} cannot be opened", path.display()),
    )
}

fn host_options(host: &RegistryConfig) -> HostOptions {
    let secret = match (&host.password, &host.password_file) {
        (Some(text), _) => Some(Secret::Text(text.clone().into())),
        (None, Some(file)) => Some(Secret::File(file.clone())),
        (None, None) => None,
    };
    HostOptions {
        login: secret.map(|password| match &host.username {
            Some(username) => Login::Password {
                username: username.clone(),
                password,
            },
            None => Login::IdentityToken(password),
        }),
        ca_files: host.ca_files.clone(),
        plain_http: host.plain_http,
        auth_hosts: host.auth_hosts.clone(),
    }
}

/// Whether this process can read and write the volumes of an engine whose files lie in `root`.
pub(crate) fn volumes_are_ours(root: &Path) -> bool {
    rustix::process::geteuid().is_root() && std::fs::read_dir(root.join("volumes")).is_ok()
}

/// The container of this engine in which fleet itself runs, if it does.
///
/// # Errors
/// The engine cannot be asked.
async fn own_container(engine: &DockerEngine) -> Outcome<Option<ContainerId>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // A container of another engine, within which this one runs, is not known here.
    match container_of(&mounts) {
        Some(id) => Ok(engine.inspect(&id).await?.map(|container| container.id)),
        None => Ok(None),
    }
}

/// The id of a container by its mounts: it is in the path of a file that the engine mounts.
fn container_of(mountinfo: &str) -> Option<ContainerId> {
    let line = mountinfo
        .lines()
        .find(|line| line.contains(" /etc/hostname "))?;
    let path = line.split(' ').nth(3)?;
    let (_, rest) = path.rsplit_once("/containers/")?;
    ContainerId::new(rest.split('/').next()?).ok()
}

/// The file as people see it, for messages.
pub(crate) fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_container_is_in_the_path_of_its_hostname() {
        let id = "ab".repeat(32);
        let line = |root: &str| {
            format!(
                "22 1 8:1 / /data rw - ext4 /dev/sda1 rw\n\
                 680 661 254:1 {root}/{id}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"
            )
        };
        let found = ContainerId::new(id.clone()).ok();
        assert!(found.is_some());
        assert_eq!(container_of(&line("/var/lib/docker/containers")), found);
        assert_eq!(
            container_of(&line("/srv/containers/docker/containers")),
            found
        );
        assert_eq!(container_of(&line("/srv")), None);
        assert_eq!(container_of(""), None);
    }
}
