//! What a plan does not know by itself: which of its instances would be refused at their turn, what their snapshots need
//! on the disk, and what compose will do afterwards.

use std::fmt::Write as _;

use fleet_core::engine::{Fleet, Foresight};
use fleet_core::ids::InstanceId;
use fleet_core::plan::{DiskNeed, RolloutPlan};
use fleet_docker::DockerEngine;
use fleet_docker::compose::NextUp;
use serde_json::{Value, json};

use crate::exit::{Exit, OrExit as _, Outcome};
use crate::output::bytes;
use crate::output::style::{BAD, WARN, paint};

/// What speaks against instances of a plan, and what people should know about others.
#[derive(Debug)]
pub(super) struct Concerns {
    foresight: Foresight,
    notes: Vec<(InstanceId, String)>,
}

impl Concerns {
    /// Looks at every instance of a plan; what compose will do is only known where its files are at hand. Reads only.
    ///
    /// # Errors
    /// The engine or the store cannot be asked.
    pub(super) async fn of(
        engine: &DockerEngine,
        fleet: &Fleet,
        plan: &RolloutPlan,
    ) -> Outcome<Self> {
        Ok(Self {
            foresight: fleet.foresee(plan).await?,
            notes: notes(engine, fleet, plan).await?,
        })
    }

    /// For people, after the plan.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let Foresight { refusals, disk } = &self.foresight;
        // Writing into a String cannot fail.
        match disk {
            Some(need) => {
                let _ = writeln!(text, "{}", disk_line(need));
            }
            None => text.push_str("what the snapshots need on the disk is not known\n"),
        }
        if !refusals.is_empty() {
            let _ = writeln!(text, "{}", paint(BAD, "would be refused now"));
        }
        for (instance, refusal) in refusals {
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

    /// For scripts: the plan with all of it.
    pub(super) fn beside(&self, plan: &RolloutPlan) -> Outcome<Value> {
        let mut row = serde_json::to_value(plan)?;
        let refusals = self.foresight.refusals.iter().map(|(instance, refusal)| {
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
        row["disk"] = json!(self.foresight.disk);
        Ok(row)
    }
}

/// What the snapshots need, for people.
fn disk_line(need: &DiskNeed) -> String {
    let line = format!(
        "snapshots need at most {}, at one time {}; {} are free, of which {} must stay",
        bytes(need.needed_bytes),
        bytes(need.at_once_bytes),
        bytes(need.free_bytes),
        bytes(need.reserve_bytes),
    );
    if need.fits() {
        line
    } else if need.fits_at_once() {
        let more = "all of them may not fit: it may be held (disk_space) on the way";
        format!("{line}\n{}", paint(WARN, more))
    } else {
        let more = "they do not fit: it would be held (disk_space)";
        format!("{line}\n{}", paint(BAD, more))
    }
}

async fn notes(
    engine: &DockerEngine,
    fleet: &Fleet,
    plan: &RolloutPlan,
) -> Outcome<Vec<(InstanceId, String)>> {
    let survey = fleet.survey().await?;
    let target = &plan.request.target.image;
    let mut notes = Vec::new();
    for instance in plan.members.iter().map(|member| &member.instance) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(needed: u64, at_once: u64, says: &str) {
        let need = DiskNeed {
            needed_bytes: needed << 20,
            at_once_bytes: at_once << 20,
            free_bytes: 1 << 30,
            reserve_bytes: 64 << 20,
        };
        let line = disk_line(&need);
        let line = anstream::adapter::strip_str(&line).to_string();
        assert_eq!(line, says);
    }

    #[test]
    fn it_is_said_what_does_not_fit() {
        check(
            900,
            100,
            "snapshots need at most 900.0 MiB, at one time 100.0 MiB; 1.0 GiB are free, of which 64.0 MiB must stay",
        );
        check(
            2048,
            100,
            "snapshots need at most 2.0 GiB, at one time 100.0 MiB; 1.0 GiB are free, of which 64.0 MiB must stay\n\
             all of them may not fit: it may be held (disk_space) on the way",
        );
        check(
            2048,
            1024,
            "snapshots need at most 2.0 GiB, at one time 1.0 GiB; 1.0 GiB are free, of which 64.0 MiB must stay\n\
             they do not fit: it would be held (disk_space)",
        );
    }
}
