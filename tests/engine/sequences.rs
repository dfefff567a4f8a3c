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

#[tokio::test(flavor = "multi_thread")]
async fn static_addresses_of_both_kinds_survive_both_ways() {
    let lab = Lab::new("dual");
    let [first, second, bad, _] = versions(&lab);
    let block = std::process::id() % 250 + 1;
    let (v4, v6) = (format!("10.215.{block}"), format!("fd15:{block:x}:"));
    let network = lab.network(
        "net",
        &[
            "--ipv6",
            "--subnet",
            &format!("{v4}.0/24"),
            "--subnet",
            &format!("{v6}:/64"),
        ],
    );
    let web = lab
        .run("web")
        .managed()
        .label("fleet.health.timeout", "2s")
        .volume(&lab.volume("data"), "/data")
        .options(&["--network", &network, "--network-alias", "shop"])
        .options(&["--ip", &format!("{v4}.99"), "--ip6", &format!("{v6}:99")])
        .start(&first);
    web.wait_up();
    let before = kept(&web);
    let address = format!("{v6}:99");
    assert_eq!(before["networks"][0][2], json!(address));
    let fleet = Embedded::new().await;
    update(&fleet, &web, &bad, Outcome::RolledBack).await;
    assert_eq!(kept(&web), before, "after the way back");
    update(&fleet, &web, &second, Outcome::Committed).await;
    assert_eq!(kept(&web), before, "after the update");
    let aliases = &web.inspect_by_name()["NetworkSettings"]["Networks"][&network]["Aliases"];
    let aliases = aliases.as_array().cloned().unwrap_or_default();
    assert!(aliases.contains(&json!("shop")), "{aliases:?}");
}
