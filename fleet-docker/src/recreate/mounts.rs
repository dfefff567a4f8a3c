//! Mounts: what the container sees must be what it saw.
//!
//! Binds are carried byte for byte. Three things are changed, each on purpose: an anonymous volume is bound by the name
//! that it already has (passed back as inspected it would silently become a new, empty one); `nocopy` is added where a
//! volume is empty, since the engine would fill it from the new image while the old container still runs, and taken
//! away again by the next recreate; a `VOLUME` that is new in the new image gets a named volume, so that it can be
//! tracked.

use std::collections::BTreeSet;

use fleet_core::ids::{UpdateId, VolumeName};
use fleet_core::image::Digest;
use serde_json::{Map, Value, json};

use crate::json::{boolean, is_empty, list, object, text, texts};

/// A volume to be made for a `VOLUME` that the new image brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewVolume {
    /// Its name; the same for the same update and path.
    pub(crate) name: VolumeName,
    /// Where it is mounted.
    pub(crate) target: String,
}

/// What mounts need to know besides the host config.
#[derive(Debug)]
pub(super) struct MountInputs<'a> {
    /// The raw inspect answer.
    pub(super) inspect: &'a Value,
    /// Config of the new image.
    pub(super) image: &'a Value,
    /// Targets that come from other containers through `VolumesFrom`.
    pub(super) inherited: &'a BTreeSet<String>,
    /// Volumes that hold nothing yet.
    pub(super) empty: &'a BTreeSet<VolumeName>,
    /// Targets to which an earlier recreate added `nocopy`.
    pub(super) added_nocopy: &'a BTreeSet<String>,
    /// The update, for the names of new volumes.
    pub(super) update: &'a UpdateId,
}

/// What came out besides the changed host config.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MountOutputs {
    /// Targets to which `nocopy` was added.
    pub(super) nocopy: BTreeSet<String>,
    /// Volumes to be made.
    pub(super) new_volumes: Vec<NewVolume>,
}

/// Rewrites `Binds` and `Mounts` of a host config.
pub(super) fn carry(host: &mut Map<String, Value>, inputs: &MountInputs<'_>) -> MountOutputs {
    let mut binds: Vec<Bind> = texts(&host_value(host, "Binds"))
        .iter()
        .map(|text| Bind::parse(text))
        .collect();
    let mut mounts: Vec<Value> = list(&host_value(host, "Mounts")).to_vec();
    for bind in &mut binds {
        if inputs.added_nocopy.contains(&clean(&bind.target)) {
            bind.drop_mode("nocopy");
        }
    }
    for mount in &mut mounts {
        if inputs.added_nocopy.contains(&clean(text(&mount["Target"]))) {
            drop_nocopy(mount);
        }
    }
    carry_anonymous(&mut binds, &mut mounts, inputs);
    let mut outputs = MountOutputs {
        nocopy: add_nocopy(&mut binds, &mut mounts, inputs.empty),
        new_volumes: new_volumes(&binds, &mounts, host, inputs),
    };
    outputs.new_volumes.sort_by(|a, b| a.target.cmp(&b.target));
    binds.extend(outputs.new_volumes.iter().map(|volume| Bind {
        source: Some(volume.name.to_string()),
        target: volume.target.clone(),
        mode: None,
    }));
    let binds: Vec<Value> = binds
        .iter()
        .map(|bind| Value::from(bind.to_text()))
        .collect();
    set_unless_both_empty(host, "Binds", binds);
    set_unless_both_empty(host, "Mounts", mounts);
    outputs
}

/// Null stays null where there is nothing to say.
fn set_unless_both_empty(host: &mut Map<String, Value>, field: &str, items: Vec<Value>) {
    if !(items.is_empty() && is_empty(&host_value(host, field))) {
        host.insert(field.to_owned(), Value::Array(items));
    }
}

fn host_value(host: &Map<String, Value>, field: &str) -> Value {
    host.get(field).cloned().unwrap_or(Value::Null)
}

/// Anonymous volumes of the container get the names that they have.
fn carry_anonymous(binds: &mut Vec<Bind>, mounts: &mut [Value], inputs: &MountInputs<'_>) {
    for mounted in list(&inputs.inspect["Mounts"]) {
        let name = text(&mounted["Name"]);
        let target = clean(text(&mounted["Destination"]));
        if text(&mounted["Type"]) != "volume"
            || name.is_empty()
            || inputs.inherited.contains(&target)
        {
            continue;
        }
        if let Some(mount) = mounts
            .iter_mut()
            .find(|mount| clean(text(&mount["Target"])) == target)
        {
            if text(&mount["Source"]).is_empty() {
                mount["Source"] = Value::from(name);
            }
        } else if let Some(bind) = binds.iter_mut().find(|bind| clean(&bind.target) == target) {
            if bind.source.is_none() {
                bind.source = Some(name.to_owned());
            }
        } else {
            binds.push(Bind {
                source: Some(name.to_owned()),
                target,
                mode: (!boolean(&mounted["RW"])).then(|| "ro".to_owned()),
            });
        }
    }
}

fn add_nocopy(
    binds: &mut [Bind],
    mounts: &mut [Value],
    empty: &BTreeSet<VolumeName>,
) -> BTreeSet<String> {
    let is_empty_volume =
        |name: &str| VolumeName::new(name).is_ok_and(|name| empty.contains(&name));
    let mut added = BTreeSet::new();
    for bind in binds {
        let of_empty = bind.source.as_deref().is_some_and(is_empty_volume);
        if of_empty && !bind.has_mode("nocopy") {
            bind.add_mode("nocopy");
            added.insert(clean(&bind.target));
        }
    }
    for mount in mounts {
        let of_empty = text(&mount["Type"]) == "volume" && is_empty_volume(text(&mount["Source"]));
        if of_empty && !boolean(&mount["VolumeOptions"]["NoCopy"]) {
            if !mount["VolumeOptions"].is_object() {
                mount["VolumeOptions"] = json!({});
            }
            mount["VolumeOptions"]["NoCopy"] = Value::Bool(true);
            added.insert(clean(text(&mount["Target"])));
        }
    }
    added
}

pub(super) fn drop_nocopy(mount: &mut Value) {
    if let Some(options) = mount["VolumeOptions"].as_object_mut() {
        options.remove("NoCopy");
        if options.is_empty() {
            mount["VolumeOptions"] = Value::Null;
        }
    }
}

/// Volumes of the new image at places where nothing is mounted.
fn new_volumes(
    binds: &[Bind],
    mounts: &[Value],
    host: &Map<String, Value>,
    inputs: &MountInputs<'_>,
) -> Vec<NewVolume> {
    let mut taken: BTreeSet<String> = inputs.inherited.clone();
    taken.extend(binds.iter().map(|bind| clean(&bind.target)));
    taken.extend(mounts.iter().map(|mount| clean(text(&mount["Target"]))));
    taken.extend(object(&host_value(host, "Tmpfs")).map(|(target, _)| clean(target)));
    object(&inputs.image["Volumes"])
        .map(|(target, _)| clean(target))
        .filter(|target| !taken.contains(target))
        .filter_map(|target| {
            let name = new_volume_name(inputs.update, &target);
            VolumeName::new(name)
                .ok()
                .map(|name| NewVolume { name, target })
        })
        .collect()
}

fn new_volume_name(update: &UpdateId, target: &str) -> String {
    let slug: String = target
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    let distinct = &Digest::of(target.as_bytes()).short()[..6].to_owned();
    format!(
        "fleet-volume-{}-{}-{distinct}",
        update.short(),
        slug.trim_matches('-')
    )
}

/// A path without the slash at its end, so that two ways to write it compare equal.
pub(crate) fn clean(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// The target of an entry of `Binds`.
pub(super) fn target_of(bind: &str) -> String {
    clean(&Bind::parse(bind).target)
}

/// An entry of `Binds` without `nocopy`.
pub(super) fn without_nocopy(bind: &str) -> String {
    let mut bind = Bind::parse(bind);
    bind.drop_mode("nocopy");
    bind.to_text()
}

/// Whether an entry of `Binds` names no source, so that the engine makes a volume.
pub(super) fn is_anonymous(bind: &str) -> bool {
    Bind::parse(bind).source.is_none()
}

/// One entry of `Binds`: `[source:]target[:mode]`. Printed as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bind {
    source: Option<String>,
    target: String,
    mode: Option<String>,
}

impl Bind {
    fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.splitn(3, ':').collect();
        let (source, target, mode) = match parts.as_slice() {
            // `target:mode` is an anonymous volume with a mode: a mode never is a path.
            [target, mode] if !mode.starts_with('/') => (None, *target, Some(*mode)),
            [source, target] => (Some(*source), *target, None),
            [source, target, mode] => (Some(*source), *target, Some(*mode)),
            _ => (None, text, None),
        };
        Self {
            source: source.map(str::to_owned),
            target: target.to_owned(),
            mode: mode.map(str::to_owned),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(source) = &self.source {
            text.push_str(source);
            text.push(':');
        }
        text.push_str(&self.target);
        if let Some(mode) = &self.mode {
            text.push(':');
            text.push_str(mode);
        }
        text
    }

    fn has_mode(&self, wanted: &str) -> bool {
        self.mode
            .as_deref()
            .is_some_and(|mode| mode.split(',').any(|part| part == wanted))
    }

    fn add_mode(&mut self, added: &str) {
        self.mode = Some(match self.mode.take() {
            Some(mode) if !mode.is_empty() => format!("{mode},{added}"),
            _ => added.to_owned(),
        });
    }

    fn drop_mode(&mut self, dropped: &str) {
        if let Some(mode) = self.mode.take() {
            let kept: Vec<&str> = mode.split(',').filter(|part| *part != dropped).collect();
            self.mode = (!kept.is_empty()).then(|| kept.join(","));
        }
    }
}
