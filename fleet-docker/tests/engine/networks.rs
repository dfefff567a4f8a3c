//! Addresses, aliases and MAC addresses: what was asked for stays, what the engine made up is made anew.

use fleet_core::ports::ContainerRuntime as _;
use fleet_testkit::{Lab, docker, docker_json};
use serde_json::json;

use crate::kit::{engine, id, images, update};

#[tokio::test]
async fn two_networks_keep_static_addresses_and_pinned_mac() {
    let lab = Lab::new("nets");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let block = std::process::id() % 250 + 1;
    let front = lab.network(
        "front",
        &[
            "--ipv6",
            "--subnet",
            &format!("10.213.{block}.0/24"),
            "--subnet",
            &format!("fd13:{block:x}::/64"),
        ],
    );
    let back = lab.network("back", &["--subnet", &format!("10.214.{block}.0/24")]);
    let ipv4 = format!("10.213.{block}.99");
    let ipv6 = format!("fd13:{block:x}::99");
    let web = lab
        .run("web")
        .options(&[
            "--network",
            &front,
            "--ip",
            &ipv4,
            "--ip6",
            &ipv6,
            "--network-alias",
            "shop",
        ])
        .options(&["--user", "0"]);
    let web = web.create(&old);
    docker(&[
        "network",
        "connect",
        "--ip",
        &format!("10.214.{block}.7"),
        "--alias",
        "client",
        "--link",
        "other:alias",
        "--driver-opt",
        "com.example.option=x",
        &back,
        &web.id,
    ]);
    docker(&["start", &web.id]);
    let updated = update(&engine, &lab, &web, &new).await;
    engine.stop(&id(&web), None).await.expect("stopped");
    assert!(
        engine
            .start(&updated.created.id)
            .await
            .expect("started")
            .running
    );
    let raw = docker_json(&["container", "inspect", updated.created.id.as_str()]);
    let networks = &raw["NetworkSettings"]["Networks"];
    assert_eq!(networks[&front]["IPAddress"], ipv4);
    assert_eq!(networks[&front]["GlobalIPv6Address"], ipv6);
    assert_eq!(networks[&back]["IPAddress"], format!("10.214.{block}.7"));
    let aliases = |network: &str| networks[network]["Aliases"].to_string();
    assert!(aliases(&front).contains("shop") && aliases(&back).contains("client"));
    assert_eq!(networks[&back]["Links"], json!(["other:alias"]));
    assert_eq!(
        networks[&back]["DriverOpts"],
        json!({ "com.example.option": "x" })
    );
    let old_short = &web.id[..12];
    assert!(!networks.to_string().contains(old_short), "{networks}");
    assert_ne!(raw["Config"]["Hostname"], old_short);
    // And back: the parked container still has its places.
    engine
        .stop(&updated.created.id, None)
        .await
        .expect("stopped");
    assert!(engine.start(&id(&web)).await.expect("started").running);
}

#[tokio::test]
async fn pinned_mac_stays_and_generated_one_is_made_anew() {
    let lab = Lab::new("mac");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let pinned = lab.run("pinned").create_by_api(
        &old,
        json!({ "User": "0", "HostConfig": {}, "MacAddress": "02:42:ac:aa:bb:cc" }),
    );
    let updated = update(&engine, &lab, &pinned, &new).await;
    assert_eq!(updated.new["Config"]["MacAddress"], "02:42:ac:aa:bb:cc");
    let generated = lab.run("generated").options(&["--user", "0"]).start(&old);
    let updated = update(&engine, &lab, &generated, &new).await;
    let mac = updated.old["NetworkSettings"]["MacAddress"]
        .as_str()
        .expect("a MAC address");
    assert!(!mac.is_empty() && !updated.new["Config"].to_string().contains(mac));
}
