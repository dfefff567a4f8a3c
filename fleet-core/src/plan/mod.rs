//! Stage 2: what shall be done, in which order, and why not the rest?
//!
//! Pure: inventory, settings, availability and an instant go in, an immutable plan comes out.

pub mod window;
