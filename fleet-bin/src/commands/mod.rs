//! One verb per file. Each reads its arguments, calls the libraries, prints, and says how it ends.

mod changelog;
pub(crate) mod check;
mod config;
mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod recover;
pub(crate) mod resolve;
pub(crate) mod rollout;
pub(crate) mod run;
mod serve;
pub(crate) mod settings;
pub(crate) mod snapshot;
pub(crate) mod summary;
pub(crate) mod tenant;
pub(crate) mod update;

use clap::CommandFactory as _;

use crate::assemble::Context;
use crate::cli::{Cli, Command};
use crate::cli_rollout::RunArgs;
use crate::demo;
use crate::exit::{Exit, Outcome};

/// Runs one command.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Ps => ps::run(context).await,
        Command::Check { exit_code } => context.carry_out(check::Check { exit_code }).await,
        Command::Explain(args) => explain::run(context, args).await,
        Command::Update(args) => update::run(context, args).await,
        Command::Resolve(args) => resolve::run(context, args).await,
        Command::Plan(args) => rollout::plan(context, args).await,
        Command::Rollout(command) => rollout::run(context, command).await,
        Command::Run(RunArgs { once: _ }) => context.carry_out(run::Cycle {}).await,
        Command::Serve => serve::run(context).await,
        Command::Recover => context.carry_out(recover::Recover {}).await,
        Command::Snapshot(command) => snapshot::run(context, command).await,
        Command::Changelog(args) => changelog::run(context, &args),
        Command::Doctor => doctor::run(context).await,
        Command::Pause { reason } => context.carry_out(pause::Pause { reason }).await,
        Command::Resume { reason } => context.carry_out(pause::Resume { reason }).await,
        Command::Tenant(command) => tenant::run(context, command).await,
        Command::Settings(command) => settings::run(context, command).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Config(command) => config::run(context, &command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "fleet", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        Command::Demo { app } => demo::run(context, app.as_deref()).await,
        Command::App { .. } | Command::Helper(_) => {
            unreachable!("handled before the configuration is read")
        }
    }
}
