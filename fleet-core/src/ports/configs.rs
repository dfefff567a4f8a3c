//! Tenants' configs, the fleet's settings, and what the last check found.

use async_trait::async_trait;

use super::JournalError;
use crate::ids::{ImageId, InstanceId, TenantId};
use crate::image::{Digest, ImageRef};
use crate::model::{FleetSettings, UpdateConfig};
use crate::time::Timestamp;

/// A tenant with its config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantConfig {
    /// The tenant.
    pub tenant: TenantId,
    /// Its config.
    pub config: UpdateConfig,
}

/// Update configs of tenants.
#[async_trait]
pub trait UpdateConfigRepository: Send + Sync {
    /// The config of a tenant, none if it has none (then labels and defaults decide).
    ///
    /// # Errors
    /// The store failed.
    async fn get(&self, tenant: &TenantId) -> Result<Option<UpdateConfig>, JournalError>;

    /// Sets the config of a tenant; an event `config.changed` with old, new and actor is written with it.
    ///
    /// # Errors
    /// The store failed.
    async fn upsert(
        &self,
        tenant: &TenantId,
        config: &UpdateConfig,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), JournalError>;

    /// Tenants whose mode is automatic, by name.
    ///
    /// # Errors
    /// The store failed.
    async fn list_auto_enabled(&self) -> Result<Vec<TenantConfig>, JournalError>;

    /// All tenants that have a config, by name.
    ///
    /// # Errors
    /// The store failed.
    async fn list(&self) -> Result<Vec<TenantConfig>, JournalError>;
}

/// Settings of the whole fleet.
#[async_trait]
pub trait SettingsStore: Send + Sync {
    /// The settings; defaults where nothing was set.
    ///
    /// # Errors
    /// The store failed.
    async fn settings(&self) -> Result<FleetSettings, JournalError>;

    /// Sets them; an event `config.changed` with old, new and actor is written with it.
    ///
    /// # Errors
    /// The store failed.
    async fn set_settings(
        &self,
        settings: &FleetSettings,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), JournalError>;
}

/// What the last look at the registry found for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// The instance.
    pub instance: InstanceId,
    /// The reference that was asked for.
    pub image: ImageRef,
    /// What it points to; none where the registry could not say.
    pub digest: Option<Digest>,
    /// Whether the instance is behind; none: unknown.
    pub behind: Option<bool>,
    /// Why it is unknown or held, for people.
    pub note: Option<String>,
    /// When fleet saw this digest first.
    pub first_seen: Timestamp,
    /// When fleet looked last.
    pub checked_at: Timestamp,
    /// Since when something newer was known than what it runs; none where nothing is.
    pub lag: Option<Lag>,
}

/// How long an instance has been behind. A newer release on top does not begin it anew; another image under the instance
/// does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The image that it runs.
    pub runs: ImageId,
    /// When something newer was found first.
    pub since: Timestamp,
    /// Whether an alert says so.
    pub told: bool,
}

impl Availability {
    /// Whether there is something to take now: the instance is behind, and nothing holds it. What is held is behind too,
    /// with a note.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.behind == Some(true) && self.note.is_none()
    }
}

/// Keeps what `check` found, for `ps` and for the planner.
#[async_trait]
pub trait AvailabilityStore: Send + Sync {
    /// Replaces the findings of these instances. `first_seen` of an unchanged digest is kept.
    ///
    /// # Errors
    /// The store failed.
    async fn found(&self, findings: Vec<Availability>) -> Result<(), JournalError>;

    /// All findings, by instance.
    ///
    /// # Errors
    /// The store failed.
    async fn available(&self) -> Result<Vec<Availability>, JournalError>;
}
