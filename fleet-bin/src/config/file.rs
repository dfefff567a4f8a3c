//! What a configuration file may say. Every key is optional; the defaults are here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use fleet_core::plan::rollout::WhenNewer;
use fleet_docker::volume::{PreCopy, SnapshotOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of fleet. Labels, tenants and channels win over it; flags and the environment too.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FileConfig {
    /// Where fleet keeps its journal and its snapshots. Default: /var/lib/fleet for root, else the XDG state folder.
    pub(crate) data_dir: Option<PathBuf>,
    /// Engine: unix:///path, tcp://host:port or http://host:port. Default: DOCKER_HOST, else the local socket.
    pub(crate) docker_host: Option<String>,
    /// Prefix of the labels that fleet reads. Default: "fleet.".
    pub(crate) label_prefix: Option<String>,
    /// What fleet writes to its log.
    pub(crate) log: LogConfig,
    /// Snapshots of volumes.
    pub(crate) snapshots: SnapshotConfig,
    /// When the daemon asks the registries.
    pub(crate) poll: PollConfig,
    /// The daemon, `fleet serve`.
    pub(crate) daemon: DaemonConfig,
    /// Registries by host and port, for instance [registries."ghcr.io"].
    pub(crate) registries: BTreeMap<String, RegistryConfig>,
    /// Which images may be started.
    pub(crate) images: ImagesConfig,
    /// Whose signatures images must have. Without a key and an identity none is asked for.
    pub(crate) signatures: SignaturesConfig,
}

/// Which images may be started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImagesConfig {
    /// Repositories: "ghcr.io/org/app", "ghcr.io/org/*" directly below, "ghcr.io/org/**" anywhere below. Whatever is
    /// not named is denied. Default: everything is allowed.
    pub(crate) allow: Option<Vec<String>>,
}

/// Signatures, verified by the program cosign.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SignaturesConfig {
    /// Public key: a file, or a reference that cosign knows.
    pub(crate) key: Option<String>,
    /// In place of a key: the identity in a short-lived certificate, together with its issuer.
    pub(crate) identity: Option<String>,
    /// Who vouches for the identity.
    pub(crate) issuer: Option<String>,
    /// The program. Default: "cosign", found on the PATH.
    pub(crate) program: Option<PathBuf>,
    /// Further arguments of `cosign verify`.
    pub(crate) args: Vec<String>,
    /// How long one answer may take. Default: "60s".
    pub(crate) timeout: Option<String>,
}

/// What fleet writes to its log, on standard error.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// error, warn, info, debug or trace, or a filter such as "warn,fleet_docker=debug". Default: "warn", and "info"
    /// for the daemon.
    pub(crate) level: Option<String>,
    /// Form of the lines.
    pub(crate) format: LogFormat,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Snapshots of volumes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SnapshotConfig {
    /// Snapshots kept of each instance after a commit. The last good one is kept in any case.
    #[schemars(range(min = 1))]
    pub(crate) keep: u32,
    /// Age from which snapshots of updates go after a commit, such as "720h"; the newest of an instance stays. Default:
    /// whatever their age.
    pub(crate) max_age: Option<String>,
    /// Where snapshots are. Default: the folder "snapshots" in the data directory.
    pub(crate) dir: Option<PathBuf>,
    /// Most bytes of volumes that are read or written per second, so that neighbours keep their share of the disk. It
    /// makes the time without service longer. Default: no limit.
    #[schemars(range(min = 1))]
    pub(crate) bytes_per_second: Option<u64>,
    /// Whether volumes are copied a first time while the old container still serves.
    pub(crate) pre_copy: FirstPass,
}

impl SnapshotConfig {
    /// The options of a store.
    pub(crate) fn options(&self) -> SnapshotOptions {
        SnapshotOptions {
            bytes_per_second: self.bytes_per_second,
            pre_copy: match self.pre_copy {
                FirstPass::Auto => PreCopy::Auto,
                FirstPass::Always => PreCopy::Always,
                FirstPass::Never => PreCopy::Never,
            },
            ..SnapshotOptions::default()
        }
    }
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            keep: 3,
            max_age: None,
            dir: None,
            bytes_per_second: None,
            pre_copy: FirstPass::Auto,
        }
    }
}

/// Whether volumes are copied a first time before the stop.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FirstPass {
    /// Where the volume is large enough that it pays.
    #[default]
    Auto,
    /// Wherever the file system allows it.
    Always,
    /// Never.
    Never,
}

/// When the daemon asks the registries, and what it makes of a new release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PollConfig {
    /// Channels that are not named below: an interval of at least 10s such as 30m, or cron:EXPR in UTC.
    pub(crate) others: String,
    /// How long a release must have been the newest before it is rolled out.
    pub(crate) quiet_period: String,
    /// What happens to the rollout that is going on when a newer release comes.
    pub(crate) when_newer: WhenNewerChoice,
    /// Least time between the starts of two rollouts of one image in a channel.
    pub(crate) min_interval: String,
    /// Channels by name, each with an interval or cron:EXPR.
    pub(crate) channels: BTreeMap<String, String>,
}

impl Default for PollConfig {
    fn default() -> Self {
        let channels = [("canary", "5m"), ("staging", "15m"), ("stable", "30m")];
        Self {
            others: "30m".to_owned(),
            quiet_period: "5m".to_owned(),
            when_newer: WhenNewerChoice::Replace,
            min_interval: "0s".to_owned(),
            channels: channels
                .map(|(name, every)| (name.to_owned(), every.to_owned()))
                .into(),
        }
    }
}

/// What happens to a rollout when a newer release comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhenNewerChoice {
    /// It is replaced: nothing new starts, what is in flight ends.
    #[default]
    Replace,
    /// It finishes; the newest release comes next.
    FinishFirst,
    /// It finishes; what came meanwhile is looked at again afterwards, as any release.
    Ignore,
}

impl From<WhenNewerChoice> for WhenNewer {
    fn from(choice: WhenNewerChoice) -> Self {
        match choice {
            WhenNewerChoice::Replace => Self::Replace,
            WhenNewerChoice::FinishFirst => Self::FinishFirst,
            WhenNewerChoice::Ignore => Self::Ignore,
        }
    }
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DaemonConfig {
    /// How long it goes on at its end with updates whose instances are out of service. Give systemd's TimeoutStopSec more.
    pub(crate) stop_timeout: String,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            stop_timeout: "60s".to_owned(),
        }
    }
}

/// One registry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RegistryConfig {
    /// User name. Default: what Docker's own config.json says for this host.
    pub(crate) username: Option<String>,
    /// Password or token.
    pub(crate) password: Option<String>,
    /// File that holds the password.
    pub(crate) password_file: Option<PathBuf>,
    /// Files with further certificate authorities, PEM.
    pub(crate) ca_files: Vec<PathBuf>,
    /// Speak HTTP without TLS. Loopback needs no such permission.
    pub(crate) plain_http: Option<bool>,
    /// Further hosts whose token service may be given the credentials, over TLS.
    pub(crate) auth_hosts: Vec<String>,
}
