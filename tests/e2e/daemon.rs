//! `fleet serve`, and the other commands beside it.
//!
//! Labels carry a prefix of the lab's own, so that a daemon of these tests leaves alone what other tests run.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fleet_testkit::{Container, Fleet, Image, Lab, Registry, Run, docker, try_docker, wait_for};
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon's world: one instance `web` of `app:1` in a registry, updated as soon as something new is found.
pub(crate) struct World {
    lab: Lab,
    registry: Registry,
    pub(crate) fleet: Fleet,
    pub(crate) web: Container,
}

impl World {
    pub(crate) fn new(topic: &str, more: &str) -> Self {
        let lab = Lab::new(topic);
        let registry = Registry::start();
        let fleet = Fleet::new();
        fleet.configure(&format!(
            "label_prefix = \"{}.\"\n[poll]\nquiet_period = \"0s\"\n[poll.channels]\ncanary = \"10s\"\n{more}",
            lab.prefix()
        ));
        let image = push(&lab, &registry, "1", "1", "");
        docker(&["pull", "--quiet", &image]);
        let web = follow(&lab, "web", "canary")
            .volume(&lab.volume("data"), "/data")
            .start(&image);
        web.wait_up();
        Self {
            lab,
            registry,
            fleet,
            web,
        }
    }

    /// Pushes a version under a tag and gives the reference.
    pub(crate) fn push(&self, tag: &str, version: &str, mode: &str) -> String {
        push(&self.lab, &self.registry, tag, version, mode)
    }

    pub(crate) fn version(&self) -> String {
        version(&self.web)
    }

    fn is_parked(&self) -> bool {
        self.lab
            .containers()
            .iter()
            .any(|name| name.contains(".fleet-p-"))
    }

    fn wait_parked(&self) {
        wait_for("a parked container", PATIENCE, || {
            self.is_parked().then_some(()).ok_or_else(String::new)
        });
    }

    /// Waits until the new container runs beside the parked one. Killed before that, an update goes back.
    pub(crate) fn wait_started(&self) {
        self.wait_parked();
        wait_for("a new container that runs", PATIENCE, || {
            let format = "{{.State.Running}} {{.Config.Env}}";
            let seen = try_docker(&["container", "inspect", "--format", format, &self.web.name])?;
            match seen.starts_with("true") && seen.contains("APP_VERSION=2") {
                true => Ok(()),
                false => Err(seen),
            }
        });
    }

    /// Waits until the instance runs a version, alone.
    #[track_caller]
    pub(crate) fn wait_settled(&self, version: &str) {
        wait_for("an end of the update", PATIENCE, || {
            let names = self.lab.containers();
            match names == [self.web.name.clone()] && self.version() == version {
                true => Ok(()),
                false => Err(format!("{names:?}")),
            }
        });
        assert_eq!(self.web.inspect_by_name()["State"]["Running"], true);
    }

    pub(crate) fn events(&self) -> Vec<String> {
        let (_, document) = self.fleet.json(&["events"]);
        let events = document["events"].as_array().expect("a list");
        events
            .iter()
            .map(|event| event["kind"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

fn version(container: &Container) -> String {
    let found = container.inspect_by_name();
    let env = found["Config"]["Env"].as_array().expect("a list");
    let version = env
        .iter()
        .filter_map(Value::as_str)
        .find_map(|line| line.strip_prefix("APP_VERSION="));
    version.unwrap_or_default().to_owned()
}

/// A container to be, that is updated as soon as its channel has something new.
fn follow(lab: &Lab, name: &str, channel: &str) -> Run {
    let label = |name: &str| format!("{}.{name}", lab.prefix());
    lab.run(name)
        .label(&label("enable"), "true")
        .label(&label("policy"), "on-push")
        .label(&label("channel"), channel)
        .label(&label("health.path"), "/health")
        .label(&label("health.port"), "8080")
        .label(&label("health.timeout"), "30s")
        .label(&label("health.interval"), "100ms")
        .label(&label("health.min_healthy"), "0s")
}

fn push(lab: &Lab, registry: &Registry, tag: &str, version: &str, mode: &str) -> String {
    let local = lab.import(&format!("v{version}"), &Image::new(version, mode));
    let name = format!("{}:{tag}", lab.name("app"));
    registry.push(&local, &name);
    docker(&["rmi", &local]);
    registry.reference(&name)
}

#[test]
fn what_is_pushed_is_found_and_rolled_out_and_commands_work_beside_it() {
    let world = World::new("serve", "");
    let (fleet, web) = (&world.fleet, world.web.name.as_str());
    let mut serving = fleet.serve();

    let socket = fs::metadata(fleet.data_dir().join("fleet.sock")).expect("there is a socket");
    assert_eq!(socket.mode() & 0o777, 0o600);
    let second = fleet.run(&["serve"]);
    assert_eq!(second.code, 75, "{second:?}");
    assert!(second.stderr.contains("already"), "{second:?}");
    assert_eq!(fleet.ask_json("GET", "/readyz", "").0, 200);

    world.push("1", "2", "");
    world.wait_settled("2");
    let events = world.events();
    for kind in ["update.available", "rollout.completed", "update.committed"] {
        assert!(
            events.iter().any(|event| event == kind),
            "{kind}: {events:?}"
        );
    }
    let (code, ps) = fleet.json(&["ps"]);
    assert_eq!((code, &ps["instances"][0]["state"]), (0, &json!("idle")));
    assert_eq!(ps["instances"].as_array().map(Vec::len), Some(1), "{ps}");

    let three = world.push("3", "3", "");
    assert_eq!(fleet.run(&["pause", "--reason", "a test"]).code, 0);
    let (code, report) = fleet.update(web, &three, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (75, &json!("refused")),
        "{report}"
    );
    let held = fleet.run(&["rollout", "start", "--image", &three, "--wait"]);
    assert_eq!(held.code, 75, "{held:?}");
    assert_eq!(fleet.run(&["resume"]).code, 0);
    let (code, report) = fleet.update(web, &three, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
    assert_eq!(world.version(), "3");

    let bad = world.push("4", "4", "unhealthy");
    let (code, report) = fleet.update(web, &bad, &["--timeout", "2s"]);
    assert_eq!(
        (code, &report["outcome"]),
        (20, &json!("rolled_back")),
        "{report}"
    );
    assert_eq!(world.version(), "3");
    let unknown = fleet.run(&["update", "no-such-instance", "--to", &three]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown.stderr.contains("there is no instance"),
        "{unknown:?}"
    );

    let (code, tenant) = fleet.json(&["tenant", "set", web, "--mode", "auto"]);
    assert_eq!((code, &tenant["tenant"]["mode"]), (0, &json!("auto")));
    let five = world.push("5", "5", "");
    let args = [
        "rollout",
        "start",
        "--image",
        &five,
        "--override-window",
        "--wait",
    ];
    let (code, started) = fleet.json(&args);
    assert_eq!(
        (code, &started["rollout"]["committed"]),
        (0, &json!(1)),
        "{started}"
    );
    assert_eq!(world.version(), "5");
    let id = started["rollout"]["id"].as_str().expect("an id");
    let (code, shown) = fleet.json(&["rollout", "show", id]);
    assert_eq!((code, &shown["rollout"]["state"]), (0, &json!("completed")));

    http(fleet, web, id);

    let six = world.push("6", "6", "");
    let args = [
        "rollout",
        "start",
        "--image",
        &six,
        "--override-window",
        "--needs-approval",
        "--wait",
    ];
    let (code, held) = fleet.json(&args);
    assert_eq!(
        (code, &held["rollout"]["state"]),
        (75, &json!("awaiting_approval")),
        "{held}"
    );
    assert_eq!(world.version(), "5");
    let id = held["rollout"]["id"].as_str().expect("an id");
    assert_eq!(fleet.run(&["rollout", "approve", id]).code, 0);
    world.wait_settled("6");

    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    assert!(!fleet.data_dir().join("fleet.sock").exists());
    assert_eq!(fleet.run(&["check"]).code, 0);
}

/// Which channels there are is looked up every five minutes, or when the engine tells that something changed.
#[test]
fn a_container_of_another_channel_is_seen_when_it_starts() {
    let world = World::new("late", "");
    let image = world.push("late", "1", "");
    docker(&["pull", "--quiet", &image]);
    world.push("late", "2", "");
    let serving = world.fleet.serve();
    let first_look = || {
        let behind = &world.fleet.json(&["ps"]).1["instances"][0]["behind"];
        match behind.as_bool() {
            Some(_) => Ok(()),
            None => Err(serving.log()),
        }
    };
    wait_for("the first look", PATIENCE, first_look);
    let late = follow(&world.lab, "late", "stable").start(&image);
    wait_for("its update", PATIENCE, || match version(&late).as_str() {
        "2" => Ok(()),
        _ => Err(serving.log()),
    });
    drop(serving);
    assert_eq!(world.fleet.run(&["recover"]).code, 0);
}

/// What scripts that speak HTTP find.
#[track_caller]
fn http(fleet: &Fleet, web: &str, rollout: &str) {
    let get = |path: &str| {
        let (status, document) = fleet.ask_json("GET", path, "");
        assert_eq!(
            (status, &document["schema"]),
            (200, &json!(1)),
            "{path}: {document}"
        );
        document
    };
    assert_eq!(get("/api/v1/summary")["summary"]["instances"], 1);
    assert_eq!(get("/api/v1/instances")["instances"][0]["name"], web);
    assert_eq!(
        get(&format!("/api/v1/instances/{web}"))["instance"]["name"],
        web
    );
    let plain = get(&format!("/api/v1/instances/{web}/explain"));
    assert!(plain["instance"]["spec"].is_null(), "{plain}");
    let explained = get(&format!("/api/v1/instances/{web}/explain?spec=true"));
    let (_, by_command) = fleet.json(&["explain", web, "--spec"]);
    assert_eq!(
        explained["instance"]["spec"],
        by_command["instance"]["spec"]
    );
    assert!(!explained["instance"]["spec"].is_null(), "{explained}");
    assert_eq!(get("/api/v1/rollouts")["rollouts"][0]["id"], rollout);
    get(&format!("/api/v1/rollouts/{rollout}"));
    get("/api/v1/plan");
    same_plan_by_http_and_by_command(fleet, web);
    let watched = get(&format!("/api/v1/rollouts/{rollout}/watch"));
    assert_eq!(watched["rollout"]["state"], "completed");
    let (code, watched) = fleet.json(&["rollout", "show", rollout, "--watch"]);
    assert_eq!((code, &watched["rollout"]["id"]), (0, &json!(rollout)));
    get("/api/v1/tenants");
    assert_eq!(
        get(&format!("/api/v1/tenants/{web}/config"))["tenant"]["mode"],
        "auto"
    );
    get("/api/v1/settings");
    get("/api/v1/snapshots");
    let page = get("/api/v1/events?after=2&limit=1");
    assert_eq!(page["events"][0]["sequence"], 3);
    let (status, set) = fleet.ask_json("PUT", "/api/v1/settings", r#"{"default.pause":"1s"}"#);
    assert_eq!(
        (status, &set["settings"]["values"]["default.pause"]),
        (200, &json!("1s"))
    );

    for (method, path, body, status, code) in [
        ("POST", "/api/v1/pause", "{", 400, "bad_request"),
        ("POST", "/api/v1/pause", "{}", 400, "bad_request"),
        (
            "PUT",
            "/api/v1/settings",
            r#"{"mode":"perhaps"}"#,
            422,
            "invalid",
        ),
        (
            "GET",
            "/api/v1/instances/nobody",
            "",
            404,
            "unknown_instance",
        ),
        ("GET", "/api/v1/nothing", "", 404, "no_such_route"),
        ("DELETE", "/api/v1/summary", "", 405, "wrong_method"),
        (
            "POST",
            &format!("/api/v1/rollouts/{rollout}/pause"),
            "",
            409,
            "illegal_transition",
        ),
    ] {
        let (found, problem) = fleet.ask_json(method, path, body);
        assert_eq!(
            (found, &problem["code"]),
            (status, &json!(code)),
            "{method} {path}: {problem}"
        );
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }
    let huge = format!("{{\"reason\":\"{}\"}}", "x".repeat(100_000));
    let refused = fleet.ask("POST", "/api/v1/pause", &huge);
    assert!(matches!(refused, Some((413, _)) | None), "{refused:?}");
    assert!(get("/api/v1/settings")["settings"]["pause"].is_null());
}

/// Whatever `plan` is asked for, the answer is the same over HTTP.
#[track_caller]
fn same_plan_by_http_and_by_command(fleet: &Fleet, web: &str) {
    let (_, instance) = fleet.json(&["explain", web]);
    let running = instance["instance"]["image"].as_str().expect("an image");
    let (repository, _) = running.rsplit_once(':').expect("a tag");
    let image = format!("{repository}:3");
    let args = [
        "plan",
        "--image",
        &image,
        "--strategy",
        "rolling",
        "--batch-count",
        "1",
        "--pause",
        "90s",
        "--max-concurrent",
        "2",
        "--abort-on-failures",
        "1",
        "--tenant",
        web,
        "--override-window",
    ];
    let (code, by_command) = fleet.json(&args);
    assert_eq!(code, 0, "{by_command}");
    let query = format!(
        "/api/v1/plan?image={image}&strategy=rolling&batch_count=1&pause=90s&max_concurrent=2\
         &abort_on_failures=1&tenant={web}&override_window=true"
    );
    let (status, by_http) = fleet.ask_json("GET", &query, "");
    assert_eq!(status, 200, "{by_http}");
    let of = |document: &Value| {
        let mut plan = document["plans"][0].clone();
        assert_eq!(plan["members"].as_array().map(Vec::len), Some(1), "{plan}");
        assert!(plan["disk"]["needed_bytes"].as_u64() > Some(0), "{plan}");
        // What differs from one moment to the next, and who asked.
        plan["planned_at"].take();
        for field in ["id", "actor"] {
            plan["request"][field].take();
        }
        plan["disk"]["free_bytes"].take();
        plan["members"][0]["estimate_secs"].take();
        plan
    };
    assert_eq!(of(&by_http), of(&by_command));
}

#[test]
fn a_stop_in_mid_update_ends_in_time_and_the_next_start_finishes_it() {
    let world = World::new("term", "[daemon]\nstop_timeout = \"1s\"\n");
    let two = world.push("2", "2", "slow:6000");
    let mut serving = world.fleet.serve();
    let update = ["--output", "json", "update", &world.web.name, "--to", &two];
    let client = world
        .fleet
        .command(&update)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fleet can be started");
    world.wait_started();
    let asked = Instant::now();
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    let told = client.wait_with_output().expect("it ends");
    assert_eq!(told.status.code(), Some(75), "{told:?}");
    let document: Value = serde_json::from_slice(&told.stdout).expect("JSON, whatever happens");
    assert_eq!(document["updates"][0]["instance"], world.web.name);
    assert!(document["updates"][0]["outcome"].is_null(), "{document}");
    assert!(world.is_parked());

    let serving = world.fleet.serve();
    world.wait_settled("2");
    assert!(serving.log().contains("therefore"), "{}", serving.log());
    assert!(world.events().contains(&"update.committed".to_owned()));
}

#[test]
fn a_killed_daemon_leaves_a_socket_that_stops_nobody_and_an_update_that_is_recovered() {
    let world = World::new("kill9", "");
    let two = world.push("2", "2", "slow:3000");
    let fleet = &world.fleet;
    let mut serving = fleet.serve();
    // Detection does not know of this tag: the update is the client's.
    let mut client = fleet
        .command(&["update", &world.web.name, "--to", &two])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("fleet can be started");
    world.wait_started();
    serving.signal("KILL");
    assert_eq!(serving.wait(), None);
    let left = client.wait().expect("it ends");
    assert_eq!(left.code(), Some(1));
    assert!(fleet.data_dir().join("fleet.sock").exists());
    assert_eq!(fleet.run(&["settings", "set", "default.pause=1s"]).code, 0);

    let serving = fleet.serve();
    world.wait_settled("2");
    assert!(serving.log().contains("therefore"), "{}", serving.log());
}

#[test]
fn a_client_that_goes_away_does_not_stop_the_update_that_it_asked_for() {
    let world = World::new("client", "");
    let two = world.push("2", "2", "slow:2000");
    let _serving = world.fleet.serve();
    let mut client = world
        .fleet
        .command(&["update", &world.web.name, "--to", &two])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("fleet can be started");
    world.wait_parked();
    client.kill().expect("it can be killed");
    client.wait().expect("it ends");
    world.wait_settled("2");
    let events = world.events();
    assert!(
        events.contains(&"update.committed".to_owned()),
        "{events:?}"
    );
    assert!(
        !events.contains(&"instance.recovered".to_owned()),
        "{events:?}"
    );
}
