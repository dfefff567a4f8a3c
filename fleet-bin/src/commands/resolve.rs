//! `fleet resolve`: a person ends what is frozen, after seeing what is there.

use std::fmt::Write as _;

use fleet_core::engine::{Frozen, Keep};
use fleet_core::model::Container;
use serde_json::{Value, json};

use super::update;
use crate::assemble::Context;
use crate::cli::{Format, ResolveArgs};
use crate::exit::{Exit, Outcome};
use crate::output::style::{BAD, HEAD, NAME, paint};
use crate::output::{confirm, tell};

/// Runs the command.
pub(crate) async fn run(context: &Context, args: ResolveArgs) -> Outcome {
    let name = args.instance.to_string();
    let keep = match (args.keep.keep_new, args.keep.keep_old) {
        (true, _) => Keep::New,
        (false, true) => Keep::Old,
        (false, false) => {
            let frozen = context.looking().await?.frozen(&name).await?;
            context.out.one("frozen", &row(&frozen), || text(&frozen))?;
            return Ok(Exit::NeedsPerson);
        }
    };
    let working = context.working().await?;
    let frozen = working.fleet.frozen(&name).await?;
    if context.out.format() == Format::Table {
        tell(&text(&frozen));
    }
    let question = match keep {
        Keep::New => format!("Keep the new container of {name} and remove the old one?"),
        Keep::Old => format!(
            "Go back to the old container of {name}? Its volumes are put back to the snapshot; what was written \
             since the stop is lost."
        ),
    };
    confirm(args.yes, &question)?;
    let sink = context.ui.sink(&name);
    let report = working
        .fleet
        .resolve(&name, keep, &context.actor(), &sink)
        .await?;
    drop(sink);
    let reports = [report];
    update::print(context, &reports)?;
    // To go back is what was asked for: that it is rolled back is success here.
    Ok(match (keep, update::exit_of(&reports)) {
        (Keep::Old, Exit::RolledBack) => Exit::Done,
        (_, exit) => exit,
    })
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
