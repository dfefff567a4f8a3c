//! The simulator's world: a fake host, an instance, an update of it, and processes of fleet that die and come back.
//!
//! One world is one story: [`World::begin`] is the process that starts the update, [`World::recover`] every later one,
//! [`World::finish`] lets the faults stop and fleet come back until the update is over or frozen. What must hold is
//! checked by [`super::checkers`], which knows nothing of how the story went.

use std::sync::Arc;
use std::time::Duration;

use super::builders::{image, instance};
use super::checkers::{Together, Violation};
use super::faults::FaultPlan;
use super::host::FakeHost;
use super::journal::FakeJournal;
use super::memory::MemoryStore;
use super::rng::{FakeEntropy, SeedRng};
use super::workload::{Files, Migration, Wellness, Workload};
use crate::engine::{Fleet, FleetOptions, FleetPorts, RecoveryOutcome};
use crate::ids::{InstanceId, InstanceName, SnapshotId, TenantId, UpdateId};
use crate::model::{HealthSpec, HttpCheck, Release, RestartPolicy, SnapshotChoice};
use crate::ports::{NewUpdate, NoProgress, UpdatePorts};
use crate::update::{Executor, MemberPlan, Outcome, UpdatePlan, UpdateState};

/// Name of the one instance of a world.
pub(super) const NAME: &str = "web";
/// Tag that the instance follows.
const TAG: &str = "app:1";
/// Restarts of fleet without faults before an update counts as never ending.
const QUIET_LIVES_MAX: u32 = 12;
/// What is in the frozen spec and must never leave the journal.
pub(super) const SECRET: &str = "hunter2";

/// What is updated to what.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The program that runs.
    pub old: Workload,
    /// The program to move to.
    pub new: Workload,
    /// Whether the container runs before the update.
    pub running: bool,
    /// Its restart policy.
    pub policy: RestartPolicy,
    /// How the gate asks.
    pub gate: GateKind,
    /// How many volumes it has.
    pub volumes: usize,
    /// Whether it sits on a network of the user's.
    pub network: bool,
    /// Whether it publishes a port.
    pub port: bool,
    /// Whether the new image declares a volume that the old one did not.
    pub new_volume: bool,
    /// Whether the engine keeps containers alive over its own restarts.
    pub live_restore: bool,
    /// Instances that move in the same update, in the order of starting.
    pub beside: Vec<Beside>,
}

/// An instance that moves together with the one that a scenario is about.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Its name, and that of its image.
    pub name: &'static str,
    /// The program to move to; none if it is only made again.
    pub new: Option<Workload>,
    /// Whether the container runs before the update.
    pub running: bool,
    /// Its restart policy.
    pub policy: RestartPolicy,
    /// How many volumes it has.
    pub volumes: usize,
    /// Whether it is started before the other one.
    pub first: bool,
}

/// How the gate asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    /// An HTTP check.
    Http,
    /// The image's HEALTHCHECK.
    Healthcheck,
    /// Runs, not restarted.
    Running,
}

/// How a process of fleet ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It died.
    Died,
    /// It ended by itself; the error if it had one.
    Ended(Option<String>),
}

/// How a story ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The outcome of the update; none if it was never opened.
    pub outcome: Option<Outcome>,
    /// The reason that came with it.
    pub reason: String,
    /// Processes of fleet that lived, the last one included.
    pub lives: u32,
    /// Hash of everything that happened.
    pub trace: u64,
}

/// A story.
#[derive(Debug)]
pub struct World {
    host: FakeHost,
    store: MemoryStore,
    ports: UpdatePorts,
    plan: UpdatePlan,
    checker: Together,
    lives: u32,
}

impl Scenario {
    /// A good release.
    #[must_use]
    pub fn good() -> Self {
        Self {
            old: Workload::healthy("1"),
            new: Workload {
                migration: Migration::Rewrites,
                ..Workload::healthy("2")
            },
            running: true,
            policy: RestartPolicy::Always,
            gate: GateKind::Http,
            volumes: 1,
            network: false,
            port: true,
            new_volume: false,
            live_restore: false,
            beside: Vec::new(),
        }
    }

    /// A release that destroys data and is never well.
    #[must_use]
    pub fn bad() -> Self {
        Self {
            new: Workload::destroyer("2"),
            ..Self::good()
        }
    }

    /// Any of those that a seed can think of.
    #[must_use]
    pub fn random(rng: &mut SeedRng) -> Self {
        let gate = match rng.below(3) {
            0 => GateKind::Http,
            1 => GateKind::Healthcheck,
            _ => GateKind::Running,
        };
        let policy = match rng.below(4) {
            0 => RestartPolicy::No,
            1 => RestartPolicy::UnlessStopped,
            2 => RestartPolicy::OnFailure { max_retries: 3 },
            _ => RestartPolicy::Always,
        };
        Self {
            old: Workload {
                stop: stop_manner(rng),
                ..Workload::healthy("1")
            },
            new: random_release(rng),
            running: rng.chance(900),
            policy,
            gate,
            volumes: usize::try_from(rng.below(3)).unwrap_or(0),
            network: rng.chance(300),
            port: rng.chance(500),
            new_volume: rng.chance(200),
            live_restore: rng.chance(250),
            beside: Vec::new(),
        }
    }

    /// The same with one or two instances beside it.
    #[must_use]
    pub fn with_group(mut self, rng: &mut SeedRng) -> Self {
        let names = ["db", "cache"];
        let count = usize::try_from(1 + rng.below(2)).unwrap_or(1);
        let beside = names.into_iter().take(count).map(|name| Beside {
            name,
            new: rng.chance(400).then(|| match rng.chance(300) {
                true => Workload::unhealthy("2"),
                false => Workload {
                    migration: Migration::Rewrites,
                    ..Workload::healthy("2")
                },
            }),
            running: rng.chance(900),
            policy: match rng.below(3) {
                0 => RestartPolicy::No,
                1 => RestartPolicy::UnlessStopped,
                _ => RestartPolicy::Always,
            },
            volumes: usize::try_from(rng.below(3)).unwrap_or(0),
            first: rng.chance(500),
        });
        self.beside = beside.collect();
        self
    }

    /// Whether all releases are ones that the gate must let pass.
    #[must_use]
    pub fn release_is_good(&self) -> bool {
        let beside = self.beside.iter().filter_map(|beside| beside.new.as_ref());
        std::iter::once(&self.new)
            .chain(beside)
            .all(|new| self.passes(new))
    }

    fn passes(&self, new: &Workload) -> bool {
        let slow = match new.health {
            Wellness::After(after) => after > Duration::from_secs(60),
            _ => true,
        };
        let gated = self.gate == GateKind::Running || !slow;
        gated && new.exits_after.is_none() && new.boot == super::Boot::Runs
    }
}

fn stop_manner(rng: &mut SeedRng) -> super::StopManner {
    match rng.below(10) {
        0 => super::StopManner::Ignores,
        1 => super::StopManner::Obeys(Duration::from_secs(5)),
        _ => super::StopManner::Obeys(Duration::from_millis(rng.below(500))),
    }
}

fn random_release(rng: &mut SeedRng) -> Workload {
    let base = Workload {
        stop: stop_manner(rng),
        migration: match rng.below(3) {
            0 => Migration::Compatible,
            1 => Migration::Rewrites,
            _ => Migration::Destroys,
        },
        ..Workload::healthy("2")
    };
    let good = Workload {
        // A release that destroys data and says that it is well is not fleet's to catch.
        migration: match base.migration {
            Migration::Destroys => Migration::Rewrites,
            other => other,
        },
        ..base.clone()
    };
    match rng.below(10) {
        0 => Workload::unhealthy("2"),
        1 => Workload {
            boot: super::Boot::Exits(1),
            ..base
        },
        2 => Workload {
            boot: super::Boot::NoSuchBinary,
            ..base
        },
        3 => Workload {
            exits_after: Some((Duration::from_millis(rng.below(1900)), 1)),
            ..base
        },
        4 => Workload {
            health: Wellness::Hangs,
            ..base
        },
        5 => Workload {
            health: Wellness::Never,
            ..base
        },
        6 => Workload {
            health: Wellness::After(Duration::from_secs(rng.below(40))),
            ..good
        },
        _ => good,
    }
}

impl World {
    /// A world with an instance and a release to move it to.
    #[must_use]
    pub fn new(seed: u64, scenario: &Scenario) -> Self {
        let host = FakeHost::new(seed);
        host.set_live_restore(scenario.live_restore);
        let check = scenario.gate == GateKind::Healthcheck;
        let old = Workload {
            healthcheck: check,
            ..scenario.old.clone()
        };
        let new = Workload {
            healthcheck: check,
            ..scenario.new.clone()
        };
        host.load(image(TAG).runs(old));
        let mut release = image(TAG).runs(new);
        if scenario.new_volume {
            release = release.volume("/new", Files::from([("seed".to_owned(), vec![1])]));
        }
        let release = host.publish(release);
        host.run(scenario.instance());
        let mut releases = vec![Some(release)];
        for beside in &scenario.beside {
            let tag = beside.tag();
            host.load(image(&tag).runs(Workload::healthy("1")));
            host.run(beside.instance());
            let new = beside.new.clone();
            releases.push(new.map(|new| host.publish(image(&tag).runs(new))));
        }
        host.pass(Duration::from_secs(60));
        let store = MemoryStore::new();
        let ports = UpdatePorts {
            runtime: Arc::new(host.engine()),
            images: Arc::new(host.engine()),
            snapshots: Arc::new(host.snapshots()),
            probe: Arc::new(host.probe()),
            journal: Arc::new(FakeJournal::new(host.clone(), store.clone())),
            clock: Arc::new(host.clock()),
            entropy: Arc::new(FakeEntropy::new(SeedRng::new(seed).child("entropy"))),
            crash: Arc::new(host.crash_points()),
        };
        let plan = plan(&host, &ports, releases, scenario);
        let checker = Together::new(&host, &plan);
        Self {
            host,
            store,
            ports,
            plan,
            checker,
            lives: 0,
        }
    }

    /// The host, for faults, moves and a look.
    #[must_use]
    pub fn host(&self) -> &FakeHost {
        &self.host
    }

    /// What the journal and the event log hold.
    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The plan of the update.
    #[must_use]
    pub fn plan(&self) -> &UpdatePlan {
        &self.plan
    }

    /// The process that starts the update, under these faults.
    ///
    /// # Errors
    /// An invariant does not hold.
    pub fn begin(&mut self, faults: FaultPlan) -> Result<Life, Violation> {
        let (ports, plan) = (self.ports.clone(), self.plan.clone());
        // Boxed where it is made: it is large, and moved on from here.
        let process = Box::pin(async move {
            let opening = NewUpdate {
                plan: plan.clone(),
                at: ports.clock.now(),
                boot_id: ports.clock.boot_id(),
            };
            ports
                .journal
                .open(&opening, Vec::new())
                .await
                .map_err(|error| error.to_string())?;
            let executor = Executor::new(&ports, &NoProgress);
            let run = executor.run(UpdateState::new(plan)).await;
            run.map(|_| ()).map_err(|error| error.to_string())
        });
        self.live(faults, process)
    }

    /// A process that comes up after another one died, under these faults.
    ///
    /// # Errors
    /// An invariant does not hold.
    pub fn recover(&mut self, faults: FaultPlan) -> Result<Life, Violation> {
        let fleet = Fleet::new(self.fleet_ports(), FleetOptions::default());
        let process = Box::pin(async move {
            let recovered = fleet.recover(&NoProgress, &|_, _| {}).await;
            let recovered = recovered.map_err(|error| error.to_string())?;
            let open = recovered.into_iter().find_map(|one| match one.outcome {
                RecoveryOutcome::Open(error) => Some(error.to_string()),
                RecoveryOutcome::Ended(_) => None,
            });
            open.map_or(Ok(()), Err)
        });
        self.live(faults, process)
    }

    /// Faults stop and fleet comes back until the update is over or frozen; then everything is checked.
    ///
    /// # Errors
    /// An invariant does not hold, the promise that every update ends among them.
    pub fn finish(&mut self) -> Result<Ending, Violation> {
        let mut lives = 0;
        while self.is_live() {
            if lives == QUIET_LIVES_MAX {
                if self.checker.somebody_interfered() {
                    // For instance a container that cannot be removed because somebody runs it: people are told.
                    break;
                }
                return Err(Violation::new("I3", "the update never ends"));
            }
            lives += 1;
            self.host.set_faults(FaultPlan::default());
            self.host.let_engine_return();
            self.recover(FaultPlan::default())?;
        }
        self.host.let_engine_return();
        self.checker.follow(&self.host, &self.store)?;
        self.store.look(|updates, events| {
            let stored = updates.last();
            let state =
                stored.map(|stored| UpdateState::replay(stored.plan.clone(), &stored.entries));
            self.checker
                .at_the_end(&self.host, events, stored, state.as_ref())?;
            Ok(Ending {
                outcome: stored.and_then(|stored| stored.outcome),
                reason: state.map_or_else(String::new, |state| reason(&state)),
                lives: self.lives,
                trace: self.host.trace_hash(),
            })
        })
    }

    fn fleet_ports(&self) -> FleetPorts {
        let store = Arc::new(self.store.clone());
        FleetPorts {
            update: self.ports.clone(),
            releases: Arc::new(self.host.registry()),
            events: store.clone(),
            configs: store.clone(),
            settings: store.clone(),
            availability: store,
            verifier: None,
        }
    }

    /// Whether the update is open and not frozen.
    fn is_live(&self) -> bool {
        self.store.look(|updates, _| {
            updates.iter().any(|update| {
                let frozen = matches!(
                    update.outcome,
                    Some(Outcome::NeedsOperator | Outcome::Diverged)
                );
                !update.closed && !frozen
            })
        })
    }

    fn live(
        &mut self,
        faults: FaultPlan,
        process: impl Future<Output = Result<(), String>>,
    ) -> Result<Life, Violation> {
        self.lives += 1;
        self.host.set_faults(faults);
        let ended = self.host.drive(process);
        self.checker.follow(&self.host, &self.store)?;
        Ok(match ended {
            None => Life::Died,
            Some(result) => Life::Ended(result.err()),
        })
    }
}

impl Scenario {
    fn instance(&self) -> super::InstanceBuilder {
        let mut builder = instance(NAME)
            .image(TAG)
            .restart(self.policy)
            .without_volumes();
        for number in 0..self.volumes {
            builder = builder.volume(&format!("{NAME}-{number}"), &format!("/data/{number}"));
        }
        if self.network {
            builder = builder.network("front");
        }
        if self.port {
            builder = builder.host_port(8080);
        }
        if self.running {
            builder
        } else {
            builder.stopped()
        }
    }
}

fn reason(state: &UpdateState) -> String {
    if state.outcome_reason.is_empty() {
        state
            .cause
            .as_ref()
            .map_or_else(String::new, |cause| cause.reason.clone())
    } else {
        state.outcome_reason.clone()
    }
}

impl Beside {
    fn tag(&self) -> String {
        format!("{}:1", self.name)
    }

    fn instance(&self) -> super::InstanceBuilder {
        let mut builder = instance(self.name)
            .image(&self.tag())
            .restart(self.policy)
            .without_volumes();
        for number in 0..self.volumes {
            let volume = format!("{}-{number}", self.name);
            builder = builder.volume(&volume, &format!("/data/{number}"));
        }
        if self.running {
            builder
        } else {
            builder.stopped()
        }
    }
}

/// The plan for the instance and those beside it; `releases` are theirs in that order.
fn plan(
    host: &FakeHost,
    ports: &UpdatePorts,
    releases: Vec<Option<Release>>,
    scenario: &Scenario,
) -> UpdatePlan {
    let now = ports.clock.now();
    let http = (scenario.gate == GateKind::Http).then(|| HttpCheck {
        path: "/health".to_owned(),
        port: None,
        expect: None,
    });
    let member = |name: &str, image: String, target: Option<Release>| MemberPlan {
        instance: InstanceId::local(InstanceName::new(name).expect("a name")),
        tenant: TenantId::new(name).expect("a name"),
        container: host.container(name).expect("the instance runs").id,
        target,
        image,
        health: HealthSpec {
            http: http.clone(),
            timeout: Duration::from_secs(60),
            ..HealthSpec::default()
        },
        stop_grace: None,
        snapshot: SnapshotChoice::All,
        snapshot_id: SnapshotId::new(now, ports.entropy.bytes()),
        pre_hook: None,
        post_hook: None,
        before: None,
        discard_writable_layer: false,
    };
    let id = UpdateId::new(now, ports.entropy.bytes());
    let mut releases = releases.into_iter();
    let primary = member(NAME, TAG.to_owned(), releases.next().flatten());
    let mut members = vec![primary];
    for (beside, release) in scenario.beside.iter().zip(releases) {
        let place = if beside.first { 0 } else { members.len() };
        members.insert(place, member(beside.name, beside.tag(), release));
    }
    UpdatePlan {
        saga: UpdatePlan::SAGA,
        id,
        actor: "simulator".to_owned(),
        rollout: None,
        members,
        keep_snapshots: 2,
        snapshot_max_age: None,
        shared_guard: None,
    }
}
