//! Settings of the whole fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Upper bound for the mode of every tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GlobalMode {
    /// Tenants decide.
    #[default]
    Auto,
    /// Nothing happens unless a person asks.
    Manual,
    /// Nothing happens.
    Paused,
}

/// Settings that commands change and the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FleetSettings {
    /// Upper bound for the mode of every tenant.
    pub mode: GlobalMode,
    /// The global hold, if somebody set it.
    pub pause: Option<Pause>,
    /// Everything else by key, for instance `default.strategy`, `default.window`.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// A hold on the whole fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who set it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}
