//! The adapter against a real engine. A missing engine fails these tests; nothing is skipped.

mod compose;
mod faults;
mod group;
mod guard;
mod health;
mod images;
mod inside;
mod kit;
mod lifecycle;
mod matrix;
mod networks;
mod proxy;
mod volumes;
