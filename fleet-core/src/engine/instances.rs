//! `fleet ps`: every instance with what is known of it.

use serde::{Deserialize, Serialize};

use super::{Fleet, FleetError, Survey};
use crate::ids::{ContainerId, InstanceId, TenantId};
use crate::image::ImageRef;
use crate::model::{Channel, Container, EngineHealth, ImageInfo, InstanceSettings, RunState};
use crate::plan::fleet_pause;
use crate::ports::{Availability, Deployed, PortError, StoredUpdate};
use crate::update::{Direction, Outcome, UpdateState};

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Nothing.
    Idle,
    /// An update of it is open.
    Updating,
    /// An update of it is on its way back.
    RollingBack,
    /// An update of it is frozen: a person must decide.
    NeedsOperator,
    /// Somebody else changed it in the middle of an update: a person must decide.
    Diverged,
}

impl InstanceState {
    /// The word in output.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Updating => "updating",
            Self::RollingBack => "rolling_back",
            Self::NeedsOperator => "needs_operator",
            Self::Diverged => "diverged",
        }
    }

    /// The state of an instance with this open update.
    #[must_use]
    pub fn of(update: &UpdateState) -> Self {
        match (update.outcome, update.direction) {
            (Some(Outcome::NeedsOperator), _) => Self::NeedsOperator,
            (Some(Outcome::Diverged), _) => Self::Diverged,
            (_, Direction::Back) => Self::RollingBack,
            (_, Direction::Forward) => Self::Updating,
        }
    }
}

/// One instance as `ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Name.
    pub name: String,
    /// Container.
    pub container_id: ContainerId,
    /// Tenant.
    pub tenant: TenantId,
    /// Channel.
    pub channel: Channel,
    /// `Config.Image`.
    pub image: String,
    /// The digest it runs: as deployed by fleet, else as the engine knows it, else the image id.
    pub digest: String,
    /// Whether it runs.
    pub running: bool,
    /// Health as the engine sees it, none without a HEALTHCHECK.
    pub health: Option<EngineHealth>,
    /// What it is doing.
    pub state: InstanceState,
    /// Whether something newer is known; none: not known.
    pub behind: Option<bool>,
    /// The digest that is available, if it is behind.
    pub available_digest: Option<String>,
    /// Why it is not updated.
    pub holds: Vec<String>,
}

impl Fleet {
    /// Every managed instance, by name. Reads only; needs no lock.
    ///
    /// # Errors
    /// The engine or the store cannot be asked.
    pub async fn instances(&self) -> Result<Vec<InstanceView>, FleetError> {
        let survey = self.survey().await?;
        let open = self.ports.update.journal.load_open().await?;
        let deployed = self.ports.update.journal.deployed().await?;
        let available = self.ports.availability.available().await?;
        let settings = self.ports.settings.settings().await?;
        let held = match fleet_pause(&settings) {
            Some(pause) => Some(pause.to_string()),
            None => self.standstill().await?.map(|refusal| refusal.reason),
        };
        let mut views = Vec::new();
        for managed in survey.managed() {
            let id = managed.id()?;
            let digest = self
                .running_digest(&id, managed.container, &deployed)
                .await?;
            let mut view = view(&survey, &id, managed.container, digest);
            view.state = open
                .iter()
                .find_map(|update| state_in(update, &id))
                .unwrap_or(InstanceState::Idle);
            apply_availability(
                &mut view,
                available.iter().find(|found| found.instance == id),
            );
            view.holds.extend(held.clone());
            views.push(view);
        }
        for update in &open {
            for view in self.between_names(&survey, update) {
                if !views.iter().any(|known| known.name == view.name) {
                    views.push(view);
                }
            }
        }
        views.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(views)
    }

    /// The members of an open update as they are found by container: while it is under way, or frozen, none may have the
    /// instance's name.
    fn between_names(&self, survey: &Survey, update: &StoredUpdate) -> Vec<InstanceView> {
        let state = UpdateState::replay(update.plan.clone(), &update.entries);
        let members = state.plan.members.iter().enumerate();
        members
            .filter_map(|(index, member)| {
                let facts = &state.members[index].facts;
                let here = [Some(state.old_id(index)), facts.candidate.as_ref()];
                let here: Vec<_> = here
                    .into_iter()
                    .flatten()
                    .filter_map(|id| survey.inventory.by_id(id))
                    .collect();
                let container = here
                    .iter()
                    .find(|container| container.is_up())
                    .or(here.first())
                    .copied();
                // Where others took both away, what was frozen is all there is to show.
                let frozen = facts.frozen.as_ref().map(|frozen| {
                    let mut gone = frozen.container.clone();
                    gone.state = RunState::Exited;
                    gone
                });
                let container = container.cloned().or(frozen)?;
                let (settings, _) = InstanceSettings::read(&self.options.label_prefix, &container);
                let digest = container.image_id.to_string();
                let mut view = view_of(&settings, &member.instance, &container, digest);
                view.state = InstanceState::of(&state);
                Some(view)
            })
            .collect()
    }

    /// A workload that fleet does not manage, as `explain` shows it.
    pub(super) async fn unmanaged_view(
        &self,
        survey: &Survey,
        name: &str,
    ) -> Result<InstanceView, FleetError> {
        let managed = survey
            .workload(name)
            .ok_or_else(|| Self::unknown(survey, name))?;
        let id = managed.id()?;
        let digest = self.running_digest(&id, managed.container, &[]).await?;
        Ok(view(survey, &id, managed.container, digest))
    }

    /// The digest that an instance runs: what fleet deployed if that is still the image, else what the engine knows of
    /// its repository, else the image id.
    pub(crate) async fn running_digest(
        &self,
        id: &InstanceId,
        container: &Container,
        deployed: &[Deployed],
    ) -> Result<String, FleetError> {
        let ours = deployed.iter().find(|known| known.instance == *id);
        if let Some(digest) = deployed_digest(ours, container) {
            return Ok(digest);
        }
        let image = self.image_of(container).await?;
        Ok(image_digest(image.as_ref(), container))
    }

    /// What the engine says of a container's image.
    pub(super) async fn image_of(
        &self,
        container: &Container,
    ) -> Result<Option<ImageInfo>, PortError> {
        let id = container.image_id.as_str();
        self.ports.update.images.image(id).await
    }
}

/// What fleet deployed, if that is still the image.
pub(super) fn deployed_digest(known: Option<&Deployed>, container: &Container) -> Option<String> {
    known
        .filter(|known| known.image_id == container.image_id)
        .map(|known| known.digest.to_string())
}

/// What the engine knows an image by: of the container's repository, else of any, else its id.
pub(super) fn image_digest(image: Option<&ImageInfo>, container: &Container) -> String {
    let repository = container
        .image
        .parse::<ImageRef>()
        .ok()
        .map(|image| image.familiar_repository());
    let known = image.and_then(|image| {
        let by_repository = image.repo_digests.iter().find_map(|entry| {
            let (name, digest) = entry.split_once('@')?;
            (Some(name) == repository.as_deref()).then(|| digest.to_owned())
        });
        by_repository.or_else(|| Some(image.repo_digests.first()?.split_once('@')?.1.to_owned()))
    });
    known.unwrap_or_else(|| container.image_id.to_string())
}

fn view(survey: &Survey, id: &InstanceId, container: &Container, digest: String) -> InstanceView {
    view_of(&survey.settings[&container.id], id, container, digest)
}

fn view_of(
    settings: &InstanceSettings,
    id: &InstanceId,
    container: &Container,
    digest: String,
) -> InstanceView {
    InstanceView {
        name: id.to_string(),
        container_id: container.id.clone(),
        tenant: settings.tenant.clone(),
        channel: settings.channel.clone(),
        image: container.image.clone(),
        digest,
        running: container.is_up(),
        health: container.health,
        state: InstanceState::Idle,
        behind: None,
        available_digest: None,
        holds: settings
            .restricted_by
            .iter()
            .map(|label| format!("restricted by label {label}"))
            .collect(),
    }
}

fn state_in(update: &StoredUpdate, id: &InstanceId) -> Option<InstanceState> {
    update
        .plan
        .members
        .iter()
        .any(|member| member.instance == *id)
        .then(|| InstanceState::of(&UpdateState::replay(update.plan.clone(), &update.entries)))
}

fn apply_availability(view: &mut InstanceView, found: Option<&Availability>) {
    let Some(found) = found else { return };
    let digest = found.digest.as_ref().map(ToString::to_string);
    // What was found may be what has been deployed since.
    view.behind = if digest.as_deref() == Some(view.digest.as_str()) {
        Some(false)
    } else {
        found.behind
    };
    if view.behind == Some(true) {
        view.available_digest = digest;
    }
    view.holds.extend(found.note.clone());
}
