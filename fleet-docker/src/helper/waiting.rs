//! A helper that stays for a while after a question, for the next one of the same kind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::store::Connection;

/// Where at most one helper waits, for the next question with the same key.
#[derive(Debug)]
pub(super) struct Waiting<K> {
    place: Arc<Mutex<Place<K>>>,
    /// How long it waits.
    idle: Duration,
}

#[derive(Debug)]
struct Place<K> {
    line: Option<(K, Connection)>,
    /// Counts the waits, so that an old timer does not end a new one.
    turn: u64,
}

impl<K> Clone for Waiting<K> {
    fn clone(&self) -> Self {
        Self {
            place: Arc::clone(&self.place),
            idle: self.idle,
        }
    }
}

impl<K: PartialEq + Send + 'static> Waiting<K> {
    /// Nobody waits yet; who does, does so for this long.
    pub(super) fn new(idle: Duration) -> Self {
        let place = Place {
            line: None,
            turn: 0,
        };
        Self {
            place: Arc::new(Mutex::new(place)),
            idle,
        }
    }

    /// The helper that waits for this key; any other ends here.
    pub(super) fn take(&self, key: &K) -> Option<Connection> {
        let taken = lock(&self.place).line.take();
        taken.filter(|(of, _)| of == key).map(|(_, line)| line)
    }

    /// Lets a helper wait.
    pub(super) fn keep(&self, key: K, line: Connection) {
        let turn = {
            let mut place = lock(&self.place);
            place.line = Some((key, line));
            place.turn += 1;
            place.turn
        };
        let (place, idle) = (Arc::downgrade(&self.place), self.idle);
        tokio::spawn(async move {
            tokio::time::sleep(idle).await;
            let Some(place) = place.upgrade() else {
                return;
            };
            let mut place = lock(&place);
            if place.turn == turn {
                place.line = None;
            }
        });
    }
}

fn lock<K>(place: &Mutex<Place<K>>) -> MutexGuard<'_, Place<K>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
