//! `fleet rollout …` and `fleet plan`: many instances, in waves.

mod concerns;

use std::sync::Arc;

use axum::Router;
use fleet_core::engine::Fleet;
use fleet_core::engine::rollout::{
    Command, Orchestrator, Outlook, RolloutView, StartError, StartRequest, Started,
};
use fleet_core::ids::{InstanceId, InstanceName, RolloutId};
use fleet_core::image::{ImageRef, PinnedImage};
use fleet_core::plan::rollout::Phase;
use fleet_core::plan::{Asked, PlannerSettings, RolloutPlan, render};
use fleet_core::ports::StoredRollout;
use fleet_docker::DockerEngine;
use serde::{Deserialize, Serialize};

use self::concerns::Concerns;
use super::recover;
use crate::answer::{Answer, Shown};
use crate::assemble::{Context, Looking};
use crate::call::{Call, Route, Span, Workshop};
use crate::cli_rollout::{HowArgs, PlanArgs, RolloutCommand, StartArgs};
use crate::daemon::{Client, Served, at};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::Table;
use crate::output::style::{self, NAME, paint};
use crate::system::now;

/// Rollouts that `list` shows.
const LISTED: u32 = 50;

/// Runs `rollout …`.
pub(crate) async fn run(context: &Context, command: RolloutCommand) -> Outcome {
    match command {
        RolloutCommand::Start(args) => {
            let StartArgs {
                image,
                how,
                needs_approval,
                approval_expires,
                wait,
            } = args;
            let start = Start {
                image,
                how,
                needs_approval,
                approval_expires,
                wait,
            };
            context.carry_out(start).await
        }
        RolloutCommand::List => {
            let looking = context.looking_at_rollouts().await?;
            context.out.answer(list(&looking.orchestrator).await?)
        }
        RolloutCommand::Show { id, watch: true } => watch(context, id).await,
        RolloutCommand::Show { id, watch: false } => {
            let looking = context.looking_at_rollouts().await?;
            context.out.answer(show(&looking.orchestrator, &id).await?)
        }
        RolloutCommand::Pause { id, reason } => context.carry_out(Pause { id, reason }).await,
        RolloutCommand::Resume { id } => context.carry_out(Resume { id }).await,
        RolloutCommand::Promote { id } => context.carry_out(Promote { id }).await,
        RolloutCommand::Abort {
            id,
            rollback,
            reason,
        } => {
            let abort = Abort {
                id,
                rollback,
                reason,
            };
            context.carry_out(abort).await
        }
        RolloutCommand::RetryFailed { id } => {
            context.carry_out(RetryFailed { id, wait: false }).await
        }
        RolloutCommand::Approve { id } => context.carry_out(Approve { id }).await,
        RolloutCommand::Deny { id, reason } => context.carry_out(Deny { id, reason }).await,
        RolloutCommand::Exclude { id, instance } => {
            context.carry_out(Exclude { id, instance }).await
        }
    }
}

/// Runs `rollout show --watch`: beside a daemon through it, so that its updates are seen as well.
async fn watch(context: &Context, id: RolloutId) -> Outcome {
    let answer = match Client::of(&context.data_dir()?)? {
        Some(client) => client.ask(&Watch { id }, context).await?,
        None => {
            let sink = Arc::new(context.ui.sink("rollout"));
            let looking = context.watching(sink).await?;
            watched(&looking.orchestrator, &id).await?
        }
    };
    context.out.answer(answer)
}

async fn watched(orchestrator: &Orchestrator, id: &RolloutId) -> Outcome<Answer> {
    let stored = orchestrator.watch(id).await?;
    Ok(answer(&stored)?.ends(exit(&stored)))
}

/// Runs `plan`: what a rollout would do, and why not to the others. Reads only.
pub(crate) async fn plan(context: &Context, args: PlanArgs) -> Outcome {
    let Looking {
        fleet,
        engine,
        orchestrator,
    } = context.looking_at_rollouts().await?;
    let answer = preview(&fleet, &orchestrator, &engine, &context.actor(), args).await?;
    context.out.answer(answer)
}

async fn preview(
    fleet: &Fleet,
    orchestrator: &Orchestrator,
    engine: &DockerEngine,
    actor: &str,
    PlanArgs { image, how }: PlanArgs,
) -> Outcome<Answer> {
    let targets = match image {
        Some(image) => vec![
            fleet
                .pin(&image)
                .await
                .or_exit(Exit::Failed, "there is no such release")?,
        ],
        None => fleet.offered().await?,
    };
    let mut plans = Vec::new();
    for target in targets {
        let request = request(actor, fleet, target, &how).await?;
        plans.push(orchestrator.preview(request).await.map_err(refused)?);
    }
    let settings = fleet.ports().settings.settings().await?;
    let freezes = PlannerSettings::read(&settings)
        .or_exit(Exit::Usage, "a setting cannot be read")?
        .freezes;
    let mut concerns = Vec::new();
    for plan in &plans {
        concerns.push(Concerns::of(engine, fleet, plan).await?);
    }
    let both = || plans.iter().zip(&concerns);
    let mut texts: Vec<_> = both()
        .map(|(plan, concerns)| render(plan, &freezes, now()) + &concerns.text())
        .collect();
    if plans.is_empty() {
        texts.push(
            "nothing is behind, as far as the last check knows; `fleet check` asks again"
                .to_owned(),
        );
    }
    let rows = both()
        .map(|(plan, concerns)| concerns.beside(plan))
        .collect::<Outcome<Vec<_>>>()?;
    Answer::list("plans", &rows, Shown::Text(texts.join("\n")))
}

async fn request(
    actor: &str,
    fleet: &Fleet,
    target: PinnedImage,
    how: &HowArgs,
) -> Outcome<StartRequest> {
    let settings = fleet.ports().settings.settings().await?;
    let strategy = how
        .strategy(&settings)
        .or_exit(Exit::Usage, "the strategy cannot be used")?;
    Ok(StartRequest {
        asked: Asked::ByOperator {
            tenants: how.tenants.clone(),
        },
        strategy,
        limits: how.limits(fleet.default_limits().await?),
        override_window: how.override_window,
        ..StartRequest::new(actor, target)
    })
}

/// Starts a rollout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    image: ImageRef,
    #[serde(default)]
    how: HowArgs,
    /// Let it begin only when a person approves it.
    #[serde(default)]
    needs_approval: bool,
    /// Cancel it when nobody has approved it after so long.
    #[serde(default)]
    approval_expires: Option<Span>,
    /// Wait for its end; without a daemon this is implied.
    #[serde(default)]
    wait: bool,
}

impl Call for Start {
    const ROUTE: Route = Route::post("/api/v1/rollouts");
    const FOLLOWS_ROLLOUTS: bool = true;
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let settings = workshop.fleet.ports().settings.settings().await?;
        if let Some(held) = fleet_core::plan::fleet_pause(&settings) {
            let failure = Failure::from(StartError::Paused(held));
            return Err(failure.with(Exit::NotNow, "nothing starts; `fleet resume` lifts that"));
        }
        recover::first(workshop).await?;
        let target = workshop
            .fleet
            .pin(&self.image)
            .await
            .or_exit(Exit::Failed, "there is no such release")?;
        let mut request = request(&workshop.actor, &workshop.fleet, target, &self.how).await?;
        request.needs_approval = self.needs_approval;
        if let Some(expires) = self.approval_expires {
            request.limits.approval_expires = Some(expires.0);
        }
        let started = workshop
            .orchestrator
            .start(request)
            .await
            .map_err(refused)?;
        follow(workshop, started, self.wait).await
    }
}

/// Tries again what failed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryFailed {
    id: RolloutId,
    #[serde(default)]
    wait: bool,
}

impl Call for RetryFailed {
    const ROUTE: Route = Route::post("/api/v1/rollouts/{id}/retry-failed");
    const FOLLOWS_ROLLOUTS: bool = true;
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        recover::first(workshop).await?;
        let started = workshop
            .orchestrator
            .retry_failed(&self.id, &workshop.actor)
            .await
            .map_err(refused)?;
        follow(workshop, started, self.wait).await
    }
}

/// Waits for a rollout if that is wanted or nobody else goes on with it, and says how it stands.
async fn follow(workshop: &Workshop, started: Started, wait: bool) -> Outcome<Answer> {
    let plan = match started {
        Started::Opened(plan) => plan,
        Started::NothingToDo(plan) => return nothing_to_do(workshop, &plan),
    };
    if workshop.daemon && !wait {
        return answer(&workshop.orchestrator.load(&plan.id()).await?);
    }
    let waited = workshop.orchestrator.wait(&plan.id()).await?;
    let answer = answer(&waited.rollout)?;
    if let Outlook::NotNow { why, until } = &waited.outlook {
        let until = until.map_or_else(String::new, |at| format!(" until {at}"));
        let who = match workshop.daemon {
            true => "the daemon",
            false => "`fleet run --once`",
        };
        workshop.voice.tell(&format!(
            "held{until}: {}; {who} goes on with it",
            why.join("; ")
        ));
        return Ok(answer.ends(Exit::NotNow.worst(exit(&waited.rollout))));
    }
    Ok(answer.ends(exit(&waited.rollout)))
}

fn nothing_to_do(workshop: &Workshop, plan: &RolloutPlan) -> Outcome<Answer> {
    workshop.voice.tell("no instance is to be updated");
    let view = serde_json::json!({
        "id": null, "state": "nothing_to_do", "image": plan.request.target.image.to_string(),
        "digest": plan.request.target.digest.to_string(), "strategy": plan.request.strategy.label(),
        "total": 0, "committed": 0, "rolled_back": 0, "needs_operator": 0, "pending": 0, "waves": [], "holds": [],
        "held": plan.held,
    });
    Answer::one("rollout", &view, render(plan, &[], now()))
}

/// Steers a rollout. Going back, or going on, is work that somebody has to do: without a daemon this one.
async fn steer(workshop: &Workshop, id: &RolloutId, command: Command) -> Outcome<Answer> {
    let changed = workshop
        .orchestrator
        .command(id, &command, &workshop.actor)
        .await?;
    let works = matches!(
        command,
        Command::Resume | Command::Promote | Command::Approve | Command::Abort { .. }
    );
    if workshop.daemon || !works || changed.state.phase.is_terminal() {
        return answer(&changed);
    }
    recover::first(workshop).await?;
    let waited = workshop.orchestrator.wait(id).await?;
    Ok(answer(&waited.rollout)?.ends(exit(&waited.rollout)))
}

/// A call that steers one rollout.
macro_rules! steering {
    ($($(#[$doc:meta])* $name:ident $(($($field:ident: $kind:ty),*))? at $route:literal: $command:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub(crate) struct $name {
                id: RolloutId,
                $($(#[serde(default)] $field: $kind,)*)?
            }

            impl Call for $name {
                const ROUTE: Route = Route::post(concat!("/api/v1/rollouts/{id}/", $route));
                type With = Workshop;

                async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
                    let Self { id, $($($field),*)? } = self;
                    steer(workshop, &id, $command).await
                }
            }
        )*
    };
}

steering! {
    /// Starts nothing more of it.
    Pause(reason: String) at "pause": Command::Pause { why: reason };
    /// Lifts that.
    Resume at "resume": Command::Resume;
    /// Goes on past a gate.
    Promote at "promote": Command::Promote;
    /// Stops it.
    Abort(rollback: bool, reason: String) at "abort": Command::Abort { why: reason, rollback };
    /// Lets it begin.
    Approve at "approve": Command::Approve;
    /// Does not let it begin.
    Deny(reason: String) at "deny": Command::Deny { why: reason };
}

/// Takes an instance out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exclude {
    id: RolloutId,
    instance: InstanceName,
}

impl Call for Exclude {
    const ROUTE: Route = Route::post("/api/v1/rollouts/{id}/exclude");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let instance = InstanceId::local(self.instance);
        steer(workshop, &self.id, Command::Exclude { instance }).await
    }
}

/// The newest rollouts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {}

impl Call for List {
    const ROUTE: Route = Route::get("/api/v1/rollouts");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        list(&workshop.orchestrator).await
    }
}

/// One rollout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Show {
    id: RolloutId,
}

impl Call for Show {
    const ROUTE: Route = Route::get("/api/v1/rollouts/{id}");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        show(&workshop.orchestrator, &self.id).await
    }
}

/// One rollout, once it is over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watch {
    id: RolloutId,
}

impl Call for Watch {
    const ROUTE: Route = Route::get("/api/v1/rollouts/{id}/watch");
    const FOLLOWS_ROLLOUTS: bool = true;
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        watched(&workshop.orchestrator, &self.id).await
    }
}

/// What a rollout of an image, or of what was found, would do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Preview(PlanArgs);

impl Call for Preview {
    const ROUTE: Route = Route::get("/api/v1/plan");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let Workshop {
            fleet,
            orchestrator,
            engine,
            actor,
            ..
        } = workshop;
        preview(fleet, orchestrator, engine, actor, self.0).await
    }
}

/// Adds the routes of rollouts.
pub(crate) fn calls(router: Router<Served>) -> Router<Served> {
    let router = at::<List>(router);
    let router = at::<Show>(router);
    let router = at::<Watch>(router);
    let router = at::<Preview>(router);
    let router = at::<Start>(router);
    let router = at::<RetryFailed>(router);
    let router = at::<Pause>(router);
    let router = at::<Resume>(router);
    let router = at::<Promote>(router);
    let router = at::<Abort>(router);
    let router = at::<Approve>(router);
    let router = at::<Deny>(router);
    at::<Exclude>(router)
}

async fn list(orchestrator: &Orchestrator) -> Outcome<Answer> {
    let rollouts = orchestrator.list(LISTED).await?;
    let views: Vec<_> = rollouts.iter().map(RolloutView::new).collect();
    Answer::list("rollouts", &views, Shown::Table(table(&views)))
}

async fn show(orchestrator: &Orchestrator, id: &RolloutId) -> Outcome<Answer> {
    let stored = orchestrator.load(id).await?;
    Ok(answer(&stored)?.ends(exit(&stored)))
}

fn answer(stored: &StoredRollout) -> Outcome<Answer> {
    let view = RolloutView::new(stored);
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
    Answer::one("rollout", &view, text)
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
    Failure::from(error).with(exit, "the rollout does not start")
}
