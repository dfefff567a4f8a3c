//! The engine of fleet: what exists, what is new, who gets it when, and how one instance is updated without
//! losing anything.
//!
//! Data flows one way through five stages, each a module; no stage imports a later one, and the loop closes
//! only through the stores:
//!
//! | stage | module | answers |
//! |---|---|---|
//! | detect | [`detect`] | what is new? |
//! | plan | [`plan`] | what shall be done, in which order, and why not the rest? |
//! | update | [`update`] | do it, safely |
//! | record | [`record`] | what happened? |
//! | notify | [`notify`] | who must know? |
//!
//! [`model`] holds what exists, [`ports`] what the engine needs from outside (a container engine, a registry, a
//! journal, a clock), [`engine`] drives the stages. The crate does no I/O, owns no clock and knows no vendor.
//! Feature `testing` brings fakes for every port and a simulator.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod crash;
pub mod ids;
pub mod image;
pub mod model;
pub mod ports;
pub mod time;

pub mod detect;
pub mod engine;
pub mod notify;
pub mod plan;
pub mod record;
pub mod update;

#[cfg(feature = "testing")]
pub mod testing;
