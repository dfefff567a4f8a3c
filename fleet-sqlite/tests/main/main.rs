//! The SQLite store against the suites of its ports, and against what happens to files.

mod child;
mod conformance;
mod crash;
mod faults;
mod files;
mod golden;
mod processes;
mod retention;
