//! `fleet rollout …` and `fleet plan`: many instances, in waves.

use fleet_core::engine::rollout::{
    Command, Orchestrator, Outlook, RolloutError, RolloutView, StartError, StartRequest, Started,
};
use fleet_core::ids::{InstanceId, RolloutId};
use fleet_core::image::PinnedImage;
use fleet_core::plan::rollout::Phase;
use fleet_core::plan::{Asked, PlannerSettings, RolloutPlan, render};
use fleet_core::ports::{Clock as _, StoredRollout};

use super::recover;
use crate::assemble::Context;
use crate::cli_rollout::{HowArgs, PlanArgs, RolloutCommand, StartArgs};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::style::{self, NAME, paint};
use crate::output::{Table, tell};

/// Rollouts that `list` shows.
const LISTED: u32 = 50;

/// Runs `rollout …`.
pub(crate) async fn run(context: &Context, command: RolloutCommand) -> Outcome {
    match command {
        RolloutCommand::Start(args) => start(context, args).await,
        RolloutCommand::List => list(context).await,
        RolloutCommand::Show { id } => show(context, &id).await,
        RolloutCommand::Pause { id, reason } => {
            steer(context, &id, Command::Pause { why: reason }).await
        }
        RolloutCommand::Resume { id } => steer(context, &id, Command::Resume).await,
        RolloutCommand::Promote { id } => steer(context, &id, Command::Promote).await,
        RolloutCommand::Abort {
            id,
            rollback,
            reason,
        } => {
            steer(
                context,
                &id,
                Command::Abort {
                    why: reason,
                    rollback,
                },
            )
            .await
        }
        RolloutCommand::RetryFailed { id } => retry_failed(context, &id).await,
        RolloutCommand::Approve { id } => steer(context, &id, Command::Approve).await,
        RolloutCommand::Deny { id, reason } => {
            steer(context, &id, Command::Deny { why: reason }).await
        }
        RolloutCommand::Exclude { id, instance } => {
            let instance = InstanceId::local(instance);
            steer(context, &id, Command::Exclude { instance }).await
        }
    }
}

/// Runs `plan`: what a rollout would do, and why not to the others. Reads only.
pub(crate) async fn plan(context: &Context, args: PlanArgs) -> Outcome {
    let looking = context.looking_at_rollouts().await?;
    let targets = match args.image {
        Some(image) => vec![
            looking
                .fleet
                .pin(&image)
                .await
                .or_exit(Exit::Failed, "there is no such release")?,
        ],
        None => looking.fleet.offered().await?,
    };
    let mut plans = Vec::new();
    for target in targets {
        let request = request(context, &looking.fleet, target, &args.how).await?;
        plans.push(
            looking
                .orchestrator
                .preview(request)
                .await
                .map_err(refused)?,
        );
    }
    let settings = looking.fleet.ports().settings.settings().await?;
    let freezes = PlannerSettings::read(&settings)
        .or_exit(Exit::Usage, "a setting cannot be read")?
        .freezes;
    if context.out.format() == crate::cli::Format::Table {
        if plans.is_empty() {
            context.out.text(
                "nothing is behind, as far as the last check knows; `fleet check` asks again",
            )?;
        }
        for plan in &plans {
            context
                .out
                .text(&render(plan, &freezes, context.clock.now()))?;
        }
        return Ok(Exit::Done);
    }
    context.out.list("plans", &plans, || Table::new(&[], ""))?;
    Ok(Exit::Done)
}

async fn request(
    context: &Context,
    fleet: &fleet_core::engine::Fleet,
    target: PinnedImage,
    how: &HowArgs,
) -> Outcome<StartRequest> {
    let default = fleet.default_strategy().await?;
    let strategy = how
        .strategy(default)
        .or_exit(Exit::Usage, "the strategy cannot be used")?;
    Ok(StartRequest {
        asked: Asked::ByOperator {
            tenants: how.tenants.clone(),
        },
        strategy,
        limits: how.limits(),
        override_window: how.override_window,
        ..StartRequest::new(context.actor(), target)
    })
}

async fn start(context: &Context, args: StartArgs) -> Outcome {
    let working = context.working().await?;
    let settings = working.fleet.ports().settings.settings().await?;
    if let Some(held) = fleet_core::plan::fleet_pause(&settings) {
        return Err(Failure::new(
            Exit::NotNow,
            format!("the fleet is {held}; `fleet resume` lifts it"),
        ));
    }
    recover::first(context, &working.fleet).await?;
    let target = working
        .fleet
        .pin(&args.image)
        .await
        .or_exit(Exit::Failed, "there is no such release")?;
    let request = request(context, &working.fleet, target, &args.how).await?;
    let orchestrator = working.orchestrator(context);
    let started = orchestrator.start(request).await.map_err(refused)?;
    // Without a daemon nobody else would go on with it.
    let _ = args.wait;
    follow(context, &orchestrator, started).await
}

async fn retry_failed(context: &Context, id: &RolloutId) -> Outcome {
    let working = context.working().await?;
    recover::first(context, &working.fleet).await?;
    let orchestrator = working.orchestrator(context);
    let started = orchestrator
        .retry_failed(id, &context.actor())
        .await
        .map_err(refused)?;
    follow(context, &orchestrator, started).await
}

/// Waits for a rollout, and says how it ended.
async fn follow(context: &Context, orchestrator: &Orchestrator, started: Started) -> Outcome {
    let plan = match started {
        Started::Opened(plan) => plan,
        Started::NothingToDo(plan) => return nothing_to_do(context, &plan),
    };
    let waited = orchestrator.wait(&plan.id()).await.map_err(failed)?;
    print(context, &waited.rollout)?;
    if let Outlook::NotNow { why, until } = &waited.outlook {
        let until = until.map_or_else(String::new, |at| format!(" until {at}"));
        tell(&format!(
            "held{until}: {}; `fleet run --once` goes on with it",
            why.join("; ")
        ));
        return Ok(Exit::NotNow.worst(exit(&waited.rollout)));
    }
    Ok(exit(&waited.rollout))
}

fn nothing_to_do(context: &Context, plan: &RolloutPlan) -> Outcome {
    tell("no instance is to be updated");
    if context.out.format() == crate::cli::Format::Table {
        context.out.text(&render(plan, &[], context.clock.now()))?;
    } else {
        let view = serde_json::json!({
            "id": null, "state": "nothing_to_do", "image": plan.request.target.image.to_string(),
            "digest": plan.request.target.digest.to_string(), "strategy": plan.request.strategy.label(),
            "total": 0, "committed": 0, "rolled_back": 0, "needs_operator": 0, "pending": 0, "waves": [], "holds": [],
            "held": plan.held,
        });
        context.out.one("rollout", &view, String::new)?;
    }
    Ok(Exit::Done)
}

async fn steer(context: &Context, id: &RolloutId, command: Command) -> Outcome {
    let working = context.working().await?;
    let orchestrator = working.orchestrator(context);
    let changed = orchestrator
        .command(id, &command, &context.actor())
        .await
        .map_err(failed)?;
    // Going back, or going on, is work that somebody has to do.
    let works = matches!(
        command,
        Command::Resume | Command::Promote | Command::Approve | Command::Abort { .. }
    );
    if !works || changed.state.phase.is_terminal() {
        print(context, &changed)?;
        return Ok(Exit::Done);
    }
    recover::first(context, &working.fleet).await?;
    let waited = orchestrator.wait(id).await.map_err(failed)?;
    print(context, &waited.rollout)?;
    Ok(exit(&waited.rollout))
}

async fn list(context: &Context) -> Outcome {
    let looking = context.looking_at_rollouts().await?;
    let views: Vec<_> = looking
        .orchestrator
        .list(LISTED)
        .await
        .map_err(failed)?
        .iter()
        .map(RolloutView::new)
        .collect();
    context.out.list("rollouts", &views, || table(&views))?;
    Ok(Exit::Done)
}

fn table(views: &[RolloutView]) -> Table {
    let mut table = Table::new(
        &[
            "ROLLOUT",
            "STATE",
            "IMAGE",
            "STRATEGY",
            "COMMITTED",
            "BACK",
            "PENDING",
        ],
        "no rollout",
    );
    for view in views {
        table.row(vec![
            view.id.clone(),
            paint(style::of_word(view.state), view.state.replace('_', " ")).to_string(),
            view.image.clone(),
            view.strategy.clone(),
            format!("{}/{}", view.committed, view.total),
            view.rolled_back.to_string(),
            view.pending.to_string(),
        ]);
    }
    table
}

async fn show(context: &Context, id: &RolloutId) -> Outcome {
    let looking = context.looking_at_rollouts().await?;
    let stored = looking.orchestrator.load(id).await.map_err(failed)?;
    print(context, &stored)?;
    Ok(exit(&stored))
}

fn print(context: &Context, stored: &StoredRollout) -> Outcome<()> {
    let view = RolloutView::new(stored);
    context.out.one("rollout", &view, || {
        let mut text = view.to_string();
        for member in view
            .instances
            .iter()
            .filter(|member| member.state != "committed")
        {
            let reason = member.reason.as_deref().unwrap_or_default();
            text.push_str(&format!(
                "  {} {}  {reason}\n",
                paint(NAME, &member.instance),
                member.state.replace('_', " ")
            ));
        }
        text
    })
}

/// The exit code of a rollout: 30 where a person is needed, 20 where something went back, 1 where it ended without.
pub(super) fn exit(stored: &StoredRollout) -> Exit {
    let tally = stored.state.tally();
    if tally.needs_operator > 0 {
        Exit::NeedsPerson
    } else if tally.rolled_back > 0 || matches!(stored.state.phase, Phase::Aborted { .. }) {
        Exit::RolledBack
    } else if tally.failures > 0 {
        Exit::Failed
    } else {
        Exit::Done
    }
}

/// Why a rollout did not start, with its exit code.
fn refused(error: StartError) -> Failure {
    let exit = match &error {
        StartError::Paused(_) | StartError::AlreadyRunning(_) => Exit::NotNow,
        _ => Exit::Failed,
    };
    match Err::<(), _>(error).or_exit(exit, "the rollout does not start") {
        Err(failure) => failure,
        Ok(()) => Failure::new(exit, "the rollout does not start"),
    }
}

fn failed(error: RolloutError) -> Failure {
    Failure::from(error)
}
