//! The steps of an update, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $direction:ident;)*) => {
        /// One step. In a group, a step is done for one member at a time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            /// Every step, forward ones first.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in the journal and in output.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// Which way it leads.
            #[must_use]
            pub fn direction(self) -> Direction {
                match self {
                    $(Self::$name => Direction::$direction,)*
                }
            }
        }
    };
}

/// Which way a step leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the new release.
    Forward,
    /// Back to the old one.
    Back,
}

steps! {
    /// The update was admitted: nothing forbids it.
    Admit = "admit", Forward;
    /// Everything needed to make the old container again is in the journal.
    Freeze = "freeze", Forward;
    /// The new image is in the engine; keep tags hold old and new.
    Pull = "pull", Forward;
    /// First pass of the snapshot while the old container runs.
    PreCopy = "pre_copy", Forward;
    /// The new container exists, not started, restart policy `no`.
    CreateCandidate = "create_candidate", Forward;
    /// A guard keeps image, volumes and networks from being pruned.
    Guard = "guard", Forward;
    /// The hook of the old container ran.
    PreHook = "pre_hook", Forward;
    /// The old container's restart policy is `no`.
    Disarm = "disarm", Forward;
    /// The old container's process is gone.
    Stop = "stop", Forward;
    /// The volumes are copied, cold and verified.
    Snapshot = "snapshot", Forward;
    /// The old container has its parked name.
    Park = "park", Forward;
    /// The new container has the instance's name.
    Promote = "promote", Forward;
    /// The new container was started.
    Start = "start", Forward;
    /// The new container proved that it is well.
    Gate = "gate", Forward;
    /// The new container has the original restart policy.
    Arm = "arm", Forward;
    /// The point of no return.
    Commit = "commit", Forward;
    /// The hook of the new container ran.
    PostHook = "post_hook", Forward;
    /// Parked container, guard, keep tags and old snapshots are gone.
    CleanUp = "clean_up", Forward;

    /// The new container's restart policy is `no` and its process is gone.
    StopNew = "stop_new", Back;
    /// Log and state of the new container are in the journal.
    Evidence = "evidence", Back;
    /// The new container has its failed name.
    SetAside = "set_aside", Back;
    /// The volumes are what they were at the stop.
    Restore = "restore", Back;
    /// The local tag is on the old image.
    Retag = "retag", Back;
    /// The old container has the instance's name.
    Reinstate = "reinstate", Back;
    /// The old container runs, if it ran before.
    StartOld = "start_old", Back;
    /// The old container has its original restart policy.
    ArmOld = "arm_old", Back;
    /// The old container is as well as it was before.
    GateOld = "gate_old", Back;
    /// The rollback is recorded.
    RolledBack = "rolled_back", Back;
    /// The failed container, guard, keep tags and volumes that fleet made are gone.
    CleanUpBack = "clean_up_back", Back;
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
