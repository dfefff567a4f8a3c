//! Stage 1: what is new?

mod compare;
mod image_policy;
mod tags;

pub use compare::{Running, same_image};
pub use image_policy::{ImagePolicy, ImageRule, ImageRuleError, NotAllowed};
pub use tags::{TagRules, TagRulesError, is_older};
