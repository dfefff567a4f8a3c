//! How containers begin, write and end, and what an engine restart does to them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::workload::{Boot, ROWS, StopManner, Workload};
use super::{Ack, Ctr, CtrMount, Deed, Engine, Fact, Machine, Process};
use crate::ids::{ContainerId, ImageId, VolumeName};
use crate::model::{RestartPolicy, RunState};
use crate::ports::{EngineEvent, EngineEventKind, PortError, PortErrorKind};
use crate::time::Timestamp;

/// Grace of a stop where neither caller nor container names one.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// First pause before the engine restarts a container by its policy; doubles each time.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// A start that is this young when the engine is killed may leave an orphan.
const ORPHAN_AGE: Duration = Duration::from_secs(1);

/// How often it does, in a thousand (12 of 16 runs were seen).
const ORPHANS_PER_MILLE: u64 = 750;

/// Cap on the restart pause's doublings.
const RESTART_DOUBLINGS_MAX: u64 = 9;

impl Machine {
    /// Brings the world to this instant: the engine's return, ends of processes, restarts, writes.
    pub(in super::super) fn settle(&mut self, now: Duration, wall: Timestamp) {
        self.now = now;
        self.wall = wall;
        if let Engine::Down {
            went,
            until,
            killed,
        } = self.engine
            && now >= until
        {
            self.engine_returns(went, killed);
        }
        for index in 0..self.containers.len() {
            self.live(index);
        }
        let left = std::mem::take(&mut self.left_behind);
        for ctr in &left {
            self.write_as(ctr.serial, None, &ctr.mounts);
        }
        self.left_behind = left;
        self.containers
            .retain(|ctr| ctr.state != RunState::Removing);
    }

    /// One container's share of passing time.
    fn live(&mut self, index: usize) {
        let ctr = &self.containers[index];
        let due = ctr.process.as_ref().and_then(|process| process.ends);
        match due {
            Some((at, code)) if at <= self.now => {
                self.ended(index, code);
            }
            _ if ctr.process.is_some() => self.write(index, false),
            _ => {}
        }
        let restart = self.containers[index].restart_at;
        if restart.is_some_and(|at| at <= self.now) && self.engine == Engine::Up {
            self.containers[index].restart_at = None;
            self.containers[index].restart_count += 1;
            self.begin(index);
        }
    }

    /// The workload of a container writes, see [`Machine::write_as`].
    fn write(&mut self, index: usize, boot: bool) {
        let ctr = &mut self.containers[index];
        if ctr.guard || ctr.mounts.is_empty() && !boot {
            return;
        }
        let (serial, boots) = (ctr.serial, boot.then(|| ctr.image_id.clone()));
        let mounts = std::mem::take(&mut ctr.mounts);
        self.write_as(serial, boots.as_ref(), &mounts);
        self.containers[index].mounts = mounts;
    }

    /// A workload writes one row to each of its volumes; when it boots what the version of its image does to the data
    /// first.
    fn write_as(&mut self, serial: u32, boots: Option<&ImageId>, mounts: &[CtrMount]) {
        let workload = boots
            .and_then(|image| self.images.get(image))
            .map(|image| &image.workload);
        for mount in mounts.iter().filter(|mount| mount.writable) {
            let Some(volume) = self.volumes.get_mut(&mount.volume) else {
                continue;
            };
            let mut note = |deed| {
                self.acks.push(Ack {
                    volume: volume.serial,
                    container: serial,
                    deed,
                });
            };
            if let Some(workload) = workload {
                workload.migrate(&mut volume.files);
                note(Deed::Boot);
            }
            let row = self.next_row;
            self.next_row += 1;
            let bytes = row.to_le_bytes();
            match volume.files.get_mut(ROWS) {
                Some(rows) => rows.extend_from_slice(&bytes),
                None => drop(volume.files.insert(ROWS.to_owned(), bytes.to_vec())),
            }
            note(Deed::Row(row));
        }
        if let Some(image) = boots {
            self.writers.insert(serial, image.clone());
        }
    }

    /// Forgets a container; an orphan of it lives on.
    pub(in super::super) fn drop_container(&mut self, id: &ContainerId) {
        if let Some(index) = self.containers.iter().position(|ctr| &ctr.id == id) {
            let ctr = self.containers.remove(index);
            if ctr.process.as_ref().is_some_and(|process| process.orphan) {
                self.left_behind.push(ctr);
            }
        }
    }

    /// The process of a container begins.
    fn begin(&mut self, index: usize) {
        let now = self.now;
        let workload = self.workload(index);
        let ends = match (workload.boot, workload.exits_after) {
            (Boot::Exits(code), _) => Some((now, code)),
            (_, Some((after, code))) => Some((now + after, code)),
            _ => None,
        };
        let ctr = &mut self.containers[index];
        ctr.process = Some(Process {
            since: now,
            ends,
            stopping: false,
            orphan: false,
        });
        ctr.state = RunState::Running;
        ctr.started_at = Some(self.wall);
        ctr.stopped_by_hand = false;
        let id = ctr.id.clone();
        self.fact(Fact::Started(id, self.hand));
        self.announce(index, EngineEventKind::Start);
        self.write(index, true);
    }

    /// The process of a container is gone.
    fn ended(&mut self, index: usize, code: i64) {
        let (now, wall) = (self.now, self.wall);
        let ctr = &mut self.containers[index];
        let known = ctr.process.take().is_some_and(|process| !process.orphan);
        let ended = Fact::Ended(ctr.id.clone());
        self.fact(ended);
        if !known {
            return;
        }
        let ctr = &mut self.containers[index];
        ctr.exit_code = Some(code);
        ctr.finished_at = Some(wall);
        ctr.state = RunState::Exited;
        if !ctr.stopped_by_hand && ctr.policy_restarts(code) {
            let doublings = ctr.restart_count.min(RESTART_DOUBLINGS_MAX);
            ctr.restart_at = Some(now + RESTART_PAUSE * (1 << doublings));
            ctr.state = RunState::Restarting;
        }
        let gone = ctr.auto_remove && ctr.state == RunState::Exited;
        self.announce(index, EngineEventKind::Die);
        if gone {
            self.take_away(index, true);
        }
    }

    /// Removes a container at once; its place in the list stays until the next look.
    pub(super) fn take_away(&mut self, index: usize, volumes_too: bool) {
        let ctr = &mut self.containers[index];
        ctr.state = RunState::Removing;
        ctr.name.insert(0, '\0');
        if volumes_too {
            let anonymous: Vec<VolumeName> = ctr
                .mounts
                .iter()
                .filter(|mount| mount.anonymous)
                .map(|mount| mount.volume.clone())
                .collect();
            self.volumes.retain(|name, _| !anonymous.contains(name));
        }
        self.announce(index, EngineEventKind::Destroy);
    }

    fn workload(&self, index: usize) -> Workload {
        let ctr = &self.containers[index];
        match self.images.get(&ctr.image_id) {
            Some(image) if !ctr.guard => image.workload.clone(),
            // The guard's program: runs, writes nothing, obeys at once.
            _ => Workload {
                stop: StopManner::Obeys(Duration::ZERO),
                ..Workload::healthy("guard")
            },
        }
    }

    /// Starts a container as the engine does: 304 if it runs or is still stopping, an error if it cannot.
    pub(in super::super) fn start(&mut self, id: &ContainerId) -> Result<(), PortError> {
        let refuse = |kind, text: String| Err(PortError::new("start the container", kind, text));
        self.ctr_mut(id)?;
        let index = self.index(id);
        let ctr = &self.containers[index];
        match (&ctr.process, ctr.state) {
            (Some(process), _) if process.orphan => {
                return refuse(PortErrorKind::Failed, "id already in use".to_owned());
            }
            (Some(_), _) => return Ok(()),
            (None, RunState::Dead | RunState::Removing) => {
                return refuse(
                    PortErrorKind::Conflict,
                    "container is marked for removal".to_owned(),
                );
            }
            (None, _) => {}
        }
        let lost = ctr
            .networks
            .iter()
            .find(|(name, net)| self.networks.get(name) != Some(net));
        if let Some((name, _)) = lost {
            let text = format!("network {name} not found");
            return refuse(PortErrorKind::NotFound, text);
        }
        let clash = self.containers.iter().any(|other| {
            other.process.is_some() && other.host_ports.iter().any(|p| ctr.host_ports.contains(p))
        });
        if clash {
            let text = "port is already allocated".to_owned();
            return refuse(PortErrorKind::Failed, text);
        }
        if self.workload(index).boot == Boot::NoSuchBinary {
            let text = "exec: no such file or directory".to_owned();
            return refuse(PortErrorKind::Invalid, text);
        }
        self.containers[index].restart_at = None;
        self.begin(index);
        Ok(())
    }

    /// Sends the stop signal. Says when the process will be gone; none if it never will.
    pub(in super::super) fn stop(
        &mut self,
        id: &ContainerId,
        grace: Option<Duration>,
    ) -> Result<Option<Duration>, PortError> {
        self.ctr_mut(id)?;
        let index = self.index(id);
        let workload = self.workload(index);
        let now = self.now;
        let ctr = &mut self.containers[index];
        ctr.stopped_by_hand = true;
        if ctr.state == RunState::Restarting {
            ctr.restart_at = None;
            ctr.state = RunState::Exited;
        }
        let own = ctr.stop_timeout_secs.map(|s| Duration::from_secs(s.into()));
        let grace = grace.or(own).unwrap_or(STOP_GRACE);
        let Some(process) = ctr.process.as_mut().filter(|process| !process.orphan) else {
            return Ok(Some(now));
        };
        process.stopping = true;
        let end = match workload.stop {
            StopManner::Obeys(after) if after <= grace => Some((now + after, 0)),
            StopManner::Obeys(_) | StopManner::Ignores => Some((now + grace, 137)),
            StopManner::Unkillable => None,
        };
        // A second stop with a shorter grace wins; one with a longer does not prolong the first.
        process.ends = match (process.ends, end) {
            (Some(first), Some(second)) if first.0 <= second.0 => Some(first),
            (first, second) => second.or(first),
        };
        let due = process.ends.map(|(at, _)| at);
        self.announce(index, EngineEventKind::Kill);
        Ok(due)
    }

    pub(in super::super) fn index(&self, id: &ContainerId) -> usize {
        self.containers
            .iter()
            .position(|ctr| &ctr.id == id)
            .unwrap_or(usize::MAX)
    }

    /// The engine goes away. `killed`: without ending its containers; they live until it returns.
    pub(super) fn engine_goes(&mut self, down_for: Duration, killed: bool) {
        let until = match self.engine {
            Engine::Up => self.now + down_for,
            Engine::Down { .. } => return,
        };
        if !killed && !self.live_restore {
            for index in 0..self.containers.len() {
                if self.known_process(index) {
                    self.announce(index, EngineEventKind::Kill);
                    // An end by shutdown is no stop by hand: policies hold at the return.
                    let policy = std::mem::take(&mut self.containers[index].policy);
                    self.ended(index, 0);
                    self.containers[index].policy = policy;
                    self.containers[index].exit_code = Some(137);
                }
            }
        }
        self.watchers.clear();
        self.engine = Engine::Down {
            went: self.now,
            until,
            killed,
        };
    }

    /// Every process ends at once, orphans too; the engine comes back as after a kill, with nothing alive.
    pub(super) fn reboot(&mut self, down_for: Duration) {
        for index in 0..self.containers.len() {
            if self.containers[index].process.is_some() {
                let policy = std::mem::take(&mut self.containers[index].policy);
                self.ended(index, 137);
                self.containers[index].policy = policy;
            }
        }
        for ctr in std::mem::take(&mut self.left_behind) {
            self.fact(Fact::Ended(ctr.id));
        }
        self.watchers.clear();
        self.engine = Engine::Down {
            went: self.now,
            until: self.now + down_for,
            killed: true,
        };
    }

    fn known_process(&self, index: usize) -> bool {
        self.containers[index]
            .process
            .as_ref()
            .is_some_and(|process| !process.orphan)
    }

    fn engine_returns(&mut self, went: Duration, killed: bool) {
        self.engine = Engine::Up;
        for index in 0..self.containers.len() {
            let ran_on = killed && !self.live_restore && self.known_process(index);
            if ran_on {
                self.leave_or_end(index, went);
            }
            let ctr = &mut self.containers[index];
            let up = match ctr.policy {
                RestartPolicy::No => false,
                // Seen: `always` starts even what was stopped through the API; `unless-stopped` stays down after a kill.
                RestartPolicy::Always => ctr.started_at.is_some(),
                RestartPolicy::UnlessStopped => {
                    ctr.started_at.is_some() && !ctr.stopped_by_hand && !ran_on
                }
                RestartPolicy::OnFailure { .. } => {
                    !ctr.stopped_by_hand && ctr.exit_code.is_some_and(|code| code != 0)
                }
            };
            ctr.restart_at = None;
            if ctr.state == RunState::Restarting {
                ctr.state = RunState::Exited;
            }
            if up && ctr.process.is_none() && ctr.state != RunState::Removing {
                self.begin(index);
            }
        }
    }

    /// A container that lived through a kill of the engine: ended on its return, or, if it was young, an orphan that
    /// the engine does not know.
    fn leave_or_end(&mut self, index: usize, went: Duration) {
        let ctr = &self.containers[index];
        let young = ctr
            .process
            .as_ref()
            .is_some_and(|process| process.since + ORPHAN_AGE > went);
        let orphan = young && !ctr.guard && self.rng.chance(ORPHANS_PER_MILLE);
        if !orphan {
            let policy = std::mem::take(&mut self.containers[index].policy);
            self.ended(index, 137);
            self.containers[index].policy = policy;
            return;
        }
        let ctr = &mut self.containers[index];
        ctr.state = RunState::Created;
        ctr.started_at = None;
        if let Some(process) = &mut ctr.process {
            process.orphan = true;
        }
    }

    /// Tells the watchers of the engine's events.
    pub(in super::super) fn announce(&mut self, index: usize, kind: EngineEventKind) {
        if self.watchers.is_empty() {
            return;
        }
        let ctr = &self.containers[index];
        let mut attributes: BTreeMap<String, String> = ctr.labels.clone();
        if let (EngineEventKind::Die, Some(code)) = (kind, ctr.exit_code) {
            attributes.insert("exitCode".to_owned(), code.to_string());
        }
        let event = EngineEvent {
            kind,
            container: ctr.id.clone(),
            name: ctr.name.trim_start_matches('\0').to_owned(),
            attributes,
            at: self.wall,
        };
        self.watchers
            .retain(|watcher| watcher.unbounded_send(Ok(event.clone())).is_ok());
    }
}

impl Ctr {
    fn policy_restarts(&self, code: i64) -> bool {
        match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { max_retries } => {
                code != 0 && (max_retries == 0 || self.restart_count < u64::from(max_retries))
            }
        }
    }
}
