//! The life of a rollout: states of the rollout, its waves and its instances, and what may start now.
//!
//! [`next`] is the one total function that changes a [`RolloutState`]; it serves live work, commands and what is found
//! after a restart alike. Holds are apart from the state: a hold stops starts and nothing else, so lifting it needs no
//! memory of where the rollout was. [`admit`] says which instances may begin, and why not the others of the wave.
//!
//! ```text
//! planned ─► awaiting_approval ─► scheduled ─► running ─► completed | completed_with_failures
//!    │              │                 │           ├─► aborting ─► aborted | rolling_back ─► rolled_back
//!    └──────────────┴─────────────────┤           │                                     └► rollback_incomplete
//!                          cancelled ◄┘           └─► superseding ─► superseded
//! ```

mod admit;
mod countdown;
mod event;
mod glance;
mod hold;
mod member;
mod next;
mod settle;
mod state;
mod supersede;

pub use admit::{Admission, Load, Surroundings, admit};
pub use countdown::Countdown;
pub use event::{Fact, Follow, IllegalTransition, RolloutEvent, UpdateEnd};
pub use glance::RolloutGlance;
pub use hold::{Hold, HoldKind};
pub use next::{Transition, next};
pub use state::{Ending, MemberState, Phase, RolloutState, Tally, WavePhase, WaveState};
pub(crate) use supersede::about_current;
pub use supersede::{Channel, Decision, SupersedePolicy, WhenNewer, decide};
