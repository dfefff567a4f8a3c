//! Admission: what an update would do, and what speaks against it, before anything is written or touched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Fleet, FleetError, Managed, Survey, UpdateRequest};
use crate::ids::{ContainerId, ImageId, InstanceId, SnapshotId, UpdateId};
use crate::image::{Digest, ImageRef};
use crate::model::{
    Container, InstanceSettings, MountKind, Release, SnapshotChoice, SnapshotEstimate,
};
use crate::ports::{JournalError, PortError, PortErrorKind};
use crate::update::{MemberPlan, Refusal, Subject, UpdatePlan, groups, preflight};

/// One update as it would be done.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The plan.
    pub plan: UpdatePlan,
    /// What speaks against it, with the instance it concerns; empty: it may begin.
    pub refusals: Vec<(InstanceId, Refusal)>,
    /// What the target runs now.
    pub from_digest: String,
}

/// Which releases go where.
pub(super) type Targets = BTreeMap<ContainerId, Release>;

impl Fleet {
    /// The updates that bring these containers to their releases: one for each set that must move together.
    pub(super) async fn admit(
        &self,
        survey: &Survey,
        targets: &Targets,
        request: &UpdateRequest,
    ) -> Result<Vec<Admission>, FleetError> {
        let mut admissions = Vec::new();
        let updated: Vec<ContainerId> = targets.keys().cloned().collect();
        for found in groups(&survey.inventory, &survey.settings, &updated) {
            let mut plan = self.plan(survey, &found.members, targets, request)?;
            let from_digest = self.note_what_runs(survey, &mut plan).await?;
            let primary = plan.primary().instance.clone();
            let mut refusals: Vec<_> = found
                .refusals
                .into_iter()
                .map(|refusal| (primary.clone(), refusal))
                .collect();
            for id in &found.members {
                let estimate = self.estimate_of(survey, id).await?;
                let target = targets.get(id);
                let found = self.refusals(survey, id, target, request, estimate);
                refusals.extend(found.await?);
            }
            admissions.push(Admission {
                plan,
                refusals,
                from_digest,
            });
        }
        Ok(admissions)
    }

    /// Writes down what the members run that get a release: a rollout may have to take them back to it. Gives the digest
    /// of the one that the update is about.
    async fn note_what_runs(
        &self,
        survey: &Survey,
        plan: &mut UpdatePlan,
    ) -> Result<String, FleetError> {
        let deployed = self.ports.update.journal.deployed().await?;
        let mut primary = None;
        let updated = plan.members.iter_mut();
        for member in updated.filter(|member| member.target.is_some()) {
            let Some(container) = survey.inventory.by_id(&member.container) else {
                continue;
            };
            let runs = self
                .running_digest(&member.instance, container, &deployed)
                .await?;
            let image = container.image.parse::<ImageRef>().ok();
            let digest = runs.parse::<Digest>().ok();
            member.before = image
                .zip(digest)
                .map(|(image, digest)| image.pinned(digest));
            primary.get_or_insert(runs);
        }
        Ok(primary.unwrap_or_default())
    }

    fn plan(
        &self,
        survey: &Survey,
        members: &[ContainerId],
        targets: &Targets,
        request: &UpdateRequest,
    ) -> Result<UpdatePlan, FleetError> {
        let members = members
            .iter()
            .filter_map(|id| {
                survey
                    .inventory
                    .by_id(id)
                    .map(|container| (container, &survey.settings[id]))
            })
            .map(|(container, settings)| {
                self.member(container, settings, targets.get(&container.id), request)
            })
            .collect::<Result<Vec<_>, FleetError>>()?;
        Ok(UpdatePlan {
            saga: UpdatePlan::SAGA,
            id: UpdateId::new(
                self.ports.update.clock.now(),
                self.ports.update.entropy.bytes(),
            ),
            actor: request.actor.clone(),
            rollout: request.rollout,
            members,
            keep_snapshots: self.options.keep_snapshots,
            snapshot_max_age: self.options.snapshot_max_age,
            shared_guard: None,
        })
    }

    fn member(
        &self,
        container: &Container,
        settings: &InstanceSettings,
        target: Option<&Release>,
        request: &UpdateRequest,
    ) -> Result<MemberPlan, FleetError> {
        let managed = Managed {
            name: &container.name,
            container,
            settings,
        };
        let mut health = settings.health.clone();
        if let Some(timeout) = request.timeout {
            health.timeout = timeout;
        }
        Ok(MemberPlan {
            instance: managed.id()?,
            tenant: settings.tenant.clone(),
            container: container.id.clone(),
            image: target.map_or_else(
                || container.image.clone(),
                |target| new_image(container, target),
            ),
            before: None,
            target: target.cloned(),
            health,
            stop_grace: settings.stop_timeout,
            snapshot: settings.snapshot.clone(),
            snapshot_id: SnapshotId::new(
                self.ports.update.clock.now(),
                self.ports.update.entropy.bytes(),
            ),
            pre_hook: settings.pre_update.clone(),
            post_hook: settings.post_update.clone(),
            discard_writable_layer: settings.discard_writable_layer,
        })
    }

    /// Everything that speaks against one member, of whose snapshot this is the estimate.
    pub(super) async fn refusals(
        &self,
        survey: &Survey,
        id: &ContainerId,
        target: Option<&Release>,
        request: &UpdateRequest,
        estimate: Option<SnapshotEstimate>,
    ) -> Result<Vec<(InstanceId, Refusal)>, FleetError> {
        let Some(container) = survey.inventory.by_id(id) else {
            return Ok(Vec::new());
        };
        let settings = &survey.settings[id];
        let instance = Managed {
            name: &container.name,
            container,
            settings,
        }
        .id()?;
        let layer = self.ports.update.runtime.writable_layer(id).await?;
        let subject = Subject {
            container,
            settings,
            writable_layer: &layer,
            estimate,
            own_container: self.options.own_container.as_ref(),
        };
        let mut refusals = preflight(&subject);
        if let Some(target) = target {
            refusals.extend(self.quarantine(&instance, target, request).await?);
            refusals.extend(pinned(settings, target));
            refusals.extend(self.distrust(settings, target).await?);
        }
        refusals.extend(self.distrust_of_way_back(container));
        refusals.extend(self.another_fleet(survey, &instance).await?);
        refusals.extend(self.outside_window(settings, request).await?);
        Ok(refusals
            .into_iter()
            .map(|refusal| (instance.clone(), refusal))
            .collect())
    }

    /// What a snapshot of a container's volumes would need; none where nothing is copied, or where it is gone.
    pub(super) async fn estimate_of(
        &self,
        survey: &Survey,
        id: &ContainerId,
    ) -> Result<Option<SnapshotEstimate>, FleetError> {
        match survey.inventory.by_id(id) {
            Some(container) => {
                let choice = &survey.settings[id].snapshot;
                self.estimate(container, choice).await
            }
            None => Ok(None),
        }
    }

    pub(super) async fn estimate(
        &self,
        container: &Container,
        choice: &SnapshotChoice,
    ) -> Result<Option<SnapshotEstimate>, FleetError> {
        let mut volumes = Vec::new();
        for mount in container
            .mounts
            .iter()
            .filter(|mount| *choice != SnapshotChoice::None && mount.writable)
        {
            if let MountKind::Volume { name, driver, .. } = &mount.kind
                && driver == "local"
            {
                volumes.extend(self.ports.update.runtime.volume(name).await?);
            }
        }
        if volumes.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.ports.update.snapshots.estimate(&volumes).await?))
    }

    async fn quarantine(
        &self,
        instance: &InstanceId,
        target: &Release,
        request: &UpdateRequest,
    ) -> Result<Option<Refusal>, JournalError> {
        if request.retry {
            return Ok(None);
        }
        let quarantined = self.ports.update.journal.quarantined(instance).await?;
        Ok(quarantined
            .into_iter()
            .find(|known| known.digest == target.image.digest)
            .map(|known| {
                Refusal::for_good(
                    "quarantined",
                    format!(
                        "digest {} failed here before: {}",
                        known.digest.short(),
                        known.reason
                    ),
                    "wait for the next release, or try it once more with --retry",
                )
            }))
    }

    /// The release under a reference for a container: in the engine itself for the local source, else at the registry.
    pub(super) async fn release_for(
        &self,
        settings: &InstanceSettings,
        container: &Container,
        to: &Target,
    ) -> Result<Release, PortError> {
        match to {
            Target::Local(id) => self.local_release(id.as_str(), container).await,
            Target::Reference(image) if settings.local_source => {
                self.local_release(&image.to_string(), container).await
            }
            Target::Reference(image) => {
                let platform = self.ports.update.runtime.info().await?.platform;
                self.ports.releases.resolve(image, &platform).await
            }
        }
    }

    async fn local_release(
        &self,
        reference: &str,
        container: &Container,
    ) -> Result<Release, PortError> {
        let bad =
            |kind, message: String| PortError::new("find the release in the engine", kind, message);
        let found = self.ports.update.images.image(reference).await?;
        let image = found.ok_or_else(|| {
            bad(
                PortErrorKind::NotFound,
                format!("the engine has no image {reference}; load or build it first"),
            )
        })?;
        let digest: Digest = image.id.as_str().parse().map_err(|_| {
            bad(
                PortErrorKind::Invalid,
                format!("expected an image id, found {}", image.id),
            )
        })?;
        // The text of an image id reads as a repository and a tag, too, and is neither.
        let named = match ImageId::new(reference) {
            Ok(_) => container.image.parse::<ImageRef>(),
            Err(_) => reference.parse().or_else(|_| container.image.parse()),
        };
        let named = named.map_err(|error| bad(PortErrorKind::Invalid, error.to_string()))?;
        Ok(Release {
            image: named.pinned(digest.clone()),
            platform_digest: digest.clone(),
            config_digest: Some(digest),
            local: Some(image.id),
            pushed_at: None,
            size_bytes: 0,
            annotations: image.labels,
        })
    }
}

/// What a person names as the target of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A reference.
    Reference(ImageRef),
    /// An image that the engine has, by id.
    Local(ImageId),
}

impl std::str::FromStr for Target {
    type Err = crate::image::ImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match ImageId::new(text) {
            Ok(id) => Ok(Self::Local(id)),
            Err(_) => text.parse().map(Self::Reference),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = crate::image::ImageError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        match target {
            Target::Reference(image) => image.to_string(),
            Target::Local(id) => id.to_string(),
        }
    }
}

/// What `Config.Image` of the new container reads: `repository:tag` of the target; for a bare digest or image id the
/// container's own.
fn new_image(container: &Container, target: &Release) -> String {
    let image = &target.image.image;
    let same = container
        .image
        .parse::<ImageRef>()
        .is_ok_and(|old| old.same_repository(image));
    match image.familiar_tag() {
        Some(tag) => tag,
        None if same => container.image.clone(),
        None => target.image.by_digest(),
    }
}

/// `fleet.pin` keeps an instance on a digest or tag; another target is refused.
fn pinned(settings: &InstanceSettings, target: &Release) -> Option<Refusal> {
    let pin = settings.pin.as_deref()?;
    let image = &target.image;
    if pin == image.digest.as_str() || Some(pin) == image.image.tag() {
        return None;
    }
    Some(Refusal::for_good(
        "pinned",
        format!("pinned to {pin} by the label fleet.pin, asked for {image}"),
        "change or remove the label",
    ))
}
