//! What a plan does not know by itself: which of its instances would be refused at their turn, and what compose will do
//! afterwards.

use std::fmt::Write as _;

use fleet_core::engine::Fleet;
use fleet_core::ids::InstanceId;
use fleet_core::plan::RolloutPlan;
use fleet_core::update::Refusal;
use fleet_docker::DockerEngine;
use fleet_docker::compose::NextUp;
use serde_json::{Value, json};

use crate::exit::{Exit, OrExit as _, Outcome};
use crate::output::style::{BAD, WARN, paint};

/// What speaks against instances of a plan, and what people should know about others.
#[derive(Debug)]
pub(super) struct Concerns {
    refusals: Vec<(InstanceId, Refusal)>,
    notes: Vec<(InstanceId, String)>,
}

impl Concerns {
    /// Looks at every instance of a plan; what compose will do is only known where its files are at hand, with an engine
    /// to ask. Reads only.
    ///
    /// # Errors
    /// The engine or the store cannot be asked.
    pub(super) async fn of(
        engine: Option<&DockerEngine>,
        fleet: &Fleet,
        plan: &RolloutPlan,
    ) -> Outcome<Self> {
        let instances: Vec<InstanceId> = plan
            .members
            .iter()
            .map(|member| member.instance.clone())
            .collect();
        Ok(Self {
            refusals: fleet.objections(&instances).await?,
            notes: match engine {
                Some(engine) => notes(engine, fleet, plan, &instances).await?,
                None => Vec::new(),
            },
        })
    }

    /// For people, after the plan.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        if !self.refusals.is_empty() {
            let _ = writeln!(text, "{}", paint(BAD, "would be refused now"));
        }
        for (instance, refusal) in &self.refusals {
            let _ = writeln!(
                text,
                "  {instance}  {}: {}; {}",
                refusal.code, refusal.reason, refusal.remedy
            );
        }
        for (instance, note) in &self.notes {
            let _ = writeln!(text, "{} {instance}  {note}", paint(WARN, "note"));
        }
        text
    }

    /// For scripts: the plan with both.
    pub(super) fn beside(&self, plan: &RolloutPlan) -> Outcome<Value> {
        let mut row = serde_json::to_value(plan)?;
        let refusals = self.refusals.iter().map(|(instance, refusal)| {
            json!({
                "instance": instance,
                "code": refusal.code,
                "reason": refusal.reason,
                "remedy": refusal.remedy,
                "for_now": refusal.for_now,
            })
        });
        let notes = self
            .notes
            .iter()
            .map(|(instance, note)| json!({ "instance": instance, "message": note }));
        row["refusals"] = refusals.collect();
        row["notes"] = notes.collect();
        Ok(row)
    }
}

async fn notes(
    engine: &DockerEngine,
    fleet: &Fleet,
    plan: &RolloutPlan,
    instances: &[InstanceId],
) -> Outcome<Vec<(InstanceId, String)>> {
    let survey = fleet.survey().await?;
    let target = &plan.request.target.image;
    let mut notes = Vec::new();
    for instance in instances {
        let Some(managed) = survey.workload(instance.name.as_str()) else {
            continue;
        };
        let container = managed.container;
        // A bare digest leaves the container its own name.
        let named = target
            .familiar_tag()
            .unwrap_or_else(|| container.image.clone());
        let up = engine
            .next_up(container, &named)
            .await
            .or_exit(Exit::Failed, "compose's settings cannot be looked at")?;
        if let Some(NextUp::RecreatesOnce(reason)) = up {
            notes.push((instance.clone(), reason));
        }
    }
    Ok(notes)
}
