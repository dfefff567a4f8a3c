//! Stage 2: what shall be done, in which order, and why not the rest?
//!
//! Pure: inventory, settings, availability and an instant go in, an immutable plan comes out.

pub mod rollout;
pub mod strategy;
pub mod window;

mod candidate;
mod check;
mod disk;
mod held;
mod mode;
mod order;
mod planner;
mod render;
mod rollout_plan;
mod select;
mod tables;
mod together;
mod when;

pub use candidate::{Asked, Candidate, InstanceState, Limits, PlanInput, PlannerSettings, Request};
pub use check::{Violation, check};
pub use disk::DiskNeed;
pub use held::Held;
pub use mode::effective_mode;
pub(crate) use mode::mode_of;
pub use order::Stickiness;
pub use planner::{Before, PlanError, plan, plan_rollback, plan_rollback_again};
pub(crate) use render::human;
pub use render::render;
pub use rollout_plan::{
    Companion, DEFAULT_ESTIMATE, HeldInstance, PlannedInstance, PlannedWave, RolloutKind,
    RolloutPlan, ScheduleSpec,
};
pub use select::{fleet_pause, reason_of_mode, waits};
pub(crate) use when::When;
