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
        let mut survey = Self {
            inventory: Inventory::default(),
            settings: BTreeMap::new(),
            warnings: Vec::new(),
        };
        for container in &inventory.containers {
            survey.read_labels(prefix, container);
        }
        survey.inventory = inventory;
        survey
    }

    fn read_labels(&mut self, prefix: &str, container: &Container) {
        if is_transitional(container) {
            return;
        }
        let (read, found) = InstanceSettings::read(prefix, container);
        if read.enabled {
            let named = found
                .into_iter()
                .map(|warning| (container.name.clone(), warning));
            self.warnings.extend(named);
        }
        self.settings.insert(container.id.clone(), read);
    }

    /// Puts one container in the place of those that had its name or its id before.
    pub(super) fn replace(&mut self, prefix: &str, container: Container) {
        let is_before =
            |known: &Container| known.name == container.name || known.id == container.id;
        let (settings, warnings) = (&mut self.settings, &mut self.warnings);
        self.inventory.containers.retain(|known| {
            let before = is_before(known);
            if before {
                settings.remove(&known.id);
                warnings.retain(|(name, _)| *name != known.name);
            }
            !before
        });
        self.read_labels(prefix, &container);
        let containers = &mut self.inventory.containers;
        let place = containers.partition_point(|known| known.name < container.name);
        containers.insert(place, container);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeHost, image, instance};

    fn container(name: &str, id: char, tenant: &str) -> Container {
        let host = FakeHost::new(1);
        host.load(image("app:1"));
        host.run(instance(name));
        let mut container = host.container(name).expect("it runs");
        container.id = ContainerId::new(id.to_string().repeat(64)).expect("an id");
        for (label, value) in [("fleet.tenant", tenant), ("fleet.nonsense", "")] {
            container.labels.insert(label.to_owned(), value.to_owned());
        }
        container
    }

    #[test]
    fn a_container_takes_the_place_of_the_one_with_its_name() {
        let containers = [("a", 'a'), ("b", 'b'), ("c", 'c')];
        let containers = containers
            .map(|(name, id)| container(name, id, "old"))
            .to_vec();
        let mut survey = Survey::new("fleet.", Inventory { containers });
        survey.replace("fleet.", container("b", 'd', "new"));
        let names = survey.managed().map(|managed| managed.name);
        assert_eq!(names.collect::<Vec<_>>(), ["a", "b", "c"]);
        let b = survey.workload("b").expect("it is there");
        assert_eq!(b.container.id, container("b", 'd', "new").id);
        assert_eq!(b.settings.tenant.as_str(), "new");
        assert_eq!((survey.settings.len(), survey.warnings.len()), (3, 3));

        survey.replace("fleet.", container("aa", 'a', "new"));
        let names = survey.managed().map(|managed| managed.name);
        assert_eq!(names.collect::<Vec<_>>(), ["aa", "b", "c"], "renamed");
    }
}
