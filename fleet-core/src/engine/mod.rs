//! Drives the stages.
