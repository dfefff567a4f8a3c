//! The binary `fleet`: arguments, configuration, wiring. What it does is in the libraries.

mod config;
mod datadir;
mod exit;
mod system;

fn main() {}
