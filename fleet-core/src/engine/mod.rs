//! Drives the stages: what commands and daemons call.
//!
//! [`Fleet`] is the façade that embedders use. It holds the ports and nothing else: every question is answered by
//! looking, every change goes through the journal.

pub mod rollout;

mod admit;
mod alerts;
mod check;
mod daemon;
mod error;
mod explain;
mod foresight;
mod hours;
mod instances;
mod lag;
mod live;
mod looking;
mod mounts;
mod offers;
mod others;
mod recovery;
mod resolve;
mod shared_guard;
mod snapshots;
mod tick;
mod trust;
mod update;
mod updater;
mod whats_new;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use admit::{Admission, Target};
pub use daemon::{Daemon, DaemonState, Listener, TURN};
pub use error::FleetError;
pub use explain::{Explanation, Provenance};
pub use foresight::Foresight;
pub use instances::{InstanceState, InstanceView};
pub use lag::max_lag;
pub use looking::{Managed, Survey};
pub use offers::{Offer, Waiting};
pub use recovery::{Recovery, RecoveryOutcome};
pub use resolve::{Frozen, Keep};
pub use snapshots::UnfinishedRestore;
pub use tick::{Tick, Ticked};
pub use update::UpdateRequest;
pub use updater::FleetUpdater;

use crate::detect::ImagePolicy;
use crate::ids::ContainerId;
use crate::ports::{
    AvailabilityStore, EventStore, ImageVerifier, ReleaseSource, SettingsStore,
    UpdateConfigRepository, UpdatePorts,
};
use crate::update::ENGINE_WAIT;

/// Everything the façade needs from outside.
#[derive(Clone)]
pub struct FleetPorts {
    /// What an update needs.
    pub update: UpdatePorts,
    /// Registries.
    pub releases: Arc<dyn ReleaseSource>,
    /// The event log.
    pub events: Arc<dyn EventStore>,
    /// Tenants' configs.
    pub configs: Arc<dyn UpdateConfigRepository>,
    /// Settings of the whole fleet.
    pub settings: Arc<dyn SettingsStore>,
    /// What the last check found.
    pub availability: Arc<dyn AvailabilityStore>,
    /// Verifies the signatures of what is to be started; none: signatures are not asked for.
    pub verifier: Option<Arc<dyn ImageVerifier>>,
}

impl fmt::Debug for FleetPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetPorts").finish_non_exhaustive()
    }
}

/// Options of the façade.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Prefix of users' labels.
    pub label_prefix: String,
    /// Snapshots kept for each instance after an update.
    pub keep_snapshots: u32,
    /// Age from which a snapshot goes after an update; the newest of an instance stays. None: whatever its age.
    pub snapshot_max_age: Option<Duration>,
    /// How long an update waits for an engine that went away before it is left to recovery.
    pub engine_wait: Duration,
    /// The container in which fleet itself runs, if it does.
    pub own_container: Option<ContainerId>,
    /// The repositories that may be started; none: all of them.
    pub image_policy: Option<ImagePolicy>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            label_prefix: crate::model::labels::DEFAULT_PREFIX.to_owned(),
            keep_snapshots: 3,
            snapshot_max_age: None,
            engine_wait: ENGINE_WAIT,
            own_container: None,
            image_policy: None,
        }
    }
}

/// A fleet: the containers of one engine, and everything that is known of them.
#[derive(Debug, Clone)]
pub struct Fleet {
    ports: FleetPorts,
    options: FleetOptions,
    live: live::Live,
    shared: shared_guard::SharedGuards,
}

impl Fleet {
    /// A fleet over these ports.
    #[must_use]
    pub fn new(ports: FleetPorts, options: FleetOptions) -> Self {
        Self {
            ports,
            options,
            live: live::Live::default(),
            shared: shared_guard::SharedGuards::default(),
        }
    }

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> &FleetPorts {
        &self.ports
    }

    /// Asks all work of this fleet to stop: nothing begins any more, and each update under way stops between two steps,
    /// but not while its instance is out of service. What stops stays in the journal; the next recovery goes on with it.
    pub fn stop(&self) {
        self.live.stop();
    }

    /// Waits until no update and no work on volumes is under way in this process.
    pub async fn idle(&self) {
        self.live.idle().await;
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &FleetOptions {
        &self.options
    }
}
