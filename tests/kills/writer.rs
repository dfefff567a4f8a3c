//! A client that writes without pause and remembers what was answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fleet_testkit::get;

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(5);
/// A program that does not answer by then is down.
const TIMEOUT: Duration = Duration::from_millis(400);

/// A row that was answered, and by which version.
pub(crate) type Ack = (u64, String);

/// Numbers that nobody wrote before, and the answers to them.
#[derive(Debug)]
pub(crate) struct Writer {
    address: SocketAddr,
    next: AtomicU64,
    answered: Mutex<Vec<Ack>>,
    stop: AtomicBool,
}

impl Writer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            next: AtomicU64::new(1),
            answered: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Writes while something else is done, and gives what was answered meanwhile.
    pub(crate) fn during<T>(&self, act: impl FnOnce() -> T) -> (T, Vec<Ack>) {
        self.stop.store(false, Ordering::SeqCst);
        let done = thread::scope(|scope| {
            scope.spawn(|| self.write());
            // Ends the writer also when an assertion fails, so that the failure is seen and not a hang.
            let _stopper = StopOnDrop(&self.stop);
            act()
        });
        (done, self.take())
    }

    /// Rows answered since the writing began.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn write(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            // Without an answer it may be there or not.
            if let Ok(answer) = get(self.address, &format!("/put?{number}"), TIMEOUT)
                && answer.status == 200
            {
                self.lock().push((number, answer.body));
            }
            thread::park_timeout(PAUSE);
        }
    }

    fn take(&self) -> Vec<Ack> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Ack>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
