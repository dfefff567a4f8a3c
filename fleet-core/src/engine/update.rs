//! `fleet update`: one or more instances to a release, now.

use std::time::Duration;

use super::admit::Targets;
use super::{Admission, Fleet, FleetError, Survey, Target};
use crate::ids::{InstanceId, RolloutId, UpdateId};
use crate::ports::{JournalError, NewUpdate, PortError, ProgressSink};
use crate::record::{EventKind, NewEvent};
use crate::update::{Entry, Outcome, Phase, Refusal, Step, UpdateReport, UpdateState};

/// A wish to update.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// Names of the instances.
    pub instances: Vec<String>,
    /// What they shall run.
    pub to: Target,
    /// Beats the health timeout of the labels, if given.
    pub timeout: Option<Duration>,
    /// Do not mind windows.
    pub override_window: bool,
    /// Take a quarantined digest once more.
    pub retry: bool,
    /// Who asks.
    pub actor: String,
    /// The rollout that asks.
    pub rollout: Option<RolloutId>,
}

impl Fleet {
    /// Updates instances one after the other, and stops at the first that is not brought to the release. Reports every
    /// one that was named, also those that were refused or not tried.
    ///
    /// # Errors
    /// A name that is not an instance: nothing was touched. The engine or the store failed: what had begun is in the
    /// journal, and [`Fleet::recover`] goes on.
    pub async fn update(
        &self,
        request: &UpdateRequest,
        progress: &dyn ProgressSink,
    ) -> Result<Vec<UpdateReport>, FleetError> {
        let survey = self.survey().await?;
        for name in &request.instances {
            if survey.workload(name).is_none() {
                return Err(Self::unknown(&survey, name));
            }
        }
        if let Some(refusal) = self.standstill().await? {
            return self.refuse_all(&survey, request, &refusal).await;
        }
        let (targets, mut reports) = self.resolve_targets(&survey, request).await?;
        let mut failed = !reports.is_empty();
        for admission in self.admit(&survey, &targets, request).await? {
            if failed {
                reports.extend(self.not_tried(&admission, &targets));
                continue;
            }
            let report = self.update_one(&admission, request, progress).await?;
            failed = !matches!(
                report.outcome,
                Some(Outcome::Committed | Outcome::Unchanged)
            );
            reports.push(report);
        }
        Ok(reports)
    }

    /// Does one admitted update, or records why it may not begin.
    pub(crate) async fn update_one(
        &self,
        admission: &Admission,
        request: &UpdateRequest,
        progress: &dyn ProgressSink,
    ) -> Result<UpdateReport, FleetError> {
        if let Some((instance, refusal)) = admission.refusals.first() {
            return self.refuse(admission, instance, refusal).await;
        }
        if self.live.is_stopping() {
            let refusal = Refusal::for_now("stopping", "fleet is stopping", "try it again");
            return self
                .refuse(admission, &admission.plan.primary().instance, &refusal)
                .await;
        }
        let Some(_claim) = self.live.claim(&admission.plan) else {
            let refusal = Refusal::for_now(
                "busy",
                "something else works on the instance",
                "try it again when it has ended",
            );
            return self
                .refuse(admission, &admission.plan.primary().instance, &refusal)
                .await;
        };
        if request.retry {
            for member in &admission.plan.members {
                if let Some(target) = &member.target {
                    self.ports
                        .update
                        .journal
                        .lift_quarantine(&member.instance, &target.image.digest)
                        .await?;
                }
            }
        }
        match self.open(admission).await {
            Ok(()) => {}
            Err(JournalError::LiveUpdate { instance, update }) => {
                let refusal = Refusal::for_now(
                    "live_update",
                    format!("update {update} of {instance} is open"),
                    "wait for it; if nothing works on it, `fleet recover` goes on with it",
                );
                return self.refuse(admission, &instance, &refusal).await;
            }
            Err(error) => return Err(error.into()),
        }
        let state = UpdateState::replay(admission.plan.clone(), &[self.admitted()]);
        self.drive(state, progress).await?;
        let mut report = self.report_of(&admission.plan.id).await?;
        report.from_digest = Some(admission.from_digest.clone());
        Ok(report)
    }

    /// Writes the plan and its admission; from here on the journal answers for it.
    async fn open(&self, admission: &Admission) -> Result<(), JournalError> {
        let clock = &self.ports.update.clock;
        let at = clock.now();
        let update = NewUpdate {
            plan: admission.plan.clone(),
            at,
            boot_id: clock.boot_id(),
        };
        let primary = admission.plan.primary();
        let event = NewEvent {
            tenant: Some(primary.tenant.clone()),
            instance: Some(primary.instance.clone()),
            rollout: admission.plan.rollout,
            update: Some(admission.plan.id),
            data: serde_json::json!({
                "from": admission.from_digest,
                "to": primary.target.as_ref().map(|target| target.image.to_string()),
                "members": admission.plan.members.iter().map(|m| m.instance.to_string()).collect::<Vec<_>>(),
            }),
            ..NewEvent::new(at, EventKind::UpdateStarted, admission.plan.actor.clone())
        };
        self.ports.update.journal.open(&update, vec![event]).await?;
        let write = crate::ports::JournalWrite {
            entries: vec![self.admitted()],
            ..Default::default()
        };
        self.ports
            .update
            .journal
            .append(&admission.plan.id, write)
            .await
    }

    fn admitted(&self) -> Entry {
        let phase = Phase::Done {
            step: Step::Admit,
            output: serde_json::Value::Null,
        };
        Entry {
            at: self.ports.update.clock.now(),
            member: 0,
            phase,
        }
    }

    /// The report of an update from the journal.
    pub(super) async fn report_of(&self, id: &UpdateId) -> Result<UpdateReport, FleetError> {
        let stored = self
            .ports
            .update
            .journal
            .load(id)
            .await?
            .ok_or(JournalError::NoSuchUpdate(*id))?;
        let state = UpdateState::replay(stored.plan, &stored.entries);
        Ok(UpdateReport::new(&state, &stored.entries, None))
    }

    /// The release for each named instance; one that cannot be had is a report.
    async fn resolve_targets(
        &self,
        survey: &Survey,
        request: &UpdateRequest,
    ) -> Result<(Targets, Vec<UpdateReport>), FleetError> {
        let mut targets = Targets::new();
        let mut reports = Vec::new();
        for name in &request.instances {
            let Some(managed) = survey.workload(name) else {
                continue;
            };
            match self
                .release_for(managed.settings, managed.container, &request.to)
                .await
            {
                Ok(release) => {
                    targets.insert(managed.container.id.clone(), release);
                }
                Err(error) => reports.push(no_release(&managed.id()?, &error)),
            }
        }
        Ok((targets, reports))
    }

    async fn refuse_all(
        &self,
        survey: &Survey,
        request: &UpdateRequest,
        refusal: &Refusal,
    ) -> Result<Vec<UpdateReport>, FleetError> {
        let mut reports = Vec::new();
        for name in &request.instances {
            if let Some(managed) = survey.workload(name) {
                reports.push(refused(&managed.id()?, refusal, None));
            }
        }
        Ok(reports)
    }

    /// Records a refusal for people. Nothing was touched.
    async fn refuse(
        &self,
        admission: &Admission,
        instance: &InstanceId,
        refusal: &Refusal,
    ) -> Result<UpdateReport, FleetError> {
        let primary = admission.plan.primary();
        let event = NewEvent {
            tenant: Some(primary.tenant.clone()),
            instance: Some(primary.instance.clone()),
            rollout: admission.plan.rollout,
            data: serde_json::json!({ "code": refusal.code, "reason": refusal.reason, "concerns": instance.to_string() }),
            ..NewEvent::new(
                self.ports.update.clock.now(),
                EventKind::UpdateRefused,
                admission.plan.actor.clone(),
            )
        };
        self.ports.events.record(vec![event]).await?;
        let target = primary
            .target
            .as_ref()
            .map(|target| target.image.digest.to_string());
        let mut report = refused(&primary.instance, refusal, target);
        report.from_digest = Some(admission.from_digest.clone());
        if *instance != primary.instance {
            report.reason = report.reason.map(|reason| format!("{instance}: {reason}"));
        }
        Ok(report)
    }

    fn not_tried(&self, admission: &Admission, targets: &Targets) -> Vec<UpdateReport> {
        let refusal = Refusal::for_now(
            "not_tried",
            "not tried, because an earlier one was not updated",
            "try it again",
        );
        let members = admission
            .plan
            .members
            .iter()
            .filter(|member| targets.contains_key(&member.container));
        members
            .map(|member| refused(&member.instance, &refusal, None))
            .collect()
    }
}

/// The report of a refusal.
fn refused(instance: &InstanceId, refusal: &Refusal, to_digest: Option<String>) -> UpdateReport {
    UpdateReport {
        reason: Some(format!("{}; {}", refusal.reason, refusal.remedy)),
        to_digest,
        refusal: Some(refusal.clone()),
        ..empty_report(instance, Outcome::Refused)
    }
}

fn no_release(instance: &InstanceId, error: &PortError) -> UpdateReport {
    UpdateReport {
        reason: Some(crate::update::error_chain(error)),
        ..empty_report(instance, Outcome::Failed)
    }
}

fn empty_report(instance: &InstanceId, outcome: Outcome) -> UpdateReport {
    UpdateReport {
        id: None,
        instance: instance.clone(),
        outcome: Some(outcome),
        from_digest: None,
        to_digest: None,
        reason: None,
        fault: None,
        refusal: None,
        downtime: None,
        duration: Duration::ZERO,
        snapshot_bytes: 0,
        steps: Vec::new(),
        notes: Vec::new(),
    }
}
