//! Several updates of the same instance in a row: nothing is lost on the way there, back, and there again.

use fleet_core::update::Outcome;
use fleet_testkit::{Container, Image, Lab, docker};
use serde_json::{Value, json};

use crate::embedded::Embedded;

async fn update(fleet: &Embedded, container: &Container, to: &str, expected: Outcome) {
    let report = fleet
        .update(&container.name, to)
        .await
        .expect("the engine answers");
    assert_eq!(report.outcome, Some(expected), "{:?}", report.reason);
    container.wait_up();
}

/// What must stay as it is, whatever the image.
fn kept(container: &Container) -> Value {
    let found = container.inspect_by_name();
    let mounts = found["Mounts"].as_array().cloned().unwrap_or_default();
    let mounts: Vec<_> = mounts
        .iter()
        .map(|mount| {
            json!([
                mount["Type"],
                mount["Name"],
                mount["Destination"],
                mount["RW"]
            ])
        })
        .collect();
    let networks = found["NetworkSettings"]["Networks"].as_object().cloned();
    let networks: Vec<_> = networks
        .unwrap_or_default()
        .iter()
        .map(|(name, network)| json!([name, network["IPAMConfig"], network["GlobalIPv6Address"]]))
        .collect();
    let host = &found["HostConfig"];
    json!({
        "name": found["Name"],
        "mounts": mounts,
        "networks": networks,
        "restart": host["RestartPolicy"],
        "ports": host["PortBindings"],
        "memory": host["Memory"],
        "caps": host["CapDrop"],
        "labels": found["Config"]["Labels"]["owner"],
        "mine": found["Config"]["Env"].as_array().map(|env| env.contains(&json!("MINE=1"))),
    })
}

fn versions(lab: &Lab) -> [String; 4] {
    let image = |name: &str, version: &str, mode: &str| {
        lab.import(name, &Image::new(version, mode).change("VOLUME /data"))
    };
    [
        image("app:1", "1", ""),
        image("app:2", "2", ""),
        image("app:bad", "bad", "corrupt"),
        image("app:3", "3", ""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn there_back_and_there_again_with_an_anonymous_volume() {
    let lab = Lab::new("again");
    let [first, second, bad, third] = versions(&lab);
    let worse = lab.import(
        "app:worse",
        &Image::new("worse", "exit").change("VOLUME /data"),
    );
    let web = lab
        .run("web")
        .managed()
        .label("owner", "me")
        .label("fleet.health.timeout", "2s")
        .options(&[
            "--restart",
            "on-failure:3",
            "--memory",
            "64m",
            "--env",
            "MINE=1",
        ])
        .options(&["--cap-drop", "NET_RAW", "--publish", "127.0.0.1::8080"])
        .start(&first);
    web.wait_up();
    web.put("one");
    let before = kept(&web);
    let fleet = Embedded::new().await;
    // Two in a row, two ways back in a row, and there again.
    update(&fleet, &web, &second, Outcome::Committed).await;
    assert_eq!(kept(&web), before, "after the first update");
    web.put("two");
    let id = web.inspect_by_name()["Id"].clone();
    for (release, what) in [(&bad, "first"), (&worse, "second")] {
        update(&fleet, &web, release, Outcome::RolledBack).await;
        assert_eq!(kept(&web), before, "after the {what} way back");
        assert_eq!(web.inspect_by_name()["Id"], id, "the same container");
        assert_eq!(web.rows(), ["one", "two"], "after the {what} way back");
    }
    web.put("three");
    update(&fleet, &web, &third, Outcome::Committed).await;
    update(&fleet, &web, &second, Outcome::Committed).await;
    assert_eq!(kept(&web), before, "after two more in a row");
    assert_eq!(web.rows(), ["one", "two", "three"]);
    assert_eq!(lab.containers(), [web.name.clone()]);
    let volume = web.inspect_by_name()["Mounts"][0]["Name"].clone();
    docker(&["rm", "--force", &web.name]);
    docker(&["volume", "rm", volume.as_str().expect("a volume")]);
}

/// A network with addresses of both kinds, of this process's own, and the two addresses with this number in it.
fn dual(lab: &Lab, name: &str, first: u8, number: u8) -> (String, [String; 2]) {
    let block = std::process::id() % 250 + 1;
    let (v4, v6) = (
        format!("10.{first}.{block}"),
        format!("fd{:02}:{block:x}:", first % 100),
    );
    let subnets = [format!("{v4}.0/24"), format!("{v6}:/64")];
    let args = ["--ipv6", "--subnet", &subnets[0], "--subnet", &subnets[1]];
    let network = lab.network(name, &args);
    (
        network,
        [format!("{v4}.{number}"), format!("{v6}:{number}")],
    )
}

/// What it is on each network: the addresses that it has, and the names that somebody gave it.
fn places(container: &Container) -> Value {
    let found = container.inspect_by_name();
    let networks = found["NetworkSettings"]["Networks"].as_object().cloned();
    let places = networks
        .unwrap_or_default()
        .into_iter()
        .map(|(name, place)| {
            let aliases = place["Aliases"].as_array().cloned().unwrap_or_default();
            // The engine adds the short id, which is another with each container.
            let given: Vec<_> = aliases
                .into_iter()
                .filter(|alias| {
                    let id = found["Id"].as_str().unwrap_or_default();
                    !alias.as_str().is_some_and(|alias| id.starts_with(alias))
                })
                .collect();
            let pinned = found["HostConfig"]["NetworkMode"] == json!(name);
            json!({
                "network": name,
                "addresses": [place["IPAddress"], place["GlobalIPv6Address"]],
                "asked for": place["IPAMConfig"],
                "aliases": given,
                // A pinned one is that of the primary network; the engine makes up all others.
                "mac": pinned.then(|| place["MacAddress"].clone()),
            })
        });
    json!({ "mac": found["Config"]["MacAddress"], "places": places.collect::<Vec<_>>() })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_networks_with_addresses_of_both_kinds_and_a_pinned_mac_survive_both_ways() {
    let lab = Lab::new("dual");
    let [first, second, bad, third] = versions(&lab);
    let (front, front_at) = dual(&lab, "front", 215, 99);
    let (back, back_at) = dual(&lab, "back", 216, 77);
    let mac = format!("02:42:ac:{:02x}:bb:cc", std::process::id() % 256);
    let web = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", "2s")
        .create_by_api(
            &first,
            json!({
                "MacAddress": mac,
                "HostConfig": {
                    "NetworkMode": front,
                    "RestartPolicy": { "Name": "always" },
                    "Binds": [format!("{}:/data", lab.volume("data"))],
                },
                "NetworkingConfig": { "EndpointsConfig": { &front: {
                    "IPAMConfig": { "IPv4Address": front_at[0], "IPv6Address": front_at[1] },
                    "Aliases": ["shop"],
                } } },
            }),
        );
    let connect = ["network", "connect", "--alias", "client"];
    let places_at = ["--ip", &back_at[0], "--ip6", &back_at[1], &back, &web.id];
    docker(&[&connect[..], &places_at[..]].concat());
    docker(&["start", &web.id]);
    web.wait_up();
    let before = (kept(&web), places(&web));
    let text = before.1.to_string();
    let all = [
        &front_at[..],
        &back_at[..],
        &["shop".into(), "client".into(), mac],
    ]
    .concat();
    for wanted in all {
        assert!(text.contains(&wanted), "{wanted} is not in {text}");
    }
    let fleet = Embedded::new().await;
    for (release, expected) in [
        (&bad, Outcome::RolledBack),
        (&second, Outcome::Committed),
        (&third, Outcome::Committed),
    ] {
        update(&fleet, &web, release, expected).await;
        assert_eq!((kept(&web), places(&web)), before, "after {release}");
    }
}

/// Everything that the engine shows of a container, but what changes with each start.
fn shown(container: &Container) -> Value {
    let mut found = container.inspect_by_name();
    let places = places(container);
    for of_one_run in ["State", "NetworkSettings"] {
        found[of_one_run].take();
    }
    // The engine keeps them in a map, and shows them in any order.
    if let Some(mounts) = found["Mounts"].as_array_mut() {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    found["places"] = places;
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_leaves_the_container_as_the_engine_showed_it() {
    let lab = Lab::new("shown");
    let [first, _, bad, _] = versions(&lab);
    let network = lab.network("net", &[]);
    let web = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", "2s")
        .options(&["--network", &network, "--network-alias", "shop"])
        .options(&["--restart", "unless-stopped", "--memory", "64m", "--init"])
        .options(&["--env", "MINE=1", "--user", "0", "--workdir", "/data"])
        .options(&["--cap-drop", "NET_RAW", "--ulimit", "nofile=64:128"])
        .options(&["--health-cmd", "/app probe", "--stop-timeout", "7"])
        .options(&["--stop-signal", "SIGINT", "--hostname", "given"])
        .options(&["--volume", "/usr/share:/share:ro", "--tmpfs", "/scratch"])
        .volume(&lab.volume("named"), "/named")
        .start(&first);
    web.wait_up();
    web.put("kept");
    let before = shown(&web);
    let fleet = Embedded::new().await;
    update(&fleet, &web, &bad, Outcome::RolledBack).await;
    assert_eq!(shown(&web), before);
    assert_eq!(web.rows(), ["kept"]);
}
