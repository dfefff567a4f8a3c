//! Tenants and how they want to be updated.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A release stream that an instance follows: `canary`, `staging`, `stable`, or a name of the user's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Channel(pub String);

impl Default for Channel {
    fn default() -> Self {
        Self("stable".to_owned())
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who decides that a tenant's instances are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantMode {
    /// fleet, within the tenant's windows.
    Auto,
    /// A person: updates are marked as available and done when asked for.
    #[default]
    Manual,
}

impl TenantMode {
    /// The word users write.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

impl FromStr for TenantMode {
    type Err = crate::ids::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "manual" => Ok(Self::Manual),
            _ => Err(crate::ids::IdError {
                expected: "a mode: auto or manual",
                found: text.to_owned(),
            }),
        }
    }
}

/// A tenant's update config. Default: manual, hour 3 UTC, no windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Who decides.
    pub mode: TenantMode,
    /// Hour of the day (0–23, UTC) in which automatic updates start when no window is configured.
    pub preferred_hour_utc: u8,
    /// Weekly windows such as `Mon-Fri 02:00-05:00 Europe/Berlin`; they win over the preferred hour. Checked when
    /// written.
    pub windows: Vec<String>,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            mode: TenantMode::Manual,
            preferred_hour_utc: 3,
            windows: Vec::new(),
        }
    }
}
