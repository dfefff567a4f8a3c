//! A plan as text, for `fleet plan`, for scenarios and for logs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::rollout_plan::{PlannedInstance, RolloutKind, RolloutPlan};
use super::strategy::WaveGate;
use super::waits;
use super::window::{Freeze, Schedule};
use crate::time::Timestamp;

/// Openings that are shown for each schedule.
const OPENINGS_SHOWN: usize = 3;

/// The whole plan as text: waves in order, who waits for what, why the others are not in it, the next openings, the
/// worst case and the earliest end.
#[must_use]
pub fn render(plan: &RolloutPlan, freezes: &[Freeze], now: Timestamp) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write_plan(&mut out, plan, freezes, now);
    out
}

fn write_plan(
    out: &mut String,
    plan: &RolloutPlan,
    freezes: &[Freeze],
    now: Timestamp,
) -> std::fmt::Result {
    let direction = match plan.kind {
        RolloutKind::Forward => "to",
        RolloutKind::Rollback => "back from",
    };
    let target = &plan.request.target;
    writeln!(
        out,
        "rollout {direction} {}@{}: {}, {} in {}",
        target.image,
        target.digest.short(),
        plan.request.strategy.label(),
        count(plan.members.len(), "instance"),
        count(plan.waves.len(), "wave"),
    )?;
    for wave in 0..u32::try_from(plan.waves.len()).unwrap_or(u32::MAX) {
        write_wave(out, plan, wave, freezes, now)?;
    }
    if !plan.held.is_empty() {
        writeln!(out, "not in it: {}", plan.held.len())?;
        for held in &plan.held {
            writeln!(
                out,
                "  {}  {}  {}",
                held.instance, plan.tenants[held.tenant as usize], held.why
            )?;
        }
    }
    write_openings(out, plan, now)?;
    if plan.members.is_empty() {
        return writeln!(out, "nothing to do");
    }
    writeln!(
        out,
        "at most {} at a time; stops when {} failed; worst case {} of {}",
        plan.request.limits.max_concurrent,
        count(plan.budget.limit.get() as usize, "instance"),
        plan.worst_case_failures(),
        plan.total(),
    )?;
    match earliest_end(plan, freezes, now) {
        Some(end) => writeln!(out, "over at {end} if all goes well"),
        None => writeln!(
            out,
            "its end depends on a person or on windows that do not open soon"
        ),
    }
}

fn write_wave(
    out: &mut String,
    plan: &RolloutPlan,
    wave: u32,
    freezes: &[Freeze],
    now: Timestamp,
) -> std::fmt::Result {
    let range = plan.wave_range(wave);
    let gate = match plan.waves[wave as usize].gate {
        WaveGate::Open => String::new(),
        WaveGate::Pause { duration } => format!(", {} after the one before", human(duration)),
        WaveGate::Person => ", when a person promotes".to_owned(),
    };
    writeln!(
        out,
        "wave {} of {}: {}{gate}",
        wave + 1,
        plan.waves.len(),
        count(range.len(), "instance")
    )?;
    for member in &plan.members[range] {
        let from = member
            .from
            .map_or("unknown", |from| plan.digests[from as usize].short());
        let to = plan.digests[member.to as usize].short();
        write!(
            out,
            "  {}  {}  {from} -> {to}",
            member.instance,
            plan.tenant(member)
        )?;
        if !member.with.is_empty() {
            let with = member.with.iter();
            let with: Vec<_> = with.map(|it| it.instance.to_string()).collect();
            write!(out, "  with {}", with.join(", "))?;
        }
        match wait_of(plan, member, freezes, now) {
            Some(held) => writeln!(out, "  ({held})")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn write_openings(out: &mut String, plan: &RolloutPlan, now: Timestamp) -> std::fmt::Result {
    let mut users: BTreeMap<u32, usize> = BTreeMap::new();
    for member in &plan.members {
        *users.entry(member.schedule).or_default() += 1;
    }
    for (number, users) in users {
        let Ok(schedule) = plan.schedules[number as usize].schedule() else {
            continue;
        };
        if let Some(warning) = schedule.skipped_warning(now) {
            writeln!(out, "{schedule} ({}) {warning}", count(users, "instance"))?;
        }
        let openings = schedule.openings(now, OPENINGS_SHOWN);
        if openings.is_empty() {
            continue;
        }
        let openings: Vec<String> = openings
            .iter()
            .map(|open| format!("{} to {}", open.start, open.end))
            .collect();
        writeln!(
            out,
            "{schedule} ({}): {}",
            count(users, "instance"),
            openings.join(", ")
        )?;
    }
    Ok(())
}

fn wait_of(
    plan: &RolloutPlan,
    member: &PlannedInstance,
    freezes: &[Freeze],
    now: Timestamp,
) -> Option<super::Held> {
    let schedule = plan.schedules[member.schedule as usize].schedule().ok()?;
    waits(
        &schedule,
        Duration::from_secs(member.estimate_secs.into()),
        freezes,
        now,
    )
}

/// Each wave in turn, its members as many at a time as may, the slowest estimate for all of them; none if a person or a
/// window that does not open stands in between.
fn earliest_end(plan: &RolloutPlan, freezes: &[Freeze], now: Timestamp) -> Option<Timestamp> {
    let schedules: Vec<Schedule> = plan
        .schedules
        .iter()
        .map(|schedule| schedule.schedule().ok())
        .collect::<Option<_>>()?;
    let at_a_time = plan.request.limits.max_concurrent.max(1) as usize;
    let mut at = now;
    for wave in 0..u32::try_from(plan.waves.len()).ok()? {
        match plan.waves[wave as usize].gate {
            WaveGate::Open => {}
            WaveGate::Pause { duration } => at = at.saturating_add(duration),
            WaveGate::Person => return None,
        }
        for together in plan.members[plan.wave_range(wave)].chunks(at_a_time) {
            let slowest = together.iter().map(|member| member.estimate_secs).max();
            let slowest = Duration::from_secs(slowest.unwrap_or(0).into());
            for member in together {
                let schedule = &schedules[member.schedule as usize];
                if let Some(held) = waits(schedule, slowest, freezes, at) {
                    at = held.ends_at()?.max(at);
                }
            }
            at = at.saturating_add(slowest);
        }
    }
    Some(at)
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A duration as people write it: `1h30m`, `5m`, `45s`.
pub(crate) fn human(duration: Duration) -> String {
    let secs = duration.as_secs();
    let parts = [(secs / 3600, "h"), (secs / 60 % 60, "m"), (secs % 60, "s")];
    let text: String = parts
        .iter()
        .filter(|(value, _)| *value > 0)
        .map(|(value, unit)| format!("{value}{unit}"))
        .collect();
    if text.is_empty() {
        format!("{}ms", duration.as_millis())
    } else {
        text
    }
}
