//! Updates through the façade, on a fake host: how each ends, and what it leaves.

mod doubt;
mod ends;
mod foreign;
mod frozen;
mod groups;
mod held;
mod news;
mod refused;
mod rollouts;
mod snapshots;
mod trust;

use std::sync::Arc;

use fleet_core::crash::NoCrashPoints;
use fleet_core::engine::{Fleet, FleetOptions, FleetPorts, Target, UpdateRequest};
use fleet_core::model::Release;
use fleet_core::ports::{NoProgress, UpdatePorts};
use fleet_core::testing::{
    FakeEntropy, FakeHost, InstanceBuilder, MemoryStore, SeedRng, Workload, image, instance,
};
use fleet_core::update::{Outcome, UpdateReport};

/// A fake host with one fleet on it.
struct World {
    host: FakeHost,
    store: MemoryStore,
    fleet: Fleet,
}

impl World {
    fn new() -> Self {
        Self::with(7, FleetOptions::default())
    }

    /// On a host whose chances fall as this seed says.
    fn with_luck(seed: u64) -> Self {
        Self::with(seed, FleetOptions::default())
    }

    fn with(seed: u64, options: FleetOptions) -> Self {
        let host = FakeHost::new(seed);
        let store = MemoryStore::new();
        let update = UpdatePorts {
            runtime: Arc::new(host.engine()),
            images: Arc::new(host.engine()),
            snapshots: Arc::new(host.snapshots()),
            probe: Arc::new(host.probe()),
            journal: Arc::new(store.clone()),
            clock: Arc::new(host.clock()),
            entropy: Arc::new(FakeEntropy::new(SeedRng::new(1))),
            crash: Arc::new(NoCrashPoints),
        };
        let ports = FleetPorts {
            update,
            releases: Arc::new(host.registry()),
            events: Arc::new(store.clone()),
            configs: Arc::new(store.clone()),
            settings: Arc::new(store.clone()),
            availability: Arc::new(store.clone()),
            verifier: None,
        };
        let fleet = Fleet::new(ports, options);
        Self { host, store, fleet }
    }

    /// With `app:1` loaded and one running instance `web` of it.
    fn with_web() -> Self {
        Self::new().and_web()
    }

    fn and_web(self) -> Self {
        self.host.load(image("app:1"));
        self.host.run(probed("web"));
        self
    }

    fn publish(&self, tag: &str, workload: Workload) -> Release {
        self.host.publish(image(tag).runs(workload))
    }

    fn update(&self, name: &str, to: &str) -> UpdateReport {
        self.update_with(&request(name, to))
    }

    fn update_with(&self, request: &UpdateRequest) -> UpdateReport {
        self.all_updates(request).remove(0)
    }

    fn all_updates(&self, request: &UpdateRequest) -> Vec<UpdateReport> {
        let run = self.fleet.update(request, &NoProgress);
        self.host
            .drive(run)
            .expect("nothing kills it")
            .expect("the ports work")
    }

    /// Names of all containers, sorted.
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

    fn events(&self) -> Vec<String> {
        self.store
            .events()
            .into_iter()
            .map(|event| event.event.kind.label().to_owned())
            .collect()
    }
}

/// An instance whose health is asked over HTTP.
fn probed(name: &str) -> InstanceBuilder {
    instance(name).label("fleet.health.path", "/health")
}

fn request(name: &str, to: &str) -> UpdateRequest {
    UpdateRequest {
        instances: name.split(',').map(str::to_owned).collect(),
        to: to.parse::<Target>().expect("a reference"),
        timeout: None,
        override_window: false,
        retry: false,
        actor: "test".to_owned(),
        rollout: None,
    }
}

#[track_caller]
fn assert_outcome(report: &UpdateReport, outcome: Outcome) {
    let steps: Vec<_> = report.steps.iter().map(|step| step.step.label()).collect();
    assert_eq!(
        report.outcome,
        Some(outcome),
        "{:?} after {steps:?}",
        report.reason
    );
}
