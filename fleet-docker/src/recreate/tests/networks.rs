//! Networks, on answers as engines of API 1.41 and of 1.44 and later give them.

use serde_json::{Value, json};

use super::super::NetworkPlan;
use super::{NEW_API, OLD_API, Planner, container};
use crate::engine::ApiVersion;

/// Two networks as engine 20.10 shows them: static addresses on one, generated ones on the other.
fn two_networks() -> Value {
    json!({
        "HostConfig": { "NetworkMode": "front" },
        "MacAddress": "02:42:c0:a8:01:63",
        "Networks": {
            "back": {
                "IPAMConfig": null,
                "Links": null,
                "Aliases": ["0123456789ab", "db-client"],
                "NetworkID": "b".repeat(64),
                "EndpointID": "e".repeat(64),
                "Gateway": "172.19.0.1",
                "IPAddress": "172.19.0.2",
                "IPPrefixLen": 16,
                "MacAddress": "02:42:ac:13:00:02",
                "DriverOpts": null,
            },
            "front": {
                "IPAMConfig": { "IPv4Address": "172.18.0.99", "IPv6Address": "fd00:18::99" },
                "Links": ["other:alias"],
                "Aliases": ["web", "0123456789ab"],
                "NetworkID": "f".repeat(64),
                "IPAddress": "172.18.0.99",
                "GlobalIPv6Address": "fd00:18::99",
                "MacAddress": "02:42:c0:a8:01:63",
                "DriverOpts": { "com.docker.network.endpoint.ifname": "lan0" },
                "GwPriority": 0,
                "DNSNames": ["web", "0123456789ab"],
            },
        },
    })
}

fn planned(user: &Value, api: ApiVersion) -> (NetworkPlan, Value) {
    let spec = container(user, &json!({}));
    let mut planner = Planner::new(&spec, &json!({}));
    planner.api = api;
    let plan = planner.plan();
    (plan.networks, Value::Object(plan.body))
}

#[test]
fn an_old_engine_gets_the_primary_at_create_and_the_others_afterwards() {
    let (networks, body) = planned(&two_networks(), OLD_API);
    let front = json!({
        "IPAMConfig": { "IPv4Address": "172.18.0.99", "IPv6Address": "fd00:18::99" },
        "Links": ["other:alias"],
        "Aliases": ["web"],
        "DriverOpts": { "com.docker.network.endpoint.ifname": "lan0" },
    });
    assert_eq!(
        body["NetworkingConfig"],
        json!({ "EndpointsConfig": { "front": front } })
    );
    assert_eq!(
        networks.connect,
        [("back".to_owned(), json!({ "Aliases": ["db-client"] }))]
    );
    assert_eq!(body["MacAddress"], "02:42:c0:a8:01:63");
    assert_eq!(networks.disconnect, Vec::<String>::new());
}

#[test]
fn a_new_engine_gets_all_at_create_and_the_mac_on_the_primary() {
    let (networks, body) = planned(&two_networks(), NEW_API);
    let endpoints = &body["NetworkingConfig"]["EndpointsConfig"];
    assert_eq!(endpoints["front"]["MacAddress"], "02:42:c0:a8:01:63");
    assert_eq!(endpoints["back"], json!({ "Aliases": ["db-client"] }));
    assert_eq!(body["MacAddress"], Value::Null);
    assert_eq!(networks.connect, []);
}

/// A place on a macvlan network with a DHCP-like pool beside it, as an engine shows it: the container has the wire's own
/// addresses, so that a second one with the same MAC or address would be two hosts under one name.
#[test]
fn a_place_on_a_macvlan_keeps_its_address_and_nothing_that_was_made_up() {
    let shown = |pinned: bool| {
        let mac = if pinned { "02:42:0a:05:00:63" } else { "" };
        json!({
            "HostConfig": { "NetworkMode": "lan" },
            "MacAddress": mac,
            "Networks": {
                "lan": {
                    "IPAMConfig": { "IPv4Address": "10.5.0.99", "LinkLocalIPs": ["169.254.34.68"] },
                    "Links": null,
                    "Aliases": ["0123456789ab"],
                    "NetworkID": "a".repeat(64),
                    "EndpointID": "e".repeat(64),
                    "Gateway": "10.5.0.1",
                    "IPAddress": "10.5.0.99",
                    "IPPrefixLen": 24,
                    "IPv6Gateway": "",
                    "GlobalIPv6Address": "",
                    "MacAddress": "02:42:0a:05:00:63",
                    "DriverOpts": null,
                },
                "bridge": { "IPAMConfig": null, "IPAddress": "172.17.0.2", "MacAddress": "02:42:ac:11:00:02" },
            },
        })
    };
    let place = json!({
        "IPAMConfig": { "IPv4Address": "10.5.0.99", "LinkLocalIPs": ["169.254.34.68"] },
    });
    let bridge = [("bridge".to_owned(), json!({}))];
    for pinned in [false, true] {
        let (networks, body) = planned(&shown(pinned), OLD_API);
        assert_eq!(
            body["NetworkingConfig"],
            json!({ "EndpointsConfig": { "lan": place } })
        );
        assert_eq!(networks.connect, bridge);
        assert_eq!(body.get("MacAddress").is_some(), pinned);

        let (networks, body) = planned(&shown(pinned), NEW_API);
        let endpoints = &body["NetworkingConfig"]["EndpointsConfig"];
        let mut expect = place.clone();
        if pinned {
            expect["MacAddress"] = json!("02:42:0a:05:00:63");
        }
        assert_eq!(endpoints["lan"], expect);
        assert_eq!(endpoints["bridge"], json!({}));
        assert_eq!(networks.connect, []);
    }
}

#[test]
fn a_gateway_priority_is_asked_for_and_survives() {
    let mut user = two_networks();
    user["Networks"]["back"]["GwPriority"] = json!(5);
    let (_, body) = planned(&user, NEW_API);
    assert_eq!(
        body["NetworkingConfig"]["EndpointsConfig"]["back"]["GwPriority"],
        5
    );
}

#[test]
fn generated_macs_and_names_are_dropped() {
    let mut user = two_networks();
    user.as_object_mut()
        .expect("an object")
        .remove("MacAddress");
    for api in [OLD_API, NEW_API] {
        let (_, body) = planned(&user, api);
        assert!(!body.to_string().contains("02:42"), "{body}");
        assert!(!body.to_string().contains("0123456789ab"), "{body}");
    }
}

#[test]
fn a_mode_that_names_the_network_by_id_still_finds_the_primary() {
    let mut user = two_networks();
    user["HostConfig"]["NetworkMode"] = json!("f".repeat(64));
    let (networks, _) = planned(&user, OLD_API);
    assert!(networks.at_create.contains_key("front"));
}

#[test]
fn default_bridge_host_none_and_shared_networks() {
    let bridge = json!({ "HostConfig": { "NetworkMode": "default" }, "Networks": { "bridge": { "IPAMConfig": null } } });
    let (networks, body) = planned(&bridge, OLD_API);
    assert_eq!(
        body["NetworkingConfig"],
        json!({ "EndpointsConfig": { "bridge": {} } })
    );
    assert_eq!(networks.connect, []);

    let left = json!({ "HostConfig": { "NetworkMode": "front" }, "Networks": {} });
    assert_eq!(planned(&left, OLD_API).0.disconnect, ["front"]);

    for mode in ["host", "none", "container:abc"] {
        let user = json!({ "HostConfig": { "NetworkMode": mode }, "Networks": { mode: {} }, "Hostname": "engine-host" });
        let (networks, body) = planned(&user, OLD_API);
        assert_eq!(networks.connect, []);
        assert_eq!(body.get("NetworkingConfig"), None);
        assert_eq!(body.get("Hostname").is_some(), mode == "none", "{mode}");
    }
}
