//! What others do to a host: the engine's restarts, prunes, people, the clock.

use std::time::Duration;

use super::{Ctr, Engine, Fact, Hand, Machine};
use crate::model::RunState;
use crate::ports::EngineEventKind;
use crate::time::Timestamp;

/// Something that happens to a host without fleet doing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// The engine restarts and ends its containers properly.
    EngineRestart {
        /// How long it is away.
        down_for: Duration,
    },
    /// The engine is killed and comes back; its containers live until then.
    EngineKill {
        /// How long it is away.
        down_for: Duration,
    },
    /// The host boots: every process ends, the engine with them.
    Reboot {
        /// How long the engine is away.
        down_for: Duration,
    },
    /// `docker system prune -af --volumes`.
    Prune,
    /// Somebody else does something with an instance's containers.
    Foreign(ForeignMove),
    /// The wall clock is set forward or back.
    ClockJump {
        /// By so many milliseconds, negative for back.
        millis: i64,
    },
    /// The disk has so many bytes free from now on.
    FreeBytes(u64),
}

/// What somebody else does with a container, found by its name at that moment; without such a container nothing, and
/// nobody is excused by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForeignMove {
    /// `docker stop`.
    Stop(String),
    /// `docker start`.
    Start(String),
    /// `docker rm -f`.
    Remove(String),
    /// `docker rename`.
    Rename(String, String),
    /// `docker rm -f` and the same again under the same name, from the image under its tag (compose).
    Recreate(String),
    /// Takes a name that nobody has with a container of its own.
    TakeName(String),
}

impl Machine {
    /// Makes a move. Whoever wants something of the engine while it is away gets nothing, as fleet itself.
    pub(in super::super) fn make_move(&mut self, what: Move) {
        let asks_the_engine = matches!(what, Move::Prune | Move::Foreign(_));
        if asks_the_engine && self.engine != Engine::Up {
            self.trace
                .add(self.now, "move", &format!("{what:?}"), "the engine is away");
            return;
        }
        self.trace.add(self.now, "move", &format!("{what:?}"), "");
        self.hand = Hand::Other;
        let mut happened = true;
        match &what {
            Move::EngineRestart { down_for } => self.engine_goes(*down_for, false),
            Move::EngineKill { down_for } => self.engine_goes(*down_for, true),
            Move::Reboot { down_for } => self.reboot(*down_for),
            Move::Prune => self.prune(),
            Move::Foreign(foreign) => happened = self.foreign(foreign),
            // The clock belongs to the host, which moves it.
            Move::ClockJump { .. } => {}
            Move::FreeBytes(bytes) => self.free_bytes = *bytes,
        }
        self.hand = Hand::Engine;
        if happened {
            self.fact(Fact::Moved(what));
        }
    }

    /// Containers that do not run, then images, volumes and networks that no container uses.
    fn prune(&mut self) {
        for index in 0..self.containers.len() {
            let ctr = &self.containers[index];
            let running = ctr.is_running() || ctr.state == RunState::Restarting;
            if !running && ctr.process.is_none() {
                self.take_away(index, false);
            }
        }
        self.containers
            .retain(|ctr| ctr.state != RunState::Removing);
        let containers = &self.containers;
        let used = |by: &dyn Fn(&Ctr) -> bool| containers.iter().any(by);
        self.images.retain(|id, _| used(&|ctr| &ctr.image_id == id));
        self.tags.retain(|_, id| self.images.contains_key(id));
        self.volumes
            .retain(|name, _| used(&|ctr| ctr.mounts.iter().any(|mount| &mount.volume == name)));
        self.networks.retain(|name, id| {
            *id == 0 || used(&|ctr| ctr.networks.contains(&(name.clone(), *id)))
        });
    }

    /// Somebody else's act; says whether anything came of it.
    fn foreign(&mut self, what: &ForeignMove) -> bool {
        let (ForeignMove::Stop(name)
        | ForeignMove::Start(name)
        | ForeignMove::Remove(name)
        | ForeignMove::Rename(name, _)
        | ForeignMove::Recreate(name)
        | ForeignMove::TakeName(name)) = what;
        let mut containers = self.containers.iter();
        let found = containers.position(|ctr| ctr.name == *name && !ctr.guard);
        match (what, found) {
            (ForeignMove::TakeName(_), _) => return self.take_name(name),
            (_, None) => return false,
            (ForeignMove::Stop(_), Some(index)) => {
                let ctr = &self.containers[index];
                let (id, up) = (ctr.id.clone(), ctr.process.is_some());
                let restarting = ctr.state == RunState::Restarting;
                return self.stop(&id, Some(Duration::ZERO)).is_ok() && (up || restarting);
            }
            (ForeignMove::Start(_), Some(index)) => {
                let ctr = &self.containers[index];
                let (id, up) = (ctr.id.clone(), ctr.process.is_some());
                return self.start(&id).is_ok() && !up;
            }
            (ForeignMove::Remove(_), Some(index)) => self.kill_and_take_away(index),
            (ForeignMove::Rename(_, to), Some(index)) => {
                if self.name_taken(to) {
                    return false;
                }
                self.containers[index].name.clone_from(to);
                self.announce(index, EngineEventKind::Rename);
            }
            (ForeignMove::Recreate(_), Some(index)) => {
                let mut frozen = self.frozen(index);
                self.kill_and_take_away(index);
                if let Some(image) = self.tags.get(&frozen.container.image) {
                    frozen.container.image_id = image.clone();
                }
                self.run_by_hand(&frozen);
            }
        }
        true
    }

    fn take_name(&mut self, name: &str) -> bool {
        if self.name_taken(name) || self.containers.is_empty() {
            return false;
        }
        let mut frozen = self.frozen(0);
        name.clone_into(&mut frozen.container.name);
        frozen.container.mounts.clear();
        frozen.engine = serde_json::Value::Null;
        self.run_by_hand(&frozen);
        true
    }

    fn run_by_hand(&mut self, frozen: &crate::model::FrozenSpec) {
        if let Ok(created) = self.make_by_hand(frozen) {
            let _ = self.start(&created.id);
        }
    }

    fn kill_and_take_away(&mut self, index: usize) {
        let ctr = &mut self.containers[index];
        ctr.stopped_by_hand = true;
        if ctr.process.take().is_some() {
            let id = ctr.id.clone();
            self.fact(Fact::Ended(id));
        }
        self.take_away(index, false);
        self.containers
            .retain(|ctr| ctr.state != RunState::Removing);
    }

    /// The wall clock as it would be after a jump.
    pub(in super::super) fn jumped(&self, millis: i64) -> Timestamp {
        Timestamp::from_millis(self.wall.as_millis().saturating_add(millis))
    }
}
