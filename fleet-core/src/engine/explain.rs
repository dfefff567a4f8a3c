//! `fleet explain`: why an instance is (not) updated, and where each setting came from.

use super::hours::read_policy;
use super::{Fleet, FleetError, InstanceView, Managed, Survey, UpdateRequest};
use crate::ids::ContainerId;
use crate::model::{
    FrozenSpec, GlobalMode, InstanceSettings, LabelWarning, SnapshotEstimate, UpdateConfig,
};
use crate::plan::effective_mode;
use crate::plan::window::{Policy, WeeklyCalendar};
use crate::ports::PortErrorKind;
use crate::update::{Refusal, group};

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The setting.
    pub setting: &'static str,
    /// Its value, as text.
    pub value: String,
    /// `label`, `tenant`, `channel`, `config` or `default`.
    pub source: &'static str,
}

/// Everything that is known of one instance.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// As `ps` shows it.
    pub view: InstanceView,
    /// Settings with their sources.
    pub settings: Vec<Provenance>,
    /// Labels that were not understood.
    pub warnings: Vec<LabelWarning>,
    /// Instances that move together with it, in the order of starting; itself alone if it is free.
    pub group: Vec<String>,
    /// What would be refused if somebody asked now.
    pub refusals: Vec<Refusal>,
    /// The container as it would be frozen; for the comparison of old and new spec.
    pub frozen: Option<FrozenSpec>,
}

impl Fleet {
    /// Explains an instance. Reads only.
    ///
    /// # Errors
    /// No such instance; the engine or the store cannot be asked.
    pub async fn explain(&self, name: &str) -> Result<Explanation, FleetError> {
        let survey = self.survey().await?;
        let managed = survey
            .workload(name)
            .ok_or_else(|| Self::unknown(&survey, name))?;
        let views = self.instances().await?;
        let view = match views.into_iter().find(|view| view.name == name) {
            Some(view) => view,
            None => self.unmanaged_view(&survey, name).await?,
        };
        let id: ContainerId = managed.container.id.clone();
        let (members, mut refusals) = self.objections_to(&survey, managed).await?;
        let standstill = self.standstill().await?;
        refusals.extend(standstill.filter(|new| refusals.iter().all(|old| old.code != new.code)));
        let names = members.iter().filter_map(|id| survey.inventory.by_id(id));
        Ok(Explanation {
            view,
            settings: self
                .provenance(managed.settings, &managed.container.labels)
                .await?,
            warnings: survey
                .warnings
                .iter()
                .filter(|(of, _)| of == name)
                .map(|(_, w)| w.clone())
                .collect(),
            group: names.map(|container| container.name.clone()).collect(),
            refusals,
            frozen: self.ports.update.runtime.freeze(&id).await.ok(),
        })
    }

    /// A window, with a word on it if the change of the clock swallows it within a week.
    fn with_skipped_warning(&self, window: String) -> String {
        let texts: Vec<&str> = window.split(", ").collect();
        let calendar = WeeklyCalendar::parse(&texts);
        let now = self.ports.update.clock.now();
        match calendar.ok().and_then(|it| it.skipped_warning(now)) {
            Some(warning) => format!("{window} ({warning})"),
            None => window,
        }
    }

    /// What moves together with an instance, and what speaks against any of it, whatever the release.
    async fn objections_to(
        &self,
        survey: &Survey,
        managed: Managed<'_>,
    ) -> Result<(Vec<ContainerId>, Vec<Refusal>), FleetError> {
        let found = group(
            &survey.inventory,
            &survey.settings,
            std::slice::from_ref(&managed.container.id),
        );
        let mut refusals = found.refusals;
        for member in &found.members {
            let estimate = self.estimate_of(survey, member).await?;
            refusals.extend(self.objections_to_one(survey, member, estimate).await?);
        }
        Ok((found.members, refusals))
    }

    /// What speaks against one container, whatever the release and whatever moves with it.
    pub(super) async fn objections_to_one(
        &self,
        survey: &Survey,
        id: &ContainerId,
        estimate: Option<SnapshotEstimate>,
    ) -> Result<Vec<Refusal>, FleetError> {
        let name = survey.inventory.by_id(id).map(|it| it.name.as_str());
        let request = UpdateRequest::asking(name.unwrap_or_default());
        let found = self.refusals(survey, id, None, &request, estimate).await?;
        let mut refusals: Vec<_> = found.into_iter().map(|(_, refusal)| refusal).collect();
        refusals.extend(self.cannot_be_made_again(id).await?);
        Ok(refusals)
    }

    /// A container of which the engine does not know enough to make it again.
    async fn cannot_be_made_again(&self, id: &ContainerId) -> Result<Option<Refusal>, FleetError> {
        match self.ports.update.runtime.freeze(id).await {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() || error.kind() == PortErrorKind::Unsupported => {
                Ok(Some(Refusal::for_good(
                    "not_repeatable",
                    error.message(),
                    "create the container again from an image that is here, then update it",
                )))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The mode that holds, and which of those that say one it is.
    async fn mode_of(
        &self,
        settings: &InstanceSettings,
        tenant: Option<&UpdateConfig>,
    ) -> Result<Provenance, FleetError> {
        let fleet = self.ports.settings.settings().await?.mode;
        let policy = settings.policy.as_deref().and_then(read_policy);
        let policy = policy.map(|(_, policy)| policy);
        let mode_of = |fleet, label, policy| effective_mode(fleet, tenant, label, policy);
        let mode = mode_of(fleet, settings.mode, policy.as_ref());
        let source = if settings.mode == Some(mode) {
            "label"
        } else if tenant.is_some() && mode_of(GlobalMode::Auto, None, None) == mode {
            "tenant"
        } else if policy.is_some() && mode_of(GlobalMode::Auto, None, policy.as_ref()) == mode {
            "label"
        } else if settings.mode.is_none() && tenant.is_none() && policy.is_none() {
            "default"
        } else {
            "config"
        };
        Ok(row("mode", format!("{mode:?}").to_lowercase(), source))
    }

    async fn provenance(
        &self,
        settings: &InstanceSettings,
        labels: &std::collections::BTreeMap<String, String>,
    ) -> Result<Vec<Provenance>, FleetError> {
        let prefix = &self.options.label_prefix;
        let tenant = self.ports.configs.get(&settings.tenant).await?;
        let from_label = |name: &str| labels.contains_key(&format!("{prefix}{name}"));
        let source = |name: &str| if from_label(name) { "label" } else { "default" };
        let health = &settings.health;
        let mut rows = vec![
            row("tenant", settings.tenant.to_string(), source("tenant")),
            row("channel", settings.channel.to_string(), source("channel")),
            row(
                "snapshot",
                format!("{:?}", settings.snapshot).to_lowercase(),
                source("snapshot"),
            ),
            row(
                "health.timeout",
                format!("{:?}", health.timeout),
                source("health.timeout"),
            ),
            row(
                "health.interval",
                format!("{:?}", health.interval),
                source("health.interval"),
            ),
            row(
                "health.min_healthy",
                format!("{:?}", health.min_healthy),
                source("health.min_healthy"),
            ),
            row(
                "health.path",
                health
                    .http
                    .as_ref()
                    .map_or("-", |http| &http.path)
                    .to_owned(),
                source("health.path"),
            ),
            row(
                "source",
                if settings.local_source {
                    "local"
                } else {
                    "registry"
                }
                .to_owned(),
                source("source"),
            ),
            row(
                "tag.policy",
                format!("{:?}", settings.tag_policy).to_lowercase(),
                source("tag.policy"),
            ),
        ];
        rows.push(self.mode_of(settings, tenant.as_ref()).await?);
        rows.extend(policy_of(settings, tenant.as_ref()));
        let (hours, source) = self.hours_of(settings).await?;
        rows.push(row("window", self.with_skipped_warning(hours), source));
        Ok(rows)
    }
}

/// What `fleet.policy` says, if it is there, and why it does not count where it does not.
fn policy_of(settings: &InstanceSettings, tenant: Option<&UpdateConfig>) -> Option<Provenance> {
    let text = settings.policy.as_deref()?;
    let value = match (tenant, text.parse::<Policy>()) {
        (Some(_), _) => format!("{text} (does not count: its tenant has a config)"),
        (None, Ok(_)) => text.to_owned(),
        (None, Err(error)) => format!("{text} (cannot be read: {error})"),
    };
    Some(row("policy", value, "label"))
}

fn row(setting: &'static str, value: String, source: &'static str) -> Provenance {
    Provenance {
        setting,
        value,
        source,
    }
}

impl UpdateRequest {
    /// A request that only asks what would be refused.
    pub(super) fn asking(name: &str) -> Self {
        Self {
            instances: vec![name.to_owned()],
            // Any target serves: what speaks against the instance does not depend on it.
            to: super::Target::Local(any_image()),
            timeout: None,
            override_window: false,
            retry: true,
            actor: String::new(),
            rollout: None,
        }
    }
}

fn any_image() -> crate::ids::ImageId {
    let text = format!("sha256:{}", "0".repeat(64));
    crate::ids::ImageId::new(text).unwrap_or_else(|_| unreachable!("64 zeros are an image id"))
}
