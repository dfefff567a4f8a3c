//! What is frozen of a container: everything that is needed to make it again after it, its image and its parents are
//! gone.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::ids::ContainerId;
use fleet_core::model::FrozenSpec;
use fleet_core::ports::{PortError, PortErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The adapter's part of a [`FrozenSpec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineSpec {
    /// Version of this form.
    pub(crate) schema: u32,
    /// The raw inspect answer.
    pub(crate) inspect: Value,
    /// `Config` of the container's image, by its id.
    pub(crate) image_config: Value,
    /// The engine host's name: containers on the host network show it as their hostname.
    pub(crate) host_name: String,
    /// Targets of mounts that come from other containers.
    pub(crate) inherited_targets: BTreeSet<String>,
    /// Full ids of the containers that the settings name, by the way they name them.
    pub(crate) parents: BTreeMap<String, ContainerId>,
}

impl EngineSpec {
    /// The version of the form that this code writes.
    pub(crate) const SCHEMA: u32 = 1;

    /// Reads the adapter's part back.
    ///
    /// # Errors
    /// `Invalid`: it was written by another version, or not by this adapter.
    pub(crate) fn of(frozen: &FrozenSpec) -> Result<Self, PortError> {
        let op = "read a frozen container";
        let invalid = |message: String| PortError::new(op, PortErrorKind::Invalid, message);
        let schema = frozen.engine["schema"].as_u64().unwrap_or(0);
        if schema != u64::from(Self::SCHEMA) {
            return Err(invalid(format!(
                "expected schema {}, found {schema}",
                Self::SCHEMA
            )));
        }
        let spec: Self = serde_json::from_value(frozen.engine.clone())
            .map_err(|source| invalid("it is not complete".to_owned()).with_source(source))?;
        let id = ContainerId::new(crate::json::text(&spec.inspect["Id"]));
        if id.as_ref() == Ok(&frozen.container.id) {
            Ok(spec)
        } else {
            Err(invalid(format!(
                "expected the settings of {}",
                frozen.container.id
            )))
        }
    }

    /// The container's id, as the engine wrote it.
    pub(crate) fn id(&self) -> &str {
        crate::json::text(&self.inspect["Id"])
    }

    /// The first 12 digits of the id, which the engine uses as hostname and alias.
    pub(crate) fn short_id(&self) -> &str {
        self.id().get(..12).unwrap_or(self.id())
    }
}
