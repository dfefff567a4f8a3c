//! Stage 2: what shall be done, in which order, and why not the rest?
