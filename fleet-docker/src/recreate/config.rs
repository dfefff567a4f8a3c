//! The container's own config, three-way: old image, container, new image.
//!
//! The rule of every field: a value **equal to the old image's counts as inherited**, also where a user wrote down the
//! same value, since the engine keeps no record of who said it. What is inherited is left out of the create call, so
//! that the engine fills in what the new image says; what differs from the old image was said by the user and stays.

use fleet_core::model::labels::OWN_PREFIX;
use serde_json::{Map, Value};

use crate::json::{is_empty, list, object, text, texts};

/// What the engine kept of the user's settings: the container's config without what came from its image.
///
/// `host` is the container's host config: a port that is published stays exposed. The result has no `Image`, and no
/// label of fleet's own.
pub(super) fn without_inherited(
    container: &Value,
    image: &Value,
    new_image: &Value,
    host: &Value,
) -> Map<String, Value> {
    let mut config = container.as_object().cloned().unwrap_or_default();
    config.remove("Image");
    for field in ["User", "WorkingDir", "StopSignal"] {
        let own = &container[field];
        if is_empty(own) || own == &image[field] {
            config.remove(field);
        }
    }
    set_list(&mut config, "Env", env(&container["Env"], &image["Env"]));
    set_map(
        &mut config,
        "Labels",
        labels(&container["Labels"], &image["Labels"]),
    );
    set_map(
        &mut config,
        "ExposedPorts",
        without_keys(&container["ExposedPorts"], &image["ExposedPorts"], |port| {
            !host["PortBindings"][port].is_null()
        }),
    );
    set_map(
        &mut config,
        "Volumes",
        without_keys(&container["Volumes"], &image["Volumes"], |_| false),
    );
    healthcheck(
        &mut config,
        &container["Healthcheck"],
        &image["Healthcheck"],
    );
    command(&mut config, container, image);
    shell(
        &mut config,
        &container["Shell"],
        &image["Shell"],
        &new_image["Shell"],
    );
    // Build triggers mean nothing to a container; the engine neither merges nor runs them.
    if container["OnBuild"] == image["OnBuild"] {
        config.remove("OnBuild");
    }
    config
}

/// Entries of the environment that the image did not bring, in their order.
///
/// Compared by key: where a key has several entries, or another value than the image's, all its entries stay.
fn env(container: &Value, image: &Value) -> Vec<Value> {
    let key = |entry: &str| entry.split('=').next().unwrap_or("").to_owned();
    let own = texts(container);
    let inherited = texts(image);
    let of = |entries: &[String], wanted: &str| -> Vec<String> {
        entries
            .iter()
            .filter(|entry| key(entry) == wanted)
            .cloned()
            .collect()
    };
    own.iter()
        .filter(|entry| {
            let key = key(entry);
            of(&own, &key) != of(&inherited, &key)
        })
        .map(|entry| Value::from(entry.as_str()))
        .collect()
}

/// Labels that neither the image nor fleet set.
fn labels(container: &Value, image: &Value) -> Map<String, Value> {
    object(container)
        .filter(|(name, value)| !name.starts_with(OWN_PREFIX) && image.get(name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The fields of a set (an object with empty values) that the image did not bring, or that `keep` asks for.
fn without_keys(
    container: &Value,
    image: &Value,
    keep: impl Fn(&str) -> bool,
) -> Map<String, Value> {
    object(container)
        .filter(|(name, _)| image.get(name).is_none() || keep(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The engine merges the health check sub-field by sub-field, so it is taken apart in the same way.
fn healthcheck(config: &mut Map<String, Value>, container: &Value, image: &Value) {
    let own: Map<String, Value> = object(container)
        .filter(|(name, value)| !is_empty(value) && image.get(name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    set_map(config, "Healthcheck", own);
}

/// Entrypoint and command go together: an entrypoint given without a command makes the engine forget the image's.
///
/// | entrypoint | command | sent |
/// |---|---|---|
/// | as the image's | as the image's | nothing |
/// | as the image's | other | the command |
/// | as the image's | none, although the image has one | both: only an explicit entrypoint can have dropped it |
/// | other | any | both |
/// | none, although the image has one | any | `[""]`, which is how a client says "none", and the command |
fn command(config: &mut Map<String, Value>, container: &Value, image: &Value) {
    let entrypoint = texts(&container["Entrypoint"]);
    let command = texts(&container["Cmd"]);
    let image_command = texts(&image["Cmd"]);
    let dropped = command.is_empty() && !image_command.is_empty();
    if entrypoint == texts(&image["Entrypoint"]) && !dropped {
        config.remove("Entrypoint");
        if command == image_command {
            config.remove("Cmd");
            config.remove("ArgsEscaped");
        }
        return;
    }
    let entrypoint = if entrypoint.is_empty() {
        vec![String::new()]
    } else {
        entrypoint
    };
    config.insert("Entrypoint".to_owned(), Value::from(entrypoint));
    if command.is_empty() {
        config.remove("Cmd");
    }
}

/// The engine does not merge the shell, so the new image's has to be named.
fn shell(config: &mut Map<String, Value>, container: &Value, image: &Value, new_image: &Value) {
    if is_empty(container) || container != image {
        return;
    }
    if is_empty(new_image) {
        config.remove("Shell");
    } else {
        config.insert("Shell".to_owned(), new_image.clone());
    }
}

/// What the engine makes of a create call's config and an image: the config that inspect would show.
///
/// This is the engine's own merge, repeated here so that a plan can be shown, and checked, before anything is made.
pub(super) fn merged(user: &Map<String, Value>, image: &Value) -> Map<String, Value> {
    let mut config = user.clone();
    let user = &Value::Object(user.clone());
    for field in ["User", "WorkingDir", "StopSignal"] {
        if is_empty(&user[field]) && !is_empty(&image[field]) {
            config.insert(field.to_owned(), image[field].clone());
        }
    }
    for field in ["Labels", "ExposedPorts", "Volumes"] {
        let mut union: Map<String, Value> = object(&image[field])
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        union.extend(object(&user[field]).map(|(name, value)| (name.clone(), value.clone())));
        set_map(&mut config, field, union);
    }
    set_list(&mut config, "Env", merged_env(&user["Env"], &image["Env"]));
    if is_empty(&user["Entrypoint"]) {
        if is_empty(&user["Cmd"]) && !is_empty(&image["Cmd"]) {
            config.insert("Cmd".to_owned(), image["Cmd"].clone());
        }
        if !is_empty(&image["Entrypoint"]) {
            config.insert("Entrypoint".to_owned(), image["Entrypoint"].clone());
        }
    } else if list(&user["Entrypoint"]) == [Value::from("")] {
        config.remove("Entrypoint");
    }
    let mut healthcheck: Map<String, Value> = object(&image["Healthcheck"])
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    healthcheck.extend(
        object(&user["Healthcheck"])
            .filter(|(_, value)| !is_empty(value))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    set_map(&mut config, "Healthcheck", healthcheck);
    config
}

fn merged_env(user: &Value, image: &Value) -> Vec<Value> {
    let key = |entry: &Value| text(entry).split('=').next().unwrap_or("").to_owned();
    let own: Vec<String> = list(user).iter().map(key).collect();
    let mut merged = list(user).to_vec();
    merged.extend(
        list(image)
            .iter()
            .filter(|entry| !own.contains(&key(entry)))
            .cloned(),
    );
    merged
}

fn set_list(config: &mut Map<String, Value>, field: &str, items: Vec<Value>) {
    if items.is_empty() {
        config.remove(field);
    } else {
        config.insert(field.to_owned(), Value::Array(items));
    }
}

fn set_map(config: &mut Map<String, Value>, field: &str, fields: Map<String, Value>) {
    if fields.is_empty() {
        config.remove(field);
    } else {
        config.insert(field.to_owned(), Value::Object(fields));
    }
}
