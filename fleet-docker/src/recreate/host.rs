//! The host config: carried whole, unknown fields included.
//!
//! Only these fields are ever changed: `RestartPolicy` (the new container must not be started by anybody but fleet),
//! `Binds` and `Mounts` (see [`super::mounts`]), `NetworkMode`, `PidMode`, `IpcMode`, `VolumesFrom` and `Links` (they
//! may name a container that is being replaced, and links are inspected in another form than they are given).

use fleet_core::ids::ContainerId;
use fleet_core::ports::Repoint;
use serde_json::{Map, Value, json};

use crate::engine::volumes_from_reference;
use crate::json::{text, texts};

macro_rules! known_fields {
    ($($field:ident = $name:literal,)*) => {
        /// The fields of the engine's host config that this code was written with.
        pub(crate) const KNOWN: &[&str] = &[$($name,)*];

        /// Stops the build when the client library learns a field that nobody has thought about yet: add it to the
        /// list once it is clear whether it may be carried over as it is.
        const _: fn(bollard::models::HostConfig) = |host| {
            let bollard::models::HostConfig { $($field: _,)* } = host;
        };
    };
}

known_fields! {
    cpu_shares = "CpuShares",
    memory = "Memory",
    cgroup_parent = "CgroupParent",
    blkio_weight = "BlkioWeight",
    blkio_weight_device = "BlkioWeightDevice",
    blkio_device_read_bps = "BlkioDeviceReadBps",
    blkio_device_write_bps = "BlkioDeviceWriteBps",
    blkio_device_read_iops = "BlkioDeviceReadIOps",
    blkio_device_write_iops = "BlkioDeviceWriteIOps",
    cpu_period = "CpuPeriod",
    cpu_quota = "CpuQuota",
    cpu_realtime_period = "CpuRealtimePeriod",
    cpu_realtime_runtime = "CpuRealtimeRuntime",
    cpuset_cpus = "CpusetCpus",
    cpuset_mems = "CpusetMems",
    devices = "Devices",
    device_cgroup_rules = "DeviceCgroupRules",
    device_requests = "DeviceRequests",
    memory_reservation = "MemoryReservation",
    memory_swap = "MemorySwap",
    memory_swappiness = "MemorySwappiness",
    nano_cpus = "NanoCpus",
    oom_kill_disable = "OomKillDisable",
    init = "Init",
    pids_limit = "PidsLimit",
    ulimits = "Ulimits",
    cpu_count = "CpuCount",
    cpu_percent = "CpuPercent",
    io_maximum_iops = "IOMaximumIOps",
    io_maximum_bandwidth = "IOMaximumBandwidth",
    binds = "Binds",
    container_id_file = "ContainerIDFile",
    log_config = "LogConfig",
    network_mode = "NetworkMode",
    port_bindings = "PortBindings",
    restart_policy = "RestartPolicy",
    auto_remove = "AutoRemove",
    volume_driver = "VolumeDriver",
    volumes_from = "VolumesFrom",
    mounts = "Mounts",
    console_size = "ConsoleSize",
    annotations = "Annotations",
    cap_add = "CapAdd",
    cap_drop = "CapDrop",
    cgroupns_mode = "CgroupnsMode",
    dns = "Dns",
    dns_options = "DnsOptions",
    dns_search = "DnsSearch",
    extra_hosts = "ExtraHosts",
    group_add = "GroupAdd",
    ipc_mode = "IpcMode",
    cgroup = "Cgroup",
    links = "Links",
    oom_score_adj = "OomScoreAdj",
    pid_mode = "PidMode",
    privileged = "Privileged",
    publish_all_ports = "PublishAllPorts",
    readonly_rootfs = "ReadonlyRootfs",
    security_opt = "SecurityOpt",
    storage_opt = "StorageOpt",
    tmpfs = "Tmpfs",
    uts_mode = "UTSMode",
    userns_mode = "UsernsMode",
    shm_size = "ShmSize",
    sysctls = "Sysctls",
    runtime = "Runtime",
    isolation = "Isolation",
    masked_paths = "MaskedPaths",
    readonly_paths = "ReadonlyPaths",
}

/// Fields of older engines that the library has forgotten; carried all the same.
const FORGOTTEN: &[&str] = &["KernelMemory", "KernelMemoryTCP", "Capabilities"];

/// Fields with a value that this code has never heard of: they are carried over as they are, and reported.
pub(super) fn unknown(host: &Map<String, Value>) -> Vec<String> {
    host.iter()
        .filter(|(name, value)| !value.is_null() && !KNOWN.contains(&name.as_str()))
        .filter(|(name, _)| !FORGOTTEN.contains(&name.as_str()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Sets what must differ from the old container, mounts aside.
pub(super) fn adapt(host: &mut Map<String, Value>, repoint: &[Repoint]) {
    host.insert(
        "RestartPolicy".to_owned(),
        json!({ "Name": "no", "MaximumRetryCount": 0 }),
    );
    for field in ["NetworkMode", "PidMode", "IpcMode"] {
        let reference = host
            .get(field)
            .and_then(Value::as_str)
            .and_then(|mode| mode.strip_prefix("container:"));
        if let Some(to) = reference.and_then(|reference| replacement(reference, repoint)) {
            host.insert(field.to_owned(), Value::from(format!("container:{to}")));
        }
    }
    if let Some(Value::Array(entries)) = host.get_mut("VolumesFrom") {
        for entry in entries {
            let reference = volumes_from_reference(text(entry));
            if let Some(to) = replacement(reference, repoint) {
                let mode = text(entry)[reference.len()..].to_owned();
                *entry = Value::from(format!("{to}{mode}"));
            }
        }
    }
    set_links(host, repoint);
    set_limits(host);
}

/// Brings into the form in which a client gives them: links, and limits.
pub(super) fn normalise(host: &mut Map<String, Value>) {
    set_links(host, &[]);
    set_limits(host);
}

/// Podman inspects `RLIMIT_NOFILE` where it was given `nofile`, and takes only the latter.
fn set_limits(host: &mut Map<String, Value>) {
    let limits = host.get_mut("Ulimits").and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten() {
        if let Some(name) = text(&limit["Name"]).strip_prefix("RLIMIT_") {
            limit["Name"] = Value::from(name.to_ascii_lowercase());
        }
    }
}

fn set_links(host: &mut Map<String, Value>, repoint: &[Repoint]) {
    let links = host.get("Links").map(texts).unwrap_or_default();
    if !links.is_empty() {
        let links: Vec<String> = links.iter().map(|link| given_link(link, repoint)).collect();
        host.insert("Links".to_owned(), Value::from(links));
    }
}

/// Who takes the place of a container that settings name by name, id, or the first 12 digits of its id.
pub(super) fn replacement<'a>(reference: &str, repoint: &'a [Repoint]) -> Option<&'a ContainerId> {
    repoint
        .iter()
        .find(|entry| {
            entry.from.as_str() == reference
                || entry.from_name == reference
                || entry.from.short() == reference
        })
        .map(|entry| &entry.to)
}

/// A link as a client gives it (`target:alias`) from the form in which it is inspected (`/target:/owner/alias`).
fn given_link(link: &str, repoint: &[Repoint]) -> String {
    let (target, alias) = link.split_once(':').unwrap_or((link, link));
    let target = target.trim_start_matches('/');
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    let target = replacement(target, repoint).map_or(target, ContainerId::as_str);
    format!("{target}:{alias}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_given_as_they_are_taken() {
        let limits =
            json!([{ "Name": "RLIMIT_NOFILE", "Soft": 1 }, { "Name": "nproc", "Soft": 2 }]);
        let mut host = Map::from_iter([("Ulimits".to_owned(), limits)]);
        adapt(&mut host, &[]);
        let expect = json!([{ "Name": "nofile", "Soft": 1 }, { "Name": "nproc", "Soft": 2 }]);
        assert_eq!(host["Ulimits"], expect);
    }
}
