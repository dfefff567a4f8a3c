//! The binary `fleet`: arguments, configuration, wiring. What it does is in the libraries.

mod answer;
mod assemble;
mod call;
mod cli;
mod cli_rollout;
mod commands;
mod config;
mod crash;
mod daemon;
mod datadir;
mod demo;
mod exit;
mod logging;
mod output;
mod system;

use std::process::ExitCode;

use clap::Parser as _;

use crate::assemble::Context;
use crate::cli::{Cli, Command};
use crate::exit::Outcome;
use crate::output::style::{BAD, paint};
use crate::output::{Out, Ui, tell};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::App { args } = &cli.command {
        return demo::app::run(args, demo::wait_for_term);
    }
    if let Command::Helper(args) = &cli.command {
        let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
        return match fleet_docker::helper::serve(args.options(), input, output) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tell(&format!("{} {error}", paint(BAD, "error:")));
                ExitCode::FAILURE
            }
        };
    }
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            tell(&format!("{} {}", paint(BAD, "error:"), failure.chain()));
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    // The only provider of cryptography; a second call in the same process would be the only way to fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let out = Out::new(cli.global.output, cli.global.color);
    let ui = Ui::new(cli.global.quiet);
    let context = Context::new(cli.global, out, ui)?;
    let log = &context.config().log;
    let level = match (context.global.quiet, context.global.verbose) {
        (true, _) => "error",
        // The demo shows what turns back by itself.
        (false, 0) if matches!(cli.command, Command::Demo { .. }) => "error",
        (false, 0) => log.level.as_deref().unwrap_or(match cli.command {
            Command::Serve => "info",
            _ => "warn",
        }),
        (false, 1) => "info",
        (false, _) => "debug",
    };
    logging::start(level, log.format, &context.ui)?;
    tracing::info!(file = %assemble::shown(context.loaded.file.as_deref()), "configuration");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let outcome = commands::run(&context, cli.command).await;
        context.settle().await;
        outcome
    });
    // What a thread still copies is of no use any more; recovery throws it away.
    runtime.shutdown_background();
    ended
}
