//! The adapter against a real engine. A missing engine fails these tests; nothing is skipped.

mod kit;
mod lifecycle;
