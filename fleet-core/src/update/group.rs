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
    let mut all = Reached::default();
    for target in targets {
        all.join(bonds.reach(target));
    }
    bonds.in_order(all)
}

/// The sets into which these containers fall when all of them are updated, each one update; no container is in two. A
/// container that could be updated alone moves with the one that takes it along.
#[must_use]
pub fn groups(
    inventory: &Inventory,
    settings: &BTreeMap<ContainerId, InstanceSettings>,
    targets: &[ContainerId],
) -> Vec<Group> {
    let bonds = Bonds::new(inventory, settings);
    let mut sets: Vec<Reached> = Vec::new();
    let mut places: BTreeMap<ContainerId, usize> = BTreeMap::new();
    for target in targets {
        let mut set = bonds.reach(target);
        let touched: BTreeSet<usize> = set
            .members
            .iter()
            .filter_map(|id| places.get(id).copied())
            .collect();
        for place in touched {
            set.join(std::mem::take(&mut sets[place]));
        }
        let place = sets.len();
        places.extend(set.members.iter().map(|id| (id.clone(), place)));
        sets.push(set);
    }
    let sets = sets.into_iter().filter(|set| !set.members.is_empty());
    sets.map(|set| bonds.in_order(set)).collect()
}

/// What must move when something does.
#[derive(Default)]
struct Reached {
    members: BTreeSet<ContainerId>,
    refusals: Vec<Refusal>,
}

impl Reached {
    fn join(&mut self, other: Self) {
        self.members.extend(other.members);
        for refusal in other.refusals {
            if !self.refusals.contains(&refusal) {
                self.refusals.push(refusal);
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
    /// All that moves when one container does.
    fn reach(&self, target: &ContainerId) -> Reached {
        let mut reached = Reached::default();
        let mut todo = vec![target.clone()];
        while let Some(id) = todo.pop() {
            if !reached.members.insert(id.clone()) {
                continue;
            }
            for (other, why) in self.bound_to(&id) {
                let settings = self.settings.get(&other.id);
                match settings.filter(|settings| settings.enabled) {
                    Some(_) => todo.push(other.id.clone()),
                    None if why.is_soft() => {}
                    None => reached
                        .refusals
                        .push(why.refusal(self.inventory, &id, other)),
                }
            }
        }
        reached
    }

    fn in_order(&self, set: Reached) -> Group {
        let Reached {
            members,
            mut refusals,
        } = set;
        match self.ordered(&members) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ParentRef;
    use crate::testing::{FakeHost, Workload, image, instance};

    /// A parent, its child and a stranger.
    fn three() -> (Inventory, BTreeMap<ContainerId, InstanceSettings>) {
        let host = FakeHost::new(1);
        host.load(image("app:1").runs(Workload::healthy("1")));
        for name in ["child", "parent", "stranger"] {
            let run = instance(name).image("app:1").without_volumes();
            host.run(run.volume(name, "/data"));
        }
        let mut containers = host.containers();
        let parent = host.container("parent").unwrap().id;
        for container in &mut containers {
            if container.name == "child" {
                container.parents = vec![ParentRef {
                    via: "network".to_owned(),
                    reference: "parent".to_owned(),
                    id: Some(parent.clone()),
                }];
            }
        }
        let settings = containers.iter().map(|container| {
            let (settings, _) = InstanceSettings::read("fleet.", container);
            (container.id.clone(), settings)
        });
        let settings = settings.collect();
        (Inventory { containers }, settings)
    }

    #[test]
    fn whoever_comes_first_nobody_is_in_two_sets() {
        let (inventory, settings) = three();
        let id = |name: &str| inventory.by_name(name).unwrap().id.clone();
        let of = |targets: &[&str]| {
            let targets: Vec<_> = targets.iter().map(|name| id(name)).collect();
            let found = groups(&inventory, &settings, &targets).into_iter();
            let mut found: Vec<_> = found.map(|group| group.members).collect();
            found.sort_by_key(Vec::len);
            found
        };
        let pair = vec![id("parent"), id("child")];
        assert_eq!(of(&["child"]), [vec![id("child")]]);
        assert_eq!(of(&["parent"]), [pair.clone()]);
        for both in [["child", "parent"], ["parent", "child"]] {
            assert_eq!(of(&both), [pair.clone()]);
        }
        assert_eq!(
            of(&["child", "stranger", "parent"]),
            [vec![id("stranger")], pair]
        );
    }
}
