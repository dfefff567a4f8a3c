//! One fake host: everything an update touches, behind the ports, with faults on demand.

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::clock::ManualClock;
use super::engine::FakeEngine;
use super::faults::{Fault, FaultPlan};
use super::health::FakeProbe;
use super::machine::{Engine, Fact, Hand, Machine, Move};
use super::registry::FakeRegistry;
use super::snapshots::FakeSnapshots;
use super::trace::Trace;
use crate::crash::CrashPoints;
use crate::ports::{Clock, PortError, PortErrorKind};

/// A fake host. Clones share it.
///
/// Its ports behave as the real ones until a [`FaultPlan`] says otherwise. Every call through one of them is numbered,
/// enters the [`Trace`], and is two places at which the process can die: before the effect and after it.
#[derive(Clone)]
pub struct FakeHost {
    machine: Arc<Mutex<Machine>>,
    clock: ManualClock,
}

impl FakeHost {
    /// An empty host; its ids and its choices follow from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = ManualClock::default();
        let machine = Machine::new(seed, clock.now());
        Self {
            machine: Arc::new(Mutex::new(machine)),
            clock,
        }
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    /// Its engine: containers and images.
    #[must_use]
    pub fn engine(&self) -> FakeEngine {
        FakeEngine::new(self.clone())
    }

    /// Its snapshots.
    #[must_use]
    pub fn snapshots(&self) -> FakeSnapshots {
        FakeSnapshots::new(self.clone())
    }

    /// Its registry.
    #[must_use]
    pub fn registry(&self) -> FakeRegistry {
        FakeRegistry::new(self.clone())
    }

    /// Its health probe.
    #[must_use]
    pub fn probe(&self) -> FakeProbe {
        FakeProbe::new(self.clone())
    }

    /// Its crash points.
    #[must_use]
    pub fn crash_points(&self) -> FakeCrashPoints {
        FakeCrashPoints(self.clone())
    }

    /// What goes wrong from now on. Calls and places are counted from here.
    pub fn set_faults(&self, plan: FaultPlan) {
        let mut machine = self.machine();
        machine.plan = plan;
        machine.calls = 0;
        machine.sites = 0;
    }

    /// Calls through ports since the faults were set.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// Places at which the process could have died since the faults were set: before and after each effect, and at
    /// each crash point.
    #[must_use]
    pub fn sites(&self) -> u64 {
        self.machine().sites
    }

    /// Makes something happen now.
    pub fn happen(&self, what: Move) {
        let mut machine = self.settled();
        self.moved(&mut machine, what);
    }

    /// The engine comes back at once if it is away, and everything that was due happens.
    pub fn let_engine_return(&self) {
        let until = match self.machine().engine {
            Engine::Down { until, .. } => until,
            Engine::Up => std::time::Duration::ZERO,
        };
        let by = until.saturating_sub(self.clock.monotonic());
        self.clock.advance(by);
        drop(self.settled());
    }

    /// Runs the process until it ends, none if it died on the way. A dead process does nothing more, whatever is left
    /// of its future.
    ///
    /// # Panics
    /// The process waits for something that can never happen.
    pub fn drive<T>(&self, process: impl Future<Output = T>) -> Option<T> {
        let mut process = pin!(process);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        loop {
            assert!(
                woken.0.swap(false, Ordering::Relaxed),
                "the process waits for something that can never happen"
            );
            let polled = process.as_mut().poll(&mut context);
            if std::mem::take(&mut self.machine().dead) {
                return None;
            }
            if let Poll::Ready(output) = polled {
                return Some(output);
            }
        }
    }

    /// Keeps the lines of the trace from now on.
    pub fn keep_trace(&self) {
        self.machine().trace.keep_lines();
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.machine().trace.clone()
    }

    /// The hash of what happened so far, see [`Trace::hash`].
    pub(super) fn trace_hash(&self) -> u64 {
        self.machine().trace.hash()
    }

    /// Takes the facts since the last time, each with the number of the call in which it happened.
    #[must_use]
    pub fn take_facts(&self) -> Vec<(u64, Fact)> {
        std::mem::take(&mut self.machine().facts)
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine with everything done that was due by now.
    pub(super) fn settled(&self) -> MutexGuard<'_, Machine> {
        let (now, wall) = (self.clock.monotonic(), self.clock.now());
        let mut machine = self.machine();
        machine.settle(now, wall);
        machine
    }

    fn moved(&self, machine: &mut Machine, what: Move) {
        if let Move::ClockJump { millis } = what {
            let wall = machine.jumped(millis);
            self.clock.jump_to(wall);
            machine.wall = wall;
        }
        if matches!(what, Move::Reboot { .. }) {
            self.clock.reboot();
        }
        machine.make_move(what);
    }

    /// One call through a port: time, moves, faults, effect, trace.
    pub(super) async fn call<T: Send>(
        &self,
        side: Side,
        op: &'static str,
        on: &str,
        effect: impl FnOnce(&mut Machine) -> Result<T, PortError> + Send,
    ) -> Result<T, PortError> {
        let fault = self.before(op);
        if let Some(Fault::Slow(time)) = fault {
            self.clock.sleep(time).await;
        }
        self.may_die().await;
        if let Some(Fault::Refuse(kind)) = fault {
            self.settled().note(op, on, "refused");
            return Err(PortError::new(op, kind, "injected fault"));
        }
        let result = self.effect(side, op, on, effect);
        self.may_die().await;
        match fault {
            Some(Fault::Lose(kind)) if result.is_ok() => {
                Err(PortError::new(op, kind, "injected loss of the answer"))
            }
            _ => result,
        }
    }

    /// Counts the call, lets happen what is planned before it, and says what goes wrong with it.
    fn before(&self, op: &'static str) -> Option<Fault> {
        let mut machine = self.settled();
        machine.calls += 1;
        machine.steps += 1;
        let call = machine.calls;
        for what in machine.plan.moves.remove(&call).unwrap_or_default() {
            self.moved(&mut machine, what);
        }
        machine.plan.strike(call, op)
    }

    fn effect<T>(
        &self,
        side: Side,
        op: &'static str,
        on: &str,
        effect: impl FnOnce(&mut Machine) -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        let mut machine = self.settled();
        let away = side == Side::Engine && machine.engine != Engine::Up;
        let result = if away {
            Err(PortError::new(
                op,
                PortErrorKind::Unreachable,
                "the engine is away",
            ))
        } else {
            machine.hand = Hand::Fleet;
            let result = effect(&mut machine);
            machine.hand = Hand::Engine;
            result
        };
        let (now, wall) = (machine.now, machine.wall);
        machine.settle(now, wall);
        let outcome = result.as_ref().map_or_else(PortError::message, |_| "ok");
        machine.note(op, on, outcome);
        result
    }

    /// A place at which the process may die: then this never returns.
    pub(super) async fn may_die(&self) {
        if self.dies() {
            pending::<()>().await;
        }
    }

    fn dies(&self) -> bool {
        let mut machine = self.machine();
        if machine.dead {
            return true;
        }
        machine.sites += 1;
        machine.dead = machine.plan.die_at_site == Some(machine.sites);
        if machine.dead {
            machine.note("death", "", "");
        }
        machine.dead
    }
}

impl Machine {
    pub(super) fn note(&mut self, what: &str, on: &str, result: &str) {
        let now = self.now;
        self.trace.add(now, what, on, result);
    }
}

impl fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHost").finish_non_exhaustive()
    }
}

/// Whether a call needs the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// It fails while the engine is away.
    Engine,
    /// It does not.
    Elsewhere,
}

/// Dies at the planned place, see [`FaultPlan::die_at_site`].
#[derive(Debug, Clone)]
pub struct FakeCrashPoints(FakeHost);

impl CrashPoints for FakeCrashPoints {
    fn reached(&self, point: &str) -> bool {
        let mut machine = self.0.machine();
        machine.note("point", point, "");
        if machine.plan.die_at_point.as_deref() == Some(point) {
            machine.plan.die_at_point = None;
            machine.dead = true;
        }
        drop(machine);
        self.0.dies()
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
