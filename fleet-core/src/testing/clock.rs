//! A clock that tests move: sleeping costs no real time.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::Clock;
use crate::time::Timestamp;

/// A clock whose time passes only when somebody sleeps on it or a test moves it.
///
/// # Guarantees
/// Of several sleepers the one with the earliest deadline wakes first, whichever executor polls them, and everything
/// that can go on without time passing goes on before time passes. No timer, no thread.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Face>>);

#[derive(Debug)]
struct Face {
    wall: Timestamp,
    monotonic: Duration,
    boot_id: String,
    sleepers: BTreeMap<u64, Duration>,
    next_sleeper: u64,
}

/// Polls of a sleeper that is not the earliest before it stops waiting for the others: an earlier sleeper that nobody
/// polls (held, but not awaited) must not stop time for all.
const PATIENCE_POLLS: u32 = 64;

impl ManualClock {
    /// A clock that stands at this instant, on a host that booted as `boot-1`.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Face {
            wall,
            monotonic: Duration::ZERO,
            boot_id: "boot-1".to_owned(),
            sleepers: BTreeMap::new(),
            next_sleeper: 0,
        })))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.face().pass(by);
    }

    /// Sets the wall clock alone, as an administrator or a time server does; sleepers are not concerned.
    pub fn jump_to(&self, wall: Timestamp) {
        self.face().wall = wall;
    }

    /// The host boots again: another boot id, and monotonic time as far as this process ever saw goes on.
    pub fn reboot(&self) {
        let mut face = self.face();
        let number: u64 = face
            .boot_id
            .strip_prefix("boot-")
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        face.boot_id = format!("boot-{}", number + 1);
    }

    fn sleeper(&self, duration: Duration) -> Sleep {
        let mut face = self.face();
        let deadline = face.monotonic + duration;
        let id = face.next_sleeper;
        face.next_sleeper += 1;
        face.sleepers.insert(id, deadline);
        drop(face);
        Sleep {
            clock: self.clone(),
            id,
            deadline,
            polls: 0,
        }
    }

    fn face(&self) -> MutexGuard<'_, Face> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    /// Stands at 2026-01-05T00:00:00Z, a Monday.
    fn default() -> Self {
        Self::new(Timestamp::from_millis(1_767_571_200_000))
    }
}

impl Face {
    fn pass(&mut self, by: Duration) {
        self.monotonic += by;
        self.wall = self.wall.saturating_add(by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.face().wall
    }

    fn monotonic(&self) -> Duration {
        self.face().monotonic
    }

    fn boot_id(&self) -> String {
        self.face().boot_id.clone()
    }

    async fn sleep(&self, duration: Duration) {
        self.sleeper(duration).await;
    }
}

struct Sleep {
    clock: ManualClock,
    id: u64,
    deadline: Duration,
    polls: u32,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.polls += 1;
        let polls = self.polls;
        let mut face = self.clock.face();
        if face.monotonic >= self.deadline {
            return Poll::Ready(());
        }
        let earliest = face
            .sleepers
            .iter()
            .map(|(id, deadline)| (*deadline, *id))
            .min();
        let my_turn = earliest == Some((self.deadline, self.id)) || polls > PATIENCE_POLLS;
        // The first poll never passes time: whatever else is ready goes first.
        if my_turn && polls > 1 {
            let by = self.deadline.saturating_sub(face.monotonic);
            face.pass(by);
            return Poll::Ready(());
        }
        drop(face);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.face().sleepers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::future::{join, select};

    #[test]
    fn sleeping_passes_exactly_the_time_asked_for() {
        let clock = ManualClock::default();
        let before = clock.now();
        block_on(clock.sleep(Duration::from_secs(90)));
        assert_eq!(clock.monotonic(), Duration::from_secs(90));
        assert_eq!(clock.now().since(before), Duration::from_secs(90));
    }

    #[test]
    fn of_two_sleepers_the_earlier_wakes_first() {
        let clock = ManualClock::default();
        let order = Mutex::new(Vec::new());
        let sleep = |name: &'static str, secs| {
            let (clock, order) = (clock.clone(), &order);
            async move {
                clock.sleep(Duration::from_secs(secs)).await;
                order
                    .lock()
                    .unwrap()
                    .push((name, clock.monotonic().as_secs()));
            }
        };
        block_on(join(sleep("late", 5), sleep("early", 2)));
        assert_eq!(*order.lock().unwrap(), [("early", 2), ("late", 5)]);
    }

    #[test]
    fn a_timeout_does_not_beat_work_that_needs_no_time() {
        let clock = ManualClock::default();
        let work = Box::pin(async { "work" });
        let timeout = Box::pin(clock.sleep(Duration::from_secs(1)));
        let winner = match block_on(select(timeout, work)) {
            futures::future::Either::Left(_) => "timeout",
            futures::future::Either::Right((winner, _)) => winner,
        };
        assert_eq!((winner, clock.monotonic()), ("work", Duration::ZERO));
    }

    #[test]
    fn a_jump_moves_the_wall_and_nothing_else() {
        let clock = ManualClock::default();
        clock.jump_to(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.monotonic(), Duration::ZERO);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        assert_eq!(clock.boot_id(), "boot-1");
        clock.reboot();
        assert_eq!(clock.boot_id(), "boot-2");
    }
}
