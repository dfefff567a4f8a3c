//! The stores of fleet in one SQLite file: intent journal, event log, rollouts, update configs, settings, availability.
//!
//! [`SqliteStore`] implements every store port of `fleet-core`. One connection writes, on a thread of its own, one
//! reads beside it (write-ahead log), so that looking never waits for an update. Every write is one transaction and
//! one sync. The database enforces what must never be otherwise: one live update per instance, rows without gaps.
//!
//! | file | is |
//! |---|---|
//! | `open.rs` | opening: refusals, checks, pragmas, backup before a migration |
//! | `schema.rs`, `migrations/` | numbered, forward only |
//! | `store.rs` | the two connections, transactions, errors |
//! | `rows.rs` | rows and their twins in the core |
//! | `journal.rs`, `events.rs`, `rollouts.rs`, `configs.rs`, `availability.rs` | the ports |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod availability;
mod configs;
mod events;
mod journal;
mod open;
mod rollouts;
mod rows;
mod schema;
mod store;

pub use open::{OpenError, OpenOptions};
pub use store::SqliteStore;
