//! Stage 1: what is new?
