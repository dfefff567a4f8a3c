//! What the engine needs from outside, in the model's words.
//!
//! | port | is | implemented by |
//! |---|---|---|
//! | [`ContainerRuntime`] | containers of one engine | `fleet-docker` |
//! | [`ImageStore`] | images of that engine | `fleet-docker` |
//! | [`SnapshotStore`] | verified copies of volumes | `fleet-docker` |
//! | [`HealthProbe`] | one HTTP probe | `fleet-docker` |
//! | [`ReleaseSource`] | what a registry offers | `fleet-docker` |
//! | [`ImageVerifier`] | signatures of images | `fleet-docker` |
//! | [`Journal`] | the intent log of updates | `fleet-sqlite` |
//! | [`EventStore`] | the event log for people | `fleet-sqlite` |
//! | [`UpdateConfigRepository`] | tenants' update configs | `fleet-sqlite` |
//! | [`SettingsStore`] | settings and pause of the fleet | `fleet-sqlite` |
//! | [`AvailabilityStore`] | what `check` found | `fleet-sqlite` |
//! | [`RolloutStore`] | rollouts: plans and states | `fleet-sqlite` |
//! | [`Clock`], [`Entropy`] | time and chance | `fleet-bin` |
//! | [`Notifier`] | delivers one message | embedders, later `fleet-notify` |
//!
//! Every port is object-safe and has a fake that can misbehave in [`crate::testing`].

mod clock;
mod configs;
mod error;
mod events;
mod health;
mod images;
mod journal;
mod notifier;
mod progress;
mod releases;
mod rollouts;
mod runtime;
mod snapshots;
mod verifier;

pub use clock::{Clock, Entropy};
pub use configs::{
    Availability, AvailabilityStore, Lag, SettingsStore, TenantConfig, UpdateConfigRepository,
};
pub use error::{PortError, PortErrorKind};
pub use events::{EventFilter, EventStore};
pub use health::{HealthProbe, ProbeTarget, ProbeVerdict};
pub use images::ImageStore;
pub use journal::{
    Deployed, Journal, JournalError, JournalWrite, NewUpdate, Quarantined, StoredUpdate,
};
pub use notifier::{Message, Notifier};
pub use progress::{NoProgress, Progress, ProgressOf, ProgressSink};
pub use releases::ReleaseSource;
pub use rollouts::{RolloutStore, RolloutStoreError, StoredRollout};
pub use runtime::{
    CandidateRequest, ContainerRuntime, CreateRequest, Created, EngineEvent, EngineEventKind,
    EngineInfo, ExecOutcome, GuardOwner, GuardRequest, Names, Repoint, RestoreRequest,
    StartOutcome, StopOutcome, WritableLayer,
};
pub use snapshots::{SnapshotRequest, SnapshotStore};
pub use verifier::ImageVerifier;

use std::sync::Arc;

use crate::crash::CrashPoints;

/// Everything an update needs from outside, in one place.
#[derive(Clone)]
pub struct UpdatePorts {
    /// Containers.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Images.
    pub images: Arc<dyn ImageStore>,
    /// Snapshots.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// Health.
    pub probe: Arc<dyn HealthProbe>,
    /// The intent log.
    pub journal: Arc<dyn Journal>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Where tests make the process die.
    pub crash: Arc<dyn CrashPoints>,
}

impl std::fmt::Debug for UpdatePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpdatePorts").finish_non_exhaustive()
    }
}
