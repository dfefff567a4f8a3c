//! `fleet resolve`: a person ends what is frozen, after seeing what is there.

use std::fmt::Write as _;

use fleet_core::engine::{Frozen, Keep};
use fleet_core::ids::InstanceName;
use fleet_core::model::Container;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::update;
use crate::answer::Answer;
use crate::assemble::Context;
use crate::call::{Call, Route, Workshop};
use crate::cli::{Format, ResolveArgs};
use crate::exit::{Exit, Outcome};
use crate::output::style::{BAD, HEAD, NAME, paint};
use crate::output::{confirm, tell};

/// Ends a frozen update.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resolve {
    instance: InstanceName,
    keep: Which,
}

/// Which container is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Which {
    New,
    Old,
}

impl Call for Resolve {
    const ROUTE: Route = Route::post("/api/v1/instances/{instance}/resolve");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let keep = match self.keep {
            Which::New => Keep::New,
            Which::Old => Keep::Old,
        };
        let name = self.instance.as_str();
        let sink = workshop.voice.sink(name);
        let report = workshop
            .fleet
            .resolve(name, keep, &workshop.actor, sink.as_ref())
            .await?;
        drop(sink);
        let answer = update::answer(&[report])?;
        // To go back is what was asked for: that it is rolled back is success here.
        let exit = match (self.keep, answer.exit) {
            (Which::Old, Exit::RolledBack) => Exit::Done,
            (_, exit) => exit,
        };
        Ok(answer.ends(exit))
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: ResolveArgs) -> Outcome {
    let name = args.instance.to_string();
    let frozen = context.looking().await?.frozen(&name).await?;
    let keep = match (args.keep.keep_new, args.keep.keep_old) {
        (true, _) => Which::New,
        (false, true) => Which::Old,
        (false, false) => {
            let answer = Answer::one("frozen", &row(&frozen), text(&frozen))?;
            return context.out.answer(answer.ends(Exit::NeedsPerson));
        }
    };
    if context.out.format() == Format::Table {
        tell(&text(&frozen));
    }
    let question = match keep {
        Which::New => format!("Keep the new container of {name} and remove the old one?"),
        Which::Old => format!(
            "Go back to the old container of {name}? Its volumes are put back to the snapshot; what was written \
             since the stop is lost."
        ),
    };
    confirm(args.yes, &question)?;
    let instance = args.instance;
    context.carry_out(Resolve { instance, keep }).await
}

fn row(frozen: &Frozen) -> Value {
    let member = |(plan, seen): (
        &fleet_core::update::MemberPlan,
        &fleet_core::update::MemberObservation,
    )| {
        json!({
            "instance": plan.instance.to_string(),
            "old": seen.old.as_ref().map(container),
            "new": seen.new.as_ref().map(container),
            "holder": seen.holder,
            "orphan": seen.orphan,
            "snapshot": plan.snapshot_id,
        })
    };
    json!({
        "update": frozen.state.plan.id,
        "state": frozen.instance_state.label(),
        "reason": frozen.state.outcome_reason,
        "members": frozen.state.plan.members.iter().zip(&frozen.seen.members).map(member).collect::<Vec<_>>(),
        "commands": frozen.commands(),
    })
}

fn container(container: &Container) -> Value {
    json!({
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "state": container.state,
        "exit_code": container.exit_code,
    })
}

fn text(frozen: &Frozen) -> String {
    let mut text = format!(
        "{} {}: {}",
        paint(HEAD, frozen.state.plan.id),
        paint(BAD, frozen.instance_state.label().replace('_', " ")),
        frozen.state.outcome_reason
    );
    let side = |container: &Option<Container>| match container {
        Some(found) => {
            format!("{} {} ({:?})", found.id.short(), found.name, found.state).to_lowercase()
        }
        None => "gone".to_owned(),
    };
    // Writing into a String cannot fail.
    for (plan, seen) in frozen.state.plan.members.iter().zip(&frozen.seen.members) {
        let _ = write!(
            text,
            "\n{}\n  old container: {}\n  new container: {}\n  snapshot:      {}",
            paint(NAME, &plan.instance),
            side(&seen.old),
            side(&seen.new),
            plan.snapshot_id
        );
        if let Some(orphan) = &seen.orphan {
            let _ = write!(text, "\n  a process lives on: {orphan}");
        }
    }
    text.push_str("\nTo look, and then to decide:");
    for command in frozen.commands() {
        let _ = write!(text, "\n  {command}");
    }
    text
}
