//! Facts of a rollout as events of the log.

use serde_json::json;

use crate::plan::RolloutPlan;
use crate::plan::rollout::{Fact, RolloutState};
use crate::record::{EventKind, NewEvent};
use crate::time::Timestamp;

/// The event of a new rollout.
pub(super) fn planned(plan: &RolloutPlan) -> NewEvent {
    let mut event = NewEvent::new(
        plan.planned_at,
        EventKind::RolloutPlanned,
        &plan.request.actor,
    );
    event.rollout = Some(plan.id());
    event.data = json!({
        "image": plan.request.target.image,
        "digest": plan.request.target.digest,
        "strategy": plan.request.strategy.label(),
        "total": plan.total(),
        "waves": plan.waves.len(),
        "held": plan.held.len(),
        "parent": plan.request.parent,
    });
    event
}

/// Releases come faster than a rollout can take its first wave to them; or no longer.
pub(super) fn starving(plan: &RolloutPlan, over: bool, at: Timestamp) -> NewEvent {
    let kind = match over {
        false => EventKind::AlertRaised,
        true => EventKind::AlertResolved,
    };
    let mut event = NewEvent::new(at, kind, "fleet");
    event.rollout = Some(plan.id());
    event.data = json!({
        "code": "rollouts_starve",
        "reason": "several rollouts before this one were replaced in their first wave: it finishes, whatever is released meanwhile",
        "image": plan.request.target.image,
        "digest": plan.request.target.digest,
    });
    event
}

/// One event for each fact.
pub(super) fn events(
    plan: &RolloutPlan,
    state: &RolloutState,
    facts: &[Fact],
    at: Timestamp,
) -> Vec<NewEvent> {
    let mut events = Vec::new();
    for fact in facts {
        events.push(event(plan, state, fact, at));
        let first_is_over = match fact {
            Fact::WavePassed { wave } => *wave == 0,
            Fact::Finished(_) => state.wave == 0,
            _ => false,
        };
        if state.is_starving() && first_is_over {
            events.push(starving(plan, true, at));
        }
    }
    events
}

fn event(plan: &RolloutPlan, state: &RolloutState, fact: &Fact, at: Timestamp) -> NewEvent {
    let waves = plan.waves.len();
    let fleet = "fleet";
    let (kind, actor, data) = match fact {
        Fact::AwaitsApproval => {
            let mut data = json!({"hold": "approval"});
            if let Some(ends_at) = plan.approval_ends_at() {
                data["until"] = json!(ends_at);
            }
            (EventKind::RolloutPaused, fleet, data)
        }
        Fact::Approved { by } => (
            EventKind::RolloutResumed,
            by.as_str(),
            json!({"hold": "approval"}),
        ),
        Fact::Started => (
            EventKind::RolloutStarted,
            fleet,
            json!({"total": plan.total(), "waves": waves}),
        ),
        Fact::WaveOpened { wave } => {
            let size = plan.wave_range(*wave).len();
            (
                EventKind::RolloutWaveOpened,
                fleet,
                json!({"wave": wave + 1, "of": waves, "size": size}),
            )
        }
        Fact::WavePassed { wave } => {
            let tally = state.wave_tally(plan, *wave);
            let data = json!({"wave": wave + 1, "of": waves, "committed": tally.committed, "failures": tally.failures});
            (EventKind::RolloutWavePassed, fleet, data)
        }
        Fact::Held(hold) => (
            EventKind::RolloutPaused,
            hold.by.as_str(),
            json!({"hold": hold.kind, "why": hold.why}),
        ),
        Fact::Unheld { hold, by } => (
            EventKind::RolloutResumed,
            by.as_str(),
            json!({"hold": hold.kind, "set_by": hold.by}),
        ),
        Fact::Excluded { by, why, .. } => {
            let mut data = json!({"reason": "excluded"});
            if let Some(why) = why {
                data["why"] = json!(why);
            }
            (EventKind::UpdateRefused, by.as_str(), data)
        }
        Fact::Aborted { by, why } => (EventKind::RolloutAborted, by.as_str(), json!({"why": why})),
        Fact::Superseded { by } => (EventKind::RolloutSuperseded, fleet, json!({"by": by})),
        Fact::ClockSet { by_millis } => {
            let reason = "the clock was set: pauses and retries last as long as they would have";
            let data = json!({"code": "clock_set", "reason": reason, "by_ms": by_millis});
            (EventKind::AlertRaised, fleet, data)
        }
        Fact::Finished(label) => {
            let tally = state.tally();
            let data = json!({
                "state": label,
                "committed": tally.committed,
                "rolled_back": tally.rolled_back,
                "needs_operator": tally.needs_operator,
            });
            (EventKind::RolloutCompleted, fleet, data)
        }
    };
    let mut event = NewEvent::new(at, kind, actor);
    event.rollout = Some(plan.id());
    event.data = data;
    if let Fact::Excluded { place, .. } = fact {
        let member = &plan.members[*place];
        event.instance = Some(member.instance.clone());
        event.tenant = Some(plan.tenant(member).clone());
    }
    event
}
