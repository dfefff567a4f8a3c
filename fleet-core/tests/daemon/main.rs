//! The loop of the daemon on a fake host: what is asked when, what survives what, how it ends. Time is the host's own.

mod ends;
mod engine;
mod polls;
mod rollouts;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_core::crash::NoCrashPoints;
use fleet_core::detect::PollSchedules;
use fleet_core::engine::rollout::Orchestrator;
use fleet_core::engine::{
    Daemon, Fleet, FleetOptions, FleetPorts, FleetUpdater, Listener, Recovery,
};
use fleet_core::model::FleetSettings;
use fleet_core::plan::rollout::SupersedePolicy;
use fleet_core::plan::strategy::StrategyRegistry;
use fleet_core::ports::{
    Clock as _, NoProgress, ReleaseSource, SettingsStore as _, StoredUpdate, UpdatePorts,
};
use fleet_core::testing::{
    FakeEntropy, FakeHost, InstanceBuilder, ManualClock, MemoryStore, SeedRng, Workload, image,
    instance,
};
use fleet_core::update::{Outcome, Verdict};
use futures::future::{Either, join, select};

const GRACE: Duration = Duration::from_secs(60);

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// A fake host, and the stores that outlive each daemon on it.
struct World {
    host: FakeHost,
    store: MemoryStore,
    releases: Arc<dyn ReleaseSource>,
    supersede: SupersedePolicy,
    heard: Arc<Heard>,
}

/// What recovery said.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Listener for Heard {
    fn verdict(&self, update: &StoredUpdate, verdict: &Verdict) {
        let line = format!("{}: {}", update.plan.primary().instance, verdict.therefore);
        self.0.lock().unwrap().push(line);
    }

    fn recovered(&self, recovery: &Recovery) {
        let line = format!("{}: {:?}", recovery.instance, recovery.ended());
        self.0.lock().unwrap().push(line);
    }
}

/// One process: a daemon with the fleet and the orchestrator that it drives.
struct Process {
    daemon: Daemon,
    fleet: Fleet,
    orchestrator: Arc<Orchestrator>,
}

impl World {
    async fn set(&self, settings: &FleetSettings) {
        let now = self.host.clock().now();
        let set = self.store.set_settings(settings, "ann", now);
        set.await.unwrap();
    }

    fn new() -> Self {
        let host = FakeHost::new(11);
        host.keep_trace();
        Self {
            releases: Arc::new(host.registry()),
            host,
            store: MemoryStore::new(),
            supersede: SupersedePolicy {
                quiet_period: Duration::ZERO,
                ..SupersedePolicy::default()
            },
            heard: Arc::default(),
        }
    }

    /// One running instance for each channel, called after it, of an image of its own.
    fn with_channels(self, channels: &[&str]) -> Self {
        for channel in channels {
            self.host.load(image(&format!("{channel}:1")));
            self.host.run(follower(channel, channel));
        }
        self
    }

    /// A new process on the same host and stores.
    fn process(&self) -> Process {
        let store = Arc::new(self.store.clone());
        let update = UpdatePorts {
            runtime: Arc::new(self.host.engine()),
            images: Arc::new(self.host.engine()),
            snapshots: Arc::new(self.host.snapshots()),
            probe: Arc::new(self.host.probe()),
            journal: store.clone(),
            clock: Arc::new(self.host.clock()),
            entropy: Arc::new(FakeEntropy::new(SeedRng::new(self.host.calls()))),
            crash: Arc::new(NoCrashPoints),
        };
        let (clock, entropy) = (update.clock.clone(), update.entropy.clone());
        let ports = FleetPorts {
            update,
            releases: self.releases.clone(),
            events: store.clone(),
            configs: store.clone(),
            settings: store.clone(),
            availability: store.clone(),
            verifier: None,
        };
        let fleet = Fleet::new(ports, FleetOptions::default());
        let updater = FleetUpdater::new(fleet.clone(), Arc::new(NoProgress));
        let orchestrator = Arc::new(Orchestrator::new(
            store,
            Arc::new(updater),
            clock,
            entropy,
            StrategyRegistry::default(),
        ));
        let daemon = Daemon::new(
            fleet.clone(),
            orchestrator.clone(),
            Arc::new(NoProgress),
            self.heard.clone(),
            PollSchedules::default(),
            self.supersede,
            GRACE,
        );
        Process {
            daemon,
            fleet,
            orchestrator,
        }
    }

    /// Runs a daemon beside a script, and kills it when the script is over.
    fn beside<T>(&self, script: impl Future<Output = T>) -> T {
        let process = self.process();
        self.with(&process, script)
    }

    fn with<T>(&self, process: &Process, script: impl Future<Output = T>) -> T {
        let both = async {
            match select(Box::pin(process.daemon.run()), Box::pin(script)).await {
                Either::Left((ended, _)) => panic!("the daemon ended: {ended:?}"),
                Either::Right((result, _)) => result,
            }
        };
        self.host.drive(both).expect("nothing kills it")
    }

    /// Runs a daemon until the script told it to stop.
    fn until_stopped(&self, process: &Process, script: impl Future<Output = ()>) {
        let both = join(Box::pin(process.daemon.run()), Box::pin(script));
        let (ended, ()) = self.host.drive(both).expect("nothing kills it");
        ended.expect("it ends well");
    }

    /// Lets time pass in short stretches: the fake clock gives nobody long who waits beside many others.
    async fn pass(&self, time: Duration) {
        pass(&self.host.clock(), time).await;
    }

    /// Waits for something, with a bound.
    async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..100_000 {
            if is_so() {
                return;
            }
            self.pass(Duration::from_millis(20)).await;
        }
        panic!("not seen: {what}; {:?}", self.events());
    }

    fn publish(&self, tag: &str, version: &str) {
        self.host
            .publish(image(tag).runs(Workload::healthy(version)));
    }

    /// Seconds at which the registry was asked about a repository.
    fn asked(&self, repository: &str) -> Vec<f64> {
        let trace = self.host.trace();
        let name = format!("{repository}:1");
        let lines = trace.lines().iter();
        let asks = lines.filter(|line| line.contains("ask the registry") && line.contains(&name));
        asks.map(|line| line.trim().split(' ').next().unwrap().parse().unwrap())
            .collect()
    }

    fn events(&self) -> Vec<String> {
        let events = self.store.events().into_iter();
        events
            .map(|event| event.event.kind.label().to_owned())
            .collect()
    }

    fn count(&self, kind: &str) -> usize {
        self.events().iter().filter(|event| *event == kind).count()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .host
            .containers()
            .into_iter()
            .map(|container| container.name)
            .collect();
        names.sort();
        names
    }
}

async fn pass(clock: &ManualClock, time: Duration) {
    let end = clock.monotonic() + time;
    while clock.monotonic() < end {
        let rest = end - clock.monotonic();
        clock.sleep(rest.min(Duration::from_secs(5))).await;
    }
}

/// A running instance of `<name>:1` that is updated as soon as something new is found.
fn follower(name: &str, channel: &str) -> InstanceBuilder {
    instance(name)
        .image(&format!("{name}:1"))
        .label("fleet.channel", channel)
        .label("fleet.policy", "on-push")
        .label("fleet.health.path", "/health")
}
