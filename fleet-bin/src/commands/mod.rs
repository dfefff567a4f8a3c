//! One verb per file. Each reads its arguments, calls the libraries, prints, and says how it ends.

mod config;
mod events;
mod pause;
mod settings;
mod tenant;

use clap::CommandFactory as _;

use crate::assemble::Context;
use crate::cli::{Cli, Command};
use crate::exit::{Exit, Outcome};

/// Runs one command.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Pause { reason } => pause::pause(context, reason).await,
        Command::Resume { reason } => pause::resume(context, reason).await,
        Command::Tenant(command) => tenant::run(context, command).await,
        Command::Settings(command) => settings::run(context, command).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Config(command) => config::run(context, &command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "fleet", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        _ => Ok(Exit::Failed),
    }
}
