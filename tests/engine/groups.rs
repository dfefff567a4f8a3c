//! Containers that move together, on a real engine.

use fleet_core::ports::NoProgress;
use fleet_core::update::Outcome;
use fleet_testkit::{Image, Lab, docker};

use crate::embedded::Embedded;

/// A VPN-like parent, and a child that lives in its network.
struct Pair {
    lab: Lab,
    parent: fleet_testkit::Container,
    child: fleet_testkit::Container,
}

impl Pair {
    fn new() -> Self {
        let lab = Lab::new("pair");
        let vpn = lab.import("vpn:1", &Image::new("vpn1", ""));
        let app = lab.import("app:1", &Image::new("app1", ""));
        Self::of(lab, &vpn, &app)
    }

    fn of(lab: Lab, vpn: &str, app: &str) -> Self {
        let parent = lab.run("vpn").managed().start(vpn);
        parent.wait_up();
        let network = format!("container:{}", parent.name);
        let child = lab
            .run("app")
            .managed()
            .label("fleet.health.port", "9090")
            .options(&["--network", &network, "--env", "APP_PORT=9090"])
            .start(app);
        Self { lab, parent, child }
    }

    /// Parent and child run, and the child is in the network of the container that is the parent now.
    #[track_caller]
    fn check(&self) {
        let (parent, child) = (self.parent.inspect_by_name(), self.child.inspect_by_name());
        assert_eq!(parent["State"]["Running"], true);
        assert_eq!(child["State"]["Running"], true);
        let expected = format!("container:{}", parent["Id"].as_str().expect("an id"));
        assert_eq!(child["HostConfig"]["NetworkMode"], expected);
        let mut names = [self.parent.name.clone(), self.child.name.clone()];
        names.sort();
        assert_eq!(self.lab.containers(), names);
    }
}

async fn update(pair: &Pair, name: &str, to: &str, expected: Outcome) {
    let fleet = Embedded::new().await;
    let report = fleet.update(name, to).await.expect("the engine answers");
    assert_eq!(report.outcome, Some(expected), "{:?}", report.reason);
    pair.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_parent_takes_its_child_along() {
    let pair = Pair::new();
    let new = pair.lab.import("vpn:2", &Image::new("vpn2", ""));
    update(&pair, &pair.parent.name, &new, Outcome::Committed).await;
    assert_ne!(
        pair.child.inspect_by_name()["Id"],
        pair.child.id.as_str(),
        "the child was made again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_child_leaves_its_parent_alone() {
    let pair = Pair::new();
    let new = pair
        .lab
        .import("app:2", &Image::new("app2", "").env("APP_PORT", "9090"));
    update(&pair, &pair.child.name, &new, Outcome::Committed).await;
    assert_eq!(pair.parent.inspect_by_name()["Id"], pair.parent.id.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_get_new_images_in_one_update_or_neither_does() {
    let lab = Lab::new("both");
    let old = lab.import("1", &Image::new("1", ""));
    let pair = Pair::of(lab, &old, &old);
    let names = [pair.parent.name.as_str(), pair.child.name.as_str()];
    let now = || {
        let shown = [pair.parent.inspect_by_name(), pair.child.inspect_by_name()];
        shown.map(|container| (container["Id"].clone(), container["Image"].clone()))
    };
    let before = now();
    let fleet = Embedded::new().await;
    let bad = pair.lab.import("bad", &Image::new("bad", "exit"));
    let report = fleet.update_watched(&names, &bad, &NoProgress).await;
    let report = report.expect("the engine answers");
    assert_eq!(report.outcome, Some(Outcome::RolledBack));
    pair.check();
    assert_eq!(now(), before, "the same containers");

    let new = pair.lab.import("2", &Image::new("2", ""));
    let report = fleet.update_watched(&names, &new, &NoProgress).await;
    let report = report.expect("the engine answers");
    assert_eq!(
        report.outcome,
        Some(Outcome::Committed),
        "{:?}",
        report.reason
    );
    pair.check();
    let id = pair.lab.image_id(&new);
    assert!(
        now().iter().all(|(_, image)| *image == id.as_str()),
        "{:?}",
        now()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_parent_fails_both_are_back_as_the_same_containers() {
    let pair = Pair::new();
    let new = pair.lab.import("vpn:2", &Image::new("vpn2", "exit"));
    update(&pair, &pair.parent.name, &new, Outcome::RolledBack).await;
    assert_eq!(pair.parent.inspect_by_name()["Id"], pair.parent.id.as_str());
    assert_eq!(pair.child.inspect_by_name()["Id"], pair.child.id.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_child_fails_it_goes_back_alone() {
    let pair = Pair::new();
    let new = pair.lab.import("app:2", &Image::new("app2", "exit"));
    update(&pair, &pair.child.name, &new, Outcome::RolledBack).await;
    assert_eq!(pair.parent.inspect_by_name()["Id"], pair.parent.id.as_str());
    assert_eq!(pair.child.inspect_by_name()["Id"], pair.child.id.as_str());
}

/// A link of the default bridge holds the container that it was made to: with another in its place nobody could start
/// the one that has the link.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_links_to_another_moves_with_it_and_can_be_started_again() {
    let lab = Lab::new("link");
    let image = |version: &str, mode: &str| lab.import(version, &Image::new(version, mode));
    let old = image("1", "");
    let db = lab.run("db").managed().start(&old);
    let link = format!("{}:database", db.name);
    let web = lab
        .run("web")
        .managed()
        .options(&["--link", &link])
        .start(&old);
    let expect = serde_json::json!([format!("/{}:/{}/database", db.name, web.name)]);
    let fleet = Embedded::new().await;
    for (version, mode, expected) in [
        ("2", "", Outcome::Committed),
        ("bad", "exit", Outcome::RolledBack),
    ] {
        let report = fleet.update(&db.name, &image(version, mode)).await;
        let report = report.expect("the engine answers");
        assert_eq!(report.outcome, Some(expected), "{:?}", report.reason);
        let links = web.inspect_by_name()["HostConfig"]["Links"].clone();
        assert_eq!(links, expect, "after {version}");
        docker(&["restart", "--time", "0", &web.name]);
        web.wait_up();
    }
}

/// A parent, a child in its network, and a grandchild that mounts what the child mounts.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_three_moves_together_there_and_back() {
    let lab = Lab::new("chain");
    let image = |name: &str, version: &str, mode: &str, port: &str| {
        lab.import(name, &Image::new(version, mode).env("APP_PORT", port))
    };
    let parent = lab
        .run("parent")
        .managed()
        .label("fleet.health.timeout", "5s")
        .start(&image("parent:1", "p1", "", "8080"));
    parent.wait_up();
    let network = format!("container:{}", parent.name);
    let child = lab
        .run("child")
        .managed()
        .label("fleet.health.port", "9090")
        .volume(&lab.volume("data"), "/data")
        .options(&["--network", &network])
        .start(&image("child:1", "c1", "", "9090"));
    let grandchild = lab
        .run("grandchild")
        .managed()
        .options(&["--volumes-from", &format!("{}:ro", child.name)])
        .start(&image("grandchild:1", "g1", "", "8080"));
    let chain = [&parent, &child, &grandchild];
    let ids = || chain.map(|container| container.inspect_by_name()["Id"].clone());
    let check = || {
        let [parent_id, ..] = ids();
        let network = format!("container:{}", parent_id.as_str().expect("an id"));
        assert_eq!(
            child.inspect_by_name()["HostConfig"]["NetworkMode"],
            network
        );
        for container in chain {
            assert_eq!(container.inspect_by_name()["State"]["Running"], true);
        }
        let mut names = chain.map(|container| container.name.clone());
        names.sort();
        assert_eq!(lab.containers(), names);
    };
    let before = ids();
    let fleet = Embedded::new().await;
    for (mode, version, expected) in [
        ("exit", "bad", Outcome::RolledBack),
        ("", "2", Outcome::Committed),
    ] {
        let new = image(&format!("parent:{version}"), version, mode, "8080");
        let report = fleet.update(&parent.name, &new).await.expect("answered");
        assert_eq!(report.outcome, Some(expected), "{:?}", report.reason);
        check();
        match expected {
            Outcome::RolledBack => assert_eq!(ids(), before, "the same containers"),
            _ => assert!(ids().iter().zip(&before).all(|(now, then)| now != then)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_app_fails_its_database_goes_back_to_the_same_moment() {
    let lab = Lab::new("stack");
    let (app_1, db_1) = (
        lab.import("app:1", &Image::new("1", "")),
        lab.import("db:1", &Image::new("db", "")),
    );
    let bad = lab.import("app:2", &Image::new("2", "corrupt"));
    let (app_data, db_data) = (lab.volume("app"), lab.volume("db"));
    let project = |name: &str, service: &str| {
        lab.run(name)
            .managed()
            .label("fleet.health.timeout", "2s")
            .label("com.docker.compose.project", "stack")
            .label("com.docker.compose.service", service)
    };
    let db = project("db", "db").volume(&db_data, "/data").start(&db_1);
    let app = project("app", "app")
        .label("com.docker.compose.depends_on", "db:service_started:false")
        .volume(&app_data, "/data")
        .start(&app_1);
    for container in [&db, &app] {
        container.wait_up();
        container.put("before");
    }
    let fleet = Embedded::new().await;
    let report = fleet
        .update(&app.name, &bad)
        .await
        .expect("the engine answers");
    assert_eq!(
        report.outcome,
        Some(Outcome::RolledBack),
        "{:?}",
        report.reason
    );
    for container in [&db, &app] {
        assert_eq!(container.inspect_by_name()["Id"], container.id.as_str());
        container.wait_up();
        assert_eq!(container.rows(), ["before"]);
    }
    assert_eq!(lab.containers().len(), 2);
}
