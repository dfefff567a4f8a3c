//! The instant, for commands that only write it down. What drives updates is handed `fleet_docker`'s clock.

use fleet_core::time::Timestamp;

/// The instant, to the millisecond.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
