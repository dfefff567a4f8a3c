//! What exists: containers as observed, images, volumes, tenants, settings. No behaviour beyond invariants.

mod container;
mod health;
mod release;
mod settings;
mod snapshot;
mod tenant;

pub mod labels;

pub use container::{
    Container, EngineHealth, FrozenSpec, Inventory, Mount, MountKind, NetworkAttachment, ParentRef,
    RestartPolicy, RunState,
};
pub use health::{HealthSpec, HttpCheck};
pub use labels::{InstanceSettings, LabelWarning, SnapshotChoice};
pub use release::{ImageInfo, Platform, Release};
pub use settings::{FleetSettings, GlobalMode, Pause};
pub use snapshot::{Consistency, SnapshotEstimate, SnapshotInfo, SnapshotVolume, VolumeSource};
pub use tenant::{Channel, TenantMode, UpdateConfig};
