//! Everything that does not run is pruned while fleet, itself a container, is in the middle of an update.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use fleet_core::update::{Direction, Step};
use fleet_testkit::{ContainedFleet, PrivateEngine, try_docker, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::contained::Site;
use crate::tree;

/// Longer than any single wait takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// On an engine of its own and a thread of its own, which never leaves that engine's network.
fn on_private_engine(work: impl FnOnce(&PrivateEngine) + Send) {
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let engine = PrivateEngine::start(false);
            engine.enter();
            work(&engine);
        });
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// An update by a fleet in a container that stands still at every crash point.
struct Halting {
    name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Halting {
    fn start(site: &Site, fleet: &ContainedFleet<'_>, release: &str) -> Self {
        let name = site.lab.name("fleet");
        // The first process of a namespace is not stopped by itself, so it has the host's.
        let options = ["--name", &name, "--pid", "host"];
        let points = [
            "--env",
            "FLEET_PAUSE_AT=*",
            "--env",
            "FLEET_CRASH_LOG=/data/points",
        ];
        let log = fleet.data_dir().join("points");
        let args = [
            "--output",
            "json",
            "update",
            &site.web.name,
            "--to",
            release,
        ];
        let mut command = fleet.command(&[&options[..], &points[..]].concat(), &args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self {
            name,
            child: command.spawn().expect("docker can be started"),
            log,
        }
    }

    /// Its process on the host, if it runs.
    fn pid(&self) -> Option<Pid> {
        let format = "{{.State.Pid}}";
        let pid = try_docker(&["inspect", "--format", format, &self.name]).ok()?;
        Pid::from_raw(pid.parse().ok()?)
    }

    /// Waits until it stands still; gives the process and the point, or none if it ended instead.
    #[track_caller]
    fn wait(&mut self) -> Option<(Pid, String)> {
        wait_for("the next pause", PATIENCE, || {
            let over = self.child.try_wait().expect("a child can be waited for");
            if over.is_some() {
                return Ok(None);
            }
            let pid = self.pid().ok_or("it does not run yet")?;
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            let stat = stat.unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            if !state.starts_with('T') {
                return Err(format!("it runs: {state}"));
            }
            let points = fs::read_to_string(&self.log).map_err(|error| error.to_string())?;
            let point = points.lines().next_back().unwrap_or_default();
            Ok(Some((pid, point.to_owned())))
        })
    }

    /// The report of an update that ended.
    #[track_caller]
    fn report(self) -> Value {
        let output = self.child.wait_with_output().expect("it ended");
        fs::remove_file(&self.log).expect("points were passed");
        let text = String::from_utf8_lossy(&output.stdout);
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        let report = document["updates"][0].clone();
        assert!(report.is_object(), "{output:?}");
        report
    }
}

/// The step of a crash point.
fn step(point: &str) -> Step {
    let label = point.split('.').next().unwrap_or_default();
    let found = Step::ALL.iter().find(|step| step.label() == label);
    *found.expect("a step that is known")
}

fn place(wanted: Step) -> Option<usize> {
    Step::ALL.iter().position(|step| *step == wanted)
}

/// Once the guard runs, nothing that is needed for the way back may be lost.
fn guarded(step: Step) -> bool {
    place(step) > place(Step::Guard)
}

/// The new one runs, or it is on the way back.
fn started(step: Step) -> bool {
    place(step) > place(Step::Start)
}

/// An update in which everything is pruned at every point of some steps, and how it has to end.
#[track_caller]
fn told(
    engine: &PrivateEngine,
    site: &Site,
    fleet: &ContainedFleet<'_>,
    release: &str,
    prune_in: impl Fn(Step) -> bool,
    expect: &str,
) {
    let before = site.web.inspect_by_name();
    let data = tree::read(&site.root());
    let target = site.lab.image_id(release);
    let mut halting = Halting::start(site, fleet, release);
    let mut prunes = 0;
    while let Some((pid, point)) = halting.wait() {
        if prune_in(step(&point)) {
            engine.prune();
            prunes += 1;
        }
        kill_process(pid, Signal::CONT).expect("it can be signalled");
    }
    let report = halting.report();
    assert_eq!(report["outcome"], expect, "{report}");
    assert!(prunes > 10, "only {prunes} prunes");
    println!("{release}: {expect}, {prunes} prunes");
    let now = site.web.inspect_by_name();
    let image = match expect {
        "committed" => json!(target),
        _ => before["Image"].clone(),
    };
    assert_eq!(now["Image"], image);
    assert_eq!(now["State"]["Running"], true);
    for field in ["RestartPolicy", "Binds", "NetworkMode"] {
        let of = |container: &Value| {
            // Where fleet does not see a volume it takes it for empty, and lets nothing be copied into it.
            let text = container["HostConfig"][field].to_string();
            text.replace(":nocopy", "")
        };
        assert_eq!(of(&now), of(&before), "{field}");
    }
    site.web.wait_up();
    assert_eq!(site.web.rows(), ["first"]);
    tree::assert_same(&data, &tree::read(&site.root()));
    site.check_clean();
}

#[test]
fn a_prune_at_every_point_takes_nothing_from_a_fleet_in_a_container() {
    on_private_engine(|engine| {
        let site = Site::new("pruned");
        let fleet = ContainedFleet::that_dies(&site.lab);
        // Before its start the new one does not run: a prune takes it, and the update goes back.
        let good = site.release("2", "");
        told(engine, &site, &fleet, &good, guarded, "rolled_back");
        let bad = site.release("bad", "corrupt");
        let back = |step: Step| step.direction() == Direction::Back || started(step);
        // What did not run when the former update ended is gone, fleet's own image as well.
        let fleet = ContainedFleet::that_dies(&site.lab);
        told(engine, &site, &fleet, &bad, back, "rolled_back");
        let good = site.release("3", "");
        let fleet = ContainedFleet::that_dies(&site.lab);
        told(engine, &site, &fleet, &good, started, "committed");
    });
}
