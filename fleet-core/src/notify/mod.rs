//! Stage 5: who must know?
//!
//! Messages are built from events and delivered by the embedder's [`crate::ports::Notifier`].

pub mod changelog;
pub mod history;
