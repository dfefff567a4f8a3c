//! `fleet recover`, and the recovery that goes before every change.

use fleet_core::engine::{Recovery, RecoveryOutcome, UnfinishedRestore};
use fleet_core::ports::StoredUpdate;
use fleet_core::update::{Outcome as Ended, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{Answer, Shown};
use crate::call::{Call, Route, Workshop};
use crate::exit::{Exit, Outcome};
use crate::output::style::{self, NAME, paint};

/// Recovers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recover {}

impl Call for Recover {
    const ROUTE: Route = Route::post("/api/v1/recover");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let recoveries = recover(workshop).await?;
        for restore in workshop.fleet.unfinished_restores().await? {
            workshop.voice.tell(&unfinished(&restore));
        }
        let text = match recoveries.is_empty() {
            true => "nothing to recover: no update is open",
            false => "",
        };
        let rows: Vec<_> = recoveries.iter().map(row).collect();
        let exit = recoveries.iter().map(exit).fold(Exit::Done, Exit::worst);
        Ok(Answer::list("recoveries", &rows, Shown::Text(text.to_owned()))?.ends(exit))
    }
}

/// Recovery before a change: what cannot be ended now keeps its instance, not the others.
///
/// How recovered updates ended is said on standard error; the exit code is about what was asked for.
pub(super) async fn first(workshop: &Workshop) -> Outcome<()> {
    recover(workshop).await.map(drop)
}

async fn recover(workshop: &Workshop) -> Outcome<Vec<Recovery>> {
    let sink = workshop.voice.sink("recovery");
    let told = |update: &StoredUpdate, verdict: &Verdict| {
        workshop.voice.tell(&decision(update, verdict));
    };
    let recoveries = workshop.fleet.recover(sink.as_ref(), &told).await?;
    drop(sink);
    for recovery in &recoveries {
        workshop.voice.tell(&line(recovery));
    }
    Ok(recoveries)
}

/// A restore by hand that did not end, and what to do.
pub(super) fn unfinished(restore: &UnfinishedRestore) -> String {
    let UnfinishedRestore {
        instance, snapshot, ..
    } = restore;
    format!(
        "{}: putting back {snapshot} began at {} and did not end, its volumes may be half filled: run `fleet snapshot \
         restore {snapshot}` again",
        paint(NAME, instance),
        restore.began_at
    )
}

/// What recovery found and decided, before it is done.
pub(super) fn decision(update: &StoredUpdate, verdict: &Verdict) -> String {
    format!(
        "{}: found {}, therefore {}",
        paint(NAME, &update.plan.primary().instance),
        verdict.found,
        verdict.therefore
    )
}

/// What came of it.
pub(super) fn line(recovery: &Recovery) -> String {
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
