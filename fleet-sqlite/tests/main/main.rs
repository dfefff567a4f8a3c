//! The SQLite store against the suites of its ports, and against what happens to files.

mod conformance;
