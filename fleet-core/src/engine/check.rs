//! `fleet check`: what is new, asked once and kept for `ps` and the planner.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::lag::{self, max_lag};
use super::rollout::RolloutError;
use super::{Fleet, FleetError, Managed, Survey, alerts};
use crate::detect::{self, Finding, Known, Subject};
use crate::ids::{HostId, InstanceId};
use crate::image::Digest;
use crate::model::Channel;
use crate::plan::mode_of;
use crate::ports::Availability;
use crate::record::{EventKind, NewEvent};
use crate::update::{Outcome, UpdateState};

/// How far back an instance's updates are looked at to notice a tag that moved back.
const HISTORY: u32 = 20;

/// What is told of a finding.
type Told<'a> = (&'a Finding, EventKind, serde_json::Value);

/// What a check found, and what was known before.
struct Look<'a> {
    survey: &'a Survey,
    findings: &'a [Finding],
    earlier: &'a HashMap<&'a InstanceId, &'a Availability>,
}

impl<'a> Look<'a> {
    fn managed(&self, finding: &Finding) -> Option<Managed<'a>> {
        self.survey.workload(finding.instance.name.as_str())
    }

    fn before(&self, finding: &Finding) -> Option<&'a Availability> {
        self.earlier.get(&finding.instance).copied()
    }
}

impl Fleet {
    /// Asks the registries what is new for every managed instance, stores what it found, and records an event for each
    /// digest that is offered for the first time and for each alert that is raised or over. Decides nothing.
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
        let earlier: HashMap<&InstanceId, &Availability> = earlier
            .iter()
            .map(|known| (&known.instance, known))
            .collect();
        let look = Look {
            survey: &survey,
            findings: &findings,
            earlier: &earlier,
        };
        let mut told = self.news(&look).await;
        let (rows, alerts) = self.rows_and_alerts(&look).await?;
        told.extend(alerts);
        let event = |(finding, kind, data): Told<'_>| {
            let managed = look.managed(finding);
            NewEvent {
                data,
                tenant: managed.map(|managed| managed.settings.tenant.clone()),
                instance: Some(finding.instance.clone()),
                ..NewEvent::new(now, kind, actor)
            }
        };
        if !told.is_empty() {
            // Before what follows from it is stored: what is told twice is better than what nobody hears of.
            let events = told.into_iter().map(event).collect();
            self.ports.events.record(events).await?;
        }
        self.ports.availability.found(rows).await?;
        Ok(findings)
    }

    /// Releases that are offered to an instance for the first time, with what is new in them.
    async fn news<'a>(&self, look: &Look<'a>) -> Vec<Told<'a>> {
        let mut told = Vec::new();
        // However many instances a release is news for, it is read once.
        let mut read = BTreeMap::new();
        let news = look
            .findings
            .iter()
            .filter(|finding| finding.is_offered() && is_news(finding, look.before(finding)));
        for finding in news {
            let managed = look.managed(finding);
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
            told.push((finding, EventKind::UpdateAvailable, data));
        }
        told
    }

    /// The findings as they are stored, with the lag of each instance, and what changed about the alerts.
    async fn rows_and_alerts<'a>(
        &self,
        look: &Look<'a>,
    ) -> Result<(Vec<Availability>, Vec<Told<'a>>), FleetError> {
        let settings = self.ports.settings.settings().await?;
        let max_lag = max_lag(&settings).map_err(RolloutError::from)?;
        let tenants = self.ports.configs.list().await?;
        let tenants: HashMap<_, _> = tenants
            .iter()
            .map(|tenant| (&tenant.tenant, &tenant.config))
            .collect();
        let open = self.ports.update.journal.load_open().await?;
        let members = open.iter().flat_map(|update| &update.plan.members);
        let in_update: HashSet<&InstanceId> = members.map(|member| &member.instance).collect();
        let mut rows = Vec::new();
        let mut told = Vec::new();
        for finding in look.findings {
            let before = look.before(finding);
            let mut changes = alerts::changed(finding, before);
            let (managed, row) = (look.managed(finding), finding.availability());
            if let (Some(managed), Some(mut row)) = (managed, row) {
                let earlier = before.and_then(|before| before.lag.as_ref());
                if in_update.contains(&finding.instance) {
                    // What has its name now may go again.
                    row.lag = earlier.cloned();
                } else {
                    let own = managed.settings;
                    let (tenant, policy) = (tenants.get(&own.tenant), own.policy.as_deref());
                    let mode = mode_of(settings.mode, tenant.copied(), own.mode, policy);
                    let allowed = lag::allowed(max_lag, mode, own.min_age);
                    row.lag = lag::lag(finding, earlier, &managed.container.image_id);
                    changes.extend(lag::told(finding, earlier, row.lag.as_mut(), allowed));
                }
                rows.push(row);
            }
            let changes = changes.into_iter();
            told.extend(changes.map(|(kind, data)| (finding, kind, data)));
        }
        Ok((rows, told))
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

fn is_news(finding: &Finding, before: Option<&Availability>) -> bool {
    before.is_none_or(|known| known.digest != finding.digest || known.behind != Some(true))
}
