//! An engine of one's own, for what must never be done to a shared one: kill it, restart it, prune everything.
//!
//! It lives in a network namespace and a folder of its own, with its own containerd, so that it neither sees nor touches
//! anything of the machine's engine. Everything it leaves is ended by process id and removed on drop, also when a test
//! panics.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::app::app_binary;
use crate::docker::{docker, use_engine};
use crate::wait::wait_for;

/// Its bridge; the name is the namespace's own.
const BRIDGE: &str = "fleetbr0";
const BRIDGE_ADDRESS: &str = "10.199.0.1/24";
/// Longer than an engine takes to come up or to end all its containers on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A private engine, running.
#[derive(Debug)]
pub struct PrivateEngine {
    name: String,
    folder: tempfile::TempDir,
    driver: String,
    child: Option<Child>,
}

impl PrivateEngine {
    /// Makes the namespace and starts the engine; with `live_restore` its containers live over its restarts.
    ///
    /// # Panics
    /// When it does not come up: this needs root, `ip`, `nsenter` and `dockerd`.
    #[must_use]
    pub fn start(live_restore: bool) -> Self {
        Self::start_on(None, live_restore, Self::machines_driver())
    }

    /// Starts one with the storage driver of this name instead of that of the machine's engine.
    ///
    /// # Panics
    /// As [`PrivateEngine::start`]; also where the driver does not work here.
    #[must_use]
    pub fn with_driver(driver: &str) -> Self {
        Self::start_on(None, false, driver.to_owned())
    }

    /// What works for the machine's engine works for others.
    fn machines_driver() -> String {
        docker(&["info", "--format", "{{.Driver}}"])
    }

    /// The same with all its data on a disk of its own of so many megabytes.
    ///
    /// # Panics
    /// As [`PrivateEngine::start`]; this needs loop devices as well.
    #[must_use]
    pub fn with_disk(megabytes: u32) -> Self {
        Self::start_on(Some(megabytes), false, Self::machines_driver())
    }

    fn start_on(disk: Option<u32>, live_restore: bool, driver: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut engine = Self {
            name: format!("fleet{}x{count}", std::process::id()),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            driver,
            child: None,
        };
        let config = serde_json::json!({ "live-restore": live_restore });
        fs::write(engine.path("daemon.json"), config.to_string()).expect("it can be written");
        if let Some(megabytes) = disk {
            let (image, data) = (engine.path("disk"), engine.path("data"));
            let [image, data] = [&image, &data].map(|path| path.display().to_string());
            run("truncate", &["--size", &format!("{megabytes}M"), &image]);
            run("mkfs.ext4", &["-q", &image]);
            fs::create_dir(&data).expect("a folder can be made");
            run("mount", &["-o", "loop", &image, &data]);
        }
        run("ip", &["netns", "add", &engine.name]);
        engine.inside(&["ip", "link", "set", "lo", "up"]);
        engine.inside(&["ip", "link", "add", "name", BRIDGE, "type", "bridge"]);
        engine.inside(&["ip", "addr", "add", BRIDGE_ADDRESS, "dev", BRIDGE]);
        engine.inside(&["ip", "link", "set", BRIDGE, "up"]);
        engine.start_again();
        engine
    }

    /// Its address, as in `DOCKER_HOST`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    /// Moves the calling thread into the engine's network and lets the kit's calls in it go to this engine. Threads and
    /// processes that it starts are in that network too. There is no way back: use a thread of its own.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn enter(&self) {
        // Nothing can be fetched from within: what is needed there is built now.
        let _ = app_binary();
        let file = fs::File::open(self.namespace()).expect("the namespace is there");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a thread can enter a network namespace");
        use_engine(&self.host());
    }

    /// Kills the engine and its containerd; their containers go on without them.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // Its containerd dies with it. A new one does not come up over what that one left.
        let state = self.path("exec/containerd");
        for entry in fs::read_dir(&state).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(".sock") || name == "containerd.pid" {
                fs::remove_file(entry.path()).expect("it can be removed");
            }
        }
    }

    /// Asks the engine to end, and waits for it.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// The power goes: every process of the engine and of its containers is killed at once, and what the engine keeps in
    /// memory is gone.
    pub fn power_off(&mut self) {
        self.kill_all();
        unmount_below(self.folder.path());
        // A folder that is not there is as gone as one that was removed.
        let _ = fs::remove_dir_all(self.path("exec"));
        let _ = fs::remove_file(self.path("pid"));
    }

    /// Starts it, if it does not run, and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the engine runs");
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("log"))
            .expect("the log can be made");
        let path = |name: &str| self.path(name).display().to_string();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.namespace().display()))
            .args(["dockerd", "--config-file", &path("daemon.json")])
            .args(["--data-root", &path("data")])
            .args(["--exec-root", &path("exec")])
            .args(["--pidfile", &path("pid")])
            .args(["--host", &self.host()])
            .args(["--bridge", BRIDGE, "--storage-driver", &self.driver])
            .args(["--containerd-namespace", &self.name])
            .args(["--containerd-plugins-namespace", &format!("{}p", self.name)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log);
        self.child = Some(command.spawn().expect("dockerd can be started"));
        wait_for("the private engine", PATIENCE, || {
            let version = Command::new("docker")
                .args(["--host", &self.host(), "version"])
                .output()
                .expect("docker can be run");
            if version.status.success() {
                Ok(())
            } else {
                Err(self.log())
            }
        });
    }

    /// `docker system prune -af --volumes`, on this engine.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub fn prune(&self) {
        let host = self.host();
        docker(&[
            "--host",
            &host,
            "system",
            "prune",
            "--all",
            "--force",
            "--volumes",
        ]);
    }

    fn signal(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("the engine runs");
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).expect("a child can be signalled");
        wait_for("the engine to end", PATIENCE, || {
            match child.try_wait().expect("a child can be waited for") {
                Some(_) => Ok(()),
                None => Err(self.log()),
            }
        });
    }

    /// Kills every process that is the engine's: until none is left, since one may just be starting another.
    fn kill_all(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        wait_for("the end of the engine's processes", PATIENCE, || {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            for pid in &left {
                let _ = kill_process(*pid, Signal::KILL);
            }
            Err(format!("{left:?}"))
        });
    }

    /// Processes whose command line names the engine's folder, and those in the control group of one of its containers.
    fn processes(&self) -> Vec<Pid> {
        let folder = self.folder.path().display().to_string();
        let containers = fs::read_dir(self.path("data/containers"));
        let containers: Vec<String> = containers
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        let ours = |pid: &str| {
            let read = |what: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let groups = read("cgroup");
            // A zombie has no command line, and no group of a container's.
            read("cmdline").contains(&folder) || containers.iter().any(|id| groups.contains(id))
        };
        let all = fs::read_dir("/proc").expect("/proc can be read").flatten();
        all.filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = Pid::from_raw(name.parse().ok()?)?;
            (ours(&name) && !is_zombie(&name)).then_some(pid)
        })
        .collect()
    }

    fn inside(&self, command: &[&str]) {
        let net = format!("--net={}", self.namespace().display());
        let mut args = vec![net.as_str()];
        args.extend(command);
        run("nsenter", &args);
    }

    fn namespace(&self) -> PathBuf {
        Path::new("/var/run/netns").join(&self.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The end of its log.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for PrivateEngine {
    // What fails here was reported where it began: a drop cannot fail.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for _ in 0..100 {
            let left = self.processes();
            for pid in &left {
                let _ = kill_process(*pid, Signal::KILL);
            }
            if left.is_empty() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        unmount_below(self.folder.path());
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn is_zombie(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the command's name in parentheses comes the state.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    matches!(state, None | Some(Some('Z' | 'X') | None))
}

/// Takes every mount below a folder away, the innermost first.
fn unmount_below(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(folder))
        .collect();
    points.sort_unstable();
    for point in points.into_iter().rev() {
        // One that is gone already is fine.
        let _ = Command::new("umount")
            .args(["--lazy", point])
            .stderr(Stdio::null())
            .status();
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("tests on a private engine need {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
