//! fleet as a container that sees the engine's socket and nothing of the host: helpers do what it cannot.

use std::path::PathBuf;
use std::time::Duration;

use fleet_testkit::{
    ContainedFleet, Container, Image, Lab, docker, static_fleet_binary, tools_at, try_docker,
    wait_for,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::tree;

/// A workload on a network of its own, which neither fleet's container nor a default bridge can reach.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) web: Container,
    volume: String,
}

impl Site {
    pub(crate) fn new(topic: &str) -> Self {
        let lab = Lab::new(topic);
        let old = lab.import("app:1", &Image::new("1", ""));
        let network = lab.network("net", &[]);
        let volume = lab.volume("data");
        let web = lab
            .run("web")
            .managed()
            .label("fleet.health.timeout", "5s")
            .volume(&volume, "/data")
            .options(&["--network", &network, "--network-alias", "front"])
            .options(&["--restart", "unless-stopped"])
            .start(&old);
        web.wait_up();
        web.put("first");
        let site = Self { lab, web, volume };
        tree::furnish(&site.root());
        site
    }

    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(self.lab.mountpoint(&self.volume))
    }

    pub(crate) fn release(&self, tag: &str, mode: &str) -> String {
        self.lab
            .import(&format!("app:{tag}"), &Image::new(tag, mode))
    }

    /// Nothing of the update is left: no other container, no tag, no helper.
    #[track_caller]
    pub(crate) fn check_clean(&self) {
        wait_for("the helpers to be gone", Duration::from_secs(10), || {
            let left = tools_at("helper", &self.volume);
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join(", "))
            }
        });
        assert_eq!(self.lab.containers(), [self.web.name.clone()]);
        assert_eq!(self.lab.foreign_tags(), Vec::<String>::new());
    }

    /// The container that was stopped runs on its data as they were at the stop.
    #[track_caller]
    fn check_back(&self, id: &str, expect: &tree::Tree) {
        let now = self.web.inspect_by_name();
        assert_eq!(now["Id"], id);
        assert_eq!(now["State"]["Running"], json!(true));
        assert_eq!(now["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
        tree::assert_same(expect, &tree::read(&self.root()));
        self.check_clean();
        self.web.wait_up();
        assert_eq!(self.web.rows(), ["first"]);
    }
}

/// The name of the image that helpers are made from.
fn helper_image() -> String {
    let program = std::fs::read(static_fleet_binary()).expect("the binary can be read");
    let hash: String = Sha256::digest(&program)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("fleet-helper:{hash}")
}

#[test]
fn with_nothing_but_the_socket_an_update_commits_and_a_bad_one_is_undone() {
    let site = Site::new("inside");
    let fleet = ContainedFleet::new(&site.lab);
    let (code, document) = fleet.json(&["doctor"]);
    assert_eq!(code, 0, "{document}");

    let good = site.release("2", "");
    let (code, report) = fleet.update(&site.web.name, &good);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    let now = site.web.inspect_by_name();
    assert_eq!(now["Image"], site.lab.image_id(&good).as_str());
    site.check_clean();
    site.web.wait_up();
    assert_eq!(site.web.get("/version").body, "2");
    assert_eq!(site.web.rows(), ["first"]);
    let image = site.lab.image_id(&helper_image());

    // The same container and the same data, exactly, and the helper's image is used again.
    let id = now["Id"].as_str().expect("an id");
    let expect = tree::read(&site.root());
    let bad = site.release("3", "corrupt");
    let (code, report) = fleet.update(&site.web.name, &bad);
    assert_eq!(
        (code, &report["outcome"]),
        (20, &json!("rolled_back")),
        "{report}"
    );
    site.check_back(id, &expect);
    assert_eq!(site.lab.image_id(&helper_image()), image);

    // What was taken through helpers is a snapshot like any other.
    let (code, listed) = fleet.json(&["snapshot", "list"]);
    let snapshots = listed["snapshots"].as_array().expect("snapshots");
    assert!(code == 0 && !snapshots.is_empty(), "{listed}");
    for snapshot in snapshots {
        let id = snapshot["id"].as_str().expect("an id");
        assert_eq!(fleet.json(&["snapshot", "verify", id]).0, 0);
    }

    // A prune takes the image of helpers between two updates: it is made again. Another test may use it right now.
    drop(try_docker(&["rmi", &helper_image()]));
    let (code, made) = fleet.json(&["snapshot", "create", &site.web.name]);
    assert_eq!(code, 0, "{made}");
    site.check_clean();
}

/// Starts an update of `site` to `release`, kills fleet once `reached` says so, recovers, and returns what that said.
fn killed_when(
    site: &Site,
    fleet: &ContainedFleet<'_>,
    release: &str,
    reached: impl Fn() -> Result<(), String>,
) -> String {
    let args = ["update", &site.web.name, "--to", release];
    let running = fleet.start("fleet", &[], &args);
    wait_for("the moment", Duration::from_secs(60), reached);
    docker(&["kill", &running.id]);
    wait_for(
        "the end of fleet",
        Duration::from_secs(20),
        || match try_docker(&["inspect", "--format", "{{.State.Status}}", &running.id]) {
            Ok(status) => Err(status),
            Err(_) => Ok(()),
        },
    );
    let ran = fleet.run(&["recover"]);
    assert!(ran.code == 0 || ran.code == 20, "{ran:?}");
    ran.stderr
}

#[test]
fn killed_with_the_service_down_it_brings_the_old_one_back() {
    let site = Site::new("killstop");
    let fleet = ContainedFleet::new(&site.lab);
    let expect = tree::read(&site.root());
    let release = site.release("2", "");
    let told = killed_when(&site, &fleet, &release, || {
        let state = site.web.inspect()["State"].clone();
        if state["Running"] == false {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
    let now = site.web.inspect_by_name();
    if now["Id"] == site.web.id.as_str() {
        site.check_back(&site.web.id, &expect);
    } else {
        // Killed late enough, the new one had been started and was well.
        assert_eq!(now["Image"], site.lab.image_id(&release).as_str(), "{told}");
        site.check_clean();
        site.web.wait_up();
        assert_eq!(site.web.rows(), ["first"]);
    }
}

#[test]
fn killed_while_the_new_one_spoils_the_data_it_puts_them_back() {
    let site = Site::new("killgate");
    let fleet = ContainedFleet::new(&site.lab);
    let expect = tree::read(&site.root());
    let bad = site.release("2", "corrupt");
    let told = killed_when(&site, &fleet, &bad, || {
        // The new container has the name and has begun to write.
        let format = "{{.Id}} {{.State.Running}}";
        // Between two renames nobody has the name.
        let now = try_docker(&["inspect", "--format", format, &site.web.name]).unwrap_or_default();
        let other = now.ends_with(" true") && !now.starts_with(&site.web.id);
        // The guard keeps image, volume and network from a prune for as long as the old one is stopped.
        let guarded = !tools_at("guard", &site.volume).is_empty();
        if other && guarded && tree::read(&site.root()) != expect {
            Ok(())
        } else {
            Err(now)
        }
    });
    assert!(told.contains("therefore"), "{told}");
    site.check_back(&site.web.id, &expect);
}

#[test]
fn killed_in_the_middle_of_a_restore_it_restores_again() {
    let site = Site::new("killback");
    // Enough that putting it back takes a while.
    for number in 0..1000 {
        let path = site.root().join(format!("many-{number}"));
        std::fs::write(path, vec![b'x'; 4096]).expect("written");
    }
    let fleet = ContainedFleet::new(&site.lab);
    let expect = tree::read(&site.root());
    let bad = site.release("2", "corrupt");
    let failed = format!("{}.fleet-f-", site.web.name);
    let told = killed_when(&site, &fleet, &bad, || {
        // The bad one was set aside and a helper works on the volume again.
        let aside = docker(&["ps", "--all", "--format", "{{.Names}}"]);
        if aside.lines().any(|name| name.starts_with(&failed))
            && !tools_at("helper", &site.volume).is_empty()
        {
            Ok(())
        } else {
            Err(aside)
        }
    });
    assert!(told.contains("therefore"), "{told}");
    site.check_back(&site.web.id, &expect);
}

#[test]
fn fleet_does_not_update_the_container_that_it_runs_in() {
    let lab = Lab::new("own");
    let fleet = ContainedFleet::new(&lab);
    let name = lab.name("self");
    let next = lab.import("fleet:2", &Image::new("2", ""));
    let options = [
        "--name",
        &name,
        "--label",
        "fleet.enable=true",
        "--label",
        "fleet.source=local",
        "--label",
        "fleet.mode=auto",
    ];
    let json = |args: &[&str]| -> (i32, serde_json::Value) {
        let args = [&["--output", "json"], args].concat();
        let output = fleet.command(&options, &args).output();
        let ran = fleet_testkit::Ran::from(&output.expect("docker can be started"));
        let document = serde_json::from_str(&ran.stdout);
        (
            ran.code,
            document.unwrap_or_else(|error| panic!("{error}: {ran:?}")),
        )
    };
    let (code, document) = json(&["update", &name, "--to", &next]);
    let report = &document["updates"][0];
    assert_eq!(
        (code, &report["outcome"]),
        (1, &json!("refused")),
        "{report}"
    );
    assert_eq!(report["code"], "own_container", "{report}");
    // It is said beforehand, too.
    let (_, document) = json(&["explain", &name]);
    let refusals = document["instance"]["refusals"].to_string();
    assert!(refusals.contains("own_container"), "{document}");
    let (_, document) = json(&["plan", "--image", &next]);
    let refusals = document["plans"][0]["refusals"].to_string();
    assert!(refusals.contains("own_container"), "{document}");
}
