//! Labels on containers: the user's settings of one instance.
//!
//! Values are parsed once, here. A value that cannot be read is a [`LabelWarning`] and the default holds, except where
//! the default would do more than the user asked for: a bad `fleet.mode` counts as `off`, a bad `fleet.snapshot` as
//! `all`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ContainerId, TenantId};
use crate::model::{Channel, Container, HealthSpec, HttpCheck};
use crate::time::parse_duration;

/// Prefix of labels unless configured otherwise.
pub const DEFAULT_PREFIX: &str = "fleet.";

/// Label with the id of the update that made a container. Set by fleet on everything it makes, whatever the prefix.
pub const UPDATE: &str = "io.fleet.update";
/// Label of a guard that stands for several instances of a rollout: the rollout's id.
pub const ROLLOUT: &str = "io.fleet.rollout";
/// Label with the kind of a container that is not a workload: `guard` or `helper`.
pub const KIND: &str = "io.fleet.kind";
/// Label that lists bind targets to which fleet added `nocopy`, so that the next recreate drops it.
pub const NOCOPY: &str = "io.fleet.nocopy";
/// Prefix of the labels that fleet itself sets.
pub const OWN_PREFIX: &str = "io.fleet.";

/// Names that users may set, without the prefix.
pub const KNOWN: &[&str] = &[
    "enable",
    "tenant",
    "channel",
    "policy",
    "mode",
    "window",
    "health.path",
    "health.port",
    "health.expect",
    "health.timeout",
    "health.interval",
    "health.min_healthy",
    "snapshot",
    "stop.timeout",
    "tag.include",
    "tag.exclude",
    "tag.policy",
    "pin",
    "cohort",
    "priority",
    "min_age",
    "depends_on",
    "hook.pre_update",
    "hook.post_update",
    "writable_layer",
    "source",
    "changelog",
];

/// What the labels of one container say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSettings {
    /// `fleet.enable`: whether fleet manages it at all.
    pub enabled: bool,
    /// `fleet.tenant`; default: the compose project, else the container's name.
    pub tenant: TenantId,
    /// `fleet.channel`.
    pub channel: Channel,
    /// `fleet.policy`, as written.
    pub policy: Option<String>,
    /// `fleet.mode`; none if not set.
    pub mode: Option<LabelMode>,
    /// `fleet.window`, as written.
    pub window: Option<String>,
    /// `fleet.health.*`.
    pub health: HealthSpec,
    /// Whether `fleet.health.timeout` was given.
    pub health_timeout_given: bool,
    /// `fleet.snapshot`.
    pub snapshot: SnapshotChoice,
    /// `fleet.stop.timeout`; none means the container's own.
    pub stop_timeout: Option<Duration>,
    /// `fleet.tag.include`, as written.
    pub tag_include: Option<String>,
    /// `fleet.tag.exclude`, as written.
    pub tag_exclude: Option<String>,
    /// `fleet.tag.policy`.
    pub tag_policy: TagPolicy,
    /// `fleet.pin`: digest or tag.
    pub pin: Option<String>,
    /// `fleet.cohort`.
    pub cohort: Option<String>,
    /// `fleet.priority`; lower goes first.
    pub priority: i32,
    /// `fleet.min_age`.
    pub min_age: Option<Duration>,
    /// `fleet.depends_on` and compose's `depends_on`: names of containers or compose services.
    pub depends_on: Vec<String>,
    /// `fleet.hook.pre_update`: argv.
    pub pre_update: Option<Vec<String>>,
    /// `fleet.hook.post_update`: argv.
    pub post_update: Option<Vec<String>>,
    /// `fleet.writable_layer=discard`: data in the writable layer may be lost.
    pub discard_writable_layer: bool,
    /// `fleet.source=local`: the release is what the engine's local tag points to.
    pub local_source: bool,
    /// `fleet.changelog`: path in the image.
    pub changelog: String,
    /// Labels of other updaters say that this container is not to be updated; the text names the label.
    pub restricted_by: Option<String>,
}

/// `fleet.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelMode {
    /// Not looked at.
    Off,
    /// Looked at; people are told.
    Notify,
    /// Updated when a person asks.
    Manual,
    /// Updated by fleet.
    Auto,
}

/// `fleet.tag.policy`: how far the tag may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagPolicy {
    /// The same tag; only its digest may change.
    #[default]
    Digest,
    /// Newer patch versions.
    Patch,
    /// Newer minor versions.
    Minor,
    /// Any newer version.
    Major,
}

/// `fleet.snapshot`: which volumes are copied and put back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotChoice {
    /// Every writable local volume, named or anonymous.
    #[default]
    All,
    /// None.
    None,
    /// Those with these names or mount paths.
    Only(Vec<String>),
}

/// A label that was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelWarning {
    /// The whole label name.
    pub label: String,
    /// What was expected and found, and the nearest known name where it is unknown.
    pub message: String,
}

/// Whether fleet made this container as a guard or helper. An empty label is what is left of an image's own attempt to
/// pose as one.
#[must_use]
pub fn is_auxiliary(labels: &BTreeMap<String, String>) -> bool {
    labels.get(KIND).is_some_and(|kind| !kind.is_empty())
}

impl InstanceSettings {
    /// Reads the labels of a container.
    #[must_use]
    pub fn read(prefix: &str, container: &Container) -> (Self, Vec<LabelWarning>) {
        let mut reader = Reader {
            prefix,
            labels: &container.labels,
            warnings: Vec::new(),
        };
        let settings = reader.settings(container);
        reader.unknown_labels();
        (settings, reader.warnings)
    }
}

struct Reader<'a> {
    prefix: &'a str,
    labels: &'a BTreeMap<String, String>,
    warnings: Vec<LabelWarning>,
}

impl Reader<'_> {
    fn settings(&mut self, container: &Container) -> InstanceSettings {
        let default_tenant = self
            .labels
            .get("com.docker.compose.project")
            .and_then(|project| TenantId::new(project.clone()).ok())
            .or_else(|| TenantId::new(container.name.clone()).ok())
            .or_else(|| TenantId::new(short_id(&container.id)).ok());
        let tenant = self.parsed("tenant", |text| {
            TenantId::new(text).map_err(|error| error.to_string())
        });
        let timeout = self.duration("health.timeout");
        let defaults = HealthSpec::default();
        InstanceSettings {
            enabled: self.boolean("enable").unwrap_or(false),
            // A hexadecimal id is always a valid tenant, so there is always one.
            tenant: tenant
                .or(default_tenant)
                .unwrap_or_else(|| unreachable!("an id is a valid tenant")),
            channel: self
                .text("channel")
                .map(|text| Channel(text.to_owned()))
                .unwrap_or_default(),
            policy: self.text("policy").map(str::to_owned),
            mode: self.mode(),
            window: self.text("window").map(str::to_owned),
            health: HealthSpec {
                http: self.http_check(),
                timeout: timeout.unwrap_or(defaults.timeout),
                interval: self
                    .duration("health.interval")
                    .unwrap_or(defaults.interval),
                min_healthy: self
                    .duration("health.min_healthy")
                    .unwrap_or(defaults.min_healthy),
                passes: defaults.passes,
            },
            health_timeout_given: timeout.is_some(),
            snapshot: self.snapshot(),
            stop_timeout: self.duration("stop.timeout"),
            tag_include: self.text("tag.include").map(str::to_owned),
            tag_exclude: self.text("tag.exclude").map(str::to_owned),
            tag_policy: self.parsed("tag.policy", tag_policy).unwrap_or_default(),
            pin: self.text("pin").map(str::to_owned),
            cohort: self.text("cohort").map(str::to_owned),
            priority: self
                .parsed("priority", |text| {
                    text.parse()
                        .map_err(|_| format!("expected a whole number, found {text:?}"))
                })
                .unwrap_or(0),
            min_age: self.duration("min_age"),
            depends_on: self.depends_on(),
            pre_update: self.parsed("hook.pre_update", argv),
            post_update: self.parsed("hook.post_update", argv),
            discard_writable_layer: self
                .parsed("writable_layer", |text| {
                    one_of(text, &[("refuse", false), ("discard", true)])
                })
                .unwrap_or(false),
            local_source: self
                .parsed("source", |text| {
                    one_of(text, &[("registry", false), ("local", true)])
                })
                .unwrap_or(false),
            changelog: self
                .text("changelog")
                .unwrap_or("/app/changelogs/latest.json")
                .to_owned(),
            restricted_by: restricted_by(self.labels),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.labels
            .get(&format!("{}{name}", self.prefix))
            .map(|value| value.trim())
    }

    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?.to_owned();
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.warnings.push(LabelWarning {
                    label: format!("{}{name}", self.prefix),
                    message,
                });
                None
            }
        }
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, |text| {
            one_of(text, &[("true", true), ("false", false)])
        })
    }

    fn duration(&mut self, name: &str) -> Option<Duration> {
        self.parsed(name, parse_duration)
    }

    fn mode(&mut self) -> Option<LabelMode> {
        let modes = [
            ("off", LabelMode::Off),
            ("notify", LabelMode::Notify),
            ("manual", LabelMode::Manual),
            ("auto", LabelMode::Auto),
        ];
        let given = self.text("mode").is_some();
        let parsed = self.parsed("mode", |text| one_of(text, &modes));
        if given && parsed.is_none() {
            Some(LabelMode::Off)
        } else {
            parsed
        }
    }

    fn http_check(&mut self) -> Option<HttpCheck> {
        let port = self.parsed("health.port", |text| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("expected a port from 1 to 65535, found {text:?}")),
        });
        let expect = self.parsed("health.expect", |text| {
            serde_json::from_str(text).map_err(|_| format!("expected JSON, found {text:?}"))
        });
        let path = self.parsed("health.path", |text| {
            let plain = text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'#' && b != b'\\');
            if text.starts_with('/') && !text.starts_with("//") && plain {
                Ok(text.to_owned())
            } else {
                Err(format!("expected a path such as /health, without host, space or fragment, found {text:?}"))
            }
        })?;
        Some(HttpCheck { path, port, expect })
    }

    fn snapshot(&self) -> SnapshotChoice {
        match self.text("snapshot") {
            None | Some("all" | "") => SnapshotChoice::All,
            Some("none") => SnapshotChoice::None,
            Some(list) => SnapshotChoice::Only(split_list(list)),
        }
    }

    fn depends_on(&self) -> Vec<String> {
        let mut names = self.text("depends_on").map(split_list).unwrap_or_default();
        // Compose writes `service:condition:restart`, comma separated.
        if let Some(text) = self.labels.get("com.docker.compose.depends_on") {
            names.extend(
                split_list(text)
                    .into_iter()
                    .filter_map(|item| item.split(':').next().map(str::to_owned)),
            );
        }
        names
    }

    fn unknown_labels(&mut self) {
        for label in self.labels.keys() {
            let Some(name) = label.strip_prefix(self.prefix) else {
                continue;
            };
            if KNOWN.contains(&name) {
                continue;
            }
            let nearest = KNOWN
                .iter()
                .min_by_key(|known| strsim::levenshtein(known, name));
            let message = match nearest {
                Some(known) if strsim::levenshtein(known, name) <= 3 => {
                    format!("unknown label; did you mean {}{known}?", self.prefix)
                }
                _ => "unknown label".to_owned(),
            };
            self.warnings.push(LabelWarning {
                label: label.clone(),
                message,
            });
        }
    }
}

fn one_of<T: Copy>(text: &str, values: &[(&str, T)]) -> Result<T, String> {
    values
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}, found {text:?}", names.join(", "))
        })
}

fn tag_policy(text: &str) -> Result<TagPolicy, String> {
    one_of(
        text,
        &[
            ("digest", TagPolicy::Digest),
            ("patch", TagPolicy::Patch),
            ("minor", TagPolicy::Minor),
            ("major", TagPolicy::Major),
        ],
    )
}

fn argv(text: &str) -> Result<Vec<String>, String> {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(argv) if !argv.is_empty() => Ok(argv),
        _ => Err(format!(
            "expected a command as a JSON list such as [\"/bin/backup\",\"--now\"], found {text:?}"
        )),
    }
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

fn short_id(id: &ContainerId) -> String {
    id.short().to_owned()
}

/// Labels of other updaters are read only to restrict.
fn restricted_by(labels: &BTreeMap<String, String>) -> Option<String> {
    let is = |name: &str, value: &str| {
        labels
            .get(name)
            .is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    let denied = [
        ("com.centurylinklabs.watchtower.enable", "false"),
        ("com.centurylinklabs.watchtower.monitor-only", "true"),
        ("wud.watch", "false"),
        ("diun.enable", "false"),
    ];
    denied
        .iter()
        .find(|(name, value)| is(name, value))
        .map(|(name, value)| format!("{name}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeHost, image, instance};

    /// Settings and warnings of a container with these labels beside `fleet.enable=true`.
    fn read(given: &[(&str, &str)]) -> (InstanceSettings, Vec<String>) {
        let host = FakeHost::new(1);
        host.load(image("app:1"));
        let mut wanted = instance("web");
        for (name, value) in given {
            wanted = wanted.label(name, value);
        }
        host.run(wanted);
        let container = host.container("web").unwrap();
        let (settings, warnings) = InstanceSettings::read(DEFAULT_PREFIX, &container);
        let texts = warnings
            .into_iter()
            .map(|w| format!("{}: {}", w.label, w.message));
        (settings, texts.collect())
    }

    #[test]
    fn without_labels_the_defaults_hold() {
        let (settings, warnings) = read(&[]);
        assert!(settings.enabled && warnings.is_empty());
        assert_eq!(settings.tenant.as_str(), "web");
        assert_eq!(settings.channel.0, "stable");
        assert_eq!(settings.health, HealthSpec::default());
        assert_eq!(settings.snapshot, SnapshotChoice::All);
        assert_eq!(settings.mode, None);
    }

    #[test]
    fn every_known_label_is_read() {
        let (settings, warnings) = read(&[
            ("fleet.tenant", "acme"),
            ("fleet.health.path", "/health?deep=1"),
            ("fleet.health.port", "8080"),
            ("fleet.health.expect", r#"{"status":"ok"}"#),
            ("fleet.health.timeout", "1m30s"),
            ("fleet.health.min_healthy", "0"),
            ("fleet.snapshot", "data, /var/lib/db"),
            ("fleet.stop.timeout", "2m"),
            ("fleet.tag.policy", "minor"),
            ("fleet.priority", "-3"),
            ("fleet.depends_on", "db, cache"),
            ("fleet.hook.pre_update", r#"["/bin/backup","--now"]"#),
            ("fleet.writable_layer", "discard"),
            ("fleet.source", "local"),
            ("fleet.mode", "manual"),
        ]);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(settings.tenant.as_str(), "acme");
        let http = settings.health.http.unwrap();
        assert_eq!(
            (http.path.as_str(), http.port),
            ("/health?deep=1", Some(8080))
        );
        assert_eq!(settings.health.timeout, Duration::from_secs(90));
        assert_eq!(settings.health.min_healthy, Duration::ZERO);
        let only = ["data", "/var/lib/db"].map(str::to_owned).to_vec();
        assert_eq!(settings.snapshot, SnapshotChoice::Only(only));
        assert_eq!(settings.stop_timeout, Some(Duration::from_secs(120)));
        assert_eq!(
            (settings.tag_policy, settings.priority),
            (TagPolicy::Minor, -3)
        );
        assert_eq!(settings.depends_on, ["db", "cache"]);
        assert_eq!(settings.pre_update.unwrap(), ["/bin/backup", "--now"]);
        assert!(settings.discard_writable_layer && settings.local_source);
        assert_eq!(settings.mode, Some(LabelMode::Manual));
    }

    #[track_caller]
    fn warns(label: &str, value: &str, expected: &str) -> InstanceSettings {
        let (settings, warnings) = read(&[(label, value)]);
        assert!(
            warnings.len() == 1 && warnings[0].contains(expected),
            "{warnings:?}"
        );
        settings
    }

    #[test]
    fn what_cannot_be_read_is_a_warning_that_says_what_was_expected() {
        warns("fleet.healt.path", "/x", "did you mean fleet.health.path?");
        warns(
            "fleet.health.timeout",
            "soon",
            "expected a duration such as 10s",
        );
        warns("fleet.health.port", "0", "expected a port from 1 to 65535");
        warns("fleet.hook.pre_update", "rm -rf /", "as a JSON list");
        assert_eq!(
            warns("fleet.mode", "yes", "expected one of off").mode,
            Some(LabelMode::Off)
        );
    }

    #[test]
    fn a_label_cannot_point_the_probe_elsewhere() {
        for hostile in [
            "http://evil/",
            "//evil/x",
            "/x y",
            "/x#f",
            "@evil",
            "/\\evil",
            "/x\r\nHost: evil",
        ] {
            let settings = warns(
                "fleet.health.path",
                hostile,
                "expected a path such as /health",
            );
            assert_eq!(settings.health.http, None);
        }
    }

    #[test]
    fn compose_gives_the_tenant_and_the_dependencies() {
        let (settings, _) = read(&[
            ("com.docker.compose.project", "shop"),
            (
                "com.docker.compose.depends_on",
                "db:service_started:false,cache:service_healthy:true",
            ),
        ]);
        assert_eq!(settings.tenant.as_str(), "shop");
        assert_eq!(settings.depends_on, ["db", "cache"]);
    }

    #[test]
    fn labels_of_other_updaters_only_restrict() {
        let (settings, _) = read(&[("com.centurylinklabs.watchtower.enable", "false")]);
        assert_eq!(
            settings.restricted_by.as_deref(),
            Some("com.centurylinklabs.watchtower.enable=false")
        );
        let (settings, _) = read(&[("com.centurylinklabs.watchtower.enable", "true")]);
        assert_eq!(settings.restricted_by, None);
    }
}
