//! Arguments, and nothing else: what each command is called, what it takes, how a value is read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use fleet_core::engine::Target;
use fleet_core::ids::{InstanceName, SnapshotId, TenantId};
use fleet_core::model::TenantMode;
use fleet_core::time::parse_duration;
use fleet_docker::volume::SnapshotOptions;

use crate::config::{FirstPass, SnapshotConfig};

/// Keeps fleets of Docker containers up to date, and puts them back exactly when it goes wrong.
#[derive(Debug, Parser)]
#[command(
    name = "fleet",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed or refused for good, 2 usage or configuration, 10 updates \
                        available (check --exit-code), 20 some were rolled back, 30 an instance needs a person, 75 \
                        refused for now."
)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "FLEET_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where journal and snapshots are.
    #[arg(long, global = true, value_name = "DIR", env = "FLEET_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Engine, for instance unix:///var/run/docker.sock or tcp://host:2375.
    #[arg(long, global = true, value_name = "URL", env = "DOCKER_HOST")]
    pub(crate) docker_host: Option<String>,
    /// Form of the data on standard output.
    #[arg(
        long,
        short = 'o',
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM"
    )]
    pub(crate) output: Format,
    /// Colours.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: ColorWhen,
    /// Say more on standard error; twice for everything.
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Say only errors.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// Form of the data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Ndjson,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show instances: image, health, behind or not, state, holds
    Ps,
    /// Ask the registries once and show what is behind
    Check {
        /// End with 10 if something is behind, with 1 if that is not known.
        #[arg(long)]
        exit_code: bool,
    },
    /// Say why an instance is or is not updated, and where each setting comes from
    Explain(ExplainArgs),
    /// Update instances now and wait for the outcome
    Update(UpdateArgs),
    /// Show what a rollout would do, and why not to the others
    Plan(crate::cli_rollout::PlanArgs),
    /// Start, show and steer rollouts
    #[command(subcommand)]
    Rollout(crate::cli_rollout::RolloutCommand),
    /// Recover, check and roll out what is due, once
    Run(crate::cli_rollout::RunArgs),
    /// Run until stopped: recover, poll, roll out; other commands go through it
    Serve,
    /// End an update that needs a person
    Resolve(ResolveArgs),
    /// Finish or undo what a killed fleet left
    Recover,
    /// Hold the whole fleet
    Pause {
        /// Why, for the people who find it held.
        #[arg(long)]
        reason: String,
    },
    /// Lift the hold that `pause` set
    Resume {
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Show and set how tenants want to be updated
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Show and set settings of the whole fleet
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// Take, check, restore and remove copies of volumes
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Show what happened
    Events(EventsArgs),
    /// Make the texts of a release from a git history, for publishers
    Changelog(ChangelogArgs),
    /// Check engine, permissions, disk, configuration
    Doctor,
    /// Check, show and start configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write the completions of a shell to standard output
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Show the main job on this machine's engine, in about a minute, and clean up
    Demo {
        /// A static program to run in the demo's containers instead of fleet itself.
        #[arg(long, hide = true)]
        app: Option<PathBuf>,
    },
    /// The program inside the demo's containers
    #[command(name = "__app", hide = true)]
    App {
        /// `probe` or nothing.
        args: Vec<String>,
    },
    /// The program inside a helper container
    #[command(name = "__helper", hide = true)]
    Helper(HelperArgs),
}

/// Arguments of a helper: what it has to know of the configuration of the fleet that starts it.
#[derive(Debug, Args)]
pub(crate) struct HelperArgs {
    /// `snapshots.bytes_per_second`.
    #[arg(long)]
    bytes_per_second: Option<u64>,
    /// `snapshots.pre_copy`.
    #[arg(long, value_enum, default_value_t)]
    pre_copy: FirstPass,
}

impl HelperArgs {
    const BYTES_PER_SECOND: &str = "--bytes-per-second";
    const PRE_COPY: &str = "--pre-copy";

    /// The command line of a helper with these options.
    pub(crate) fn command_line(snapshots: &SnapshotConfig) -> Vec<String> {
        let mut line = vec!["__helper".to_owned()];
        if let Some(rate) = snapshots.bytes_per_second {
            line.push(format!("{}={rate}", Self::BYTES_PER_SECOND));
        }
        if let Some(choice) = snapshots.pre_copy.to_possible_value() {
            line.push(format!("{}={}", Self::PRE_COPY, choice.get_name()));
        }
        line
    }

    /// The options of the store in the helper.
    pub(crate) fn options(&self) -> SnapshotOptions {
        let config = SnapshotConfig {
            bytes_per_second: self.bytes_per_second,
            pre_copy: self.pre_copy,
            ..SnapshotConfig::default()
        };
        config.options()
    }
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The instance: the name of its container.
    pub(crate) instance: InstanceName,
    /// Show what the new container would have that the old one has not, and whose doing it is.
    #[arg(long)]
    pub(crate) spec: bool,
    /// Compare with this image, which the engine must have; default: what is offered, else what it runs.
    #[arg(long, value_name = "IMAGE", requires = "spec")]
    pub(crate) to: Option<String>,
    /// Show passwords, tokens and keys as they are.
    #[arg(long, requires = "spec")]
    pub(crate) show_secrets: bool,
}

/// Arguments of `update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Names of the containers.
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<InstanceName>,
    /// The image to move to, `repository[:tag][@sha256:…]`, or the id of an image that the engine has.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) to: Target,
    /// How long the health gate waits at most; without it the label decides.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Do it although a window is closed.
    #[arg(long)]
    pub(crate) override_window: bool,
    /// Take a quarantined digest once more.
    #[arg(long)]
    pub(crate) retry: bool,
}

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The instance.
    pub(crate) instance: InstanceName,
    /// Which container to keep; without it, only what is there is shown.
    #[command(flatten)]
    pub(crate) keep: Keep,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Which container a person decides for.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Keep {
    /// Keep the new container.
    #[arg(long)]
    pub(crate) keep_new: bool,
    /// Keep the old container.
    #[arg(long)]
    pub(crate) keep_old: bool,
}

/// `tenant …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Show all tenants that have a config
    List,
    /// Show one
    Show {
        /// The tenant.
        tenant: TenantId,
    },
    /// Set one; what is not named stays as it is
    Set {
        /// The tenant.
        tenant: TenantId,
        /// auto or manual.
        #[arg(long)]
        mode: Option<TenantMode>,
        /// Hour of the day in UTC, 0 to 23, in which automatic updates start.
        #[arg(long, value_name = "HOUR", value_parser = clap::value_parser!(u8).range(0..=23))]
        preferred_hour_utc: Option<u8>,
        /// A weekly window such as "Mon-Fri 02:00-05:00 Europe/Berlin"; repeat it for several, "" for none.
        #[arg(long = "window", value_name = "WINDOW")]
        windows: Vec<String>,
    },
}

/// `settings …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SettingsCommand {
    /// Show them
    Show,
    /// Set one: mode=auto|manual|paused, or a default
    Set {
        /// For instance mode=manual.
        #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
        setting: (String, String),
    },
}

/// `snapshot …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Copy the volumes of an instance
    Create {
        /// The instance.
        instance: InstanceName,
    },
    /// Show snapshots
    List {
        /// Only those of this instance.
        instance: Option<InstanceName>,
    },
    /// Read a snapshot whole and compare every hash
    Verify {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Put the volumes of an instance back to a snapshot
    Restore {
        /// The snapshot.
        id: SnapshotId,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Remove a snapshot
    Delete {
        /// The snapshot.
        id: SnapshotId,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Remove old snapshots, never the last good one of an instance; with both limits only what is beyond both
    Prune {
        /// Age from which they go.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, required_unless_present = "keep")]
        older_than: Option<Duration>,
        /// So many newest ones of each instance stay.
        #[arg(long, value_name = "N")]
        keep: Option<u32>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Wait for more.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only events since then: an instant such as 2026-01-31T03:00:00Z, or a duration back from now such as 2h.
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only events of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<TenantId>,
    /// Only events of this instance.
    #[arg(long)]
    pub(crate) instance: Option<InstanceName>,
}

/// Arguments of `changelog`.
#[derive(Debug, Args)]
pub(crate) struct ChangelogArgs {
    /// Revision of the release before; its commits are not in it.
    #[arg(long, value_name = "REV", value_parser = revision)]
    pub(crate) from: String,
    /// Revision of the release.
    #[arg(long, value_name = "REV", value_parser = revision)]
    pub(crate) to: String,
    /// The repository.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) repository: PathBuf,
    /// What the release is called; default: the revision.
    #[arg(long, value_name = "NAME")]
    pub(crate) version_name: Option<String>,
    /// Leaves out commits of a kind or scope, for instance ci or "fix(internal)".
    #[arg(long = "exclude-kind", value_name = "KIND")]
    pub(crate) exclude_kinds: Vec<String>,
    /// Leaves out commits with a word in their subject.
    #[arg(long = "exclude-word", value_name = "WORD")]
    pub(crate) exclude_words: Vec<String>,
    /// Writes what the team reads to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Writes what users read to a file: put it into the image as /app/changelogs/latest.json.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the file that would be used
    Check,
    /// Show what holds, with the file and the variables it comes from
    Show,
    /// Write an example with every key to standard output
    Init,
    /// Write the JSON Schema to standard output
    Schema,
}

fn revision(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('-') {
        return Err(format!("expected a revision of git, found {text:?}"));
    }
    Ok(text.to_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("expected KEY=VALUE, found {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn a_helper_works_within_the_limits_of_the_fleet_that_starts_it() {
        let limited = SnapshotConfig {
            bytes_per_second: Some(5_000_000),
            pre_copy: FirstPass::Always,
            ..SnapshotConfig::default()
        };
        for config in [SnapshotConfig::default(), limited] {
            let line = HelperArgs::command_line(&config);
            let cli = Cli::parse_from(std::iter::once("fleet".to_owned()).chain(line));
            let Command::Helper(args) = cli.command else {
                panic!("{cli:?}");
            };
            assert_eq!(args.options(), config.options());
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn refused(args: &[&str], says: &str) {
        let error = Cli::try_parse_from(args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn bad_values_are_usage_errors_that_say_what_was_expected() {
        refused(
            &["fleet", "update", "web", "--to", "a:b:c"],
            "expected an image reference",
        );
        refused(
            &["fleet", "update", "../web", "--to", "a"],
            "expected a container name",
        );
        refused(
            &["fleet", "update", "web", "--to", "a", "--timeout", "soon"],
            "expected a duration",
        );
        refused(&["fleet", "update", "web"], "--to <IMAGE>");
        refused(
            &["fleet", "resolve", "web", "--keep-new", "--keep-old"],
            "cannot be used with",
        );
        refused(
            &["fleet", "tenant", "set", "t", "--mode", "sometimes"],
            "auto or manual",
        );
        refused(
            &["fleet", "tenant", "set", "t", "--preferred-hour-utc", "24"],
            "0..=23",
        );
        refused(
            &["fleet", "snapshot", "verify", "../x"],
            "expected an id such as snap_",
        );
        refused(&["fleet", "settings", "set", "mode"], "expected KEY=VALUE");
    }
}
