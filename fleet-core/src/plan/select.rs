//! Which instances a rollout is about, and why not the others.
//!
//! One question after the other, the most permanent first; the first that says no is the reason given. Windows and
//! freezes do not decide here: an instance that only has to wait is in the plan ([`waits`] says for what).

use std::time::Duration;

use super::candidate::{Asked, Candidate, InstanceState, PlanInput};
use super::held::Held;
use super::mode::mode_under;
use super::rollout_plan::ScheduleSpec;
use super::tables::{Tables, TenantEntry};
use super::when::When;
use super::window::{Fit, Freeze, Policy, Schedule, WeeklyCalendar};
use crate::ids::{InstanceName, TenantId};
use crate::model::labels::LabelMode;
use crate::model::{FleetSettings, GlobalMode, UpdateConfig};
use crate::time::Timestamp;

/// The hold on the whole fleet, if there is one.
#[must_use]
pub fn fleet_pause(fleet: &FleetSettings) -> Option<Held> {
    match (&fleet.pause, fleet.mode) {
        (Some(pause), _) => Some(Held::Paused {
            by: pause.by.as_str().into(),
            why: pause.reason.as_str().into(),
        }),
        (None, GlobalMode::Paused) => Some(Held::Paused {
            by: "settings".into(),
            why: "mode is paused".into(),
        }),
        (None, GlobalMode::Auto | GlobalMode::Manual) => None,
    }
}

/// Why an update may not begin at this instant though nothing but time forbids it; none if it may.
#[must_use]
pub fn waits(
    schedule: &Schedule,
    estimate: Duration,
    freezes: &[Freeze],
    now: Timestamp,
) -> Option<Held> {
    if let Some(freeze) = Freeze::in_force(freezes, now) {
        return Some(Held::Frozen {
            until: freeze.until,
            why: freeze.reason.as_str().into(),
        });
    }
    match schedule.fit(now, estimate) {
        Fit::Now => None,
        Fit::Closed { opens_at } => Some(Held::OutsideWindow { opens_at }),
        Fit::TooShort {
            closes_at,
            opens_at,
        } => Some(Held::WindowTooShort {
            closes_at,
            opens_at,
        }),
    }
}

/// When a candidate may begin, as its schedule in the tables, or why it is not in the plan.
pub(super) fn verdict<'a>(
    input: &PlanInput<'a>,
    candidate: &'a Candidate,
    tenant: TenantEntry<'a>,
    tables: &mut Tables<'a>,
) -> Result<u32, Held> {
    reason_out_of_scope(input, candidate)
        .or_else(|| reason_of_state(input, candidate))
        .or_else(|| fleet_pause(input.fleet))
        .map_or(Ok(()), Err)?;
    let TenantEntry {
        config,
        mode,
        schedule,
        ..
    } = tenant;
    let policy = match (&candidate.policy, config) {
        (Some(text), None) => Some(text.parse::<Policy>().map_err(invalid)?),
        _ => None,
    };
    let mode = mode_under(input.fleet.mode, mode, candidate.mode, policy.as_ref());
    reason_of_mode(
        &input.request.asked,
        &candidate.instance.name,
        &candidate.tenant,
        candidate.mode,
        mode,
    )
    .or_else(|| reason_too_young(input, candidate))
    .map_or(Ok(()), Err)?;
    // What is said of a tenant holds for all its instances that say nothing of their own.
    let is_the_tenants = candidate.window.is_none() && policy.is_none();
    match schedule {
        Some(known) if is_the_tenants => Ok(known),
        _ => {
            let spec = schedule_of(input, candidate, policy.as_ref(), config)?;
            let number = tables.schedule(spec);
            if is_the_tenants {
                tables.remember_schedule(tenant.place, number);
            }
            Ok(number)
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> Held {
    Held::InvalidSetting {
        message: error.to_string().into(),
    }
}

fn named(asked: &Asked, instance: &InstanceName, tenant: &TenantId) -> bool {
    match asked {
        Asked::ByDetection { .. } => false,
        Asked::ByOperator { tenants } => tenants.contains(tenant),
        Asked::ForInstances { names } => names.contains(instance),
    }
}

fn reason_out_of_scope(input: &PlanInput<'_>, candidate: &Candidate) -> Option<Held> {
    let in_scope = match &input.request.asked {
        Asked::ByDetection { channel } => channel
            .as_ref()
            .is_none_or(|channel| *channel == candidate.channel),
        Asked::ByOperator { tenants } => tenants.is_empty() || tenants.contains(&candidate.tenant),
        Asked::ForInstances { names } => names.contains(&candidate.instance.name),
    };
    if !in_scope {
        Some(Held::NotInScope)
    } else if !candidate.enabled {
        Some(Held::NotEnabled)
    } else {
        None
    }
}

fn reason_of_state(input: &PlanInput<'_>, candidate: &Candidate) -> Option<Held> {
    let request = input.request;
    let asked_for = matches!(request.asked, Asked::ForInstances { .. });
    if let Some(label) = candidate.restricted_by.as_deref().filter(|_| !asked_for) {
        return Some(Held::Restricted { by: label.into() });
    }
    if candidate.behind == Some(false) || candidate.current.as_ref() == Some(&request.target.digest)
    {
        return Some(Held::NotBehind);
    }
    if let Some(pin) = &candidate.pin {
        let on_digest = pin == request.target.digest.as_str();
        let on_tag = request.target.image.tag() == Some(pin);
        if !on_digest && !on_tag {
            return Some(Held::Pinned {
                to: pin.as_str().into(),
            });
        }
    }
    if candidate.quarantined && !request.retry_quarantined {
        return Some(Held::Quarantined);
    }
    match candidate.state {
        // A rollout waits for an update that is going on; else the one that it replaces would leave instances behind.
        InstanceState::Updating if asked_for => Some(Held::Updating),
        InstanceState::Updating => None,
        InstanceState::NeedsOperator => Some(Held::NeedsOperator),
        InstanceState::Diverged => Some(Held::Diverged),
        InstanceState::Idle => None,
    }
}

/// Why the mode of an instance keeps it out of what was asked for; none if it does not. `label` is the mode that its own
/// label chooses, `mode` the one that holds (see [`super::effective_mode`]).
#[must_use]
pub fn reason_of_mode(
    asked: &Asked,
    instance: &InstanceName,
    tenant: &TenantId,
    label: Option<LabelMode>,
    mode: LabelMode,
) -> Option<Held> {
    if matches!(asked, Asked::ForInstances { .. }) {
        return None;
    }
    let named = named(asked, instance, tenant);
    match mode {
        LabelMode::Auto => None,
        LabelMode::Manual if named => None,
        LabelMode::Manual => Some(Held::ManualMode),
        // Nobody chose "notify": naming the tenant is the choice.
        LabelMode::Notify if named && label.is_none() => None,
        LabelMode::Notify => Some(Held::NotifyOnly),
        LabelMode::Off => Some(Held::Off),
    }
}

fn reason_too_young(input: &PlanInput<'_>, candidate: &Candidate) -> Option<Held> {
    let min_age = candidate.min_age.filter(|age| !age.is_zero())?;
    match input
        .request
        .released_at
        .map(|at| at.saturating_add(min_age))
    {
        None => Some(Held::TooYoung { ready_at: None }),
        Some(ready_at) if ready_at > input.now => Some(Held::TooYoung {
            ready_at: Some(ready_at),
        }),
        Some(_) => None,
    }
}

/// When a candidate may begin.
fn schedule_of(
    input: &PlanInput<'_>,
    candidate: &Candidate,
    policy: Option<&Policy>,
    config: Option<&UpdateConfig>,
) -> Result<ScheduleSpec, Held> {
    if input.request.override_window {
        return Ok(ScheduleSpec::Always);
    }
    let when = When {
        window: candidate.window.as_deref(),
        policy: candidate.policy.as_deref().zip(policy),
        config,
        default: input.settings.window.as_ref(),
    };
    let (spec, _) = match input.request.asked {
        Asked::ByDetection { .. } => when.for_detection(),
        Asked::ByOperator { .. } | Asked::ForInstances { .. } => when.for_a_person(),
    };
    if let ScheduleSpec::Windows { windows } = &spec {
        WeeklyCalendar::parse(windows).map_err(invalid)?;
    }
    Ok(spec)
}
