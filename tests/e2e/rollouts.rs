//! Rollouts over twelve tenants with a container and a volume each: a good release, a bad one, and a fleet that is
//! killed.

use std::process::{Child, Stdio};
use std::time::Duration;

use fleet_testkit::{Container, Fleet, Image, Lab, docker, wait_for};
use serde_json::{Value, json};

const TENANTS: usize = 12;
/// A third of twelve: three waves of four.
const WAVES_OF_FOUR: &[&str] = &["--strategy", "rolling", "--batch-percent", "33"];

/// Twelve tenants, and a fleet that sees them and nobody else's instances on this engine.
struct Stage {
    lab: Lab,
    fleet: Fleet,
    tenants: Vec<Container>,
    /// When each container was started, by the engine's word.
    started: Vec<Value>,
}

impl Stage {
    fn new(topic: &str) -> Self {
        Self::of(topic, TENANTS)
    }

    fn of(topic: &str, tenants: usize) -> Self {
        let lab = Lab::new(topic);
        let prefix = format!("{}.", lab.prefix());
        let fleet = Fleet::new().configured(&format!("label_prefix = \"{prefix}\"\n"));
        let old = lab.import("app:1", &Image::new("1", ""));
        let tenants: Vec<_> = (1..=tenants)
            .map(|number| {
                let name = format!("t{number:02}");
                let run = lab.run(&name).managed_under(&prefix);
                run.label(&format!("{prefix}tenant"), &name)
                    .label(&format!("{prefix}mode"), "auto")
                    .label(&format!("{prefix}health.timeout"), "5s")
                    .volume(&lab.volume(&name), "/data")
                    .start(&old)
            })
            .collect();
        for tenant in &tenants {
            tenant.wait_up();
            tenant.put(&tenant.name);
        }
        let started = tenants.iter().map(started_at).collect();
        Self {
            lab,
            fleet,
            tenants,
            started,
        }
    }

    /// Arguments of `rollout start` for a release.
    fn start<'a>(image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let how = WAVES_OF_FOUR.iter().chain(more).copied();
        ["rollout", "start", "--image", image, "--wait"]
            .into_iter()
            .chain(how)
            .collect()
    }

    /// A plan says what twelve snapshots need, and those of a wave of four, and leaves everything as it is.
    #[track_caller]
    fn check_disk_of_plan(&self, image: &str) {
        let args: Vec<_> = ["plan", "--image", image]
            .iter()
            .chain(WAVES_OF_FOUR)
            .copied()
            .collect();
        let (code, document) = self.fleet.json(&args);
        assert_eq!(code, 0, "{document}");
        let disk = &document["plans"][0]["disk"];
        let bytes = |name: &str| disk[name].as_u64().expect("a number");
        let (needed, at_once) = (bytes("needed_bytes"), bytes("at_once_bytes"));
        assert!(at_once > 0, "{disk}");
        // All volumes are alike.
        assert!(at_once * 3 >= needed && at_once * 2 < needed, "{disk}");
        assert!(
            bytes("free_bytes") > needed && bytes("reserve_bytes") > 0,
            "{disk}"
        );
        let shown = self.fleet.run(&args);
        assert!(shown.stdout.contains("snapshots need at most"), "{shown:?}");
        let started: Vec<Value> = self.tenants.iter().map(started_at).collect();
        assert_eq!(started, self.started);
    }

    /// The newest rollout, once there is one.
    fn newest(&self) -> Option<Value> {
        if !self.fleet.data_dir().join("fleet.db").exists() {
            return None;
        }
        let (_, document) = self.fleet.json(&["rollout", "list"]);
        document["rollouts"].get(0).cloned()
    }

    /// The events, without those of single steps.
    fn events(&self) -> Vec<Value> {
        let (code, document) = self.fleet.json(&["events"]);
        assert_eq!(code, 0, "{document}");
        let events = document["events"].as_array().expect("events").iter();
        events
            .filter(|event| event["kind"] != "update.step")
            .cloned()
            .collect()
    }

    fn tenant(&self, instance: &str) -> usize {
        let mut names = self.tenants.iter().map(|tenant| tenant.name.as_str());
        names
            .position(|name| name == instance)
            .unwrap_or_else(|| panic!("{instance} is none of ours"))
    }

    /// Every instance runs version 2 on its own volume, and nothing is left of how it came to that.
    fn check_all_run_the_release(&self, image: &str) {
        let id = json!(self.lab.image_id(image));
        for tenant in &self.tenants {
            assert_eq!(tenant.inspect_by_name()["Image"], id, "{}", tenant.name);
            tenant.wait_up();
            assert_eq!(tenant.get("/version").body, "2", "{}", tenant.name);
            assert_eq!(tenant.rows(), [tenant.name.clone()]);
        }
        let mut names: Vec<_> = self.tenants.iter().map(|tenant| &tenant.name).collect();
        names.sort();
        assert_eq!(self.lab.containers().iter().collect::<Vec<_>>(), names);
        assert_eq!(self.lab.foreign_tags(), Vec::<String>::new());
        self.check_no_guard_is_left();
    }

    /// The guards that held several instances of the newest rollout are gone.
    #[track_caller]
    fn check_no_guard_is_left(&self) {
        let rollout = self.newest().expect("a rollout");
        let id = rollout["id"].as_str().expect("an id");
        let label = format!("label=io.fleet.rollout={id}");
        let left = docker(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"]);
        assert_eq!(left, "");
    }
}

fn started_at(container: &Container) -> Value {
    container.inspect()["State"]["StartedAt"].clone()
}

#[track_caller]
fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["kind"] == kind)
        .collect()
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_u64().expect("a number")
}

/// The instances of a wave, numbered from 1.
fn wave(rollout: &Value, number: u64) -> Vec<String> {
    let instances = rollout["instances"].as_array().expect("instances").iter();
    instances
        .filter(|member| member["wave"] == number)
        .map(|member| member["instance"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn a_good_release_reaches_twelve_tenants_in_three_waves() {
    let stage = Stage::new("waves");
    let new = stage.lab.import("app:2", &Image::new("2", ""));
    stage.check_disk_of_plan(&new);
    let (code, document) = stage.fleet.json(&Stage::start(&new, &["--pause", "1s"]));
    let rollout = &document["rollout"];
    assert_eq!(
        (code, &rollout["state"]),
        (0, &json!("completed")),
        "{document}"
    );
    assert_eq!(
        [
            "total",
            "committed",
            "rolled_back",
            "needs_operator",
            "pending"
        ]
        .map(|key| &rollout[key]),
        [12, 12, 0, 0, 0].map(|count| json!(count)).each_ref()
    );
    let waves = rollout["waves"].as_array().expect("waves");
    let seen: Vec<_> = waves
        .iter()
        .map(|wave| (&wave["state"], &wave["total"], &wave["committed"]))
        .collect();
    assert_eq!(seen, vec![(&json!("passed"), &json!(4), &json!(4)); 3]);
    stage.check_all_run_the_release(&new);

    // Each wave begins after the one before it ended, and only its own instances are updated in it.
    let events = stage.events();
    let opened = of_kind(&events, "rollout.wave_opened");
    let passed = of_kind(&events, "rollout.wave_passed");
    assert_eq!((opened.len(), passed.len()), (3, 3), "{events:?}");
    for (number, (opened, passed)) in (1..).zip(opened.iter().zip(&passed)) {
        let during = sequence(opened)..sequence(passed);
        let members = wave(rollout, number);
        for kind in ["update.started", "update.committed"] {
            let mut found: Vec<_> = of_kind(&events, kind)
                .into_iter()
                .filter(|event| during.contains(&sequence(event)))
                .map(|event| event["instance"].as_str().expect("a name").to_owned())
                .collect();
            found.sort();
            let mut members = members.clone();
            members.sort();
            assert_eq!(found, members, "{kind} in wave {number}");
        }
    }
    assert!(
        opened
            .windows(2)
            .zip(&passed)
            .all(|(pair, passed)| sequence(passed) < sequence(pair[1])),
        "{events:?}"
    );
    assert_eq!(of_kind(&events, "rollout.completed").len(), 1);

    let id = rollout["id"].as_str().expect("an id");
    let (code, watched) = stage.fleet.json(&["rollout", "show", id, "--watch"]);
    assert_eq!((code, &watched["rollout"]), (0, rollout));

    // The same again has nothing to do.
    let (code, document) = stage.fleet.json(&Stage::start(&new, &[]));
    assert_eq!(
        (code, &document["rollout"]["total"]),
        (0, &json!(0)),
        "{document}"
    );
}

#[test]
fn a_bad_release_stops_in_the_first_wave_after_as_many_failures_as_may_be() {
    let stage = Stage::new("stops");
    let bad = stage.lab.import("app:2", &Image::new("2", "corrupt"));
    let more = [
        "--abort-on-failures",
        "2",
        "--max-concurrent",
        "4",
        "--pause",
        "1s",
    ];
    let (code, document) = stage.fleet.json(&Stage::start(&bad, &more));
    let rollout = &document["rollout"];
    assert_eq!(
        (code, &rollout["state"]),
        (20, &json!("aborted")),
        "{document}"
    );
    assert_eq!(
        [
            "total",
            "committed",
            "rolled_back",
            "needs_operator",
            "failures"
        ]
        .map(|key| &rollout[key]),
        [12, 0, 2, 0, 2].map(|count| json!(count)).each_ref(),
        "{document}"
    );
    let instances = rollout["instances"].as_array().expect("instances");
    let hit: Vec<usize> = instances
        .iter()
        .filter(|member| member["state"] == "rolled_back")
        .map(|member| {
            assert_eq!(member["wave"], 1, "{member}");
            stage.tenant(member["instance"].as_str().expect("a name"))
        })
        .collect();
    assert_eq!(hit.len(), 2);
    for (number, tenant) in stage.tenants.iter().enumerate() {
        // The same container in any case; only those that were tried have been stopped.
        let touched = started_at(tenant) != stage.started[number];
        assert_eq!(touched, hit.contains(&number), "{}", tenant.name);
        assert_eq!(tenant.inspect()["Name"], json!(format!("/{}", tenant.name)));
        tenant.wait_up();
        assert_eq!(tenant.get("/version").body, "1");
        assert_eq!(tenant.rows(), [tenant.name.clone()]);
    }
    let events = stage.events();
    assert_eq!(of_kind(&events, "update.started").len(), 2, "{events:?}");
    assert_eq!(of_kind(&events, "update.rolled_back").len(), 2);
    assert_eq!(of_kind(&events, "rollout.wave_opened").len(), 1);
    assert_eq!(of_kind(&events, "rollout.aborted").len(), 1);
    // Nothing of it is left for a later cycle.
    let (code, cycle) = stage.fleet.json(&["run", "--once"]);
    assert_eq!(code, 0, "{cycle}");
    assert_eq!(of_kind(&stage.events(), "update.started").len(), 2);
}

/// A command in the background; killed when dropped.
struct Running(Child);

impl Running {
    fn start(fleet: &Fleet, args: &[&str]) -> Self {
        let mut command = fleet.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("fleet can be started"))
    }

    /// `kill -9`. It must not have ended by itself.
    fn kill(mut self) {
        let ended = self.0.try_wait().expect("it can be asked");
        assert!(
            ended.is_none(),
            "it had ended before it was killed: {ended:?}"
        );
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_fleet_killed_in_a_wave_and_between_two_goes_on_where_it_was() {
    let stage = Stage::new("killed");
    // Slow to come up, so that there is a moment in which to be killed.
    let new = stage.lab.import("app:2", &Image::new("2", "slow:1500"));
    let running = Running::start(&stage.fleet, &Stage::start(&new, &["--pause", "6s"]));
    let wave_is = |number: usize, state: &'static str| {
        move |rollout: &Value| rollout["waves"][number - 1]["state"] == state
    };
    let see = |what: &str, seen: &dyn Fn(&Value) -> bool| -> Value {
        wait_for(what, Duration::from_secs(90), || {
            let rollout = stage.newest().ok_or("there is no rollout")?;
            if seen(&rollout) {
                Ok(rollout)
            } else {
                Err(rollout["waves"].to_string())
            }
        })
    };
    let cycle = || {
        let (code, document) = stage.fleet.json(&["run", "--once"]);
        assert_eq!(code, 0, "{document}");
    };

    // In the middle of the first wave: updates are open, and somebody's old container is stopped.
    see("an update in the first wave", &|rollout| {
        rollout["waves"][0]["in_flight"].as_u64() > Some(0)
    });
    wait_for(
        "a container that is parked",
        Duration::from_secs(60),
        || {
            let names = stage.lab.containers();
            let parked = names.iter().any(|name| name.contains(".fleet-p-"));
            if parked {
                Ok(())
            } else {
                Err(format!("{names:?}"))
            }
        },
    );
    running.kill();
    let id = stage.newest().expect("a rollout")["id"].clone();
    cycle();
    see("the first wave's end", &wave_is(1, "passed"));

    // Between two waves: the second one waits for its pause to pass.
    let running = Running::start(
        &stage.fleet,
        &["rollout", "resume", id.as_str().expect("an id")],
    );
    see("the second wave's end", &wave_is(2, "passed"));
    running.kill();
    let between = stage.newest().expect("a rollout");
    assert_eq!(between["committed"], 8, "{between}");
    let rollout = wait_for("the rollout's end", Duration::from_secs(90), || {
        cycle();
        let rollout = stage.newest().ok_or("there is no rollout")?;
        if rollout["state"] == "completed" {
            Ok(rollout)
        } else {
            Err(rollout["waves"].to_string())
        }
    });
    assert_eq!((&rollout["id"], &rollout["committed"]), (&id, &json!(12)));
    stage.check_all_run_the_release(&new);

    // Each instance was updated once, by one rollout.
    let events = stage.events();
    assert_eq!(of_kind(&events, "rollout.planned").len(), 1);
    let mut committed: Vec<_> = of_kind(&events, "update.committed")
        .iter()
        .map(|event| event["instance"].to_string())
        .collect();
    committed.sort();
    let all = committed.len();
    committed.dedup();
    assert_eq!((all, committed.len()), (12, 12), "{committed:?}");
    assert_eq!(of_kind(&events, "rollout.wave_passed").len(), 3);
}

/// One of several steps with a rollout, by hand.
#[track_caller]
fn steer(stage: &Stage, args: &[&str], expect: i32) -> Value {
    let mut all = vec!["rollout"];
    all.extend(args);
    let (code, document) = stage.fleet.json(&all);
    assert_eq!(code, expect, "{args:?}: {document}");
    document["rollout"].clone()
}

fn id_of(rollout: &Value) -> &str {
    rollout["id"].as_str().expect("an id")
}

/// The rollout once it is in a state; beside a daemon a command does not wait for that.
#[track_caller]
fn once(stage: &Stage, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, Duration::from_secs(60), || {
        let (_, document) = stage.fleet.json(&["rollout", "show", id]);
        let rollout = document["rollout"].clone();
        match is_so(&rollout) {
            true => Ok(rollout),
            false => Err(rollout.to_string()),
        }
    })
}

fn state_of<'a>(rollout: &'a Value, instance: &str) -> &'a Value {
    let mut instances = rollout["instances"].as_array().expect("instances").iter();
    let found = instances.find(|member| member["instance"] == instance);
    &found.expect("it is one of them")["state"]
}

/// Deny, promote, exclude and retry-failed, each by its command.
fn steer_by_hand(stage: &Stage) {
    let good = stage.lab.import("app:2", &Image::new("2", ""));
    let start = |image: &str, more: &[&str], expect| {
        let mut args = vec!["start", "--image", image, "--wait"];
        args.extend(more);
        steer(stage, &args, expect)
    };

    // No: nobody is touched.
    let asked = start(&good, &["--needs-approval"], 75);
    assert_eq!(asked["state"], "awaiting_approval", "{asked}");
    let denied = steer(stage, &["deny", id_of(&asked), "--reason", "not today"], 0);
    assert_eq!(denied["state"], "cancelled", "{denied}");
    let started: Vec<Value> = stage.tenants.iter().map(started_at).collect();
    assert_eq!(started, stage.started);

    // One; one is taken out; a person lets the next one go.
    let first = start(&good, &["--strategy", "single"], 75);
    assert_eq!(
        (&first["total"], &first["committed"]),
        (&json!(3), &json!(1))
    );
    let queued = |rollout: &Value| -> Vec<String> {
        let names = stage.tenants.iter().map(|tenant| tenant.name.clone());
        names
            .filter(|name| state_of(rollout, name) == "queued")
            .collect()
    };
    let out = queued(&first).remove(0);
    let excluded = steer(stage, &["exclude", id_of(&first), &out], 0);
    assert_eq!(state_of(&excluded, &out), "excluded");
    steer(stage, &["promote", id_of(&first)], 0);
    let done = once(stage, id_of(&first), "its end", |rollout| {
        rollout["state"] == "completed"
    });
    assert_eq!(done["committed"], 2, "{done}");
    let check_versions = || {
        for tenant in &stage.tenants {
            tenant.wait_up();
            let expect = match tenant.name == out {
                true => "1",
                false => "2",
            };
            assert_eq!(tenant.get("/version").body, expect, "{}", tenant.name);
        }
    };
    check_versions();

    // What failed is tried again, and nothing else: its quarantine is lifted for that.
    let bad = stage.lab.import("app:3", &Image::new("3", "corrupt"));
    let failed = start(&bad, &["--abort-on-failures", "1"], 20);
    assert_eq!(
        (&failed["state"], &failed["rolled_back"]),
        (&json!("aborted"), &json!(1)),
        "{failed}"
    );
    let names = stage.tenants.iter().map(|tenant| tenant.name.as_str());
    let hit: Vec<&str> = names
        .filter(|name| state_of(&failed, name) == "rolled_back")
        .collect();
    let (_, document) = stage
        .fleet
        .json(&["rollout", "retry-failed", id_of(&failed)]);
    let again = &document["rollout"];
    let ended = once(stage, id_of(again), "its end", |rollout| {
        rollout["state"] == "aborted"
    });
    assert_eq!(
        (&ended["total"], &ended["rolled_back"]),
        (&json!(1), &json!(1)),
        "{ended}"
    );
    assert_eq!(state_of(&ended, hit[0]), "rolled_back");
    check_versions();
    for tenant in &stage.tenants {
        assert_eq!(tenant.rows(), [tenant.name.clone()]);
    }
}

#[test]
fn a_person_says_no_lets_one_go_takes_one_out_and_tries_again() {
    steer_by_hand(&Stage::of("steered", 3));
}

#[test]
fn a_person_steers_beside_a_daemon_too() {
    let stage = Stage::of("socket", 3);
    let _serving = stage.fleet.serve();
    steer_by_hand(&stage);
}
