//! Configuration: found, checked, layered. Flag over environment over file over default.

mod file;
pub(crate) mod strict;
mod trust;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, File, FileFormat, Map, Value, ValueKind};

use fleet_core::detect::PollSchedules;
use fleet_core::model::Channel;
use fleet_core::plan::rollout::SupersedePolicy;
use fleet_core::time::parse_duration;

pub(crate) use file::{FileConfig, FirstPass, LogFormat, RegistryConfig, SnapshotConfig};

use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// What holds.
    pub(crate) config: FileConfig,
    /// The file that was used, none if there was none.
    pub(crate) file: Option<PathBuf>,
    /// Keys that the environment set, by the variable's name.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Files that are looked for when none is named, the first that exists wins.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let home = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let mut paths = vec![PathBuf::from("/etc/fleet/fleet.toml")];
    paths.extend(home("XDG_CONFIG_HOME").map(|folder| folder.join("fleet/fleet.toml")));
    paths.extend(home("HOME").map(|folder| folder.join(".config/fleet/fleet.toml")));
    paths.push(PathBuf::from("fleet.toml"));
    paths
}

/// Loads the configuration; `named` is the file of `--config` or `$FLEET_CONFIG`.
///
/// # Errors
/// A named file that is not there, a file or variable that says something unknown or wrong.
pub(crate) fn load(named: Option<&Path>) -> Outcome<Loaded> {
    let file = match named {
        Some(path) => Some(path.to_owned()),
        None => search_path().into_iter().find(|path| path.exists()),
    };
    let text = match &file {
        Some(path) => fs::read_to_string(path).or_exit(
            Exit::Usage,
            format!("the configuration {} cannot be read", path.display()),
        )?,
        None => String::new(),
    };
    let shown = file
        .as_deref()
        .unwrap_or(Path::new(""))
        .display()
        .to_string();
    let problems = strict::problems(&text);
    if !problems.is_empty() {
        let lines: Vec<_> = problems
            .iter()
            .map(|problem| format!("{shown}: {problem}"))
            .collect();
        return Err(Failure::new(Exit::Usage, lines.join("\n")));
    }
    let variables = std::env::vars().collect();
    let environment = environment(&variables)?;
    let config = layer(&text, &environment)?;
    validate(&config)?;
    Ok(Loaded {
        config,
        file,
        environment,
    })
}

/// Variables `FLEET_SECTION__KEY` as dotted keys.
fn environment(variables: &BTreeMap<String, String>) -> Outcome<BTreeMap<String, String>> {
    let known = strict::known_keys();
    let mut found = BTreeMap::new();
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix("FLEET_") else {
            continue;
        };
        if !rest.contains("__") {
            continue;
        }
        let key = rest.to_ascii_lowercase().replace("__", ".");
        if !known.iter().any(|pattern| matches(pattern, &key)) {
            let hint = strict::nearest(&key, known.iter().map(String::as_str)).map_or_else(
                String::new,
                |near| {
                    format!(
                        "; did you mean FLEET_{}?",
                        near.replace('.', "__").to_ascii_uppercase()
                    )
                },
            );
            let message = format!("environment variable {variable} sets no known key{hint}");
            return Err(Failure::new(Exit::Usage, message));
        }
        found.insert(key, value.clone());
    }
    Ok(found)
}

fn matches(pattern: &str, key: &str) -> bool {
    if let Some(section) = pattern.strip_suffix(".*") {
        return key
            .strip_prefix(section)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|name| !name.is_empty());
    }
    match pattern.split_once(".*.") {
        // A registry's name may itself have dots.
        Some((section, field)) => key
            .strip_prefix(section)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.strip_suffix(field))
            .is_some_and(|name| name.len() > 1 && name.ends_with('.')),
        None => pattern == key,
    }
}

fn layer(text: &str, environment: &BTreeMap<String, String>) -> Outcome<FileConfig> {
    let mut builder = Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    for (key, value) in environment {
        builder = builder.add_source(Variable {
            key: key.clone(),
            value: value.clone(),
        });
    }
    builder
        .build()
        .and_then(Config::try_deserialize)
        .or_exit(Exit::Usage, "the configuration cannot be used")
}

/// One variable as a source of its own, so that a name with dots stays one name.
#[derive(Debug, Clone)]
struct Variable {
    key: String,
    value: String,
}

impl config::Source for Variable {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let origin = format!("the environment, key {}", self.key);
        let leaf = Value::new(Some(&origin), ValueKind::String(self.value.clone()));
        let path: Vec<&str> = match (self.key.split_once('.'), self.key.rsplit_once('.')) {
            (Some((section, rest)), Some((_, field))) if rest.contains('.') => {
                let name = &rest[..rest.len() - field.len() - 1];
                vec![section, name, field]
            }
            _ => self.key.split('.').collect(),
        };
        let (first, inner) = path.split_first().unwrap_or((&"", &[]));
        let value = inner.iter().rev().fold(leaf, |value, name| {
            let table = Map::from_iter([((*name).to_owned(), value)]);
            Value::new(Some(&origin), ValueKind::Table(table))
        });
        Ok(Map::from_iter([((*first).to_owned(), value)]))
    }
}

impl FileConfig {
    /// When each channel is asked.
    ///
    /// # Errors
    /// A text that is no schedule.
    pub(crate) fn schedules(&self) -> Outcome<PollSchedules> {
        let mut schedules = PollSchedules::default();
        let others = self.poll.others.parse();
        schedules.set_others(others.or_exit(Exit::Usage, "poll.others")?);
        for (name, text) in &self.poll.channels {
            let schedule = text
                .parse()
                .or_exit(Exit::Usage, format!("poll.channels.{name}"))?;
            schedules.set(Channel(name.clone()), schedule);
        }
        Ok(schedules)
    }

    /// What a newer release means for what is going on.
    ///
    /// # Errors
    /// A text that is no duration.
    pub(crate) fn supersede(&self) -> Outcome<SupersedePolicy> {
        Ok(SupersedePolicy {
            then: self.poll.when_newer.into(),
            quiet_period: duration("poll.quiet_period", &self.poll.quiet_period)?,
            min_interval: duration("poll.min_interval", &self.poll.min_interval)?,
        })
    }

    /// Age from which snapshots go after a commit.
    ///
    /// # Errors
    /// A text that is no duration.
    pub(crate) fn snapshot_max_age(&self) -> Outcome<Option<Duration>> {
        let text = self.snapshots.max_age.as_deref();
        text.map(|text| duration("snapshots.max_age", text))
            .transpose()
    }

    /// How long the daemon goes on at its end.
    ///
    /// # Errors
    /// A text that is no duration.
    pub(crate) fn stop_timeout(&self) -> Outcome<Duration> {
        duration("daemon.stop_timeout", &self.daemon.stop_timeout)
    }
}

fn duration(key: &str, text: &str) -> Outcome<Duration> {
    parse_duration(text).map_err(|error| Failure::new(Exit::Usage, format!("{key}: {error}")))
}

fn validate(config: &FileConfig) -> Outcome<()> {
    config.schedules()?;
    config.supersede()?;
    config.stop_timeout()?;
    config.snapshot_max_age()?;
    if config.snapshots.keep == 0 {
        return Err(Failure::new(
            Exit::Usage,
            "snapshots.keep: expected at least 1, found 0",
        ));
    }
    if config.snapshots.bytes_per_second == Some(0) {
        return Err(Failure::new(
            Exit::Usage,
            "snapshots.bytes_per_second: expected at least 1, found 0; leave it out for no limit",
        ));
    }
    if let Some(prefix) = &config.label_prefix
        && (prefix.is_empty() || !prefix.ends_with('.'))
    {
        let message =
            format!("label_prefix: expected a prefix that ends with a dot, found {prefix:?}");
        return Err(Failure::new(Exit::Usage, message));
    }
    config.images.policy()?;
    config.signatures.cosign()?;
    for (name, registry) in &config.registries {
        if registry.password.is_some() && registry.password_file.is_some() {
            let message =
                format!("registries.{name}: expected password or password_file, found both");
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet_core::plan::rollout::WhenNewer;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_environment_beats_the_file() {
        let environment = environment(&variables(&[
            ("FLEET_SNAPSHOTS__KEEP", "7"),
            ("FLEET_REGISTRIES__GHCR.IO__PASSWORD_FILE", "/run/secrets/x"),
            ("FLEET_DATA_DIR", "/elsewhere"),
            ("HOME", "/root"),
        ]))
        .unwrap();
        let text = "[snapshots]\nkeep = 2\nbytes_per_second = 1000\npre_copy = \"never\"\n[registries.\"ghcr.io\"]\nusername = \"me\"\n";
        let config = layer(text, &environment).unwrap();
        assert_eq!(config.snapshots.keep, 7);
        let options = config.snapshots.options();
        assert_eq!(options.bytes_per_second, Some(1000));
        assert_eq!(options.pre_copy, fleet_docker::volume::PreCopy::Never);
        let registry = &config.registries["ghcr.io"];
        assert_eq!(registry.username.as_deref(), Some("me"));
        assert_eq!(
            registry.password_file.as_deref(),
            Some(Path::new("/run/secrets/x"))
        );
        assert_eq!(config.data_dir, None);
    }

    #[test]
    fn one_channel_can_be_set_and_the_others_keep_their_intervals() {
        let environment = environment(&variables(&[("FLEET_POLL__CHANNELS__MINE", "1h")])).unwrap();
        let config = layer("[poll.channels]\ncanary = \"10s\"\n", &environment).unwrap();
        let schedules = config.schedules().unwrap();
        for (channel, every) in [
            ("canary", "10s"),
            ("mine", "3600s"),
            ("staging", "900s"),
            ("stable", "1800s"),
        ] {
            let schedule = schedules.of(&Channel(channel.to_owned()));
            assert_eq!(schedule.to_string(), every, "{channel}");
        }
    }

    #[track_caller]
    fn check_supersede(text: &str, expect: SupersedePolicy) {
        let config = layer(text, &BTreeMap::new()).unwrap();
        assert_eq!(config.supersede().unwrap(), expect, "{text}");
    }

    #[test]
    fn what_a_newer_release_means_can_be_chosen() {
        let default = SupersedePolicy::default();
        check_supersede("", default);
        for (text, then) in [
            ("replace", WhenNewer::Replace),
            ("finish_first", WhenNewer::FinishFirst),
            ("ignore", WhenNewer::Ignore),
        ] {
            let text = format!("[poll]\nwhen_newer = \"{text}\"");
            check_supersede(&text, SupersedePolicy { then, ..default });
        }
        let min_interval = Duration::from_secs(6 * 3600);
        check_supersede(
            "[poll]\nmin_interval = \"6h\"",
            SupersedePolicy {
                min_interval,
                ..default
            },
        );
        let wrong = strict::problems("[poll]\nwhen_newer = \"queue\"");
        assert_eq!(wrong.len(), 1, "{wrong:?}");
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest() {
        let refused = environment(&variables(&[("FLEET_SNAPSHOTS__KEPT", "7")])).unwrap_err();
        assert_eq!(
            refused.chain(),
            "environment variable FLEET_SNAPSHOTS__KEPT sets no known key; did you mean \
             FLEET_SNAPSHOTS__KEEP?"
        );
        assert_eq!(refused.exit, Exit::Usage);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for text in [
            "label_prefix = \"fleet\"",
            "[snapshots]\nkeep = 0",
            "[snapshots]\nbytes_per_second = 0",
            "[snapshots]\nmax_age = \"old\"",
            "[registries.x]\npassword = \"a\"\npassword_file = \"b\"",
            "[poll]\nothers = \"now and then\"",
            "[poll]\nquiet_period = \"5\"",
            "[poll]\nmin_interval = \"often\"",
            "[poll.channels]\ncanary = \"1s\"",
            "[daemon]\nstop_timeout = \"soon\"",
        ] {
            let config = layer(text, &BTreeMap::new()).unwrap();
            assert!(validate(&config).is_err(), "{text}");
        }
    }
}
