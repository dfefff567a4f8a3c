//! Crash points: named places at which tests make the process die.
//!
//! The engine calls [`CrashPoints::reached`] before each effect, after it, and after the journal row that records it.
//! In production nothing happens there ([`NoCrashPoints`]); the binary's feature `crash-points` installs a hook that
//! aborts the process at a chosen place, and the simulator installs one that drops the future.

/// A hook that is told of every crash point that is passed.
pub trait CrashPoints: Send + Sync {
    /// The engine stands at this place: `<step>.<before|after|recorded>`.
    ///
    /// A hook that returns true asks the engine to stop at once as if it had died; nothing more is written.
    fn reached(&self, point: &str) -> bool;
}

/// Never dies.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCrashPoints;

impl CrashPoints for NoCrashPoints {
    fn reached(&self, _point: &str) -> bool {
        false
    }
}
