//! Places on networks: what was asked for, never what the engine made up.
//!
//! Inspect shows both in one object. Asked for, and carried over: the IPAM config (static IPv4, IPv6 and link-local
//! addresses), the user's aliases, links, driver options, the gateway priority, and the MAC address of
//! `Config.MacAddress`. Made up, and dropped: addresses, gateways, ids, generated MAC addresses, DNS names, and the
//! alias that is the old container's short id.

use serde_json::{Map, Value};

use crate::engine::ApiVersion;
use crate::json::{is_empty, list, object, text};

/// How a container gets onto its networks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NetworkPlan {
    /// `NetworkingConfig.EndpointsConfig` of the create call.
    pub(crate) at_create: Map<String, Value>,
    /// Networks to connect after the create call and before the start.
    pub(crate) connect: Vec<(String, Value)>,
    /// Networks to leave after the create call: the engine adds them unasked.
    pub(crate) disconnect: Vec<String>,
    /// Whether `Config.MacAddress` stays in the create call (it moves to the endpoint from API 1.44 on).
    pub(crate) mac_in_config: bool,
}

/// The networks of an inspected container, for a create call of this API version.
pub(crate) fn plan(inspect: &Value, short_id: &str, api: ApiVersion) -> NetworkPlan {
    let mode = text(&inspect["HostConfig"]["NetworkMode"]);
    if !has_own_network(mode) {
        return NetworkPlan::default();
    }
    let mac = text(&inspect["Config"]["MacAddress"]);
    let modern = api >= ApiVersion::ALL_NETWORKS_AT_CREATE;
    let mut networks: Vec<(String, Value)> = object(&inspect["NetworkSettings"]["Networks"])
        .map(|(name, endpoint)| (name.clone(), Value::Object(requested(endpoint, short_id))))
        .collect();
    if networks.is_empty() {
        return NetworkPlan {
            disconnect: vec![network_name(mode).to_owned()],
            mac_in_config: !modern,
            ..NetworkPlan::default()
        };
    }
    let primary = primary(&networks, inspect, mode);
    networks.swap(0, primary);
    networks[1..].sort_by(|a, b| a.0.cmp(&b.0));
    if modern && !mac.is_empty() {
        networks[0].1["MacAddress"] = Value::from(mac);
    }
    if modern {
        return NetworkPlan {
            at_create: networks.into_iter().collect(),
            ..NetworkPlan::default()
        };
    }
    let connect = networks.split_off(1);
    NetworkPlan {
        at_create: networks.into_iter().collect(),
        connect,
        disconnect: Vec::new(),
        mac_in_config: true,
    }
}

/// The settings of one place that somebody asked for.
pub(crate) fn requested(endpoint: &Value, short_id: &str) -> Map<String, Value> {
    let mut kept = Map::new();
    for field in ["IPAMConfig", "Links", "DriverOpts", "GwPriority"] {
        if !is_empty(&endpoint[field]) {
            kept.insert(field.to_owned(), endpoint[field].clone());
        }
    }
    let aliases: Vec<Value> = list(&endpoint["Aliases"])
        .iter()
        .filter(|alias| text(alias) != short_id)
        .cloned()
        .collect();
    if !aliases.is_empty() {
        kept.insert("Aliases".to_owned(), Value::Array(aliases));
    }
    kept
}

/// Whether a container with this network mode sits on networks of its own.
pub(crate) fn has_own_network(mode: &str) -> bool {
    !matches!(mode, "host" | "none") && !mode.starts_with("container:")
}

/// The network that a mode means.
fn network_name(mode: &str) -> &str {
    match mode {
        "" | "default" => "bridge",
        name => name,
    }
}

/// The place of the network that the mode names, by name or by id; the first if it sits elsewhere.
fn primary(networks: &[(String, Value)], inspect: &Value, mode: &str) -> usize {
    let wanted = network_name(mode);
    networks
        .iter()
        .position(|(name, _)| {
            name == wanted
                || text(&inspect["NetworkSettings"]["Networks"][name]["NetworkID"]) == wanted
        })
        .unwrap_or(0)
}
