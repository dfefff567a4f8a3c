//! From the engine's raw inspect answer to the model's container. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleet_core::ids::{ContainerId, ImageId, VolumeName};
use fleet_core::model::{
    Container, EngineHealth, Mount, MountKind, NetworkAttachment, ParentRef, RestartPolicy,
    RunState,
};
use fleet_core::ports::{PortError, PortErrorKind};
use fleet_core::time::Timestamp;
use serde_json::Value;

use crate::json::{boolean, integer, list, object, text};

/// A reference to another container as the settings name it, not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentReference {
    /// `network`, `pid`, `ipc`, `volumes_from` or `link`.
    pub(crate) via: &'static str,
    /// An id or a name.
    pub(crate) reference: String,
}

/// The container of an inspect answer. `resolve` gives the full id for an id or name of another container.
pub(crate) fn container(
    raw: &Value,
    resolve: &dyn Fn(&str) -> Option<ContainerId>,
) -> Result<Container, PortError> {
    let config = &raw["Config"];
    let host = &raw["HostConfig"];
    let state = &raw["State"];
    let started_at = instant(&state["StartedAt"]);
    Ok(Container {
        id: identifier(raw, "Id", ContainerId::new)?,
        name: text(&raw["Name"]).trim_start_matches('/').to_owned(),
        image_id: identifier(raw, "Image", ImageId::new)?,
        image: text(&config["Image"]).to_owned(),
        labels: string_map(&config["Labels"]),
        state: run_state(state)?,
        pid: u32::try_from(integer(&state["Pid"])).unwrap_or(0),
        exit_code: started_at.is_some().then(|| integer(&state["ExitCode"])),
        started_at,
        finished_at: instant(&state["FinishedAt"]),
        restart_count: u64::try_from(integer(&raw["RestartCount"])).unwrap_or(0),
        restart_policy: restart_policy(&host["RestartPolicy"]),
        health: engine_health(state),
        stop_timeout_secs: config["StopTimeout"]
            .as_i64()
            .and_then(|secs| u32::try_from(secs).ok()),
        auto_remove: boolean(&host["AutoRemove"]),
        mounts: mounts(raw),
        network_mode: text(&host["NetworkMode"]).to_owned(),
        networks: networks(raw),
        exposed_ports: exposed_ports(config),
        parents: parent_references(host)
            .into_iter()
            .map(|parent| ParentRef {
                via: parent.via.to_owned(),
                id: resolve(&parent.reference),
                reference: parent.reference,
            })
            .collect(),
    })
}

/// The containers whose namespaces or volumes a host config uses, or that it links to: a link holds the container and
/// not its name, and one whose target is gone keeps its owner from being started.
pub(crate) fn parent_references(host: &Value) -> Vec<ParentReference> {
    let mut parents = Vec::new();
    for (via, field) in [
        ("network", "NetworkMode"),
        ("pid", "PidMode"),
        ("ipc", "IpcMode"),
    ] {
        if let Some(reference) = text(&host[field]).strip_prefix("container:") {
            parents.push(ParentReference {
                via,
                reference: reference.to_owned(),
            });
        }
    }
    for entry in list(&host["VolumesFrom"]) {
        parents.push(ParentReference {
            via: "volumes_from",
            reference: volumes_from_reference(text(entry)).to_owned(),
        });
    }
    for link in list(&host["Links"]) {
        let (target, _) = text(link).split_once(':').unwrap_or((text(link), ""));
        parents.push(ParentReference {
            via: "link",
            reference: target.trim_start_matches('/').to_owned(),
        });
    }
    parents
}

/// The container named by an entry of `VolumesFrom`, which may end in a mode such as `:ro`.
pub(crate) fn volumes_from_reference(entry: &str) -> &str {
    entry
        .split_once(':')
        .map_or(entry, |(reference, _)| reference)
}

fn identifier<T>(
    raw: &Value,
    field: &str,
    parse: impl Fn(String) -> Result<T, fleet_core::ids::IdError>,
) -> Result<T, PortError> {
    parse(text(&raw[field]).to_owned()).map_err(|source| {
        let message = format!("the engine's answer has no usable {field}");
        PortError::new("read a container", PortErrorKind::Failed, message).with_source(source)
    })
}

fn run_state(state: &Value) -> Result<RunState, PortError> {
    Ok(match text(&state["Status"]) {
        // Podman's own words come after Docker's.
        "created" | "configured" | "initialized" => RunState::Created,
        "running" | "stopping" => RunState::Running,
        "paused" => RunState::Paused,
        "restarting" => RunState::Restarting,
        "exited" | "stopped" => RunState::Exited,
        "removing" => RunState::Removing,
        "dead" => RunState::Dead,
        other => {
            return Err(PortError::new(
                "read a container",
                PortErrorKind::Failed,
                format!("expected a state such as running or exited, found {other:?}"),
            ));
        }
    })
}

/// An instant; none for the engine's zero (year 1), which means "never".
fn instant(value: &Value) -> Option<Timestamp> {
    let at: Timestamp = text(value).parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

fn restart_policy(policy: &Value) -> RestartPolicy {
    match text(&policy["Name"]) {
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure {
            max_retries: u32::try_from(integer(&policy["MaximumRetryCount"])).unwrap_or(0),
        },
        _ => RestartPolicy::No,
    }
}

fn engine_health(state: &Value) -> Option<EngineHealth> {
    match text(&state["Health"]["Status"]) {
        "starting" => Some(EngineHealth::Starting),
        "healthy" => Some(EngineHealth::Healthy),
        "unhealthy" => Some(EngineHealth::Unhealthy),
        _ => None,
    }
}

fn mounts(raw: &Value) -> Vec<Mount> {
    let listed = list(&raw["Mounts"]).iter().map(|mount| Mount {
        kind: mount_kind(mount),
        target: text(&mount["Destination"]).to_owned(),
        writable: boolean(&mount["RW"]),
    });
    // tmpfs given by `--tmpfs` is not among the mounts.
    let tmpfs = object(&raw["HostConfig"]["Tmpfs"]).map(|(target, options)| Mount {
        kind: MountKind::Tmpfs,
        target: target.clone(),
        writable: !text(options).split(',').any(|option| option == "ro"),
    });
    let mut mounts: Vec<Mount> = listed.collect();
    for mount in tmpfs {
        if !mounts.iter().any(|seen| seen.target == mount.target) {
            mounts.push(mount);
        }
    }
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    mounts
}

fn mount_kind(mount: &Value) -> MountKind {
    let source = text(&mount["Source"]).to_owned();
    match text(&mount["Type"]) {
        "volume" => match VolumeName::new(text(&mount["Name"])) {
            Ok(name) => MountKind::Volume {
                name,
                driver: text(&mount["Driver"]).to_owned(),
                source,
            },
            Err(_) => MountKind::Other,
        },
        "bind" => MountKind::Bind { source },
        "tmpfs" => MountKind::Tmpfs,
        _ => MountKind::Other,
    }
}

fn networks(raw: &Value) -> Vec<NetworkAttachment> {
    object(&raw["NetworkSettings"]["Networks"])
        .map(|(network, endpoint)| NetworkAttachment {
            network: network.clone(),
            addresses: ["IPAddress", "GlobalIPv6Address"]
                .iter()
                .filter_map(|field| text(&endpoint[*field]).parse::<IpAddr>().ok())
                .collect(),
        })
        .collect()
}

fn exposed_ports(config: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = object(&config["ExposedPorts"])
        .filter_map(|(port, _)| match port.split_once('/') {
            Some((number, "tcp")) => number.parse().ok(),
            None => port.parse().ok(),
            Some(_) => None,
        })
        .collect();
    ports.sort_unstable();
    ports
}

pub(crate) fn string_map(value: &Value) -> BTreeMap<String, String> {
    object(value)
        .map(|(key, value)| (key.clone(), text(value).to_owned()))
        .collect()
}

/// A container about which nothing is special, for tests.
#[cfg(test)]
pub(crate) fn plain_container() -> Container {
    let raw = serde_json::json!({
        "Id": "0".repeat(64),
        "Name": "/web",
        "Image": format!("sha256:{}", "1".repeat(64)),
        "State": { "Status": "created", "StartedAt": "0001-01-01T00:00:00Z" },
    });
    container(&raw, &|_| None).expect("a whole answer")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_that_never_ran_has_no_times_and_no_exit_code() {
        let container = plain_container();
        assert_eq!((container.started_at, container.finished_at), (None, None));
        assert_eq!(container.exit_code, None);
        assert_eq!(container.name, "web");
        assert_eq!(container.restart_policy, RestartPolicy::No);
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_refused() {
        for raw in [json!({}), json!({ "Id": "abc", "Image": "x" })] {
            let error = container(&raw, &|_| None).expect_err("no usable id");
            assert_eq!(error.kind(), PortErrorKind::Failed);
        }
        assert!(run_state(&json!({ "Status": "levitating" })).is_err());
    }

    #[test]
    fn mounts_include_memory_and_say_what_may_be_written() {
        let raw = json!({
            "Mounts": [
                { "Type": "volume", "Name": "data", "Driver": "local", "Source": "/v/data", "Destination": "/data", "RW": true },
                { "Type": "bind", "Source": "/srv", "Destination": "/srv", "RW": false },
                { "Type": "npipe", "Source": "x", "Destination": "/x", "RW": true },
            ],
            "HostConfig": { "Tmpfs": { "/scratch": "size=1m", "/frozen": "ro" } },
        });
        let mounts = mounts(&raw);
        let of = |target: &str| {
            mounts
                .iter()
                .find(|mount| mount.target == target)
                .expect("mounted")
        };
        assert!(of("/data").writable && !of("/srv").writable);
        assert_eq!(of("/scratch").kind, MountKind::Tmpfs);
        assert!(of("/scratch").writable && !of("/frozen").writable);
        assert_eq!(of("/x").kind, MountKind::Other);
    }

    #[test]
    fn only_tcp_ports_are_ports_of_a_health_check() {
        let ports = json!({ "ExposedPorts": { "9000/tcp": {}, "53/udp": {}, "80": {} } });
        assert_eq!(exposed_ports(&ports), [80, 9000]);
    }

    #[test]
    fn parents_are_found_wherever_they_are_named() {
        let host = json!({
            "NetworkMode": "container:a", "PidMode": "container:b", "IpcMode": "shareable", "VolumesFrom": ["c:ro"],
            "Links": ["/d:/web/db"],
        });
        let found: Vec<_> = parent_references(&host)
            .into_iter()
            .map(|parent| (parent.via, parent.reference))
            .collect();
        let expect = [
            ("network", "a"),
            ("pid", "b"),
            ("volumes_from", "c"),
            ("link", "d"),
        ];
        assert_eq!(
            found,
            expect.map(|(via, reference)| (via, reference.to_owned()))
        );
    }
}
