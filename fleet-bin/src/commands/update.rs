//! `fleet update`: instances to an image, now, and how it went.

use std::fmt::Write as _;

use fleet_core::engine::{FleetError, Target, UpdateRequest};
use fleet_core::ids::InstanceName;
use fleet_core::update::{Fault, Outcome as Ended, SagaError, UpdateReport};
use serde::{Deserialize, Serialize};

use super::ps::short;
use super::recover;
use crate::answer::{Answer, Shown};
use crate::assemble::Context;
use crate::call::{Call, Route, Span, Workshop};
use crate::cli::UpdateArgs;
use crate::daemon::Unanswered;
use crate::exit::{Exit, Failure, Outcome};
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

/// Updates instances, one after the other, and waits for the outcome.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    instances: Vec<InstanceName>,
    to: Target,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default)]
    override_window: bool,
    #[serde(default)]
    retry: bool,
}

/// Updates one instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateOne {
    instance: InstanceName,
    to: Target,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default)]
    override_window: bool,
    #[serde(default)]
    retry: bool,
}

impl Call for Update {
    const ROUTE: Route = Route::post("/api/v1/updates");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let names: Vec<_> = self.instances.iter().map(ToString::to_string).collect();
        let request = UpdateRequest {
            instances: names.clone(),
            to: self.to,
            timeout: self.timeout.map(|timeout| timeout.0),
            override_window: self.override_window,
            retry: self.retry,
            actor: workshop.actor.clone(),
            rollout: None,
        };
        recover::first(workshop).await?;
        let sink = workshop.voice.sink(&names.join(", "));
        let result = workshop.fleet.update(&request, sink.as_ref()).await;
        drop(sink);
        match result {
            Ok(reports) => answer(&reports),
            Err(error @ FleetError::UnknownInstance { .. }) => Err(Failure::from(error)),
            Err(error) => stopped(&names, error),
        }
    }
}

impl Call for UpdateOne {
    const ROUTE: Route = Route::post("/api/v1/instances/{instance}/update");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let update = Update {
            instances: vec![self.instance],
            to: self.to,
            timeout: self.timeout,
            override_window: self.override_window,
            retry: self.retry,
        };
        update.carry_out(workshop).await
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: UpdateArgs) -> Outcome {
    let update = Update {
        instances: args.instances,
        to: args.to,
        timeout: args.timeout.map(Span),
        override_window: args.override_window,
        retry: args.retry,
    };
    let names: Vec<_> = update.instances.iter().map(ToString::to_string).collect();
    let answer = match context.ask(update).await {
        Err(failure) if failure.cause::<Unanswered>().is_some() => open(&names, &failure)?,
        answer => answer?,
    };
    context.out.answer(answer)
}

/// The engine or the store failed in the middle, or fleet was told to stop.
fn stopped(names: &[String], error: FleetError) -> Outcome<Answer> {
    let exit = match &error {
        FleetError::Saga(SagaError::Stopped { .. }) => Exit::NotNow,
        _ => Exit::Failed,
    };
    let what = "the update stopped before its end; what had begun is in the journal, and fleet recover goes on with it";
    open(names, &Failure::from(error).with(exit, what))
}

/// Scripts get their JSON also where the outcome is open.
fn open(names: &[String], failure: &Failure) -> Outcome<Answer> {
    let rows: Vec<_> = names
        .iter()
        .map(|name| {
            serde_json::json!({
                "id": null, "instance": name, "outcome": null, "reason": failure.chain(), "steps": [],
            })
        })
        .collect();
    let answer = Answer::list("updates", &rows, Shown::Text(String::new()))?;
    Ok(answer.but(failure))
}

/// Reports as an answer.
pub(super) fn answer(reports: &[UpdateReport]) -> Outcome<Answer> {
    let rows: Vec<_> = reports.iter().map(UpdateRow::from).collect();
    let texts: Vec<_> = reports.iter().map(text).collect();
    let answer = Answer::list("updates", &rows, Shown::Text(texts.join("\n")))?;
    Ok(answer.ends(exit_of(reports)))
}

/// The exit code of several updates.
fn exit_of(reports: &[UpdateReport]) -> Exit {
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
