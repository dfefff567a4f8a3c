//! One instance with its data, its releases and a client that writes: many updates of it, each disturbed in its own way.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fleet_testkit::{Container, Fleet, Image, Lab, try_docker, wait_for};
use serde_json::{Value, json};

use crate::told::{Told, outcome_of_update, recover};
use crate::writer::{Ack, Writer};

/// What SIGABRT and SIGKILL are as numbers.
const ABORT: i32 = 6;
const KILL: i32 = 9;
/// Longer than any single wait takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an update moves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Release {
    /// One that is well: the update commits if nothing stops it.
    Good,
    /// One that ruins the data and is never well: the update goes back.
    Bad,
}

/// An instance and everything around it. What it made on the engine is removed when it goes.
pub(crate) struct Lane {
    pub(crate) fleet: Fleet,
    container: Container,
    writer: Writer,
    /// Folder in which two programs that run at a time betray themselves, and where crash points are noted.
    folder: tempfile::TempDir,
    volume: String,
    policy: &'static str,
    /// Which of the two good releases runs.
    running: usize,
    /// Rows answered by versions that stayed.
    kept: Vec<Ack>,
    lab: Lab,
}

/// What is looked at before an update, to be compared after it.
struct Before {
    container: Value,
    /// Image id of the target.
    target: String,
}

impl Lane {
    /// An instance on the engine that this thread uses.
    pub(crate) fn new(topic: &str, policy: &'static str) -> Self {
        let lab = Lab::new(topic);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (subnet, address) = addresses();
        let network = lab.network("net", &["--subnet", &subnet]);
        let volume = lab.volume("data");
        let mut lane = Self {
            fleet: Fleet::that_dies(),
            container: Container {
                id: String::new(),
                name: lab.name("web"),
            },
            writer: Writer::new(SocketAddr::from((address, 8080))),
            folder,
            volume,
            policy,
            running: 0,
            kept: Vec::new(),
            lab,
        };
        lane.load_releases();
        let lock = format!("{}:/lock", lane.folder.path().display());
        lane.container = lane
            .lab
            .run("web")
            .managed()
            .label("fleet.health.interval", "50ms")
            .label("fleet.hook.pre_update", "[\"/app\",\"probe\"]")
            .label("fleet.hook.post_update", "[\"/app\",\"probe\"]")
            .volume(&lane.volume, "/data")
            .options(&["--volume", &lock, "--restart", policy])
            .options(&["--network", &network, "--ip", &address.to_string()])
            .start(&lane.good(0));
        lane.container.wait_up();
        lane
    }

    /// Imports the releases that the engine does not have: a prune takes those that nothing runs.
    fn load_releases(&self) {
        for (tag, version, mode) in [
            ("g0", "g0", ""),
            ("g1", "g1", ""),
            ("bad", "bad", "corrupt"),
        ] {
            let reference = self.lab.name(&format!("app:{tag}"));
            if try_docker(&["image", "inspect", &reference]).is_err() {
                let image = Image::new(version, mode).env("APP_LOCK", "/lock");
                self.lab.import(&format!("app:{tag}"), &image);
            }
        }
    }

    fn good(&self, which: usize) -> String {
        self.lab.name(&format!("app:g{which}"))
    }

    /// The reference and the version that an update goes to.
    fn target(&self, release: Release) -> (String, String) {
        match release {
            Release::Good => {
                let which = 1 - self.running;
                (self.good(which), format!("g{which}"))
            }
            Release::Bad => (self.lab.name("app:bad"), "bad".to_owned()),
        }
    }

    /// One update, told by `story`, which is handed the command that begins it and says how it ended; then everything is
    /// compared. Gives the outcome.
    #[track_caller]
    pub(crate) fn tell(
        &mut self,
        name: &str,
        release: Release,
        story: impl FnOnce(&Self, Command) -> Told,
    ) -> String {
        self.load_releases();
        let (reference, version) = self.target(release);
        let before = Before {
            container: self.container.inspect_by_name(),
            target: self.lab.image_id(&reference),
        };
        let this = &*self;
        let (told, answered) = self.writer.during(|| {
            this.wait_for_writes(name, 3);
            let told = story(this, this.update(release, &reference));
            if !told.asks() {
                this.wait_for_writes(name, this.writer.count() + 1);
            }
            told
        });
        if told.asks() {
            return self.frozen(name, told);
        }
        let outcome = self.compare(name, &before, &told);
        self.compare_data(name, &outcome, &version, answered);
        if outcome == "committed" {
            self.running = 1 - self.running;
        }
        outcome
    }

    fn update(&self, release: Release, reference: &str) -> Command {
        let mut args = vec!["--output", "json", "update", &self.container.name];
        args.extend(["--to", reference]);
        if release == Release::Bad {
            // It fails every time, and is quarantined; its gate need not wait long.
            args.extend(["--retry", "--timeout", "1s"]);
        }
        let mut command = self.fleet.command(&args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn wait_for_writes(&self, name: &str, count: usize) {
        let what = format!("{name}: a write that is answered");
        wait_for(&what, PATIENCE, || {
            if self.writer.count() >= count {
                return Ok(());
            }
            let seen = try_docker(&[
                "ps",
                "--all",
                "--filter",
                &format!("volume={}", self.volume),
            ]);
            Err(format!("{seen:?}"))
        });
    }

    /// A person is asked: only where the engine itself lost sight of a process, and never with two versions running.
    #[track_caller]
    fn frozen(&self, name: &str, told: Told) -> String {
        self.never_two(name);
        let said = self.fleet.run(&["ps"]);
        assert!(told.blows.restarted, "{name}: {told:?}, {said:?}");
        println!("{name}: a person is asked");
        told.outcome.unwrap_or_default()
    }

    #[track_caller]
    fn never_two(&self, name: &str) {
        let overlaps = fs::read_to_string(self.folder.path().join("overlaps"));
        assert!(overlaps.is_err(), "{name}: two versions ran: {overlaps:?}");
    }

    /// Containers, policy, name, images, tags: as they were before, or as they were with the new image.
    #[track_caller]
    fn compare(&mut self, name: &str, before: &Before, told: &Told) -> String {
        self.never_two(name);
        let after = self.container.inspect_by_name();
        let outcome = told.outcome.clone().unwrap_or_else(|| {
            // Nothing was open: it was killed before its first row or after its last.
            let started = after["State"]["StartedAt"] != before.container["State"]["StartedAt"];
            match after["Image"] == json!(before.target) {
                true => "committed",
                false if started => "rolled_back",
                false => "nothing",
            }
            .to_owned()
        });
        let was = &before.container;
        let same = |pointer: &str| {
            let (now, then) = (after.pointer(pointer), was.pointer(pointer));
            assert_eq!(now, then, "{name}, {outcome}: {pointer}");
        };
        for pointer in [
            "/Name",
            "/State/Running",
            "/HostConfig/RestartPolicy",
            "/HostConfig/Binds",
            "/HostConfig/NetworkMode",
        ] {
            same(pointer);
        }
        let mounted = |container: &Value| {
            let mounts = container["Mounts"].as_array().expect("mounts").iter();
            mounts
                .map(|mount| json!([mount["Name"], mount["Destination"], mount["RW"]]).to_string())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(mounted(&after), mounted(was), "{name}, {outcome}");
        assert_eq!(after["HostConfig"]["RestartPolicy"]["Name"], self.policy);
        match outcome.as_str() {
            "committed" => {
                assert_eq!(after["Image"], json!(before.target), "{name}");
                assert_ne!(after["Id"], was["Id"], "{name}");
            }
            "rolled_back" | "failed" | "nothing" | "refused" => {
                assert_eq!(after["Image"], was["Image"], "{name}, {outcome}");
                if !told.blows.pruned {
                    same("/Id");
                }
                let untouched = outcome != "rolled_back" && !told.blows.restarted;
                if untouched {
                    same("/State/StartedAt");
                }
            }
            other => panic!("{name}: {other}"),
        }
        self.nothing_left(name, &outcome);
        outcome
    }

    /// Nothing of fleet's stays, nothing is open, and a second recovery has nothing to do.
    #[track_caller]
    fn nothing_left(&self, name: &str, outcome: &str) {
        let containers = self.lab.containers();
        assert_eq!(
            containers,
            [self.container.name.clone()],
            "{name}, {outcome}"
        );
        assert_eq!(
            self.lab.foreign_tags(),
            Vec::<String>::new(),
            "{name}, {outcome}"
        );
        assert_eq!(recover(&self.fleet), None, "{name}, {outcome}: again");
        let (_, listed) = self.fleet.json(&["ps"]);
        let instances = listed["instances"].as_array().expect("instances").iter();
        let ours: Vec<_> = instances
            .filter(|instance| instance["name"] == json!(self.container.name))
            .map(|instance| instance["state"].clone())
            .collect();
        assert_eq!(ours, [json!("idle")], "{name}, {outcome}: {listed}");
        let unfinished = unfinished(&self.fleet.data_dir());
        assert!(unfinished.is_empty(), "{name}, {outcome}: {unfinished:?}");
    }

    /// Every row that was answered is there, unless a version that was rolled back answered it: then it is not.
    #[track_caller]
    fn compare_data(&mut self, name: &str, outcome: &str, version: &str, answered: Vec<Ack>) {
        self.container.wait_up();
        let rows = self.container.rows();
        let there: BTreeSet<u64> = rows.iter().filter_map(|row| row.parse().ok()).collect();
        assert_eq!(
            rows.len(),
            there.len(),
            "{name}, {outcome}: a row that nobody wrote, or twice"
        );
        let committed = outcome == "committed";
        let (kept, gone): (Vec<Ack>, Vec<Ack>) = answered
            .into_iter()
            .partition(|(_, by)| committed || by != version);
        let stayed: Vec<_> = gone.iter().filter(|(row, _)| there.contains(row)).collect();
        assert!(
            stayed.is_empty(),
            "{name}, {outcome}: rows of the rejected release: {stayed:?}"
        );
        self.kept.extend(kept);
        let lost: Vec<_> = self
            .kept
            .iter()
            .filter(|(row, _)| !there.contains(row))
            .collect();
        assert!(
            lost.is_empty(),
            "{name}, {outcome}: answered and lost: {lost:?}"
        );
    }

    /// Answered rows that were asked for afterwards, over all updates.
    pub(crate) fn rows_kept(&self) -> usize {
        self.kept.len()
    }

    /// Runs an update to its end; every crash point that it passes goes into the log.
    #[track_caller]
    pub(crate) fn undisturbed(&self, mut update: Command) -> (Told, Vec<String>) {
        let log = self.log();
        let output = update
            .env("FLEET_CRASH_LOG", &log)
            .output()
            .expect("fleet can be started");
        let outcome = outcome_of_update(&output.stdout);
        assert!(outcome.is_some(), "{output:?}");
        let text = fs::read_to_string(&log).expect("points were passed");
        fs::remove_file(&log).expect("it is there");
        let mut points: Vec<String> = Vec::new();
        for point in text.lines() {
            if !points.iter().any(|known| known == point) {
                points.push(point.to_owned());
            }
        }
        (Told::new(outcome), points)
    }

    /// Runs an update until it aborts at a crash point.
    #[track_caller]
    pub(crate) fn die_at(&self, mut update: Command, point: &str) {
        let output = update
            .env("FLEET_CRASH_AT", point)
            .output()
            .expect("fleet can be started");
        assert_eq!(output.status.signal(), Some(ABORT), "{point}: {output:?}");
    }

    /// Starts an update that pauses at a crash point (`*`: at each).
    #[track_caller]
    pub(crate) fn pause_at(&self, mut update: Command, point: &str) -> Paused {
        let log = self.log();
        let child = update
            .env("FLEET_PAUSE_AT", point)
            .env("FLEET_CRASH_LOG", &log)
            .spawn()
            .expect("fleet can be started");
        Paused {
            child: Some(child),
            log,
        }
    }

    fn log(&self) -> PathBuf {
        self.fleet.data_dir().with_file_name("points")
    }
}

/// An update that stands still at a crash point.
pub(crate) struct Paused {
    child: Option<Child>,
    log: PathBuf,
}

impl Paused {
    /// Waits until it stands still; gives the point, or none if it ended instead.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<String> {
        let child = self.child.as_mut().expect("it was not ended");
        let pid = child.id();
        let log = &self.log;
        wait_for("the next pause", PATIENCE * 3, || {
            if child
                .try_wait()
                .expect("a child can be waited for")
                .is_some()
            {
                return Ok(None);
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            if !state.starts_with('T') {
                return Err(format!("it runs: {state}"));
            }
            let points = fs::read_to_string(log).expect("a point was passed");
            Ok(points.lines().next_back().map(str::to_owned))
        })
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        go_on(self.child.as_ref().expect("it was not ended"));
    }

    /// Lets it go on to its end; gives the outcome.
    #[track_caller]
    pub(crate) fn end(mut self) -> Option<String> {
        let mut child = self.child.take().expect("it was not ended");
        let over = child.try_wait().expect("a child can be waited for");
        if over.is_none() {
            go_on(&child);
        }
        let output = child.wait_with_output().expect("it ends");
        // Told once; the next update has a log of its own.
        let _ = fs::remove_file(&self.log);
        outcome_of_update(&output.stdout)
    }

    /// Kills it where it stands.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().expect("it was not ended");
        child.kill().expect("a child can be killed");
        let status = child.wait().expect("it ends");
        let _ = fs::remove_file(&self.log);
        assert_eq!(status.signal(), Some(KILL));
    }
}

fn go_on(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)
        .expect("a child can be signalled");
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A subnet that no other lane has, and an address in it.
fn addresses() -> (String, Ipv4Addr) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    // Sixteen lanes of sixteen addresses for each process; the numbers of live processes differ.
    let [_, _, high, low] = pid.to_be_bytes();
    let (second, third) = (100 + high % 100, low);
    let base = u8::try_from(count % 16 * 16).unwrap_or(0);
    let subnet = format!("10.{second}.{third}.{base}/28");
    (subnet, Ipv4Addr::new(10, second, third, base + 9))
}

/// What unfinished snapshots leave in a data directory.
fn unfinished(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".tmp") {
            found.push(path);
        } else if path.is_dir() {
            found.extend(unfinished(&path));
        }
    }
    found
}
