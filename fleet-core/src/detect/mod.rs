//! Stage 1: what is new?
//!
//! Detection asks and compares; it never decides when or in which order something is done. [`check_all`] is the only
//! part that talks to ports; everything else is pure.

mod candidate;
mod check;
#[cfg(test)]
mod check_tests;
mod compare;
mod finding;
mod fold;
mod image_policy;
mod known;
mod poll;
mod subject;
mod tags;

pub use check::{check, check_all};
pub use compare::{Running, same_image};
pub use finding::{Finding, Hold, Verdict};
pub use fold::local_release;
pub use image_policy::{ImagePolicy, ImageRule, ImageRuleError, NotAllowed};
pub use known::Known;
pub use poll::{INTERVAL_MIN, PollSchedule, PollScheduleError, PollSchedules, Poller};
pub use subject::{Subject, Unfollowable};
pub use tags::{TagRules, TagRulesError, is_older};
