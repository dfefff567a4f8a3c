//! The one place where adapters meet ports.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet_docker::registry::{HostOptions, Login, RegistryClient, RegistryOptions, Secret};
use fleet_sqlite::{OpenError, OpenOptions, SqliteStore};

use crate::cli::Global;
use crate::config::{self, FileConfig, Loaded, RegistryConfig};
use crate::datadir::{DataDir, DataLock};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::{Out, Ui};
use crate::system::SystemClock;

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
}

/// The stores, opened to change them. The lock lives as long as this.
pub(crate) struct Writing {
    /// The data directory.
    pub(crate) dir: DataDir,
    /// All stores.
    pub(crate) store: SqliteStore,
    _lock: DataLock,
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
        let dir = self.data_dir()?;
        let lock = dir.lock()?;
        let holder = format!("process {}", std::process::id());
        let store = open(&dir, OpenOptions::default().with_lease(holder))?;
        Ok(Writing {
            dir,
            store,
            _lock: lock,
        })
    }

    /// Opens the stores to read them; needs no lock. Stores that are not there, or are of an older fleet, are made or
    /// brought up to date first.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn read(&self) -> Outcome<(DataDir, SqliteStore)> {
        let dir = self.data_dir()?;
        match SqliteStore::open(store_path(&dir), OpenOptions::read_only()) {
            Ok(store) => Ok((dir, store)),
            Err(OpenError::Missing { .. } | OpenError::Older { .. }) => {
                let lock = dir.lock()?;
                let store = open(&dir, OpenOptions::default())?;
                drop(lock);
                Ok((dir, store))
            }
            Err(error) => Err(error).or_exit(Exit::Failed, "the store cannot be opened"),
        }
    }

    /// Where snapshots are.
    pub(crate) fn snapshots(&self, dir: &DataDir) -> PathBuf {
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
        let hosts = &self.config().registries;
        let options = RegistryOptions {
            hosts: hosts
                .iter()
                .map(|(name, host)| (name.clone(), host_options(host)))
                .collect(),
            ..RegistryOptions::default()
        };
        RegistryClient::new(options).or_exit(Exit::Usage, "the registries' settings cannot be used")
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

/// The file as people see it, for messages.
pub(crate) fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}
