//! References to containers that are replaced.

use fleet_core::ids::ContainerId;
use fleet_core::ports::Repoint;
use serde_json::{Value, json};

use super::{Planner, container};

fn other(digit: char) -> ContainerId {
    ContainerId::new(digit.to_string().repeat(64)).expect("an id")
}

fn planned(user: &Value) -> Value {
    let spec = container(user, &json!({ "ExposedPorts": { "80/tcp": {} } }));
    let mut planner = Planner::new(&spec, &json!({}));
    planner.repoint = vec![Repoint {
        from: other('1'),
        from_name: "vpn".to_owned(),
        to: other('2'),
    }];
    assert_eq!(planner.surprises(), Vec::<String>::new());
    Value::Object(planner.plan().body)
}

#[test]
fn namespaces_and_volumes_of_a_replaced_container_are_taken_from_the_new_one() {
    let (old, new) = (other('1'), other('2'));
    let body = planned(&json!({
        "Domainname": "",
        "HostConfig": {
            "NetworkMode": format!("container:{old}"),
            "PidMode": "container:vpn",
            "IpcMode": format!("container:{}", old.short()),
            "VolumesFrom": ["vpn:ro", "somebody:rw"],
            "Links": ["/vpn:/web/tunnel", "/db:/web/db"],
        },
    }));
    let host = &body["HostConfig"];
    assert_eq!(host["NetworkMode"], format!("container:{new}"));
    assert_eq!(host["PidMode"], format!("container:{new}"));
    assert_eq!(host["IpcMode"], format!("container:{new}"));
    assert_eq!(
        host["VolumesFrom"],
        json!([format!("{new}:ro"), "somebody:rw"])
    );
    assert_eq!(host["Links"], json!([format!("{new}:tunnel"), "db:db"]));
}

#[test]
fn what_the_engine_refuses_beside_a_shared_network_is_dropped() {
    let body = planned(&json!({
        "Hostname": "of-the-parent",
        "Domainname": "example.org",
        "MacAddress": "02:42:ac:11:00:02",
        "HostConfig": { "NetworkMode": "container:other" },
    }));
    for field in [
        "Hostname",
        "Domainname",
        "ExposedPorts",
        "MacAddress",
        "NetworkingConfig",
    ] {
        assert_eq!(body.get(field), None, "{field}");
    }
    assert_eq!(body["HostConfig"]["NetworkMode"], "container:other");
}

#[test]
fn the_new_container_is_not_started_by_the_engine() {
    let body = planned(
        &json!({ "HostConfig": { "RestartPolicy": { "Name": "always" }, "Memory": 5, "New": 1 } }),
    );
    assert_eq!(body["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(body["HostConfig"]["Memory"], 5);
    assert_eq!(body["HostConfig"]["New"], 1);
}

#[test]
fn compose_labels_say_what_compose_would_say() {
    let user = json!({ "Labels": {
        "com.docker.compose.image": "sha256:old",
        "com.docker.compose.config-hash": "aaaa",
        "com.docker.compose.project": "shop",
    } });
    let spec = container(&user, &json!({}));
    let mut planner = Planner::new(&spec, &json!({}));
    let labels = |planner: &Planner<'_>| planner.plan().body["Labels"].clone();
    assert_eq!(labels(&planner)["com.docker.compose.config-hash"], "aaaa");
    planner.hash = Some("bbbb");
    let labels = labels(&planner);
    assert_eq!(labels["com.docker.compose.config-hash"], "bbbb");
    assert_eq!(labels["com.docker.compose.image"], "sha256:new");
    assert_eq!(labels["com.docker.compose.project"], "shop");
}
