//! Calls that both sides are asked.

use std::time::Duration;

use fleet_core::ids::{ContainerId, ImageId, UpdateId, VolumeName};
use fleet_core::model::{Container, RestartPolicy};
use fleet_core::ports::{
    CandidateRequest, ContainerRuntime, CreateRequest, ImageStore, PortError, PortErrorKind,
};
use fleet_core::testing::SeedRng;
use fleet_core::time::Timestamp;

/// Names and tags are numbers into short lists, containers are numbers in the order of their making.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Create {
        from: usize,
        name: usize,
        tag: usize,
    },
    Start(usize),
    Stop(usize),
    Rename(usize, usize),
    Policy(usize, RestartPolicy),
    Remove(usize),
    Find(usize),
    Freeze(usize),
    Image(usize),
    Tag {
        from: usize,
        to: usize,
    },
    Untag(usize),
    RemoveVolume,
    Logs(usize),
}

/// Names of containers, tags that have an image at the start, tags that have none.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    pub(crate) names: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) volume: String,
}

pub(crate) const NAMES: usize = 3;
/// The last one has no image at the start.
pub(crate) const TAGS: usize = 3;

impl Call {
    pub(crate) fn random(rng: &mut SeedRng, slots: usize) -> Self {
        let mut below =
            |limit: usize| usize::try_from(rng.below(limit as u64)).expect("a small number fits");
        let slot = below(slots);
        match below(20) {
            0..3 => Self::Create {
                from: slot,
                name: below(NAMES),
                tag: below(TAGS - 1),
            },
            3..6 => Self::Start(slot),
            6..9 => Self::Stop(slot),
            9..12 => Self::Rename(slot, below(NAMES)),
            12 | 13 => Self::Policy(
                slot,
                match below(4) {
                    0 => RestartPolicy::No,
                    1 => RestartPolicy::Always,
                    2 => RestartPolicy::UnlessStopped,
                    _ => RestartPolicy::OnFailure { max_retries: 2 },
                },
            ),
            14 | 15 => Self::Remove(slot),
            16 => Self::Find(below(NAMES)),
            17 => Self::Freeze(slot),
            18 => match below(3) {
                0 => Self::Image(below(TAGS)),
                1 => Self::Tag {
                    from: below(TAGS),
                    to: below(TAGS),
                },
                _ => Self::Untag(TAGS - 1),
            },
            _ => match below(2) {
                0 => Self::RemoveVolume,
                _ => Self::Logs(slot),
            },
        }
    }

    /// Asks an engine; containers that it makes are added to `slots`. The answer is only its class and what both
    /// sides can share.
    pub(crate) async fn ask(
        &self,
        engine: &(impl ContainerRuntime + ImageStore),
        words: &Words,
        slots: &mut Vec<ContainerId>,
    ) -> String {
        let id = |slot: &usize| slots[*slot].clone();
        let answer = match self {
            Self::Create { from, name, tag } => {
                let from = id(from);
                return create(engine, words, slots, &from, *name, *tag).await;
            }
            Self::Start(slot) => engine
                .start(&id(slot))
                .await
                .map(|started| format!("running {}", started.running)),
            Self::Stop(slot) => engine
                .stop(&id(slot), Some(Duration::from_secs(20)))
                .await
                .map(|stopped| format!("exit {:?}", stopped.exit_code)),
            Self::Rename(slot, name) => engine.rename(&id(slot), &words.names[*name]).await.map(ok),
            Self::Policy(slot, policy) => {
                engine.set_restart_policy(&id(slot), *policy).await.map(ok)
            }
            Self::Remove(slot) => engine.remove(&id(slot)).await.map(ok),
            Self::Find(name) => {
                let found = engine.find(&words.names[*name]).await;
                found.map(|found| found.map_or_else(|| "nothing".to_owned(), |one| show(&one)))
            }
            Self::Freeze(slot) => engine.freeze(&id(slot)).await.map(|frozen| {
                format!(
                    "{} tag {}",
                    show(&frozen.container),
                    frozen.tag_image.is_some()
                )
            }),
            Self::Image(tag) => engine
                .image(&words.tags[*tag])
                .await
                .map(|image| format!("there {}", image.is_some())),
            Self::Tag { from, to } => tag(engine, words, *from, *to).await,
            Self::Untag(tag) => engine.untag(&words.tags[*tag]).await.map(ok),
            Self::RemoveVolume => {
                let volume = VolumeName::new(&words.volume).expect("a volume name");
                engine.remove_volume(&volume).await.map(ok)
            }
            Self::Logs(slot) => engine
                .logs_tail(&id(slot), 5)
                .await
                .map(|_| "text".to_owned()),
        };
        answer.unwrap_or_else(|error| class(&error))
    }
}

fn ok(_: ()) -> String {
    "ok".to_owned()
}

async fn image_of(
    engine: &impl ImageStore,
    words: &Words,
    tag: usize,
) -> Result<Option<ImageId>, PortError> {
    let image = engine.image(&words.tags[tag]).await?;
    Ok(image.map(|image| image.id))
}

async fn tag(
    engine: &impl ImageStore,
    words: &Words,
    from: usize,
    to: usize,
) -> Result<String, PortError> {
    let Some(image) = image_of(engine, words, from).await? else {
        return Ok("no image".to_owned());
    };
    // The tags that are made from stay as they are; only the last one moves.
    let to = if to < TAGS - 1 { TAGS - 1 } else { to };
    engine.tag(&image, &words.tags[to]).await.map(ok)
}

async fn create(
    engine: &(impl ContainerRuntime + ImageStore),
    words: &Words,
    slots: &mut Vec<ContainerId>,
    from: &ContainerId,
    name: usize,
    tag: usize,
) -> String {
    let made = async {
        let frozen = engine.freeze(from).await?;
        let Some(image_id) = image_of(engine, words, tag).await? else {
            return Ok(None);
        };
        let request = CandidateRequest {
            update: UpdateId::new(Timestamp::UNIX_EPOCH, [7; 10]),
            name: words.names[name].clone(),
            frozen,
            image_id,
            image: words.tags[tag].clone(),
            repoint: Vec::new(),
        };
        let request = CreateRequest::Candidate(Box::new(request));
        engine.create(&request).await.map(Some)
    };
    match made.await {
        Ok(Some(created)) => {
            slots.push(created.id);
            format!("made, {} new volumes", created.new_volumes.len())
        }
        Ok(None) => "no image".to_owned(),
        Err(error) => class(&error),
    }
}

/// A container as both sides can show it: no ids, no times, nothing that depends on the host.
pub(crate) fn show(container: &Container) -> String {
    format!(
        "{} {:?} {:?} exit {:?} up {} ran {} from {} mounts {}",
        container.name,
        container.state,
        container.restart_policy,
        container
            .exit_code
            .filter(|_| container.started_at.is_some() && !container.is_up()),
        container.is_up(),
        container.started_at.is_some(),
        container.image,
        container.mounts.len()
    )
}

fn class(error: &PortError) -> String {
    match error.kind() {
        PortErrorKind::RateLimited { .. } => "RateLimited".to_owned(),
        kind => format!("{kind:?}"),
    }
}
