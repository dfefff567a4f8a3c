//! `fleet recover`, and the recovery that goes before every change.

use fleet_core::engine::{Fleet, Recovery, RecoveryOutcome};
use fleet_core::update::Outcome as Ended;
use serde_json::{Value, json};

use crate::assemble::Context;
use crate::exit::{Exit, Outcome};
use crate::output::style::{self, NAME, paint};
use crate::output::{Table, tell};

/// Runs the command.
pub(crate) async fn run(context: &Context) -> Outcome {
    let working = context.working().await?;
    let recoveries = recover(context, &working.fleet).await?;
    if context.out.format() == crate::cli::Format::Table {
        if recoveries.is_empty() {
            context.out.text("nothing to recover: no update is open")?;
        }
    } else {
        let rows: Vec<_> = recoveries.iter().map(row).collect();
        context
            .out
            .list("recoveries", &rows, || Table::new(&[], ""))?;
    }
    Ok(recoveries.iter().map(exit).fold(Exit::Done, Exit::worst))
}

/// Recovery before a change: what cannot be ended now keeps its instance, not the others.
///
/// How recovered updates ended is said on standard error; the exit code is about what was asked for.
pub(super) async fn first(context: &Context, fleet: &Fleet) -> Outcome<()> {
    recover(context, fleet).await.map(drop)
}

async fn recover(context: &Context, fleet: &Fleet) -> Outcome<Vec<Recovery>> {
    let sink = context.ui.sink("recovery");
    let told = |update: &fleet_core::ports::StoredUpdate, verdict: &fleet_core::update::Verdict| {
        let instance = &update.plan.primary().instance;
        let line = format!(
            "{}: found {}, therefore {}",
            paint(NAME, instance),
            verdict.found,
            verdict.therefore
        );
        context.ui.suspend(|| tell(&line));
    };
    let recoveries = fleet.recover(&sink, &told).await?;
    drop(sink);
    for recovery in &recoveries {
        tell(&line(recovery));
    }
    Ok(recoveries)
}

fn line(recovery: &Recovery) -> String {
    match &recovery.outcome {
        RecoveryOutcome::Ended(report) => {
            let word = report.outcome.map_or("open", Ended::label);
            let reason = report
                .reason
                .as_deref()
                .map_or_else(String::new, |why| format!(": {why}"));
            format!(
                "{} {}{reason}",
                paint(NAME, &recovery.instance),
                paint(style::of_word(word), word.replace('_', " "))
            )
        }
        RecoveryOutcome::Open(error) => format!(
            "{} {}: {}",
            paint(NAME, &recovery.instance),
            paint(style::BAD, "still open"),
            chain(error)
        ),
    }
}

fn chain(error: &fleet_core::engine::FleetError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn row(recovery: &Recovery) -> Value {
    let error = match &recovery.outcome {
        RecoveryOutcome::Ended(_) => None,
        RecoveryOutcome::Open(error) => Some(chain(error)),
    };
    let reason = match &recovery.outcome {
        RecoveryOutcome::Ended(report) => report.reason.clone(),
        RecoveryOutcome::Open(_) => None,
    };
    json!({
        "update": recovery.update,
        "instance": recovery.instance.to_string(),
        "found": recovery.verdict.found,
        "therefore": recovery.verdict.therefore,
        "outcome": recovery.ended().map(Ended::label),
        "reason": reason,
        "error": error,
    })
}

fn exit(recovery: &Recovery) -> Exit {
    match recovery.ended() {
        Some(Ended::NeedsOperator | Ended::Diverged) => Exit::NeedsPerson,
        Some(Ended::RolledBack) => Exit::RolledBack,
        Some(_) => Exit::Done,
        None => Exit::Failed,
    }
}
