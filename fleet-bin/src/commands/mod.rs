//! One verb per file. Each reads its arguments, calls the libraries, prints, and says how it ends.

mod changelog;
mod check;
mod config;
mod doctor;
mod events;
mod explain;
mod pause;
mod ps;
mod recover;
mod resolve;
mod rollout;
mod run;
mod settings;
mod snapshot;
mod tenant;
mod update;

use clap::CommandFactory as _;

use crate::assemble::Context;
use crate::cli::{Cli, Command};
use crate::demo;
use crate::exit::{Exit, Outcome};

/// Runs one command.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Ps => ps::run(context).await,
        Command::Check { exit_code } => check::run(context, exit_code).await,
        Command::Explain { instance, spec } => explain::run(context, instance.as_str(), spec).await,
        Command::Update(args) => update::run(context, args).await,
        Command::Resolve(args) => resolve::run(context, args).await,
        Command::Plan(args) => rollout::plan(context, args).await,
        Command::Rollout(command) => rollout::run(context, command).await,
        Command::Run(args) => run::once(context, args).await,
        Command::Recover => recover::run(context).await,
        Command::Snapshot(command) => snapshot::run(context, command).await,
        Command::Changelog(args) => changelog::run(context, &args),
        Command::Doctor => doctor::run(context).await,
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
        Command::Demo { app } => demo::run(context, app.as_deref()).await,
        Command::App { .. } | Command::Helper => {
            unreachable!("handled before the configuration is read")
        }
    }
}
