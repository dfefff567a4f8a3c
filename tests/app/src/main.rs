//! The demo's program as a binary of its own: small, static, and built in seconds.

#[path = "../../../fleet-bin/src/demo/app.rs"]
mod app;

use std::process::ExitCode;

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut signals = match Signals::new([SIGTERM]) {
        Ok(signals) => signals,
        Err(_) => return ExitCode::FAILURE,
    };
    app::run(&args, move || {
        signals.forever().next();
    })
}
