//! `fleet check`: what is new, asked once and kept for `ps` and the planner.

use std::collections::{BTreeMap, HashMap};

use super::{Fleet, FleetError, Managed, alerts};
use crate::detect::{self, Finding, Known, Subject};
use crate::ids::{HostId, InstanceId};
use crate::image::Digest;
use crate::model::Channel;
use crate::ports::Availability;
use crate::record::{EventKind, NewEvent};
use crate::update::{Outcome, UpdateState};

/// How far back an instance's updates are looked at to notice a tag that moved back.
const HISTORY: u32 = 20;

impl Fleet {
    /// Asks the registries what is new for every managed instance, stores what it found, and records an event for each
    /// digest that is offered for the first time. Decides nothing.
    ///
    /// # Errors
    /// The engine or the store cannot be asked. A registry that fails is no error but [`detect::Verdict::Unknown`].
    pub async fn check(&self, actor: &str) -> Result<Vec<Finding>, FleetError> {
        self.check_those(actor, &|_| true).await
    }

    /// The same for the instances of some channels only.
    pub(super) async fn check_those(
        &self,
        actor: &str,
        is_asked: &(dyn Fn(&Channel) -> bool + Sync),
    ) -> Result<Vec<Finding>, FleetError> {
        let survey = self.survey().await?;
        let host = HostId::local();
        let followed = survey
            .followed()
            .filter(|managed| is_asked(&managed.settings.channel));
        let subjects: Vec<Subject> = followed
            .filter_map(|managed| Subject::new(&host, managed.container, managed.settings))
            .collect();
        let earlier = self.ports.availability.available().await?;
        let known = self.known(&subjects, &earlier).await?;
        let update = &self.ports.update;
        let platform = update.runtime.info().await?.platform;
        let now = update.clock.now();
        let releases = self.ports.releases.as_ref();
        let images = update.images.as_ref();
        let findings = detect::check_all(releases, images, &platform, &subjects, &known, now).await;
        let rows = findings.iter().filter_map(Finding::availability);
        self.ports.availability.found(rows.collect()).await?;
        let earlier: HashMap<&InstanceId, &Availability> = earlier
            .iter()
            .map(|known| (&known.instance, known))
            .collect();
        let before = |finding: &Finding| earlier.get(&finding.instance).copied();
        let mut events = Vec::new();
        // However many instances a release is news for, it is read once.
        let mut read = BTreeMap::new();
        let news = findings
            .iter()
            .filter(|finding| finding.is_offered() && is_news(finding, before(finding)));
        for finding in news {
            let managed = survey.workload(finding.instance.name.as_str());
            let path = managed.map_or("", |managed| managed.settings.changelog.as_str());
            let key = (finding.digest.clone(), path);
            if !read.contains_key(&key) {
                let changelog = match &finding.release {
                    Some(release) => self.news_of(release, path).await,
                    None => None,
                };
                read.insert(key.clone(), changelog);
            }
            let data = serde_json::json!({
                "image": finding.image,
                "digest": finding.digest,
                "changelog": read[&key],
            });
            let event = NewEvent {
                data,
                ..NewEvent::new(now, EventKind::UpdateAvailable, actor)
            };
            events.push(about(finding, managed, event));
        }
        for finding in &findings {
            let changes = alerts::changed(finding, before(finding));
            if changes.is_empty() {
                continue;
            }
            let managed = survey.workload(finding.instance.name.as_str());
            let event = |(kind, data)| {
                about(
                    finding,
                    managed,
                    NewEvent {
                        data,
                        ..NewEvent::new(now, kind, actor)
                    },
                )
            };
            events.extend(changes.into_iter().map(event));
        }
        if !events.is_empty() {
            self.ports.events.record(events).await?;
        }
        Ok(findings)
    }

    async fn known(
        &self,
        subjects: &[Subject],
        earlier: &[Availability],
    ) -> Result<Known, FleetError> {
        let journal = &self.ports.update.journal;
        let mut known = Known::new()
            .with_policy(self.options.image_policy.clone())
            .with_deployed(journal.deployed().await?)
            .with_findings(earlier);
        for subject in subjects {
            let former = self.former(&subject.instance).await?;
            known = known
                .with_quarantined(journal.quarantined(&subject.instance).await?)
                .with_former(&subject.instance, former);
        }
        Ok(known)
    }

    /// What an instance ran before what runs now, as far as updates of fleet brought it there or took it away: digests
    /// and image ids.
    async fn former(&self, instance: &InstanceId) -> Result<Vec<Digest>, FleetError> {
        let history = self.ports.update.journal.history(instance, HISTORY).await?;
        let committed = history
            .into_iter()
            .filter(|update| update.outcome == Some(Outcome::Committed));
        let mut brought = Vec::new();
        let mut left = Vec::new();
        for update in committed {
            let state = UpdateState::replay(update.plan, &update.entries);
            let members = state.plan.members.iter().zip(&state.members);
            for (member, found) in members.filter(|(member, _)| member.instance == *instance) {
                let target = member.target.as_ref();
                brought.extend(target.map(|target| target.image.digest.clone()));
                let before = found.facts.frozen.as_ref().map(|it| &it.container.image_id);
                left.extend(before.and_then(|id| id.as_str().parse::<Digest>().ok()));
            }
        }
        // Newest first: the first one is what runs.
        Ok(brought.into_iter().skip(1).chain(left).collect())
    }
}

/// An event with the instance and the tenant that a finding is about.
fn about(finding: &Finding, managed: Option<Managed<'_>>, event: NewEvent) -> NewEvent {
    NewEvent {
        tenant: managed.map(|managed| managed.settings.tenant.clone()),
        instance: Some(finding.instance.clone()),
        ..event
    }
}

fn is_news(finding: &Finding, before: Option<&Availability>) -> bool {
    before.is_none_or(|known| known.digest != finding.digest || known.behind != Some(true))
}
