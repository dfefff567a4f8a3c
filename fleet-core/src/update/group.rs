//! What must move together.
//!
//! Containers that use a namespace or the volumes of another one break when that one is replaced; containers that
//! write to the same volume, or depend on each other, share the data of one moment. So each such set is one update:
//! stopped in reverse order, copied at one point, started in order, rolled back all or none.

use std::collections::{BTreeMap, BTreeSet};

use super::preflight::Refusal;
use crate::ids::{ContainerId, VolumeName};
use crate::model::{Container, InstanceSettings, Inventory, labels};

/// Members in the order of starting: parents and dependencies first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Ids in the order of starting.
    pub members: Vec<ContainerId>,
    /// Why the group cannot be updated as one, if it cannot.
    pub refusals: Vec<Refusal>,
}

/// The set that must move when these containers are updated.
///
/// `settings` holds the settings of every container that fleet manages; others are never members, and a bond with one
/// that cannot be broken is a refusal.
#[must_use]
pub fn group(
    inventory: &Inventory,
    settings: &BTreeMap<ContainerId, InstanceSettings>,
    targets: &[ContainerId],
) -> Group {
    let bonds = Bonds::new(inventory, settings);
    let mut refusals = Vec::new();
    let mut members: BTreeSet<ContainerId> = BTreeSet::new();
    let mut todo: Vec<ContainerId> = targets.to_vec();
    while let Some(id) = todo.pop() {
        if !members.insert(id.clone()) {
            continue;
        }
        for (other, why) in bonds.bound_to(&id) {
            match settings.get(&other.id).filter(|settings| settings.enabled) {
                Some(_) => todo.push(other.id.clone()),
                None if why.is_soft() => {}
                None => refusals.push(why.refusal(inventory, &id, other)),
            }
        }
    }
    match bonds.ordered(&members) {
        Ok(members) => Group { members, refusals },
        Err(cycle) => {
            refusals.push(Refusal::for_good(
                "cycle",
                format!(
                    "expected an order of starting, found a cycle: {}",
                    cycle.join(" → ")
                ),
                "remove one of the dependencies (fleet.depends_on, or compose's depends_on)",
            ));
            Group {
                members: members.into_iter().collect(),
                refusals,
            }
        }
    }
}

/// Why two containers move together.
enum Bond {
    /// The other uses a namespace or the volumes of this one.
    Child(String),
    /// Both may write to this volume.
    Volume(VolumeName),
    /// One depends on the other.
    Dependency,
}

impl Bond {
    /// Whether the bond may be ignored where fleet does not manage the other one.
    fn is_soft(&self) -> bool {
        matches!(self, Self::Dependency)
    }

    fn refusal(&self, inventory: &Inventory, this: &ContainerId, other: &Container) -> Refusal {
        let this = inventory
            .by_id(this)
            .map_or("", |container| container.name.as_str());
        let what = match self {
            Self::Child(via) => format!("uses the {via} of {this}"),
            Self::Volume(name) => format!("runs on volume {name} as well"),
            Self::Dependency => format!("is bound to {this}"),
        };
        Refusal::for_good(
            "outside_group",
            format!(
                "container {} {what}, and fleet does not manage it",
                other.name
            ),
            format!(
                "label {} with fleet.enable=true so that both move together, or stop it",
                other.name
            ),
        )
    }
}

struct Bonds<'a> {
    inventory: &'a Inventory,
    settings: &'a BTreeMap<ContainerId, InstanceSettings>,
}

impl<'a> Bonds<'a> {
    fn new(
        inventory: &'a Inventory,
        settings: &'a BTreeMap<ContainerId, InstanceSettings>,
    ) -> Self {
        Self {
            inventory,
            settings,
        }
    }

    fn workloads(&self) -> impl Iterator<Item = &'a Container> {
        self.inventory
            .containers
            .iter()
            .filter(|container| !labels::is_auxiliary(&container.labels))
    }

    /// Everything that must move when this container does.
    fn bound_to(&self, id: &ContainerId) -> Vec<(&'a Container, Bond)> {
        let Some(this) = self.inventory.by_id(id) else {
            return Vec::new();
        };
        let volumes: BTreeSet<&VolumeName> = this.writable_volumes().collect();
        let mut bound = Vec::new();
        for other in self.workloads().filter(|other| other.id != *id) {
            if let Some(parent) = other
                .parents
                .iter()
                .find(|parent| parent.id.as_ref() == Some(id))
            {
                bound.push((other, Bond::Child(parent.via.clone())));
            } else if let Some(volume) = self.shared(&volumes, other) {
                bound.push((other, Bond::Volume(volume.clone())));
            } else if self.depends(this, other) || self.depends(other, this) {
                bound.push((other, Bond::Dependency));
            }
        }
        bound
    }

    /// A volume that both may write to. One that does not run, and that fleet does not manage, writes nothing.
    fn shared(
        &self,
        volumes: &BTreeSet<&VolumeName>,
        other: &'a Container,
    ) -> Option<&'a VolumeName> {
        let managed = self
            .settings
            .get(&other.id)
            .is_some_and(|settings| settings.enabled);
        if !managed && !other.is_up() {
            return None;
        }
        other.writable_volumes().find(|name| volumes.contains(name))
    }

    /// Whether `this` says that it depends on `other`: by container name, or by service name in one compose project.
    fn depends(&self, this: &Container, other: &Container) -> bool {
        let Some(settings) = self.settings.get(&this.id) else {
            return false;
        };
        settings
            .depends_on
            .iter()
            .any(|name| *name == other.name || is_service(this, other, name))
    }

    /// Whether `this` must be started after `other`.
    fn starts_after(&self, this: &Container, other: &Container) -> bool {
        this.parents
            .iter()
            .any(|parent| parent.id.as_ref() == Some(&other.id))
            || self.depends(this, other)
    }

    /// The members so that each comes after what it needs; ties by name. A cycle is returned as names.
    fn ordered(&self, members: &BTreeSet<ContainerId>) -> Result<Vec<ContainerId>, Vec<String>> {
        let mut left: Vec<&Container> = self
            .workloads()
            .filter(|container| members.contains(&container.id))
            .collect();
        left.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ordered = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let free = left
                .iter()
                .position(|this| !left.iter().any(|other| self.starts_after(this, other)));
            match free {
                Some(index) => ordered.push(left.remove(index).id.clone()),
                None => {
                    return Err(left
                        .iter()
                        .map(|container| container.name.clone())
                        .collect());
                }
            }
        }
        Ok(ordered)
    }
}

fn is_service(this: &Container, other: &Container, name: &str) -> bool {
    let label = |container: &Container, key: &str| container.labels.get(key).cloned();
    let project = "com.docker.compose.project";
    label(this, project).is_some()
        && label(this, project) == label(other, project)
        && label(other, "com.docker.compose.service").as_deref() == Some(name)
}
