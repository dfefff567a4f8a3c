//! Looking at the fleet: the only place where the engine's containers become instances.

use std::collections::BTreeMap;

use super::{Fleet, FleetError};
use crate::ids::{ContainerId, InstanceId, InstanceName};
use crate::model::{Container, InstanceSettings, Inventory, LabelWarning};
use crate::update::is_transitional;

/// The engine's containers at one moment, with the settings of those that are workloads.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Every container.
    pub inventory: Inventory,
    /// Settings of every workload, managed or not, by container.
    pub settings: BTreeMap<ContainerId, InstanceSettings>,
    /// Labels that were not understood, with the container's name.
    pub warnings: Vec<(String, LabelWarning)>,
}

/// An instance that fleet manages.
#[derive(Debug, Clone, Copy)]
pub struct Managed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its container.
    pub container: &'a Container,
    /// Its settings.
    pub settings: &'a InstanceSettings,
}

impl Survey {
    /// Reads the labels of every workload.
    #[must_use]
    pub fn new(prefix: &str, inventory: Inventory) -> Self {
        let mut settings = BTreeMap::new();
        let mut warnings = Vec::new();
        for container in inventory
            .containers
            .iter()
            .filter(|container| !is_transitional(container))
        {
            let (read, found) = InstanceSettings::read(prefix, container);
            if read.enabled {
                warnings.extend(
                    found
                        .into_iter()
                        .map(|warning| (container.name.clone(), warning)),
                );
            }
            settings.insert(container.id.clone(), read);
        }
        Self {
            inventory,
            settings,
            warnings,
        }
    }

    /// Instances that fleet manages, by name.
    pub fn managed(&self) -> impl Iterator<Item = Managed<'_>> {
        self.inventory.containers.iter().filter_map(|container| {
            let settings = self
                .settings
                .get(&container.id)
                .filter(|settings| settings.enabled)?;
            Some(Managed {
                name: &container.name,
                container,
                settings,
            })
        })
    }

    /// Instances for which releases are looked for.
    pub(super) fn followed(&self) -> impl Iterator<Item = Managed<'_>> {
        self.managed()
            .filter(|managed| managed.settings.restricted_by.is_none())
    }

    /// A workload by name, managed or not.
    #[must_use]
    pub fn workload(&self, name: &str) -> Option<Managed<'_>> {
        let container = self.inventory.by_name(name)?;
        let settings = self.settings.get(&container.id)?;
        Some(Managed {
            name: &container.name,
            container,
            settings,
        })
    }
}

impl Managed<'_> {
    /// The instance's id.
    ///
    /// # Errors
    /// The container's name is not one that an instance can have.
    pub fn id(&self) -> Result<InstanceId, FleetError> {
        match InstanceName::new(self.name) {
            Ok(name) => Ok(InstanceId::local(name)),
            Err(_) => Err(FleetError::UnknownInstance {
                name: self.name.to_owned(),
                nearest: None,
            }),
        }
    }
}

impl Fleet {
    /// Looks at every container of the engine.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn survey(&self) -> Result<Survey, FleetError> {
        let inventory = self.ports.update.runtime.inventory().await?;
        Ok(Survey::new(&self.options.label_prefix, inventory))
    }

    pub(super) fn unknown(survey: &Survey, name: &str) -> FleetError {
        let names = survey.managed().map(|managed| managed.name);
        let nearest = names
            .map(|known| (strsim::levenshtein(known, name), known))
            .min()
            .filter(|(distance, _)| *distance <= name.len().div_ceil(2))
            .map(|(_, known)| known.to_owned());
        FleetError::UnknownInstance {
            name: name.to_owned(),
            nearest,
        }
    }
}
