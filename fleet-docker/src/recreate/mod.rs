//! From what was inspected to a create request that loses nothing. Pure: no call, no clock.
//!
//! The engine has no "clone". What a container is has to be told apart into what the user said, what its image said and
//! what the engine made up: the first is carried over, the second follows the new image, the third is dropped.
//!
//! | field | how it is carried |
//! |---|---|
//! | `Env`, `Labels` | by key; equal to the old image's: follows the new image; other or absent there: stays |
//! | `Cmd`, `Entrypoint` | together; see `config.rs` |
//! | `User`, `WorkingDir`, `StopSignal`, `Shell` | equal to the old image's: follows the new image; else stays |
//! | `Healthcheck` | by sub-field, as the engine merges it |
//! | `ExposedPorts`, `Volumes` | by entry; a published port stays exposed |
//! | `StopTimeout`, `Tty`, `OpenStdin`, `Domainname` and the rest of `Config` | stays |
//! | `Hostname` | stays, unless the engine made it up (the old short id, or the host's name) |
//! | `MacAddress` | stays if pinned; generated ones are dropped |
//! | networks | requested settings only; see `networks.rs` |
//! | mounts | see `mounts.rs`: binds byte for byte, anonymous volumes by name |
//! | `HostConfig` | whole; see `host.rs` |
//! | `RestartPolicy` | `no`, until fleet arms it |
//! | `Image` | what the user wrote, never an id |
//! | `com.docker.compose.image`, `com.docker.compose.config-hash` | what compose would write now |
//!
//! **Overridden, but equal to the old image**: the engine does not say who set a value. One that equals the old image's
//! counts as inherited and follows the new image. Whoever wants a value to stay, whatever the image says, has to give
//! one that differs, or give it again after the update.

mod config;
mod diff;
mod host;
mod mounts;
mod networks;
mod spec;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use fleet_core::ids::{UpdateId, VolumeName};
use fleet_core::model::labels::{NOCOPY, OWN_PREFIX, UPDATE};
use fleet_core::ports::Repoint;
use serde_json::{Map, Value};

pub use diff::{By, Difference, Spec, spec_diff};
pub(crate) use mounts::{NewVolume, clean};
pub(crate) use networks::{NetworkPlan, has_own_network, requested};
pub(crate) use spec::EngineSpec;

use crate::engine::ApiVersion;
use crate::json::{object, text};
use mounts::MountInputs;

/// Compose's label with the id of the image, which version 2 compares.
pub(crate) const COMPOSE_IMAGE: &str = "com.docker.compose.image";
/// Compose's label with the hash of the service's config, which version 1 compares.
pub(crate) const COMPOSE_HASH: &str = "com.docker.compose.config-hash";

/// What a create request is made from.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// The old container.
    pub(crate) spec: &'a EngineSpec,
    /// Id of the image to create from.
    pub(crate) image_id: &'a str,
    /// Config of that image.
    pub(crate) image_config: &'a Value,
    /// What `Config.Image` shall read.
    pub(crate) image: &'a str,
    /// The update.
    pub(crate) update: &'a UpdateId,
    /// Containers that are replaced.
    pub(crate) repoint: &'a [Repoint],
    /// Volumes that hold nothing yet.
    pub(crate) empty_volumes: &'a BTreeSet<VolumeName>,
    /// Compose's config hash for the new image, where it could be computed.
    pub(crate) compose_hash: Option<&'a str>,
    /// The engine's API version.
    pub(crate) api: ApiVersion,
}

/// What has to be done to make the container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CreatePlan {
    /// Body of the create call.
    pub(crate) body: Map<String, Value>,
    /// Networks before and after the call; `at_create` is in the body already.
    pub(crate) networks: NetworkPlan,
    /// Volumes to make before the call.
    pub(crate) new_volumes: Vec<NewVolume>,
    /// Settings that were carried over although nobody here knows what they mean.
    pub(crate) unknown: Vec<String>,
}

/// Plans the create call for a container like the old one, from another image.
pub(crate) fn plan(inputs: &Inputs<'_>) -> CreatePlan {
    let spec = inputs.spec;
    let inspect = &spec.inspect;
    let mut body = config::without_inherited(
        &inspect["Config"],
        &spec.image_config,
        inputs.image_config,
        &inspect["HostConfig"],
    );
    let mut host = inspect["HostConfig"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    host::adapt(&mut host, inputs.repoint);
    let added_nocopy = added_nocopy(text(&inspect["Config"]["Labels"][NOCOPY]));
    let mounts = mounts::carry(
        &mut host,
        &MountInputs {
            inspect,
            image: inputs.image_config,
            inherited: &spec.inherited_targets,
            empty: inputs.empty_volumes,
            added_nocopy: &added_nocopy,
            update: inputs.update,
        },
    );
    let networks = networks::plan(inspect, spec.short_id(), inputs.api);
    identity(&mut body, spec, &networks);
    body.insert("Image".to_owned(), Value::from(inputs.image));
    let labels = labels(&body, inputs, &mounts.nocopy);
    body.insert("Labels".to_owned(), Value::Object(labels));
    if !networks.at_create.is_empty() {
        let endpoints = Value::Object(networks.at_create.clone());
        body.insert(
            "NetworkingConfig".to_owned(),
            serde_json::json!({ "EndpointsConfig": endpoints }),
        );
    }
    let unknown = host::unknown(&host);
    body.insert("HostConfig".to_owned(), Value::Object(host));
    CreatePlan {
        body,
        networks,
        new_volumes: mounts.new_volumes,
        unknown,
    }
}

/// Drops the names and addresses that the engine made up, and those it would refuse beside a shared namespace.
fn identity(body: &mut Map<String, Value>, spec: &EngineSpec, networks: &NetworkPlan) {
    if hostname_is_made_up(spec) {
        body.remove("Hostname");
    }
    if shares_network(spec) {
        body.remove("Domainname");
        body.remove("ExposedPorts");
    }
    if !networks.mac_in_config || text(&spec.inspect["Config"]["MacAddress"]).is_empty() {
        body.remove("MacAddress");
    }
}

/// Whether the engine made the hostname up: the short id, the host's own name, or another container's name.
pub(crate) fn hostname_is_made_up(spec: &EngineSpec) -> bool {
    let host = &spec.inspect["HostConfig"];
    let mode = text(&host["NetworkMode"]);
    let hostname = text(&spec.inspect["Config"]["Hostname"]);
    hostname == spec.short_id()
        || (mode == "host" && hostname == spec.host_name)
        || shares_network(spec)
        || text(&host["UTSMode"]) == "host"
}

/// Whether it uses another container's network: then names and addresses are the other's.
pub(crate) fn shares_network(spec: &EngineSpec) -> bool {
    text(&spec.inspect["HostConfig"]["NetworkMode"]).starts_with("container:")
}

/// The user's labels, fleet's own, and compose's as compose would write them now.
fn labels(
    body: &Map<String, Value>,
    inputs: &Inputs<'_>,
    nocopy: &BTreeSet<String>,
) -> Map<String, Value> {
    let mut labels = body
        .get("Labels")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    // An image must not pass itself off as one of fleet's own containers: what it says in fleet's name is blanked.
    for (name, _) in object(&inputs.image_config["Labels"]) {
        if name.starts_with(OWN_PREFIX) {
            labels.insert(name.clone(), Value::from(""));
        }
    }
    labels.insert(UPDATE.to_owned(), Value::from(inputs.update.to_string()));
    if !nocopy.is_empty() {
        let targets: Vec<&str> = nocopy.iter().map(String::as_str).collect();
        labels.insert(
            NOCOPY.to_owned(),
            Value::from(Value::from(targets).to_string()),
        );
    }
    if labels.contains_key(COMPOSE_IMAGE) {
        labels.insert(COMPOSE_IMAGE.to_owned(), Value::from(inputs.image_id));
    }
    if let Some(hash) = inputs.compose_hash {
        labels.insert(COMPOSE_HASH.to_owned(), Value::from(hash));
    }
    labels
}

/// The targets in the value of the `nocopy` label, a JSON list.
fn added_nocopy(label: &str) -> BTreeSet<String> {
    serde_json::from_str(label).unwrap_or_default()
}
