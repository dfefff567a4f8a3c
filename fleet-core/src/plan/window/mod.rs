//! When an instance may begin an update.
//!
//! Decides whether an instant lies in a window, when the next one opens and whether an update still fits before it
//! closes. Everything is a function of the instant that is handed in: nothing is remembered between two questions, so a
//! clock that jumps is answered for where it now stands, and a missed window is never made up for. Windows gate only
//! the *start* of one instance's update; work in flight and every rollback ignore them.

mod calendar;
mod interval;
mod parse;
mod schedule;

pub use calendar::WeeklyCalendar;
pub use interval::{Fit, Interval, Opening};
pub use parse::WindowError;
pub use schedule::{Freeze, Policy, Schedule};
