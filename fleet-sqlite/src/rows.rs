//! Rows and their twins in the core, converted by hand and checked on read.
//!
//! Names in the database are fixed here; a rename in the core does not change them. What a newer fleet may have
//! written (phases, steps, event kinds) becomes the `Unknown` that the core has for it; anything else that does not
//! fit is an error that says where.

use std::fmt::Display;
use std::str::FromStr;

use fleet_core::ids::{HostId, InstanceId, InstanceName};
use fleet_core::model::{GlobalMode, TenantMode};
use fleet_core::record::{Event, EventKind, NewEvent};
use fleet_core::time::Timestamp;
use fleet_core::update::{Cause, Entry, Fault, Outcome, Phase, Step};
use rusqlite::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::Failure;

/// An instant as fixed-width text, so that text order is time order.
pub(crate) fn stamp(at: Timestamp) -> String {
    let text = at.to_string();
    let body = text.strip_suffix('Z').unwrap_or(&text);
    let (seconds, fraction) = body.split_once('.').unwrap_or((body, ""));
    format!("{seconds}.{fraction:0<9}Z")
}

/// Reads a column whose text has a grammar of its own: an id, a digest, an instant.
pub(crate) fn parsed<T>(row: &Row<'_>, column: &'static str) -> Result<T, Failure>
where
    T: FromStr,
    T::Err: Display,
{
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error: T::Err| Failure::row(column, error))
}

/// As [`parsed`], for a column that may be empty.
pub(crate) fn parsed_opt<T>(row: &Row<'_>, column: &'static str) -> Result<Option<T>, Failure>
where
    T: FromStr,
    T::Err: Display,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| {
        text.parse()
            .map_err(|error: T::Err| Failure::row(column, error))
    })
    .transpose()
}

/// Reads the columns `host` and `name`.
pub(crate) fn instance(row: &Row<'_>) -> Result<InstanceId, Failure> {
    Ok(InstanceId {
        host: parsed::<HostId>(row, "host")?,
        name: parsed::<InstanceName>(row, "name")?,
    })
}

/// JSON as text, nothing for null.
pub(crate) fn json(value: &Value) -> Option<String> {
    (!value.is_null()).then(|| value.to_string())
}

fn json_of(column: &'static str, text: Option<String>) -> Result<Value, Failure> {
    text.map_or(Ok(Value::Null), |text| {
        serde_json::from_str(&text).map_err(|error| Failure::row(column, error))
    })
}

/// Two-way table between a closed enum and its name in the database.
macro_rules! names {
    ($to:ident, $from:ident, $type:ty { $($variant:ident = $name:literal,)* }) => {
        pub(crate) fn $to(value: $type) -> &'static str {
            match value {
                $(<$type>::$variant => $name,)*
            }
        }

        pub(crate) fn $from(name: &str) -> Option<$type> {
            match name {
                $($name => Some(<$type>::$variant),)*
                _ => None,
            }
        }
    };
}

names!(outcome_name, outcome_of, Outcome {
    Committed = "committed",
    RolledBack = "rolled_back",
    NeedsOperator = "needs_operator",
    Diverged = "diverged",
    Refused = "refused",
    Failed = "failed",
    Unchanged = "unchanged",
});

names!(fault_name, fault_of, Fault {
    Release = "release",
    Infrastructure = "infrastructure",
    Foreign = "foreign",
    Refusal = "refusal",
    NotNow = "not_now",
});

names!(tenant_mode_name, tenant_mode_of, TenantMode {
    Auto = "auto",
    Manual = "manual",
});

names!(global_mode_name, global_mode_of, GlobalMode {
    Auto = "auto",
    Manual = "manual",
    Paused = "paused",
});

/// A row of `update_steps`, its place aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepRow {
    pub(crate) at: String,
    pub(crate) member: i64,
    pub(crate) phase: &'static str,
    pub(crate) step: Option<&'static str>,
    pub(crate) payload: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct CauseRow {
    fault: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct FailedRow {
    fault: String,
    reason: String,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    output: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct EndedRow {
    outcome: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct ResolvedRow {
    keep_new: bool,
    actor: String,
}

#[derive(Serialize, Deserialize)]
struct RecoveredRow {
    forward: bool,
    reason: String,
    cause: Option<CauseRow>,
}

impl CauseRow {
    fn of(cause: &Cause) -> Self {
        Self {
            fault: fault_name(cause.fault).to_owned(),
            reason: cause.reason.clone(),
        }
    }

    /// None if the fault is of a kind that this fleet does not know.
    fn cause(self) -> Option<Cause> {
        fault_of(&self.fault).map(|fault| Cause::new(fault, self.reason))
    }
}

impl StepRow {
    pub(crate) fn of(entry: &Entry) -> Result<Self, Failure> {
        let (phase, step, payload) = match &entry.phase {
            Phase::Started { step, input } => ("started", Some(*step), json(input)),
            Phase::Done { step, output } => ("done", Some(*step), json(output)),
            Phase::Failed {
                step,
                cause,
                output,
            } => {
                let row = FailedRow {
                    fault: fault_name(cause.fault).to_owned(),
                    reason: cause.reason.clone(),
                    output: output.clone(),
                };
                ("failed", Some(*step), Some(text_of(&row)?))
            }
            Phase::Ended { outcome, reason } => {
                let row = EndedRow {
                    outcome: outcome_name(*outcome).to_owned(),
                    reason: reason.clone(),
                };
                ("ended", None, Some(text_of(&row)?))
            }
            Phase::Resolved { keep_new, actor } => {
                let row = ResolvedRow {
                    keep_new: *keep_new,
                    actor: actor.clone(),
                };
                ("resolved", None, Some(text_of(&row)?))
            }
            Phase::Recovered {
                forward,
                reason,
                cause,
            } => {
                let row = serde_json::to_string(&RecoveredRow {
                    forward: *forward,
                    reason: reason.clone(),
                    cause: cause.as_ref().map(CauseRow::of),
                });
                ("recovered", None, Some(row.map_err(Failure::unwritable)?))
            }
            Phase::Unknown => ("unknown", None, None),
        };
        Ok(Self {
            at: stamp(entry.at),
            member: i64::try_from(entry.member).map_err(Failure::unwritable)?,
            phase,
            step: step.map(Step::label),
            payload,
        })
    }
}

/// Reads a row of `update_steps`.
pub(crate) fn entry(row: &Row<'_>) -> Result<Entry, Failure> {
    let member: i64 = row.get("member")?;
    let phase: String = row.get("phase")?;
    let step: Option<String> = row.get("step")?;
    Ok(Entry {
        at: parsed(row, "at")?,
        member: usize::try_from(member).map_err(|error| Failure::row("member", error))?,
        phase: phase_of(&phase, step.as_deref(), row.get("payload")?)?,
    })
}

fn phase_of(phase: &str, step: Option<&str>, payload: Option<String>) -> Result<Phase, Failure> {
    let known = step.and_then(|label| Step::ALL.iter().copied().find(|s| s.label() == label));
    Ok(match (phase, known) {
        ("started", Some(step)) => Phase::Started {
            step,
            input: json_of("payload", payload)?,
        },
        ("done", Some(step)) => Phase::Done {
            step,
            output: json_of("payload", payload)?,
        },
        ("failed", Some(step)) => {
            let row: FailedRow = required(payload)?;
            let cause = CauseRow {
                fault: row.fault,
                reason: row.reason,
            }
            .cause();
            cause.map_or(Phase::Unknown, |cause| Phase::Failed {
                step,
                cause,
                output: row.output,
            })
        }
        ("ended", _) => {
            let row: EndedRow = required(payload)?;
            outcome_of(&row.outcome).map_or(Phase::Unknown, |outcome| Phase::Ended {
                outcome,
                reason: row.reason,
            })
        }
        ("resolved", _) => {
            let row: ResolvedRow = required(payload)?;
            Phase::Resolved {
                keep_new: row.keep_new,
                actor: row.actor,
            }
        }
        ("recovered", _) => recovered(required(payload)?),
        _ => Phase::Unknown,
    })
}

fn recovered(row: RecoveredRow) -> Phase {
    let cause = match row.cause.map(CauseRow::cause) {
        None => None,
        Some(Some(cause)) => Some(cause),
        Some(None) => return Phase::Unknown,
    };
    Phase::Recovered {
        forward: row.forward,
        reason: row.reason,
        cause,
    }
}

fn text_of(row: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(row).map_err(Failure::unwritable)
}

fn required<T: for<'de> Deserialize<'de>>(payload: Option<String>) -> Result<T, Failure> {
    let text = payload.ok_or_else(|| Failure::row("payload", "expected JSON, found nothing"))?;
    serde_json::from_str(&text).map_err(|error| Failure::row("payload", error))
}

/// Reads a row of `events`.
pub(crate) fn event(row: &Row<'_>) -> Result<Event, Failure> {
    let sequence: i64 = row.get("seq")?;
    let kind: String = row.get("kind")?;
    let name: Option<String> = row.get("name")?;
    Ok(Event {
        sequence: u64::try_from(sequence).map_err(|error| Failure::row("seq", error))?,
        event: NewEvent {
            at: parsed(row, "at")?,
            kind: EventKind::from(kind),
            actor: row.get("actor")?,
            tenant: parsed_opt(row, "tenant")?,
            instance: name.map(|_| instance(row)).transpose()?,
            rollout: parsed_opt(row, "rollout")?,
            update: parsed_opt(row, "update_id")?,
            data: json_of("data", row.get("data")?)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(phase: Phase) {
        let entry = Entry {
            at: Timestamp::UNIX_EPOCH,
            member: 1,
            phase,
        };
        let row = StepRow::of(&entry).unwrap();
        let read = phase_of(row.phase, row.step, row.payload).unwrap();
        assert_eq!(read, entry.phase);
    }

    #[test]
    fn every_step_in_every_phase_reads_back() {
        for &step in Step::ALL {
            let input = serde_json::json!({"id": "a\u{0}b", "n": 1});
            check(Phase::Started { step, input });
            let output = Value::Null;
            check(Phase::Done { step, output });
            for fault in [
                Fault::Release,
                Fault::Infrastructure,
                Fault::Foreign,
                Fault::Refusal,
                Fault::NotNow,
            ] {
                let cause = Cause::new(fault, "why \"so\"");
                for output in [Value::Null, serde_json::json!({ "log": ["x"] })] {
                    let cause = cause.clone();
                    check(Phase::Failed {
                        step,
                        cause,
                        output,
                    });
                }
            }
        }
        for cause in [None, Some(Cause::new(Fault::Foreign, "x"))] {
            check(Phase::Recovered {
                forward: cause.is_none(),
                reason: "found".to_owned(),
                cause,
            });
        }
        check(Phase::Ended {
            outcome: Outcome::Diverged,
            reason: String::new(),
        });
        check(Phase::Resolved {
            keep_new: false,
            actor: "ann".to_owned(),
        });
    }

    #[test]
    fn what_a_newer_fleet_wrote_is_unknown_and_damage_is_an_error() {
        let unknown = |phase, step, payload: Option<&str>| {
            phase_of(phase, step, payload.map(str::to_owned)).unwrap() == Phase::Unknown
        };
        assert!(unknown("postponed", Some("stop"), None));
        assert!(unknown("started", Some("teleport"), None));
        assert!(unknown("done", None, None));
        let cause = r#"{"fault":"weather","reason":"rain"}"#;
        assert!(unknown("failed", Some("stop"), Some(cause)));
        let outcome = r#"{"outcome":"teleported","reason":""}"#;
        assert!(unknown("ended", None, Some(outcome)));

        let damaged = |phase, payload: Option<&str>| {
            phase_of(phase, Some("stop"), payload.map(str::to_owned)).is_err()
        };
        assert!(damaged("started", Some("{")));
        assert!(damaged("failed", None));
        assert!(damaged("recovered", Some("[]")));
    }

    #[test]
    fn text_order_of_instants_is_time_order() {
        let instants = [
            "1969-12-31T23:59:59.999999999Z",
            "2026-01-31T03:00:00Z",
            "2026-01-31T03:00:00.000000001Z",
            "2026-01-31T03:00:00.5Z",
            "2026-01-31T03:00:01Z",
        ];
        let stamps: Vec<String> = instants
            .iter()
            .map(|text| stamp(text.parse().unwrap()))
            .collect();
        assert!(stamps.is_sorted(), "{stamps:?}");
        for (stamp, text) in stamps.iter().zip(instants) {
            assert_eq!(stamp.parse::<Timestamp>(), text.parse());
        }
    }
}
