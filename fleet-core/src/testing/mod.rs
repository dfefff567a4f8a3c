//! Fakes for every port that can misbehave, and a simulator.
//!
//! [`FakeHost`] is one Docker host that is not there: an engine ([`FakeEngine`]), a registry ([`FakeRegistry`]),
//! snapshots ([`FakeSnapshots`]), health probes ([`FakeProbe`]) and a clock ([`ManualClock`]) over one shared state.
//! Workloads write to their volumes and remember what they wrote outside of them. Without a [`FaultPlan`] nothing
//! goes wrong; with one, calls are refused, answers are lost, the engine restarts, people interfere, and the process
//! dies at a place of one's choice. Everything follows from a seed.
//!
//! [`MemoryStore`] keeps what the stores keep, and fails when told to; [`conformance`] holds the suites that it and every
//! real store must pass.
//!
//! ```
//! use fleet_core::ports::ContainerRuntime as _;
//! use fleet_core::testing::{FakeHost, image, instance};
//!
//! let host = FakeHost::new(7);
//! host.load(image("app:1"));
//! let id = host.run(instance("web"));
//! let stopped = host.drive(async { host.engine().stop(&id, None).await.unwrap() });
//! assert_eq!(stopped.unwrap().exit_code, Some(0));
//! ```

pub mod conformance;

mod builders;
mod checkers;
mod clock;
mod engine;
mod faults;
mod health;
mod host;
mod journal;
mod machine;
mod memory;
mod mocks;
mod paused;
mod registry;
mod rng;
mod snapshots;
mod swarm;
mod table;
mod trace;
mod updater;
mod workload;
mod world;

pub use builders::{ImageBuilder, InstanceBuilder, image, instance};
pub use checkers::Violation;
pub use clock::ManualClock;
pub use engine::FakeEngine;
pub use faults::{Fault, FaultPlan, FaultRates};
pub use health::FakeProbe;
pub use host::{FakeCrashPoints, FakeHost};
pub use journal::FakeJournal;
pub use machine::{Fact, ForeignMove, Hand, Move};
pub use memory::{MemoryStore, WriteFault};
pub use mocks::{
    MockContainerRuntime, MockRolloutStrategy, MockSnapshotStore, MockUpdateConfigRepository,
    SnapshotAnswers,
};
pub use paused::PausedClock;
pub use registry::FakeRegistry;
pub use rng::{FakeEntropy, SeedRng};
pub use snapshots::FakeSnapshots;
pub use swarm::{Failure, tell, tell_of_group};
pub use table::recovery_table;
pub use trace::Trace;
pub use updater::{FakeUpdater, Nature, candidate};
pub use workload::{Boot, Files, Migration, ROWS, SCHEMA, StopManner, Wellness, Workload};
pub use world::{Beside, Ending, GateKind, Life, Scenario, World};
