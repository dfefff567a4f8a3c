//! What differs between two containers, and whose doing it is.
//!
//! A container is flattened into named settings; what the engine makes up (addresses, ids, generated names) is left
//! out. A difference is the image's doing where the old value is the old image's, or the new value is the new image's;
//! everything else is fleet's, and of fleet's doing only [`Difference::is_expected`] may ever appear.

use std::collections::BTreeMap;
use std::fmt;

use fleet_core::model::FrozenSpec;
use fleet_core::model::labels::OWN_PREFIX;
use fleet_core::ports::PortError;
use serde_json::{Map, Value};

use super::networks::{has_own_network, requested};
use super::{COMPOSE_HASH, COMPOSE_IMAGE, CreatePlan, EngineSpec, config, host, mounts};
use crate::json::{is_empty, list, object, text};

/// Whose doing a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// fleet's.
    Fleet,
    /// The new image says something else than the old one.
    Image,
}

/// One setting that is not what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The setting, for instance `Config.Env.PATH`, `HostConfig.Memory` or `Networks.front.IPAMConfig`.
    pub field: String,
    /// What it was; null if it was not set.
    pub old: Value,
    /// What it is; null if it is not set.
    pub new: Value,
    /// Whose doing it is.
    pub by: By,
}

impl Difference {
    /// Whether a recreate may bring this difference about: whatever comes from the image, and of fleet's own doing the
    /// image's name, fleet's and compose's own labels, the restart policy, an anonymous volume bound by its name,
    /// `nocopy`, a volume for a new `VOLUME`, and a reference to a container that was made again.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.by == By::Image
            || self.field == "Config.Image"
            || self
                .field
                .starts_with(&format!("Config.Labels.{OWN_PREFIX}"))
            || self.field == format!("Config.Labels.{COMPOSE_IMAGE}")
            || self.field == format!("Config.Labels.{COMPOSE_HASH}")
            || self.field == "HostConfig.RestartPolicy"
            || self.is_expected_mount()
            || self.is_repointed()
    }

    fn is_expected_mount(&self) -> bool {
        if self.field.starts_with("HostConfig.Binds.") {
            // Either no entry before (an anonymous or a new volume), or the same entry with or without `nocopy`.
            return match self.old.as_str() {
                None => self.new.as_str().is_some_and(|new| !new.starts_with('/')),
                Some(old) => {
                    mounts::without_nocopy(old) == mounts::without_nocopy(text(&self.new))
                        || mounts::is_anonymous(old)
                }
            };
        }
        if self.field.starts_with("HostConfig.Mounts.") {
            let bare = |mount: &Value| {
                let mut mount = mount.clone();
                mounts::drop_nocopy(&mut mount);
                if let Some(fields) = mount.as_object_mut() {
                    fields.remove("Source");
                    fields.retain(|_, value| !is_empty(value));
                }
                mount
            };
            let (old, new) = (text(&self.old["Source"]), text(&self.new["Source"]));
            return (old == new || old.is_empty()) && bare(&self.old) == bare(&self.new);
        }
        false
    }

    fn is_repointed(&self) -> bool {
        let by_container = ["NetworkMode", "PidMode", "IpcMode"].iter().any(|field| {
            self.field == format!("HostConfig.{field}")
                && text(&self.old).starts_with("container:")
                && text(&self.new).starts_with("container:")
        });
        let same_length = list(&self.old).len() == list(&self.new).len();
        by_container
            || (matches!(
                self.field.as_str(),
                "HostConfig.VolumesFrom" | "HostConfig.Links"
            ) && same_length)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            By::Fleet => "fleet",
            By::Image => "image",
        };
        write!(f, "{}: {} -> {} ({by})", self.field, self.old, self.new)
    }
}

/// The settings of a container, flattened, with those of its image beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    settings: BTreeMap<String, Value>,
    image: BTreeMap<String, Value>,
}

impl Spec {
    /// The settings of a container as it was frozen.
    ///
    /// # Errors
    /// The frozen form was written by another version.
    pub fn of(frozen: &FrozenSpec) -> Result<Self, PortError> {
        Ok(Self::of_engine(&EngineSpec::of(frozen)?))
    }

    pub(crate) fn of_engine(spec: &EngineSpec) -> Self {
        let inspect = &spec.inspect;
        let mut config = inspect["Config"].as_object().cloned().unwrap_or_default();
        if super::hostname_is_made_up(spec) {
            config.remove("Hostname");
        }
        if super::shares_network(spec) {
            config.remove("Domainname");
            config.remove("MacAddress");
        }
        let mut host = inspect["HostConfig"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        host::normalise(&mut host);
        let networks = if has_own_network(text(&inspect["HostConfig"]["NetworkMode"])) {
            object(&inspect["NetworkSettings"]["Networks"])
                .map(|(name, endpoint)| {
                    (
                        name.clone(),
                        Value::Object(requested(endpoint, spec.short_id())),
                    )
                })
                .collect()
        } else {
            Map::new()
        };
        Self::flattened(&config, &host, &networks, &spec.image_config)
    }

    /// The settings that a container would have if it were made from a plan.
    pub(crate) fn of_plan(plan: &CreatePlan, image_config: &Value) -> Self {
        let mut user = plan.body.clone();
        let host = user.remove("HostConfig").unwrap_or_default();
        user.remove("NetworkingConfig");
        let config = config::merged(&user, image_config);
        let mut networks = plan.networks.at_create.clone();
        networks.extend(plan.networks.connect.iter().cloned());
        let host = host.as_object().cloned().unwrap_or_default();
        Self::flattened(&config, &host, &networks, image_config)
    }

    fn flattened(
        config: &Map<String, Value>,
        host: &Map<String, Value>,
        networks: &Map<String, Value>,
        image_config: &Value,
    ) -> Self {
        let mut settings = flat_config(config);
        flat_host(host, &mut settings);
        for (network, endpoint) in networks {
            settings.insert(format!("Networks.{network}"), Value::Bool(true));
            for (field, value) in object(endpoint).filter(|(_, value)| !is_empty(value)) {
                settings.insert(format!("Networks.{network}.{field}"), value.clone());
            }
        }
        let image = image_config
            .as_object()
            .map(flat_config)
            .unwrap_or_default();
        Self { settings, image }
    }
}

/// Every setting that differs, in the order of their names.
#[must_use]
pub fn spec_diff(old: &Spec, new: &Spec) -> Vec<Difference> {
    let mut fields: Vec<&String> = old.settings.keys().chain(new.settings.keys()).collect();
    fields.sort();
    fields.dedup();
    fields
        .into_iter()
        .filter(|field| old.settings.get(*field) != new.settings.get(*field))
        .map(|field| Difference {
            field: field.clone(),
            old: old.settings.get(field).cloned().unwrap_or_default(),
            new: new.settings.get(field).cloned().unwrap_or_default(),
            by: whose(old, new, field),
        })
        .collect()
}

/// The image's doing: what went was the old image's, and what came is the new image's.
fn whose(old: &Spec, new: &Spec, field: &str) -> By {
    let (before, after) = (old.settings.get(field), new.settings.get(field));
    let went = before.is_none() || before == old.image.get(field);
    let came = after.is_none() || after == new.image.get(field);
    if went && came { By::Image } else { By::Fleet }
}

fn flat_config(config: &Map<String, Value>) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (field, value) in config.iter().filter(|(_, value)| !is_empty(value)) {
        match field.as_str() {
            "Env" => {
                for entry in list(value) {
                    let (key, value) = text(entry).split_once('=').unwrap_or((text(entry), ""));
                    flat.insert(format!("Config.Env.{key}"), Value::from(value));
                }
            }
            "Labels" | "ExposedPorts" | "Volumes" | "Healthcheck" => {
                for (key, value) in object(value) {
                    flat.insert(format!("Config.{field}.{key}"), value.clone());
                }
            }
            _ => {
                flat.insert(format!("Config.{field}"), value.clone());
            }
        }
    }
    flat
}

fn flat_host(host: &Map<String, Value>, flat: &mut BTreeMap<String, Value>) {
    for (field, value) in host.iter().filter(|(_, value)| !is_empty(value)) {
        match field.as_str() {
            "Binds" => {
                for bind in list(value) {
                    flat.insert(
                        format!("HostConfig.Binds.{}", mounts::target_of(text(bind))),
                        bind.clone(),
                    );
                }
            }
            "Mounts" => {
                for mount in list(value) {
                    let target = mounts::clean(text(&mount["Target"]));
                    flat.insert(format!("HostConfig.Mounts.{target}"), mount.clone());
                }
            }
            _ => {
                flat.insert(format!("HostConfig.{field}"), value.clone());
            }
        }
    }
}
