//! What a guard must hold so that a prune takes nothing of an instance while it is stopped.

use std::collections::BTreeSet;

use crate::ids::{ImageId, VolumeName};
use crate::model::{Container, MountKind, labels};
use crate::ports::{GuardOwner, GuardRequest};

/// The engine's own network, which no prune takes.
const DEFAULT_NETWORK: &str = "bridge";

/// What of one or several containers must be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Belongings {
    image_id: ImageId,
    volumes: BTreeSet<VolumeName>,
    /// Only those that users made.
    networks: BTreeSet<String>,
    on_default_network: bool,
    containers: usize,
}

impl Belongings {
    /// Those of one container.
    pub(crate) fn of(container: &Container) -> Self {
        let shares_network = container.network_mode.starts_with("container:");
        let networks = container.networks.iter().filter(|_| !shares_network);
        let networks: BTreeSet<&str> = networks.map(|place| place.network.as_str()).collect();
        let volumes = container
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Volume { name, .. } => Some(name.clone()),
                _ => None,
            });
        Self {
            image_id: container.image_id.clone(),
            volumes: volumes.collect(),
            on_default_network: networks.contains(DEFAULT_NETWORK),
            networks: networks
                .into_iter()
                .filter(|name| is_user_network(name))
                .map(str::to_owned)
                .collect(),
            containers: 1,
        }
    }

    /// Adds those of another container if one guard may hold both: made from one image, and on the same networks. A guard on
    /// more networks than its instances would keep what is none of theirs.
    pub(crate) fn add(&mut self, other: Self) -> bool {
        let alike = self.image_id == other.image_id
            && self.networks == other.networks
            && self.on_default_network == other.on_default_network;
        if alike {
            self.volumes.extend(other.volumes);
            self.containers += other.containers;
        }
        alike
    }

    /// Whether a guard that is there holds all of it.
    pub(crate) fn held_by(&self, guard: &Container) -> bool {
        let holds_volume = |volume: &VolumeName| {
            let mut mounts = guard.mounts.iter();
            mounts.any(
                |mount| matches!(&mount.kind, MountKind::Volume { name, .. } if name == volume),
            )
        };
        let holds_network = |network: &String| {
            let mut networks = guard.networks.iter();
            networks.any(|place| place.network == *network)
        };
        guard.is_up()
            && labels::is_auxiliary(&guard.labels)
            && guard.image_id == self.image_id
            && self.volumes.iter().all(holds_volume)
            && self.networks.iter().all(holds_network)
    }

    /// The request for a guard that holds it.
    pub(crate) fn request(self, owner: GuardOwner, name: String) -> GuardRequest {
        GuardRequest {
            owner,
            name,
            image_id: self.image_id,
            volumes: self.volumes.into_iter().collect(),
            networks: self.networks.into_iter().collect(),
            default_network: self.on_default_network,
            containers: self.containers,
        }
    }
}

fn is_user_network(name: &str) -> bool {
    !matches!(name, DEFAULT_NETWORK | "host" | "none" | "default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunState;
    use crate::testing::{FakeHost, image, instance};

    /// An instance, and a guard that has everything it has.
    fn held() -> (Container, Container) {
        let host = FakeHost::new(1);
        host.load(image("app:1"));
        host.run(instance("web").network("front"));
        let web = host.container("web").unwrap();
        let mut guard = web.clone();
        guard
            .labels
            .insert(labels::KIND.to_owned(), "guard".to_owned());
        (web, guard)
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Container), expect: bool) {
        let (web, mut guard) = held();
        assert!(!web.mounts.is_empty() && !web.networks.is_empty());
        change(&mut guard);
        assert_eq!(Belongings::of(&web).held_by(&guard), expect);
    }

    #[test]
    fn a_guard_holds_what_it_runs_with() {
        check(|_| {}, true);
        check(
            |guard| (guard.state, guard.pid) = (RunState::Exited, 0),
            false,
        );
        check(|guard| guard.mounts.clear(), false);
        check(|guard| guard.networks.clear(), false);
        check(|guard| guard.labels.clear(), false);
        let other = ImageId::new(format!("sha256:{}", "0".repeat(64))).unwrap();
        check(|guard| guard.image_id = other, false);
    }

    #[test]
    fn only_what_is_alike_is_held_together() {
        let (web, mut other) = held();
        let mut all = Belongings::of(&web);
        assert!(all.add(Belongings::of(&other)));
        other.networks.clear();
        assert!(!all.add(Belongings::of(&other)));
        assert_eq!(all.containers, 2);
    }
}
