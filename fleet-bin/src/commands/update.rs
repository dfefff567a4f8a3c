//! `fleet update`: instances to an image, now, and how it went.

use std::fmt::Write as _;

use fleet_core::engine::{FleetError, UpdateRequest};
use fleet_core::update::{Fault, Outcome as Ended, UpdateReport};
use serde::Serialize;

use super::ps::short;
use super::recover;
use crate::assemble::Context;
use crate::cli::UpdateArgs;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::style::{self, DIM, NAME, paint};
use crate::output::{bytes, duration};

/// An update in JSON.
#[derive(Debug, Serialize)]
pub(super) struct UpdateRow {
    id: Option<String>,
    instance: String,
    outcome: Option<&'static str>,
    from_digest: Option<String>,
    to_digest: Option<String>,
    reason: Option<String>,
    /// A stable word for why it was refused.
    code: Option<String>,
    downtime_ms: Option<u64>,
    duration_ms: u64,
    snapshot_bytes: u64,
    steps: Vec<StepRow>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StepRow {
    name: &'static str,
    instance: String,
    started_at: String,
    duration_ms: Option<u64>,
}

impl From<&UpdateReport> for UpdateRow {
    fn from(report: &UpdateReport) -> Self {
        let step = |step: &fleet_core::update::StepReport| StepRow {
            name: step.step.label(),
            instance: step.instance.to_string(),
            started_at: step.started_at.to_string(),
            duration_ms: step.duration.map(millis),
        };
        Self {
            id: report.id.map(|id| id.to_string()),
            instance: report.instance.to_string(),
            outcome: report.outcome.map(Ended::label),
            from_digest: report.from_digest.clone(),
            to_digest: report.to_digest.clone(),
            reason: report.reason.clone(),
            code: report.refusal.as_ref().map(|refusal| refusal.code.clone()),
            downtime_ms: report.downtime.map(millis),
            duration_ms: millis(report.duration),
            snapshot_bytes: report.snapshot_bytes,
            steps: report.steps.iter().map(step).collect(),
            notes: report.notes.clone(),
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: UpdateArgs) -> Outcome {
    let working = context.working().await?;
    let names: Vec<_> = args.instances.iter().map(ToString::to_string).collect();
    recover::first(context, &working.fleet).await?;
    let request = UpdateRequest {
        instances: names.clone(),
        to: args.to,
        timeout: args.timeout,
        override_window: args.override_window,
        retry: args.retry,
        actor: context.actor(),
        rollout: None,
    };
    let sink = context.ui.sink(&names.join(", "));
    let result = working.fleet.update(&request, &sink).await;
    drop(sink);
    match result {
        Ok(reports) => {
            print(context, &reports)?;
            Ok(exit_of(&reports))
        }
        Err(error @ FleetError::UnknownInstance { .. }) => Err(Failure::from(error)),
        Err(error) => stopped(context, &names, error),
    }
}

/// The engine or the store failed in the middle. Scripts still get their JSON: the outcome is open.
fn stopped(context: &Context, names: &[String], error: FleetError) -> Outcome {
    if context.out.format() != crate::cli::Format::Table {
        let rows: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({
                    "id": null, "instance": name, "outcome": null, "reason": error.to_string(), "steps": [],
                })
            })
            .collect();
        context
            .out
            .list("updates", &rows, || crate::output::Table::new(&[], ""))?;
    }
    Err(error).or_exit(
        Exit::Failed,
        "the update stopped before its end; what had begun is in the journal, and fleet recover goes on with it",
    )
}

/// Prints reports.
pub(super) fn print(context: &Context, reports: &[UpdateReport]) -> Outcome<()> {
    if context.out.format() == crate::cli::Format::Table {
        return reports
            .iter()
            .try_for_each(|report| context.out.text(&text(report)));
    }
    let rows: Vec<_> = reports.iter().map(UpdateRow::from).collect();
    context
        .out
        .list("updates", &rows, || crate::output::Table::new(&[], ""))
}

/// The exit code of several updates.
pub(super) fn exit_of(reports: &[UpdateReport]) -> Exit {
    reports.iter().map(exit).fold(Exit::Done, Exit::worst)
}

fn exit(report: &UpdateReport) -> Exit {
    let for_now = report.fault == Some(Fault::NotNow)
        || report
            .refusal
            .as_ref()
            .is_some_and(|refusal| refusal.for_now);
    match report.outcome {
        Some(Ended::Committed | Ended::Unchanged) => Exit::Done,
        Some(Ended::RolledBack) => Exit::RolledBack,
        Some(Ended::NeedsOperator | Ended::Diverged) => Exit::NeedsPerson,
        Some(Ended::Refused) if for_now => Exit::NotNow,
        Some(Ended::Refused | Ended::Failed) | None => Exit::Failed,
    }
}

fn text(report: &UpdateReport) -> String {
    let outcome = report.outcome.map_or("open", Ended::label);
    let mut text = format!(
        "{} {}",
        paint(NAME, &report.instance),
        paint(style::of_word(outcome), outcome.replace('_', " "))
    );
    // Writing into a String cannot fail.
    if let (Some(from), Some(to)) = (&report.from_digest, &report.to_digest) {
        let _ = write!(text, "  {} → {}", short(from), short(to));
    }
    if let Some(downtime) = report.downtime {
        let _ = write!(text, "  without service {}", duration(downtime));
    }
    let _ = write!(
        text,
        "{}",
        paint(DIM, format!("  in {}", duration(report.duration)))
    );
    if report.snapshot_bytes > 0 {
        let _ = write!(
            text,
            "{}",
            paint(DIM, format!("  snapshot {}", bytes(report.snapshot_bytes)))
        );
    }
    for line in report.reason.iter().chain(&report.notes) {
        let _ = write!(text, "\n  {}", line.replace('\n', "\n  "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_core::ids::{InstanceId, InstanceName};
    use fleet_core::update::Refusal;

    use super::*;

    fn report(outcome: Option<Ended>, refusal: Option<Refusal>) -> UpdateReport {
        UpdateReport {
            id: None,
            instance: InstanceId::local(InstanceName::new("web").unwrap()),
            outcome,
            from_digest: None,
            to_digest: None,
            reason: None,
            refusal,
            fault: None,
            downtime: None,
            duration: Duration::ZERO,
            snapshot_bytes: 0,
            steps: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn exit_codes_follow_the_outcomes() {
        let check = |outcomes: &[Ended], expect: Exit| {
            let reports: Vec<_> = outcomes
                .iter()
                .map(|outcome| report(Some(*outcome), None))
                .collect();
            assert_eq!(exit_of(&reports), expect, "{outcomes:?}");
        };
        check(&[], Exit::Done);
        check(&[Ended::Committed, Ended::Unchanged], Exit::Done);
        check(&[Ended::Committed, Ended::RolledBack], Exit::RolledBack);
        check(
            &[Ended::RolledBack, Ended::NeedsOperator],
            Exit::NeedsPerson,
        );
        check(&[Ended::Diverged], Exit::NeedsPerson);
        check(&[Ended::Failed], Exit::Failed);
        check(&[Ended::Refused], Exit::Failed);
        let later = Refusal::for_now("paused", "x", "y");
        assert_eq!(
            exit_of(&[report(Some(Ended::Refused), Some(later))]),
            Exit::NotNow
        );
        assert_eq!(exit_of(&[report(None, None)]), Exit::Failed);
    }
}
